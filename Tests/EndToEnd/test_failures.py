"""Workers that behave badly: what the caller, the log, `status` and the post-mortem say of each."""
import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import threading
import time

import pytest
from conftest import ROOT, alive, operation, wait_for
from messages import OPERATIONS, encode

from poold import _wire
from poold.client import PooldError

FOLDER = ROOT / "Tests/PoolRuntimeTests/Workers"


@pytest.fixture
def bad(poold):
    """start("name", option, …) → (poold, client) with one worker of that module."""
    with contextlib.ExitStack() as stack:

        def start(name, *options, workers=1, wait=True):
            one = poold((name, FOLDER / f"{name}.py"), workers=workers, options=["--circuit", "0", *options])
            if wait:
                wait_for(lambda: one.workers(name), 20, "a ready worker")
            return one, stack.enter_context(one.client())

        yield start


def lost(client, method, arguments=None, status="worker_lost", **options):
    with pytest.raises(PooldError) as caught:
        client.call(method, arguments, **options)
    assert caught.value.status == status, caught.value
    return caught.value


def deaths(one, pool, count=1, seconds=20):
    """The newest deaths, once there are so many."""
    return wait_for(lambda: (found := operation(one, "POST_MORTEM", {"pool": pool})["deaths"]) and len(found) >= count and found, seconds, f"{count} deaths")


def replaced(one, pool, pid):
    wait_for(lambda: [w for w in one.workers(pool) if w["pid"] != pid], 20, "a new worker")


def line(one, *words):
    """The first line of the log with all these words."""
    return wait_for(lambda: next((text for text in one.log().splitlines() if all(word in text for word in words)), None), 10, f"a line with {words}")


def test_leaks_memory(bad):
    one, client = bad("leaks_memory", "--recycle-memory", "40", "--measure", "0.2")
    before = one.workers("leaks_memory")[0]["pid"]
    assert client.call("leaks_memory.leak", [60]) == 60
    replaced(one, "leaks_memory", before)
    assert client.call("leaks_memory.leak", [1]) == 1, "the caller notices nothing"
    death = deaths(one, "leaks_memory")[0]
    assert (death["exit"], death["code"], death["cause"], death["method"]) == ("status", 0, "memory", "")
    assert death["private_bytes"] > 40 << 20 and death["maximum_resident_bytes"] > 60 << 20 and death["calls"] == 1
    assert "worker ended" in line(one, "cause=memory", "exit=")


def test_ignores_term(bad):
    one, client = bad("ignores_term")
    pid = client.call("ignores_term.ignore")
    os.kill(pid, signal.SIGTERM)
    assert client.call("ignores_term.ignore") == pid, "it serves on"
    operation(one, "KILL", {"pool": "ignores_term", "slot": 0})
    death = deaths(one, "ignores_term")[0]
    assert (death["exit"], death["code"], death["cause"], death["pid"]) == ("signal", signal.SIGKILL, "operatorKill", pid)
    assert "most recent call first" in death["stack"], "taken before the kill"
    line(one, "worker ended", "cause=operatorKill", '"signal 9"')
    replaced(one, "ignores_term", pid)


def test_holds_the_gil(bad):
    one, client = bad("holds_the_gil", "--hang-after", "0.3")
    pid = one.workers("holds_the_gil")[0]["pid"]
    error = lost(client, "holds_the_gil.hold", [60], status="timeout_running", timeout=0.3)
    assert "did not come back to Python" in error.message and error.detail == ""
    shown = operation(one, "STACK", {"pool": "holds_the_gil", "slot": 0})["stacks"][0]
    assert shown["text"] == "" and "only a ready worker" in shown["problem"] or "C code that does not return to Python" in shown["problem"]
    death = deaths(one, "holds_the_gil")[0]
    assert (death["exit"], death["code"], death["cause"]) == ("signal", signal.SIGKILL, "hung")
    assert death["method"] == "holds_the_gil.hold" and death["ran_nanoseconds"] > 5e8 and death["body_bytes"] == 4 and death["hash"]
    assert "in _consume" in death["stack"], "faulthandler works while C holds the lock"
    line(one, "cause=hung", "phase=terminating", "method=holds_the_gil.hold")
    replaced(one, "holds_the_gil", pid)


def test_hangs_and_swallows_interruptions(bad):
    one, client = bad("hangs_in_call", "--hang-after", "0.3")
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(lost, client, "hangs_in_call.hang", status="timeout_running", timeout=1.5)
        call = wait_for(lambda: next((c for c in operation(one, "CALLS")["calls"] if c["running"]), None), 5, "a running call")
        assert call["method"] == "hang" and call["place"] == "sent" and call["uid"] == os.getuid() and call["client_pid"] == os.getpid()
        worker = one.pool("hangs_in_call")["workers"][0]
        assert worker["runningMethod"] == "hang" and int(worker["runningNanoseconds"]) > 0
        waiting.result()
    death = deaths(one, "hangs_in_call")[0]
    assert death["method"] == "hangs_in_call.hang" and death["cause"] == "hung" and "in hang" in death["stack"]
    line(one, "worker ended", "method=hangs_in_call.hang")
    assert int(operation(one, "STATS")["pools"][0]["worker_causes"]["hung"]) == 1, "SIGTERM and SIGKILL are one death"


def test_sends_bad_length(bad):
    one, client = bad("sends_bad_length")
    error = lost(client, "sends_bad_length.answer")
    assert "the worker of pool sends_bad_length ended while the call ran" in error.message
    death = deaths(one, "sends_bad_length")[0]
    assert death["cause"] == "protocolFault" and death["method"] == "sends_bad_length.answer" and death["held"] == 1
    assert "in answer" in death["stack"]
    assert "below" in line(one, "worker broke the protocol", "fault=") and line(one, "worker ended", "cause=protocolFault")
    assert operation(one, "QUARANTINE")["bodies"][0]["deaths"] == 1 and not operation(one, "QUARANTINE")["bodies"][0]["refused"]


def test_dies_at_boot(bad):
    one, client = bad("dies_at_boot", "--template", "off", wait=False)
    death = deaths(one, "dies_at_boot", 3)[0]
    assert (death["exit"], death["code"], death["cause"]) == ("status", 9, "crashed") and death["stack"] == "" and death["calls"] == 0
    pool = wait_for(lambda: (p := one.pool("dies_at_boot"))["health"] == "unavailable" and p, 10, "unavailable")
    assert int(pool["counters"]["startFailures"]) >= 3 and not one.workers("dies_at_boot")
    assert lost(client, "dies_at_boot.any", status="pool_unavailable").retry_after > 0
    assert "ended with status 9 before it was ready" in pool["failure"]
    line(one, "worker ended", 'exit="status 9"')
    line(one, "next start is delayed")


def test_cannot_be_imported(bad):
    one, client = bad("cannot_be_imported", "--template", "off", wait=False)
    death = deaths(one, "cannot_be_imported")[0]
    assert (death["exit"], death["code"], death["cause"]) == ("status", 70, "setupFailed")
    assert "no_such_module_anywhere" in death["failure"] and "Traceback" in death["failure"] and "no_such_module_anywhere" in death["stderr_tail"]
    assert "no_such_module_anywhere" in lost(client, "cannot_be_imported.any", status="pool_unavailable").message
    assert "no_such_module_anywhere" in one.pool("cannot_be_imported")["failure"]
    line(one, "worker cannot serve", "no_such_module_anywhere")


def test_floods_stdout(bad):
    one, client = bad("floods_stdout")
    pid = one.workers("floods_stdout")[0]["pid"]
    assert client.call("floods_stdout.flood", [16], timeout=30) == "flooded"
    operation(one, "KILL", {"pool": "floods_stdout", "slot": 0})
    death = deaths(one, "floods_stdout")[0]
    assert 1024 < len(death["stdout_tail"]) <= 4096 and set(death["stdout_tail"]) == {"x", "\n"} and death["pid"] == pid
    assert os.path.getsize(one.log_path) < 6 << 20, "limited in rate"
    line(one, "lines suppressed")


def test_forks_grandchildren(bad):
    one, client = bad("forks_grandchildren")
    pid = one.workers("forks_grandchildren")[0]["pid"]
    child = client.call("forks_grandchildren.fork")
    assert alive(child)
    os.kill(pid, signal.SIGKILL)
    death = deaths(one, "forks_grandchildren")[0]
    assert (death["exit"], death["code"], death["cause"], death["method"], death["calls"]) == ("signal", signal.SIGKILL, "crashed", "", 1)
    wait_for(lambda: not alive(child), what="the grandchild's end")
    line(one, "worker ended", '"signal 9"', "held=0")


def test_closes_its_socket(bad):
    one, client = bad("closes_its_socket")
    lost(client, "closes_its_socket.close")
    death = deaths(one, "closes_its_socket")[0]
    assert death["cause"] == "socketClosed" and death["method"] == "closes_its_socket.close" and "in close" in death["stack"]
    line(one, "worker ended", "cause=socketClosed")
    assert [w["phase"] for w in wait_for(lambda: one.workers("closes_its_socket"), 10, "a new worker")] == ["ready"]


def test_never_becomes_ready(bad):
    one, client = bad("is_never_ready", "--start-timeout", "1.5", "--template", "off", wait=False)
    death = deaths(one, "is_never_ready")[0]
    assert death["cause"] == "startTimeout" and death["calls"] == 0 and death["lived_nanoseconds"] > 1e9
    assert "in load" in death["stack"], "where its set-up hangs"
    line(one, "worker ended", "cause=startTimeout")
    lost(client, "is_never_ready.never", status="pool_unavailable")
    shown = operation(one, "STACK", {"pool": "is_never_ready", "slot": -1})
    assert shown["stacks"] == [], "there is no ready worker"


def test_exits_between_calls(bad):
    one, client = bad("exits_between_calls")
    pid = client.call("exits_between_calls.leave")
    death = deaths(one, "exits_between_calls")[0]
    assert (death["exit"], death["code"], death["cause"], death["calls"], death["method"]) == ("status", 0, "exited", 1, "") and death["pid"] == pid
    line(one, "warning worker ended", "cause=exited", '"status 0"')
    replaced(one, "exits_between_calls", pid)
    assert int(one.pool("exits_between_calls")["counters"].get("workerLost", 0)) == 0


def test_changes_on_disk(poold, tmp_path):
    """A file that does not import any more harms nobody: who serves goes on, and the post-mortem says what is wrong with it."""
    module = tmp_path / "changing.py"
    good = "from poold import worker\n\n\n@worker.method\ndef version():\n    return {}\n"
    module.write_text(good.format(1))
    one = poold(("changing", module), workers=1, options=["--template", "off"])
    wait_for(lambda: one.workers("changing"), 20, "a ready worker")
    with one.client() as client:
        module.write_text("from poold import worker\nthis is no Python\n")
        operation(one, "RECYCLE", {"pool": "changing", "slot": -1})
        death = deaths(one, "changing")[0]
        assert "SyntaxError" in death["failure"] and death["cause"] == "setupFailed"
        assert client.call("changing.version") == 1, "make before break"
        assert "SyntaxError" in one.pool("changing")["failure"]
        line(one, "worker cannot serve", "SyntaxError")
        module.write_text(good.format(22))
        wait_for(lambda: client.call("changing.version") == 22, 20, "the new version")
        assert one.pool("changing").get("failure", "") == ""


def test_scribbles_its_page(bad):
    one, client = bad("scribbles_its_page")
    lost(client, "scribbles_its_page.scribble")
    death = deaths(one, "scribbles_its_page")[0]
    assert (death["exit"], death["code"], death["held"]) == ("signal", signal.SIGKILL, 1)
    line(one, "rubbish to its execution page")


def test_a_timeout_tells_where_the_call_ran(poold):
    for overrun in ("cancel", "replace", "finish"):
        one = poold("basic", workers=1, options=["--overrun", overrun, "--hang-after", "5"])
        wait_for(lambda: one.workers("basic"), 20, "a ready worker")
        with one.client() as client:

            def told():
                error = lost(client, "basic.sleep", [1.2], status="timeout_running", timeout=0.4)
                assert "the budget ended while the call ran in pool basic" in error.message
                if not error.detail:  # a machine under load: it says so, and the next one is tried
                    assert "no stack" in error.message
                return error.detail

            detail = wait_for(told, 30, f"a stack with {overrun}")
            assert "Thread MainThread" in detail and "in sleep" in detail and "basic.py" in detail
        one.stop()


def test_who_leaves_before_the_stack_is_not_written_to(poold):
    one = poold("basic", workers=2, options=["--hang-after", "5"])
    wait_for(lambda: len(one.workers("basic")) == 2, 20, "ready workers")
    for _ in range(10):
        clients = [one.client() for _ in range(2)]
        threads = []
        for client in clients:
            def call(client=client):
                with contextlib.suppress(PooldError):
                    client.call("basic.sleep", [0.3], timeout=0.1)

            threads.append(threading.Thread(target=call))
            threads[-1].start()
        time.sleep(0.1)
        for client in clients:
            client.close()
        for thread in threads:
            thread.join()
        with one.client() as other:
            assert other.call("basic.echo", [7]) == 7
    assert alive(one.pid)


def test_many_stacks_asked_for_in_one_write(poold):
    """A stack is read while the frames behind its request are: neither spoils the other."""
    one = poold("basic", workers=1)
    wait_for(lambda: len(one.workers("basic")) == 1, 20, "a ready worker")
    request = encode("PoolRequest", pool="basic", slot=-1)
    code = OPERATIONS["stack"]
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(20)
        control.connect(one.socket + ".control")
        decoder = _wire.Decoder(1 << 30)
        for number in range(100):
            batch = range(number * 12 + 1, number * 12 + 13)
            control.sendall(b"".join(_wire.frame(_wire.CONTROL, request, code=code, id=id) for id in batch))
            time.sleep(0.0002 * (number % 10))
        answered = []
        while len(answered) < 1200:
            data = control.recv(1 << 20)
            assert data, "the connection was closed: " + one.log()[-500:]
            for kind, _, _, id, _, _, body in decoder.feed(data):
                assert kind == _wire.CONTROL or b"try again in a second" in body, body
                answered.append(id)
        assert sorted(answered) == list(range(1, 1201))


def test_a_successor_in_the_slot_is_not_meant(poold):
    one = poold("basic", workers=1)
    worker = wait_for(lambda: one.workers("basic"), 20, "a ready worker")[0]
    for name in ("KILL", "RECYCLE", "STACK"):
        with pytest.raises(PooldError, match=r"is gone; its slot has"):
            operation(one, name, {"pool": "basic", "slot": 0, "generation": worker["generation"] + 1})
    assert one.workers("basic")[0]["pid"] == worker["pid"]
    operation(one, "KILL", {"pool": "basic", "slot": 0, "generation": worker["generation"]})
    wait_for(lambda: one.workers("basic") and one.workers("basic")[0]["pid"] != worker["pid"], 20, "the next worker")


def test_stack_of_living_workers(poold):
    one = poold("basic", workers=2)
    wait_for(lambda: len(one.workers("basic")) == 2, 20, "ready workers")
    with one.client() as client, concurrent.futures.ThreadPoolExecutor(8) as threads:
        sleeping = threads.submit(client.call, "basic.sleep", [3])
        wait_for(lambda: any(c["running"] for c in operation(one, "CALLS", {"pool": "basic"})["calls"]), 5, "a running call")
        answers = [threads.submit(operation, one, "STACK", {"pool": "basic", "slot": -1}) for _ in range(4)]
        for answer in answers:
            stacks = answer.result()["stacks"]
            assert len(stacks) == 2 and {s["pid"] for s in stacks} == {w["pid"] for w in one.workers("basic")}
            for stack in stacks:
                busy = stack["running_method"] == "basic.sleep"
                assert stack["problem"] or ("in sleep" if busy else "waits for a call") in stack["text"]
        sleeping.result()  # the call goes on
    with pytest.raises(PooldError, match="there is no pool nobody"):
        operation(one, "STACK", {"pool": "nobody", "slot": 0})
    with pytest.raises(PooldError, match="has no worker 9"):
        operation(one, "STACK", {"pool": "basic", "slot": 9})


def test_quarantine_by_body_and_by_key(poold):
    one = poold("basic", workers=2, options=["--circuit", "0"])
    wait_for(lambda: len(one.workers("basic")) == 2, 20, "ready workers")
    with one.client() as client:
        for _ in range(2):
            lost(client, "basic.die", ["SIGKILL"], timeout=20)
        error = lost(client, "basic.die", ["SIGKILL"], status="quarantined")
        assert "2 workers died with it" in error.detail and "signal 9" in error.detail
        listed = operation(one, "QUARANTINE", {"pool": "basic"})["bodies"]
        assert [(b["method"], b["deaths"], b["refused"]) for b in listed] == [("die", 2, True)] and listed[0]["remaining_nanoseconds"] > 3e12
        assert {d["hash"] for d in operation(one, "POST_MORTEM")["deaths"]} == {listed[0]["hash"]} and listed[0]["hash"] in error.detail
        # By key: the bodies differ, the work is the same.
        for name in ("SIGKILL", "SIGSEGV"):
            lost(client, "basic.die", [name], idempotency_key="one piece of work", timeout=20)
        lost(client, "basic.die", ["SIGABRT"], status="quarantined", idempotency_key="one piece of work")
        lost(client, "basic.die", ["SIGABRT"], idempotency_key="another", timeout=20)
        crashed = next(d for d in operation(one, "POST_MORTEM")["deaths"] if d["code"] == signal.SIGSEGV)
        assert "in die" in crashed["stack"] and crashed["method"] == "basic.die"

        done = operation(one, "CLEAR_QUARANTINE", {"pool": "basic", "hash": listed[0]["hash"]})
        assert done["affected"] == 1 and "is taken again" in done["explanation"]
        lost(client, "basic.die", ["SIGKILL"], timeout=20)
        lost(client, "basic.die", ["SIGABRT"], status="quarantined", idempotency_key="one piece of work")
        for wrong, words in (("xyz", "not a hash"), ("12345", "has no quarantined body 12345")):
            with pytest.raises(PooldError, match=words):
                operation(one, "CLEAR_QUARANTINE", {"pool": "basic", "hash": wrong})
        assert operation(one, "CLEAR_QUARANTINE", {"pool": "basic"})["affected"] >= 2
        assert operation(one, "QUARANTINE")["bodies"] == []


def test_cancel_by_an_operator(poold):
    one = poold("basic", workers=1, options=["--window", "1"])
    wait_for(lambda: one.workers("basic"), 20, "a ready worker")
    with one.client() as client, concurrent.futures.ThreadPoolExecutor(4) as threads:
        ends = [threads.submit(lost, client, "basic.sleep", [30], status="cancelled", priority="low") for _ in range(2)]
        calls = wait_for(lambda: len(c := operation(one, "CALLS")["calls"]) == 2 and any(x["running"] for x in c) and c, 10, "two calls")
        assert operation(one, "CALLS", {"pool": "basic"})["total"] == 2 and {c["priority"] for c in calls} == {"low"}
        assert sorted(c["place"] for c in calls) == ["queued", "sent"] and all(re.fullmatch(r"basic:\d+\.\d+", c["call"]) for c in calls)
        for call in sorted(calls, key=lambda c: c["place"]):
            assert operation(one, "CANCEL", {"call": call["call"]})["affected"] == 1
        messages = sorted(end.result().message for end in ends)
        assert "by an operator before it began" in messages[0] and "by an operator while it ran" in messages[1]
        for wrong, words in ((calls[0]["call"], "has ended already"), ("basic", "does not name a call"), ("basic:x.1", "does not name"), ("no:1.1", "no pool no")):
            with pytest.raises(PooldError, match=words):
                operation(one, "CANCEL", {"call": wrong})


def test_sessions_are_listed(poold):
    one = poold("basic", workers=2, options=["--affinity", "prefer"])
    wait_for(lambda: one.workers("basic"), 20, "a ready worker")
    with one.client() as client:
        homes = {session: client.call("basic.session", session=session)[1] for session in (5, 6)}
        listed = operation(one, "SESSIONS")
        pids = {f"{w.get('slot', 0)}.{w['generation']}": w["pid"] for w in one.workers("basic")}
        assert listed["total"] == 2 and {s["session"]: pids[s["worker"]] for s in listed["sessions"]} == homes
        assert {s["uid"] for s in listed["sessions"]} == {os.getuid()}


def test_events(poold):
    one = poold("basic", workers=1)
    pid = wait_for(lambda: one.workers("basic"), 20, "a ready worker")[0]["pid"]
    before = operation(one, "EVENTS")
    assert before["lost"] == 0 and before["last"] == before["events"][-1]["number"] and any(e["message"] == "accepting calls" for e in before["events"])
    os.kill(pid, signal.SIGKILL)
    replaced(one, "basic", pid)
    new = operation(one, "EVENTS", {"after": before["last"], "pool": "basic"})["events"]
    ended = next(e for e in new if e["message"] == "worker ended")
    assert ended["level"] == "warning" and ended["metadata"]["exit"] == "signal 9" and ended["metadata"]["cause"] == "crashed"
    assert abs(ended["at"] / 1e9 - time.time()) < 60 and all(e["number"] > before["last"] for e in new)
    assert operation(one, "EVENTS", {"after": 1 << 60})["events"] == [] and operation(one, "EVENTS", {"pool": "other"})["events"] == []


def test_the_journal_forgets_the_oldest(poold):
    one = poold("basic", workers=1)
    for _ in range(600):
        operation(one, "CLEAR_QUARANTINE", {"pool": "basic"})
        operation(one, "CLEAR_QUARANTINE", {"pool": "basic"})
    events = operation(one, "EVENTS")
    assert len(events["events"]) == 1000 and events["lost"] == events["last"] - 1000 > 0
    assert [e["number"] for e in events["events"]] == list(range(events["last"] - 999, events["last"] + 1))


def test_the_last_32_deaths_are_kept(poold):
    one = poold("basic", workers=4, options=["--circuit", "0", "--quarantine", "0"])
    killed = set()
    while len(killed) < 36:
        for worker in wait_for(lambda: [w for w in one.workers("basic") if w["pid"] not in killed], 20, "a new worker"):
            operation(one, "KILL", {"pool": "basic", "slot": worker.get("slot", 0)})
            killed.add(worker["pid"])
    found = deaths(one, "basic", 32)
    assert len(found) == 32 and [d["at"] for d in found] == sorted((d["at"] for d in found), reverse=True)
