"""poolctl as a stranger meets it."""
import json
import os
import subprocess

import pytest
from conftest import BIN

HELP = ["call", "status", "methods", "ping", "scale", "recycle", "kill", "drain", "resume", "quarantine", "version"]


def ctl(*arguments, stdin=b"", **environment):
    return subprocess.run([str(BIN / "poolctl"), *arguments], input=stdin, capture_output=True, timeout=20, env={**os.environ, "POOLD_SOCKET": "", **environment})


@pytest.mark.parametrize("command", HELP)
def test_every_command_has_help_with_an_example(command):
    done = ctl(command, "--help")
    assert done.returncode == 0 and b"EXAMPLE" in done.stdout and f"poolctl {command}".encode() in done.stdout


def test_a_typo_names_the_right_command():
    done = ctl("statsu")
    assert done.returncode == 64 and (b"status" in done.stderr or b"statsu" in done.stderr)


def test_no_daemon(tmp_path):
    done = ctl("status", "--socket", str(tmp_path / "nothing"))
    assert done.returncode == 3 and b"is poold running?" in done.stderr
    (tmp_path / "dead").write_text("")
    assert ctl("status", "--socket", str(tmp_path / "dead")).returncode == 3
    done = ctl("call", "a.b", "--socket", "/" + "x" * 200)
    assert done.returncode == 3 and b"107 bytes" in done.stderr


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
    wrong = call("basic.echo", "--timeout", "soon")
    assert wrong.returncode == 64 and b"5s" in wrong.stderr
    assert call("basic.echo", "1", "--file", "x").returncode == 64
    assert call("basic.raw", "--file", str(tmp_path / "missing")).returncode == 64
    error = json.loads(call("basic.fail", "--json").stdout)["error"]
    assert error["status"] == "application_error" and "Traceback" in error["detail"]


def test_status_fits_80_columns_and_has_json(poold):
    one = poold("basic", "misbehaves")
    shown = one.ctl("status").stdout
    assert max(len(line) for line in shown.splitlines()) <= 80 and "\x1b" not in shown
    assert [p["name"] for p in one.status()["pools"]] == ["basic", "misbehaves"]
    assert one.ctl("scale", "nobody", "3", check=False).returncode == 8
    assert "outside of" in one.ctl("scale", "basic", "9999").stdout
    assert one.ctl("kill", "basic", "77", check=False).returncode == 1


def test_two_pools_do_not_mix(poold):
    one = poold("basic", "misbehaves")
    with one.client() as client:
        assert client.call("basic.echo", [1]) == 1 and client.call("misbehaves.echo", [2]) == 2
        one.ctl("drain", "basic")
        assert client.call("misbehaves.echo", [2]) == 2
