#include "cpoold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

int cpoold_barrier_global(void) {
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0) return 0;
    return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0 ? 0 : errno;
}
int cpoold_barrier_register(void) {
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0 ? 0 : errno;
}

// ---- spawn

struct failure { int error, step; };

// The child shares our memory until it execs, so it calls nothing that takes a lock, and tells its failure in place.
static void child(const struct cpoold_spawn *s, pid_t parent, int null, volatile struct failure *f) {
    int moved[16];
#define FAIL(what) do { f->error = errno; f->step = (what); _exit(127); } while (0)
    if (setpgid(0, 0)) FAIL(CPOOLD_STEP_GROUP);
    // Above the targets first, so that no source is overwritten before it was moved.
    for (int i = 0; i < s->descriptor_count; i++) {
        int from = s->descriptors[i] < 0 ? null : s->descriptors[i];
        if ((moved[i] = fcntl(from, F_DUPFD_CLOEXEC, s->descriptor_count)) < 0) FAIL(CPOOLD_STEP_DESCRIPTORS);
    }
    for (int i = 0; i < s->descriptor_count; i++)
        if (dup2(moved[i], i) < 0) FAIL(CPOOLD_STEP_DESCRIPTORS);
    syscall(SYS_close_range, (unsigned)s->descriptor_count, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    for (int i = 1; i < 32; i++) if (i != SIGKILL && i != SIGSTOP) sigaction(i, &dfl, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (s->directory && chdir(s->directory)) FAIL(CPOOLD_STEP_LIMITS);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL)) FAIL(CPOOLD_STEP_PARENT);
    if (getppid() != parent) { errno = ESRCH; FAIL(CPOOLD_STEP_PARENT); }
    execve(s->path, s->argv, s->envp);
    FAIL(CPOOLD_STEP_EXEC);
#undef FAIL
}

pid_t cpoold_spawn(const struct cpoold_spawn *spawn, int *error, int *step) {
    volatile struct failure f = {0, 0};
    *error = 0;
    *step = CPOOLD_STEP_NONE;
    if (spawn->descriptor_count < 0 || spawn->descriptor_count > 16) { *error = EINVAL; *step = CPOOLD_STEP_DESCRIPTORS; return -1; }
    int null = cpoold_open_null();
    if (null < 0) { *error = errno; *step = CPOOLD_STEP_DESCRIPTORS; return -1; }
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);   // no handler of ours may run in the shared memory
    pid_t parent = getpid(), pid = vfork();
    if (pid == 0) child(spawn, parent, null, &f);
    int forked = errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(null);
    if (pid < 0) { *error = forked; *step = CPOOLD_STEP_FORK; return -1; }
    if (f.error) { *error = f.error; *step = f.step; waitpid(pid, NULL, 0); return -1; }
    return pid;
}

int cpoold_pidfd_open(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }
int cpoold_pidfd_signal(int pidfd, int signal) { return syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0 ? 0 : errno; }

pid_t cpoold_peek_exited(void) {
    siginfo_t info = {0};
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT)) return 0;
    return info.si_pid;
}
int cpoold_reap(pid_t pid, int *status) {
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG)) return errno;
    if (info.si_pid != pid) return EAGAIN;
    *status = info.si_code == CLD_EXITED ? info.si_status : 1000 + info.si_status;
    return 0;
}
int cpoold_reap_measured(pid_t pid, int *status, uint64_t *maximum_resident) {
    int how = 0;
    struct rusage usage = {0};
    pid_t reaped = wait4(pid, &how, WNOHANG, &usage);
    if (reaped != pid) return reaped < 0 ? errno : EAGAIN;
    *status = WIFEXITED(how) ? WEXITSTATUS(how) : 1000 + WTERMSIG(how);
    *maximum_resident = (uint64_t)usage.ru_maxrss * 1024;
    return 0;
}
bool cpoold_has_exited(pid_t pid) {
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}
bool cpoold_is_child(pid_t pid) {
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}
void cpoold_become_subreaper(void) { prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

// ---- guard

enum { GUARD_GROUPS = 32768 };
struct guard_word { int32_t group, add; };

static uintptr_t hexadecimal(const char **at) {
    uintptr_t value = 0;
    for (;; (*at)++) {
        char c = **at;
        if (c >= '0' && c <= '9') value = value << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f') value = value << 4 | (uintptr_t)(c - 'a' + 10);
        else return value;
    }
}

// A guard that replaces another is a copy of a poold at work: without this it would keep callers' bodies, and as much memory again, for as long as
// it lives. What it needs itself is on its stack, in its thread's block, in the program and in what follows a file's mapping (bss).
static void drop_copied_memory(void) {
    // What binds a function at its first call is among what goes: each that is needed later is called once now.
    struct timespec none = {0, 0};
    (void)(kill(getpid(), 0) + nanosleep(&none, NULL) + (int)read(-1, &none, 0) + close(-1) + madvise(NULL, 0, MADV_DONTNEED));
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (maps < 0) return;
    uintptr_t here = (uintptr_t)&maps, thread = (uintptr_t)&errno, file_end = 0;
    char text[4096], line[256];
    size_t length = 0;
    ssize_t count;
    while ((count = read(maps, text, sizeof text)) > 0) {
        for (ssize_t i = 0; i < count; i++) {
            if (text[i] != '\n') {
                if (length < sizeof line - 1) line[length++] = text[i];
                continue;
            }
            line[length] = 0;
            length = 0;
            // "from-to permissions offset device inode   path"; without the library: the thread that forked may not have been alone.
            const char *at = line;
            uintptr_t from = hexadecimal(&at), to = (at++, hexadecimal(&at));
            bool writable = at[1] == 'r' && at[2] == 'w' && at[4] == 'p';
            for (int field = 0; field < 4 && *at; at++) if (*at == ' ') field++;
            bool of_file = *at && *at != '0', own = (from <= here && here < to) || (from <= thread && thread < to) || from == file_end;
            while (*at && *at != '[' && *at != '/') at++;
            if (of_file) file_end = to;
            if (of_file || own || !writable || (*at && strcmp(at, "[heap]"))) continue;
            madvise((void *)from, to - from, MADV_DONTNEED);
        }
    }
    close(maps);
}

static void guard(int pipe, bool replaces) {
    static pid_t groups[GUARD_GROUPS];
    int count = 0;
    prctl(PR_SET_NAME, "poold-guard");
    prctl(PR_SET_PDEATHSIG, 0);
    setsid();
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    for (int i = 1; i < 32; i++) if (i != SIGKILL && i != SIGSTOP) sigaction(i, &ignore, NULL);
    if (pipe != 3) { dup2(pipe, 3); pipe = 3; }
    int null = cpoold_open_null();
    for (int i = 0; i < 3; i++) dup2(null, i);
    syscall(SYS_close_range, 4u, ~0u, 0u);
    if (chdir("/")) {}
    if (replaces) drop_copied_memory();
    for (;;) {
        struct guard_word w;
        ssize_t n = read(pipe, &w, sizeof w);
        if (n < 0 && errno == EINTR) continue;
        if (n != (ssize_t)sizeof w) break;
        if (w.group <= 1) continue;
        int at = 0;
        while (at < count && groups[at] != w.group) at++;
        if (w.add && at == count && count < GUARD_GROUPS) groups[count++] = w.group;
        if (!w.add && at < count) groups[at] = groups[--count];
    }
    for (int i = 0; i < count; i++) kill(-groups[i], SIGKILL);
    // A group may have been forking: once more.
    struct timespec t = {0, 20000000};
    nanosleep(&t, NULL);
    for (int i = 0; i < count; i++) kill(-groups[i], SIGKILL);
    for (;;) syscall(SYS_exit_group, 0);
}

int cpoold_guard_start(pid_t *pid, bool replaces) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) return -1;
    *pid = fork();
    if (*pid < 0) { int e = errno; close(ends[0]); close(ends[1]); errno = e; return -1; }
    if (*pid == 0) { close(ends[1]); guard(ends[0], replaces); }
    close(ends[0]);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    return ends[1];
}
int cpoold_guard_tell(int pipe, pid_t group, bool add) {
    struct guard_word w = {group, add};
    return write(pipe, &w, sizeof w) == (ssize_t)sizeof w ? 0 : errno;
}

// ---- descriptors

int cpoold_open_null(void) { return open("/dev/null", O_RDWR | O_CLOEXEC); }
int cpoold_memfd(const char *name, size_t size, bool seal) {
    int fd = (int)syscall(SYS_memfd_create, name, 1u /* CLOEXEC */ | 2u /* ALLOW_SEALING */);
    if (fd < 0) return -1;
    if (ftruncate(fd, (off_t)size) || (seal && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}
ssize_t cpoold_send_descriptors(int socket, const void *bytes, size_t count, const int *descriptors, int n) {
    char control[CMSG_SPACE(sizeof(int) * 16)] = {0};
    struct iovec v = {(void *)bytes, count};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
    memcpy(CMSG_DATA(c), descriptors, sizeof(int) * (size_t)n);
    return sendmsg(socket, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}
int cpoold_peer(int socket, uint32_t *uid, uint32_t *gid, int32_t *pid) {
    struct ucred u;
    socklen_t n = sizeof u;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &u, &n)) return errno;
    *uid = u.uid;
    *gid = u.gid;
    *pid = u.pid;
    return 0;
}
int cpoold_peer_groups(int socket, uint32_t *groups, int count) {
    socklen_t n = (socklen_t)count * sizeof(gid_t);
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &n)) return -1;
    return (int)(n / sizeof(gid_t));
}
static int connect_socket(const char *path, int kind, uint64_t nanoseconds) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path) { errno = ENAMETOOLONG; return -1; }
    strcpy(a.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | kind, 0);
    if (fd < 0) return -1;
    // A connect waits for room in the listener's queue, and the kernel bounds that by the limit for sends.
    if ((nanoseconds && cpoold_limit_sending(fd, nanoseconds)) || connect(fd, (struct sockaddr *)&a, sizeof a)) {
        int e = errno;
        close(fd);
        errno = e;
        return -1;
    }
    return fd;
}
int cpoold_connect(const char *path, bool blocking) { return connect_socket(path, blocking ? 0 : SOCK_NONBLOCK, 0); }
int cpoold_connect_within(const char *path, uint64_t nanoseconds) { return connect_socket(path, 0, nanoseconds); }
int cpoold_limit_sending(int socket, uint64_t nanoseconds) {
    // Rounded up: zero would be no limit.
    uint64_t us = nanoseconds / 1000 + 1;
    struct timeval t = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};
    return setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) == 0 ? 0 : errno;
}
int cpoold_socket_path(int socket, char *path, size_t size) {
    struct sockaddr_un a = {0};
    socklen_t n = sizeof a;
    path[0] = 0;
    if (getsockname(socket, (struct sockaddr *)&a, &n)) return errno;
    if (n > sizeof a) n = sizeof a;
    size_t length = n > offsetof(struct sockaddr_un, sun_path) ? strnlen(a.sun_path, n - offsetof(struct sockaddr_un, sun_path)) : 0;
    snprintf(path, size, "%.*s", (int)length, a.sun_path);
    return 0;
}
void cpoold_hold_standard_descriptors(void) {
    for (int fd = 0; fd <= 2; fd++)
        // The lowest free number is the one that is missing.
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) < 0) return;
}
// A socket file that nobody listens on is replaced; one that answers is EADDRINUSE.
int cpoold_listen(const char *path, int mode, int backlog, int *error) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    *error = 0;
    if (strlen(path) >= sizeof a.sun_path) { *error = ENAMETOOLONG; return -1; }
    strcpy(a.sun_path, path);
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode)) { *error = EEXIST; return -1; }
        int probe = cpoold_connect(path, false);
        if (probe >= 0 || errno == EAGAIN) { if (probe >= 0) close(probe); *error = EADDRINUSE; return -1; }
        if (errno != ECONNREFUSED) { *error = errno; return -1; }
        unlink(path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) { *error = errno; return -1; }
    mode_t old = umask(0777 & ~(mode_t)mode);
    int failed = bind(fd, (struct sockaddr *)&a, sizeof a) ? errno : 0;
    umask(old);
    if (!failed && listen(fd, backlog)) failed = errno;
    if (failed) { close(fd); *error = failed; return -1; }
    return fd;
}
int cpoold_timer(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK); }
int cpoold_timer_arm(int timer, uint64_t at) {
    // All zeros would disarm it.
    struct itimerspec t = {.it_value = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)}};
    if (at == 0) t.it_value.tv_nsec = 1;
    return timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL) == 0 ? 0 : errno;
}
void cpoold_timer_take(int timer) {
    uint64_t count;
    if (read(timer, &count, sizeof count) < 0) {}
}
static void loop_signals(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGCHLD);
}
void cpoold_block_signals(void) {
    sigset_t set;
    loop_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}
int cpoold_signalfd(void) {
    sigset_t set;
    loop_signals(&set);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}
int cpoold_next_signal(int descriptor) {
    struct signalfd_siginfo info;
    return read(descriptor, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}
uint64_t cpoold_raise_descriptor_limit(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r)) return 1024;
    if (r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max > (1u << 20) && r.rlim_max != RLIM_INFINITY ? r.rlim_max : r.rlim_max == RLIM_INFINITY ? 1u << 20 : r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
        getrlimit(RLIMIT_NOFILE, &r);
    }
    return r.rlim_cur;
}
uint64_t cpoold_private_bytes(pid_t pid) {
    char path[64], text[2048];
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    uint64_t sum = 0;
    for (char *p = text; (p = strstr(p, "Private_")); p++) {
        char *colon = strchr(p, ':');
        if (!colon) break;
        if (!strncmp(p, "Private_Clean", 13) || !strncmp(p, "Private_Dirty", 13)) sum += strtoull(colon + 1, NULL, 10) * 1024;
    }
    return sum;
}

int cpoold_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); }
int cpoold_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }
int cpoold_event(bool nonblocking) { return eventfd(0, EFD_CLOEXEC | (nonblocking ? EFD_NONBLOCK : 0)); }
void cpoold_event_signal(int event) { eventfd_write(event, 1); }
void cpoold_event_take(int event) {
    eventfd_t count;
    eventfd_read(event, &count);
}
void cpoold_configure_malloc(void) {
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
#endif
}
bool cpoold_trim_malloc(size_t keep) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    if (mallinfo2().fordblks <= keep) return false;
    malloc_trim(0);
    return true;
#else
    (void)keep;
    return false;
#endif
}
void cpoold_name_thread(const char *name) { pthread_setname_np(pthread_self(), name); }

int cpoold_epoll_wait(int epoll, struct epoll_event *events, int count, int64_t timeout) {
    if (timeout <= 0) return epoll_wait(epoll, events, count, timeout < 0 ? -1 : 0);
    struct timespec t = {timeout / 1000000000, timeout % 1000000000};
    int n = (int)syscall(SYS_epoll_pwait2, epoll, events, count, &t, NULL, 0);
    if (n >= 0 || errno != ENOSYS) return n;
    return epoll_wait(epoll, events, count, (int)((timeout + 999999) / 1000000));
}
int cpoold_pin(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    return sched_setaffinity(0, sizeof set, &set) ? errno : 0;
}
