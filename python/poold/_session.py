"""What both clients know of one connection: method numbers, encoding, decoding."""
import json
from typing import Any, Dict, Optional, Tuple

from poold import _wire


class Session:
    """One connection's methods and limits, as poold has told them."""

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

    def request(self, id: int, method: str, arguments: Any, timeout: Optional[float], session: int, priority: str, idempotent: bool,
                idempotency_key: Optional[str] = None) -> Tuple[bytes, Optional[int]]:
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
        if not number:
            flags |= _wire.NAMED
            body = _wire.short(method) + body
        if idempotency_key:
            flags |= _wire.META
            body = _wire.idempotency_metadata(idempotency_key) + body
        # With all that precedes the arguments, as poold counts.
        if len(body) > self.largest:
            raise ValueError(f"the call of {method} has {len(body)} bytes, poold takes {self.largest}")
        return _wire.frame(_wire.CALL, body, flags, number, id, session, budget), codec

    @staticmethod
    def result(codec: Optional[int], body: bytes) -> Any:
        if codec == 1:
            return json.loads(body)
        if codec == 2:
            import msgpack

            return msgpack.unpackb(body)
        return body
