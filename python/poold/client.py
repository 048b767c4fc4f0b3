"""Call poold from Python.

    from poold.client import Client

    with Client("/run/poold/poold.sock") as poold:
        poold.call("text.summarize", {"text": "..."}, timeout=2.0)

`Client` may be used from many threads at once, `AsyncClient` from many tasks; calls share one connection and are matched by id.
After a lost connection the calls that were in flight raise `ConnectionLost`, and the next call connects again; so it does when
poold has said that it is shutting down. `connect_timeout` says for how long to try, over a restart of poold for instance.
"""
import asyncio
import itertools
import os
import socket
import threading
import time
from typing import Any, Dict, Optional

from poold import _wire
from poold._session import Session
from poold.errors import (ApplicationError, BadResult, Cancelled, ConnectionLost, Fault, Overloaded, PooldError, Refused, Timeout, WorkerLost,
                          of_frame)

__all__ = ["AsyncClient", "Client", "PooldError", "ApplicationError", "Timeout", "Cancelled", "Overloaded", "WorkerLost", "ConnectionLost",
           "Refused", "BadResult", "Fault", "default_socket"]

#: poold ends every call within its budget; so many seconds more are for a poold that is stopped itself
_MARGIN_SECONDS = 30.0
#: between two attempts to connect
_ATTEMPT_SECONDS = 0.05


def default_socket() -> str:
    """$POOLD_SOCKET, or where poold listens by default."""
    if os.environ.get("POOLD_SOCKET"):
        return os.environ["POOLD_SOCKET"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = ([runtime + "/poold/poold.sock"] if runtime else []) + ["/run/poold/poold.sock", f"/tmp/poold-{os.getuid()}/poold.sock"]
    return next((p for p in places if os.path.exists(p)), places[0])


class Client:
    """A blocking client; safe for threads. `path`: poold's socket, by default `default_socket()`. `name` is for poold's log.
    `connect_timeout`: seconds to go on trying where no poold answers; 0: once."""

    def __init__(self, path: Optional[str] = None, name: str = "python", connect_timeout: float = 0.0) -> None:
        self.path = path or default_socket()
        self.connect_timeout = connect_timeout
        self._name = name
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._connection: Optional[_Connection] = None

    def call(self, method: str, arguments: Any = None, *, timeout: Optional[float] = None, session: int = 0, priority: str = "normal",
             idempotent: bool = False, idempotency_key: Optional[str] = None) -> Any:
        """Calls `pool.method` and returns its result. `arguments`: bytes are sent as they are; otherwise a dict gives keyword
        arguments, a list positional ones. `timeout`: seconds for waiting and running together; None: the pool's default.
        `idempotency_key` names the work: a quarantine goes by it instead of by the body.

        Raises PooldError, ConnectionLost (the answer never came), OSError (no poold)."""
        arguments = [] if arguments is None else arguments
        call_id = next(self._ids)
        is_sent = is_last_attempt = False
        while not is_sent:
            connection = self._connect()
            data, codec = connection.session.request(call_id, method, arguments, timeout, session, priority, idempotent, idempotency_key)
            waiter = connection.expect(call_id)
            try:
                connection.send(data)
                is_sent = True
            except OSError as error:
                # What did not leave whole cannot have begun: once more, on a new connection.
                connection.end(f"poold at {self.path} closed the connection ({error})")
                is_sent = is_last_attempt
                is_last_attempt = True
        try:
            if not waiter.event.wait(None if timeout is None else timeout + _MARGIN_SECONDS):
                connection.end("poold does not answer")
                waiter.event.wait()
        except BaseException:
            self._cancel(connection, call_id)
            raise
        if waiter.error is not None:
            raise waiter.error
        return Session.result(codec, waiter.body)

    def methods(self) -> Dict[str, int]:
        """{name: codec number} of what can be called now."""
        return {name: codec for name, (_, codec) in self._connect().session.methods.items()}

    def close(self) -> None:
        """Ends the connection; calls in flight raise ConnectionLost."""
        with self._lock:
            if self._connection:
                self._connection.end("closed")
                self._connection = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _cancel(self, connection: "_Connection", call_id: int) -> None:
        connection.forget(call_id)
        try:
            connection.send(_wire.frame(_wire.CANCEL, id=call_id))
        except OSError:
            pass

    def _connect(self) -> "_Connection":
        with self._lock:
            # A draining connection is left to the calls that wait on it; one from before a fork belongs to the parent.
            connection = self._connection
            if connection is None or connection.over or connection.session.draining or connection.process != os.getpid():
                connection = self._connection = self._open()
            return connection

    def _open(self) -> "_Connection":
        end = time.monotonic() + self.connect_timeout
        while True:
            try:
                return _Connection(self.path, self._name)
            except (FileNotFoundError, ConnectionRefusedError, ConnectionLost):
                if time.monotonic() + _ATTEMPT_SECONDS > end:
                    raise
                time.sleep(_ATTEMPT_SECONDS)


class _Waiter:
    __slots__ = ("event", "body", "error")

    def __init__(self) -> None:
        self.event, self.body = threading.Event(), b""
        self.error: Optional[PooldError] = None


class _Connection:
    def __init__(self, path: str, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            raise type(error)(error.errno, f"no poold answers on {path}: {error.strerror}") from None
        self.session = Session()
        self.process = os.getpid()
        self.over = False
        self._waiters: Dict[int, _Waiter] = {}
        self._lock, self._send_lock = threading.Lock(), threading.Lock()
        self._decoder = _wire.Decoder()
        try:
            self.send(_wire.hello(name))
            while not self.session.welcomed:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionLost(f"poold at {path} closed the connection before it welcomed us")
                self._take(data)
        except (OSError, _wire.WireError) as error:
            self.socket.close()
            raise ConnectionLost(f"the connection to poold at {path} ended before the welcome: {error}") from None
        except BaseException:
            self.socket.close()
            raise
        threading.Thread(target=self._read, name="poold-client", daemon=True).start()

    def send(self, data: bytes) -> None:
        """Sends one frame whole, whatever other threads send. Raises OSError."""
        with self._send_lock:
            self.socket.sendall(data)

    def expect(self, call_id: int) -> _Waiter:
        waiter = _Waiter()
        with self._lock:
            if self.over:
                waiter.error = ConnectionLost("the connection is closed")
                waiter.event.set()
            else:
                self._waiters[call_id] = waiter
        return waiter

    def forget(self, call_id: int) -> None:
        with self._lock:
            self._waiters.pop(call_id, None)

    def end(self, reason: str) -> None:
        with self._lock:
            self.over = True
            waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            waiter.error = ConnectionLost(reason)
            waiter.event.set()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _read(self) -> None:
        reason = "poold closed the connection"
        try:
            while True:
                data = self.socket.recv(262144)
                if not data:
                    break
                self._take(data)
        except (OSError, PooldError, _wire.WireError) as error:
            reason = str(error)
        self.end(reason)
        self.socket.close()

    def _take(self, data: bytes) -> None:
        for kind, _, code, call_id, _, time, body in self._decoder.feed(data):
            if kind in (_wire.RESULT, _wire.ERROR) and call_id:
                with self._lock:
                    waiter = self._waiters.pop(call_id, None)
                if waiter:
                    if kind == _wire.RESULT:
                        waiter.body = body
                    else:
                        waiter.error = of_frame(code, body, time)
                    waiter.event.set()
            elif kind in (_wire.WELCOME, _wire.METHODS):
                self.session.learn(kind, body)
                self._decoder.limit = max(self._decoder.limit, self.session.largest)
            elif kind == _wire.ERROR:
                raise of_frame(code, body, time)
            elif kind == _wire.PING:
                self.send(_wire.frame(_wire.PONG, body, id=call_id, time=time))
            elif kind == _wire.DRAIN:
                self.session.draining = True


class AsyncClient:
    """The same for asyncio, in one event loop. Cancelling the task that awaits a call cancels the call."""

    def __init__(self, path: Optional[str] = None, name: str = "python", connect_timeout: float = 0.0) -> None:
        self.path = path or default_socket()
        self.connect_timeout = connect_timeout
        self._name = name
        self._ids = itertools.count(1)
        self._lock: Optional[asyncio.Lock] = None
        self._stream: Optional[_Stream] = None

    async def call(self, method: str, arguments: Any = None, *, timeout: Optional[float] = None, session: int = 0, priority: str = "normal",
                   idempotent: bool = False, idempotency_key: Optional[str] = None) -> Any:
        """See Client.call."""
        arguments = [] if arguments is None else arguments
        stream = await self._connect()
        call_id = next(self._ids)
        data, codec = stream.session.request(call_id, method, arguments, timeout, session, priority, idempotent, idempotency_key)
        future: "asyncio.Future[bytes]" = asyncio.get_running_loop().create_future()
        stream.waiters[call_id] = future
        try:
            stream.writer.write(data)
            await stream.writer.drain()
            # Not wait_for: that is a task of its own for each call.
            timer = None if timeout is None else asyncio.get_running_loop().call_later(timeout + _MARGIN_SECONDS, stream.abort, "poold does not answer")
            try:
                body = await future
            finally:
                if timer is not None:
                    timer.cancel()
        except asyncio.CancelledError:
            if stream.waiters.pop(call_id, None) is not None:
                stream.writer.write(_wire.frame(_wire.CANCEL, id=call_id))
            raise
        except ConnectionError as error:
            stream.waiters.pop(call_id, None)
            raise ConnectionLost(str(error)) from None
        return Session.result(codec, body)

    async def methods(self) -> Dict[str, int]:
        """See Client.methods."""
        return {name: codec for name, (_, codec) in (await self._connect()).session.methods.items()}

    async def close(self) -> None:
        """Ends the connection; calls in flight raise ConnectionLost."""
        if self._stream:
            self._stream.writer.close()
            await self._stream.task
            self._stream = None

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _connect(self) -> "_Stream":
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            stream = self._stream
            if stream is None or stream.task.done() or stream.session.draining:
                stream = self._stream = await self._open()
            return stream

    async def _open(self) -> "_Stream":
        end = time.monotonic() + self.connect_timeout
        while True:
            try:
                return await self._open_once()
            except (FileNotFoundError, ConnectionRefusedError, ConnectionLost):
                if time.monotonic() + _ATTEMPT_SECONDS > end:
                    raise
                await asyncio.sleep(_ATTEMPT_SECONDS)

    async def _open_once(self) -> "_Stream":
        try:
            reader, writer = await asyncio.open_unix_connection(self.path)
        except OSError as error:
            raise type(error)(error.errno, f"no poold answers on {self.path}: {error.strerror}") from None
        stream = _Stream(reader, writer)
        try:
            writer.write(_wire.hello(self._name))
            await stream.welcomed
        except BaseException:
            stream.abort("closed before the welcome")
            raise
        return stream


class _Stream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.session = Session()
        self.waiters: "Dict[int, asyncio.Future[bytes]]" = {}
        self.welcomed: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        self._reason = "poold closed the connection"
        self.task = asyncio.create_task(self._read())

    def abort(self, reason: str) -> None:
        """Ends the connection at once; its calls raise ConnectionLost."""
        self._reason = reason
        self.writer.transport.abort()

    async def _read(self) -> None:
        decoder = _wire.Decoder()
        error: Optional[PooldError] = None
        try:
            while True:
                data = await self.reader.read(262144)
                if not data:
                    break
                for kind, _, code, call_id, _, time, body in decoder.feed(data):
                    if kind in (_wire.RESULT, _wire.ERROR) and call_id:
                        future = self.waiters.pop(call_id, None)
                        if future and not future.done():
                            if kind == _wire.RESULT:
                                future.set_result(body)
                            else:
                                future.set_exception(of_frame(code, body, time))
                    elif kind in (_wire.WELCOME, _wire.METHODS):
                        self.session.learn(kind, body)
                        decoder.limit = max(decoder.limit, self.session.largest)
                        if not self.welcomed.done():
                            self.welcomed.set_result(None)
                    elif kind == _wire.ERROR:
                        raise of_frame(code, body, time)
                    elif kind == _wire.PING:
                        self.writer.write(_wire.frame(_wire.PONG, body, id=call_id, time=time))
                    elif kind == _wire.DRAIN:
                        self.session.draining = True
        except PooldError as caught:
            error = ConnectionLost(str(caught)) if self.welcomed.done() else caught
        except (OSError, _wire.WireError) as caught:
            error = ConnectionLost(str(caught))
        finally:
            self.writer.close()
            if error is None:
                error = ConnectionLost(self._reason)
            if not self.welcomed.done():
                self.welcomed.set_exception(error)
            for waiter in self.waiters.values():
                if not waiter.done():
                    waiter.set_exception(error)
            self.waiters.clear()
