"""What poolctl prints: at any width, in a pipe, as JSON; each shape from a control socket that has something in every field."""
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest
from conftest import BIN
from fake_control import OPERATIONS, FakeControl, encode, full

CTL = str(BIN / "poolctl")
LONG = "company_department_of_very_long_names"
#: command → operations that it needs beside status
SHOWN = {
    ("status",): {}, ("pools",): {}, ("workers",): {}, ("version",): {"version": "Version"}, ("stats",): {"stats": "Stats"},
    ("stats", "--methods"): {"stats": "Stats"}, ("calls",): {"calls": "Calls"}, ("sessions",): {"sessions": "Sessions"}, ("events",): {"events": "Events"},
    ("post-mortem",): {"post_mortem": "Deaths"}, ("post-mortem", "--full"): {"post_mortem": "Deaths"}, ("quarantine",): {"quarantine": "QuarantineList"},
    ("stack", "some_name"): {"stack": "Stacks"}, ("reload",): {"reload": "ReloadResult"}, ("warm", "some_name"): {"warm": "WarmProgress"},
    ("config", "show", "--running"): {"configuration": "EffectiveConfiguration"}, ("cancel", "some_name:1.1"): {"cancel": "Done"}, ("kill", "some_name", "1234567"): {"kill": "Done"}, ("resume", "some_name"): {"resume": "Done"},
}
#: those whose tables must fit; the others print what a worker or poold said as it is
TABLES = [c for c in SHOWN if c[0] in ("status", "pools", "workers", "stats", "calls", "sessions", "post-mortem", "quarantine", "reload", "warm", "config") and "--full" not in c]


def run(*arguments, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "POOLD_SOCKET", "POOLD_CONTROL")}
    return subprocess.run([CTL, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, env={**clean, **environment})


def on_terminal(columns, *arguments, seconds=20, **environment):
    """Output and exit status on a terminal of so many columns."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen([CTL, *arguments], stdin=side, stdout=side, stderr=side, env={**clean, "TERM": "xterm", **environment})
    # Its side stays open: a terminal that is closed may lose what was just written. What is written last says that all was read.
    end, hung = b"\0end\0", []

    def wait():
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            hung.append(arguments)
            process.kill()
            process.wait()
        os.write(side, end)

    threading.Thread(target=wait).start()
    out = b""
    while not out.endswith(end):
        out += os.read(main, 65536)
    os.close(side)
    os.close(main)
    assert not hung and process.returncode >= 0
    return out.removesuffix(end).decode().replace("\r\n", "\n"), process.poll()


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


@pytest.fixture
def fake(tmp_path):
    """start(operation=answer, …) → arguments that name the socket."""
    made = []

    def start(**answers):
        path = f"/tmp/poolctl-test-{os.getpid()}-{len(made)}.sock"
        if os.path.exists(path):
            os.unlink(path)
        made.append((FakeControl(path, {"status": encode("Status", **full("Status")), **answers}), path))
        return ("--control", path)

    start.made = made
    yield start
    for server, path in made:
        server.close()
        os.unlink(path)


def answers_of(command, **overrides):
    def message(name):
        if name == "ReloadResult":
            return encode(name, **full(name, errors=[]))
        return encode(name, **full(name, **overrides))
    return {operation: message(name) for operation, name in SHOWN[command].items()}


@pytest.mark.parametrize("columns", [80, 60, 132])
@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_tables_fit_the_terminal(fake, command, columns):
    text, status = on_terminal(columns, *command, *fake(**answers_of(command)))
    assert status == 0, text
    widest = max(plain(text).split("\n"), key=len)
    assert len(widest) <= columns, widest


@pytest.mark.parametrize("words", [(), ("--all",), ("--json",), ("--json", "--all")], ids=" ".join)
def test_a_plain_status_is_read_as_the_parser_reads_it(fake, words):
    """`--control=PATH` is left to the parser, `--control PATH` is not."""
    pools = [full("Pool", name="one", health="ready"), full("Pool", name="own", reserved=True)]
    _, path = where = fake(status=encode("Status", **full("Status", pools=pools)))
    answers = [run("status", *words, *where), run("status", *where, *words), run("status", *words, f"--control={path}")]
    assert {(a.returncode, a.stdout, a.stderr) for a in answers} == {(0, answers[2].stdout, "")} and "one" in answers[2].stdout
    assert on_terminal(60, "status", *words, *where) == on_terminal(60, "status", *words, f"--control={path}")
    nobody = [run("status", *words, *form) for form in (("--socket", path), (f"--socket={path}",))]
    assert {a.returncode for a in nobody} == {3} and len({(a.stdout, a.stderr) for a in nobody}) == 1 and path + ".control" in nobody[0].stdout + nobody[0].stderr
    assert run("status", *words, "--socket", *where).returncode == 64 and run("status", *words, "--socket").returncode == 64
    assert run("status", *words, "no_pool", *where).returncode == 8


def test_a_long_name_is_cut_on_a_terminal_and_whole_in_a_pipe(fake):
    pools = [full("Pool", name=LONG, health="ready", failure="", circuit="closed", quarantined=0, workers=[full("Worker", phase="ready")]), full("Pool", name="b", failure="")]
    where = fake(status=encode("Status", **full("Status", pools=pools)))
    for command in ("status", "workers"):
        text, _ = on_terminal(60, command, *where)
        assert max(map(len, plain(text).split("\n"))) <= 60 and "…" in text
        assert LONG in run(command, *where).stdout
        assert LONG not in run(command, *where, COLUMNS="60").stdout


def test_colours_only_on_a_terminal_or_when_asked(fake):
    where = fake(status=encode("Status", **full("Status", pools=[full("Pool", health="degraded")])))
    assert "\x1b" not in run("status", *where).stdout
    assert "\x1b[33m" in run("status", "--color", "always", *where).stdout
    assert "\x1b[33m" in on_terminal(80, "status", *where)[0]
    for off in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b" not in on_terminal(80, "status", *where, **off)[0]
    assert "\x1b" not in on_terminal(80, "status", "--color", "never", *where)[0]
    assert run("status", "--color", "pink", *where).returncode == 64


def test_what_a_worker_printed_cannot_drive_the_terminal(fake):
    evil = "\x1b]0;owned\x07\x1b[2Jgone\r\x9b31m"
    death = full("Death", stderr_tail=evil, pool=evil, method=evil)
    where = fake(post_mortem=encode("Deaths", deaths=[death]), status=encode("Status", **full("Status", pools=[full("Pool", failure=evil)])))
    for command in (("post-mortem", "--full"), ("post-mortem",), ("status",), ("pools",)):
        text, _ = on_terminal(80, *command, *where, NO_COLOR="1")
        assert "\x1b" not in text and "\x07" not in text, command


def test_statistics_stand_side_by_side(fake):
    windows = [full("Window", name=name) for name in ("start", "1m", "5m", "15m")]
    where = fake(stats=encode("Stats", pools=[full("PoolStats", windows=windows)]))
    text = run("stats", *where).stdout
    for word in ("start", "1m", "5m", "15m", "utilization", "75.0%", "p50", "p90", "p95", "p99", "p99.9", "1.23ms", "METHOD", "by cause"):
        assert word in text, word
    assert max(map(len, text.splitlines())) <= 80
    none = full("Quantiles", mean=0.0, minimum=0, p50=127, p90=127, p95=127, p99=127, p999=255, maximum=255)
    text = run("stats", *fake(stats=encode("Stats", pools=[full("PoolStats", windows=[full("Window", wait=none)])]))).stdout
    assert text.count("0ms") >= 5 and "127ns" not in text and "255ns" in text, "the upper end of the first bucket is no time"
    empty = run("stats", *fake(stats=encode("Stats", pools=[{"pool": "new", "windows": [{"name": "start"}]}]))).stdout
    assert "–" in empty and "nan" not in empty


def test_statistics_are_asked_for_pool_by_pool(fake):
    """One question about all pools would hold up poold's loop for tens of milliseconds."""
    pools = [full("Pool", name="text"), full("Pool", name="vectors"), {**full("Pool", name="poold-canary"), "reserved": 1}]
    where = fake(status=encode("Status", **full("Status", pools=pools)), stats=encode("Stats", pools=[full("PoolStats", pool="one")]))
    done = run("stats", "--json", *where)
    assert len(json.loads(done.stdout)["pools"]) == 2, done.stderr
    asked = [body for code, body in fake.made[-1][0].asked if code == OPERATIONS["stats"]]
    assert asked == [encode("PoolFilter", pool=name) for name in ("text", "vectors")]


def test_statistics_leave_out_a_pool_that_a_reload_took_away_meanwhile(fake):
    pools = [full("Pool", name="gone"), full("Pool", name="text")]
    answers = iter([("error", 8, "there is no pool gone"), encode("Stats", pools=[full("PoolStats", pool="text")])])
    where = fake(status=encode("Status", **full("Status", pools=pools)), stats=lambda: next(answers))
    done = run("stats", "--json", *where)
    assert done.returncode == 0 and [pool["pool"] for pool in json.loads(done.stdout)["pools"]] == ["text"], done.stderr


# ---- watching

def test_watch_in_a_pipe_prints_blocks_and_ends_by_sigint(fake):
    where = fake()
    for extra, blocks in ((), "\n\n"), (("--json",), "\n"):
        process = subprocess.Popen([CTL, "status", "--watch", "0.1", *extra, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=10)
        assert process.returncode == 0 and errors == "" and "\x1b" not in out
        assert out.count("some_version") >= 2
        if extra:
            assert all(json.loads(line) for line in out.splitlines())
    assert run("status", "--watch", "0", *where).returncode == 64


def test_watch_on_a_terminal_clears_the_screen(fake):
    where = fake()
    main, side = pty.openpty()
    process = subprocess.Popen([CTL, "workers", "--watch", *where], stdin=side, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm"})
    shown = b""
    while b"\x1b[2J" not in shown:
        assert select.select([main], [], [], 20)[0], shown
        shown += os.read(main, 65536)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    os.close(side)
    os.close(main)


def test_a_reader_that_has_gone_ends_it_quietly(fake):
    where = " ".join(fake())
    done = subprocess.run(["bash", "-c", f"{CTL} status --watch 0.1 {where} | head -1; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=20)
    assert done.stderr == "" and done.returncode == 141 and len(done.stdout.splitlines()) == 1


def test_events_are_followed(fake):
    numbers = iter(range(1, 10_000))

    def one():
        number = next(numbers)
        return encode("Events", last=number, events=[{"number": number, "at": 1_700_000_000_000_000_000, "level": "warning", "message": f"event {number}"}])

    where = fake(events=lambda: one())
    for extra in (), ("--json",):
        process = subprocess.Popen([CTL, "events", "--follow", *extra, *where], stdout=subprocess.PIPE, text=True)
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert all("event" in line for line in lines)
        if extra:
            assert json.loads(lines[0])["level"] == "warning"
    assert run("events", "--level", "error", *where).stdout == "nothing happened\n"


def test_a_wrong_severity_is_told_the_ones_of_the_help():
    wrong = run("events", "--level", "warn")
    assert wrong.returncode == 64 and "did you mean warning?" in wrong.stderr
    assert "debug, info, notice, warning, error\n" in run("events", "--level", "foo").stderr
    assert "debug, info, notice, warning, error." in " ".join(run("events", "--help").stdout.split())


def test_a_post_mortem_shows_the_memory_that_was_measured(fake):
    for measured, shown in (({"private_bytes": 0}, "  memory    at most 1.18MiB resident"), ({"maximum_resident_bytes": 0}, "  memory    1.18MiB private")):
        where = fake(post_mortem=encode("Deaths", deaths=[full("Death", **measured)]))
        assert shown in run("post-mortem", "--full", *where).stdout.splitlines()


@pytest.mark.skipif(os.path.exists("/etc/poold/poold.yaml"), reason="this machine has a configuration")
def test_doctor_says_default_once(tmp_path):
    """A poolctl far from the examples, which has no default to check."""
    far = shutil.copy(CTL, tmp_path)
    done = subprocess.run([far, "doctor", "--socket", tmp_path / "s"], capture_output=True, text=True, timeout=30, env={**os.environ, "POOLD_CONFIG": ""})
    os.unlink(far)
    assert "fail  default: found no pool" in done.stdout


def test_the_help_names_every_limit_of_an_answer():
    assert "Default: 5s; stack 15s; reload 30s; call, methods and ping 15s to connect." in " ".join(run("status", "--help").stdout.split())


# ---- warming

def test_warm_shows_progress_and_a_table_and_fails_honestly(fake):
    command = {"command": "call load", "succeeded": 1, "nanoseconds": 2_000_000}
    broken = {"command": "import x", "nanoseconds": 1_000_000, "problem": "No module named 'x'"}
    begun = encode("WarmProgress", job=7, pool="some_name", workers=[{"worker": "0.1", "state": "warming"}, {"worker": "1.1", "state": "waiting"}])

    def progress(*commands, state="warm"):
        done = encode("WarmProgress", job=7, pool="some_name", finished=1, workers=[{"worker": f"{s}.1", "state": state, "commands": commands} for s in (0, 1)])
        steps = iter([begun, begun])
        return {"warm": begun, "warm_progress": lambda: next(steps, done)}

    good = run("warm", "some_name", *fake(**progress(command)))
    assert good.returncode == 0 and "call load" in good.stdout and "2.00ms" in good.stdout and "0 of 2 workers" in good.stderr
    assert "\x1b" not in good.stderr and "\r" not in good.stderr
    bad = run("warm", "some_name", *fake(**progress(command, broken, state="failed")))
    assert bad.returncode == 1 and "No module named 'x'" in bad.stdout
    shown, status = on_terminal(80, "warm", "some_name", *fake(**progress(command)))
    assert status == 0 and "[----" in shown
    silent = run("warm", "some_name", "--json", *fake(**progress(command)))
    assert silent.stderr == "" and json.loads(silent.stdout)["finished"] is True


# ---- what is wrong with poold

def test_a_poold_that_hangs_closes_or_is_none_gets_a_line(fake):
    hangs = run("status", "--wait-for", "300ms", *fake(status="hang"))
    assert hangs.returncode == 3 and "did not answer within 0.3 seconds" in hangs.stderr and len(hangs.stderr.splitlines()) == 1
    closes = run("status", *fake(status="close"))
    assert closes.returncode == 3 and "closed the connection" in closes.stderr
    garbage = run("status", *fake(status=("raw", b"HTTP/1.1 400 Bad Request\r\n\r\nthis is no frame at all")))
    assert garbage.returncode == 3 and "does not speak poold's protocol" in garbage.stderr and len(garbage.stderr.splitlines()) == 1
    nonsense = run("status", *fake(status=b"\xff\xff\xff"))
    assert nonsense.returncode == 3 and "compare their versions" in nonsense.stderr
    as_json = run("status", "--json", *fake(status="close"))
    assert json.loads(as_json.stdout)["error"]["status"] == "connection"


def test_refusals_have_exit_codes(fake):
    for status, code in ((15, 10), (5, 4), (11, 1), (8, 8), (23, 9)):
        done = run("stats", "some_name", *fake(stats=("error", status, "so it is")))
        assert done.returncode == code and "so it is" in done.stderr, status
    old = run("sessions", *fake())
    assert old.returncode == 1 and "does not exist" in old.stderr


def test_no_permission(tmp_path, fake):
    if os.getuid() != 0:
        pytest.skip("becomes another user")
    where = fake()
    os.chmod(where[1], 0o600)
    done = subprocess.run([CTL, "status", *where], capture_output=True, text=True, user=65534, timeout=20)
    assert done.returncode == 10 and "no permission" in done.stderr and "mode 600" in done.stderr


def test_wrong_names_are_told_the_nearest(fake):
    pools = [full("Pool", name="vectors"), full("Pool", name="text")]
    where = fake(status=encode("Status", **full("Status", pools=pools)), stats=("error", 8, "there is no pool vectros; there are: vectors, text"))
    for command in (("status", "vectros"), ("workers", "vectros"), ("stats", "vectros"), ("scale", "vectros", "3"), ("pools", "vectros")):
        done = run(*command, *where)
        assert done.returncode == 8 and "did you mean vectors?" in done.stderr, (command, done.stderr)


# ---- requests

def test_quarantine_is_released_by_hash(fake):
    body = full("QuarantinedBody", hash="5f2a", pool="text")
    where = fake(quarantine=encode("QuarantineList", bodies=[body]), clear_quarantine=encode("Done", explanation="released", affected=1))
    server = fake.made[0][0]
    assert run("quarantine", "--clear", "5F2A", *where).stdout == "released\n"
    assert server.asked[-1] == (8, encode("QuarantineRequest", pool="text", hash="5f2a"))
    assert run("quarantine", "text", "--clear", "all", *where).returncode == 0
    assert server.asked[-1] == (8, encode("QuarantineRequest", pool="text"))
    assert run("quarantine", "--clear", "dead", *where).returncode == 8


def test_a_reload_with_errors_changes_nothing_and_fails(fake):
    done = run("reload", *fake(reload=encode("ReloadResult", errors=["poold.yaml:3: pools.text.workers: found \"many\""])))
    assert done.returncode == 1 and "poold.yaml:3" in done.stderr and "Nothing was changed" in done.stderr
    assert "nothing differs" in run("reload", *fake(reload=b"")).stdout


def test_cancel_goes_on_after_a_call_that_has_ended(fake):
    answers = iter([("error", 11, "call text:1.1 has ended already"), encode("Done", explanation="cancelled")])
    done = run("cancel", "text:1.1", "text:2.1", *fake(cancel=lambda: next(answers)))
    assert done.returncode == 8 and "has ended already" in done.stderr and done.stdout == "cancelled\n"
    wrong = run("cancel", "text", *fake())
    assert wrong.returncode == 64 and "POOL:INDEX.GENERATION" in wrong.stderr


def test_a_stale_worker_name_is_refused(fake):
    worker = full("Worker", slot=2, generation=5)
    where = fake(status=encode("Status", **full("Status", pools=[full("Pool", name="text", workers=[worker])])), kill=encode("Done", explanation="killed"))
    assert run("kill", "text", "2.5", *where).stdout == "killed\n"
    gone = run("kill", "text", "2.4", *where)
    assert gone.returncode == 8 and "is gone" in gone.stderr
    assert run("kill", "text", "two", *where).returncode == 64
