"""The template process: imports an application once and forks workers from it (PROTOCOL.md, section 7).

It must have no thread when it forks: a lock held by a thread that does not exist in the child is held for ever.
"""
import contextlib
import gc
import os
import signal
import socket
import struct
import sys
import time
import traceback
from typing import List, NoReturn, Sequence

_ORDER = struct.Struct(">IQ")
_DESCRIPTORS = 5
#: how long a fork waits until poold is its parent, seconds
_ADOPTION_SECONDS = 5.0
#: threads of numeric libraries; they would make the fork unsafe, and a pool has its parallelism in its processes
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
                  "BLIS_NUM_THREADS", "RAYON_NUM_THREADS")


def _await_adoption(poold: int) -> bool:
    """Waits until the intermediate process has ended and poold, the subreaper, is the parent."""
    end = time.monotonic() + _ADOPTION_SECONDS
    while os.getppid() != poold:
        if time.monotonic() > end:
            return False
        os.sched_yield()
    return True


def _become_worker(descriptors: Sequence[int], slot: int, generation: int, poold: int) -> NoReturn:
    """In the forked process: takes its place and serves."""
    from poold import _process, _serve

    status = 1
    try:
        os.setpgid(0, 0)
        _process.reset_signals()
        _process.move_descriptors(zip(descriptors, (_serve.SOCKET, _serve.PAGE, _serve.STACK, 1, 2)), 6)
        # Only now may the death signal be set: earlier it would strike when the intermediate process ends.
        adopted = _await_adoption(poold)
        _process.die_with_parent()
        if os.getppid() == poold:
            os.environ["POOLD_SLOT"] = str(slot)
            os.environ["POOLD_GENERATION"] = str(generation)
            # `random` seeds itself after a fork.
            if "numpy.random" in sys.modules:
                sys.modules["numpy.random"].seed()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=_serve.SOCKET)
            _serve.greet(sock)
            status = _serve.run(sock)
        elif not adopted:
            print(f"poold.template: process {os.getppid()} is the parent of this worker, not {poold}: is poold a subreaper?", file=sys.stderr)
    except ConnectionError:
        status = 0  # poold is gone
    except BaseException:
        traceback.print_exc()
    finally:
        # The template's exit handlers are not this process's: multiprocessing leaves forks the same way.
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            pass
        os._exit(status)


class _Intermediate:
    """The process between the template and its next worker, which ends at once so that poold becomes the worker's parent. It is
    forked before a worker is wanted: a fork copies page tables, and a start then waits for one copy instead of two."""

    def __init__(self, poold: int) -> None:
        self.poold = poold
        self.pid = 0

    def make_ready(self) -> None:
        """Forks it, where none waits already. Raises OSError."""
        if self.pid:
            return
        # What was printed and not yet written would be written by each fork once more.
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            try:
                ours.close()
                self._fork_when_told(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self.pid, self.control = pid, ours

    def end(self) -> None:
        """Waits for its end, which has come or comes with the closing of its socket."""
        pid, self.pid = self.pid, 0
        if pid:
            self.control.close()
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                pass  # the application's handler of SIGCHLD was quicker

    def fork_worker(self, order: bytes, descriptors: Sequence[int]) -> int:
        """Has it fork a worker; returns the worker's pid. Raises OSError."""
        for _ in range(2):
            self.make_ready()
            try:
                socket.send_fds(self.control, [order], descriptors)
                break
            except ConnectionError:
                self.end()  # killed while it waited, for want of memory perhaps
        else:
            raise OSError("the fork's intermediate process died before it was asked, twice")
        try:
            answer = self.control.recv(512)
        except ConnectionError:
            answer = b""
        # Before poold is told the pid: it asks at once whether the worker is its child.
        self.end()
        if len(answer) != 4:
            raise OSError(answer[1:].decode("utf-8", "replace") or "the fork's intermediate process died")
        return int(struct.unpack(">I", answer)[0])

    def _fork_when_told(self, control: socket.socket) -> None:
        """In the intermediate process."""
        from poold import _process

        _process.die_with_parent()  # if it could not read the end of file: it may have been stopped
        order, descriptors, _, _ = socket.recv_fds(control, 64, _DESCRIPTORS)
        if not order:
            return  # the template has ended
        try:
            if len(descriptors) != _DESCRIPTORS:
                raise OSError(f"{len(descriptors)} of {_DESCRIPTORS} descriptors arrived: is the limit on open files too low?")
            slot, generation = _ORDER.unpack(order)
            worker = os.fork()
            if worker == 0:
                _become_worker(descriptors, slot, generation, self.poold)
            control.send(struct.pack(">I", worker))
        except OSError as error:
            control.send(b"E" + str(error).encode())


def _prepare(module: str) -> None:
    """Imports the application and everything that a worker will need. Raises what the application raises, and RuntimeError if a
    thread is running."""
    from poold import _process, _registry, _serve

    _process.set_name("poold-template")
    _serve.line_buffer_output()
    _registry.load(module)
    # The processes between this one and its workers are waited for here, whatever the application has in mind with its own.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    running = _process.other_threads()
    if running:
        raise RuntimeError(
            f"importing {module} started {len(running)} thread(s) ({', '.join(running[:8])}); a process with threads cannot be "
            "forked safely. Start them in @worker.setup, or use `template: off` for this pool")
    # What is alive now stays for ever: do not let the collector touch its pages in the forks.
    gc.collect()
    gc.freeze()


def _serve_orders(control: socket.socket, intermediate: _Intermediate) -> int:
    """Says that it is ready and forks a worker for each order until end-of-file; returns the exit status."""
    is_ready_told = False
    while True:
        try:
            intermediate.make_ready()
        except OSError:
            pass  # tried again when a worker is wanted, and told then
        try:
            if not is_ready_told:
                control.send(b"R")
                is_ready_told = True
            message, descriptors, _, _ = socket.recv_fds(control, 64, _DESCRIPTORS)
        except ConnectionError:
            return 0
        if not message:
            return 0
        slot = generation = 0
        try:
            if len(message) != 13 or message[:1] != b"S" or len(descriptors) != _DESCRIPTORS:
                raise OSError(f"an order is S, slot and generation with {_DESCRIPTORS} descriptors, not {message[:16]!r} with {len(descriptors)}")
            slot, generation = _ORDER.unpack_from(message, 1)
            answer = b"W" + message[1:] + struct.pack(">I", intermediate.fork_worker(message[1:], descriptors))
        except OSError as error:
            answer = b"E" + _ORDER.pack(slot, generation) + str(error).encode("utf-8", "replace")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        try:
            control.send(answer)
        except ConnectionError:
            return 0


def main(arguments: List[str]) -> int:
    """`python -m poold.template MODULE`; returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m poold.template MODULE   (started by poold)", file=sys.stderr)
        return 2
    for name in _THREAD_LIMITS:
        os.environ.setdefault(name, "1")
    try:
        control = socket.socket(fileno=3)
    except OSError as error:
        print(f"poold.template: descriptor 3 is not a socket ({error}); templates are started by poold", file=sys.stderr)
        return 2
    os.set_inheritable(3, False)
    poold = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _prepare(arguments[0])
    except BaseException as error:
        try:
            text = f"{type(error).__name__}: {error}".replace("\n", " ")
            detail = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        except BaseException as second:
            text, detail = f"{type(error).__name__} (describing it raised {type(second).__name__})", ""
        sys.stderr.write(detail)
        try:
            control.send(b"F" + f"{text}\n{detail}".encode("utf-8", "backslashreplace")[:60_000])
        except OSError:
            pass
        # At once: threads that the module has started would keep the process.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(70)
    intermediate = _Intermediate(poold)
    try:
        return _serve_orders(control, intermediate)
    finally:
        intermediate.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
