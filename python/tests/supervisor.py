"""Plays poold's part towards one worker or one template, over the real descriptors and with real processes."""
import ctypes
import fcntl
import mmap
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PACKAGE))

from poold import _wire  # noqa: E402

MODULES = pathlib.Path(__file__).parent / "modules"
#: the interpreter of workers and templates
PYTHON = os.environ.get("POOLD_TEST_PYTHON", sys.executable)
PAGE_MAGIC = 0x31474150444C4F50
STARTED, RUNNING, SKIPPED, REVOKED = 1, 2, 3, 64
Frame = Tuple[int, int, int, int, int, int, bytes]


def become_subreaper() -> None:
    """Orphans of descendants become this process's children, as they become poold's."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def descriptors_of(pid: int) -> Dict[int, str]:
    """number → what it is"""
    folder = f"/proc/{pid}/fd"
    found = {}
    for name in os.listdir(folder):
        try:
            found[int(name)] = os.readlink(f"{folder}/{name}")
        except OSError:
            pass
    return found


def state_of(pid: int) -> str:
    """The letter in /proc/PID/stat; empty if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(") ", 1)[1][0]
    except OSError:
        return ""


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rsplit(") ", 1)[1].split()[1])


def wait_for(condition: Any, seconds: float = 10.0, what: str = "condition") -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError(f"{what} did not come true within {seconds} s")


def module(name: str) -> str:
    """The path of a test module by its name."""
    return str(MODULES / f"{name}.py") if "/" not in name else name


def environment(**extra: str) -> Dict[str, str]:
    base = {k: v for k, v in os.environ.items() if not k.startswith("POOLD_")}
    # As under poold: nothing else makes the output unbuffered.
    base.pop("PYTHONUNBUFFERED", None)
    path = [str(PACKAGE)] + ([base["PYTHONPATH"]] if base.get("PYTHONPATH") else [])
    return {**base, "PYTHONPATH": os.pathsep.join(path), "POOLD_POOL": "pool", **extra}


def launch(arguments: List[str], descriptors: List[int], env: Dict[str, str], output: int) -> "subprocess.Popen[bytes]":
    """Starts a process with `descriptors` as 3, 4, … and its output in `output`, in a group of its own."""

    def arrange() -> None:
        os.setpgid(0, 0)
        lifted = [fcntl.fcntl(d, fcntl.F_DUPFD, 20) for d in descriptors]
        for source, target in zip(lifted, range(3, 3 + len(lifted))):
            os.dup2(source, target)
        os.closerange(3 + len(lifted), 512)

    return subprocess.Popen(arguments, preexec_fn=arrange, close_fds=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)


class Worker:
    """One worker, cold or of a template, seen from poold. Close it."""

    def __init__(self, name: str = "methods", template: Optional["Template"] = None, limit: int = 1 << 26, slot: int = 3, welcome: bool = True,
                 variables: Optional[Dict[str, str]] = None) -> None:
        self.socket, child = socket.socketpair()
        self.socket.settimeout(10)
        self.page_descriptor = os.memfd_create("page")
        os.truncate(self.page_descriptor, 4096)
        self._map = mmap.mmap(self.page_descriptor, 4096)
        self._words = memoryview(self._map)
        self.page = self._words.cast("Q")
        self.page[0] = PAGE_MAGIC
        self.stack = os.memfd_create("stack")
        self.output = os.memfd_create("output")
        self.number = 0
        self.methods: Dict[str, int] = {}
        self.codecs: Dict[str, int] = {}
        self.limit = limit
        self._decoder = _wire.Decoder(1 << 30)
        self._frames: List[Frame] = []
        self._status: Optional[int] = None
        self.process: Optional["subprocess.Popen[bytes]"] = None
        self.began = time.monotonic()
        if template is None:
            env = environment(POOLD_SLOT=str(slot), POOLD_GENERATION="9", **(variables or {}))
            self.process = launch([PYTHON, "-m", "poold.worker", module(name)], [child.fileno(), self.page_descriptor, self.stack], env, self.output)
            self.pid = self.process.pid
        else:
            self.pid = template.fork([child.fileno(), self.page_descriptor, self.stack, self.output, self.output], slot)
        child.close()
        if welcome:
            self.welcome()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def welcome(self) -> None:
        body = struct.pack(">HHIII", 1, 64, 0, self.limit, 0) + _wire.methods([])
        try:
            self.send(_wire.frame(_wire.WELCOME, body))
        except BrokenPipeError:
            pass  # It failed at once; what it said of that is still to be read.

    def ready(self) -> "Worker":
        """Waits for HELLO and METHODS."""
        hello = self.frame()
        assert hello[0] == _wire.HELLO, hello
        listed = self.frame()
        assert listed[0] == _wire.METHODS, (listed, self.log())
        for number, codec, _, name in _wire.parse_methods(listed[6]):
            self.methods[name] = number
            self.codecs[name] = codec
        return self

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def call_frame(self, method: str, body: bytes = b"[]", deadline: int = 0, session: int = 0, flags: int = 1) -> bytes:
        """The next CALL; its number is `self.number`. `deadline`: CLOCK_MONOTONIC ns."""
        self.number += 1
        return _wire.frame(_wire.CALL, body, flags, self.methods.get(method, 999), self.number, session, deadline)

    def call(self, method: str, body: bytes = b"[]", **options: int) -> Frame:
        """Sends one call and returns its reply."""
        self.send(self.call_frame(method, body, **options))
        reply = self.frame()
        assert reply[3] == self.number, reply
        return reply

    def frame(self, seconds: float = 10.0) -> Frame:
        """The next frame. Raises EOFError, TimeoutError."""
        while not self._frames:
            self.socket.settimeout(seconds)
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionError:
                data = b""
            if not data:
                raise EOFError(self.log())
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for a while."""
        return not self._frames and not select.select([self.socket], [], [], seconds)[0]

    def revoke(self, number: int, signalled: bool = True) -> None:
        self.page[REVOKED + number % 64] = number
        if signalled:
            os.kill(self.pid, signal.SIGUSR1)

    def log(self) -> str:
        """All of stdout and stderr so far."""
        return os.pread(self.output, 1 << 20, 0).decode(errors="replace")

    def stacks(self) -> str:
        return os.pread(self.stack, 1 << 20, 0).decode(errors="replace")

    def exit_status(self, seconds: float = 10.0) -> int:
        """Waits for its end. Negative: the signal."""
        if self._status is None:
            def reaped() -> bool:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
                    if self.process:
                        self.process.returncode = self._status
                return bool(pid)

            wait_for(reaped, seconds, f"end of the worker ({self.log()})")
        assert self._status is not None
        return self._status

    def end(self) -> int:
        """Closes the socket and returns the exit status."""
        self.socket.close()
        return self.exit_status()

    def close(self) -> None:
        self.socket.close()
        if self._status is None:
            try:
                self.exit_status(2.0)
            except AssertionError:
                os.kill(self.pid, signal.SIGKILL)
                self.exit_status()
            except ChildProcessError:
                pass  # not this process's child: the test has said so
        if self.page_descriptor < 0:
            return
        self.page.release()
        self._words.release()
        self._map.close()
        for descriptor in (self.page_descriptor, self.stack, self.output):
            os.close(descriptor)
        self.page_descriptor = -1


class Template:
    """One template, seen from poold. Close it."""

    def __init__(self, name: str = "methods", **extra: str) -> None:
        become_subreaper()
        self.control, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(30)
        self.output = os.memfd_create("output")
        self.process = launch([PYTHON, "-m", "poold.template", module(name)], [child.fileno()], environment(**extra), self.output)
        self.pid = self.process.pid
        child.close()
        self.answer = self.control.recv(65536)
        self._generation = 0

    def __enter__(self) -> "Template":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self) -> str:
        return os.pread(self.output, 1 << 20, 0).decode(errors="replace")

    def fork(self, descriptors: List[int], slot: int = 0) -> int:
        """Orders a worker; returns its pid."""
        assert self.answer == b"R", (self.answer, self.log())
        self._generation += 1
        place = struct.pack(">IQ", slot, self._generation)
        socket.send_fds(self.control, [b"S" + place], descriptors)
        answer = self.control.recv(65536)
        assert answer[:13] == b"W" + place, (answer, self.log())
        return int(struct.unpack(">I", answer[13:])[0])

    def close(self) -> int:
        """Ends it by end-of-file; returns its exit status."""
        self.control.close()
        try:
            return self.process.wait(10)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
