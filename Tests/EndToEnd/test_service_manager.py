"""What poold tells a service manager, with the test in the manager's place: readiness, status, watchdog, sockets."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import BIN, WORKERS, alive, wait_for
from messages import OPERATIONS

from poold import _wire
from poold.client import Client, PooldError


class Manager:
    """Listens on NOTIFY_SOCKET and starts poold with a watchdog of `watchdog` seconds; 0: none."""

    def __init__(self, folder, *pools, watchdog=0.0, sockets=(), options=(), wrap=(), reads=True):
        self.folder = folder
        self.socket = f"{folder}/s"
        self.messages = []
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(f"{folder}/notify")
        self.notify.setblocking(False)
        self.reads = reads
        environment = dict(os.environ, NOTIFY_SOCKET=f"{folder}/notify")
        variables = ""
        if watchdog:
            variables += f"export WATCHDOG_PID=$$ WATCHDOG_USEC={int(watchdog * 1e6)}; "
        inherited = [listener.fileno() for listener, _ in sockets]
        if sockets:
            names = ":".join(name for _, name in sockets)
            moves = " ".join(f"{3 + place}<&{number}" for place, number in enumerate(inherited))
            closes = " ".join(f"{number}<&-" for number in inherited if number > 2 + len(sockets))
            variables += f"exec {moves} {closes}; export LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={names}; "
        arguments = [str(BIN / "poold"), "serve", "--python", sys.executable, *options]
        if not any(option == "--socket" for option in options):
            arguments += ["--socket", self.socket]
        for name in pools:
            arguments += ["--pool", f"{name}={WORKERS / name}.py"]
        self.log_path = f"{folder}/log"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", variables + 'exec "$@"', "-", *wrap, *arguments],
                env=environment, pass_fds=inherited, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def log(self):
        return pathlib.Path(self.log_path).read_text(errors="replace")

    def read(self):
        while self.reads:
            try:
                self.messages.append((time.monotonic(), self.notify.recv(65536).decode()))
            except BlockingIOError:
                break
        return [text for _, text in self.messages]

    def told(self, text, after=0):
        return any(text in message for message in self.read()[after:])

    def wait(self, text, seconds=30, after=0):
        wait_for(lambda: self.told(text, after) or self.process.poll() is not None, seconds, text)
        assert self.told(text, after), self.log()

    def fed(self):
        """When it was fed, seconds."""
        self.read()
        return [at for at, text in self.messages if "WATCHDOG=1" in text]

    def status(self):
        done = subprocess.run([str(BIN / "poolctl"), "status", "--json", "--socket", self.socket], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def canary(self):
        """pid of the canary's ready worker, 0: none."""
        pool = next(pool for pool in self.status()["pools"] if pool["name"] == "poold-canary")
        return next((worker["pid"] for worker in pool.get("workers", []) if worker["phase"] == "ready"), 0)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.notify.close()


@pytest.fixture
def manager(tmp_path_factory):
    made = []

    def start(*pools, **options):
        # A socket's path is short.
        folder = tmp_path_factory.mktemp("m")
        made.append(Manager(folder, *pools, **options))
        return made[-1]

    yield start
    for one in made:
        one.stop()


def listener(path):
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(64)
    return listening


def test_ready_once_the_pools_are(manager):
    one = manager("basic", options=["--workers", "2"])
    one.wait("READY=1")
    ready = next(text for text in one.read() if "READY=1" in text)
    assert ready.splitlines()[0] == "READY=1"
    assert "STATUS=1 pool, " in ready and "/2 workers ready" in ready
    with Client(one.socket) as client:
        assert client.call("basic.echo", {"value": 1}) == 1
    wait_for(lambda: one.told("2/2 workers ready"), 30, "status of both workers")
    assert not one.told("WATCHDOG=1"), "nobody asked for it"
    assert [pool["name"] for pool in one.status()["pools"]] == ["basic"], "no canary without a watchdog"


def test_stopping_is_told_and_calls_in_flight_end_well(manager):
    one = manager("basic")
    one.wait("READY=1")
    with Client(one.socket) as client:
        client.call("basic.echo")
        one.process.terminate()
        one.wait("STOPPING=1")
    assert one.process.wait(20) == 0


def test_a_pool_that_cannot_start_is_told_and_holds_nothing_up(manager):
    one = manager("basic", "import_error")
    one.wait("READY=1", 60)
    one.wait("cannot start: ", 30)


def test_a_long_start_asks_for_time(manager):
    one = manager("never_ready")
    one.wait("EXTEND_TIMEOUT_USEC=15000000", 30)
    assert not one.told("READY=1")


def test_a_manager_that_hangs_holds_up_no_call(manager):
    one = manager("basic", watchdog=0.05, reads=False)
    wait_for(lambda: "accepting calls" in one.log(), 30, "accepting calls")
    end = time.monotonic() + 3
    with Client(one.socket) as client:
        while time.monotonic() < end:
            assert client.call("basic.echo", {"value": 2}, timeout=20) == 2


def test_the_watchdog_is_fed_by_answers_of_the_canary(manager):
    one = manager("basic", watchdog=2)
    one.wait("READY=1")
    wait_for(lambda: len(one.fed()) >= 4, 30, "four feedings")
    assert one.canary()
    # Callers do not see the reserved pool, and cannot call it by name or number.
    with Client(one.socket) as client:
        assert not [name for name in client.methods() if name.startswith("poold-canary")]
        with pytest.raises(PooldError) as error:
            client.call("poold-canary.ping", b"x")
        assert error.value.status == "no_such_pool" and "there are: basic." in str(error.value)
    done = subprocess.run([str(BIN / "poolctl"), "drain", "poold-canary", "--socket", one.socket], capture_output=True, text=True)
    assert done.returncode != 0 and "poold's own" in done.stderr
    wait_for(lambda: one.status().get("connections", 0) == 0, 10, "the canary is not counted")


def longest_gap(feedings, since):
    times = [at for at in feedings if at >= since]
    return max((b - a for a, b in zip([since, *times], [*times, time.monotonic()])), default=0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_canary_is_repaired_within_the_period(manager, how):
    period = 6
    one = manager("basic", watchdog=period)
    one.wait("READY=1")
    wait_for(lambda: len(one.fed()) >= 2, 30, "feedings")
    before = one.canary()
    began = time.monotonic()
    os.kill(before, how)
    wait_for(lambda: one.read() and one.canary() not in (0, before), 30, "another canary")
    count = len(one.fed())
    wait_for(lambda: len(one.fed()) >= count + 2, 30, "feedings")
    assert longest_gap(one.fed(), began) < period
    assert not alive(before)


def test_a_hung_user_pool_neither_feeds_nor_starves(manager):
    one = manager("basic", watchdog=3, options=["--workers", "2", "--hang-after", "600", "--health", "0"])
    one.wait("READY=1")
    pool = next(pool for pool in one.status()["pools"] if pool["name"] == "basic")
    wait_for(lambda: len([w for w in one.status()["pools"][0]["workers"] if w["phase"] == "ready"]) == 2, 30, "both workers")
    pool = one.status()["pools"][0]
    for worker in pool["workers"]:
        os.kill(worker["pid"], signal.SIGSTOP)
    with Client(one.socket) as client:
        for _ in range(2):
            with pytest.raises(PooldError):
                client.call("basic.echo", timeout=0.2)
    began = time.monotonic()
    one.wait("stuck workers", 20)
    assert one.status()["pools"][0]["health"] == "degraded"
    count = len(one.fed())
    wait_for(lambda: len(one.fed()) >= count + 4, 30, "feedings")
    assert longest_gap(one.fed(), began) < 3
    for worker in pool["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)


def test_a_loop_that_does_not_turn_feeds_nothing(manager):
    one = manager("basic", watchdog=1)
    one.wait("READY=1")
    os.kill(one.process.pid, signal.SIGSTOP)
    count = len(one.fed())
    time.sleep(1.5)
    assert len(one.fed()) <= count + 1, "a stopped loop does not feed"
    os.kill(one.process.pid, signal.SIGCONT)
    wait_for(lambda: len(one.fed()) > count + 2, 30, "feeding again")


def test_starts_that_hang_do_not_hold_up_the_canary(manager):
    """Workers that never get ready take every place that the machine gives to starting ones; the canary needs none."""
    one = manager("never_ready", watchdog=4, options=["--workers", "8", "--template", "off"])
    first = wait_for(lambda: one.read() and one.canary(), 40, "canary")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: one.read() and one.canary() not in (0, first), 20, "another canary")
    count = len(one.fed())
    wait_for(lambda: len(one.fed()) >= count + 2, 20, "feedings")
    assert not one.told("READY=1")


def test_inherited_sockets(manager, tmp_path_factory):
    folder = tmp_path_factory.mktemp("l")
    callers, control = listener(folder / "calls"), listener(folder / "calls.control")
    client = None
    one = manager("basic", sockets=[(control, "control"), (callers, "callers")])
    one.wait("READY=1")
    one.socket = str(folder / "calls")
    with Client(one.socket) as client:
        assert client.call("basic.echo", {"value": 3}) == 3
        pid = client.call("basic.pid")
    assert one.status()["version"]
    environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    assert not [name for name in (b"LISTEN_", b"NOTIFY_SOCKET", b"WATCHDOG_") if name in environment]
    descriptors = [os.readlink(f"/proc/{pid}/fd/{number}") for number in os.listdir(f"/proc/{pid}/fd")]
    assert len([path for path in descriptors if path.startswith("socket:")]) == 1, "its own and no listener"
    one.process.terminate()
    assert one.process.wait(20) == 0
    assert (folder / "calls").exists() and (folder / "calls.control").exists(), "they are the manager's"
    callers.close()
    control.close()


def test_sockets_told_apart_by_path(manager, tmp_path_factory):
    folder = tmp_path_factory.mktemp("l")
    callers = listener(folder / "calls")
    one = manager("basic", sockets=[(callers, "poold.socket")], options=["--socket", str(folder / "calls")])
    one.wait("READY=1")
    with Client(str(folder / "calls")) as client:
        assert client.call("basic.echo", {"value": 4}) == 4
    callers.close()


def test_an_inherited_socket_that_cannot_serve(manager, tmp_path_factory):
    folder = tmp_path_factory.mktemp("l")
    wrong = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    wrong.bind(str(folder / "calls"))
    one = manager("basic", sockets=[(wrong, "callers")])
    assert one.process.wait(20) == 69
    assert "not a listening Unix stream socket" in one.log()
    strange = listener(folder / "strange")
    two = manager("basic", sockets=[(strange, "web")])
    assert two.process.wait(20) == 69
    assert "FileDescriptorName=callers" in two.log()
    wrong.close()
    strange.close()


def test_a_stepping_clock_changes_nothing(manager, tmp_path):
    """Wall time jumps by hours: budgets, watchdog and probes use the monotonic clock, only the log shows it."""
    library = tmp_path / "stepping_clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(pathlib.Path(__file__).parent / "stepping_clock.c")], check=True)
    one = manager("basic", watchdog=2, wrap=["env", f"LD_PRELOAD={library}"])
    one.wait("READY=1")
    began = time.monotonic()
    with Client(one.socket) as client:
        assert client.call("basic.sleep", {"seconds": 0.5}, timeout=20) == "slept"
        with pytest.raises(PooldError) as error:
            client.call("basic.sleep", {"seconds": 20}, timeout=0.5)
        assert error.value.status == "timeout_running"
    assert 0.9 < time.monotonic() - began < 15
    count = len(one.fed())
    wait_for(lambda: len(one.fed()) >= count + 4, 30, "feedings")
    times = one.fed()[count:]
    assert times[-1] - times[0] > 0.75, "a probe each half second, no storm"

    def hours():
        """Of the log's lines, and of some more."""
        subprocess.run([str(BIN / "poolctl"), "recycle", "basic", "--socket", one.socket], capture_output=True, timeout=20)
        time.sleep(0.13)
        return {int(line[11:13]) for line in one.log().splitlines() if line[:2] == "20"}

    wait_for(lambda: any((hour + 12) % 24 in seen for seen in [hours()] for hour in seen), 20, "the steps in the log")
    one.process.terminate()
    assert one.process.wait(20) == 0


def test_a_sighup_that_is_refused_is_answered_all_the_same(manager, tmp_path):
    """systemd waits after `RELOADING=1` for `READY=1`, and after a SIGHUP for both."""
    pools = "\n".join(f"  p{number}: {{ module: {WORKERS}/basic.py, workers: 0, template: false }}" for number in range(60))
    (tmp_path / "poold.yaml").write_text(f"pools:\n{pools}\n")
    one = manager(options=["--config", str(tmp_path / "poold.yaml")])
    one.wait("READY=1")
    # So many that the places are full all the while.
    count = 1500
    dry_runs = b"".join(_wire.frame(_wire.CONTROL, b"\x08\x01", code=OPERATIONS["reload"], id=number + 1) for number in range(count))
    for _ in range(20):
        before = len(one.read())
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(20)
            control.connect(one.socket + ".control")
            sender = threading.Thread(target=control.sendall, args=(dry_runs,))
            sender.start()
            stream = control.makefile("rb")
            for number in range(count):
                length, *_ = _wire.HEADER.unpack(stream.read(_wire.HEADER_SIZE))
                stream.read(length - _wire.EMPTY)
                if number == 100:
                    os.kill(one.process.pid, signal.SIGHUP)
            sender.join()
        one.wait("RELOADING=1", after=before)
        one.wait("READY=1", after=before)
        if "16 reloads wait already" in one.log():
            break
    text = [line for line in one.log().splitlines() if "configuration is not reloaded" in line]
    assert text and "16 reloads wait already; try again later" in text[0], one.log()
