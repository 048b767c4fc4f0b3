"""One connection of the client for asyncio."""
import asyncio
import os
from typing import Any, Coroutine, Dict, List, Optional, TypeVar

from poold import _wire
from poold._session import Session
from poold.errors import ConnectionLost, PooldError, of_frame

#: With more unsent, calls wait: what they wrote would only lie in memory. It is where asyncio's own drain() begins to wait.
_FULL_BYTES = 65536
#: of the parent, in a forked child: never collected, which would end them
_disowned: "List[Stream]" = []

T = TypeVar("T")


async def within(seconds: Optional[float], work: Coroutine[Any, Any, T]) -> T:
    """wait_for, which before Python 3.12 loses a cancellation that comes when the work is done. Raises asyncio.TimeoutError."""
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise asyncio.TimeoutError
        return task.result()
    finally:
        task.cancel()
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # or asyncio says that nobody looked


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
        return not (self.session.draining or self.loop is not asyncio.get_running_loop() or self.writer.transport.is_closing() or self.task.done())

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

    def drop(self, reason: str = "the client was dropped") -> None:
        """The same from any thread, without waiting, and with the loop gone."""
        if not self.task.done():
            try:
                self.loop.call_soon_threadsafe(self.abort, reason)
            except RuntimeError:
                pass

    @property
    def is_gone(self) -> bool:
        return self.task.done() or self.loop.is_closed()

    def disown(self) -> None:
        """In a forked child: the connection and what the loop waits with are the parent's too, so neither transport nor loop is
        touched. The descriptor is given another meaning instead of being closed: the transport keeps its number."""
        _disowned.append(self)
        try:
            descriptor = self.writer.get_extra_info("socket").fileno()
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            try:
                if descriptor >= 0:
                    os.dup2(nothing, descriptor, inheritable=False)
            finally:
                os.close(nothing)
        except OSError:
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
            if not self.loop.is_closed():  # or this is the garbage collection's doing, and nobody waits any more
                self._end(error or ConnectionLost(self._reason))

    def _end(self, error: PooldError) -> None:
        # Not close(): that would keep the descriptor for as long as poold does not read the rest.
        self.writer.transport.abort()
        if not self.welcomed.done():
            self.welcomed.set_exception(error)
        for waiter in self.waiters.values():
            if not waiter.done():
                waiter.set_exception(ConnectionLost(error.message))
        self.waiters.clear()
