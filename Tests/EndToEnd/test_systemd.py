"""poold under a real systemd, with the units of deploy/: Tests/Systemd/with-systemd.sh boots it. Skipped where that cannot be."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from conftest import BIN, ROOT, WORKERS, wait_for

from poold.client import Client, PooldError

# Seconds; the shipped unit's 30 would make the tests long.
WATCHDOG = 5

AGENT = """
import json, subprocess, sys
print("up", flush=True)
for line in sys.stdin:
    done = subprocess.run(json.loads(line), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)
"""

DROP_IN = """
[Service]
ExecStart=
ExecStart={bin}/poold serve --socket {folder}/s --pool basic={workers}/basic.py --workers 2 --hang-after 600 --health 0 --python {python}
WatchdogSec={watchdog}
# A stopped process does not take SIGABRT.
TimeoutAbortSec=1
RestartSec=100ms
"""


class Systemd:
    def __init__(self):
        if str(ROOT).startswith("/tmp/"):
            pytest.skip("the namespace that systemd boots in has a /tmp of its own: it needs a checkout outside of /tmp")
        self.folder = tempfile.mkdtemp(prefix="poold-systemd-", dir="/tmp")
        self.socket = f"{self.folder}/s"
        units = pathlib.Path(self.folder) / "units"
        units.mkdir()
        for unit in ("poold.service", "poold.socket", "poold-control.socket"):
            shutil.copy(ROOT / "deploy/systemd" / unit, units)
        self.drop_in(units, "poold.service", DROP_IN.format(bin=BIN, folder=self.folder, workers=WORKERS, python=sys.executable, watchdog=WATCHDOG))
        self.drop_in(units, "poold.socket", f"[Socket]\nListenStream=\nListenStream={self.socket}\n")
        self.drop_in(units, "poold-control.socket", f"[Socket]\nListenStream=\nListenStream={self.socket}.control\n")
        self.process = subprocess.Popen(
            [str(ROOT / "Tests/Systemd/with-systemd.sh"), "-u", str(units), "-b", self.folder, "--", sys.executable, "-u", "-c", AGENT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "up\n":
            reason = self.process.communicate()[1]
            shutil.rmtree(self.folder, ignore_errors=True)
            assert self.process.returncode == 77, reason
            pytest.skip(reason.strip().splitlines()[-1])

    @staticmethod
    def drop_in(units, unit, text):
        folder = units / f"{unit}.d"
        folder.mkdir()
        (folder / "test.conf").write_text(text)

    def run(self, *arguments, check=True):
        """Runs a command inside; its output."""
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        status, output, errors = json.loads(self.process.stdout.readline())
        assert status == 0 or not check, f"{arguments}: {output}{errors}"
        return output

    def show(self, name, unit="poold.service"):
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def journal(self):
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", "poold.service")

    def ctl(self, *arguments):
        return subprocess.run([str(BIN / "poolctl"), *arguments, "--socket", self.socket], capture_output=True, text=True, timeout=30)

    def pool(self, name):
        done = self.ctl("status", "--json")
        return next((pool for pool in json.loads(done.stdout)["pools"] if pool["name"] == name), {}) if done.returncode == 0 else {}

    def ready(self, name):
        """pids inside of the pool's ready workers."""
        return [worker["pid"] for worker in self.pool(name).get("workers", []) if worker["phase"] == "ready"]

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def systemd():
    one = Systemd()
    yield one
    one.stop()


@pytest.fixture
def service(systemd):
    """The service, running."""
    systemd.run("systemctl", "reset-failed", "poold.service", check=False)
    systemd.run("systemctl", "start", "poold.service")
    yield systemd
    systemd.run("systemctl", "stop", "poold.service", check=False)


def test_start_waits_for_the_workers_and_the_status_says_so(service):
    assert service.show("ActiveState") == "active"
    assert service.show("StatusText").startswith("1 pool, ")
    wait_for(lambda: "2/2 workers ready" in service.show("StatusText"), 30, "status")
    with Client(service.socket) as client:
        assert client.call("basic.echo", {"value": 1}) == 1
    assert len(service.ready("poold-canary")) == 1


def test_the_journal_knows_levels(service):
    lines = [json.loads(line) for line in service.run("journalctl", "--no-pager", "-o", "json", "-u", "poold.service").splitlines()]
    line = next(line for line in lines if "accepting calls" in line["MESSAGE"])
    assert line["PRIORITY"] == "5" and line["MESSAGE"].startswith("notice accepting calls"), "its priority, and no second time"


def test_the_watchdog_restarts_a_wedged_poold(service):
    service.run("systemctl", "kill", "--signal=STOP", "--kill-who=main", "poold.service")
    wait_for(lambda: service.show("NRestarts") != "0", 6 * WATCHDOG, "restart")
    wait_for(lambda: service.show("ActiveState") == "active" and service.show("SubState") == "running", 40, "running again")
    with Client(service.socket) as client:
        assert client.call("basic.echo", {"value": 2}) == 2
    assert "Watchdog timeout" in service.run("journalctl", "--no-pager", "-o", "cat", "-b")


def test_a_lost_canary_restarts_nothing(service):
    main = service.show("MainPID")
    for how in ("KILL", "STOP"):
        before = wait_for(lambda: service.ready("poold-canary"), 30, "canary")
        service.run("kill", f"-{how}", str(before[0]))
        wait_for(lambda: service.ready("poold-canary") not in ([], before), 30, "another canary")
    # Until the watchdog would have come.
    end = time.monotonic() + WATCHDOG + 1
    wait_for(lambda: time.monotonic() > end, WATCHDOG + 5)
    assert service.show("MainPID") == main and service.show("NRestarts") == "0"


def test_a_hung_user_pool_restarts_nothing(service):
    workers = wait_for(lambda: len(service.ready("basic")) == 2 and service.ready("basic"), 30, "workers")
    main = service.show("MainPID")
    for pid in workers:
        service.run("kill", "-STOP", str(pid))
    with Client(service.socket) as client, pytest.raises(PooldError):
        client.call("basic.echo", timeout=0.2)
    wait_for(lambda: "stuck workers" in service.show("StatusText"), 20, "status")
    assert service.pool("basic")["health"] == "degraded"
    end = time.monotonic() + WATCHDOG + 1
    wait_for(lambda: time.monotonic() > end, WATCHDOG + 5)
    assert service.show("MainPID") == main and service.show("NRestarts") == "0"
    for pid in workers:
        service.run("kill", "-KILL", str(pid))


def test_reload(service):
    if "  reload " not in subprocess.run([str(BIN / "poolctl"), "--help"], capture_output=True, text=True).stdout:
        pytest.skip("this poold has no reload")
    main, before = service.show("MainPID"), service.show("StateChangeTimestampMonotonic")
    # Not `systemctl reload`: only RELOADING=1 can move the unit out of its state then, and READY=1 back.
    service.run("systemctl", "kill", "--signal=HUP", "--kill-who=main", "poold.service")
    wait_for(lambda: service.show("StateChangeTimestampMonotonic") != before and service.show("SubState") == "running", 30, "reloaded")
    service.run("systemctl", "reload", "poold.service")
    wait_for(lambda: service.show("SubState") == "running", 30, "reloaded")
    assert service.show("MainPID") == main
    with Client(service.socket) as client:
        assert client.call("basic.echo", {"value": 5}) == 5


def test_stop_finishes_the_calls_and_leaves_nothing(service):
    cgroup = service.show("ControlGroup")
    answers = []

    def call():
        with Client(service.socket) as client:
            answers.append(client.call("basic.sleep", {"seconds": 1.5}, timeout=60))

    caller = threading.Thread(target=call)
    caller.start()
    wait_for(lambda: service.pool("basic").get("outstanding", 0) == 1, 30, "a call in flight")
    service.run("systemctl", "stop", "poold.service")
    caller.join(30)
    assert answers == ["slept"]
    assert service.show("Result") == "success"
    assert service.run("cat", f"/sys/fs/cgroup{cgroup}/cgroup.procs", check=False) == ""
    assert not os.path.exists(service.socket)


def test_the_first_connection_starts_it(systemd):
    systemd.run("systemctl", "start", "poold.socket", "poold-control.socket")
    try:
        assert systemd.show("ActiveState") == "inactive"
        for value in (6, 7):
            with Client(systemd.socket) as client:
                assert client.call("basic.echo", {"value": value}) == value
            assert systemd.ready("basic"), "poolctl, through the other socket"
            wait_for(lambda: systemd.show("ActiveState") == "active", 30, "active")
            # The sockets are systemd's and outlive it: the next call starts it again.
            systemd.run("systemctl", "stop", "poold.service")
            assert os.path.exists(systemd.socket)
    finally:
        systemd.run("systemctl", "stop", "poold.socket", "poold-control.socket", "poold.service", check=False)
