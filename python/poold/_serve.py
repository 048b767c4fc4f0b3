"""The serving loop of a worker (PROTOCOL.md, section 7)."""
import ctypes
import faulthandler
import mmap
import os
import platform
import signal
import socket
import struct
import sys
import time
import traceback

from poold import _registry, _wire
from poold._registry import BadArguments, Cancelled, Unencodable

SOCKET, PAGE, STACK = 3, 4, 5
PAGE_MAGIC = 0x31474150444C4F50
STARTED, RUNNING, SKIPPED, REVOKED = 1, 2, 3, 64
#: a batch of replies is sent when it has grown to this many bytes
BATCH_BYTES = 65536
#: a call that may take longer does not keep finished replies waiting, ns
SLOW = 1_000_000
SETUP_FAILED = 70
_HERE = os.path.dirname(os.path.abspath(__file__))


class _Stop(BaseException):
    """SIGTERM while waiting for a call."""


def register_membarrier():
    """Lets poold's expedited barrier reach this process; without it (old kernel) poold uses the slow one."""
    number = {"x86_64": 324, "aarch64": 283}.get(platform.machine())
    if number:
        ctypes.CDLL(None, use_errno=True).syscall(number, 4, 0, 0)


def describe(error, method):
    """First line and traceback of what a method raised, without this library's frames."""
    kind = type(error).__name__
    text = str(error).replace("\n", " ")
    first = f"{kind}: {text}" if text else kind
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_HERE):
        frames = frames.tb_next
    detail = "".join(traceback.format_exception(type(error), error, frames))
    return f"{first} (in method {method})\n{detail}".encode("utf-8", "backslashreplace")


def failure(error, method, limit):
    """(status, body) of an ERROR for what a call raised."""
    try:
        if isinstance(error, Cancelled):
            return 4, b"cancelled while it ran"
        if isinstance(error, BadArguments):
            return 11, str(error).encode("utf-8", "backslashreplace")
        if isinstance(error, Unencodable):
            return 21, str(error).encode("utf-8", "backslashreplace")
        return 1, describe(error, method)[:limit]
    except BaseException as second:  # a hostile __str__, no memory
        return 1, f"{type(error).__name__} (in method {method}; describing it raised {type(second).__name__})".encode()


def serve(sock, page, methods, limit=1 << 26):
    """Answers calls until DRAIN or end-of-file. Returns the exit status."""
    recv, sendall = sock.recv, sock.sendall
    unpack, pack = _wire.HEADER.unpack_from, _wire.HEADER.pack
    clock = time.monotonic_ns
    CALL = _wire.CALL
    data = b""
    have = 0
    outs = []
    pending = 0
    deadline = session = 0
    raised = 0
    waiting = stopping = False

    def remaining():
        return (deadline - clock()) / 1e9 if deadline else None

    _registry.remaining = remaining
    _registry.session = lambda: session

    def on_revoke(_signal, _frame):
        nonlocal raised
        number = page[RUNNING]
        if number and number != raised and page[REVOKED + (number & 63)] == number:
            raised = number
            raise Cancelled

    def on_terminate(_signal, _frame):
        nonlocal stopping
        stopping = True
        if waiting:
            raise _Stop

    signal.signal(signal.SIGUSR1, on_revoke)
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    while True:
        # Every whole frame that is there has been answered: say so, then wait.
        if outs:
            if pending > BATCH_BYTES:
                for part in outs:
                    sendall(part)
            else:
                sendall(outs[0] if len(outs) == 1 else b"".join(outs))
            outs.clear()
            pending = 0
        try:
            waiting = True
            if stopping:
                return 0
            more = recv(65536)
            waiting = False
        except _Stop:
            return 0
        except ConnectionError:
            return 0
        if not more:
            return 0
        data = data + more if have else more
        have = len(data)
        at = 0
        now = clock()
        while have - at >= 32:
            length, kind, flags, code, number, call_session, call_deadline = unpack(data, at)
            end = at + 4 + length
            if end > have:
                if length > limit + 28:
                    raise _wire.WireError(f"poold sent a frame of {length} bytes, the limit is {limit}")
                # A frame larger than one read: fetch the rest of it in one piece.
                parts = [data[at:]]
                missing = end - have
                try:
                    while missing:
                        more = recv(missing, socket.MSG_WAITALL)
                        if not more:
                            return 0
                        parts.append(more)
                        missing -= len(more)
                except ConnectionError:
                    return 0
                data = b"".join(parts)
                have = len(data)
                at = 0
                now = clock()
                continue
            if kind != CALL:
                if kind == _wire.PING:
                    outs.append(_wire.frame(_wire.PONG, data[at + 32:end], id=number, time=call_deadline))
                    pending += end - at
                elif kind == _wire.DRAIN:
                    if outs:
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

            # From here the call counts as begun, unless it is refused below.
            page[STARTED] = number
            if page[REVOKED + (number & 63)] == number or (call_deadline and now >= call_deadline):
                page[SKIPPED] += 1
                revoked = page[REVOKED + (number & 63)] == number
                text = b"revoked before it began" if revoked else b"expired before it began"
                outs.append(_wire.frame(_wire.ERROR, text, 1, 4 if revoked else 2, number))
                pending += 64
                at = end
                continue
            method = methods.get(code)
            if method is None:
                outs.append(_wire.frame(_wire.ERROR, f"this worker has no method number {code}".encode(), 1, 9, number))
                pending += 64
                at = end
                continue
            if outs and (method.slow or pending > BATCH_BYTES):
                sendall(b"".join(outs))
                outs.clear()
                pending = 0
                now = clock()
            deadline, session = call_deadline, call_session
            if flags & 2:
                start = at + 36 + struct.unpack_from(">I", data, at + 32)[0]
            else:
                start = at + 32
            error = None
            # Two frames of try: the inner one answers, the outer one catches a revocation that strikes while it does.
            try:
                try:
                    page[RUNNING] = number
                    result = method.invoke(data[start:end])
                    page[RUNNING] = 0
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
                method.slow = 256
            elif method.slow:
                method.slow -= 1
            if error is None:
                size = len(result)
                if size <= 65536:
                    outs.append(pack(28 + size, 5, 1, 0, number, 0, ran) + result)
                elif size <= limit:
                    outs.append(pack(28 + size, 5, 1, 0, number, 0, ran))
                    outs.append(result)
                else:
                    text = f"the result of {method.name} has {size} bytes, the connection's limit is {limit}"
                    outs.append(_wire.frame(_wire.ERROR, text.encode(), 1, 20, number, 0, ran))
                pending += size
                result = None
            else:
                status, body = failure(error, method.name, limit)
                error = None
                outs.append(_wire.frame(_wire.ERROR, body, 1, status, number, 0, max(ran, 1)))
                pending += len(body)
        if at:
            data = data[at:]
            have -= at


def open_page():
    """The execution page as words, checked for its magic."""
    page = memoryview(mmap.mmap(PAGE, 4096)).cast("Q")
    if page[0] != PAGE_MAGIC:
        raise RuntimeError(f"descriptor {PAGE} is not poold's execution page (magic {page[0]:#x}); start workers through poold")
    return page


def run(sock):
    """From an imported module to the end of the worker: set-up, METHODS, calls, tear-down."""
    page = open_page()
    register_membarrier()
    try:
        faulthandler.register(signal.SIGUSR2, file=STACK, all_threads=True, chain=False)
    except (OSError, ValueError, RuntimeError):
        pass  # no stack file: poold then has no stack to show
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.reconfigure(line_buffering=True)
        except (AttributeError, ValueError):
            pass
    try:
        for function in _registry.SETUP:
            function()
    except BaseException as error:
        return refuse(sock, error, "set-up")
    sock.sendall(_wire.frame(_wire.METHODS, _wire.methods(_registry.entries())))
    methods = {i + 1: m for i, m in enumerate(_registry.METHODS.values())}
    status = serve(sock, page, methods)
    for function in _registry.TEARDOWN:
        function()
    return status


def refuse(sock, error, phase):
    """Tells poold why this worker cannot serve."""
    text = f"{phase} failed: {type(error).__name__}: {error}".replace("\n", " ")
    detail = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    sys.stderr.write(detail)
    body = f"{text}\n{detail}".encode("utf-8", "backslashreplace")[:65536]
    try:
        sock.sendall(_wire.frame(_wire.ERROR, body, 1, 22))
    except OSError:
        pass
    return SETUP_FAILED


def greet(sock):
    sock.sendall(_wire.hello("python " + platform.python_version()))


def main(arguments):
    """Cold start: `python -m poold.worker MODULE`."""
    if len(arguments) != 1:
        print("usage: python -m poold.worker MODULE   (started by poold, which gives it descriptors 3 to 5)", file=sys.stderr)
        return 2
    try:
        sock = socket.socket(fileno=SOCKET)
    except OSError as error:
        print(f"poold.worker: descriptor {SOCKET} is not a socket ({error}); workers are started by poold", file=sys.stderr)
        return 2
    greet(sock)
    try:
        _registry.load(arguments[0])
    except BaseException as error:
        return refuse(sock, error, "import of " + arguments[0])
    return run(sock)
