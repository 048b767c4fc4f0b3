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
import struct
import threading

from poold import _wire

__all__ = ["AsyncClient", "Client", "ConnectionLost", "PooldError", "default_socket"]


class PooldError(Exception):
    """A call ended with an error. `status` is its name in PROTOCOL.md, `detail` the traceback if there is one,
    `retry_after` seconds after which a retry is worth while (0: not said)."""

    def __init__(self, status, message, detail="", retry_after=0.0):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.detail = detail
        self.retry_after = retry_after

    @property
    def began(self):
        """Whether the call may have had effects."""
        return self.status in ("application_error", "timeout_running", "cancelled", "worker_lost", "result_too_large", "result_unencodable", "internal")


class ConnectionLost(PooldError):
    """The connection ended before the answer came; the call may have had effects."""

    def __init__(self, message):
        super().__init__("worker_lost", message)


def default_socket():
    """$POOLD_SOCKET, or where poold listens by default."""
    if os.environ.get("POOLD_SOCKET"):
        return os.environ["POOLD_SOCKET"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = ([runtime + "/poold/poold.sock"] if runtime else []) + ["/run/poold/poold.sock", f"/tmp/poold-{os.getuid()}/poold.sock"]
    return next((p for p in places if os.path.exists(p)), places[0])


def _error(code, body, time):
    first, _, detail = body.decode("utf-8", "replace").partition("\n")
    status = _wire.STATUS.get(code, f"status {code}")
    retry = time / 1e9 if status in ("overloaded", "pool_unavailable") else 0.0
    return PooldError(status, first, detail, retry)


class _Session:
    """What both clients share: method numbers, encoding, decoding."""

    def __init__(self):
        self.methods = {}
        self.largest = 1 << 20
        self.welcomed = False

    def learn(self, kind, body):
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

    def request(self, id, method, arguments, timeout, session, priority, idempotent):
        """(frame, codec) of a CALL."""
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
        if not number:
            flags |= _wire.NAMED
            body = _wire.short(method) + body
        return _wire.frame(_wire.CALL, body, flags, number, id, session, budget), codec

    @staticmethod
    def result(codec, body):
        if codec == 1:
            return json.loads(body)
        if codec == 2:
            import msgpack

            return msgpack.unpackb(body)
        return body


class Client:
    """A blocking client; safe for threads. `path`: poold's socket, by default `default_socket()`."""

    def __init__(self, path=None, name="python"):
        self.path = path or default_socket()
        self._name = name
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._ids = itertools.count(1)
        self._connection = None

    def call(self, method, arguments=None, *, timeout=None, session=0, priority="normal", idempotent=False):
        """Calls `pool.method` and returns its result. `arguments`: bytes are sent as they are; otherwise a dict gives keyword
        arguments, a list positional ones. `timeout`: seconds for waiting and running together; None: the pool's default.

        Raises PooldError, ConnectionLost (the answer never came), OSError (no poold)."""
        arguments = [] if arguments is None else arguments
        connection = self._connect()
        call_id = next(self._ids)
        data, codec = connection.session.request(call_id, method, arguments, timeout, session, priority, idempotent)
        waiter = connection.expect(call_id)
        try:
            with self._send_lock:
                connection.socket.sendall(data)
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

    def methods(self):
        """{name: codec number} of what can be called now."""
        return {name: codec for name, (_, codec) in self._connect().session.methods.items()}

    def close(self):
        with self._lock:
            if self._connection:
                self._connection.end("closed")
                self._connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _cancel(self, connection, call_id):
        connection.forget(call_id)
        try:
            with self._send_lock:
                connection.socket.sendall(_wire.frame(_wire.CANCEL, id=call_id))
        except OSError:
            pass

    def _connect(self):
        with self._lock:
            if self._connection is None or self._connection.over:
                self._connection = _Connection(self.path, self._name)
            return self._connection


class _Waiter:
    __slots__ = ("event", "body", "error")

    def __init__(self):
        self.event, self.body, self.error = threading.Event(), b"", None


class _Connection:
    def __init__(self, path, name):
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            raise type(error)(error.errno, f"no poold answers on {path}: {error.strerror}") from None
        self.session = _Session()
        self.over = False
        self._waiters = {}
        self._lock = threading.Lock()
        self._decoder = _wire.Decoder()
        self.socket.sendall(_wire.hello(name))
        while not self.session.welcomed:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError(f"poold at {path} closed the connection before it welcomed us")
            self._take(data)
        threading.Thread(target=self._read, name="poold-client", daemon=True).start()

    def expect(self, call_id):
        waiter = _Waiter()
        with self._lock:
            if self.over:
                waiter.error = ConnectionLost("the connection is closed")
                waiter.event.set()
            else:
                self._waiters[call_id] = waiter
        return waiter

    def forget(self, call_id):
        with self._lock:
            self._waiters.pop(call_id, None)

    def end(self, reason):
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

    def _read(self):
        reason = "poold closed the connection"
        try:
            while True:
                data = self.socket.recv(262144)
                if not data:
                    break
                self._take(data)
        except (OSError, _wire.WireError, struct.error) as error:
            reason = str(error)
        self.end(reason)
        self.socket.close()

    def _take(self, data):
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
                raise _wire.WireError(str(_error(code, body, time)))


class AsyncClient:
    """The same for asyncio. Cancelling the task that awaits a call cancels the call."""

    def __init__(self, path=None, name="python"):
        self.path = path or default_socket()
        self._name = name
        self._ids = itertools.count(1)
        self._lock = None
        self._stream = None

    async def call(self, method, arguments=None, *, timeout=None, session=0, priority="normal", idempotent=False):
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

    async def close(self):
        if self._stream:
            self._stream.writer.close()
            await self._stream.task
            self._stream = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def _connect(self):
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._stream is None or self._stream.task.done():
                reader, writer = await asyncio.open_unix_connection(self.path)
                self._stream = _Stream(reader, writer)
                writer.write(_wire.hello(self._name))
                await self._stream.welcomed
            return self._stream


class _Stream:
    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.session = _Session()
        self.waiters = {}
        self.welcomed = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._read())

    async def _read(self):
        decoder = _wire.Decoder()
        error = ConnectionLost("poold closed the connection")
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
                        raise _wire.WireError(str(_error(code, body, time)))
        except (OSError, _wire.WireError, struct.error) as caught:
            error = ConnectionLost(str(caught))
        finally:
            self.writer.close()
            for future in [self.welcomed, *self.waiters.values()]:
                if not future.done():
                    future.set_exception(error)
            self.waiters.clear()
