"""Speaks the protocol by itself on descriptor 3: answers calls of its method `echo`, and no PING."""
import socket
import struct
import sys

HEADER = struct.Struct(">IBBHQQQ")
HELLO, METHODS, CALL, RESULT = 1, 3, 4, 5


def frame(kind: int, body: bytes, flags: int = 0, number: int = 0, ran: int = 0) -> bytes:
    return HEADER.pack(28 + len(body), kind, flags, 0, number, 0, ran) + body


def receive(connection: socket.socket, size: int) -> bytes:
    data = connection.recv(size, socket.MSG_WAITALL) if size else b""
    if len(data) < size:
        sys.exit(0)
    return data


with socket.socket(fileno=3) as poold:
    poold.settimeout(None)
    if "poold._serve" not in sys.modules:
        poold.sendall(frame(HELLO, struct.pack(">HHI", 1, 1, 0) + b"\3raw"))
    # Under `python -m poold.worker` the library has said HELLO before it imports this.
    poold.sendall(frame(METHODS, struct.pack(">HHBB", 1, 1, 0, 0) + b"\4echo"))
    while True:
        length, kind, _, _, number, _, _ = HEADER.unpack(receive(poold, 32))
        body = receive(poold, length - 28)
        if kind == CALL:
            poold.sendall(frame(RESULT, body, 1, number, 1))
