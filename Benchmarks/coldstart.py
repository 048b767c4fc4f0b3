#!/usr/bin/env python3
"""A worker's start, from the template and from nothing: time to ready and private memory, for a module that imports numpy.

    Benchmarks/coldstart.py [COUNT]     medians over COUNT starts of each kind (default 20), one at a time, from poold's own log
"""
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = ROOT / ".build/release"
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 20
LINE = re.compile(r"^(\S+)Z \w+ worker changed .*phase=(spawning|ready) pid=(\d+) pool=vectors worker=(\S+)")


def private_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))


def measure(template):
    with tempfile.TemporaryDirectory(prefix="coldstart-") as folder:
        log = open(f"{folder}/log", "w")
        socket = f"{folder}/s"
        poold = subprocess.Popen([BIN / "poold", "serve", "--socket", socket, "--workers", "1", "--template", template, "--log-level", "debug",
                                  "--python", sys.executable, "--pool", f"vectors={ROOT}/python/examples/vectors.py"], stdout=log, stderr=log)
        try:
            def lines():
                with open(f"{folder}/log") as file:
                    return [m.groups() for m in map(LINE.match, file) if m]

            def wait(ready):
                end = time.monotonic() + 30
                while sum(1 for entry in lines() if entry[1] == "ready") < ready:
                    if time.monotonic() > end:
                        raise SystemExit("poold's workers did not become ready; see " + open(f"{folder}/log").read()[-2000:])
                    time.sleep(0.02)

            wait(1)
            for number in range(COUNT):
                subprocess.run([BIN / "poolctl", "scale", "vectors", str(number + 2), "--socket", socket], check=True, stdout=subprocess.DEVNULL)
                wait(number + 2)
            began, spans, memory = {}, [], []
            for stamp, phase, pid, worker in lines():
                at = datetime.fromisoformat(stamp).timestamp()
                if phase == "spawning":
                    began[worker] = at
                else:
                    spans.append((at - began[worker]) * 1e3)
                    memory.append(private_kib(pid))
            return spans[1:], memory[1:]
        finally:
            poold.send_signal(signal.SIGTERM)
            poold.wait(30)


os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
results = {}
for kind, template in (("template", "on"), ("cold", "off")):
    spans, memory = measure(template)
    results[kind] = (statistics.median(spans), statistics.median(memory))
    print(f"{kind:9} ready in {statistics.median(spans):7.2f} ms [{min(spans):.2f}-{max(spans):.2f}], private memory {statistics.median(memory):8.0f} KiB")
print(f"ratio     {results['template'][0] / results['cold'][0]:.3f} of the time, {results['template'][1] / results['cold'][1]:.3f} of the memory")
