"""What the policies promise, seen from outside."""
import concurrent.futures
import os
import signal
import subprocess
import threading
import time

import pytest
from conftest import BIN, wait_for

from poold.client import PooldError


def test_sessions_stay_with_their_worker(poold):
    one = poold("basic", workers=3, options=["--affinity", "require"])
    with one.client() as client:
        homes = {s: client.call("basic.session", session=s)[1] for s in range(1, 7)}
        for _ in range(5):
            for session, home in homes.items():
                assert client.call("basic.session", session=session) == [session, home]
        # Calls of one session wait for its worker, though others are idle.
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            pids = list(threads.map(lambda _: client.call("basic.session", session=1)[1], range(40)))
        assert set(pids) == {homes[1]}
        os.kill(homes[1], signal.SIGKILL)
        wait_for(lambda: len([w for w in one.workers("basic") if w["pid"] != homes[1]]) == 3, what="a new worker")
        with pytest.raises(PooldError) as caught:
            client.call("basic.session", session=1)
        assert caught.value.status == "session_lost"
        assert client.call("basic.session", session=1)[1] != homes[1], "said once, then it begins anew"


def test_sessions_prefer_their_worker(poold):
    one = poold("basic", workers=3, options=["--affinity", "prefer"])
    with one.client() as client:
        home = client.call("basic.session", session=5)[1]
        assert {client.call("basic.session", session=5)[1] for _ in range(20)} == {home}
        os.kill(home, signal.SIGKILL)
        time.sleep(0.3)
        assert client.call("basic.session", session=5)[1] != home


def test_recycling_by_calls_loses_nothing(poold):
    one = poold("basic", options=["--recycle-calls", "50"])
    with one.client() as client, concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda v: client.call("basic.echo", [v]), range(2000))) == list(range(2000))
        assert int(one.pool("basic")["counters"]["recycled"]) >= 2
        assert int(one.pool("basic")["counters"].get("workerLost", 0)) == 0


def test_recycling_by_memory(poold):
    one = poold("misbehaves", workers=1, options=["--recycle-memory", "40", "--measure", "0.2"])
    with one.client() as client:
        before = client.call("misbehaves.leaks", [1])
        assert client.call("misbehaves.leaks", [60]) == before
        wait_for(lambda: {w["pid"] for w in one.workers("misbehaves")} - {before}, what="a new worker")
        assert "cause=memory" in one.log()
        assert client.call("misbehaves.leaks", [1]) != before


def test_recycling_by_age(poold):
    one = poold("basic", workers=2, options=["--recycle-age", "1"])
    before = one.full("basic")
    with one.client() as client:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            assert client.call("basic.echo", [1]) == 1
    assert not before & {w["pid"] for w in one.workers("basic")} and "cause=age" in one.log()


def test_a_stopped_worker_is_found_by_its_health(poold):
    one = poold("basic", workers=1, options=["--health", "0.3"])
    pid = one.workers("basic")[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: {w["pid"] for w in one.workers("basic")} - {pid}, 30, "another worker")
    assert "cause=unhealthy" in one.log()
    with one.client() as client:
        assert client.call("basic.echo", [1]) == 1


def test_a_pool_that_is_scaled_to_none_says_so(poold):
    one = poold("basic", workers=1)
    assert subprocess.run([str(BIN / "poolctl"), "scale", "basic", "0", "--wait", "--socket", one.socket], capture_output=True, timeout=20).returncode == 0
    with one.client() as client:
        with pytest.raises(PooldError) as caught:
            client.call("basic.echo", [1])
    assert caught.value.status == "pool_unavailable" and "`poolctl scale basic 1`" in str(caught.value) and caught.value.retry_after == 1


def test_the_circuit_opens_and_closes(poold):
    one = poold("basic", workers=2, options=["--circuit", "3", "--quarantine", "0"])
    with one.client() as client:
        for _ in range(3):
            with pytest.raises(PooldError):
                client.call("basic.die")
        with pytest.raises(PooldError) as caught:
            client.call("basic.echo", [1])
        assert caught.value.status == "pool_unavailable" and 0 < caught.value.retry_after <= 10 and "the circuit breaker of pool basic is open" in str(caught.value)
        assert one.pool("basic")["circuit"] == "open"
        wait_for(lambda: one.pool("basic")["circuit"] == "halfOpen", 12, "half open")
        for value in range(3):
            assert client.call("basic.echo", [value]) == value
        assert one.pool("basic")["circuit"] == "closed"


def test_a_full_queue_refuses_at_once(poold):
    one = poold("basic", workers=1, options=["--queue", "5"])
    with one.client() as client, concurrent.futures.ThreadPoolExecutor(20) as threads:
        began = time.monotonic()

        def call(_):
            try:
                client.call("basic.sleep", [1.0])
                return "result"
            except PooldError as error:
                assert time.monotonic() - began < 0.9
                return error.status

        outcomes = list(threads.map(call, range(20)))
        assert outcomes.count("result") == 6 and outcomes.count("overloaded") == 14


def test_newest_first_under_overload(poold):
    one = poold("basic", workers=1, options=["--overload", "newest-first"])
    with one.client() as client, concurrent.futures.ThreadPoolExecutor(64) as threads:
        assert set(threads.map(lambda _: client.call("basic.sleep", [0.01]), range(64))) == {"slept"}


def test_overload_from_the_first_call_on(poold):
    """Nothing is known of the method yet, and twice as much comes as can be served: what cannot be served in time is refused before its
    kind takes all of the workers."""
    one = poold("basic", workers=1)
    ends = []

    def call():
        with one.client() as client:
            try:
                ends.append(client.call("basic.sleep", [0.2], timeout=0.8))
            except PooldError as error:
                ends.append(error.status)

    threads = []
    for _ in range(70):
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    late = ends[-30:]
    assert late.count("slept") >= 9 and late.count("overloaded") >= 6, ends
