"""Messages of the control socket as dicts, by what control.proto says: so that tests need no protoc."""
import pathlib
import re
import struct

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto/poold/v1/control.proto"


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


def _read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def _default(kind):
    if kind in MESSAGES:
        return decode(kind, b"")
    return {"string": "", "bytes": b"", "double": 0.0, "bool": False}.get(kind, 0)


def _value(kind, raw):
    """A field's value of what stands on the wire: a number, or bytes."""
    if kind in MESSAGES:
        return decode(kind, raw)
    if kind == "string":
        return raw.decode()
    if kind == "bool":
        return bool(raw)
    if kind == "sint32":
        return raw >> 1 ^ -(raw & 1)
    return raw - (1 << 64) if kind in ("int32", "int64") and raw >> 63 else raw


def decode(message, data):
    """A message with every field, also those that are 0, under its name in the protocol. Fields that control.proto does not know are an error."""
    result, names = {}, {}
    for name, (number, kind, repeated) in MESSAGES[message].items():
        names[number] = name
        result[name] = {} if kind.startswith("map") else [] if repeated else _default(kind)
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        if key & 7 == 0:
            raw, at = _read_varint(data, at)
        elif key & 7 == 1:
            raw, at = struct.unpack_from("<d", data, at)[0], at + 8
        else:
            length, at = _read_varint(data, at)
            raw, at = data[at:at + length], at + length
        name = names[key >> 3]
        _, kind, repeated = MESSAGES[message][name]
        if kind.startswith("map"):
            entry = _entry(re.findall(r"\w+", kind)[1:], raw)
            result[name][entry[0]] = entry[1]
        elif repeated:
            result[name].append(_value(kind, raw))
        else:
            result[name] = _value(kind, raw)
    return result


def _entry(kinds, data):
    """Key and value of a map's entry."""
    entry, at = [_default(kind) for kind in kinds], 0
    while at < len(data):
        key, at = _read_varint(data, at)
        if key & 7 == 0:
            raw, at = _read_varint(data, at)
        else:
            length, at = _read_varint(data, at)
            raw, at = data[at:at + length], at + length
        entry[(key >> 3) - 1] = _value(kinds[(key >> 3) - 1], raw)
    return entry
