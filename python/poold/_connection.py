"""One connection of the blocking client: many threads send, one reads."""
import errno
import socket
import struct
import threading
import time
from typing import Dict, Optional, Set

from poold import _wire
from poold._connecting import is_foreign, left, unsent
from poold._session import Session
from poold.errors import ConnectionLost, PooldError, of_frame

#: so long the kernel waits for room before a sender looks again whether its time is up
_SLICE_SECONDS = 0.05
#: A frame that has begun is finished for the sake of the other calls on the connection: for so long after its call's time.
_FINISH_SECONDS = 1.0
#: a small frame that nobody waits for must not keep its sender longer
_NOTICE_SECONDS = 1.0
NESTED = "called from a signal handler within a call"
#: what a socket says when its connection is over
_OVER = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF)


class NotSent(Exception):
    """A frame did not leave whole, so that poold cannot have heard of it: the connection is over. No OSError, as signal handlers raise
    some."""


class TooLate(NotSent):
    """The same because the time was up."""


class Waiter:
    """A thread that waits for an answer."""

    __slots__ = ("event", "body", "error")

    def __init__(self) -> None:
        self.event, self.body = threading.Event(), b""
        self.error: Optional[PooldError] = None


class Connection:
    """Knows nothing of its client: a client that is dropped ends its connections, although their readers still run."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.session = Session()
        #: no call may be sent any more
        self.over = False
        #: by the client itself
        self.closed = False
        self._waiters: Dict[int, Waiter] = {}
        # Reentrant: a signal handler may call within a call.
        self._lock, self._turn = threading.RLock(), threading.Lock()
        #: the threads within send()
        self._senders: Set[int] = set()
        self._decoder = _wire.Decoder()

    @property
    def usable(self) -> bool:
        """A draining connection is left to the calls that wait on it."""
        return not self.over and not self.session.draining

    def open(self, path: str, name: str, deadline: float) -> None:
        """HELLO and WELCOME. Raises ConnectionLost, Timeout."""
        try:
            # Blocking, but never for long in a send: the reader's wait has no end, so a timeout of the whole socket cannot do it.
            self.socket.setblocking(True)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 0, int(_SLICE_SECONDS * 1e6)))
            self.send(_wire.hello(name), deadline)
            while not self.session.welcomed:
                self.socket.settimeout(max(1e-3, left(deadline) or 0.0))
                try:
                    data = self.socket.recv(65536)
                except socket.timeout as error:
                    if is_foreign(error):
                        raise
                    raise TooLate from None
                if not data:
                    raise ConnectionLost(f"poold at {path} closed the connection before it welcomed us")
                self._take(data)
            self.socket.settimeout(None)
            threading.Thread(target=self._read, name="poold-client", daemon=True).start()
        except BaseException as error:
            self.over = True
            self.hang_up()  # its reader may have begun
            self.socket.close()
            if isinstance(error, TooLate):
                raise unsent(f"poold at {path} does not welcome us") from None
            if isinstance(error, (NotSent, _wire.WireError)) or isinstance(error, OSError) and not is_foreign(error):
                raise ConnectionLost(f"the connection to poold at {path} ended before the welcome: {error}") from None
            raise

    def send(self, data: bytes, deadline: Optional[float], is_call: bool = False) -> None:
        """Sends one frame whole, whatever other threads send; that of a call says what is left of its budget then. Raises NotSent: it did
        not leave whole. Any other exception comes from a signal handler; the frame may have left then, and the connection is over."""
        thread = threading.get_ident()
        if thread in self._senders:
            raise RuntimeError(NESTED)
        try:
            self._senders.add(thread)
            has_waited = not self._turn.acquire(blocking=False)
            while has_waited and not self._turn.acquire(timeout=_SLICE_SECONDS):
                self._check(deadline)
            try:
                if self.over:
                    raise NotSent("it is over")
                sent = 0
                while sent < len(data):
                    if has_waited and not sent and is_call and deadline is not None:
                        self._check(deadline)
                        data = _wire.with_time(data, max(1, int((deadline - time.monotonic()) * 1e9)))
                    try:
                        sent += self.socket.send(memoryview(data)[sent:] if sent else data)
                    except OSError as error:
                        if is_foreign(error):
                            raise
                        if error.errno in _OVER:
                            self.end(f"poold closed the connection ({error})")
                            raise NotSent(str(error)) from None
                        if not isinstance(error, BlockingIOError):
                            raise
                        has_waited = True
                        if not sent:
                            self._check(deadline)
                        elif deadline is not None and time.monotonic() > deadline + _FINISH_SECONDS:
                            self.end("a frame was cut off: poold does not read")
                            raise TooLate("poold stopped reading within the call") from None
            finally:
                self._turn.release()
        except NotSent:
            raise
        except BaseException:
            # Ctrl-C, or a signal's exception: what is out of the frame would be completed by the next caller's bytes. It may also
            # have struck when the turn was taken and not yet noted: those who wait for it see that the connection is over.
            self.end("a frame was cut off")
            raise
        finally:
            self._senders.discard(thread)

    def notify(self, data: bytes) -> None:
        """Sends a frame that is not worth waiting for."""
        try:
            self.send(data, time.monotonic() + _NOTICE_SECONDS)
        except (NotSent, RuntimeError):
            pass

    def _check(self, deadline: Optional[float]) -> None:
        if self.over:
            raise NotSent("it is over")
        if deadline is not None and time.monotonic() >= deadline:
            raise TooLate("poold does not read")

    def expect(self, call_id: int) -> Waiter:
        waiter = Waiter()
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
        """Its calls raise ConnectionLost."""
        with self._lock:
            self.over = True
            waiters, self._waiters = self._waiters, {}
        for waiter in waiters.values():
            waiter.error = ConnectionLost(reason)
            waiter.event.set()
        self.hang_up()

    def hang_up(self) -> None:
        """The reader does the rest. Takes no lock: a garbage collection calls it, wherever the thread is that it strikes."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def disown(self) -> None:
        """In a forked child: the connection is the parent's, so it is not shut down; the threads that held its locks are not here."""
        self.over = True
        self._lock, self._turn = threading.RLock(), threading.Lock()
        self.socket.close()

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
        finally:
            self.end(reason)
            self.socket.close()

    def _take(self, data: bytes) -> None:
        for kind, _, code, call_id, _, nanoseconds, body in self._decoder.feed(data):
            if kind in (_wire.RESULT, _wire.ERROR) and call_id:
                with self._lock:
                    waiter = self._waiters.pop(call_id, None)
                if waiter:
                    if kind == _wire.RESULT:
                        waiter.body = body
                    else:
                        waiter.error = of_frame(code, body, nanoseconds)
                    waiter.event.set()
            elif kind in (_wire.WELCOME, _wire.METHODS):
                self.session.learn(kind, body)
                self._decoder.limit = max(self._decoder.limit, self.session.largest)
            elif kind == _wire.ERROR:
                raise of_frame(code, body, nanoseconds)
            elif kind == _wire.PING:
                self.notify(_wire.frame(_wire.PONG, body, id=call_id, time=nanoseconds))
            elif kind == _wire.DRAIN:
                self.session.draining = True
