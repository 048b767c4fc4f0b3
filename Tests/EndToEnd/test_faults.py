"""Bad input from clients and workers: a clear error, and poold goes on."""
import os
import signal
import socket
import struct
import time

import pytest
from conftest import alive, wait_for

from poold import _wire
from poold.client import PooldError


def connect(poold):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(poold.socket)
    return connection


def read_frames(connection, count=None):
    """Frames until the count is there or the peer closes."""
    decoder, frames = _wire.Decoder(1 << 26), []
    while count is None or len(frames) < count:
        data = connection.recv(65536)
        if not data:
            break
        frames += decoder.feed(data)
    return frames


def named(method, body=b"[]", **fields):
    return _wire.frame(_wire.CALL, _wire.short(method) + body, _wire.END | _wire.NAMED, **{"id": 1, **fields})


BAD = {
    "short length": (struct.pack(">I", 5) + b"x" * 28, 12, "below 28"),
    "huge length": (struct.pack(">IBBHQQQ", 0xFFFFFFFF, 4, 1, 0, 1, 0, 0), 13, "exceeds"),
    "unknown type": (_wire.frame(77), 12, "unknown"),
    "reserved flag": (_wire.frame(_wire.CALL, flags=0x21, id=1), 12, "flags"),
    "priority 3": (_wire.frame(_wire.CALL, flags=0xC1, id=1), 12, "priority"),
    "flags on PING": (_wire.frame(_wire.PING, flags=1), 12, "flags"),
    "wrong direction": (_wire.frame(_wire.RESULT, flags=1, id=1), 12, "does not send"),
    "late HELLO": (_wire.frame(_wire.PING) + _wire.hello("x"), 12, "first frame"),
    "bad HELLO": (_wire.frame(_wire.HELLO, b"\0\1"), 12, "malformed"),
    "no common version": (_wire.hello("x", 7, 9), 14, "version 1"),
    "no id": (named("basic.echo", id=0), 12, "id"),
    "name past the end": (_wire.frame(_wire.CALL, b"\xffabc", _wire.END | _wire.NAMED, id=1), 12, "malformed"),
    "named with a code": (named("basic.echo", code=4), 12, "code 0"),
    "meta past the end": (_wire.frame(_wire.CALL, b"\xff\xff\xff\xff", _wire.END | _wire.META, id=1), 12, "malformed"),
    "stream not agreed": (_wire.frame(_wire.CALL, b"", 0, 1, 1), 12, "STREAM"),
    "memfd not agreed": (_wire.frame(_wire.CALL, b"", _wire.END | _wire.MEMFD, 1, 1), 12, "MEMFD"),
    "window not agreed": (_wire.frame(_wire.WINDOW, b"\0\0\0\0"), 12, "STREAM"),
    "control on the callers' socket": (_wire.frame(_wire.CONTROL, code=1), 12, "control socket"),
    "long PING": (_wire.frame(_wire.PING, b"x" * 1025), 12, "1024"),
}


@pytest.fixture(scope="module")
def shared():
    import shutil
    import tempfile

    from conftest import Poold

    folder = tempfile.mkdtemp(prefix="poold-test-", dir="/tmp")
    one = Poold(folder, "basic")
    yield one
    one.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_is_named_and_the_connection_closed(shared, name):
    data, status, words = BAD[name]
    with connect(shared) as connection:
        connection.sendall(data)
        errors = [f for f in read_frames(connection) if f[0] == _wire.ERROR]
        assert len(errors) == 1 and errors[0][2] == status and errors[0][3] == 0, errors
        assert words in errors[0][6].decode()
    with shared.client() as client:
        assert client.call("basic.echo", [1]) == 1


def test_what_is_wrong_with_one_call_leaves_the_connection(shared):
    with connect(shared) as connection:
        connection.sendall(_wire.frame(_wire.CALL, b"", _wire.END, 9999, 1) + named("basic.nothing", id=2) + named("basic.echo", b"{broken", id=3) + named("basic.echo", b"[7]", id=4))
        replies = {f[3]: f for f in read_frames(connection, 4)}
        assert [_wire.STATUS.get(replies[i][2]) for i in (1, 2, 3)] == ["no_such_method", "no_such_method", "bad_arguments"]
        assert replies[4][6] == b"7"


def test_frames_byte_by_byte(shared):
    with connect(shared) as connection:
        for byte in _wire.hello("slow") + named("basic.echo", b"[1]") + named("basic.echo", b"[2]", id=2):
            connection.sendall(bytes((byte,)))
        frames = read_frames(connection, 3)
        assert [f[0] for f in frames] == [_wire.WELCOME, _wire.RESULT, _wire.RESULT] and sorted(f[6] for f in frames[1:]) == [b"1", b"2"]


def test_truncated_frames_leave_nothing_behind(shared):
    before = shared.descriptors()
    for cut in range(1, 60, 7):
        with connect(shared) as connection:
            connection.sendall(named("basic.echo", b"[1]" + b" " * 40)[:cut])
    wait_for(lambda: shared.descriptors() <= before, what="descriptors as before")


def test_calls_in_flight_are_bounded(shared):
    with connect(shared) as connection:
        connection.sendall(b"".join(named("basic.sleep", b"[0.0005]", id=i + 1) for i in range(1500)))
        frames = read_frames(connection, 1500)
        statuses = [_wire.STATUS.get(f[2]) for f in frames if f[0] == _wire.ERROR]
        assert set(statuses) <= {"quota_exceeded"} and len(frames) == 1500 and len({f[3] for f in frames}) == 1500


def test_a_client_that_does_not_read_stops_only_itself(shared):
    with connect(shared) as greedy:
        greedy.settimeout(1)
        body = named("basic.raw", b"x" * 200_000)
        try:
            for _ in range(2000):
                greedy.sendall(body)
        except (TimeoutError, socket.timeout, BlockingIOError):
            pass
        with shared.client() as client:
            began = time.monotonic()
            assert client.call("basic.echo", [1], timeout=10) == 1
            assert time.monotonic() - began < 5
        with open(f"/proc/{shared.pid}/status") as status:
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        assert resident < 600_000, f"{resident} KiB"


def test_thousands_of_idle_connections(shared):
    connections = []
    try:
        for _ in range(3000):
            connections.append(connect(shared))
        with shared.client() as client:
            assert client.call("basic.echo", [1]) == 1
        connections[1500].sendall(named("basic.echo", b"[5]"))
        assert read_frames(connections[1500], 1)[0][6] == b"5"
    finally:
        for connection in connections:
            connection.close()


# ---- workers that cannot start

@pytest.mark.parametrize("template", ["on", "off"])
@pytest.mark.parametrize("module, words", [("import_error", "No module named 'no_such_module_anywhere'"), ("setup_error", "the model file is missing")])
def test_a_module_that_cannot_serve_is_told_everywhere(poold, module, words, template):
    one = poold(module, options=["--template", template])
    with one.client() as client:
        with pytest.raises(PooldError) as caught:
            client.call(f"{module}.never", [], timeout=2)
        assert caught.value.status == "pool_unavailable" and words in str(caught.value)
        assert "Traceback" in caught.value.detail
    wait_for(lambda: one.pool(module)["health"] == "unavailable", what="unavailable")
    assert words in one.log() and words in one.pool(module)["failure"]
    shown = one.ctl("status").stdout
    assert words in shown and "Traceback" in shown


def test_a_template_refuses_threads_and_workers_start_cold(poold):
    one = poold("starts_thread")
    with one.client() as client:
        assert client.call("starts_thread.answer") == 42
    assert "cannot be forked" in one.log() and one.pool("starts_thread")["template"] == "failed"


def test_a_worker_that_dies_at_boot_is_retried_ever_slower(poold):
    one = poold("dies_at_boot", wait=False)
    time.sleep(3)
    pool = one.pool("dies_at_boot")
    assert 3 <= int(pool["counters"]["startFailures"]) <= 20
    assert one.process.poll() is None


# ---- workers that break the protocol

@pytest.mark.parametrize("method, words", [
    ("bad_length", "below 28"), ("huge_length", "exceeds"), ("unknown_type", "unknown"), ("rubbish", "replaced"), ("wrong_id", "protocolFault"),
    ("closes_socket", "socketClosed"), ("scribbles", "rubbish to its execution page"), ("twice", "protocolFault")])
def test_a_worker_that_breaks_the_protocol_is_replaced(poold, method, words):
    one = poold("misbehaves")
    with one.client() as client:
        if method == "twice":
            assert client.call("misbehaves.twice") == "me"
        else:
            with pytest.raises(PooldError) as caught:
                client.call(f"misbehaves.{method}", timeout=8)
            assert caught.value.status == "worker_lost"
        # It may begin at the worker that is just about to say its second word.
        assert client.call("misbehaves.echo", [1], idempotent=method == "twice") == 1
        wait_for(lambda: len(one.workers("misbehaves")) == 2, what="two workers")
        wait_for(lambda: words in one.log(), what=words)
        assert client.call("misbehaves.echo", [2]) == 2


def test_output_is_tagged_and_limited(poold):
    one = poold("misbehaves")
    with one.client() as client:
        client.call("misbehaves.prints", ["hello \x1b[31mred"])
        wait_for(lambda: "hello ?[31mred" in one.log(), what="the line")
        line = next(line for line in one.log().splitlines() if "hello" in line)
        assert "pool=misbehaves" in line and "stream=stdout" in line and "worker=" in line
        assert client.call("misbehaves.floods", timeout=20) == "flooded"
        wait_for(lambda: "suppressed" in one.log() or one.log().count("xxxx") >= 1000, what="the flood to be limited")
        time.sleep(0.5)
        assert one.log().count("xxxxxxxx") / 25 < 1400
        client.call("misbehaves.prints", ["after"])


def test_a_hung_worker_is_replaced(poold):
    one = poold("misbehaves", workers=1)
    with one.client() as client:
        with pytest.raises(PooldError) as caught:
            client.call("misbehaves.hangs", timeout=0.2)
        assert caught.value.status == "timeout_running"
        # hang_after 5 s, then TERM, then a new one.
        assert client.call("misbehaves.echo", [1], timeout=25) == 1
        assert "hung" in one.log()


def test_a_worker_that_ignores_term_is_killed(poold):
    one = poold("misbehaves", workers=1)
    with one.client() as client:
        pid = client.call("misbehaves.ignores_term")
        one.ctl("kill", "misbehaves", "0")
        wait_for(lambda: not alive(pid), 3, "its end")
        assert client.call("misbehaves.echo", [1], timeout=5) == 1


def test_a_worker_that_exits_between_calls_is_replaced(poold):
    one = poold("misbehaves", workers=1)
    with one.client() as client:
        assert client.call("misbehaves.exits_soon") == "bye"
        time.sleep(0.3)
        assert client.call("misbehaves.echo", [1], timeout=5) == 1


# ---- nothing is left

@pytest.mark.parametrize("template", ["on", "off"])
def test_kill_9_of_poold_leaves_nothing(poold, template):
    one = poold("misbehaves", workers=3, options=["--template", template])
    with one.client() as client:
        left = [client.call("misbehaves.forks", [kind]) for kind in ("fork", "popen") for _ in range(2)]
        escaped = client.call("misbehaves.forks", ["setsid"])
        family = [pid for pid in set(one.children() + left) if pid != escaped]
        assert len(family) >= 7 and all(alive(pid) for pid in left)
        one.process.kill()
        one.process.wait()
        try:
            wait_for(lambda: not any(alive(pid) for pid in family), 1.0, "the end of all")
        finally:
            os.kill(escaped, signal.SIGKILL)


def test_grandchildren_end_with_their_worker(poold):
    one = poold("misbehaves", workers=1)
    with one.client() as client:
        child = client.call("misbehaves.forks", ["popen"])
        one.ctl("kill", "misbehaves", "0")
        wait_for(lambda: not alive(child), 2, "the grandchild's end")


def test_kill_9_of_the_template(poold):
    one = poold("basic")
    pid = one.pool("basic")["templatePid"]
    os.kill(pid, signal.SIGKILL)
    with one.client() as client:
        for value in range(50):
            assert client.call("basic.echo", [value]) == value
        one.ctl("scale", "basic", "4")
        wait_for(lambda: len(one.workers("basic")) == 4, what="four workers without a template")
        wait_for(lambda: one.pool("basic")["template"] == "ready", 5, "a new template")
        assert one.pool("basic")["templatePid"] != pid


def test_starting_twice_and_stale_sockets(poold):
    import subprocess
    import sys

    from conftest import BIN, WORKERS

    one = poold("basic")
    second = subprocess.run([str(BIN / "poold"), "serve", "--socket", one.socket, "--pool", f"basic={WORKERS}/basic.py", "--python", sys.executable], capture_output=True, text=True, timeout=10)
    assert second.returncode == 69 and "another poold answers there" in second.stderr
    with one.client() as client:
        assert client.call("basic.echo", [1]) == 1
    one.process.kill()
    one.process.wait()
    assert os.path.exists(one.socket)
    third = subprocess.Popen([str(BIN / "poold"), "serve", "--socket", one.socket, "--pool", f"basic={WORKERS}/basic.py", "--python", sys.executable], stderr=subprocess.DEVNULL)
    try:
        with wait_for(lambda: _connects(one), 5, "a poold on the stale socket") as client:
            assert client.call("basic.echo", [1]) == 1
    finally:
        third.terminate()
        third.wait(10)


def _connects(one):
    client = one.client()
    try:
        client.methods()
        return client
    except OSError:
        return None


def test_no_descriptors_for_workers(poold):
    import resource

    one = poold("basic", "misbehaves")
    with one.client() as client:
        used = max(int(fd) for fd in os.listdir(f"/proc/{one.pid}/fd")) + 1
        soft, hard = resource.prlimit(one.pid, resource.RLIMIT_NOFILE)
        assert client.call("basic.echo", [0]) == 0
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (used + 6, hard))
        one.ctl("scale", "basic", "12")
        one.ctl("scale", "misbehaves", "12")
        wait_for(lambda: "no descriptors for a worker" in one.log(), what="the complaint")
        for value in range(200):
            assert client.call("basic.echo", [value]) == value
            assert client.call("misbehaves.echo", [value]) == value
        resource.prlimit(one.pid, resource.RLIMIT_NOFILE, (soft, hard))
        wait_for(lambda: len(one.workers("basic")) == 12 and len(one.workers("misbehaves")) == 12, 20, "all workers once there are descriptors")
        counters = [one.pool(name)["counters"] for name in ("basic", "misbehaves")]
        assert [int(c["results"]) for c in counters] == [201, 200]


DETACHES = """
import os, time
from poold import worker

@worker.method
def detach():
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.5)
        os._exit(0)
"""


def test_an_orphan_that_is_kept_hides_no_death(poold, tmp_path):
    """While the birth of a worker is not reported, an unknown process that ended is not reaped: it may be that worker."""
    (tmp_path / "detaches.py").write_text(DETACHES)
    one = poold(("detaches", tmp_path / "detaches.py"), "basic", workers=1)
    wait_for(lambda: one.workers("detaches") and one.workers("basic"), 20, "the workers")
    stopped = one.pool("basic")["templatePid"]
    os.kill(stopped, signal.SIGSTOP)
    try:
        os.kill(one.workers("basic")[0]["pid"], signal.SIGKILL)
        with one.client() as client:
            client.call("detaches.detach")
        first = one.workers("detaches")[0]["pid"]
        os.kill(first, signal.SIGKILL)
        second = wait_for(lambda: [w["pid"] for w in one.workers("detaches") if w["pid"] not in (0, first)], 10, "its successor")[0]
        time.sleep(0.8)  # the orphan has ended
        os.kill(second, signal.SIGKILL)
        wait_for(lambda: any("worker ended" in line and f"pid={second} " in line for line in one.log().splitlines()), 8, "its death to be seen")
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: one.workers("basic"), 20, "the worker of the template that was stopped")
