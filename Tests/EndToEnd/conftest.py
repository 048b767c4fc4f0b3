"""Starts real poolds on private sockets and looks at them from outside."""
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("POOLD_BIN", ROOT / ".build/release"))
WORKERS = pathlib.Path(__file__).parent / "workers"
sys.path.insert(0, str(ROOT / "python"))

from messages import OPERATIONS, decode, encode  # noqa: E402
from poold import _wire  # noqa: E402
from poold.client import Client, PooldError  # noqa: E402


def alive(pid):
    """Whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


def wait_for(condition, seconds=10.0, what="condition"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {seconds} s")


#: operation → its messages
_OPERATIONS = {
    "CALLS": ("PoolFilter", "Calls"), "CANCEL": ("CancelRequest", "Done"), "SESSIONS": ("PoolFilter", "Sessions"), "STACK": ("PoolRequest", "Stacks"),
    "POST_MORTEM": ("PoolFilter", "Deaths"), "QUARANTINE": ("PoolFilter", "QuarantineList"), "CLEAR_QUARANTINE": ("QuarantineRequest", "Done"),
    "EVENTS": ("EventsRequest", "Events"), "KILL": ("PoolRequest", "Done"), "RECYCLE": ("PoolRequest", "Done"), "STATUS": ("PoolFilter", "Status"), "STATS": ("PoolFilter", "Stats"),
}


def operation(poold, name, request=None):
    """One operation on the control socket; its answer as a dict with every field. The one place that knows how. Raises PooldError."""
    asks, answers = _OPERATIONS[name]
    body = encode(asks, **(request or {}))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(poold.socket + ".control")
        connection.sendall(_wire.frame(_wire.CONTROL, body, code=OPERATIONS[name.lower()], id=1))
        decoder = _wire.Decoder(1 << 30)
        while True:
            data = connection.recv(1 << 20)
            assert data, "poold closed the control connection"
            for kind, _, code, _, _, _, body in decoder.feed(data):
                if kind == _wire.ERROR:
                    first, _, detail = body.decode().partition("\n")
                    raise PooldError(_wire.STATUS[code], first, detail)
                return decode(answers, body)


class Poold:
    def __init__(self, folder, *pools, workers=2, wait=True, options=(), limits=()):
        self.folder = folder
        self.socket = f"{folder}/s"
        self.log_path = f"{folder}/log"
        arguments = [str(BIN / "poold"), "serve", "--socket", self.socket, "--python", sys.executable, *options]
        if workers is not None:
            arguments += ["--workers", str(workers)]
        for pool in pools:
            name = pool if isinstance(pool, str) else pool[0]
            module = WORKERS / f"{pool}.py" if isinstance(pool, str) else pool[1]
            arguments += ["--pool", f"{name}={module}"]
        self.log_file = open(self.log_path, "ab")

        def limited():
            for kind, value in limits:
                resource.setrlimit(kind, (value, value))

        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=self.log_file, stderr=self.log_file, preexec_fn=limited)
        self.pid = self.process.pid
        if wait:
            try:
                wait_for(lambda: "accepting calls" in self.log() or self.process.poll() is not None, 15, "accepting calls")
            except AssertionError:
                self.stop()
                raise

    def log(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def client(self):
        return Client(self.socket)

    def ctl(self, *arguments, check=True):
        done = subprocess.run([str(BIN / "poolctl"), *arguments, "--socket", self.socket], capture_output=True, text=True, timeout=30)
        assert not check or done.returncode == 0, done.stderr
        return done

    def status(self):
        return json.loads(self.ctl("status", "--json").stdout)

    def pool(self, name):
        return next(p for p in self.status()["pools"] if p["name"] == name)

    def workers(self, name):
        return [w for w in self.pool(name).get("workers", []) if w["phase"] == "ready"]

    def full(self, name):
        """pids of a pool's workers once it has all that it wants: calls are let in when it has one."""
        wait_for(lambda: len(self.workers(name)) == self.pool(name)["wanted"], 20, "a full pool")
        return {w["pid"] for w in self.workers(name)}

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self):
        """Resident memory of poold itself in KiB."""
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    def children(self):
        """pids of all descendants."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat") as stat:
                        parents.setdefault(int(stat.read().rsplit(") ", 1)[1].split()[1]), []).append(int(entry))
                except OSError:
                    pass
        found = [self.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found[1:]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(5)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()
        self.log_file.close()


@pytest.fixture
def poold():
    """start("pool name", …) → Poold; stopped and removed at the end."""
    made = []

    def start(*pools, **options):
        folder = tempfile.mkdtemp(prefix="poold-test-", dir="/tmp")
        made.append(Poold(folder, *pools, **options))
        return made[-1]

    yield start
    for one in made:
        one.stop()
        shutil.rmtree(one.folder, ignore_errors=True)
