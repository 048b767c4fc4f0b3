"""poolctl as a stranger meets it."""
import json
import os
import pty
import re
import signal
import socket
import subprocess
import time

import pytest
from conftest import BIN, ROOT, WORKERS, wait_for

HELP = ["call", "status", "pools", "workers", "methods", "sessions", "calls", "scale", "warm", "stats", "recycle", "drain", "resume", "kill", "cancel", "stack",
        "post-mortem", "quarantine", "events", "reload", "ping", "version", "doctor", "completion"]


def ctl(*arguments, stdin=b"", **environment):
    return subprocess.run([str(BIN / "poolctl"), *arguments], input=stdin, capture_output=True, timeout=20, env={**os.environ, "POOLD_SOCKET": "", **environment})


@pytest.mark.parametrize("command", HELP)
def test_every_command_has_help_with_an_example(command):
    done = ctl(command, "--help", COLUMNS="80")
    assert done.returncode == 0 and b"EXAMPLE" in done.stdout and f"poolctl {command}".encode() in done.stdout
    assert max(len(line) for line in done.stdout.decode().splitlines()) <= 80


def test_the_overview_names_every_command_and_exit_code():
    text = ctl("--help", COLUMNS="80").stdout.decode()
    assert all(f"  {command} " in text for command in HELP) and "10 no permission" in text and "64 wrong usage" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    listed = re.findall(r"^\| (\d+) \|", (ROOT / "OPERATIONS.md").read_text().split("| poolctl | |")[1].split("## ")[0], re.M)
    assert set(re.findall(r"(?:^|  )+ *(\d+) (?=\w)", text.split("EXIT CODES")[1].split("OPTIONS")[0], re.M)) <= set(listed)
    assert ctl("--version").stdout.strip() == b"0.1.0"


def test_a_typo_names_the_right_command():
    done = ctl("statsu")
    assert done.returncode == 64 and b"did you mean `poolctl status`?" in done.stderr
    done = ctl("frobnicate")
    assert done.returncode == 64 and b"poolctl --help" in done.stderr
    done = ctl("status", "--jsno")
    assert done.returncode == 64 and b"--jsno" in done.stderr
    assert ctl("call", "nodot").returncode == 64
    done = ctl("config", "chek")
    assert done.returncode == 64 and b"did you mean `poolctl config check`?" in done.stderr
    done = ctl("help", "staus")
    assert done.returncode == 64 and b"did you mean `poolctl help status`?" in done.stderr and done.stdout == b""
    assert ctl("help", "config", "chek").returncode == 64
    assert ctl("help", "config", "check").stdout == ctl("config", "check", "--help").stdout
    done = subprocess.run([str(BIN / "poold"), "srve"], capture_output=True, timeout=20)
    assert done.returncode == 64 and b"`poold serve`" in done.stderr


def test_help_of_poold_and_of_config_fits_80_columns():
    pages = [[BIN / "poold", "--help"], [BIN / "poold", "serve", "--help"]]
    pages += [[BIN / "poolctl", "config", name, "--help"] for name in ("check", "show", "diff", "reference")]
    for page in pages:
        done = subprocess.run([str(word) for word in page], capture_output=True, text=True, timeout=20, env={**os.environ, "COLUMNS": "80"})
        assert done.returncode == 0 and "EXAMPLE" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80, page


def test_no_daemon(tmp_path):
    done = ctl("status", "--socket", str(tmp_path / "nothing"))
    assert done.returncode == 3 and b"is poold running?" in done.stderr
    (tmp_path / "file.control").write_text("")
    assert ctl("status", "--socket", str(tmp_path / "file")).returncode == 3
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead.control"))
    dead.close()
    done = ctl("status", "--socket", str(tmp_path / "dead"))
    assert done.returncode == 3 and b"has died" in done.stderr
    done = ctl("call", "a.b", "--socket", "/" + "x" * 200)
    assert done.returncode == 3 and b"107 bytes" in done.stderr
    for path, what in ((tmp_path, "a folder is there, no socket"), (tmp_path / "file.control", "a file is there, no socket"),
                       (tmp_path / "file.control/s", "a part of that path is no folder"), ("/dev/null", "a device or pipe is there"), ("", "an empty path")):
        done = ctl("status", "--control", str(path))
        assert done.returncode == 3 and what in done.stderr.decode() and b"give the path of the socket" in done.stderr and b"has died" not in done.stderr, path


def test_the_socket_is_found_or_every_place_is_named(poold, tmp_path):
    one = poold("basic")
    (tmp_path / "poold").mkdir()
    nowhere = ctl("status", XDG_RUNTIME_DIR=str(tmp_path))
    if nowhere.returncode == 3:  # nobody runs one in the usual places of this machine
        assert str(tmp_path).encode() in nowhere.stderr
    os.symlink(one.socket, tmp_path / "poold/poold.sock")
    os.symlink(one.socket + ".control", tmp_path / "poold/poold.sock.control")
    assert ctl("status", XDG_RUNTIME_DIR=str(tmp_path)).returncode == 0
    assert ctl("ping", XDG_RUNTIME_DIR=str(tmp_path)).returncode == 0
    assert ctl("status", POOLD_SOCKET=one.socket).returncode == 0
    assert ctl("status", POOLD_CONTROL=one.socket + ".control").returncode == 0
    assert ctl("status", "--control", one.socket + ".control").returncode == 0
    assert ctl("methods", "--control", one.socket + ".control").returncode == 0
    assert ctl("status", "--socket", one.socket, POOLD_CONTROL="/nothing").returncode == 0, "what is named here and now wins"


def test_calls_and_exit_codes(poold, tmp_path):
    one = poold("basic")

    def call(*arguments, stdin=b""):
        return ctl("call", *arguments, "--socket", one.socket, stdin=stdin)

    assert call("basic.echo", '{"value": 5}').stdout == b"5\n"
    assert json.loads(call("basic.echo", "[7]", "--json").stdout)["result"] == 7
    (tmp_path / "body").write_bytes(b"\x00\xffbytes")
    assert call("basic.raw", "--file", str(tmp_path / "body")).stdout == b"\x00\xffbytes"
    assert call("basic.raw", "--file", "-", stdin=b"piped").stdout == b"piped"
    assert call("basic.echo", "[1]", "--raw").stdout == b"1"
    assert call("basic.session", "--session", "42").stdout.startswith(b"[42,")
    assert call("basic.session", "--session", "name").stdout == call("basic.session", "--session", "name").stdout
    assert call("basic.echo", "[1]", "--priority", "high", "--idempotent").returncode == 0
    failed = call("basic.fail", '["why"]')
    assert failed.returncode == 1 and b"ValueError: why" in failed.stderr and b"Traceback" in failed.stderr
    assert call("basic.echo", "{broken").returncode == 1
    assert call("basic.sleep", "[9]", "--timeout", "100ms").returncode == 5
    assert call("basic.die").returncode == 6
    assert call("basic.nothing").returncode == 8 and call("nobody.x").returncode == 8
    assert b"did you mean basic.echo?" in call("basic.ehco", "[1]").stderr and b"did you mean basic?" in call("basci.echo").stderr
    assert call("basic.echo", "-", stdin=b"[3]").stdout == b"3\n"
    assert call("basic.echo", "[1]", "--priority", "urgent").returncode == 64
    wrong = call("basic.echo", "--timeout", "soon")
    assert wrong.returncode == 64 and b"5s" in wrong.stderr
    assert call("basic.echo", "1", "--file", "x").returncode == 64
    missing = call("basic.raw", "--file", str(tmp_path / "missing"))
    assert missing.returncode == 64 and missing.stderr.decode() == f"poolctl: cannot read {tmp_path}/missing: No such file or directory\n"
    missing = call("basic.raw", "--file", str(tmp_path / "missing"), "--json")
    assert missing.returncode == 64 and missing.stderr == b"" and json.loads(missing.stdout)["error"]["status"] == "wrong_usage"
    long = call("basic." + "x" * 250, "[1]")
    assert long.returncode == 64 and b"may have 255 bytes; this one has 256" in long.stderr
    assert call("basic." + "x" * 249, "[1]").returncode == 8
    error = json.loads(call("basic.fail", "--json").stdout)["error"]
    assert error["status"] == "application_error" and "Traceback" in error["detail"]


def test_the_example_with_a_pipe_is_one_of_the_example_pools(poold):
    one = poold(("text", ROOT / "python/examples/text.py"), workers=1)
    example = next(line for line in ctl("call", "--help").stdout.decode().splitlines() if "echo" in line)
    shell = ["bash", "-c", f"PATH={BIN}:$PATH; {example}"]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=20, env={**os.environ, "POOLD_SOCKET": one.socket})
    assert done.returncode == 0 and "cake" in done.stdout, done.stderr


def test_status_fits_80_columns_and_has_json(poold):
    one = poold("basic", "misbehaves")
    for command in ("status", "pools", "workers", "methods"):
        shown = one.ctl(command).stdout
        assert max(len(line) for line in shown.splitlines()) <= 80 and "\x1b" not in shown and "misbehaves" in shown
        assert "misbehaves" not in one.ctl(command, "basic").stdout
    assert [p["name"] for p in one.status()["pools"]] == ["basic", "misbehaves"]
    assert one.ctl("scale", "nobody", "3", check=False).returncode == 8
    assert "outside of" in one.ctl("scale", "basic", "9999").stdout
    for command in (("kill", "basic", "77"), ("recycle", "basic", "77"), ("stack", "basic", "77"), ("kill", "basic", "0.99")):
        assert one.ctl(*command, check=False).returncode == 8, command


@pytest.mark.parametrize("closed", ["1", "2", "0", "0 1 2"])
def test_a_closed_standard_stream_is_not_poolds_socket(poold, closed):
    one = poold("basic", "misbehaves")

    def shell(command):
        line = f"exec {' '.join(f'{n}>&-' for n in closed.split())}; exec {BIN}/poolctl {command} --socket {one.socket}"
        return subprocess.run(["bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)

    commands = ["call basic.echo '[5]'", "call basic.echo '[5]' --json", "events --json", "methods", "ping", "status"]
    for command in commands:
        done = shell(command)
        assert done.returncode == (9 if "1" in closed else 0) and (done.stdout == "") == ("1" in closed), command
        assert "2" in closed or ("cannot write the output: Bad file descriptor" in done.stderr) == ("1" in closed), command
    if "0" in closed:
        assert shell("call basic.echo -").returncode == 64, "no empty body"
    failed = shell("call basic.fail")
    assert failed.returncode == 1 and ("2" in closed or "ValueError" in failed.stderr)
    assert one.pool("basic")["counters"]["arrived"] == "3"
    assert one.process.poll() is None and "malformed" not in one.log() and "closed for a fault" not in one.log()


def test_events_of_a_wrong_pool(poold, tmp_path):
    page = tmp_path / "poold.yaml"

    def names(*pools):
        page.write_text("pools:\n" + "".join(f"  {pool}: {{module: {WORKERS}/basic.py, workers: 1}}\n" for pool in pools))

    names("basic", "gone")
    one = poold(workers=None, options=("--config", str(page)))
    for extra in (), ("--json",), ("--follow",), ("--last", "0"):
        done = one.ctl("events", "basci", *extra, check=False)
        assert done.returncode == 8 and "no_such_pool" in done.stdout + done.stderr and "did you mean basic?" in done.stdout + done.stderr, extra
    names("basic")
    one.ctl("reload")
    wait_for(lambda: [pool["name"] for pool in one.status()["pools"] if not pool.get("reserved")] == ["basic"], what="the removal")
    assert "gone" in one.ctl("events", "gone").stdout
    assert one.ctl("events", "gone", "--level", "error").stdout == "nothing happened\n"


def test_two_pools_do_not_mix(poold):
    one = poold("basic", "misbehaves")
    with one.client() as client:
        assert client.call("basic.echo", [1]) == 1 and client.call("misbehaves.echo", [2]) == 2
        one.ctl("drain", "basic")
        assert client.call("misbehaves.echo", [2]) == 2


def test_scale_explains_waits_and_takes_differences(poold):
    one = poold("basic", workers=2)
    done = one.ctl("scale", "basic", "+1", "--wait")
    assert "2 wanted, 2 ready, 0 busy" in done.stdout and "2 → 3" in done.stdout and len(one.workers("basic")) == 3
    assert "3 → 2" in one.ctl("scale", "basic", "-1", "--wait").stdout and len(one.pool("basic")["workers"]) == 2
    assert json.loads(one.ctl("scale", "basic", "1", "--wait", "--json").stdout)["explanation"].startswith("pool basic: 2 → 1")
    for wrong in ("many", "--1", "1.5", ""):
        assert one.ctl("scale", "basic", wrong, check=False).returncode == 64, wrong
    assert "did you mean basic?" in one.ctl("scale", "basci", "3", check=False).stderr


def test_a_wait_that_takes_too_long_says_why(poold):
    one = poold("import_error")
    done = one.ctl("scale", "import_error", "3", "--wait", "--timeout", "1s", check=False)
    assert done.returncode == 5 and "no_such_module_anywhere" in done.stderr and "\r" not in done.stderr


@pytest.mark.parametrize("command", [("scale", "basic", "3"), ("drain", "basic"), ("recycle", "basic")], ids=" ".join)
def test_a_timeout_belongs_to_a_wait(command):
    done = ctl(*command, "--timeout", "1s")
    assert done.returncode == 64 and b"--timeout needs --wait" in done.stderr
    assert "Default: 60s." in " ".join(ctl(command[0], "--help", COLUMNS="80").stdout.decode().split())


def test_a_poold_that_is_killed_during_a_wait(poold):
    one = poold("import_error")
    command = [str(BIN / "poolctl"), "scale", "import_error", "3", "--wait", "--socket", one.socket]
    waits = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    waits.stderr.readline()
    one.process.kill()
    _, complaint = waits.communicate(timeout=20)
    assert waits.returncode == 6 and "what was asked for earlier was begun" in complaint and "nothing" not in complaint


def test_recycle_and_drain_wait(poold):
    one = poold("basic")
    before = one.full("basic")
    assert "2 workers replaced" in one.ctl("recycle", "basic", "--wait").stdout
    assert len(one.workers("basic")) == 2 and not before & {w["pid"] for w in one.workers("basic")}
    caller = subprocess.Popen([str(BIN / "poolctl"), "call", "basic.sleep", "[1.5]", "--socket", one.socket], stdout=subprocess.PIPE)
    wait_for(lambda: one.pool("basic").get("outstanding"), what="a running call")
    late = one.ctl("drain", "basic", "--wait", "--timeout", "100ms", check=False)
    assert late.returncode == 5 and "1 at workers" in late.stderr
    assert "holds no call" in one.ctl("drain", "basic", "--wait").stdout
    assert caller.wait(10) == 0
    assert one.ctl("call", "basic.echo", "[1]", check=False).returncode == 4
    one.ctl("resume", "basic")
    assert one.ctl("call", "basic.echo", "[1]").stdout == "1\n"


def test_a_worker_is_killed_by_its_name(poold):
    one = poold("basic")
    worker = one.workers("basic")[0]
    slot, generation = worker.get("slot", 0), worker["generation"]
    assert one.ctl("kill", "basic", f"{slot}.{generation + 9}", check=False).returncode == 8
    one.ctl("kill", "basic", f"{slot}.{generation}")
    wait_for(lambda: worker["pid"] not in [w.get("pid") for w in one.pool("basic")["workers"]], what="the kill")


def test_a_stopped_daemon_is_told_from_a_dead_one(poold):
    one = poold("basic")
    one.process.send_signal(signal.SIGSTOP)
    try:
        done = one.ctl("status", "--wait-for", "500ms", check=False)
        assert done.returncode == 3 and "did not answer within" in done.stderr
        done = one.ctl("ping", "--wait-for", "500ms", check=False)
        assert done.returncode == 3 and "did not answer within" in done.stderr
    finally:
        one.process.send_signal(signal.SIGCONT)
    assert one.ctl("status").returncode == 0


def test_binary_results_stay_off_the_terminal_and_json_is_laid_out(poold):
    one = poold("basic")
    main, side = pty.openpty()

    def call(*arguments):
        process = subprocess.Popen([str(BIN / "poolctl"), "call", *arguments, "--socket", one.socket], stdin=subprocess.PIPE, stdout=side, stderr=side)
        process.stdin.write(b"\x00\xff\x1b[2J")
        process.stdin.close()
        status = process.wait(20)
        time.sleep(0.1)
        return status, os.read(main, 65536)

    status, shown = call("basic.raw", "-")
    assert status == 1 and b"> FILE" in shown and b"\x1b" not in shown
    status, shown = call("basic.echo", json.dumps([{"key": "x" * 60, "list": [1, 2, 3], "empty": {}}]))
    assert status == 0 and b'"list": [1,2,3]' in shown.replace(b" ", b"").replace(b'"list":', b'"list": ') and shown.count(b"\n") > 3
    os.close(main)
    os.close(side)


@pytest.mark.parametrize("command", [("check",), ("check", "--json"), ("show",), ("show", "--json"), ("diff",), ("reference",)], ids=" ".join)
def test_what_cannot_be_written_is_no_success(tmp_path, command):
    page = tmp_path / "poold.yaml"
    page.write_text(f"pools:\n  one: {{module: {WORKERS}/basic.py, python: /bin/true}}\n")
    files = {"reference": [], "diff": [page, page]}.get(command[0], [page])
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(BIN / "poolctl"), "config", *command, *map(str, files)], stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 9 and "cannot write the output" in done.stderr


@pytest.mark.parametrize("command", [(), ("--help",), ("help", "scale"), ("status", "--help"), ("--version",)], ids=" ".join)
def test_help_that_cannot_be_written_is_no_success(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(BIN / "poolctl"), *command], stdout=full, stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 9 and "cannot write the output" in done.stderr
    assert subprocess.run([str(BIN / "poolctl"), *command], stdout=subprocess.PIPE, timeout=20).returncode == 0


@pytest.mark.parametrize("command", ["kill", "recycle", "stack", "warm"])
def test_the_help_says_that_only_the_named_process_is_meant(command):
    assert "SLOT or SLOT.GENERATION (then only that process)" in " ".join(ctl(command, "--help", COLUMNS="80").stdout.decode().split())


def test_operations_lists_every_key_by_what_a_reload_does_with_it():
    """OPERATIONS.md and the reference that poolctl writes from the code."""
    effects, last = {}, None
    for line in ctl("config", "reference").stdout.decode().splitlines():
        effect, key = re.match(r" *# .*; (live|recycle|restart)$", line), re.match(r" *(?:# )?([a-z_]+):", line)
        if effect:
            last = effect[1]
        elif key and last:
            # The one key that has no default stands in front of the example of a pool.
            effects.setdefault(last, set()).add("module" if key[1] == "pools" else key[1])
            last = None
    table = dict(re.findall(r"^\| (recycle|restart) \| (.*?) \|", (ROOT / "OPERATIONS.md").read_text(), re.M))
    for effect in ("recycle", "restart"):
        assert set(re.findall(r"`([a-z_]+)`", table[effect])) == effects[effect]


def test_operations_names_the_libraries_that_each_program_needs():
    linked = {name: subprocess.run(["ldd", BIN / name], capture_output=True, text=True, timeout=20).stdout for name in ("poold", "poolctl")}
    assert "libsystemd" in linked["poold"] and "libsystemd" not in linked["poolctl"]
    assert "poold needs libsystemd (`libsystemd0`), poolctl does not" in (ROOT / "OPERATIONS.md").read_text()


# ---- completion

def test_bash_completes_commands_pools_and_methods(poold):
    one = poold("basic", "misbehaves")

    def complete(*words):
        listed = " ".join(f"'{w}'" for w in words)
        script = (f"PATH={BIN}:$PATH; source <(poolctl completion bash); COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; COMP_LINE='{' '.join(words)}'; "
                  f"COMP_POINT=${{#COMP_LINE}}; COMP_TYPE=9; _poolctl poolctl '{words[-1]}' '{words[-2]}' 2>/dev/null; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=30, env={**os.environ, "POOLD_SOCKET": one.socket})
        return done.stdout.split()

    assert "status" in complete("poolctl", "sta") and "scale" not in complete("poolctl", "sta")
    assert "--wait" in complete("poolctl", "scale", "--wa")
    assert complete("poolctl", "scale", "mis") == ["misbehaves"]
    assert "basic.echo" in complete("poolctl", "call", "basic.e")
    one.stop()
    assert complete("poolctl", "scale", "mis") == [], "silent without a poold"


@pytest.mark.parametrize("shell, word", [("bash", "complete"), ("zsh", "#compdef poolctl"), ("fish", "complete -c")])
def test_completion_scripts(shell, word):
    done = ctl("completion", shell)
    assert done.returncode == 0 and word in done.stdout.decode() and "post-mortem" in done.stdout.decode()
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=done.stdout, capture_output=True).returncode == 0
    assert ctl("completion", "powershell").returncode == 64
