// LD_PRELOAD: poold is held up for 30 ms before each read, as by a scheduler that has something better to do.
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

ssize_t recv(int socket, void *bytes, size_t length, int flags) {
    if (strcmp(program_invocation_short_name, "poold") == 0) usleep(30000);
    return syscall(SYS_recvfrom, socket, bytes, length, flags, NULL, NULL);
}
