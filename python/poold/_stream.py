"""One connection of the client for asyncio."""
import asyncio
from typing import Dict, Optional

from poold import _wire
from poold._session import Session
from poold.errors import ConnectionLost, PooldError, of_frame

#: With more unsent, calls wait: what they wrote would only lie in memory. It is where asyncio's own drain() begins to wait.
_FULL_BYTES = 65536


class Stream:
    """Knows nothing of its client: a client that is dropped ends its connections."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.session = Session()
        self.waiters: "Dict[int, asyncio.Future[bytes]]" = {}
        self.loop = asyncio.get_running_loop()
        self.welcomed: "asyncio.Future[None]" = self.loop.create_future()
        self._reason = "poold closed the connection"
        self._turn = asyncio.Lock()
        self.task = asyncio.create_task(self._read())

    @property
    def usable(self) -> bool:
        """A draining connection is left to the calls that wait on it."""
        return not (self.session.draining or self.writer.transport.is_closing() or self.task.done())

    @property
    def is_full(self) -> bool:
        return self.writer.transport.get_write_buffer_size() > _FULL_BYTES

    async def room(self) -> None:
        """Until poold reads. Raises ConnectionError."""
        async with self._turn:  # one at a time: before Python 3.11 drain() bears no second
            await self.writer.drain()

    def expect(self, call_id: int) -> "asyncio.Future[bytes]":
        """The answer to come. Raises ConnectionLost where none can come any more."""
        if self.task.done():
            raise ConnectionLost(self._reason)
        future = self.waiters[call_id] = self.loop.create_future()
        return future

    def abort(self, reason: str) -> None:
        """Ends the connection at once, whatever poold has not read; its calls raise ConnectionLost."""
        self._reason = reason
        self.writer.transport.abort()

    def drop(self) -> None:
        """The same from any thread, without waiting, and with the loop gone."""
        if not self.task.done():
            try:
                self.loop.call_soon_threadsafe(self.abort, "the client was dropped")
            except RuntimeError:
                pass

    async def _read(self) -> None:
        decoder = _wire.Decoder()
        error: Optional[PooldError] = None
        try:
            while True:
                data = await self.reader.read(262144)
                if not data:
                    break
                for kind, _, code, call_id, _, nanoseconds, body in decoder.feed(data):
                    if kind in (_wire.RESULT, _wire.ERROR) and call_id:
                        future = self.waiters.pop(call_id, None)
                        if future and not future.done():
                            if kind == _wire.RESULT:
                                future.set_result(body)
                            else:
                                future.set_exception(of_frame(code, body, nanoseconds))
                    elif kind in (_wire.WELCOME, _wire.METHODS):
                        self.session.learn(kind, body)
                        decoder.limit = max(decoder.limit, self.session.largest)
                        if not self.welcomed.done():
                            self.welcomed.set_result(None)
                    elif kind == _wire.ERROR:
                        raise of_frame(code, body, nanoseconds)
                    elif kind == _wire.PING:
                        self.writer.write(_wire.frame(_wire.PONG, body, id=call_id, time=nanoseconds))
                    elif kind == _wire.DRAIN:
                        self.session.draining = True
        except PooldError as caught:
            error = ConnectionLost(str(caught)) if self.welcomed.done() else caught
        except (OSError, _wire.WireError) as caught:
            error = ConnectionLost(str(caught))
        finally:
            # Not close(): that would keep the descriptor for as long as poold does not read the rest.
            self.writer.transport.abort()
            if error is None:
                error = ConnectionLost(self._reason)
            if not self.welcomed.done():
                self.welcomed.set_exception(error)
            for waiter in self.waiters.values():
                if not waiter.done():
                    waiter.set_exception(error)
            self.waiters.clear()
