"""The serving loop of a worker (PROTOCOL.md, section 7)."""
import ctypes
import faulthandler
import mmap
import os
import signal
import socket
import struct
import sys
import time
import traceback
from types import FrameType
from typing import Any, Dict, List, Optional, Tuple

from poold import _process, _registry, _stacks, _warm, _wire
from poold._registry import BadArguments, Cancelled, Method, Unencodable

SOCKET, PAGE, STACK = 3, 4, 5
PAGE_MAGIC = 0x31474150444C4F50
#: words of the execution page
STARTED, RUNNING, SKIPPED, STACK_WANTED, STACK_DONE, REVOKED = 1, 2, 3, 4, 5, 64
#: a batch of replies is sent when it has grown to this many bytes; a longer body is sent from where it lies
BATCH_BYTES = 65536
#: bytes asked for in one read
READ_BYTES = 65536
#: a call that may take longer does not keep finished replies waiting, ns
SLOW = 1_000_000
#: so many quick calls in a row, and a method that was slow once counts as quick again
SLOW_MEMORY = 256
#: exit status: import, set-up or warming failed
SETUP_FAILED = 70
#: exit status: poold sent what the protocol does not allow
PROTOCOL_FAULT = 76
_HERE = os.path.dirname(os.path.abspath(__file__))


class _Stop(BaseException):
    """SIGTERM while waiting for a call."""


class _Ended(Exception):
    """poold is gone, or has closed the socket."""


def describe(error: BaseException, method: str) -> bytes:
    """First line and traceback of what a method raised, without this library's frames."""
    kind = type(error).__name__
    text = str(error).replace("\n", " ")
    first = f"{kind}: {text}" if text else kind
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    detail = "".join(traceback.format_exception(type(error), error, frames))
    return f"{first} (in method {method})\n{detail}".encode("utf-8", "backslashreplace")


def failure(error: BaseException, method: str, limit: int) -> Tuple[int, bytes]:
    """(status, body) of an ERROR for what a call raised."""
    try:
        if isinstance(error, Cancelled):
            return 4, b"cancelled while it ran"
        if isinstance(error, BadArguments):
            return 11, str(error).encode("utf-8", "backslashreplace")[:limit]
        if isinstance(error, Unencodable):
            return 21, str(error).encode("utf-8", "backslashreplace")[:limit]
        return 1, describe(error, method)[:limit]
    except BaseException as second:  # a hostile __str__, no memory
        return 1, f"{type(error).__name__} (in method {method}; describing it raised {type(second).__name__})".encode()


def _empty_bytes(size: int) -> Tuple[bytes, Any]:
    """A bytes object to be filled before anyone else sees it, and a writable view of it: a large body is received in place."""
    payload = _new_bytes(None, size)
    return payload, memoryview((ctypes.c_char * size).from_address(_address_of(payload))).cast("B")


_new_bytes: Any = None
try:
    _new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
    _new_bytes.restype, _new_bytes.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t)
    _address_of = ctypes.pythonapi.PyBytes_AsString
    _address_of.restype, _address_of.argtypes = ctypes.c_void_p, (ctypes.py_object,)
except AttributeError:
    pass  # not CPython


def _receive_rest(sock: socket.socket, beginning: bytes, size: int) -> bytes:
    """A body of `size` bytes that begins with `beginning`; the rest comes from the socket. 16 MiB: 2 ms, by recv and join 14 ms."""
    have = len(beginning)
    if _new_bytes is None:
        parts = [beginning]
        while have < size:
            more = sock.recv(size - have, socket.MSG_WAITALL)
            if not more:
                raise _Ended
            parts.append(more)
            have += len(more)
        return b"".join(parts)
    payload, view = _empty_bytes(size)
    view[:have] = beginning
    while have < size:
        count = sock.recv_into(view[have:], 0, socket.MSG_WAITALL)
        if not count:
            raise _Ended
        have += count
    return payload


def _send_large(sock: socket.socket, before: bytes, body: bytes) -> None:
    """Sends both without joining them."""
    sent = sock.sendmsg((before, body)) - len(before)
    if sent < 0:
        sock.sendall(before[sent:])
        sent = 0
    if sent < len(body):
        sock.sendall(memoryview(body)[sent:])


def _payload_start(data: bytes, at: int, end: int, flags: int) -> int:
    """Where the payload of a CALL begins that is not the plain kind. Raises WireError."""
    if flags & ~0xD3 or not flags & 1:
        raise _wire.WireError(f"a CALL to a worker has flags 0x{flags:x}; streams, memfds and names were not agreed")
    if not flags & 2:
        return at + 32
    if end - at < 36:
        raise _wire.WireError("the metadata of a CALL ends inside its length")
    start: int = at + 36 + struct.unpack_from(">I", data, at + 32)[0]
    if start > end:
        raise _wire.WireError(f"the metadata of a CALL goes {start - end} bytes beyond its frame")
    return start


def serve(sock: socket.socket, page: Any, methods: Dict[int, Method]) -> int:
    """Says that the worker is ready and answers calls until DRAIN, SIGTERM or end-of-file; returns the exit status. Raises
    WireError for what poold must not send."""
    recv, sendall = sock.recv, sock.sendall
    unpack, pack = _wire.HEADER.unpack_from, _wire.HEADER.pack
    clock = time.monotonic_ns
    CALL = _wire.CALL
    data = b""
    have = 0
    outs: List[bytes] = []
    pending = 0
    limit = 1 << 20
    deadline = session = 0
    interrupted = 0
    waiting = stopping = False

    def remaining() -> Optional[float]:
        return (deadline - clock()) / 1e9 if deadline else None

    _registry.remaining = remaining
    _registry.session = lambda: session

    def on_revoke(_signal: int, frame: Optional[FrameType]) -> None:
        # A stack first: it shows where the call ran before the interruption unwinds it.
        wanted = page[STACK_WANTED]
        if wanted != page[STACK_DONE]:
            try:
                _stacks.append(STACK, frame)
            finally:
                page[STACK_DONE] = wanted
        # Only into the call that is revoked, and once. `running` is 0 in the loop's own code, so it is never struck.
        nonlocal interrupted
        number = page[RUNNING]
        if number and number != interrupted and page[REVOKED + (number & 63)] == number:
            interrupted = number
            raise Cancelled

    def on_terminate(_signal: int, _frame: Optional[FrameType]) -> None:
        # A running call ends first; a wait for the next one does not go on. A second signal must not strike the clean-up.
        nonlocal stopping, waiting
        stopping = True
        if waiting:
            waiting = False
            raise _Stop

    signal.signal(signal.SIGUSR1, on_revoke)
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    try:
        # After the handlers are in place: poold may signal a ready worker at any time.
        sendall(_wire.frame(_wire.METHODS, _wire.methods(_registry.entries())))
        while True:
            # Every whole frame that is there has been answered: say so, then wait.
            if outs:
                sendall(outs[0] if len(outs) == 1 else b"".join(outs))
                outs.clear()
                pending = 0
            waiting = True
            if stopping:
                return 0
            if have >= 32 and (size := unpack(data)[0] - 28) > READ_BYTES:
                # A body larger than a read comes in one piece, into the object that the method will get.
                if size > limit:
                    raise _wire.WireError(f"poold sent a body of {size} bytes, the limit is {limit}")
                body = _receive_rest(sock, data[32:], size)
                data = data[:32]
                have = 32 + size
            else:
                body = None
                more = recv(READ_BYTES)
                if not more:
                    waiting = False
                    return 0
                data = data + more if have else more
                have = len(data)
            waiting = False
            at = 0
            now = clock()
            while have - at >= 32:
                # Straight into what `remaining` and `session` read: a copy for each call is time.
                length, kind, flags, code, number, session, deadline = unpack(data, at)
                end = at + 4 + length
                if end > have:
                    break
                if kind != CALL or length < 28:
                    if length < 28:
                        raise _wire.WireError(f"poold sent a frame of length {length}, below 28, the rest of a header")
                    if body is not None or flags:
                        raise _wire.WireError(f"poold sent frame type {kind} with {length - 28} bytes and flags 0x{flags:x}")
                    if kind == _wire.PING:
                        outs.append(_wire.frame(_wire.PONG, data[at + 32:end], id=number, time=deadline))
                        pending += length
                    elif kind == _wire.DRAIN:
                        sendall(b"".join(outs))
                        return 0
                    elif kind == _wire.WELCOME:
                        version, _, _, limit, _ = _wire.parse_welcome(data[at + 32:end])
                        if version != 1:
                            raise _wire.WireError(f"poold chose protocol version {version}; this worker speaks 1")
                    else:
                        raise _wire.WireError(f"poold sent frame type {kind}, which a worker does not take")
                    at = end
                    continue
                if stopping:
                    # What was sent ahead has not begun, the page says so: poold gives it to another worker.
                    sendall(b"".join(outs))
                    return 0

                # From here the call counts as begun, unless it is refused below. The store comes before both checks.
                page[STARTED] = number
                # Read once: poold clears the mark of a call that it takes for begun, perhaps between two looks.
                revoked = page[REVOKED + (number & 63)] == number
                if revoked or 0 < deadline <= now:
                    page[SKIPPED] += 1
                    if revoked:
                        outs.append(_wire.frame(_wire.ERROR, b"revoked before it began", 1, 4, number))
                    else:
                        outs.append(_wire.frame(_wire.ERROR, b"expired before it began", 1, 2, number))
                    pending += 64
                    at = end
                    continue
                try:
                    method = methods[code]
                except KeyError:
                    outs.append(_wire.frame(_wire.ERROR, f"this worker has no method number {code}".encode(), 1, 9, number))
                    pending += 64
                    at = end
                    continue
                if outs and (method.slow or pending > BATCH_BYTES):
                    sendall(b"".join(outs))
                    outs.clear()
                    pending = 0
                    now = clock()
                start = at + 32
                if flags & 0x2F != 1:
                    start = _payload_start(data if body is None else data + body[:4], at, end, flags)
                if body is None:
                    payload = data[start:end]
                else:
                    payload = body if start == 32 else body[start - 32:]
                    body = None
                invoke = method.invoke
                error = None
                # Two frames of try: the inner one answers, the outer one catches a revocation that strikes while it does.
                try:
                    try:
                        page[RUNNING] = number
                        result = invoke(payload)
                        page[RUNNING] = 0
                        if result.__class__ is not bytes:
                            result = _registry.to_bytes(result, method.name)
                    except BaseException as caught:
                        page[RUNNING] = 0
                        error = caught
                except Cancelled as caught:
                    page[RUNNING] = 0
                    error = caught
                at = end
                then = clock()
                ran = then - now
                now = then
                if ran > SLOW:
                    method.slow = SLOW_MEMORY
                elif method.slow:
                    method.slow -= 1
                if error is None:
                    size = len(result)
                    if size <= BATCH_BYTES:
                        outs.append(pack(28 + size, 5, 1, 0, number, 0, ran) + result)
                        pending += size
                    elif size <= limit:
                        outs.append(pack(28 + size, 5, 1, 0, number, 0, ran))
                        _send_large(sock, b"".join(outs), result)
                        outs.clear()
                        pending = 0
                        now = clock()
                    else:
                        text = f"the result of {method.name} has {size} bytes, the connection's limit is {limit}".encode()
                        outs.append(_wire.frame(_wire.ERROR, text, 1, 20, number, 0, max(ran, 1)))
                    # Nothing of a call is kept while the next one is awaited.
                    result = payload = b""
                else:
                    status, text = failure(error, _registry.full_name(method.name), min(limit, BATCH_BYTES))
                    error = None
                    result = payload = b""
                    outs.append(_wire.frame(_wire.ERROR, text, 1, status, number, 0, max(ran, 1)))
                    pending += len(text)
            if at:
                data = data[at:]
                have = len(data)
    except _wire.WireError:
        waiting = False
        if outs:
            sendall(b"".join(outs))  # what was answered stays answered
        raise
    except (_Stop, _Ended, ConnectionError):
        return 0
    finally:
        waiting = False


def open_page() -> Any:
    """The execution page as words, checked for its magic. Raises OSError, RuntimeError."""
    page = memoryview(mmap.mmap(PAGE, 4096)).cast("Q")
    if page[0] != PAGE_MAGIC:
        raise RuntimeError(f"descriptor {PAGE} is not poold's execution page (magic {page[0]:#x}); start workers through poold")
    return page


def line_buffer_output() -> None:
    """poold's log takes lines: a print must not wait for a full buffer."""
    streams: List[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        try:
            stream.reconfigure(line_buffering=True)
        except (AttributeError, ValueError):
            pass  # the application has put something else there


def register_stack_dump() -> None:
    """SIGUSR2, or a crash, appends the stacks of all threads to poold's stack file, also while C code holds the GIL. Called again
    after set-up: what a library has installed there must not hide where a worker hangs."""
    try:
        faulthandler.enable(file=STACK, all_threads=True)
        faulthandler.register(signal.SIGUSR2, file=STACK, all_threads=True, chain=False)
    except (OSError, ValueError, RuntimeError):
        pass  # no stack file: poold then has no stack to show


def run(sock: socket.socket) -> int:
    """From an imported module to the end of the worker: set-up, warming, METHODS, calls, tear-down. Returns the exit status."""
    _process.set_name(f"{os.environ.get('POOLD_POOL', 'poold')}/{os.environ.get('POOLD_SLOT', '0')}")
    _process.register_membarrier()
    register_stack_dump()
    try:
        page = open_page()
        for function in _registry.SETUP:
            function()
    except BaseException as error:
        return refuse(sock, error, "set-up")
    register_stack_dump()
    try:
        _warm.before_ready()
    except BaseException as error:
        return refuse(sock, error, "warming")
    methods = {i + 1: m for i, m in enumerate(_registry.METHODS.values())}
    methods[_warm.METHOD_NUMBER] = Method(_warm.METHOD_NAME, "json", False, _warm.again)
    try:
        status = serve(sock, page, methods)
    except _wire.WireError as fault:
        print(f"poold.worker: {fault}; the worker ends", file=sys.stderr)
        try:
            sock.sendall(_wire.frame(_wire.ERROR, str(fault).encode("utf-8", "replace"), 1, 12))
        except OSError:
            pass
        status = PROTOCOL_FAULT
    for function in _registry.TEARDOWN:
        try:
            function()
        except BaseException:
            traceback.print_exc()
    return status


def refuse(sock: socket.socket, error: BaseException, phase: str) -> int:
    """Tells poold why this worker cannot serve; returns the exit status."""
    try:
        text = f"{phase} failed: {type(error).__name__}: {error}".replace("\n", " ")
        detail = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException as second:
        text, detail = f"{phase} failed: {type(error).__name__} (describing it raised {type(second).__name__})", ""
    try:
        sys.stderr.write(detail)
        sock.sendall(_wire.frame(_wire.ERROR, f"{text}\n{detail}".encode("utf-8", "backslashreplace")[:65536], 1, 22))
    except OSError:
        pass
    return SETUP_FAILED


def greet(sock: socket.socket) -> None:
    """HELLO."""
    sock.sendall(_wire.hello("python " + sys.version.split()[0]))


def main(arguments: List[str]) -> int:
    """Cold start: `python -m poold.worker MODULE`. Returns the exit status."""
    if len(arguments) != 1:
        print("usage: python -m poold.worker MODULE   (started by poold, which gives it descriptors 3 to 5)", file=sys.stderr)
        return 2
    try:
        sock = socket.socket(fileno=SOCKET)
    except OSError as error:
        print(f"poold.worker: descriptor {SOCKET} is not a socket ({error}); workers are started by poold", file=sys.stderr)
        return 2
    # Descriptors 3 to 5 are this process's alone: a program that a method starts must not hold the socket open.
    for descriptor in (SOCKET, PAGE, STACK):
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            pass  # its absence is told where it is used
    line_buffer_output()
    _process.die_with_parent()
    register_stack_dump()
    try:
        greet(sock)
        _registry.load(arguments[0])
    except ConnectionError:
        return 0
    except BaseException as error:
        return refuse(sock, error, "import of " + arguments[0])
    return run(sock)
