"""A control socket that answers what a test wants, well or badly: shapes that a healthy poold does not show."""
import pathlib
import re
import socket
import struct
import threading

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto/poold/v1/control.proto"
HEADER = struct.Struct(">IBBHQQQ")
CONTROL, ERROR = 14, 7


def _schema():
    """Messages and operations of control.proto: {message: {field: (number, type, repeated)}}, {operation: number}."""
    text = re.sub(r"//[^\n]*", "", PROTO.read_text())
    messages = {}
    for name, body in re.findall(r"message (\w+) \{(.*?)\}", text, re.S):
        fields = re.findall(r"(repeated )?(map<\w+, \w+>|\w+) (\w+) = (\d+);", body)
        messages[name] = {field: (int(number), kind, bool(repeated)) for repeated, kind, field, number in fields}
    operations = {name.lower(): int(number) for name, number in re.findall(r"OPERATION_(\w+) = (\d+);", text)}
    return messages, operations


MESSAGES, OPERATIONS = _schema()


def _varint(number):
    number &= (1 << 64) - 1
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _field(number, kind, value):
    if kind in ("string", "bytes"):
        raw = value.encode() if isinstance(value, str) else value
        return _varint(number << 3 | 2) + _varint(len(raw)) + raw
    if kind == "double":
        return _varint(number << 3 | 1) + struct.pack("<d", value)
    if kind == "sint32":
        return _varint(number << 3) + _varint(value << 1 ^ value >> 31)
    if kind in MESSAGES:
        raw = encode(kind, **value)
        return _varint(number << 3 | 2) + _varint(len(raw)) + raw
    return _varint(number << 3) + _varint(int(value))


def encode(message, /, **fields):
    """A message of control.proto in protobuf's encoding; nested ones are dicts."""
    out = b""
    for name, value in fields.items():
        number, kind, repeated = MESSAGES[message][name]
        if kind.startswith("map"):
            key, inner = re.findall(r"\w+", kind)[1:]
            for k, v in value.items():
                entry = _field(1, key, k) + _field(2, inner, v)
                out += _varint(number << 3 | 2) + _varint(len(entry)) + entry
        else:
            for one in value if repeated else [value]:
                out += _field(number, kind, one)
    return out


def full(message, /, **overrides):
    """A message with something in every field; `reserved` pools alone are not, since people are not shown those."""
    fields = {}
    for name, (_, kind, repeated) in MESSAGES[message].items():
        if kind.startswith("map"):
            value = {"one": "two words" if kind.endswith("string>") else 12}
        else:
            value = full(kind) if kind in MESSAGES else 0.75 if kind == "double" else f"some_{name}" if kind == "string" else 1 if kind == "bool" else 1_234_567
            value = [value] if repeated else value
        fields[name] = value
    fields.pop("reserved", None)
    return {**fields, **overrides}


class FakeControl:
    """answers: operation → message bytes, or ("error", status, text), "hang", "close", or raw bytes as ("raw", bytes)."""

    def __init__(self, path, answers):
        self.answers = {OPERATIONS[name]: answer for name, answer in answers.items()}
        self.asked = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.kept = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            self.kept.append(peer)
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer):
        stream = peer.makefile("rb")
        while True:
            head = stream.read(HEADER.size)
            if len(head) < HEADER.size:
                return
            length, _, _, code, number, _, _ = HEADER.unpack(head)
            self.asked.append((code, stream.read(length - 28)))
            answer = self.answers.get(code, ("error", 11, f"operation {code} does not exist"))
            if callable(answer):
                answer = answer()
            if answer == "hang":
                continue
            if answer == "close":
                peer.shutdown(socket.SHUT_RDWR)
                return
            kind, status, body = CONTROL, code, answer
            if isinstance(answer, tuple) and answer[0] == "raw":
                peer.sendall(answer[1])
                continue
            if isinstance(answer, tuple):
                kind, status, body = ERROR, answer[1], answer[2].encode()
            peer.sendall(HEADER.pack(28 + len(body), kind, 1 if kind == ERROR else 0, status, number, 0, 0) + body)

    def close(self):
        self.listener.close()
        for peer in self.kept:
            peer.close()
