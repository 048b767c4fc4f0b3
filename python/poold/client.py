"""Call poold from Python.

    from poold.client import Client

    with Client("/run/poold/poold.sock") as poold:
        poold.call("text.summarize", {"text": "..."}, timeout=2.0)

`Client` may be used from many threads at once; calls share one connection and are matched by id. After a lost
connection the calls that were in flight raise `ConnectionLost`, and the next call connects again.
"""
import asyncio
import itertools
import json
import os
import socket
import threading
from typing import Any, Dict, Optional, Tuple, Type

from poold import _wire


class PooldError(Exception):
    """A call ended with an error; the subclasses say what a caller can do about it. `status` is its name in PROTOCOL.md, `detail`
    the traceback if there is one, `retry_after` seconds after which a retry is worth while (0: not said)."""

    def __init__(self, status: str, message: str, detail: str = "", retry_after: float = 0.0) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.detail = detail
        self.retry_after = retry_after

    @property
    def began(self) -> bool:
        """Whether the call may have had effects."""
        return self.status in ("application_error", "timeout_running", "cancelled", "worker_lost", "result_too_large", "result_unencodable", "internal")


class ApplicationError(PooldError):
    """The method raised; `detail` is its traceback."""


class Timeout(PooldError):
    """The budget ended. `began` says whether the method had begun."""


class Cancelled(PooldError):
    """The call was cancelled on its way, not by this client's own task or thread."""


class Overloaded(PooldError):
    """The pool does not take the call now: it is full, draining, without workers, or the caller is over its quota. Nothing has
    begun; see `retry_after`."""


class WorkerLost(PooldError):
    """The worker ended while it ran the call, which may have had effects."""


class ConnectionLost(WorkerLost):
    """The connection ended before the answer came; the call may have had effects."""

    def __init__(self, message: str) -> None:
        super().__init__("worker_lost", message)


class Refused(PooldError):
    """The call can never be served as it is: no such method, arguments that do not fit, no permission, quarantined …"""


class BadResult(PooldError):
    """The method ran, and its result cannot be sent: too large, or not of its codec."""


class Fault(PooldError):
    """A fault of the protocol, of poold or of the worker library."""


#: status → exception; `PooldError.status` says more exactly which
_EXCEPTIONS: Dict[str, Type[PooldError]] = {
    "application_error": ApplicationError, "timeout_waiting": Timeout, "timeout_running": Timeout, "cancelled": Cancelled,
    "overloaded": Overloaded, "draining": Overloaded, "pool_unavailable": Overloaded, "quota_exceeded": Overloaded,
    "worker_lost": WorkerLost, "session_lost": WorkerLost, "no_such_pool": Refused, "no_such_method": Refused, "method_gone": Refused,
    "bad_arguments": Refused, "permission_denied": Refused, "quarantined": Refused, "result_too_large": BadResult,
    "result_unencodable": BadResult,
}
__all__ = ["AsyncClient", "Client", "PooldError", "ApplicationError", "Timeout", "Cancelled", "Overloaded", "WorkerLost", "ConnectionLost",
           "Refused", "BadResult", "Fault", "default_socket"]


def default_socket() -> str:
    """$POOLD_SOCKET, or where poold listens by default."""
    if os.environ.get("POOLD_SOCKET"):
        return os.environ["POOLD_SOCKET"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = ([runtime + "/poold/poold.sock"] if runtime else []) + ["/run/poold/poold.sock", f"/tmp/poold-{os.getuid()}/poold.sock"]
    return next((p for p in places if os.path.exists(p)), places[0])


def _error(code: int, body: bytes, time: int) -> PooldError:
    first, _, detail = body.decode("utf-8", "replace").partition("\n")
    status = _wire.STATUS.get(code, f"status {code}")
    retry = time / 1e9 if status in ("overloaded", "pool_unavailable") else 0.0
    return _EXCEPTIONS.get(status, Fault)(status, first, detail, retry)


class _Session:
    """What both clients share: method numbers, encoding, decoding."""

    def __init__(self) -> None:
        #: name → (number, codec)
        self.methods: Dict[str, Tuple[int, int]] = {}
        self.largest = 1 << 20
        self.welcomed = False
        #: poold takes no new call here; those in flight are still answered
        self.draining = False

    def learn(self, kind: int, body: bytes) -> None:
        """WELCOME or METHODS."""
        if kind == _wire.WELCOME:
            _, _, _, self.largest, entries = _wire.parse_welcome(body)
            self.welcomed = True
        else:
            entries = _wire.parse_methods(body)
        for number, codec, flags, name in entries:
            if flags & 1:
                self.methods.pop(name, None)
            else:
                self.methods[name] = (number, codec)

    def request(self, id: int, method: str, arguments: Any, timeout: Optional[float], session: int, priority: str, idempotent: bool) -> Tuple[bytes, Optional[int]]:
        """(frame, codec) of a CALL. Raises TypeError, ValueError for what cannot be sent."""
        if priority not in _wire.PRIORITIES:
            raise ValueError(f"priority {priority!r} is unknown; known: {', '.join(_wire.PRIORITIES)}")
        number, codec = self.methods.get(method, (0, None))
        if isinstance(arguments, (bytes, bytearray, memoryview)):
            body, codec = bytes(arguments), 0
        elif codec == 0:
            raise TypeError(f"{method} takes bytes, not {type(arguments).__name__}")
        elif codec == 2:
            import msgpack

            body = msgpack.packb(arguments)
        else:
            body, codec = json.dumps(arguments).encode(), 1
        flags = _wire.END | (_wire.IDEMPOTENT if idempotent else 0) | _wire.PRIORITIES[priority] << 6
        budget = 0 if timeout is None else max(1, int(timeout * 1e9))
        if len(body) > self.largest:
            raise ValueError(f"the arguments of {method} have {len(body)} bytes, poold takes {self.largest}")
        if not number:
            flags |= _wire.NAMED
            body = _wire.short(method) + body
        return _wire.frame(_wire.CALL, body, flags, number, id, session, budget), codec

    @staticmethod
    def result(codec: Optional[int], body: bytes) -> Any:
        if codec == 1:
            return json.loads(body)
        if codec == 2:
            import msgpack

            return msgpack.unpackb(body)
        return body


class Client:
    """A blocking client; safe for threads. `path`: poold's socket, by default `default_socket()`."""

    def __init__(self, path: Optional[str] = None, name: str = "python") -> None:
        self.path = path or default_socket()
        self._name = name
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._connection = None

    def call(self, method: str, arguments: Any = None, *, timeout: Optional[float] = None, session: int = 0, priority: str = "normal",
             idempotent: bool = False) -> Any:
        """Calls `pool.method` and returns its result. `arguments`: bytes are sent as they are; otherwise a dict gives keyword
        arguments, a list positional ones. `timeout`: seconds for waiting and running together; None: the pool's default.

        Raises PooldError, ConnectionLost (the answer never came), OSError (no poold)."""
        arguments = [] if arguments is None else arguments
        connection = self._connect()
        call_id = next(self._ids)
        data, codec = connection.session.request(call_id, method, arguments, timeout, session, priority, idempotent)
        waiter = connection.expect(call_id)
        try:
            connection.send(data)
        except OSError as error:
            connection.end(f"poold at {self.path} closed the connection ({error})")
        try:
            # poold ends every call within its budget; the margin is for a poold that is stopped.
            if not waiter.event.wait(None if timeout is None else timeout + 30):
                connection.end("poold does not answer")
                waiter.event.wait()
        except BaseException:
            self._cancel(connection, call_id)
            raise
        if waiter.error is not None:
            raise waiter.error
        return _Session.result(codec, waiter.body)

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
            # A draining connection is left to the calls that wait on it.
            if self._connection is None or self._connection.over or self._connection.session.draining:
                self._connection = _Connection(self.path, self._name)
            return self._connection


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
        self.session = _Session()
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
                        waiter.error = _error(code, body, time)
                    waiter.event.set()
            elif kind in (_wire.WELCOME, _wire.METHODS):
                self.session.learn(kind, body)
                self._decoder.limit = max(self._decoder.limit, self.session.largest)
            elif kind == _wire.ERROR:
                raise _error(code, body, time)
            elif kind == _wire.PING:
                self.send(_wire.frame(_wire.PONG, body, id=call_id, time=time))
            elif kind == _wire.DRAIN:
                self.session.draining = True


class AsyncClient:
    """The same for asyncio. Cancelling the task that awaits a call cancels the call."""

    def __init__(self, path: Optional[str] = None, name: str = "python") -> None:
        self.path = path or default_socket()
        self._name = name
        self._ids = itertools.count(1)
        self._lock = None
        self._stream = None

    async def call(self, method: str, arguments: Any = None, *, timeout: Optional[float] = None, session: int = 0, priority: str = "normal",
                   idempotent: bool = False) -> Any:
        """See Client.call."""
        arguments = [] if arguments is None else arguments
        stream = await self._connect()
        call_id = next(self._ids)
        data, codec = stream.session.request(call_id, method, arguments, timeout, session, priority, idempotent)
        future = asyncio.get_running_loop().create_future()
        stream.waiters[call_id] = future
        try:
            stream.writer.write(data)
            await stream.writer.drain()
            body = await future
        except asyncio.CancelledError:
            if stream.waiters.pop(call_id, None) is not None:
                stream.writer.write(_wire.frame(_wire.CANCEL, id=call_id))
            raise
        except ConnectionError as error:
            stream.waiters.pop(call_id, None)
            raise ConnectionLost(str(error)) from None
        return _Session.result(codec, body)

    async def close(self) -> None:
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
            if self._stream is None or self._stream.task.done() or self._stream.session.draining:
                reader, writer = await asyncio.open_unix_connection(self.path)
                self._stream = _Stream(reader, writer)
                writer.write(_wire.hello(self._name))
                await self._stream.welcomed
            return self._stream


class _Stream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.session = _Session()
        self.waiters: "Dict[int, asyncio.Future[bytes]]" = {}
        self.welcomed: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        decoder = _wire.Decoder()
        error: PooldError = ConnectionLost("poold closed the connection")
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
                                future.set_exception(_error(code, body, time))
                    elif kind in (_wire.WELCOME, _wire.METHODS):
                        self.session.learn(kind, body)
                        decoder.limit = max(decoder.limit, self.session.largest)
                        if not self.welcomed.done():
                            self.welcomed.set_result(None)
                    elif kind == _wire.ERROR:
                        raise _error(code, body, time)
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
            for future in [self.welcomed, *self.waiters.values()]:
                if not future.done():
                    future.set_exception(error)
            self.waiters.clear()
