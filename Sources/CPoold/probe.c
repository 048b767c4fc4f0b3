#include "cpoold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

static int closed(int fd) {
    if (fd < 0) return errno;
    close(fd);
    return 0;
}

int cpoold_probe_pidfd(void) { return closed((int)syscall(SYS_pidfd_open, getpid(), 0)); }

int cpoold_probe_memfd_sealing(void) {
    int fd = memfd_create("poold-probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return errno;
    int error = ftruncate(fd, 4096) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE) ? errno : 0;
    close(fd);
    return error;
}

int cpoold_probe_membarrier(void) {
    long offered = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    if (offered < 0) return errno;
    long wanted = MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    return (offered & wanted) == wanted ? 0 : ENOTSUP;
}

int cpoold_probe_epoll_pwait2(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) return errno;
    struct epoll_event event;
    struct timespec none = {0, 0};
    int error = syscall(SYS_epoll_pwait2, epoll, &event, 1, &none, NULL, 0) < 0 ? errno : 0;
    close(epoll);
    return error;
}

// A range in which no descriptor can be open.
int cpoold_probe_close_range(void) { return syscall(SYS_close_range, ~0u, ~0u, 0) < 0 ? errno : 0; }

int cpoold_probe_subreaper(void) {
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) return errno;
    return prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) ? errno : 0;
}
