"""What a caller is promised, with the real poold and real workers."""
import asyncio
import concurrent.futures
import os
import threading
import time

import pytest
from conftest import wait_for

from poold.client import AsyncClient, ConnectionLost, PooldError


@pytest.fixture(params=["on", "off"], ids=["template", "cold"])
def basic(poold, request):
    return poold("basic", options=["--template", request.param])


def status_of(client, method, arguments, **options):
    with pytest.raises(PooldError) as caught:
        client.call(method, arguments, **options)
    return caught.value


def test_results_and_errors(basic):
    with basic.client() as client:
        assert client.call("basic.echo", {"value": [1, {"ä": None}]}) == [1, {"ä": None}]
        assert client.call("basic.echo", "text") == "text"
        assert client.call("basic.raw", b"\x00\xff" * 500_000) == b"\x00\xff" * 500_000
        assert client.call("basic.raw", b"") == b""
        assert len(client.call("basic.large", [3_000_000])) == 3_000_000
        error = status_of(client, "basic.fail", ["gone wrong"])
        assert error.status == "application_error" and "ValueError: gone wrong (in method basic.fail)" in error.message
        assert "in fail" in error.detail and "poold/_" not in error.detail
        assert status_of(client, "basic.echo", {"nonsense": 1}).status == "bad_arguments"
        assert "echo(value=None)" in status_of(client, "basic.echo", {"nonsense": 1}).message
        assert status_of(client, "basic.raw2", []).status == "no_such_method"
        assert "it has: echo" in status_of(client, "basic.raw2", []).message
        assert status_of(client, "nobody.raw", []).status == "no_such_pool"
        assert status_of(client, "basic.unencodable", []).status == "result_unencodable"
        assert status_of(client, "basic.leave", []).status == "application_error"
        assert client.call("basic.echo", [1]) == 1


def test_a_budget_covers_waiting_and_running(basic):
    with basic.client() as client:
        assert 4.0 < client.call("basic.budget", timeout=5) <= 5.0
        began = time.monotonic()
        error = status_of(client, "basic.sleep", [30], timeout=0.2)
        assert error.status == "timeout_running" and time.monotonic() - began < 1
        pids = {client.call("basic.pid") for _ in range(4)}
        # The worker was interrupted, not killed.
        assert pids <= {int(w["pid"]) for w in basic.workers("basic")} and basic.pool("basic")["counters"].get("deaths", "0") == "0"
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            running = [threads.submit(client.call, "basic.sleep", [1.0]) for _ in range(2)]
            time.sleep(0.2)
            # Both workers are busy and their times are unknown or long: the third waits or is refused, and never begins.
            error = status_of(client, "basic.sleep", [0.0], timeout=0.1)
            assert error.status in ("timeout_waiting", "overloaded")
            assert [f.result() for f in running] == ["slept", "slept"]


def test_cancel_and_vanishing_clients(basic):
    async def cancelled():
        async with AsyncClient(basic.socket) as client:
            task = asyncio.create_task(client.call("basic.sleep", [30]))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await client.call("basic.echo", [5]) == 5

    asyncio.run(cancelled())
    wait_for(lambda: basic.pool("basic")["counters"].get("cancelled") == "1", what="cancelled")
    client = basic.client()
    thread = threading.Thread(target=lambda: pytest.raises(ConnectionLost, client.call, "basic.sleep", [30]))
    thread.start()
    time.sleep(0.2)
    client.close()
    thread.join()
    wait_for(lambda: basic.pool("basic")["counters"].get("abandoned") == "1", what="abandoned")
    wait_for(lambda: basic.pool("basic").get("outstanding", 0) == 0, what="the worker to be free")
    assert basic.pool("basic")["counters"].get("deaths", "0") == "0"


def test_many_callers_at_once(basic):
    with basic.client() as client, concurrent.futures.ThreadPoolExecutor(32) as threads:
        values = list(range(2000))
        assert list(threads.map(lambda v: client.call("basic.echo", [v]), values)) == values
    counters = basic.pool("basic")["counters"]
    assert int(counters["arrived"]) == int(counters["results"]) == 2000


def test_worker_death_is_told_and_repaired(basic, tmp_path):
    with basic.client() as client:
        error = status_of(client, "basic.die", [])
        assert error.status == "worker_lost" and "may have had effects" in error.message
        assert client.call("basic.echo", [1]) == 1
        path = str(tmp_path / "count")
        error = status_of(client, "basic.count_then_die", [path], idempotent=True)
        assert error.status == "worker_lost"
        with open(path) as file:
            assert len(file.readlines()) == 3, "an idempotent call is tried three times"
        path = str(tmp_path / "once")
        assert status_of(client, "basic.count_then_die", [path]).status == "worker_lost"
        with open(path) as file:
            assert len(file.readlines()) == 1, "any other call runs at most once"
        wait_for(lambda: len(basic.workers("basic")) == 2, what="two workers")


def test_quarantine(poold):
    pool = poold("basic")
    with pool.client() as client:
        for _ in range(2):
            assert status_of(client, "basic.die", ["SIGKILL"]).status == "worker_lost"
        error = status_of(client, "basic.die", ["SIGKILL"])
        assert error.status == "quarantined"
        assert client.call("basic.echo", [1]) == 1
        assert "refused from now on" in pool.log()
        pool.ctl("quarantine", "basic", "--clear", "all")
        assert status_of(client, "basic.die", ["SIGKILL"]).status == "worker_lost"


def test_scale_recycle_drain_resume(basic):
    with basic.client() as client:
        basic.ctl("scale", "basic", "5")
        wait_for(lambda: len(basic.workers("basic")) == 5, what="five workers")
        with concurrent.futures.ThreadPoolExecutor(5) as threads:
            running = [threads.submit(client.call, "basic.sleep", [0.7]) for _ in range(5)]
            time.sleep(0.2)
            basic.ctl("scale", "basic", "1")
            assert [f.result() for f in running] == ["slept"] * 5, "a busy worker is not killed by a scale-down"
        wait_for(lambda: len(basic.pool("basic")["workers"]) == 1, what="one worker")
        before = basic.full("basic")
        basic.ctl("recycle", "basic")
        for value in range(200):
            assert client.call("basic.echo", [value]) == value
        wait_for(lambda: basic.workers("basic") and not before & {w.get("pid") for w in basic.pool("basic")["workers"]}, what="a new worker")
        basic.ctl("drain", "basic")
        assert status_of(client, "basic.echo", [1]).status == "draining"
        basic.ctl("resume", "basic")
        assert client.call("basic.echo", [1]) == 1


def test_shutdown_finishes_what_runs(basic):
    with basic.client() as client, concurrent.futures.ThreadPoolExecutor(4) as threads:
        running = threads.submit(client.call, "basic.sleep", [1.0])
        time.sleep(0.3)
        children = basic.children()
        basic.process.terminate()
        assert running.result() == "slept"
        assert basic.process.wait(5) == 0
        assert not os.path.exists(basic.socket)
        wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") and open(f"/proc/{pid}/stat").read().split()[2] != "Z" for pid in children), 3, "no child")


def test_second_signal_ends_at_once(basic):
    with basic.client() as client, concurrent.futures.ThreadPoolExecutor(4) as threads:
        running = threads.submit(client.call, "basic.sleep", [20])
        time.sleep(0.3)
        basic.process.terminate()
        time.sleep(0.3)
        began = time.monotonic()
        basic.process.terminate()
        assert basic.process.wait(10) == 0
        assert time.monotonic() - began < 2, "nobody gets a grace any more"
        with pytest.raises(PooldError) as error:
            running.result()
        assert error.value.status == "worker_lost"
        assert any("worker ended" in line and "cause=shutdown" in line and "method=basic.sleep" in line for line in basic.log().splitlines())
