"""The log: its form for programs, and what becomes of poold when nobody takes it."""
import datetime
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from conftest import BIN, WORKERS, wait_for

from poold.client import Client


@pytest.fixture
def start(tmp_path_factory):
    made = []

    def begin(shell, *options, pool="basic", **keywords):
        """poold under `sh -c 'exec "$@" SHELL'`; its process and socket."""
        path = str(tmp_path_factory.mktemp("g") / "s")
        process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {shell}', "-", str(BIN / "poold"), "serve", "--socket", path, "--pool", f"{pool}={WORKERS}/{pool}.py",
             "--python", sys.executable, *options],
            stdin=subprocess.DEVNULL, **keywords)
        made.append(process)
        return process, path

    yield begin
    for process in made:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def serves(process, path):
    """Waits until it does."""
    def answers():
        assert process.poll() is None, f"ended with {process.returncode}"
        try:
            with Client(path) as client:
                return client.call("basic.echo", {"value": 1}, timeout=20) == 1
        except OSError:
            return False

    wait_for(answers, 30, "an answer")


def chatter(path, lines=3000):
    """Makes lines of the log: faults of connections, each of which is one."""
    for _ in range(lines):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(b"\0" * 32)


def test_json_is_an_object_a_line(start, tmp_path):
    log = tmp_path / "log"
    process, path = start(f"2>{log}", "--log-format", "json", "--log-level", "debug")
    serves(process, path)
    process.terminate()
    assert process.wait(20) == 0
    events = [json.loads(line) for line in log.read_text().splitlines()]
    accepting = next(event for event in events if event["message"] == "accepting calls")
    assert accepting["level"] == "notice" and accepting["socket"] == path
    for event in events:
        assert event["time"].endswith("Z") and datetime.datetime.fromisoformat(event["time"].replace("Z", "+00:00"))
        assert all(isinstance(value, str) for value in event.values())
    assert events[-1]["message"] == "stopped"


@pytest.mark.parametrize("shell", ["2>/dev/full", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_log_that_takes_nothing(start, shell):
    process, path = start(shell, "--log-level", "debug")
    serves(process, path)
    chatter(path, 200)
    serves(process, path)
    # No socket got the log's number.
    assert not os.readlink(f"/proc/{process.pid}/fd/2").startswith("socket:")
    process.terminate()
    assert process.wait(20) == 0


def test_a_reader_that_went_away(start):
    process, path = start("", "--log-level", "debug", stderr=subprocess.PIPE)
    serves(process, path)
    process.stderr.close()
    chatter(path, 200)
    serves(process, path)
    process.terminate()
    assert process.wait(20) == 0


def test_a_reader_that_stands_still_gets_what_waited(start):
    process, path = start("", "--log-level", "debug", stderr=subprocess.PIPE)
    serves(process, path)
    for _ in range(30):
        with Client(path) as client:
            client.call("basic.echo", {"value": 1})
    process.terminate()
    assert process.wait(20) == 0
    assert b"stopped" in process.stderr.read()


def test_a_disk_that_fills_and_has_room_again(start, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode != 0:
        pytest.skip("needs root to mount a small disk")
    try:
        filler = disk / "filler"
        process, path = start(f"2>>{disk}/log", "--log-level", "debug")
        serves(process, path)
        with pytest.raises(OSError):
            filler.write_bytes(b"x" * (1 << 20))
        chatter(path, 100)
        serves(process, path)
        filler.unlink()
        process.terminate()
        assert process.wait(20) == 0
        assert "stopped" in (disk / "log").read_text()
    finally:
        subprocess.run(["umount", "-l", str(disk)])


def test_a_worker_that_talks_too_much_is_cut(start, tmp_path):
    log = tmp_path / "log"
    chatterbox = tmp_path / "chatterbox.py"
    chatterbox.write_text("from poold import worker\n@worker.method\ndef talk(lines: int):\n    for line in range(lines):\n        print('line', line, flush=True)\n")
    path = str(pathlib.Path(tmp_path) / "s")
    process = subprocess.Popen(
        [str(BIN / "poold"), "serve", "--socket", path, "--pool", f"basic={chatterbox}", "--workers", "1", "--python", sys.executable],
        stdin=subprocess.DEVNULL, stderr=open(log, "wb"))
    try:
        wait_for(lambda: "accepting calls" in log.read_text(), 30, "accepting calls")
        with Client(path) as client:
            client.call("basic.talk", {"lines": 5000}, timeout=60)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    text = log.read_text()
    said = text.count('"line ')
    assert 1000 <= said < 2500, "ten seconds' worth at once"
    assert "lines suppressed, more than 100 a second" in text
