"""What a peer can make poold hold is bounded, and what is large arrives whole."""
import concurrent.futures
import hashlib
import os
import random
import resource
import signal
import socket
import struct
import threading
import time

import pytest
from conftest import alive, wait_for
from test_faults import connect, named, read_frames

from poold import _wire
from poold.client import Client, PooldError


def call(number, body, id, flags=_wire.END):
    return _wire.frame(_wire.CALL, body, flags, number, id)


def greeted(poold):
    """(connection, method numbers by name)"""
    connection = connect(poold)
    connection.sendall(_wire.hello("test"))
    welcome = read_frames(connection, 1)[0]
    return connection, {name: number for number, _, _, name in _wire.parse_welcome(welcome[6])[4]}


def fill(connection, data):
    """Sends as much as poold takes; returns how many bytes."""
    connection.settimeout(1)
    sent = 0
    try:
        while sent < len(data):
            sent += connection.send(data[sent:sent + (1 << 20)])
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        pass
    connection.settimeout(20)
    return sent


# ---- memory and descriptors run out

def test_a_length_above_memory_ends_its_connection_alone(poold):
    one = poold("basic", limits=[(resource.RLIMIT_AS, 2 << 30)])
    held = []
    for length in (0xFFFFFFFF, 0x7FFFFFFF, 100 << 20):
        for count in (4, 5, 20, 31):
            held.append(connect(one))
            held[-1].sendall(struct.pack(">IBBHQQQ", length, 4, 1, 1, 1, 0, 0)[:count])
    # Each of these is allowed, all of them together exceed the memory that poold may map.
    for _ in range(60):
        connection, numbers = greeted(one)
        held.append(connection)
        connection.sendall(struct.pack(">IBBHQQQ", 28 + (60 << 20), 4, 1, numbers["basic.raw"], 1, 0, 0))
    refused = [f for c in held[-10:] for f in read_frames(c, 1)]
    assert refused and all(_wire.STATUS[f[2]] == "quota_exceeded" and b"no memory" in f[6] for f in refused)
    for connection in held:
        connection.close()
    with one.client() as client:
        assert client.call("basic.echo", [1]) == 1
        assert len(client.call("basic.raw", b"x" * (32 << 20), timeout=20)) == 32 << 20


def test_callers_cannot_take_the_descriptors_of_workers(poold):
    one = poold("basic", limits=[(resource.RLIMIT_NOFILE, 100)])
    crowd = []
    for _ in range(150):
        crowd.append(connect(one))
    wait_for(lambda: "connection refused" in one.log(), what="refusals")
    assert one.log().count("connection refused") <= 40, "callers fill the log"
    for worker in one.workers("basic"):
        os.kill(worker["pid"], signal.SIGKILL)
    wait_for(lambda: len(one.workers("basic")) == 2, 5, "new workers")
    for connection in crowd:
        connection.close()
    with one.client() as client:
        assert client.call("basic.echo", [1], timeout=5) == 1


def test_workers_that_cannot_be_made_are_tried_again(poold):
    """A start that fails at once, while the effects of another are carried out."""
    one = poold("basic", limits=[(resource.RLIMIT_NOFILE, 50)], options=["--template", "off"])
    one.ctl("scale", "basic", "30")
    wait_for(lambda: "no descriptors for a worker" in one.log() or "could not be spawned" in one.log(), 15, "a failed start")
    time.sleep(0.5)
    assert one.process.poll() is None
    # No descriptor is left, but an operator gets in.
    one.ctl("scale", "basic", "1")
    wait_for(lambda: len(one.workers("basic")) == 1, 10, "one worker")
    with one.client() as client:
        assert client.call("basic.echo", [1], timeout=20) == 1


def test_a_crowd_that_leaves_in_the_middle_of_large_frames(poold):
    one = poold("basic")
    before = one.resident()
    for _ in range(40):
        connection, numbers = greeted(one)
        connection.sendall(call(numbers["basic.raw"], b"x" * (2 << 20), 1)[:1 << 20])
        connection.close()
    with one.client() as client:
        assert client.call("basic.echo", [1]) == 1
    assert one.resident() < before + 40_000


def test_a_template_that_hangs_is_ended_and_workers_start_cold(poold):
    one = poold("hangs_in_template", options=["--start-timeout", "1"])
    with one.client() as client:
        assert client.call("hangs_in_template.answer", timeout=10) == 42
    assert "did not answer within 1s" in one.log()


def test_a_template_that_stops_answering_is_ended(poold):
    one = poold("basic", options=["--start-timeout", "1"])
    os.kill(one.pool("basic")["templatePid"], signal.SIGSTOP)
    one.ctl("scale", "basic", "4")
    wait_for(lambda: len(one.workers("basic")) == 4, 10, "workers in spite of the template")
    assert "did not answer within 1s" in one.log()


def guard_of(one):
    for pid in one.children():
        try:
            with open(f"/proc/{pid}/comm") as comm:
                if comm.read() == "poold-guard\n":
                    return pid
        except OSError:
            pass


def test_a_killed_guard_is_replaced(poold):
    one = poold("misbehaves", workers=1)
    with one.client() as client:
        child = client.call("misbehaves.forks", ["popen"])
        for number in range(1, 4):  # also one that was started only just now
            os.kill(wait_for(lambda: guard_of(one), 5, "a guard"), signal.SIGKILL)
            wait_for(lambda: one.log().count("was replaced") == number, 5, what="another guard")
        one.process.kill()
        one.process.wait()
        wait_for(lambda: not alive(child), 2, "the grandchild's end")


def test_a_guard_that_replaces_another_keeps_no_bodies(poold):
    """It is a copy of a poold at work, but for its memory."""
    one = poold("basic", workers=1)
    with one.client() as client, concurrent.futures.ThreadPoolExecutor(80) as threads:
        busy = threads.submit(client.call, "basic.sleep", [8.0], timeout=60)
        wait_for(lambda: one.workers("basic")[0].get("outstanding"), 5, "a busy worker")
        ends = [threads.submit(client.call, "basic.echo", ["x" * 900_000], timeout=60) for _ in range(40)]
        wait_for(lambda: one.resident() > 40_000, 6, "bodies that wait")
        os.kill(guard_of(one), signal.SIGKILL)
        wait_for(lambda: "was replaced" in one.log(), 5, "another guard")

        replacement = wait_for(lambda: guard_of(one), 5, "its name")

        def anonymous():
            with open(f"/proc/{replacement}/smaps_rollup") as rollup:
                return next(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))

        wait_for(lambda: anonymous() < 4096, 5, "a small guard")
        assert busy.result() == "slept" and all(len(end.result()) == 900_000 for end in ends)


def test_a_log_that_nobody_reads_holds_up_nothing(poold, tmp_path):
    import subprocess
    import sys

    from conftest import BIN, WORKERS

    path = str(tmp_path / "s")
    process = subprocess.Popen(
        [str(BIN / "poold"), "serve", "--socket", path, "--pool", f"misbehaves={WORKERS}/misbehaves.py", "--python", sys.executable, "--workers", "1"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: os.path.exists(path), 10, "poold")
        with Client(path) as client:
            # Its lines fill the pipe and more.
            assert client.call("misbehaves.floods", timeout=20) == "flooded"
            assert client.call("misbehaves.echo", [1], timeout=5) == 1
    finally:
        process.terminate()
        text = process.communicate(timeout=20)[1]
    assert process.returncode == 0 and len(text) > 65_536


# ---- clients that do not read

def test_replies_that_are_not_read_stall_the_calls_and_none_is_lost(poold):
    one = poold("basic")
    connection, numbers = greeted(one)
    rounds, size = 900, 60_000
    # One burst: more replies than a client may leave unread, larger and smaller ones in turn.
    burst = b"".join(call(numbers["basic.raw"], bytes([i % 251]) * (size if i % 3 else 50), i + 1) for i in range(rounds))
    sender = threading.Thread(target=connection.sendall, args=(burst,))
    sender.start()
    time.sleep(1)
    assert one.resident() < 200_000
    with one.client() as client:
        assert client.call("basic.echo", [1], timeout=5) == 1
    connection.settimeout(30)
    frames = read_frames(connection, rounds)
    sender.join()
    assert sorted(f[3] for f in frames) == list(range(1, rounds + 1))
    for frame in frames:
        i = frame[3] - 1
        assert frame[0] == _wire.RESULT and frame[6] == bytes([i % 251]) * (size if i % 3 else 50)


@pytest.mark.parametrize("kind", ["ping", "unknown names", "unknown numbers"])
def test_a_flood_of_small_questions_is_bounded_and_answered(poold, kind):
    one = poold("basic")
    with connect(one) as connection:
        frame = {"ping": _wire.frame(_wire.PING, b"p" * 1000, id=7), "unknown names": named("basic.nothing" + "g" * 100, id=7), "unknown numbers": call(9999, b"", 7)}[kind]
        count = (64 << 20) // len(frame)
        sent = fill(connection, frame * count)
        assert sent < 40 << 20, "poold took everything"
        assert one.resident() < 150_000
        whole = sent // len(frame)
        got, decoder = 0, _wire.Decoder(1 << 20)
        while got < whole:
            data = connection.recv(1 << 20)
            assert data
            for reply in decoder.feed(data):
                assert reply[0] in (_wire.PONG, _wire.ERROR) and reply[3] == 7
                got += 1


def test_who_never_reads_is_let_go(poold):
    one = poold("basic")
    connection, numbers = greeted(one)
    connection.sendall(b"".join(call(numbers["basic.large"], b"[1000000]", i + 1) for i in range(800)))
    wait_for(lambda: "its replies are not read" in one.log(), 30, "the end of the connection")
    with one.client() as client:
        assert client.call("basic.echo", [1], timeout=10) == 1
    wait_for(lambda: one.resident() < 150_000, 10, "memory given back")
    connection.close()


# ---- large bodies

def test_bodies_of_all_sizes_arrive_whole(poold):
    one = poold("basic", workers=3)
    sizes = [0, 1, 31, 223, 224, 225, 16_351, 16_352, 16_353, 16_384, 16_385, 65_503, 65_504, 65_505, 65_536, 262_112, 262_144, 262_145, 1 << 20, 5_000_000]
    failures = []

    def caller(seed):
        chosen = random.Random(seed)
        try:
            with Client(one.socket) as client:
                for size in chosen.sample(sizes, len(sizes)):
                    body = chosen.randbytes(size)
                    if client.call("basic.raw", body, timeout=30) != body:
                        failures.append((seed, size))
        except PooldError as error:
            failures.append((seed, error))

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_large_and_small_bodies_of_one_connection_in_any_order(poold):
    one = poold("basic", workers=3)
    connection, numbers = greeted(one)
    connection.settimeout(30)
    chosen = random.Random(3)
    bodies = {i: chosen.randbytes(chosen.choice([10, 100, 20_000, 70_000, 300_000])) for i in range(1, 401)}
    stream = b"".join(call(numbers["basic.raw"], body, id) for id, body in bodies.items())

    def send():
        at = 0
        while at < len(stream):
            step = chosen.choice([1, 7, 31, 33, 5_000, 200_000, 1 << 20])
            connection.sendall(stream[at:at + step])
            at += step

    sender = threading.Thread(target=send)
    sender.start()
    frames = read_frames(connection, len(bodies))
    sender.join()
    assert {f[3]: hashlib.sha256(f[6]).digest() for f in frames} == {id: hashlib.sha256(body).digest() for id, body in bodies.items()}


def test_large_bodies_survive_cancelling_and_killing_around_them(poold):
    """A block is held by a call and a worker's queue at once; whichever lets go first must not free it."""
    one = poold("basic", workers=2)
    over = time.monotonic() + 6
    wrong, ends = [], []

    def caller(seed):
        chosen = random.Random(seed)
        with Client(one.socket) as client:
            while time.monotonic() < over:
                body = chosen.randbytes(chosen.choice([100, 20_000, 400_000, 3_000_000]))
                try:
                    if client.call("basic.raw", body, timeout=chosen.choice([0.0005, 0.003, 0.02, 5]), idempotent=seed % 2 == 0) != body:
                        wrong.append(seed)
                    ends.append("result")
                except PooldError as error:
                    ends.append(error.status)

    def vanisher():
        chosen = random.Random(99)
        while time.monotonic() < over:
            connection, numbers = greeted(one)
            connection.settimeout(0.05)
            try:
                connection.sendall(call(numbers["basic.raw"], b"v" * chosen.choice([20_000, 2_000_000]), 1) + _wire.frame(_wire.CANCEL, id=1))
            except (TimeoutError, OSError):
                pass
            connection.close()

    threads = [threading.Thread(target=caller, args=(seed,)) for seed in range(6)] + [threading.Thread(target=vanisher)]
    for thread in threads:
        thread.start()
    while time.monotonic() < over - 1:
        time.sleep(0.3)
        for worker in one.workers("basic")[:1]:
            os.kill(worker["pid"], signal.SIGKILL)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong and ends.count("result") > 20
    assert set(ends) <= {"result", "timeout_waiting", "timeout_running", "overloaded", "worker_lost", "pool_unavailable"}, set(ends)
    assert alive(one.pid)
    with one.client() as client:
        assert wait_for(lambda: _echoes(client), 15, "a worker")


def _echoes(client):
    try:
        return client.call("basic.echo", [1], timeout=5) == 1
    except PooldError:
        return False


# ---- limits before and after HELLO

def test_without_hello_a_body_may_have_a_mebibyte(poold):
    one = poold("basic")
    name = len(_wire.short("basic.raw"))
    with connect(one) as connection:
        connection.sendall(named("basic.raw", b"x" * ((1 << 20) - name)))
        assert len(read_frames(connection, 1)[0][6]) == (1 << 20) - name
        connection.sendall(named("basic.large", b"[2000000]", id=2))
        reply = read_frames(connection, 1)[0]
        assert (reply[3], _wire.STATUS[reply[2]]) == (2, "result_too_large")
        connection.sendall(named("basic.raw", b"x" * ((1 << 20) - name + 1), id=3)[:1000])
        reply = read_frames(connection)[0]
        assert _wire.STATUS[reply[2]] == "frame_too_large" and b"after HELLO it is 67108864" in reply[6]


def test_meta_and_name_before_a_large_payload(poold):
    one = poold("basic")
    meta = struct.pack(">I", 9) + b"\x0a\x07tenant1"
    for size in (10, 50_000, 500_000):
        body = os.urandom(size)
        with connect(one) as connection:
            connection.sendall(_wire.frame(_wire.CALL, meta + _wire.short("basic.raw") + body, _wire.END | _wire.NAMED | _wire.META, 0, 1))
            assert read_frames(connection, 1)[0][6] == body


# ---- anything at all

@pytest.mark.parametrize("seed", range(int(os.environ.get("POOLD_FUZZ_SEEDS", "4"))))
def test_mutated_frames_never_end_poold(poold, seed):
    one = poold("basic", options=["--log-level", "notice"])
    chosen = random.Random(seed)
    sound = [
        _wire.hello("fuzz"), named("basic.echo", b"[1]"), named("basic.raw", b"x" * 20_000, id=2), named("basic.sleep", b"[0.001]", id=3),
        call(1, b"[2]", 4), _wire.frame(_wire.CANCEL, id=3), _wire.frame(_wire.PING, b"p", id=5),
        _wire.frame(_wire.CALL, struct.pack(">I", 3) + b"abc" + _wire.short("basic.raw") + b"y" * 100, _wire.END | _wire.NAMED | _wire.META, 0, 6),
        _wire.frame(_wire.CALL, b"[1]", _wire.END | _wire.IDEMPOTENT | 0x40, 1, 7, 9, 1_000_000), _wire.frame(_wire.CONTROL, b"\x08\x01", code=1),
    ]
    for _ in range(300):
        stream = bytearray(b"".join(chosen.choice(sound) for _ in range(chosen.randint(1, 12))))
        for _ in range(chosen.choice([0, 0, 1, 1, 3, 20])):
            at = chosen.randrange(min(len(stream), 400))
            match chosen.randrange(4):
                case 0: stream[at] = chosen.randrange(256)
                case 1: stream[at] ^= 1 << chosen.randrange(8)
                case 2: del stream[at:at + chosen.randint(1, 40)]
                case 3: stream[at:at] = chosen.randbytes(chosen.randint(1, 40))
            if not stream:
                break
        path = one.socket + chosen.choice(["", "", "", ".control"])
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(chosen.choice([0.001, 0.01]))
            try:
                connection.connect(path)
                cut = chosen.randint(0, len(stream))
                connection.sendall(stream[:cut])
                connection.sendall(stream[cut:])
                connection.recv(65536)
            except OSError:
                pass
    assert alive(one.pid), one.log()[-3000:]
    with one.client() as client:
        assert wait_for(lambda: _echoes(client), 10, "an answer")
    one.ctl("status")
