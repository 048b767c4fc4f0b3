"""Both clients where something goes wrong around a call: interruptions, forks, budgets, a poold that stands still."""
import asyncio
import contextlib
import errno
import gc
import itertools
import os
import signal
import socket
import sys
import threading
import time
import weakref

import pytest
from played import Server
from supervisor import wait_for

from poold import client
from poold.client import AsyncClient, Client, ConnectionLost, Timeout

#: more than a socket takes while nobody reads
LARGE = bytes(900_000)


class Struck(BaseException):
    """As Ctrl-C, or poold.worker's Cancelled."""


@pytest.fixture(autouse=True)
def no_hang():
    """What hangs is ended, main thread or task."""
    def end(*_):
        raise AssertionError("it hangs")

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 30, 1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def play(tmp_path):
    made = []

    def start(**options):
        made.append(Server(str(tmp_path / f"s{len(made)}"), **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.fixture
def silent(tmp_path):
    """A path where somebody listens and never says a word."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "silent"))
        listener.listen(8)
        yield str(tmp_path / "silent")


@pytest.fixture
def crowded(tmp_path):
    """A path where no connection is taken any more."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "crowded"))
        listener.listen(0)
        with pytest.raises(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(tmp_path / "crowded"))
        yield str(tmp_path / "crowded")


def in_thread(function, *arguments, **options):
    """(thread, a list of what it returned or raised)"""
    ends = []

    def run():
        try:
            ends.append(function(*arguments, **options))
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ends


@contextlib.contextmanager
def strike_after(seconds, error=Struck):
    def strike(*_):
        raise error

    previous = signal.signal(signal.SIGUSR1, strike)
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(error) as caught:
            yield
        assert caught.type is error
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, previous)


def in_child(function):
    """What `function` returns in a forked child; it is killed where it hangs."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, 10)
            os.write(write, repr(function()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with open(read) as text:
        return text.read()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def readers():
    return [thread for thread in threading.enumerate() if thread.name == "poold-client"]


def unsent(error, words=""):
    return isinstance(error, Timeout) and not error.began and "the call was not sent" in str(error) and words in str(error)


# Interruptions

def test_half_a_frame_ends_the_connection(play):
    server = play(deaf=1)
    with Client(server.path) as poold:
        other, ends = in_thread(poold.call, "pool.hang")
        wait_for(lambda: poold._connection and poold._connection._waiters, what="the other call waits")
        with strike_after(0.3):
            poold.call("pool.raw", LARGE)
        other.join(5)
        assert isinstance(ends[0], ConnectionLost) and "cut off" in str(ends[0])
        assert poold.call("pool.echo", [1], timeout=10) == [1] and len(server.connections) == 2


def test_an_interrupted_call_does_not_wait_for_a_poold_that_does_not_read(play):
    with Client(play(deaf=1).path) as poold:
        poold.methods()
        blocked = []

        def block():
            wait_for(lambda: poold._connection._waiters, what="the call waits")
            blocked.append(in_thread(poold.call, "pool.raw", LARGE))

        blocking = threading.Thread(target=block)
        blocking.start()
        with strike_after(1.0):
            poold.call("pool.hang")
        blocking.join()
        assert not poold._connection.over, "nothing was cut off"
        poold.close()
        thread, ends = blocked[0]
        thread.join(5)
        assert isinstance(ends[0], ConnectionLost)


def test_an_interrupted_call_is_cancelled(play):
    server = play()
    with Client(server.path) as poold:
        poold.methods()
        with strike_after(0.3):
            poold.call("pool.hang")
        server.wait(lambda: server.cancelled == [server.calls[0][1][3]])
        assert poold.call("pool.echo", [1]) == [1] and len(server.connections) == 1


class Seam:
    """A socket that calls `after` when it has sent something."""

    def __init__(self, inner, after):
        self.inner, self.after = inner, after

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def send(self, data):
        sent = self.inner.send(data)
        self.after()
        return sent


@pytest.mark.parametrize("error", [TimeoutError, BrokenPipeError, BlockingIOError])
def test_a_call_that_a_signal_ends_with_an_OSError_is_not_sent_again(play, error):
    server = play()
    with Client(server.path) as poold:
        poold.methods()
        with strike_after(0.3, error):
            poold.call("pool.hang")
        server.wait(lambda: server.cancelled == [server.calls[0][1][3]])
        assert poold.call("pool.echo", [1]) == [1] and len(server.calls) == 2 and len(server.connections) == 1


def test_nor_one_that_it_strikes_while_the_frame_is_sent(play):
    server = play()
    with Client(server.path) as poold:
        poold.methods()

        def strike():
            raise BrokenPipeError(errno.EPIPE, "somebody else's")

        poold._connection.socket = Seam(poold._connection.socket, strike)
        with pytest.raises(BrokenPipeError, match="somebody else's"):
            poold.call("pool.echo", [1])
        assert poold.call("pool.echo", [2]) == [2]
        server.wait(lambda: len(server.calls) == 2)
        assert sorted(body for _, (*_, body) in server.calls) == [b"[1]", b"[2]"]


def test_a_call_is_sent_again_where_the_connection_was_over(play):
    server = play()
    with Client(server.path) as poold:
        poold.methods()
        poold._connection.socket.shutdown(socket.SHUT_WR)  # poold is not told, as if it had gone this instant
        assert poold.call("pool.echo", [1]) == [1] and len(server.calls) == 1 and len(server.connections) == 2


def test_what_a_signal_raises_while_connecting_is_raised(silent):
    with strike_after(0.3, TimeoutError):
        Client(silent).call("pool.echo", timeout=20)


@pytest.mark.parametrize("function", [Client._connect, Client._is_next, Client._open])
def test_a_signal_while_connecting_leaves_nothing_behind(play, function):
    """It strikes before the first line of `function`, before the second …, until none is left to strike."""
    with Client(play().path) as poold:
        for line in range(1000):
            poold.close()
            passed = itertools.count()

            def trace(frame, event, _):
                if frame.f_code is function.__code__ and event != "return" and next(passed) == line:
                    raise Struck
                return trace

            sys.settrace(trace)
            try:
                poold.call("pool.echo", [1])
                break
            except Struck:
                pass
            finally:
                sys.settrace(None)
            thread, ends = in_thread(poold.call, "pool.echo", [2], timeout=5)
            thread.join(10)
            assert ends == [[2]], f"struck at line {line}"
        assert line > 5


@pytest.mark.parametrize("deaf", [True, False])
def test_a_call_from_a_signal_handler_within_a_call(play, silent, deaf):
    """While the large call is being sent, or while the client connects."""
    ends = []
    with Client(play(deaf=1).path if deaf else silent) as poold:
        def call(*_):
            try:
                poold.call("pool.echo", [1])
            except BaseException as error:
                ends.append(error)
            poold.close()

        previous = signal.signal(signal.SIGUSR1, call)
        timer = threading.Timer(0.5, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
        timer.start()
        try:
            with pytest.raises(ConnectionLost):
                poold.call("pool.raw", LARGE)
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, previous)
    assert [type(end) for end in ends] == [RuntimeError] and "within a call" in str(ends[0])


# Forks

def test_a_child_leaves_the_connection_of_its_parent(play):
    server = play()
    with Client(server.path) as poold:
        poold.call("pool.echo", [1])

        def child():
            with poold:
                pass
            return "closed"

        assert in_child(child) == "'closed'"
        assert poold.call("pool.echo", [2]) == [2] and len(server.connections) == 1


def test_a_child_keeps_no_descriptor_of_its_parents_connection(play):
    with Client(play().path) as poold:
        poold.call("pool.echo", [1])
        inherited = os.readlink(f"/proc/self/fd/{poold._connection.socket.fileno()}")

        def child():
            answer = poold.call("pool.echo", [2], timeout=5)
            return answer, [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
                            and os.readlink(f"/proc/self/fd/{name}") == inherited]

        assert in_child(child) == "([2], [])"


def test_a_child_does_not_wait_for_threads_that_it_does_not_have(play):
    server = play(patience=1.0)
    with Client(server.path) as poold:
        connecting, ends = in_thread(poold.call, "pool.echo", [1])
        wait_for(lambda: server.connections, what="the thread connects")
        assert in_child(lambda: poold.call("pool.echo", [2], timeout=5)) == "[2]"
        connecting.join(5)
        assert ends == [[1]]


def in_child_of_a_loop(play, function):
    """What `await function(client)` returns in a child that is forked within the loop whose client is connected."""
    async def run():
        server = play()
        async with AsyncClient(server.path) as poold:
            await poold.call("pool.echo", ["parent"])
            inherited = os.readlink(f"/proc/self/fd/{descriptor_of(poold)}")

            def child():
                answer = asyncio.run(asyncio.wait_for(function(poold), 5))
                gc.collect()
                return answer, [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")
                                and os.readlink(f"/proc/self/fd/{name}") == inherited]

            said = in_child(child)
            assert await poold.call("pool.echo", [1], timeout=5) == [1]
            return server, said

    return asyncio.run(run())


def descriptor_of(poold):
    return poold._stream.writer.get_extra_info("socket").fileno()


def test_a_child_of_a_loop_has_a_connection_of_its_own(play):
    server, said = in_child_of_a_loop(play, lambda poold: poold.call("pool.echo", ["child"], timeout=3))
    assert said == "(['child'], [])" and len(server.connections) == 2


def test_a_child_of_a_loop_closes_nothing_of_its_parents(play):
    server, said = in_child_of_a_loop(play, lambda poold: poold.close())
    assert said == "(None, [])" and len(server.connections) == 1


# Budgets

@pytest.mark.parametrize("where", ["silent", "crowded"])
def test_connecting_is_within_the_budget(request, where):
    path = request.getfixturevalue(where)
    before = descriptors()
    began = time.monotonic()
    with pytest.raises(Timeout) as caught:
        Client(path).call("pool.echo", timeout=0.3)
    assert unsent(caught.value)
    with pytest.raises(Timeout) as caught:
        asyncio.run(AsyncClient(path).call("pool.echo", timeout=0.3))
    assert unsent(caught.value)
    assert time.monotonic() - began < 8 and descriptors() == before


def test_connecting_without_a_budget_has_an_end(silent, monkeypatch):
    monkeypatch.setattr(client, "WELCOME_SECONDS", 0.3)
    with pytest.raises(Timeout, match="does not welcome us"):
        Client(silent).methods()
    with pytest.raises(Timeout, match="does not welcome us"):
        asyncio.run(AsyncClient(silent).call("pool.echo"))


def test_the_budget_ends_before_the_patience_of_the_client(tmp_path):
    for error in (in_thread(Client(str(tmp_path / "nobody"), connect_timeout=60).call, "pool.echo", timeout=0.3),
                  in_thread(lambda: asyncio.run(AsyncClient(str(tmp_path / "nobody"), connect_timeout=60).call("pool.echo", timeout=0.3)))):
        error[0].join(8)
        assert unsent(error[1][0])


def test_nobody_waits_longer_for_the_thread_that_connects(silent):
    with Client(silent) as poold:
        connecting, ends = in_thread(poold.call, "pool.echo", timeout=20)
        wait_for(lambda: poold._turns, what="the thread connects")
        with pytest.raises(Timeout) as caught:
            poold.call("pool.echo", timeout=0.2)
        assert unsent(caught.value, "another thread")
        # close() waits for nobody either.
        wait_for(lambda: poold._connections, what="a connection")
        poold.close()
        connecting.join(5)
        assert isinstance(ends[0], ConnectionLost)


def test_the_frame_says_what_is_left_of_the_budget(play):
    server = play(patience=0.5)

    async def run():
        async with AsyncClient(server.path) as poold:
            assert await poold.call("pool.echo", [1], timeout=20) == [1]

    with Client(server.path) as poold:
        assert poold.call("pool.echo", [1], timeout=20) == [1]
    asyncio.run(run())
    assert len(server.calls) == 2 and all(0 < frame[5] <= 19_500_000_000 for _, frame in server.calls)


def test_sending_is_within_the_budget(play):
    server = play(deaf=1)
    with Client(server.path) as poold:
        large, ends = in_thread(poold.call, "pool.raw", LARGE, timeout=2)
        wait_for(lambda: poold._connection and poold._connection._turn.locked(), what="the large call is being sent")
        began = time.monotonic()
        with pytest.raises(Timeout) as caught:
            poold.call("pool.echo", [1], timeout=0.2)
        assert unsent(caught.value, "does not read") and time.monotonic() - began < 1.5
        assert not poold._connection.over, "nothing of it was sent"
        large.join(10)
        assert unsent(ends[0], "stopped reading") and time.monotonic() - began < 8
        assert poold.call("pool.echo", [1], timeout=10) == [1] and len(server.connections) == 2


def test_the_frame_says_what_is_left_after_waiting_to_send(play):
    server = play(deaf=1)
    with Client(server.path) as poold:
        large, _ = in_thread(poold.call, "pool.raw", LARGE)
        wait_for(lambda: poold._connection and poold._connection._turn.locked(), what="the large call is being sent")
        small, ends = in_thread(poold.call, "pool.echo", [1], timeout=20)
        time.sleep(0.5)
        threading.Thread(target=server._serve, args=(server.connections[0], False), daemon=True).start()
        small.join(10)
        large.join(10)
        assert ends == [[1]] and 0 < server.calls[1][1][5] <= 19_500_000_000 and server.calls[0][1][5] == 0


def test_the_same_for_tasks(play, monkeypatch):
    monkeypatch.setattr(client, "_MARGIN_SECONDS", 0.2)

    async def run():
        async with AsyncClient(play(deaf=1).path) as poold:
            large = asyncio.create_task(poold.call("pool.raw", LARGE, timeout=1))
            while not (poold._stream and poold._stream.waiters):
                await asyncio.sleep(0.01)
            ends = await asyncio.gather(*(poold.call("pool.echo", [1], timeout=0.2) for _ in range(3)), return_exceptions=True)
            assert all(unsent(end, "does not read") for end in ends)
            with pytest.raises(ConnectionLost, match="does not answer"):
                await large
            assert await poold.call("pool.echo", [1], timeout=10) == [1]

    asyncio.run(run())


def test_a_cancellation_is_not_lost_at_the_end_of_connecting(play):
    async def run():
        async with AsyncClient(play(patience=0.2).path) as poold:
            call = asyncio.create_task(poold.call("pool.hang"))
            while poold._stream is None:
                await asyncio.sleep(0)
            assert call.cancel()
            done, _ = await asyncio.wait({call}, timeout=5)
            assert done and call.cancelled()

    asyncio.run(run())


def test_a_cancellation_is_not_lost_when_poold_reads_again(play):
    async def run():
        async with AsyncClient(play().path) as poold:
            await poold.methods()
            room, rooms = asyncio.get_running_loop().create_future(), []

            async def wait():
                rooms.append(await room)

            poold._stream.room = wait
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(type(poold._stream), "is_full", True)
                call = asyncio.create_task(poold.call("pool.hang", timeout=20))
                await asyncio.sleep(0.05)
                room.set_result(1)
                while not rooms:
                    await asyncio.sleep(0)
                assert call.cancel()
                done, _ = await asyncio.wait({call}, timeout=5)
                assert done and call.cancelled()

    asyncio.run(run())


def test_tasks_wait_until_poold_reads(play):
    async def run():
        async with AsyncClient(play().path) as poold:
            bodies = [bytes([n]) * 900_000 for n in range(20)]
            assert await asyncio.gather(*(poold.call("pool.raw", body, timeout=20) for body in bodies)) == bodies

    asyncio.run(run())


# The end

def drain(server):
    server.connections[0].sendall(client._wire.frame(client._wire.DRAIN))


def test_tasks_of_one_loop_after_another(play):
    server = play()
    poold = AsyncClient(server.path)

    async def run():
        return await asyncio.wait_for(asyncio.gather(*(poold.call("pool.echo", [n], timeout=3) for n in range(3))), 5)

    loops = [asyncio.new_event_loop() for _ in range(2)]
    assert all(loop.run_until_complete(run()) == [[0], [1], [2]] for loop in loops)
    assert len(server.connections) == 2
    loops[1].run_until_complete(poold.close())
    loops[0].run_until_complete(asyncio.wait_for(poold._streams[0].task, 5))
    for loop in loops:
        loop.close()


def test_close_ends_threads_that_go_on_trying(play, tmp_path):
    for path in str(tmp_path / "nobody"), play(patience=1.0).path:
        poold = Client(path, connect_timeout=60)
        threads = [in_thread(poold.call, "pool.echo") for _ in range(2)]
        time.sleep(0.3)
        poold.close()
        for thread, ends in threads:
            thread.join(5)
            assert ends and isinstance(ends[0], ConnectionLost)


def test_close_ends_tasks_that_go_on_trying(tmp_path):
    async def run():
        poold = AsyncClient(str(tmp_path / "nobody"), connect_timeout=60)
        calls = [asyncio.create_task(poold.call("pool.echo")) for _ in range(2)]
        await asyncio.sleep(0.1)
        await poold.close()
        done, _ = await asyncio.wait(calls, timeout=5)
        assert len(done) == 2 and all(isinstance(call.exception(), ConnectionLost) for call in calls)

    asyncio.run(run())


def test_calls_of_tasks_that_a_lost_connection_ends_have_errors_of_their_own(play):
    server = play()

    async def run():
        async with AsyncClient(server.path) as poold:
            calls = [asyncio.create_task(poold.call("pool.hang")) for _ in range(3)]
            while len(server.calls) < 3:
                await asyncio.sleep(0.01)
            server.connections[0].shutdown(socket.SHUT_RDWR)
            assert len(set(await asyncio.gather(*calls, return_exceptions=True))) == 3

    asyncio.run(run())


def test_close_ends_a_draining_connection(play):
    server = play()
    poold = Client(server.path)
    waiting, ends = in_thread(poold.call, "pool.hang")
    server.wait(lambda: server.calls)
    drain(server)
    wait_for(lambda: poold._connection.session.draining, what="DRAIN")
    assert poold.call("pool.echo", [1]) == [1] and len(server.connections) == 2 and not ends
    poold.close()
    waiting.join(5)
    assert isinstance(ends[0], ConnectionLost) and "closed" in str(ends[0])


def test_close_ends_a_draining_stream(play):
    server = play()

    async def run():
        poold = AsyncClient(server.path)
        waiting = asyncio.create_task(poold.call("pool.hang"))
        while not server.calls:
            await asyncio.sleep(0.01)
        drain(server)
        while not poold._stream.session.draining:
            await asyncio.sleep(0.01)
        assert await poold.call("pool.echo", [1]) == [1] and len(server.connections) == 2 and not waiting.done()
        await poold.close()
        with pytest.raises(ConnectionLost, match="closed"):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(run())


def test_close_does_not_wait_for_a_poold_that_does_not_read(play):
    async def run():
        poold = AsyncClient(play(deaf=1).path)
        large = asyncio.create_task(poold.call("pool.raw", LARGE))
        while not (poold._stream and poold._stream.waiters):
            await asyncio.sleep(0.01)
        await asyncio.wait_for(poold.close(), 5)
        with pytest.raises(ConnectionLost):
            await large

    asyncio.run(run())


def test_a_dropped_client_leaves_nothing(play):
    server = play()
    gc.collect()
    wait_for(lambda: not readers(), what="the end of the readers of other tests")
    before = descriptors()
    poold = Client(server.path)
    assert poold.call("pool.echo", [1]) == [1] and len(readers()) == 1
    dropped = weakref.ref(poold)
    del poold
    gc.collect()
    assert dropped() is None
    wait_for(lambda: not readers() and descriptors() <= before + 1, what="the end of the reader")  # + 1: the server's side


def test_a_dropped_client_of_tasks_leaves_nothing(play):
    async def run():
        server = play()
        before = descriptors()
        poold = AsyncClient(server.path)
        assert await poold.call("pool.echo", [1]) == [1]
        stream = poold._stream
        del poold
        gc.collect()
        await asyncio.wait_for(stream.task, 5)
        await asyncio.sleep(0)
        assert descriptors() <= before + 1

    asyncio.run(run())
