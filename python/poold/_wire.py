"""Frames of the poold protocol, version 1 (proto/PROTOCOL.md)."""
import struct
from typing import Iterator, List, Sequence, Tuple

#: (type, flags, code, id, session, time, body)
Frame = Tuple[int, int, int, int, int, int, bytes]
#: (number, codec, flags, name)
Entry = Tuple[int, int, int, str]

#: length, type, flags, code, id, session, time
HEADER = struct.Struct(">IBBHQQQ")
HEADER_SIZE = 32
EMPTY = 28  # value of `length` for an empty body

HELLO, WELCOME, METHODS, CALL, RESULT, CHUNK, ERROR, CANCEL, WINDOW, RELEASE, PING, PONG, DRAIN, CONTROL = range(1, 15)
END, META, MEMFD, NAMED, IDEMPOTENT, RESERVED = 1, 2, 4, 8, 16, 32
PRIORITIES = {"normal": 0, "high": 1, "low": 2}
ALLOWED_FLAGS = {CALL: 0xDF, RESULT: END | META | MEMFD, CHUNK: END | MEMFD, ERROR: END}

STATUS = {
    1: "application_error", 2: "timeout_waiting", 3: "timeout_running", 4: "cancelled", 5: "overloaded", 6: "worker_lost",
    7: "draining", 8: "no_such_pool", 9: "no_such_method", 10: "method_gone", 11: "bad_arguments", 12: "bad_frame",
    13: "frame_too_large", 14: "unsupported_version", 15: "permission_denied", 16: "quota_exceeded", 17: "quarantined",
    18: "pool_unavailable", 19: "session_lost", 20: "result_too_large", 21: "result_unencodable", 22: "setup_failed",
    23: "internal",
}
STATUS_NUMBER = {name: number for number, name in STATUS.items()}

CODECS = {"bytes": 0, "json": 1, "msgpack": 2}


class WireError(Exception):
    """A peer sent what the protocol does not allow."""


def frame(kind: int, body: bytes = b"", flags: int = 0, code: int = 0, id: int = 0, session: int = 0, time: int = 0) -> bytes:
    """One whole frame as bytes."""
    return HEADER.pack(EMPTY + len(body), kind, flags, code, id, session, time) + body


def with_time(frame: bytes, time: int) -> bytes:
    """The same frame with another `time`."""
    return b"".join((memoryview(frame)[:24], time.to_bytes(8, "big"), memoryview(frame)[HEADER_SIZE:]))


def check(length: int, kind: int, flags: int, limit: int) -> None:
    """Raises WireError for a header that version 1 does not allow."""
    if length < EMPTY:
        raise WireError(f"frame length {length} is below 28, the rest of a header")
    if length - EMPTY > limit:
        raise WireError(f"a body of {length - EMPTY} bytes exceeds this connection's limit of {limit}")
    if not 1 <= kind <= 14:
        raise WireError(f"frame type {kind} is unknown; version 1 has 1 to 14")
    if flags & ~ALLOWED_FLAGS.get(kind, 0):
        raise WireError(f"flags 0x{flags:x} are not allowed on frame type {kind}")
    if flags >> 6 == 3:
        raise WireError("priority 3 does not exist: 0 normal, 1 high, 2 low")


class Decoder:
    """Collects bytes until frames are whole; bounded by the limit on bodies."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields (kind, flags, code, id, session, time, body) for each frame that is whole now. Raises WireError."""
        self._buffer += data
        buffer = self._buffer
        at = 0
        try:
            while len(buffer) - at >= HEADER_SIZE:
                length, kind, flags, code, id, session, time = HEADER.unpack_from(buffer, at)
                check(length, kind, flags, self.limit)
                end = at + 4 + length
                if end > len(buffer):
                    break
                body = bytes(buffer[at + HEADER_SIZE:end])
                at = end
                yield kind, flags, code, id, session, time, body
        finally:
            del buffer[:at]


def short(text: str) -> bytes:
    """A length byte and UTF-8, cut to 255 bytes at a character."""
    data = text.encode()[:255].decode("utf-8", "ignore").encode()
    return bytes((len(data),)) + data


def hello(name: str, lowest: int = 1, highest: int = 1, features: int = 0) -> bytes:
    """A whole HELLO frame."""
    return frame(HELLO, struct.pack(">HHI", lowest, highest, features) + short(name))


def idempotency_metadata(key: str) -> bytes:
    """The META part of a CALL that carries only an idempotency key (poold/v1/meta.proto, field 5). Raises ValueError."""
    data = key.encode()
    if len(data) > 1024:
        raise ValueError(f"an idempotency key has at most 1024 bytes, not {len(data)}")
    length = bytes((len(data),)) if len(data) < 128 else bytes((len(data) & 127 | 128, len(data) >> 7))
    return struct.pack(">I", 1 + len(length) + len(data)) + b"\x2a" + length + data


def parse_welcome(body: bytes) -> Tuple[int, int, int, int, List[Entry]]:
    """(version, calls, features, largest body in bytes, methods). Raises WireError."""
    if len(body) < 16:
        raise WireError(f"WELCOME has {len(body)} bytes, at least 18 are needed")
    version, calls, features, largest, reserved = struct.unpack_from(">HHIII", body)
    if reserved:
        raise WireError(f"the reserved field of WELCOME is {reserved}, not 0")
    return version, calls, features, largest, parse_methods(body[16:])


def parse_methods(body: bytes) -> List[Entry]:
    """What a method list holds. Raises WireError."""
    if len(body) < 2:
        raise WireError("the method list ends before its count")
    (count,) = struct.unpack_from(">H", body)
    at, out = 2, []
    for _ in range(count):
        if len(body) - at < 5:
            raise WireError(f"the method list ends inside an entry at offset {at}")
        number, codec, flags, length = struct.unpack_from(">HBBB", body, at)
        if number == 0 or codec > 2 or flags & ~3 or length == 0:
            raise WireError(f"the method list has number {number}, codec {codec}, flags 0x{flags:x} and a name of {length} bytes at offset {at}")
        name = body[at + 5:at + 5 + length]
        if len(name) != length:
            raise WireError(f"the method list ends inside a name at offset {at}")
        try:
            out.append((number, codec, flags, name.decode()))
        except UnicodeDecodeError as error:
            raise WireError(f"a method's name at offset {at} is not UTF-8: {error}") from None
        at += 5 + length
    if at != len(body):
        raise WireError(f"the method list goes on after its last entry at offset {at}")
    return out


def methods(entries: Sequence[Entry]) -> bytes:
    """Body of METHODS from [(number, codec, flags, name)]."""
    return struct.pack(">H", len(entries)) + b"".join(struct.pack(">HBB", n, c, f) + short(name) for n, c, f, name in entries)
