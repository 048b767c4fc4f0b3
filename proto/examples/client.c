/* A poold client in C, written from PROTOCOL.md alone. Build: cc -O2 -Wall -Wextra -o client client.c
 *
 *     printf '%s\n' 'call 1 text.summarize 2000 {"text": "One. Two."}' 'call 2 pool.method 0 @body.bin' 'cancel 2' | ./client SOCKET
 *
 * call ID METHOD BUDGET_MS BODY: sends a call and goes on (BODY @PATH: a file's bytes; BUDGET_MS 0: the pool's default); cancel ID; ping;
 * methods; wait: until all are answered. Answers are printed as they come, in any order: `ID result BODY`, `ID error STATUS TEXT`. */
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { HELLO = 1, WELCOME, METHODS, CALL, RESULT, ERROR = 7, CANCEL, PING = 11, PONG, DRAIN, END = 1, NAMED = 8 };
static int fd, welcomed, unanswered, pings, method_count;
static unsigned long largest = 1 << 20; /* until WELCOME names another */
static struct { uint16_t number; uint8_t codec; char name[256]; } methods[4096];
static uint8_t *out; static size_t out_size; /* frames that poold has not taken yet */

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr), exit(1);
}

static unsigned long get(const uint8_t *at, int bytes) { /* big-endian */
    unsigned long value = 0;
    while (bytes--) value = value << 8 | *at++;
    return value;
}

static void put(uint8_t *at, int bytes, unsigned long value) {
    while (bytes--) at[bytes] = value, value >>= 8;
}

static void add_frame(int type, int flags, unsigned code, unsigned long id, unsigned long time, const void *body, size_t size) {
    if (!(out = realloc(out, out_size + 32 + size))) die("no memory for %zu bytes", size);
    uint8_t *frame = memset(out + out_size, 0, 32); /* session stays 0 */
    frame[4] = type, frame[5] = flags;
    put(frame, 4, 28 + size), put(frame + 6, 2, code), put(frame + 8, 8, id), put(frame + 24, 8, time);
    if (size) memcpy(frame + 32, body, size);
    out_size += 32 + size;
}

static void receive(void *to, size_t size) {
    for (ssize_t n; size; to = (char *)to + n, size -= n)
        if ((n = recv(fd, to, size, 0)) <= 0) die("poold closed the connection; %d calls are unanswered", unanswered);
}

static void learn(const uint8_t *list, const uint8_t *end) {
    const uint8_t *at = list + 2;
    for (int left = end - list < 2 ? 0 : get(list, 2); left; left--, at += 5 + at[4]) {
        if (end - at < 5 || end - at < 5 + at[4]) die("the method list ends inside an entry");
        int place = 0, is_withdrawn = at[3] & 1;
        while (place < method_count && methods[place].number != get(at, 2)) place++;
        if (place == 4096) continue; /* callable by name */
        if (place == method_count) method_count++;
        methods[place].number = get(at, 2), methods[place].codec = at[2];
        snprintf(methods[place].name, 256, "%.*s", is_withdrawn ? 0 : at[4], at + 5);
    }
}

static void read_frame(void) {
    uint8_t header[32];
    receive(header, 32);
    unsigned long size = get(header, 4) - 28, code = get(header + 6, 2), id = get(header + 8, 8);
    if (get(header, 4) < 28 || size > largest) die("poold sent a frame of length %lu", get(header, 4));
    uint8_t *body = calloc(1, size + 1);
    if (!body) die("no memory for %lu bytes", size);
    receive(body, size);
    switch (header[4]) {
    case WELCOME:
        if (size < 18) die("WELCOME has only %lu bytes", size);
        largest = get(body + 8, 4), welcomed = 1;
        learn(body + 16, body + size);
        break;
    case METHODS: learn(body, body + size); break;
    case RESULT:
        printf("%lu result ", id);
        fwrite(body, 1, size, stdout);
        putchar('\n'), unanswered--;
        break;
    case ERROR:
        if (id == 0) die("poold ends the connection: status %lu: %s", code, body);
        printf("%lu error %lu %s\n", id, code, body), unanswered--;
        break;
    case PING: add_frame(PONG, 0, 0, id, get(header + 24, 8), body, size); break;
    case PONG: printf("pong %s\n", body), pings--; break;
    case DRAIN: printf("draining: new calls belong on a new connection\n"); break;
    default: die("poold sent a frame of type %u", header[4]);
    }
    free(body);
}

/* Writes or reads, whatever can be done now: who does not read is read no further in the end. */
static void step(void) {
    struct pollfd ready = {.fd = fd, .events = POLLIN | (out_size ? POLLOUT : 0)};
    if (poll(&ready, 1, -1) < 0) die("poll failed");
    if (ready.revents & ~POLLOUT) { read_frame(); return; }
    ssize_t n = send(fd, out, out_size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) die("poold closed the connection");
    memmove(out, out + n, out_size -= n);
}

static void call(unsigned long id, const char *method, unsigned long milliseconds, char *text) {
    size_t size = strlen(text), name = strlen(method);
    FILE *file = text[0] == '@' ? fopen(text + 1, "rb") : NULL;
    if (text[0] == '@' && !file) die("cannot read %s", text + 1);
    if (file) fseek(file, 0, SEEK_END), size = ftell(file), rewind(file);
    if (1 + name + size > largest) die("call %lu is too large: poold takes %lu bytes", id, largest);
    char *body = malloc(1 + name + size), *payload = body + 1 + name;
    if (file && fread(payload, 1, size, file) != size) die("cannot read %s", text + 1);
    if (file) fclose(file); else memcpy(payload, text, size);
    body[0] = name, memcpy(body + 1, method, name);
    int known = 0;
    while (known < method_count && strcmp(methods[known].name, method)) known++;
    if (known < method_count) add_frame(CALL, END, methods[known].number, id, milliseconds * 1000000, payload, size);
    else add_frame(CALL, END | NAMED, 0, id, milliseconds * 1000000, body, 1 + name + size);
    unanswered++;
    free(body);
}

int main(int count, char **arguments) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (count != 2 || strlen(arguments[1]) >= sizeof address.sun_path) die("usage: client SOCKET < commands");
    strcpy(address.sun_path, arguments[1]);
    if ((fd = socket(AF_UNIX, SOCK_STREAM, 0)) < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) die("no poold on %s", arguments[1]);
    add_frame(HELLO, 0, 0, 0, 0, "\0\1\0\1\0\0\0\0\6client", 15); /* versions 1 to 1, no features, a name */
    while (!welcomed) step();
    char *line = NULL, method[256];
    unsigned long id, milliseconds;
    size_t room = 0;
    for (ssize_t n; (n = getline(&line, &room, stdin)) > 0;) {
        int at = 0;
        if (line[n - 1] == '\n') line[n - 1] = 0;
        if (sscanf(line, "call %lu %255s %lu %n", &id, method, &milliseconds, &at) == 3 && at) call(id, method, milliseconds, line + at);
        else if (sscanf(line, "cancel %lu", &id) == 1) add_frame(CANCEL, 0, 0, id, 0, NULL, 0);
        else if (!strcmp(line, "ping")) add_frame(PING, 0, 0, 1, 0, "there?", 6), pings++;
        else if (!strcmp(line, "methods")) for (int i = 0; i < method_count; i++) printf("%u %u %s\n", methods[i].number, methods[i].codec, methods[i].name);
        else if (strcmp(line, "wait")) die("unknown command: %s", line);
        while (out_size || (!strcmp(line, "wait") && unanswered)) step();
    }
    while (unanswered || pings) step();
    return 0;
}
