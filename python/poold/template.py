"""The template process: imports an application once and forks workers from it (PROTOCOL.md, section 7).

It must have no thread when it forks: a lock held by a thread that does not exist in the child is held for ever.
"""
import gc
import os
import random
import signal
import socket
import struct
import sys
import traceback

ORDER = struct.Struct(">IQ")
DESCRIPTORS = 5
_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
           "BLIS_NUM_THREADS", "RAYON_NUM_THREADS")


def threads():
    """Names of the threads beside the main one."""
    names = []
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            try:
                with open(f"/proc/self/task/{task}/comm") as comm:
                    names.append(comm.read().strip())
            except OSError:
                pass
    return names


def become_worker(descriptors, slot, generation, poold, libc):
    """In the forked worker: takes its place and serves. Never returns."""
    from poold import _serve

    status = 1
    try:
        os.setpgid(0, 0)
        socket_fd, page, stack, out, error = descriptors
        # Above the numbers that they are moved to, so that none overwrites another.
        high = [os.dup(fd) if fd < 16 else fd for fd in descriptors]
        while min(high) < 16:
            high = [os.dup(fd) if fd < 16 else fd for fd in high]
        for fd, target in zip(high, (3, 4, 5, 1, 2)):
            os.dup2(fd, target, inheritable=target in (1, 2))
        os.closerange(6, 4096)
        # The intermediate process ends and poold, the subreaper, becomes the parent. Only then may the death signal be set:
        # earlier it would strike when the intermediate ends.
        for _ in range(20_000):
            parent = os.getppid()
            if parent == poold:
                break
            os.sched_yield()
        libc.prctl(1, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != poold:
            os._exit(1)
        os.environ["POOLD_SLOT"] = str(slot)
        os.environ["POOLD_GENERATION"] = str(generation)
        random.seed()
        numpy = sys.modules.get("numpy")
        if numpy is not None and "numpy.random" in sys.modules:
            numpy.random.seed()
        sock = socket.socket(fileno=3)
        _serve.greet(sock)
        status = _serve.run(sock)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            pass
        os._exit(status)


def fork_worker(descriptors, slot, generation, poold, libc):
    """Forks twice; returns the worker's pid."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            worker = os.fork()
            if worker == 0:
                become_worker(descriptors, slot, generation, poold, libc)
            os.write(write, struct.pack(">I", worker))
        except OSError as error:
            os.write(write, b"E" + str(error).encode())
        os._exit(0)
    os.close(write)
    answer = os.read(read, 512)
    os.close(read)
    os.waitpid(child, 0)
    if len(answer) != 4:
        raise OSError(answer[1:].decode("utf-8", "replace") or "the fork's intermediate process died")
    return struct.unpack(">I", answer)[0]


def main(arguments):
    if len(arguments) != 1:
        print("usage: python -m poold.template MODULE   (started by poold)", file=sys.stderr)
        return 2
    for name in _LIMITS:
        os.environ.setdefault(name, "1")
    control = socket.socket(fileno=3)
    poold = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import ctypes

        from poold import _registry, _serve

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(15, b"poold-template", 0, 0, 0)
        _registry.load(arguments[0])
        running = threads()
        if running:
            raise RuntimeError(
                f"importing {arguments[0]} started {len(running)} thread(s) ({', '.join(running[:8])}); a process with threads cannot be "
                "forked safely. Start them in @worker.setup, or use `template: off` for this pool")
    except BaseException as error:
        detail = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        sys.stderr.write(detail)
        text = f"{type(error).__name__}: {error}".replace("\n", " ") + "\n" + detail
        control.send(b"F" + text.encode("utf-8", "backslashreplace")[:60_000])
        return 70
    # What is alive now stays for ever: do not let the collector touch its pages in the children.
    gc.collect()
    gc.freeze()
    control.send(b"R")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 64, DESCRIPTORS)
        if not message:
            return 0
        slot, generation = ORDER.unpack(message[1:13])
        try:
            if message[:1] != b"S" or len(descriptors) != DESCRIPTORS:
                raise OSError(f"an order must be S with {DESCRIPTORS} descriptors, not {message[:1]!r} with {len(descriptors)}")
            pid = fork_worker(descriptors, slot, generation, poold, libc)
            answer = b"W" + ORDER.pack(slot, generation) + struct.pack(">I", pid)
        except OSError as error:
            answer = b"E" + ORDER.pack(slot, generation) + str(error).encode()
        finally:
            for fd in descriptors:
                os.close(fd)
        try:
            control.send(answer)
        except ConnectionError:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
