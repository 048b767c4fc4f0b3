"""What a call and a fork cost. Quote ratios of one run.

    taskset -c 1 python3 tests/measure.py loop [WORKER.py]   CPU of the worker for a call of 100 bytes, alone and in batches of 8;
                                                             WORKER.py: a bare worker (`fd N`, u32 length, u32 id) to compare with
    python3 tests/measure.py forks [COUNT]                   time to METHODS and private memory: forked and cold, importing numpy
"""
import os
import socket
import statistics
import struct
import subprocess
import sys
import time
from typing import Callable, Dict, List

from supervisor import PACKAGE, PYTHON, Template, Worker

EXAMPLES = PACKAGE / "examples"
BODY = b"x" * 100


def cpu(pid: int) -> int:
    """ns that a process's main thread has run."""
    with open(f"/proc/{pid}/schedstat") as stat:
        return int(stat.read().split()[0])


def per_call(connection: socket.socket, pid: int, make: Callable[[], bytes], size: int, depth: int, seconds: float) -> float:
    """µs of CPU."""
    calls, before, end = 0, cpu(pid), time.monotonic() + seconds
    while time.monotonic() < end:
        connection.sendall(b"".join([make() for _ in range(depth)]))
        missing = size * depth
        while missing:
            missing -= len(connection.recv(65536))
        calls += depth
    return (cpu(pid) - before) / calls / 1e3


def loop(connection: socket.socket, pid: int, make: Callable[[], bytes], size: int) -> str:
    found: Dict[int, List[float]] = {1: [], 8: []}
    for repeat in range(8):
        for depth, values in found.items():
            value = per_call(connection, pid, make, size, depth, 0.4)
            if repeat:
                values.append(value)
    return ", ".join(f"depth {depth}: {statistics.median(v):.2f} µs [{min(v):.2f}-{max(v):.2f}]" for depth, v in found.items())


def starts(count: int, make: Callable[[], Worker]) -> str:
    times, memory = [], []
    for _ in range(count):
        with make() as one:
            one.ready()
            times.append((time.monotonic() - one.began) * 1e3)
            with open(f"/proc/{one.pid}/smaps_rollup") as rollup:
                memory.append(sum(int(line.split()[1]) for line in rollup if line.startswith("Private_")))
    return f"ready in {statistics.median(times):.2f} ms [{min(times):.2f}-{max(times):.2f}], private {statistics.median(memory):.0f} KiB"


if sys.argv[1:2] == ["loop"]:
    if len(sys.argv) > 2:
        ours, theirs = socket.socketpair()
        bare = subprocess.Popen([PYTHON, sys.argv[2], "fd", str(theirs.fileno())], pass_fds=[theirs.fileno()], env={**os.environ, "WORKER_BATCH": "1"})
        theirs.close()
        print("bare ", loop(ours, bare.pid, lambda: struct.pack("<II", len(BODY), 1) + BODY, 108))
        ours.close()
        bare.wait()
    with Worker(str(EXAMPLES / "echo.py")) as one:
        one.ready()
        one.socket.settimeout(None)  # as the bare one: a driver that polls makes the worker pay for another kind of wake-up
        print("poold", loop(one.socket, one.pid, lambda: one.call_frame("handle", BODY, time.monotonic_ns() + 10**11), 132))
elif sys.argv[1:2] == ["forks"]:
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with Template(str(EXAMPLES / "vectors.py")) as template:
        print("forked", starts(count, lambda: Worker(template=template)))
    print("cold  ", starts(max(count // 4, 5), lambda: Worker(str(EXAMPLES / "vectors.py"))))
else:
    sys.exit(__doc__)
