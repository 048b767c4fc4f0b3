"""What a hostile caller, an unlucky operator or bad timing must not achieve."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import pytest
from conftest import Poold, alive, operation, wait_for
from messages import OPERATIONS
from test_reload import Site, call, pids, site  # noqa: F401
from test_service_manager import manager  # noqa: F401

from poold import _wire
from poold.client import Client
from poold.errors import Cancelled

SLOW_MODULE = """
import os, time
if os.path.exists({marker!r}):
    time.sleep(2)
from poold import worker

@worker.method
def greet(value=None):
    return [value, {version}]

@worker.method
def nap(seconds=0.01):
    time.sleep(seconds)
    return os.getpid()
"""


def as_nobody(function):
    """Runs in a child of another user; what it returns."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text)


def open_to_others(site):
    """Other users may reach the socket: pytest's folders are private."""
    for folder in [site.folder, *site.folder.parents]:
        if str(folder).startswith("/tmp/"):
            os.chmod(folder, 0o755)


def resident(pid):
    """In bytes."""
    with open(f"/proc/{pid}/statm") as text:
        return int(text.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def names(poold):
    with poold.client() as client:
        return sorted(client.methods())


def test_a_worker_that_comes_late_does_not_bring_back_a_removed_pool(site):  # noqa: F811
    marker = site.folder / "slow"

    def write(version):
        (site.folder / "extra.py").write_text(SLOW_MODULE.format(marker=str(marker), version=version))

    write(1)
    site.module("text")
    site.module("other", method="other_method")
    extra = {"workers": 2, "template": "off"}
    site.configure({"text": {"workers": 1}, "extra": extra}, daemon=", starting_at_once: 8")
    poold = site.start()
    wait_for(lambda: len(pids(poold, "extra")) == 2, 15, "two workers")
    marker.write_text("")
    result = []
    with poold.client() as client, poold.client() as other:
        thread = threading.Thread(target=lambda: result.append(client.call("extra.nap", [4.0], timeout=20)))
        thread.start()
        busy = wait_for(lambda: [w for w in poold.workers("extra") if w.get("outstanding")], 5, "a busy worker")[0]
        idle = next(w for w in poold.workers("extra") if w["pid"] != busy["pid"])
        poold.ctl("kill", "extra", str(idle.get("slot", 0)), check=False)
        if alive(idle["pid"]):
            os.kill(idle["pid"], signal.SIGKILL)
        wait_for(lambda: len(pids(poold, "extra")) == 1, 5, "the death")
        site.configure({"text": {"workers": 1}})
        site.reload()
        assert call(other, "extra.greet") == "no_such_pool"
        # Its successor is ready now, while the pool still finishes the call that it has.
        time.sleep(2.7)
        assert not thread.join(0) and thread.is_alive(), "the pool was to be draining still"
        assert not [name for name in names(poold) if name.startswith("extra.")]
        assert call(other, "extra.greet") == "no_such_pool"
        thread.join()
        assert result and result[0] > 0
        # Its place goes to others: no number may lead there.
        marker.unlink()
        write(2)
        wait_for(lambda: "pool is gone" in poold.log(), 10, "the pool's end")
        site.configure({"text": {"workers": 1}, "other": {"workers": 1}, "extra": extra})
        site.reload()
        wait_for(lambda: call(other, "extra.greet") == [1, 2], 15, "the pool of the same name")
        wait_for(lambda: call(other, "other.other_method") == [1, 1], 15, "the pool beside it")


def test_a_pool_of_the_same_name_serves_while_the_old_one_drains(site):  # noqa: F811
    site.module("text")
    site.module("extra", version=1)
    site.configure({"text": {"workers": 1}, "extra": {"workers": 2}})
    poold = site.start()
    with poold.client() as client, poold.client() as other:
        result = []

        def nap():
            try:
                result.append(client.call("extra.nap", [3.0], timeout=20))
            except Cancelled as error:
                result.append(error)

        thread = threading.Thread(target=nap)
        thread.start()
        time.sleep(0.3)
        site.configure({"text": {"workers": 1}})
        site.reload()
        site.module("extra", version=2)
        site.configure({"text": {"workers": 1}, "extra": {"workers": 1}})
        site.reload()
        wait_for(lambda: call(other, "extra.greet") == [1, 2], 15, "the new pool")
        assert thread.is_alive() or result
        listed = [one for one in operation(poold, "CALLS")["calls"] if one["pool"] == "extra"]
        if thread.is_alive() and listed:
            # The call of the old pool can be named, though the pool cannot.
            operation(poold, "CANCEL", {"call": listed[0]["call"]})
        thread.join()


def test_a_reload_that_comes_too_late_does_not_keep_poold_alive(site):  # noqa: F811
    site.module("text")
    site.module("extra")
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    with poold.client() as client:
        thread = threading.Thread(target=lambda: call_quietly(client))
        thread.start()
        wait_for(lambda: [w for w in poold.workers("text") if w.get("outstanding")], 5, "a call")
        site.configure({"text": {"workers": 1}, "extra": {"workers": 1}})
        os.kill(poold.pid, signal.SIGSTOP)
        os.kill(poold.pid, signal.SIGHUP)
        os.kill(poold.pid, signal.SIGTERM)
        os.kill(poold.pid, signal.SIGCONT)
        thread.join()
    poold.process.wait(10)
    assert "poold is stopping" in poold.log()


def call_quietly(client):
    try:
        client.call("text.nap", [1.5], timeout=20)
    except Exception:
        pass


def test_poold_ends_while_a_template_is_being_replaced(site):  # noqa: F811
    site.module("text")
    site.configure({"text": {"workers": 2}})
    poold = site.start()
    wait_for(lambda: len(pids(poold, "text")) == 2, 15, "two workers")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(poold.socket + ".control")
        time.sleep(0.2)
        os.kill(poold.pid, signal.SIGSTOP)
        wait_for(lambda: open(f"/proc/{poold.pid}/stat").read().rsplit(") ", 1)[1][0] == "T", 5, "stopped")
        # OPERATION_RECYCLE of the whole pool: the template is killed, and a worker waits for the next one.
        body = b"\x0a\x04text\x10\x01"
        connection.sendall(_wire.frame(_wire.CONTROL, body, code=4, id=1))
        os.kill(poold.pid, signal.SIGTERM)
        os.kill(poold.pid, signal.SIGCONT)
        poold.process.wait(10)
    assert "stopping" in poold.log()


def test_the_largest_body_stays_what_workers_were_told(site):  # noqa: F811
    site.module("text")
    site.configure({"text": {"workers": 1}}, limits="{ max_body: 2MiB }")
    poold = site.start()
    before = poold.full("text")
    site.configure({"text": {"workers": 1}}, limits="{ max_body: 8MiB }")
    effects = [c["effect"] for c in site.reload()["changes"]]
    with poold.client() as client:
        with pytest.raises(ValueError):
            client.call("text.greet", ["x" * (4 << 20)], timeout=10)
    site.configure({"text": {"workers": 1}}, limits="{ max_body: 1KiB }")
    site.reload()
    with poold.client() as client:
        assert client.call("text.greet", ["x" * 4096], timeout=10)[1] == 1
    assert pids(poold, "text") == before, "no worker was lost"
    assert effects == ["restart"]


def test_a_caller_that_does_not_read_is_not_told_of_methods_for_ever(site):  # noqa: F811
    site.module("text")
    (site.folder / "wide.py").write_text(
        "from poold import worker\n"
        "for number in range(900):\n"
        "    worker.method(lambda value=None: value, name=f'{number:0120d}')\n")
    limits = "{ max_unread_per_connection: 4KiB, max_unread_to_close: 64KiB }"
    site.configure({"text": {"workers": 1}}, limits=limits)
    poold = site.start()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(poold.socket)
        deaf.sendall(_wire.hello("deaf"))
        for _ in range(4):
            site.configure({"text": {"workers": 1}, "wide": {"workers": 1}}, limits=limits)
            site.reload()
            wait_for(lambda: any(name.startswith("wide.") for name in names(poold)), 15, "the methods")
            site.configure({"text": {"workers": 1}}, limits=limits)
            site.reload()
        wait_for(lambda: "its replies are not read" in poold.log(), 5, "the caller's end")


def test_cancelling_what_is_not_there_holds_up_nobody(site):  # noqa: F811
    site.module("text")
    site.module("extra")
    site.configure(
        {"text": {"workers": 1}, "extra": {"workers": 1, "queue": "{ max_calls: 100000 }", "budget": "{ max: 1h }"}}, limits="{ max_calls_per_connection: 65535 }")
    poold = site.start()
    with poold.client() as client, socket.socket(socket.AF_UNIX) as hostile:
        assert call(client, "text.greet") == [1, 1]
        hostile.connect(poold.socket)
        body = b"\x09extra.nap[60]"
        for first in range(1, 60001, 1000):
            hostile.sendall(b"".join(_wire.frame(_wire.CALL, body, _wire.END | _wire.NAMED, 0, number, 0, 10**12) for number in range(first, first + 1000)))
        wait_for(lambda: poold.pool("extra").get("queuedCalls", 0) > 50000, 30, "a long list")
        flood = b"".join(_wire.frame(_wire.CANCEL, id=10**9 + number) for number in range(8192))
        hostile.setblocking(False)
        over = []

        def send():
            sent = 0
            while not over:
                try:
                    sent += hostile.send(flood[sent % len(flood) // 32 * 32:])
                except BlockingIOError:
                    time.sleep(0.001)

        thread = threading.Thread(target=send)
        thread.start()
        worst = 0.0
        try:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                begin = time.monotonic()
                client.call("text.greet", [1], timeout=20)
                worst = max(worst, time.monotonic() - begin)
        finally:
            over.append(True)
            thread.join()
        print(f"the slowest call beside the flood took {worst * 1e3:.1f} ms")
        # It was 5 s; beside the flood alone it is some 10 ms, on a busy machine more.
        assert worst < 2


def test_a_worker_that_was_let_go_does_not_come_back_with_old_code(site):  # noqa: F811
    site.module("text")
    site.configure({"text": {"workers": 2}})
    poold = site.start()
    wait_for(lambda: len(pids(poold, "text")) == 2, 15, "two workers")

    def nap():
        with poold.client() as client:
            client.call("text.nap", [4.0], timeout=20)

    threads = [threading.Thread(target=nap) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len([w for w in poold.workers("text") if w.get("outstanding")]) == 2, 5, "both busy")
    for workers, version in ((1, 0), (1, 2), (2, 0)):
        if version:
            site.module("text", version=version)
        site.configure({"text": {"workers": workers}})
        site.reload()
    for thread in threads:
        thread.join()
    with poold.client() as client:
        wait_for(lambda: call(client, "text.greet") == [1, 2], 15, "the new code")
    wait_for(lambda: len(pids(poold, "text")) == 2, 15, "two workers")
    time.sleep(1)
    answers = []

    def ask():
        with poold.client() as client:
            for _ in range(20):
                answers.append(call(client, "text.greet"))
                client.call("text.nap", [0.02], timeout=60)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 120 and {str(answer) for answer in answers} == {"[1, 2]"}


@pytest.mark.parametrize("lie, fault", [("methods", "METHODS a second time"), ("refusal", "after it was ready")])
def test_a_ready_worker_cannot_begin_again(site, lie, fault):  # noqa: F811
    site.module("text")
    (site.folder / "liar.py").write_text(
        "import os, time\n"
        "from poold import _wire, worker\n"
        "@worker.method\n"
        "def lie(kind):\n"
        "    if kind == 'methods':\n"
        "        os.write(3, _wire.frame(_wire.METHODS, _wire.methods([(1, 0, 0, 'lie'), (2, 0, 0, 'other')])))\n"
        "    else:\n"
        "        os.write(3, _wire.frame(_wire.ERROR, b'no', 1, 22))\n"
        "    time.sleep(1)\n")
    site.configure({"text": {"workers": 1}, "liar": {"workers": 1}})
    poold = site.start()
    with poold.client() as client:
        with pytest.raises(Exception, match="worker_lost"):
            client.call("liar.lie", [lie], timeout=10)
        assert fault in poold.log()
        assert "liar.other" not in names(poold)
    assert not poold.pool("liar").get("failure")


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: needs root")
def test_strangers_do_not_fill_the_control_socket(site):  # noqa: F811
    site.module("text")
    os.chmod(site.folder, 0o755)
    for parent in site.folder.parents:
        if str(parent).startswith("/tmp/"):
            os.chmod(parent, 0o755)
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    os.chmod(poold.folder, 0o755)

    def fill():
        sockets = []
        for _ in range(80):
            one = socket.socket(socket.AF_UNIX)
            one.connect(poold.socket + ".control")
            sockets.append(one)
        time.sleep(0.5)
        return poold.ctl("status", check=False).returncode

    def fill_and_hold():
        fill()
        time.sleep(6)
        return 0

    thread = threading.Thread(target=lambda: as_nobody(fill_and_hold))
    thread.start()
    wait_for(lambda: "connection refused: the limit is reached" in poold.log(), 10, "a full house for strangers")
    assert poold.ctl("status", check=False).returncode == 0
    thread.join()


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: needs root")
def test_who_only_looks_does_not_see_environments(site):  # noqa: F811
    site.module("text")
    os.chmod(site.folder, 0o755)
    for parent in site.folder.parents:
        if str(parent).startswith("/tmp/"):
            os.chmod(parent, 0o755)
    site.configure({"text": {"workers": 1, "environment": "{ PASSWORD: hunter2 }"}}, roles="{ look: [nobody] }")
    poold = site.start()

    def ask():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(poold.socket + ".control")
            connection.sendall(_wire.frame(_wire.CONTROL, code=18, id=1))
            answer = b""
            while len(answer) < 32 or len(answer) < _wire.HEADER.unpack(answer[:32])[0] + 4:
                answer += connection.recv(1 << 20)
            return answer.decode("latin1")

    assert "hunter2" in ask()
    seen = as_nobody(ask)
    assert "text.environment" in seen and "hunter2" not in seen


@pytest.mark.skipif(os.getuid() != 0, reason="becomes other users: needs root")
def test_many_users_do_not_use_up_the_classes_of_callers(site):  # noqa: F811
    site.module("text")
    open_to_others(site)
    site.configure({"text": {"workers": 1, "callers": "[nobody]"}})
    poold = site.start()

    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            for user in range(100_000, 104_200):
                os.seteuid(user)
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(poold.socket)
                os.seteuid(0)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0

    def calls():
        with Client(poold.socket) as client:
            return call(client, "text.greet")

    # It comes for the first time, and is still known for who it is.
    assert as_nobody(calls) == [1, 1]


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: needs root")
def test_a_caller_without_permission_does_not_push_out_events(site):  # noqa: F811
    site.module("text")
    open_to_others(site)
    site.configure({"text": {"workers": 1, "callers": "[root]"}})
    poold = site.start()

    def calls():
        with Client(poold.socket) as client:
            return call(client, "text.greet")

    assert as_nobody(calls) == "permission_denied"
    assert "call refused" in poold.log()
    assert "call refused" not in json.dumps(operation(poold, "EVENTS"))


def test_many_operations_in_one_write_do_not_hold_up_callers(site):  # noqa: F811
    site.module("text")
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    with poold.client() as client, socket.socket(socket.AF_UNIX) as control:
        call(client, "text.greet")
        control.connect(poold.socket + ".control")
        control.sendall(b"".join(_wire.frame(_wire.CONTROL, b"", code=1, id=number) for number in range(1, 5001)))
        began = time.monotonic()
        call(client, "text.greet")
        # 5,000 times STATUS takes a second or more; a caller waits for one or two of them.
        first = time.monotonic() - began
        decoder = _wire.Decoder(1 << 30)
        seen = 0
        while seen < 5000:
            seen += len(list(decoder.feed(control.recv(1 << 20))))
        whole = time.monotonic() - began
        assert first < max(0.1, whole / 4), (first, whole)


def test_who_does_not_read_its_answers_is_given_no_more_of_them(site):  # noqa: F811
    site.module("text")
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    with poold.client() as client, socket.socket(socket.AF_UNIX) as control:
        call(client, "text.greet")
        control.connect(poold.socket + ".control")
        control.setblocking(False)
        # Each answer has some 10 KiB: all of them would be 80 MiB and more.
        flood = b"".join(_wire.frame(_wire.CONTROL, b"", code=OPERATIONS["configuration"], id=number) for number in range(1, 8193))
        before = resident(poold.pid)
        sent = 0
        end = time.monotonic() + 3
        while time.monotonic() < end:
            try:
                sent += control.send(flood[sent % len(flood) // 32 * 32:])
            except BlockingIOError:
                time.sleep(0.01)
        assert resident(poold.pid) - before < 24 << 20
        assert call(client, "text.greet") == [1, 1]


def test_callers_do_not_shut_out_the_canary(manager, tmp_path):  # noqa: F811
    config = tmp_path / "poold.yaml"
    (tmp_path / "text.py").write_text("import time\ntime.sleep(1)\nfrom poold import worker\n\n@worker.method\ndef greet():\n    return 1\n")
    config.write_text("daemon: { startup_limit: 0s }\nlimits: { max_connections: 4 }\npools:\n  text: { module: text.py, workers: 1 }\n")
    one = manager(watchdog=4.0, options=["--config", str(config)])
    wait_for(lambda: os.path.exists(one.socket), 10, "the socket")
    callers = []
    for _ in range(8):
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(one.socket)
        callers.append(caller)
    one.wait("READY=1", 20)
    assert one.fed()
    for caller in callers:
        caller.close()


def test_as_many_pools_as_a_configuration_may_have_and_the_canary(manager, tmp_path):  # noqa: F811
    (tmp_path / "text.py").write_text("from poold import worker\n\n@worker.method\ndef greet():\n    return 1\n")
    pools = "".join(f"  p{number}: {{ module: text.py, workers: 0, min_workers: 0, template: off }}\n" for number in range(256))
    config = tmp_path / "poold.yaml"
    config.write_text(f"daemon: {{ canary: on }}\npools:\n{pools}")
    one = manager(watchdog=4.0, options=["--config", str(config)])
    one.wait("READY=1", 20)
    assert "too many" not in one.log() and one.canary()
    os.kill(one.process.pid, signal.SIGHUP)
    wait_for(lambda: "configuration reloaded" in one.log(), 20, "the reload")
    assert one.canary()


def test_a_budget_begins_when_its_call_is_read(poold, tmp_path, monkeypatch):
    """A turn that is held up began before the call was sent: counted from then, the budget would be over too early."""
    library = tmp_path / "slow_recv.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(pathlib.Path(__file__).parent / "slow_recv.c")], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    one = poold("basic", workers=1)
    monkeypatch.delenv("LD_PRELOAD")

    def call(seconds, budget):
        return _wire.frame(_wire.CALL, bytes([11]) + b"basic.sleep" + seconds, flags=_wire.END | _wire.NAMED, id=1, time=budget)

    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        for one_socket in (busy, waiting):
            one_socket.settimeout(20)
            one_socket.connect(one.socket)
        busy.sendall(call(b"[2]", 10_000_000_000))
        wait_for(lambda: one.workers("basic")[0].get("runningMethod") == "sleep", 10, "a busy worker")
        time.sleep(0.2)  # poolctl's connection is read to its end, in a turn of its own
        waiting.sendall(_wire.frame(_wire.PING, id=7))
        time.sleep(0.015)
        began = time.monotonic()
        waiting.sendall(call(b"[0]", 60_000_000))
        decoder, end = _wire.Decoder(1 << 20), None
        while end is None:
            end = next((frame for frame in decoder.feed(waiting.recv(1 << 16)) if frame[0] != _wire.PONG), None)
        took = time.monotonic() - began
        assert (end[0], _wire.STATUS[end[2]]) == (_wire.ERROR, "timeout_waiting") and 0.06 <= took < 5, (end, took)
        assert busy.recv(1 << 16)
