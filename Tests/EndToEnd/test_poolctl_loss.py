"""When poold does not answer: exit code 3 only where nothing can have happened."""
import contextlib
import json
import os
import socket
import struct
import subprocess
import threading
import time

import pytest
from conftest import BIN
from fake_control import FakeControl, encode, full
from poold import _wire

CTL = str(BIN / "poolctl")


def run(*arguments):
    return subprocess.run([CTL, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


class FakeCallers:
    """A callers' socket that welcomes, and then does with a call what `how` says: hang, close, deaf (reads nothing more) or cut (closes it half read)."""

    def __init__(self, path, how, limit=1 << 26):
        self.how, self.limit, self.calls = how, limit, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        try:
            self.peer, _ = self.listener.accept()
        except OSError:
            return
        self._frame()
        self.peer.sendall(_wire.frame(_wire.WELCOME, struct.pack(">HHIII", 1, 8, 0, self.limit, 0) + struct.pack(">HHBB", 1, 1, 1, 0) + _wire.short("basic.echo")))
        if self.how == "deaf":
            return
        if self.how == "cut":
            self.peer.recv(1000)
            return self.peer.close()
        self.calls.append(self._frame())
        if self.how == "close":
            self.peer.close()

    def close(self):
        """As FakeControl does."""
        for one in (self.listener, getattr(self, "peer", self.listener)):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.thread.join(10)
        self.listener.close()

    def _frame(self):
        head = self.peer.recv(_wire.HEADER_SIZE, socket.MSG_WAITALL)
        return self.peer.recv(_wire.HEADER.unpack(head)[0] - _wire.EMPTY, socket.MSG_WAITALL) if head else b""


@pytest.fixture
def callers(tmp_path):
    made = []

    def start(how, **options):
        made.append(FakeCallers(f"{tmp_path}/s{len(made)}", how, **options))
        return made[-1], ("--socket", f"{tmp_path}/s{len(made) - 1}")

    yield start
    for one in made:
        one.close()


@pytest.fixture
def control(tmp_path):
    made = []

    def start(**answers):
        path = f"{tmp_path}/c{len(made)}"
        made.append(FakeControl(path, {"status": encode("Status", **full("Status")), **answers}))
        return "--control", path

    yield start
    for one in made:
        one.close()


# ---- calls

def test_a_call_that_may_have_run_is_worker_lost_or_timeout(callers):
    _, where = callers("close")
    closed = run("call", "basic.echo", "[1]", *where)
    assert closed.returncode == 6 and "closed the connection; the call may have run" in closed.stderr and "poolctl calls" in closed.stderr
    _, where = callers("close")
    assert json.loads(run("call", "basic.echo", "[1]", "--json", *where).stdout)["error"]["status"] == "worker_lost"
    _, where = callers("hang")
    late = run("call", "basic.echo", "[1]", "--timeout", "100ms", "--wait-for", "300ms", *where)
    assert late.returncode == 5 and "did not answer within 0.4 seconds; the call may still run" in late.stderr and "poolctl calls" in late.stderr
    _, where = callers("hang")
    late = run("call", "basic.echo", "[1]", "--timeout", "100ms", "--wait-for", "300ms", "--json", *where)
    assert json.loads(late.stdout)["error"]["status"] == "timeout"


def test_a_call_that_poold_read_half_has_not_run(callers, tmp_path):
    (tmp_path / "body").write_bytes(bytes(8 << 20))
    _, where = callers("cut")
    cut = run("call", "basic.echo", "--file", tmp_path / "body", *where)
    assert cut.returncode == 3 and "before it had read the request: nothing of it was done" in cut.stderr


def test_what_nobody_reads_is_given_up(callers, tmp_path):
    (tmp_path / "body").write_bytes(bytes(8 << 20))
    _, where = callers("deaf")
    began = time.monotonic()
    deaf = run("call", "basic.echo", "--file", tmp_path / "body", "--timeout", "200ms", "--wait-for", "300ms", *where)
    assert deaf.returncode == 3 and "nothing was done" in deaf.stderr and f"of {32 + 11 + (8 << 20)} bytes within 0.5 seconds" in deaf.stderr
    assert time.monotonic() - began < 10


def test_a_full_queue_of_the_listener_is_given_up(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{tmp_path}/full")
    listener.listen(0)
    waiting = []
    while True:
        waiting.append(socket.socket(socket.AF_UNIX))
        waiting[-1].setblocking(False)
        try:
            waiting[-1].connect(f"{tmp_path}/full")
        except BlockingIOError:
            break
    began = time.monotonic()
    for command in (("status", "--control"), ("call", "basic.echo", "--socket")):
        done = run(*command, f"{tmp_path}/full", "--wait-for", "300ms")
        assert done.returncode == 3 and "did not take the connection within 0.3 seconds" in done.stderr, done.stderr
    assert time.monotonic() - began < 10
    for one in [listener, *waiting]:
        one.close()


def test_the_limit_of_a_body_counts_the_name_of_the_method(callers, tmp_path):
    name = len("basic.echo") + 1
    (tmp_path / "long").write_bytes(b"1" * (1000 - name + 1))
    (tmp_path / "fits").write_bytes(b"1" * (1000 - name))
    server, where = callers("close", limit=1000)
    long = run("call", "basic.echo", "--file", tmp_path / "long", *where)
    assert long.returncode == 9 and "990 bytes and 11 more for the method's name; poold takes 1000" in long.stderr and server.calls in ([], [b""])
    server, where = callers("close", limit=1000)
    assert run("call", "basic.echo", "--file", tmp_path / "fits", *where).returncode == 6 and len(server.calls[0]) == 1000


# ---- operations

@pytest.mark.parametrize("command, operation", [
    (("reload",), "reload"), (("scale", "some_name", "3"), "scale"), (("drain", "some_name"), "drain"), (("warm", "some_name"), "warm"),
    (("kill", "some_name", "1234567"), "kill"), (("cancel", "some_name:1.1"), "cancel"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_an_operation_that_may_have_been_done_is_not_no_answer(control, command, operation):
    late = run(*command, "--wait-for", "500ms", *control(**{operation: "hang"}))
    assert late.returncode == 5 and "may still be done" in late.stderr and "poolctl events" in late.stderr, late.stderr
    closed = run(*command, *control(**{operation: "close"}))
    assert closed.returncode == 6 and "may have been done" in closed.stderr, closed.stderr
    strange = run(*command, *control(**{operation: ("raw", b"HTTP/1.1 400 Bad Request\r\n\r\nthis is no frame at all")}))
    assert strange.returncode == 9 and "may have happened" in strange.stderr, strange.stderr


def test_a_look_that_is_lost_has_done_nothing(control):
    for command, operation in ((("status",), "status"), (("events",), "events"), (("stack", "some_name"), "stack")):
        assert run(*command, "--wait-for", "300ms", *control(**{operation: "hang"})).returncode == 3, command
        assert run(*command, *control(**{operation: "close"})).returncode == 3, command


def test_a_poold_that_goes_away_after_it_granted_something_is_not_no_answer(control):
    status = encode("Status", **full("Status"))
    answers = iter([status])
    lost = run("scale", "some_name", "3", "--wait", *control(status=lambda: next(answers, "close"), scale=encode("Done", explanation="so be it")))
    assert lost.returncode == 6 and lost.stdout.endswith("so be it\n") and "what was asked for earlier was begun" in lost.stderr
    answers = iter([encode("Done", explanation="cancelled"), "close"])
    lost = run("cancel", "a:1.1", "a:2.1", "a:3.1", *control(cancel=lambda: next(answers)))
    assert lost.returncode == 6 and lost.stdout == "cancelled\n"
    bodies = [full("QuarantinedBody", pool=name) for name in ("a", "b")]
    where = []

    def clear():
        """Releases the first and is not there for the second."""
        os.unlink(where[1])
        return encode("Done", explanation="released", affected=1)

    where += control(quarantine=encode("QuarantineList", bodies=bodies), clear_quarantine=clear)
    lost = run("quarantine", "--clear", "all", *where)
    assert lost.returncode == 6 and "what was asked for earlier was begun" in lost.stderr
    begun = encode("WarmProgress", job=7, pool="some_name", workers=[{"worker": "0.1", "state": "warming"}])
    lost = run("warm", "some_name", "--json", *control(warm=begun, warm_progress="close"))
    assert lost.returncode == 6 and json.loads(lost.stdout)["error"]["status"] == "worker_lost"


def test_nothing_was_sent_to_a_socket_that_is_not_there(tmp_path):
    for command in (("call", "basic.echo"), ("reload",), ("scale", "text", "3")):
        assert run(*command, "--socket", tmp_path / "none").returncode == 3
    assert "nothing was called or changed" in run("--help").stdout
