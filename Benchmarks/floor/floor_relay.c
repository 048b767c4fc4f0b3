// The floor: the smallest relay that could work. poold's frames in, one call at a time to each worker, the answer back.
// No queue policy, no limits, no deadlines, no supervision. usage: floor_relay SOCKET WORKERS COMMAND ARGUMENTS…
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct peer { int fd, worker, queued, want_out; struct peer *partner, *next; uint8_t *in, *out; size_t in_len, in_cap, out_len, out_at, out_cap; } peer;
static int ep, worker_count;
static peer **workers, *head, *tail;
static uint8_t scratch[256 << 10];

static void die(const char *what) { perror(what); exit(1); }
static size_t frame(const uint8_t *p, size_t n) {   // whole length of the frame at p, 0: header incomplete
    return n < 4 ? 0 : 4 + ((size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3]);
}
static void put(uint8_t **b, size_t *len, size_t *cap, const uint8_t *p, size_t n) {
    if (*len + n > *cap) { *cap = (*len + n) * 2; *b = realloc(*b, *cap); if (!*b) die("memory"); }
    memcpy(*b + *len, p, n);
    *len += n;
}
static void interest(peer *p, int out) {
    if (p->want_out == out) return;
    p->want_out = out;
    struct epoll_event e = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = p};
    epoll_ctl(ep, EPOLL_CTL_MOD, p->fd, &e);
}
static void flush_out(peer *p) {
    while (p->out_at < p->out_len) {
        ssize_t w = send(p->fd, p->out + p->out_at, p->out_len - p->out_at, MSG_NOSIGNAL);
        if (w < 0) { if (errno == EAGAIN) interest(p, 1); return; }
        p->out_at += (size_t)w;
    }
    p->out_len = p->out_at = 0;
    interest(p, 0);
}
static void deliver(peer *p, const uint8_t *b, size_t n) {
    if (p->fd < 0) return;
    if (!p->out_len) {
        ssize_t w = send(p->fd, b, n, MSG_NOSIGNAL);
        if (w == (ssize_t)n) return;
        if (w < 0) { if (errno != EAGAIN) return; w = 0; }
        b += w;
        n -= (size_t)w;
    }
    put(&p->out, &p->out_len, &p->out_cap, b, n);
    flush_out(p);
}
static peer *idle(void) {
    for (int i = 0; i < worker_count; i++) if (!workers[i]->partner) return workers[i];
    return NULL;
}
static void enqueue(peer *p) {
    if (p->queued) return;
    p->queued = 1;
    p->next = NULL;
    if (tail) tail->next = p; else head = p;
    tail = p;
}
static void consume(peer *p, size_t n) { memmove(p->in, p->in + n, p->in_len -= n); if (!p->in_len) { free(p->in); p->in = NULL; p->in_cap = 0; } }
static void dispatch(void) {
    peer *w;
    while (head && (w = idle())) {
        peer *c = head;
        if (!(head = c->next)) tail = NULL;
        c->queued = 0;
        size_t f = frame(c->in, c->in_len);
        if (c->fd < 0 || !f || f > c->in_len) continue;
        w->partner = c;
        deliver(w, c->in, f);
        consume(c, f);
        f = frame(c->in, c->in_len);
        if (f && f <= c->in_len) enqueue(c);
    }
}
static size_t take(peer *p, uint8_t *b, size_t n) {   // whole frames out of b; returns the bytes used
    size_t at = 0, f;
    while ((f = frame(b + at, n - at)) && at + f <= n) {
        if (p->worker) {
            peer *c = p->partner;
            p->partner = NULL;
            if (c) deliver(c, b + at, f);
            dispatch();
        } else {
            peer *w = head ? NULL : idle();
            if (!w) { enqueue(p); break; }
            w->partner = p;
            deliver(w, b + at, f);
        }
        at += f;
    }
    return at;
}
static void on_input(peer *p) {
    ssize_t n = recv(p->fd, scratch, sizeof scratch, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (p->worker) { fprintf(stderr, "floor_relay: a worker died\n"); exit(1); }
        close(p->fd);   // the peer itself stays: a worker may hold its call
        p->fd = -1;
        return;
    }
    if (!p->in_len) {
        size_t at = take(p, scratch, (size_t)n);
        if (at < (size_t)n) put(&p->in, &p->in_len, &p->in_cap, scratch + at, (size_t)n - at);
        return;
    }
    put(&p->in, &p->in_len, &p->in_cap, scratch, (size_t)n);
    if (p->queued) return;
    size_t at = take(p, p->in, p->in_len);
    if (at) consume(p, at);
}
static peer *add(int fd, int worker) {
    peer *p = calloc(1, sizeof *p);
    p->fd = fd;
    p->worker = worker;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = p};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
    return p;
}
int main(int argc, char **argv) {
    if (argc < 4) { fprintf(stderr, "usage: floor_relay SOCKET WORKERS COMMAND ARGUMENTS…\n"); return 2; }
    struct rlimit r;
    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    ep = epoll_create1(EPOLL_CLOEXEC);
    worker_count = atoi(argv[2]);
    workers = calloc((size_t)worker_count, sizeof *workers);
    pid_t self = getpid();
    for (int i = 0; i < worker_count; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) die("socketpair");
        if (!fork()) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != self) _exit(1);
            if (pair[1] == 3) fcntl(3, F_SETFD, 0); else dup2(pair[1], 3);
            execvp(argv[3], argv + 3);
            die(argv[3]);
        }
        close(pair[1]);
        workers[i] = add(pair[0], 1);
    }
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path, argv[1], sizeof a.sun_path - 1);
    unlink(argv[1]);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bind(listener, (void *)&a, sizeof a) || listen(listener, 4096)) die("listen");
    struct epoll_event e = {.events = EPOLLIN}, events[512];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        int n = epoll_wait(ep, events, 512, -1);
        for (int i = 0; i < n; i++) {
            peer *p = events[i].data.ptr;
            if (!p) { for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0;) add(fd, 0); continue; }
            if (p->fd >= 0 && events[i].events & EPOLLOUT) flush_out(p);
            if (p->fd >= 0 && events[i].events & (EPOLLIN | EPOLLHUP)) on_input(p);
        }
    }
}
