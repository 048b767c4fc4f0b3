"""What `stats` counts, beside what a client counted itself: under load, with workers that die, budgets that end, cancels and refusals."""
import collections
import os
import random
import re
import signal
import socket
import threading
import time

import control
from conftest import wait_for
from poold import _wire
from poold.client import Client, PooldError

WINDOWS = ["start", "1m", "5m", "15m"]
#: who ends a call so, and where it is counted
GROUPS = {
    "result": "results", "application_error": "errors", "bad_arguments": "errors", "timeout_waiting": "timeouts", "timeout_running": "timeouts",
    "cancelled": "cancelled", "worker_lost": "worker_lost", "overloaded": "refused", "draining": "refused", "pool_unavailable": "refused",
    "quarantined": "refused",
}


def start(poold, workers, *options):
    one = poold("basic", workers=workers, options=["--log-level", "error", *options], wait=False)
    wait_for(lambda: os.path.exists(one.socket) and len(one.workers("basic")) == workers, 60, "workers")
    return one


def check(stats):
    """What holds of every answer."""
    assert list(stats["windows"]) == WINDOWS
    longer = None
    for name in reversed(["1m", "5m", "15m", "start"]):
        window = stats["windows"][name]
        counted = window["counters"]
        waited = sum(counted[field] for field in ("results", "errors", "timeouts", "worker_lost", "dropped"))
        assert window["latency"]["count"] == window["wait"]["count"] == waited
        assert window["service"]["count"] >= counted["results"] + counted["errors"]
        assert sum(n for kind, n in window["errors"].items() if kind.startswith("refused.")) == counted["refused"]
        assert 0 <= window["utilization"] <= 1
        for kind in ("wait", "service", "latency"):
            q = window[kind]
            assert q["minimum"] <= q["p50"] <= q["p90"] <= q["p95"] <= q["p99"] <= q["p999"] <= q["maximum"], q
        if longer:
            assert window["span"] <= longer["span"]
            assert all(counted[field] <= longer["counters"][field] for field in counted)
            assert window["latency"]["count"] <= longer["latency"]["count"]
        longer = window
    for kind in ("wait", "service", "latency"):
        assert sum(m[kind]["count"] for m in stats["methods"].values()) == stats["windows"]["start"][kind]["count"]


class Raw:
    """One connection with its own ids, for CANCEL."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.stream = self.socket.makefile("rb")
        self.id = 0

    def cancelled_call(self, method, body):
        self.id += 1
        call = _wire.frame(_wire.CALL, _wire.short(method) + body, _wire.END | _wire.NAMED, 0, self.id, 0, 30_000_000_000)
        self.socket.sendall(call + _wire.frame(_wire.CANCEL, id=self.id))
        length, kind, _, code, got, _, _ = _wire.HEADER.unpack(self.stream.read(_wire.HEADER_SIZE))
        self.stream.read(length - _wire.EMPTY)
        assert got == self.id
        return "result" if kind == _wire.RESULT else _wire.STATUS[code]


def test_counts_are_those_of_the_client(poold):
    one = start(poold, 3)
    counts = collections.Counter()
    methods = collections.defaultdict(collections.Counter)
    lock = threading.Lock()
    over = threading.Event()

    def note(method, status):
        with lock:
            counts[status] += 1
            methods[method][status] += 1

    def load(seed):
        chosen = random.Random(seed)
        raw = Raw(one.socket)
        with Client(one.socket) as client:
            while not over.is_set():
                method, arguments, timeout = chosen.choice([
                    ("echo", [1], 30), ("echo", ["x" * 500], 30), ("fail", ["no"], 30), ("sleep", [0.003], 30), ("sleep", [0.5], 0.02),
                    ("echo", [2], 0.0005), ("die", [], 30), ("cancel", [], 30),
                ] if chosen.random() < 0.3 else [("echo", [seed], 30)])
                if method == "cancel":
                    note("sleep", raw.cancelled_call("basic.sleep", b"[0.05]"))
                    continue
                try:
                    client.call("basic." + method, arguments, timeout=timeout)
                    status = "result"
                except PooldError as error:
                    status = error.status
                note(method, status)

    threads = [threading.Thread(target=load, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 6
    chosen = random.Random(3)
    while time.monotonic() < end:
        check(control.stats(one.socket, "basic"))
        for worker in one.workers("basic")[:1]:
            try:
                os.kill(worker["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.2 + chosen.random() * 0.3)
    one.ctl("drain", "basic")
    wait_for(lambda: counts["draining"] > 20, 20, "refusals")
    over.set()
    for thread in threads:
        thread.join(90)
        assert not thread.is_alive(), "a call never ended"

    stats = control.stats(one.socket, "basic")
    check(stats)
    for name in WINDOWS:
        assert stats["windows"][name]["counters"] == stats["windows"]["start"]["counters"], "all of it was in the last minute"
    window = stats["windows"]["start"]
    expected = collections.Counter()
    for status, count in counts.items():
        expected[GROUPS[status]] += count
    counted = window["counters"]
    assert counted["arrived"] == sum(counts.values())
    for group in ("results", "errors", "timeouts", "cancelled", "worker_lost"):
        assert counted[group] == expected[group], (group, counted, counts)
    assert counted["refused"] + counted["dropped"] == expected["refused"], (counted, counts)
    assert counts["timeout_running"] == window["errors"].get("timeoutRunning", 0)
    assert counts["timeout_waiting"] == window["errors"].get("timeoutWaiting", 0)
    assert counts["quarantined"] == window["errors"].get("refused.quarantined", 0)
    for method, own in methods.items():
        said = stats["methods"].get(method, {"results": 0, "errors": 0})
        assert said["results"] == own["result"] and said["errors"] == own["application_error"], (method, own, said)
    for status in ("result", "application_error", "timeout_running", "cancelled", "worker_lost", "draining"):
        assert counts[status] > 0, f"the load made no {status}: {counts}"

    causes = stats["worker_causes"]
    assert causes["crashed"] >= 1 and causes == window["worker_causes"]
    alive = sum(stats["workers"].values())
    departed = sum(n for cause, n in causes.items() if cause not in ("wanted", "replaced", "becameReady"))
    assert causes["wanted"] + causes.get("replaced", 0) == alive + departed


def test_utilization_queue_and_percentiles_of_a_known_load(poold):
    one = start(poold, 2)
    with Client(one.socket) as client:
        client.call("basic.echo", [1])
        threads = [threading.Thread(target=client.call, args=("basic.sleep", [0.4])) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    stats = control.stats(one.socket, "basic")
    ready = sum(int(worker["ageNanoseconds"]) for worker in one.workers("basic"))
    check(stats)
    window = stats["windows"]["start"]
    busy = window["utilization"] * ready / 1e9
    assert 1.9 < busy < 3.5, f"five calls of 0.4 s kept workers busy for {busy} s"
    assert window["maximum_queue_depth"] == 3
    # Two waited for one turn, one for two; the first two for nothing.
    depth = window["mean_queue_depth"] * window["span"] / 1e9
    assert 1.4 < depth < 3.5, f"calls waited for {depth} s"
    own = stats["methods"]["sleep"]
    assert own["results"] == 5 and own["errors"] == 0
    assert 0.39e9 < own["service"]["minimum"] <= own["service"]["p50"] < 0.6e9
    assert own["wait"]["minimum"] < 0.1e9 and 0.75e9 < own["wait"]["maximum"] < 2e9
    assert 0.39e9 < own["latency"]["minimum"] and 1.15e9 < own["latency"]["p99"] < 3e9
    assert stats["windows"]["1m"]["throughput"] > 0
    assert stats["workers"] == {"ready": 2}


def test_causes_of_a_recycling(poold):
    one = start(poold, 2)
    one.ctl("recycle", "basic")
    wait_for(lambda: control.stats(one.socket, "basic")["worker_causes"].get("operatorRecycle") == 2, 30, "two recycled workers")
    causes = control.stats(one.socket, "basic")["worker_causes"]
    assert causes["wanted"] == 2 and causes["replaced"] == 2 and causes["becameReady"] >= 3


def test_summary_and_status(poold):
    one = start(poold, 2)
    assert re.fullmatch(r"1 pool, 2/2 workers ready, 0 queued", one.status()["summary"])
    with Client(one.socket) as client:
        for _ in range(50):
            client.call("basic.sleep", [0.002])
    status = one.status()
    assert re.fullmatch(r"1 pool, 2/2 workers ready, 0 queued, p99 [\d.]+ (µs|ms|s)", status["summary"]), status["summary"]
    pool = status["pools"][0]
    assert pool["maximumWorkers"] >= 2
    assert [worker["cause"] for worker in pool["workers"]] == ["becameReady"] * 2
    assert sorted(method["number"] for method in pool["methods"]) == list(range(1, len(pool["methods"]) + 1))
