"""`warm:`: before a worker is ready, and by `poolctl warm` while the pool serves."""
import collections
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
from conftest import wait_for

from poold import _wire
from poold.client import PooldError

WARM, WARM_PROGRESS = 19, 20
MODULE = """
import os, time
from poold import worker
from basic import *

seen = []

@worker.method
def load(value, seconds=0.0):
    path = os.environ.get("WARM_FLAG", "/nowhere") + "-" + str(value)
    if os.path.exists(path):
        text = open(path).read()
        if text == "fail": raise ValueError("it is cold")
        time.sleep(float(text))
    seen.append(value)

@worker.method
def seen_so_far():
    return [os.getpid(), seen]
"""


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def fields(data):
    """{number: [value, …]} of a protobuf message."""
    at, found = 0, collections.defaultdict(list)

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 2:
            size = number()
            found[key >> 3].append(data[at:at + size])
            at += size
        else:
            assert key & 7 == 0
            found[key >> 3].append(number())
    return found


class Progress:
    def __init__(self, body):
        top = fields(body)
        self.job, self.pool, self.finished = top[1][0], top[2][0].decode(), top.get(3) == [1]
        self.workers = []
        for one in map(fields, top[4]):
            commands = [(c[1][0].decode(), c.get(2) == [1], (c.get(4) or [b""])[0].decode()) for c in map(fields, one[3])]
            self.workers.append((one[1][0].decode(), one[2][0].decode(), commands, (one.get(4) or [b""])[0].decode()))

    def states(self):
        return collections.Counter(state for _, state, _, _ in self.workers)


def operate(one, operation, body):
    """The body of the reply. Raises PooldError."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(20)
        control.connect(one.socket + ".control")
        control.sendall(_wire.frame(_wire.CONTROL, body, code=operation, id=1))
        decoder = _wire.Decoder(1 << 24)
        while True:
            data = control.recv(1 << 16)
            assert data, "poold closed the control socket"
            for kind, _, code, _, _, _, reply in decoder.feed(data):
                if kind == _wire.ERROR:
                    raise PooldError(_wire.STATUS[code], reply.decode())
                return reply


def warm(one, pool="warmed", slot=-1):
    zigzag = slot << 1 ^ slot >> 31
    return Progress(operate(one, WARM, b"\x0a" + varint(len(pool)) + pool.encode() + b"\x10" + varint(zigzag & 0xFFFFFFFF)))


def progress(one, job):
    return Progress(operate(one, WARM_PROGRESS, b"\x08" + varint(job)))


def finished(one, job, seconds=30):
    return wait_for(lambda: (p := progress(one, job)).finished and p, seconds, "the end of the warming job")


@pytest.fixture
def start(poold, tmp_path, monkeypatch):
    """start("{call: load, arguments: [1]}", …) → poold with pool `warmed`; files FLAG-VALUE say how load(VALUE) ends."""
    monkeypatch.setenv("WARM_FLAG", str(tmp_path / "flag"))
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__) + "/workers")
    module = tmp_path / "warmed.py"
    module.write_text(MODULE)

    def one(*commands, timeout=20.0, template="on", workers=2, wait=True, options=()):
        page = tmp_path / "poold.yaml"
        page.write_text(f"pools:\n  warmed:\n    module: {module}\n    warm_timeout: {timeout}s\n    warm: [{', '.join(commands)}]\n")
        return poold(workers=workers, options=["--config", str(page), "--template", template, *options], wait=wait)

    return one


@pytest.mark.parametrize("template", ["on", "off"])
def test_a_worker_is_ready_only_when_it_is_warm(start, tmp_path, template):
    script = tmp_path / "script.py"
    script.write_text("import sys\nnext(m for m in sys.modules.values() if hasattr(m, 'seen_so_far')).seen.append('script')\n")
    one = start("{call: load, arguments: {value: 1}}", "{call: load, arguments: [2, 0.1]}", "{import: colorsys}", f"{{script: {script}}}", template=template)
    wait_for(lambda: len(one.workers("warmed")) == 2, 20, "two workers")
    with one.client() as client:
        for _ in range(20):
            assert client.call("warmed.seen_so_far", timeout=20)[1] == [1, 2, "script"]
        one.ctl("kill", "warmed", "0")
        wait_for(lambda: len(one.workers("warmed")) == 2, 20, "two workers")
        for _ in range(20):
            assert client.call("warmed.seen_so_far", timeout=20)[1] == [1, 2, "script"]
    assert one.pool("warmed")["warmCommands"] == 4
    assert "poold.warm" not in one.ctl("methods").stdout


def test_a_failing_command_is_a_failed_start(start, tmp_path):
    (tmp_path / "flag-2").write_text("fail")
    one = start("{call: load, arguments: [1]}", "{call: load, arguments: [2]}", wait=False)
    failure = wait_for(lambda: "accepting calls" in one.log() and one.pool("warmed").get("failure"), 30, "the failure")
    assert failure.startswith("warming failed: ") and "call load: ValueError: it is cold" in failure and "Traceback" in failure
    assert not one.workers("warmed")
    with one.client() as client, pytest.raises(PooldError) as caught:
        client.call("warmed.echo", [1], timeout=5)
    assert caught.value.status == "pool_unavailable" and "it is cold" in str(caught.value) + caught.value.detail
    # It heals by itself.
    (tmp_path / "flag-2").unlink()
    wait_for(lambda: len(one.workers("warmed")) == 2, 60, "two workers")


def test_an_overlong_command_is_a_failed_start(start, tmp_path):
    (tmp_path / "flag-1").write_text("60")
    one = start("{call: load, arguments: [1]}", timeout=0.3, wait=False)
    failure = wait_for(lambda: "accepting calls" in one.log() and one.pool("warmed").get("failure"), 30, "the failure")
    assert "call load" in failure and "longer than 0.3 s" in failure


def test_warm_on_request_adds_up(start):
    one = start("{call: load, arguments: [1]}", "{call: load, arguments: [2]}", workers=5)
    wait_for(lambda: len(one.workers("warmed")) == 5, 20, "five workers")
    before = one.pool("warmed").get("counters", {})
    begun = warm(one)
    assert begun.pool == "warmed" and len(begun.workers) == 5 and begun.states()["warming"] <= 1, "a third at a time: the others serve"
    assert begun.states()["waiting"] >= 4
    done = finished(one, begun.job)
    assert done.states() == {"warm": 5}
    for _, _, commands, problem in done.workers:
        assert commands == [("call load", True, ""), ("call load", True, "")] and problem == ""
    with one.client() as client:
        assert client.call("warmed.seen_so_far", timeout=20)[1] == [1, 2, 1, 2]
    after = one.pool("warmed").get("counters", {})
    assert int(after.get("arrived", 0)) == int(before.get("arrived", 0)) + 1, "callers' calls only"
    only = finished(one, warm(one, slot=3).job)
    assert [(worker.split(".")[0], state) for worker, state, _, _ in only.workers] == [("3", "warm")]


def test_a_command_that_fails_on_request(start, tmp_path):
    one = start("{call: load, arguments: [1]}", "{call: load, arguments: [2]}")
    wait_for(lambda: len(one.workers("warmed")) == 2, 20, "two workers")
    (tmp_path / "flag-1").write_text("fail")
    done = finished(one, warm(one).job)
    assert done.states() == {"failed": 2}
    for _, _, commands, problem in done.workers:
        assert [succeeded for _, succeeded, _ in commands] == [False, True] and "it is cold" in commands[0][2]
        assert problem == "call load: ValueError: it is cold"
    assert len(one.workers("warmed")) == 2, "they serve as before"


def test_a_worker_killed_while_it_is_warmed(start, tmp_path):
    one = start("{call: load, arguments: [1]}", timeout=60)
    workers = wait_for(lambda: len(w := one.workers("warmed")) == 2 and w, 20, "two workers")
    (tmp_path / "flag-1").write_text("30")
    job = warm(one).job
    warming = wait_for(lambda: next((w for w, state, _, _ in progress(one, job).workers if state == "warming"), None), what="a worker is warming")
    with pytest.raises(PooldError, match="being warmed already, by job"):
        warm(one)
    victim = next(w for w in workers if warming.startswith(f"{w.get('slot', 0)}."))
    wait_for(lambda: any(w.get("outstanding") for w in one.workers("warmed")), what="the call is at the worker")
    time.sleep(0.3)
    os.kill(victim["pid"], signal.SIGKILL)
    (tmp_path / "flag-1").unlink()
    done = finished(one, job)
    assert done.states() == {"failed": 1, "warm": 1}
    assert next(problem for w, _, _, problem in done.workers if w == warming).startswith("it ended while it was warmed")
    wait_for(lambda: len(one.workers("warmed")) == 2, 20, "two workers")
    assert one.pool("warmed").get("quarantined", 0) == 0


def test_calls_are_answered_while_the_pool_is_warmed(start):
    one = start("{call: load, arguments: [1, 0.05]}", workers=3, options=["--budget", "30"])
    wait_for(lambda: len(one.workers("warmed")) == 3, 20, "three workers")
    over = threading.Event()
    counted = collections.Counter()

    def load():
        with one.client() as client:
            while not over.is_set():
                try:
                    client.call("warmed.echo", [1])
                    counted["result"] += 1
                except PooldError as error:
                    counted[error.status] += 1

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert finished(one, warm(one).job).states() == {"warm": 3}
    one.ctl("recycle", "warmed")
    job = warm(one).job
    assert set(finished(one, job).states()) <= {"warm", "gone"}
    over.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert set(counted) == {"result"} and counted["result"] > 100, counted


def test_what_cannot_be_warmed(start, poold):
    one = start("{call: load, arguments: [1]}")
    for arguments, words in [(("nowhere",), "there is no pool nowhere"), (("warmed", 77), "has no worker 77")]:
        with pytest.raises(PooldError, match=words):
            warm(one, *arguments)
    with pytest.raises(PooldError, match="no warming job 99"):
        progress(one, 99)
    plain = poold("basic")
    with pytest.raises(PooldError, match="has no warming commands"):
        warm(plain, "basic")
    # Its number belongs to poold.
    with one.client() as client, socket.socket(socket.AF_UNIX) as raw:
        client.call("warmed.echo", [1])
        raw.connect(one.socket)
        raw.sendall(_wire.frame(_wire.CALL, b"", 1, 65535, 5))
        assert struct.unpack(">IBBH", raw.recv(4096)[:8])[3] == _wire.STATUS_NUMBER["no_such_method"]


def test_a_draining_pool_can_be_warmed_and_shutdown_ends_a_job(start, tmp_path):
    one = start("{call: load, arguments: [1]}", timeout=60)
    wait_for(lambda: len(one.workers("warmed")) == 2, 20, "two workers")
    one.ctl("drain", "warmed")
    assert finished(one, warm(one).job).states() == {"warm": 2}
    one.ctl("resume", "warmed")
    (tmp_path / "flag-1").write_text("30")
    warm(one)
    one.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    one.process.send_signal(signal.SIGTERM)
    try:
        one.process.wait(20)
    except subprocess.TimeoutExpired:
        pytest.fail("a warming call held up the shutdown")
