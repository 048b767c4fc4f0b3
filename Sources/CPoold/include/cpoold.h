// What Swift cannot say well: vfork, descriptor passing, atomics on a shared page, the guard.
#pragma once
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>
#include <time.h>

// CLOCK_MONOTONIC in nanoseconds.
static inline uint64_t cpoold_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// ---- words of the execution page, shared with another process
static inline uint64_t cpoold_load(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static inline void cpoold_store(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }
// Every running thread of a registered process passes a full barrier. 0, or an errno.
int cpoold_barrier_global(void);
int cpoold_barrier_register(void);

// ---- processes
enum cpoold_step { CPOOLD_STEP_NONE, CPOOLD_STEP_FORK, CPOOLD_STEP_GROUP, CPOOLD_STEP_DESCRIPTORS, CPOOLD_STEP_LIMITS, CPOOLD_STEP_PARENT, CPOOLD_STEP_EXEC };
struct cpoold_spawn {
    const char *path;          // absolute, or found by the caller
    char *const *argv;
    char *const *envp;
    const int *descriptors;    // become 0, 1, 2 … in the child; -1: /dev/null
    int descriptor_count;      // at most 16
    const char *directory;     // NULL: the parent's
};
// Spawns into a process group of its own, to be killed when the calling thread ends. Returns the pid, or -1 with errno in
// *error and the step that failed. Only for the main thread: the death signal follows the thread.
pid_t cpoold_spawn(const struct cpoold_spawn *spawn, int *error, int *step);
int cpoold_pidfd_open(pid_t pid);
int cpoold_pidfd_signal(int pidfd, int signal);
// A child that has ended and was not reaped yet: its pid, 0: none.
pid_t cpoold_peek_exited(void);
// Reaps exactly this child. 0 and *status, or an errno. *status: exit status, or 1000 + signal.
int cpoold_reap(pid_t pid, int *status);
// The same, and the most memory that it had resident, in bytes.
int cpoold_reap_measured(pid_t pid, int *status, uint64_t *maximum_resident);
// Whether pid is a child of this process (also a zombie).
bool cpoold_is_child(pid_t pid);
/* A child that has ended and is not reaped. */
bool cpoold_has_exited(pid_t pid);
void cpoold_become_subreaper(void);

// ---- what the kernel offers, tried for real, for `poolctl doctor`: 0 or an errno
int cpoold_probe_pidfd(void);
int cpoold_probe_memfd_sealing(void);
int cpoold_probe_membarrier(void);
int cpoold_probe_epoll_pwait2(void);
int cpoold_probe_close_range(void);
int cpoold_probe_subreaper(void);

// ---- the guard: kills registered groups when this process is gone
// Forks it; returns the write end of its pipe and its pid, or -1. One that replaces another gives up the memory that it is a copy of.
int cpoold_guard_start(pid_t *pid, bool replaces);
// Adds (or takes off) a process group. 0 or an errno.
int cpoold_guard_tell(int pipe, pid_t group, bool add);

// ---- descriptors
int cpoold_memfd(const char *name, size_t size, bool seal);
ssize_t cpoold_send_descriptors(int socket, const void *bytes, size_t count, const int *descriptors, int descriptor_count);
int cpoold_peer(int socket, uint32_t *uid, uint32_t *gid, int32_t *pid);
// Supplementary groups of the peer (SO_PEERGROUPS): how many were stored, or -1 with errno (ERANGE: more than count).
int cpoold_peer_groups(int socket, uint32_t *groups, int count);
int cpoold_listen(const char *path, int mode, int backlog, int *error);
int cpoold_connect(const char *path, bool blocking);
// A blocking connection whose connect and every send wait at most so long (EAGAIN); 0: as long as it takes.
int cpoold_connect_within(const char *path, uint64_t nanoseconds);
// The same limit for the sends of a socket that is connected already; 0 or an errno.
int cpoold_limit_sending(int socket, uint64_t nanoseconds);
// Where a Unix socket is bound, "" if nowhere; 0 or an errno.
int cpoold_socket_path(int socket, char *path, size_t size);
// Opens /dev/null where 0, 1 or 2 is closed: no socket may ever get the log's number.
void cpoold_hold_standard_descriptors(void);
// A timer on CLOCK_MONOTONIC to wait for in epoll; armed at an absolute time in nanoseconds.
int cpoold_timer(void);
int cpoold_timer_arm(int timer, uint64_t at);
void cpoold_timer_take(int timer);
int cpoold_signalfd(void);
// The next signal of a signalfd, 0: none.
int cpoold_next_signal(int descriptor);
void cpoold_block_signals(void);
uint64_t cpoold_raise_descriptor_limit(void);
int cpoold_open_null(void);
// accept4, pipe2 and eventfd, which Swift's Glibc does not show; all close-on-exec.
int cpoold_accept(int listener);
int cpoold_pipe(int ends[2]);
int cpoold_event(bool nonblocking);
void cpoold_event_signal(int event);
void cpoold_event_take(int event);
void cpoold_name_thread(const char *name);
// Large blocks always come from the kernel and go back to it: glibc otherwise learns to keep them, for ever, in its heap.
void cpoold_configure_malloc(void);
// Gives free memory back to the kernel if more than keep bytes of it lie in the heaps. Whether it did.
bool cpoold_trim_malloc(size_t keep);
// Private_Clean + Private_Dirty of a process in bytes, 0 if unreadable.
uint64_t cpoold_private_bytes(pid_t pid);
// epoll_pwait2: nanoseconds, -1 waits for ever. For the load generator; the loop waits with a timer.
int cpoold_epoll_wait(int epoll, struct epoll_event *events, int count, int64_t timeout_nanoseconds);
// Keeps this process, and what it starts, on one processor.
int cpoold_pin(int processor);
static inline uint64_t cpoold_epoll_data(const struct epoll_event *event) { return event->data.u64; }
static inline int cpoold_epoll_control(int epoll, int operation, int descriptor, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, operation, descriptor, &event);
}
