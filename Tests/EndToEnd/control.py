"""The control socket from outside: CONTROL frames, and as much of protobuf as it takes to read an answer."""
import socket
import struct

from poold import _wire

STATS = 9

COUNTERS = {n + 1: (name, "int") for n, name in enumerate(
    "arrived refused results errors timeouts cancelled abandoned worker_lost dropped retried taken_back spawned start_failures deaths recycled kills".split())}
QUANTILES = {n + 1: (name, "double" if name == "mean" else "int") for n, name in enumerate(
    "count mean minimum p50 p90 p95 p99 p999 maximum".split())}
COUNT = {1: ("key", "text"), 2: ("value", "int")}
WINDOW = {
    1: ("name", "text"), 2: ("span", "int"), 3: ("counters", COUNTERS), 4: ("errors", "map"), 5: ("utilization", "double"),
    6: ("mean_queue_depth", "double"), 7: ("maximum_queue_depth", "int"), 8: ("throughput", "double"), 9: ("wait", QUANTILES),
    10: ("service", QUANTILES), 11: ("latency", QUANTILES), 12: ("worker_causes", "map"),
}
METHOD = {1: ("method", "text"), 2: ("results", "int"), 3: ("errors", "int"), 4: ("wait", QUANTILES), 5: ("service", QUANTILES), 6: ("latency", QUANTILES)}
POOL = {
    1: ("pool", "text"), 2: ("wanted", "int"), 3: ("workers", "map"), 4: ("queued_calls", "int"), 5: ("predicted_wait", "int"),
    6: ("windows", [WINDOW]), 7: ("methods", [METHOD]), 8: ("worker_causes", "map"),
}
ANSWER = {1: ("pools", [POOL])}


def _varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def decode(data, schema):
    """A message as a dict; fields that are not there are 0, empty or {}."""
    message = {}
    for name, kind in schema.values():
        if isinstance(kind, dict):
            message[name] = decode(b"", kind)
        else:
            message[name] = [] if isinstance(kind, list) else {"int": int, "double": float, "text": str, "map": dict}[kind]()
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        name, kind = schema[key >> 3]
        if key & 7 == 0:
            message[name], at = _varint(data, at)
        elif key & 7 == 1:
            message[name] = struct.unpack_from("<d", data, at)[0]
            at += 8
        else:
            length, at = _varint(data, at)
            part, at = data[at:at + length], at + length
            if kind == "text":
                message[name] = part.decode()
            elif kind == "map":
                entry = decode(part, COUNT)
                message[name][entry["key"]] = entry["value"]
            elif isinstance(kind, list):
                message[name].append(decode(part, kind[0]))
            else:
                message[name] = decode(part, kind)
    return message


def operate(path, code, body=b""):
    """One operation on the control socket of the poold whose callers' socket is at `path`; the answer's bytes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(path + ".control")
        connection.sendall(_wire.frame(_wire.CONTROL, body, code=code, id=1))
        stream = connection.makefile("rb")
        length, kind, *_ = _wire.HEADER.unpack(stream.read(_wire.HEADER_SIZE))
        answer = stream.read(length - _wire.EMPTY)
        assert kind == _wire.CONTROL, answer
        return answer


def stats(path, pool):
    """PoolStats of one pool; its windows by name, its methods by name."""
    name = pool.encode()
    (answer,) = decode(operate(path, STATS, b"\x0a" + bytes([len(name)]) + name), ANSWER)["pools"]
    answer["windows"] = {window["name"]: window for window in answer["windows"]}
    answer["methods"] = {method["method"]: method for method in answer["methods"]}
    return answer
