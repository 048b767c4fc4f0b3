"""Call poold from Python.

    from poold.client import Client

    with Client("/run/poold/poold.sock") as poold:
        poold.call("text.summarize", {"text": "..."}, timeout=2.0)

`Client` may be used from many threads at once, `AsyncClient` from many tasks; calls share one connection and are matched by id.
After a lost connection the calls that were in flight raise `ConnectionLost`, and the next call connects again; so it does when
poold has said that it is shutting down. `connect_timeout` says for how long to try, over a restart of poold for instance.
The `timeout` of a call holds for everything, connecting and sending too; a `Timeout` before poold heard of the call says so. After a
fork the child has a connection of its own, and leaves its parent's alone.
"""
import asyncio
import itertools
import os
import stat
import threading
import time
import weakref
from typing import Any, Dict, List, Optional, Union

from poold import _wire
from poold._connecting import WELCOME_SECONDS, attempt, left, pause, unsent
from poold._connection import NESTED, Connection, NotSent, TooLate
from poold._session import Session
from poold._stream import Stream, within
from poold.errors import (ApplicationError, BadResult, Cancelled, ConnectionLost, Fault, Overloaded, PooldError, Refused, Timeout, WorkerLost,
                          of_frame)

__all__ = ["AsyncClient", "Client", "PooldError", "ApplicationError", "Timeout", "Cancelled", "Overloaded", "WorkerLost", "ConnectionLost",
           "Refused", "BadResult", "Fault", "default_socket"]

#: poold ends every call within its budget; so many seconds more are for a poold that is stopped itself
_MARGIN_SECONDS = 30.0
#: so long a thread waits for another that connects before it looks again
_SLICE_SECONDS = 0.01
#: an attempt that failed with one of these may be followed by another
_NOT_YET = (BlockingIOError, FileNotFoundError, ConnectionRefusedError, ConnectionLost)
_CLOSED = "the client was closed while it connected; the call was not sent"


def default_socket() -> str:
    """$POOLD_SOCKET, or where poold listens by default. Who else may write to /tmp is not taken for poold: a folder that neither
    root nor this user made does not count."""
    if os.environ.get("POOLD_SOCKET"):
        return os.environ["POOLD_SOCKET"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = ([runtime + "/poold/poold.sock"] if runtime else []) + ["/run/poold/poold.sock"]
    folder = f"/tmp/poold-{os.getuid()}"
    if _is_trusted(folder):
        places.append(folder + "/poold.sock")
    return next((p for p in places if os.path.exists(p)), places[0])


def _is_trusted(folder: str) -> bool:
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (0, os.getuid())


class _Turn:
    """A thread's turn to connect. Only the call that has it refers to it: it ends with the call at the latest, wherever a signal's
    exception strikes, which a lock would not."""

    def __init__(self) -> None:
        self.thread, self.is_over = threading.get_ident(), False


class Client:
    """A blocking client; safe for threads. `path`: poold's socket, by default `default_socket()`. `name` is for poold's log.
    `connect_timeout`: seconds to go on trying where no poold answers; 0: once."""

    def __init__(self, path: Optional[str] = None, name: str = "python", connect_timeout: float = 0.0) -> None:
        self.path = path or default_socket()
        self.connect_timeout = connect_timeout
        self._name = name
        #: the first that is left may connect
        self._turns: "List[weakref.ref[_Turn]]" = []
        #: how often the client was closed
        self._closes = 0
        self._ids = itertools.count(1)
        self._connection: Optional[Connection] = None
        #: also those that drain, and one that is not welcomed yet
        self._connections: List[Connection] = []
        _clients.add(self)
        weakref.finalize(self, _hang_up, self._connections).atexit = False

    def call(self, method: str, arguments: Any = None, *, timeout: Optional[float] = None, session: int = 0, priority: str = "normal",
             idempotent: bool = False, idempotency_key: Optional[str] = None) -> Any:
        """Calls `pool.method` and returns its result. `arguments`: bytes are sent as they are; otherwise a dict gives keyword
        arguments, a list positional ones. `timeout`: seconds for everything together: connecting, sending, waiting and running;
        None: the pool's default for the last two. `idempotency_key` names the work: a quarantine goes by it instead of by the body.

        Raises PooldError, ConnectionLost (the answer never came), OSError (no poold)."""
        deadline = None if timeout is None else time.monotonic() + timeout
        arguments = [] if arguments is None else arguments
        call_id = next(self._ids)
        is_last_attempt = False
        while True:
            connection = self._connect(deadline)
            data, codec = connection.session.request(call_id, method, arguments, left(deadline), session, priority, idempotent,
                                                     idempotency_key)
            try:
                waiter = connection.expect(call_id)
                try:
                    connection.send(data, deadline, is_call=True)
                except TooLate:
                    raise
                except NotSent:
                    # It cannot have begun: once more, on a new connection.
                    if not (is_last_attempt or connection.closed):
                        is_last_attempt = True
                        continue
                if not waiter.event.wait(None if deadline is None else max(0.0, deadline + _MARGIN_SECONDS - time.monotonic())):
                    connection.end("poold does not answer")
                    waiter.event.wait()
                break
            except TooLate as error:
                connection.forget(call_id)
                raise unsent(str(error)) from None
            except BaseException:
                connection.forget(call_id)
                connection.notify(_wire.frame(_wire.CANCEL, id=call_id))
                raise
        if waiter.error is not None:
            raise waiter.error
        return Session.result(codec, waiter.body)

    def methods(self) -> Dict[str, int]:
        """{name: codec number} of what can be called now."""
        return {name: codec for name, (_, codec) in self._connect(None).session.methods.items()}

    def close(self) -> None:
        """Ends the connection; calls in flight raise ConnectionLost."""
        self._closes += 1
        for connection in self._connections[:]:
            connection.closed = True
            connection.end("closed")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self, deadline: Optional[float]) -> Connection:
        connection = self._connection
        if connection is not None and connection.usable:
            return connection
        if deadline is None:
            deadline = time.monotonic() + self.connect_timeout + WELCOME_SECONDS
        closes, turn = self._closes, _Turn()
        self._turns.append(weakref.ref(turn, self._turns.remove))
        try:
            while not self._is_next(turn):
                seconds = left(deadline) or 0.0
                if not seconds:
                    raise unsent(f"another thread has not got a connection to poold at {self.path} yet")
                time.sleep(min(seconds, _SLICE_SECONDS))
            connection = self._connection
            if connection is None or not connection.usable:
                connection = self._connection = self._open(deadline, closes)
            return connection
        finally:
            turn.is_over = True

    def _is_next(self, turn: _Turn) -> bool:
        for known in self._turns[:]:
            other = known()
            if other is not None and not other.is_over:
                if other is not turn and other.thread == turn.thread:
                    raise RuntimeError(NESTED)
                return other is turn
        return False

    def _open(self, deadline: float, closes: int) -> Connection:
        patience = time.monotonic() + self.connect_timeout
        while self._closes == closes:
            try:
                connection = Connection(attempt(self.path))
                # Known before it is welcomed: close() and a fork may come meanwhile.
                self._connections[:] = [known for known in self._connections if not known.over] + [connection]
                if self._closes != closes:
                    connection.end("closed")
                connection.open(self.path, self._name, deadline)
                return connection
            except _NOT_YET as error:
                seconds = pause(error, patience, deadline)
            time.sleep(seconds)
        raise ConnectionLost(_CLOSED)

    def _after_fork(self) -> None:
        self._turns = []
        for connection in self._connections:
            connection.disown()
        self._connections.clear()
        self._connection = None


_clients: "weakref.WeakSet[Union[Client, AsyncClient]]" = weakref.WeakSet()


def _disown() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_disown)


def _hang_up(connections: List[Connection]) -> None:
    for connection in connections:
        connection.hang_up()


class AsyncClient:
    """The same for asyncio; with one event loop at a time. Cancelling the task that awaits a call cancels the call."""

    def __init__(self, path: Optional[str] = None, name: str = "python", connect_timeout: float = 0.0) -> None:
        self.path = path or default_socket()
        self.connect_timeout = connect_timeout
        self._name = name
        self._ids = itertools.count(1)
        #: of the loop that is named
        self._lock: Optional[asyncio.Lock] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        #: how often the client was closed
        self._closes = 0
        self._stream: Optional[Stream] = None
        #: also those that drain, and one that is not welcomed yet
        self._streams: List[Stream] = []
        _clients.add(self)
        weakref.finalize(self, _drop, self._streams).atexit = False

    async def call(self, method: str, arguments: Any = None, *, timeout: Optional[float] = None, session: int = 0, priority: str = "normal",
                   idempotent: bool = False, idempotency_key: Optional[str] = None) -> Any:
        """See Client.call."""
        deadline = None if timeout is None else time.monotonic() + timeout
        arguments = [] if arguments is None else arguments
        stream = await self._connect(deadline)
        if stream.is_full:
            try:
                await within(left(deadline), stream.room())
            except asyncio.TimeoutError:
                raise unsent(f"poold at {self.path} does not read") from None
            except ConnectionError as error:
                raise ConnectionLost(f"{error}; the call was not sent") from None
        call_id = next(self._ids)
        data, codec = stream.session.request(call_id, method, arguments, left(deadline), session, priority, idempotent, idempotency_key)
        future = stream.expect(call_id)
        # Not wait_for: that is a task of its own for each call.
        timer = None if deadline is None else stream.loop.call_later(
            deadline + _MARGIN_SECONDS - time.monotonic(), stream.abort, "poold does not answer")
        try:
            stream.writer.write(data)
            body = await future
        except asyncio.CancelledError:
            if stream.waiters.pop(call_id, None) is not None:
                stream.writer.write(_wire.frame(_wire.CANCEL, id=call_id))
            raise
        finally:
            if timer is not None:
                timer.cancel()
        return Session.result(codec, body)

    async def methods(self) -> Dict[str, int]:
        """See Client.methods."""
        return {name: codec for name, (_, codec) in (await self._connect(None)).session.methods.items()}

    async def close(self) -> None:
        """Ends the connection; calls in flight raise ConnectionLost."""
        self._closes += 1
        loop = asyncio.get_running_loop()
        streams = [stream for stream in self._streams if not stream.is_gone]
        for stream in streams:
            stream.abort("closed") if stream.loop is loop else stream.drop("closed")
        await asyncio.gather(*(stream.task for stream in streams if stream.loop is loop), return_exceptions=True)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _connect(self, deadline: Optional[float]) -> Stream:
        stream = self._stream
        if stream is not None and stream.usable:
            return stream
        if deadline is None:
            deadline = time.monotonic() + self.connect_timeout + WELCOME_SECONDS
        try:
            return await within(left(deadline), self._reconnect(deadline, self._closes))
        except asyncio.TimeoutError:
            raise unsent(f"poold at {self.path} does not welcome us") from None

    async def _reconnect(self, deadline: float, closes: int) -> Stream:
        loop = asyncio.get_running_loop()
        if self._lock is None or self._loop is not loop:
            self._lock, self._loop = asyncio.Lock(), loop
        async with self._lock:
            stream = self._stream
            if stream is None or not stream.usable:
                stream = self._stream = await self._open(deadline, closes)
            return stream

    async def _open(self, deadline: float, closes: int) -> Stream:
        patience = time.monotonic() + self.connect_timeout
        while self._closes == closes:
            try:
                stream = await self._open_once()
            except _NOT_YET as error:
                seconds = pause(error, patience, deadline)
            else:
                if self._closes == closes:
                    return stream
                stream.abort("closed")
                break
            await asyncio.sleep(seconds)
        raise ConnectionLost(_CLOSED)

    async def _open_once(self) -> Stream:
        # asyncio's own connect takes a poold whose queue is full for one that has answered.
        stream = Stream(*await asyncio.open_unix_connection(sock=attempt(self.path)))
        self._streams[:] = [known for known in self._streams if not known.is_gone] + [stream]
        try:
            stream.writer.write(_wire.hello(self._name))
            await stream.welcomed
        except BaseException:
            stream.abort("closed before the welcome")
            raise
        return stream

    def _after_fork(self) -> None:
        for stream in self._streams:
            stream.disown()
        self._streams.clear()
        self._lock = self._stream = None


def _drop(streams: List[Stream]) -> None:
    for stream in streams:
        stream.drop()
