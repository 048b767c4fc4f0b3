"""Both clients against a poold that is played by the test."""
import asyncio
import json
import os
import shutil
import socket
import struct
import threading
import time

import pytest
from played import Server

from poold import _wire, client
from poold.client import AsyncClient, Client, ConnectionLost, PooldError


@pytest.fixture
def server(tmp_path):
    one = Server(str(tmp_path / "s"))
    yield one
    one.close()


def test_calls(server):
    with Client(server.path) as poold:
        assert poold.call("pool.echo", {"a": [1, None, "ä"]}) == {"a": [1, None, "ä"]}
        assert poold.call("pool.echo") == []
        assert poold.call("pool.raw", b"\0\xff") == b"\0\xff" and poold.call("pool.raw", memoryview(b"ab")) == b"ab"
        assert poold.call("elsewhere.later", [1]) == [1], "a method that is not listed goes by name"
        poold.call("pool.echo", [1], timeout=1.5, session=9, priority="low", idempotent=True)
        _, flags, code, _, session, budget, _ = server.calls[-1][1]
        assert (flags, code, session) == (1 | 16 | 2 << 6, 1, 9) and 0 < budget < 1_500_000_000, "what is left of it"
        assert poold.methods() == {"pool.echo": 1, "pool.raw": 0, "pool.hang": 1}


def test_what_cannot_be_sent(server):
    with Client(server.path) as poold:
        with pytest.raises(TypeError, match="takes bytes"):
            poold.call("pool.raw", [1])
        with pytest.raises(ValueError, match="priority 'urgent'"):
            poold.call("pool.echo", [1], priority="urgent")
        with pytest.raises(ValueError, match="poold takes 1048576"):
            poold.call("pool.raw", bytes(2_000_000))
        with pytest.raises(TypeError):
            poold.call("pool.echo", [object()])
        assert poold.call("pool.echo", [1]) == [1]
        # The limit holds for the whole body of the frame: name and key count.
        assert len(poold.call("pool.raw", bytes(1 << 20))) == 1 << 20
        for method, key, more in ("elsewhere.raw", None, 14), ("pool.raw", "key", 9):
            with pytest.raises(ValueError, match="has 1048577 bytes, poold takes 1048576"):
                poold.call(method, bytes((1 << 20) + 1 - more), idempotency_key=key)
            poold.call(method, bytes((1 << 20) - more), idempotency_key=key)
            assert len(server.calls[-1][1][6]) == 1 << 20


EXPECTED = {
    "application_error": client.ApplicationError, "timeout_waiting": client.Timeout, "timeout_running": client.Timeout,
    "cancelled": client.Cancelled, "overloaded": client.Overloaded, "draining": client.Overloaded, "worker_lost": client.WorkerLost,
    "no_such_method": client.Refused, "bad_arguments": client.Refused, "quarantined": client.Refused,
    "result_too_large": client.BadResult, "internal": client.Fault,
}


def check(error, status):
    assert type(error) is EXPECTED[status] and error.status == status and error.message == "first line" and error.detail == "the rest"
    assert error.retry_after == (1.5 if status == "overloaded" else 0)
    assert error.began == (status in ("application_error", "timeout_running", "cancelled", "worker_lost", "result_too_large", "internal"))


def test_each_status_has_its_exception(server):
    async def asynchronous():
        async with AsyncClient(server.path) as poold:
            for status in EXPECTED:
                with pytest.raises(PooldError) as caught:
                    await poold.call("fail." + status)
                check(caught.value, status)

    with Client(server.path) as poold:
        for status in EXPECTED:
            with pytest.raises(PooldError) as caught:
                poold.call("fail." + status)
            check(caught.value, status)
    asyncio.run(asynchronous())


def test_many_threads_share_a_connection(server):
    with Client(server.path) as poold:
        results = []

        def run(base):
            results.extend(poold.call("pool.echo", [base + n]) == [base + n] for n in range(100))

        threads = [threading.Thread(target=run, args=(base * 1000,)) for base in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 800 and all(results) and len(server.connections) == 1


def test_many_tasks_share_a_connection(server):
    async def run():
        async with AsyncClient(server.path) as poold:
            assert await asyncio.gather(*(poold.call("pool.echo", [n]) for n in range(500))) == [[n] for n in range(500)]
        assert len(server.connections) == 1

    asyncio.run(run())


def test_a_cancelled_task_cancels_its_call(server):
    async def run():
        async with AsyncClient(server.path) as poold:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(poold.call("pool.hang"), 0.05)
            assert await poold.call("pool.echo", [1]) == [1]

    asyncio.run(run())
    server.wait(lambda: server.cancelled == [server.calls[0][1][3]])


def test_a_lost_connection_ends_its_calls_and_the_next_call_connects_again(server):
    with Client(server.path) as poold:
        ended = []

        def hang():
            with pytest.raises(ConnectionLost) as caught:
                poold.call("pool.hang")
            ended.append(caught.value)

        threads = [threading.Thread(target=hang) for _ in range(3)]
        for thread in threads:
            thread.start()
        server.wait(lambda: len(server.calls) == 3)
        server.connections[0].shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        assert len(ended) == 3 and all(e.began and isinstance(e, client.WorkerLost) for e in ended)
        assert poold.call("pool.echo", [1]) == [1] and len(server.connections) == 2


def test_the_same_for_tasks(server):
    async def run():
        async with AsyncClient(server.path) as poold:
            tasks = [asyncio.create_task(poold.call("pool.hang")) for _ in range(3)]
            while len(server.calls) < 3:
                await asyncio.sleep(0.005)
            server.connections[0].shutdown(socket.SHUT_RDWR)
            assert all(isinstance(e, ConnectionLost) for e in await asyncio.gather(*tasks, return_exceptions=True))
            assert await poold.call("pool.echo", [1]) == [1] and len(server.connections) == 2

    asyncio.run(run())


def test_a_draining_connection_is_left(server):
    with Client(server.path) as poold:
        poold.call("pool.echo", [1])
        server.connections[0].sendall(_wire.frame(_wire.PING, b"there?", id=4) + _wire.frame(_wire.DRAIN))
        server.wait(lambda: server.pongs == [b"there?"])
        end = time.monotonic() + 5
        while len(server.connections) < 2 and time.monotonic() < end:
            assert poold.call("pool.echo", [1]) == [1]
        assert len(server.connections) == 2


def test_no_poold(tmp_path):
    path = str(tmp_path / "nobody")
    with pytest.raises(FileNotFoundError, match="no poold answers"):
        Client(path).call("pool.echo")
    with pytest.raises(FileNotFoundError):
        asyncio.run(AsyncClient(path).call("pool.echo"))
    for call in Client("/tmp/" + "x" * 200).call, lambda name: asyncio.run(AsyncClient("/tmp/" + "x" * 200).call(name)):
        with pytest.raises(OSError, match="no poold answers on /tmp/x*: .*too long"):
            call("pool.echo")


def test_the_default_socket_is_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.delenv("POOLD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nothing"))
    mine, user = os.getuid(), 3_000_000_000 + os.getpid()
    folder = f"/tmp/poold-{user}"
    monkeypatch.setattr(os, "getuid", lambda: user)
    monkeypatch.setattr(os.path, "exists", lambda path: path.startswith(folder) and os.access(path, os.F_OK))
    here, elsewhere = folder + "/poold.sock", str(tmp_path / "nothing/poold/poold.sock")
    try:
        assert client.default_socket() == elsewhere
        os.mkdir(folder)
        open(here, "w").close()
        assert client.default_socket() == (here if mine == 0 else elsewhere), "root may make it"
        if mine == 0:
            os.chown(folder, user, -1)
            assert client.default_socket() == here
            os.chown(folder, user + 1, -1)
            assert client.default_socket() == elsewhere, "a stranger's"
        shutil.rmtree(folder)
        (tmp_path / "poold.sock").touch()
        os.symlink(tmp_path, folder)
        assert client.default_socket() == elsewhere, "a link leads anywhere"
    finally:
        os.unlink(folder) if os.path.islink(folder) else shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("greeting, status", [
    (_wire.frame(_wire.ERROR, b"first line", 1, 15), "permission_denied"),
    (_wire.frame(77), None),
    (struct.pack(">I", 5) + bytes(28), None),
])
def test_a_greeting_that_fails(tmp_path, greeting, status):
    server = Server(str(tmp_path / "s"), greeting)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PooldError) as caught:
        Client(server.path).call("pool.echo")
    assert status is None or caught.value.status == status
    with pytest.raises(PooldError) as caught:
        asyncio.run(AsyncClient(server.path).call("pool.echo"))
    assert status is None or caught.value.status == status
    server.close()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_json_is_what_the_standard_library_says(server):
    with Client(server.path) as poold:
        value = {"text": "ü\u2028\U0001f600", "numbers": [1, -1.5, 10**30, 1e300], "nothing": None}
        assert poold.call("pool.echo", value) == json.loads(json.dumps(value)) == value
