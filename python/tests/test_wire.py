"""The same golden bytes as the Swift tests."""
import json
import pathlib
import struct

import pytest

from poold import _wire

VECTORS = json.loads((pathlib.Path(__file__).parents[2] / "proto/vectors/version1.json").read_text())
GOOD = [v for v in VECTORS["frames"] if "frame" in v]
BAD = [v for v in VECTORS["frames"] if "fault" in v]


@pytest.mark.parametrize("vector", GOOD, ids=lambda v: v["name"])
def test_frames(vector):
    f = vector["frame"]
    (found,) = _wire.Decoder(1 << 20).feed(bytes.fromhex(vector["hex"]))
    assert found == (f["type"], f["flags"], f["code"], int(f["id"]), int(f["session"]), int(f["time"]), bytes.fromhex(f["body"]))
    kind, flags, code, id, session, time, body = found
    assert _wire.frame(kind, body, flags, code, id, session, time).hex() == vector["hex"]


@pytest.mark.parametrize("vector", BAD, ids=lambda v: v["name"])
def test_faults(vector):
    with pytest.raises(_wire.WireError):
        list(_wire.Decoder(vector["limit"]).feed(bytes.fromhex(vector["hex"])))


def test_any_split():
    stream = b"".join(bytes.fromhex(v["hex"]) for v in GOOD)
    for piece in (1, 7, 32, 33, len(stream)):
        decoder, found = _wire.Decoder(1 << 20), []
        for at in range(0, len(stream), piece):
            found += decoder.feed(stream[at:at + piece])
        assert len(found) == len(GOOD)


@pytest.mark.parametrize("vector", [v for v in VECTORS["bodies"] if v["valid"]], ids=lambda v: v["type"] + " " + v["name"])
def test_bodies(vector):
    body = bytes.fromhex(vector["hex"])
    if vector["type"] == "methods":
        assert _wire.methods(_wire.parse_methods(body)) == body
    elif vector["type"] == "welcome":
        version, calls, features, largest, methods = _wire.parse_welcome(body)
        assert struct.pack(">HHIII", version, calls, features, largest, 0) + _wire.methods(methods) == body


@pytest.mark.parametrize("vector", [v for v in VECTORS["bodies"] if not v["valid"] and v["type"] in ("methods", "welcome")],
                         ids=lambda v: v["type"] + " " + v["name"])
def test_bad_bodies(vector):
    with pytest.raises(_wire.WireError):
        (_wire.parse_methods if vector["type"] == "methods" else _wire.parse_welcome)(bytes.fromhex(vector["hex"]))


def test_any_cut_of_a_body_is_a_wire_error():
    whole = struct.pack(">HHIII", 1, 64, 0, 1 << 20, 0) + _wire.methods([(1, 0, 0, "ä"), (2, 1, 2, "b")])
    _wire.parse_welcome(whole)
    for cut in range(len(whole)):
        with pytest.raises(_wire.WireError):
            _wire.parse_welcome(whole[:cut])
