"""Workers killed under load: every call ends truthfully, none that began runs twice, nothing leaks."""
import collections
import os
import random
import signal
import threading
import time

from conftest import wait_for

from poold.client import Client, PooldError

KILLS = int(os.environ.get("POOLD_KILLS", "150"))


def test_kill_9_under_load(poold, tmp_path):
    folder = tmp_path / "ran"
    folder.mkdir()
    one = poold(("kills", _worker(tmp_path)), workers=4, options=["--window", "8", "--log-level", "warning"], wait=False)
    wait_for(lambda: _ready(one), 10, "workers")
    before = (one.descriptors(), len(one.children()))
    outcomes = collections.Counter()
    results, lost = set(), set()
    over = threading.Event()
    lock = threading.Lock()
    sequence = iter(range(1 << 40))

    def load():
        with Client(one.socket) as client:
            while not over.is_set():
                with lock:
                    number = next(sequence)
                try:
                    client.call("kills.mark", [number], timeout=20)
                    outcome, where = "result", results
                except PooldError as error:
                    outcome, where = error.status, lost
                with lock:
                    outcomes[outcome] += 1
                    where.add(number)

    threads = [threading.Thread(target=load) for _ in range(24)]
    for thread in threads:
        thread.start()
    chosen = random.Random(7)
    killed = 0
    end = time.monotonic() + 300
    while killed < KILLS and time.monotonic() < end:
        workers = one.workers("kills")
        if len(workers) >= 2:
            try:
                os.kill(workers[chosen.randrange(len(workers))]["pid"], signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
        time.sleep(chosen.random() * 0.06)
    over.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a call never ended"
    assert killed == KILLS
    assert set(outcomes) <= {"result", "worker_lost"}, outcomes
    runs = collections.Counter()
    for name in os.listdir(tmp_path):
        if name.startswith("ran-"):
            with open(tmp_path / name) as file:
                runs.update(int(line) for line in file if line.endswith("\n"))
    assert not [n for n, times in runs.items() if times > 1], "a call ran twice"
    assert not [n for n in results if runs[n] != 1], "a result without a run"
    wait_for(lambda: len(one.workers("kills")) == 4, what="four workers")
    counters = one.pool("kills")["counters"]
    assert int(counters["results"]) == outcomes["result"] and int(counters.get("workerLost", 0)) == outcomes["worker_lost"]
    wait_for(lambda: (one.descriptors(), len(one.children())) <= before, what=f"descriptors and processes as before: {before}")
    print(dict(outcomes), "kills", killed, "retaken", counters.get("takenBack", 0))


def _ready(one):
    try:
        return len(one.workers("kills")) == 4
    except (AssertionError, StopIteration):
        return False


def _worker(folder):
    path = folder / "kills.py"
    path.write_text(
        "import os\nfrom poold import worker\n"
        f"file = None\n"
        "@worker.setup\ndef load():\n    global file\n"
        f"    file = os.open({str(folder)!r} + f'/ran-{{os.getpid()}}', os.O_CREAT | os.O_APPEND | os.O_WRONLY)\n"
        "@worker.method\ndef mark(number):\n    os.write(file, b'%d\\n' % number)\n    return number\n")
    return path
