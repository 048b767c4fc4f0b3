"""The configuration file as an operator meets it: serve, check, show, diff."""
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from conftest import BIN, ROOT, WORKERS, Client, wait_for

ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("POOLD_CONFIG", "POOLD_SOCKET")}


def run(program, *arguments, **environment):
    return subprocess.run([str(BIN / program), *map(str, arguments)], capture_output=True, text=True, timeout=30, env={**ENVIRONMENT, **environment})


def config(*arguments, **environment):
    return run("poolctl", "config", *arguments, **environment)


@pytest.fixture
def page(tmp_path):
    """A file with one pool on a short socket path, and its worker beside it."""
    (tmp_path / "basic.py").write_text((WORKERS / "basic.py").read_text())
    path = tmp_path / "poold.yaml"
    path.write_text(
        f"daemon:\n  socket: {tmp_path}/s\ndefaults:\n  python: {sys.executable}\n"
        "pools:\n  basic:\n    module: basic.py\n    workers: 1\n    environment: {MARK: found}\n")
    return path


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(*arguments, **environment):
        log = open(tmp_path / f"log{len(started)}", "w+")
        process = subprocess.Popen([str(BIN / "poold"), *map(str, arguments)], stdout=log, stderr=log, env={**ENVIRONMENT, **environment})
        started.append((process, log))

        def text():
            log.seek(0)
            return log.read()

        wait_for(lambda: "accepting calls" in text() or process.poll() is not None, 30, "accepting calls")
        assert process.poll() is None, text()
        return process

    yield start
    for process, log in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


@pytest.mark.parametrize("how", ["option", "environment"])
def test_poold_serves_a_file(page, serve, how):
    if how == "option":
        serve("serve", "--config", page)
    else:
        serve(POOLD_CONFIG=str(page))
    with Client(f"{page.parent}/s") as client:
        assert client.call("basic.echo", [1]) == 1
    shown = json.loads(config("show", "--running", "--json", "--socket", f"{page.parent}/s").stdout)
    values = {value["key"]: value for value in shown["values"]}
    assert shown["file"] == str(page)
    assert values["pools.basic.workers"] == {"key": "pools.basic.workers", "value": "1", "origin": f"{page}:8"}
    assert values["pools.basic.surge"]["origin"] == "default"


def test_a_bad_file_ends_with_every_problem_and_78(page):
    page.write_text(page.read_text() + "    wokers: 3\n    max_workers: lots\n")
    for done in (run("poold", "serve", "--config", page), config("check", page), config("show", page), config("diff", page, page)):
        assert done.returncode == 78 and done.stdout == ""
        assert done.stderr.splitlines() == [
            f'{page}:10: pools.basic.wokers: found an unknown key; did you mean "workers"?',
            f'{page}:11: pools.basic.max_workers: found "lots", allowed: a whole number from 0 to 448',
        ]
    problems = json.loads(config("check", page, "--json").stdout)["problems"]
    assert [p["line"] for p in problems] == [10, 11] and problems[1]["key"] == "pools.basic.max_workers"
    assert run("poold", "serve", "--config", page.parent / "missing.yaml").returncode == 78


def test_a_bad_option_is_a_usage_error(tmp_path):
    done = run("poold", "serve", "--socket", tmp_path / "s", "--pool", "a=json", "--workers", "many", "--budget", "never")
    assert done.returncode == 64
    assert '--workers: found "many", allowed: a whole number from 0 to 448' in done.stderr and "--budget: found" in done.stderr
    done = run("poold", "serve", "--pool", "a=/nowhere/x.py")
    assert done.returncode == 64 and "does not exist" in done.stderr


def test_check_and_reference(page):
    done = config("check", page)
    assert done.returncode == 0 and done.stdout == f"{page}: 1 pool, no problems\n"
    assert json.loads(config("check", page, "--json").stdout) == {"problems": []}
    assert config("check", POOLD_CONFIG=str(page)).stdout.startswith(str(page))
    assert config("reference").stdout == (ROOT / "deploy/poold.yaml").read_text()
    assert config("check", ROOT / "deploy/poold.yaml").returncode == 0


@pytest.mark.parametrize("command", ["check", "show", "diff", "reference"])
def test_every_command_has_help_with_an_example(command):
    done = config(command, "--help")
    assert done.returncode == 0 and f"poolctl config {command}" in done.stdout


def test_show_fits_80_columns(page, monkeypatch):
    monkeypatch.chdir(page.parent)
    shown = config("show", "poold.yaml").stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line}
    assert lines["workers"].split() == ["workers", "1", "poold.yaml:8"]
    assert lines["surge"].split() == ["surge", "1", "default"]
    assert max(len(line) for line in shown.splitlines() if str(page.parent) not in line and sys.executable not in line) <= 80
    assert "default" not in config("show", "--changed", "poold.yaml").stdout
    assert config("show", "--running", "poold.yaml").returncode == 64


def test_diff_says_what_each_change_does(page, serve):
    new = page.parent / "new.yaml"
    new.write_text(page.read_text().replace("workers: 1", "workers: 2").replace("found", "lost") + "  more: {module: basic.py}\nlog: {level: debug}\n")
    changes = json.loads(config("diff", page, new, "--json").stdout)["changes"]
    assert {(c["key"], c["effect"]) for c in changes} == {
        ("log.level", "live"), ("pools.basic.workers", "live"), ("pools.basic.environment", "recycle"), ("pools.more", "added")}
    assert "live     pools.basic.workers               1 → 2" in config("diff", page, new).stdout
    assert config("diff", page, page).stdout == "no differences\n"
    socket = f"{page.parent}/s"
    assert config("diff", page, "--socket", socket).returncode == 3
    serve("serve", "--config", page, "--workers", "3")
    # The option stays in force over whatever file is loaded.
    assert config("diff", page, "--socket", socket).stdout == "no differences\n"
    changes = json.loads(config("diff", new, "--socket", socket, "--json").stdout)["changes"]
    assert "pools.basic.workers" not in {c["key"] for c in changes} and "pools.basic.environment" in {c["key"] for c in changes}


def test_pools_folder_and_options_over_it(page, serve):
    folder = page.parent / "pools.d"
    folder.mkdir()
    (folder / "second.yaml").write_text("second: {module: ../basic.py}\n")
    serve("serve", "--config", page, "--workers", "1", "--pool", f"third={WORKERS}/basic.py")
    with Client(f"{page.parent}/s") as client:
        for name in ("basic", "second", "third"):
            assert client.call(f"{name}.echo", [name]) == name


def test_no_configuration_at_all_serves_the_examples(tmp_path, serve):
    if pathlib.Path("/etc/poold/poold.yaml").exists():
        pytest.skip("this machine has a configuration")
    serve(XDG_RUNTIME_DIR=str(tmp_path), PATH=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    with Client(f"{tmp_path}/poold/poold.sock") as client:
        assert client.call("text.summarize", {"text": "One. Two is longer.", "sentences": 1})
    assert (tmp_path / "poold").stat().st_mode & 0o777 == 0o700


def test_what_it_says_to_try_works(tmp_path):
    if pathlib.Path("/etc/poold/poold.yaml").exists():
        pytest.skip("this machine has a configuration")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("POOLD_CONFIG", None)
    process = subprocess.Popen([str(BIN / "poold")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    try:
        lines = list(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        wait_for(lambda: (tmp_path / "poold/poold.sock").exists(), 20, "the socket")
        script = "set -e\n" + "".join(line for line in lines if line.startswith("  "))
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "Two is longer." in done.stdout and "vectors" in done.stdout, done.stderr
    finally:
        process.terminate()
        process.wait(20)
