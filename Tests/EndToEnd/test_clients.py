"""The Python clients over a restart of poold: what was in flight ends truthfully, the next call finds the new one."""
import asyncio
import os
import shutil
import signal
import tempfile
import threading

import pytest
from conftest import Poold, wait_for

from poold.client import AsyncClient, Client, ConnectionLost, Timeout

ATTEMPTS = 60.0


@pytest.fixture
def start():
    """start() → a poold, always on the same socket."""
    folder = tempfile.mkdtemp(prefix="poold-test-", dir="/tmp")
    made = []

    def one(wait=True):
        made.append(Poold(folder, "basic", wait=False))
        if wait:
            wait_for(lambda: ready(made[-1]), 20, "workers")
        return made[-1]

    one.made = made
    yield one
    for poold in made:
        poold.stop()
    shutil.rmtree(folder, ignore_errors=True)


def ready(one):
    try:
        return one.workers("basic")
    except (AssertionError, StopIteration):
        return []


def busy(one):
    return [w for w in ready(one) if w.get("outstanding")]


def after(one, start):
    """The next poold, as systemd starts it: when this one has ended."""
    one.process.wait(30)
    start(wait=False)


def test_after_kill_9(start):
    one = start()
    with Client(one.socket, connect_timeout=ATTEMPTS) as client:
        first = client.call("basic.pid", timeout=20)
        ended = []

        def wait_in_vain():
            with pytest.raises(ConnectionLost) as caught:
                client.call("basic.sleep", [60], timeout=100)
            ended.append(caught.value.began)

        waiting = threading.Thread(target=wait_in_vain)
        waiting.start()
        wait_for(lambda: busy(one), what="a busy worker")
        os.kill(one.pid, signal.SIGKILL)
        waiting.join(20)
        assert ended == [True], "it may have had effects"
        # Asked before the new poold is there.
        later = threading.Timer(0.5, start, kwargs={"wait": False})
        later.start()
        assert client.call("basic.pid", timeout=20) != first
        later.join()
        assert client.methods()["basic.raw"] == 0


def test_a_call_on_a_connection_that_died_unnoticed_goes_over_a_new_one(start):
    one = start()
    with Client(one.socket) as client:
        client.call("basic.pid", timeout=20)
        # As if the end had not been read yet.
        client._connection.socket.shutdown(1)
        assert client.call("basic.echo", [7], timeout=20) == 7


def test_a_fork_has_a_connection_of_its_own(start):
    one = start()
    with Client(one.socket) as client:
        client.call("basic.pid", timeout=20)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write, b"%d" % client.call("basic.echo", [8], timeout=20))
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 10) == b"8"
        assert client.call("basic.echo", [9], timeout=20) == 9
        os.close(read)
        os.close(write)


def test_after_drain(start):
    """SIGTERM: DRAIN comes, what is in flight is answered, the next call goes to the next poold."""
    one = start()
    with Client(one.socket, connect_timeout=ATTEMPTS) as client:
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(client.call("basic.sleep", [2], timeout=20)))
        waiting.start()
        wait_for(lambda: busy(one), what="a busy worker")
        draining = client._connection
        one.process.send_signal(signal.SIGTERM)
        wait_for(lambda: draining.session.draining, what="DRAIN")
        later = threading.Thread(target=after, args=(one, start))
        later.start()
        assert client.call("basic.echo", [1], timeout=20) == 1
        waiting.join(20)
        later.join()
        assert answers == ["slept"] and client._connection is not draining


def test_the_same_for_asyncio(start):
    async def run():
        one = start()
        loop = asyncio.get_running_loop()
        async with AsyncClient(one.socket, connect_timeout=ATTEMPTS) as client:
            assert (await client.methods())["basic.echo"] == 1
            # DRAIN
            slow = asyncio.create_task(client.call("basic.sleep", [2], timeout=20))
            await loop.run_in_executor(None, wait_for, lambda: busy(one), 10, "a busy worker")
            old = client._stream
            one.process.send_signal(signal.SIGTERM)
            while not old.session.draining:
                await asyncio.sleep(0.01)
            later = loop.run_in_executor(None, after, one, start)
            assert await client.call("basic.echo", [1], timeout=20) == 1
            await later
            assert await slow == "slept" and client._stream is not old
            # kill -9
            two = start.made[-1]
            lost = asyncio.create_task(client.call("basic.sleep", [60], timeout=100))
            await loop.run_in_executor(None, wait_for, lambda: busy(two), 10, "a busy worker")
            os.kill(two.pid, signal.SIGKILL)
            with pytest.raises(ConnectionLost):
                await lost
            later = loop.run_in_executor(None, after, two, start)
            assert await client.call("basic.echo", [2], timeout=20) == 2
            await later

    asyncio.run(run())


def test_budgets_and_cancellation(start):
    one = start()
    with Client(one.socket) as client:
        with pytest.raises(Timeout) as caught:
            client.call("basic.sleep", [30], timeout=0.3)
        assert caught.value.began
        assert 10 < client.call("basic.budget", timeout=20) < 20

    async def run():
        async with AsyncClient(one.socket) as client:
            task = asyncio.create_task(client.call("basic.sleep", [60], timeout=100))
            while not busy(one):
                await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while busy(one):
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_no_poold_for_too_long(tmp_path):
    with pytest.raises(FileNotFoundError, match="no poold answers"):
        Client(str(tmp_path / "nobody"), connect_timeout=0.3).call("basic.echo")
    with pytest.raises(FileNotFoundError, match="no poold answers"):
        asyncio.run(AsyncClient(str(tmp_path / "nobody"), connect_timeout=0.3).call("basic.echo"))
