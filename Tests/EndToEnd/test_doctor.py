"""poolctl doctor on this machine, and on configurations that are wrong in one way each."""
import json
import os
import re
import subprocess
import sys

import pytest
from conftest import BIN, ROOT, WORKERS


def doctor(*arguments, **environment):
    command = [str(BIN / "poolctl"), "doctor", "--socket", "/tmp/poolctl-doctor-test/s", *arguments]
    clean = {k: v for k, v in os.environ.items() if k not in ("POOLD_SOCKET", "POOLD_CONTROL", "POOLD_CONFIG")}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**clean, "COLUMNS": "80", **environment})


def findings(*arguments, **environment):
    done = doctor("--json", *arguments, **environment)
    value = json.loads(done.stdout)
    assert (done.returncode == 1) == (value["failures"] > 0), done.stderr
    assert value["ok"] + value["warnings"] + value["failures"] == len(value["findings"])
    for finding in value["findings"]:
        assert finding["level"] == "ok" or (finding["costs"] and finding["advice"]), finding
    return {(f["area"], f["check"]): f for f in value["findings"]}


def configured(tmp_path, **pools):
    path = tmp_path / "poold.yaml"
    lines = ["pools:"]
    for name, keys in pools.items():
        lines.append(f"  {name}:")
        lines += [f"    {key}: {value}" for key, value in {"python": sys.executable, **keys}.items()]
    path.write_text("\n".join(lines) + "\n")
    return "--config", str(path)


def test_this_machine_can_run_poold():
    found = findings("--python", sys.executable)
    for area, check in (("kernel", "pidfd_open"), ("kernel", "memfd_create with seals"), ("kernel", "membarrier"), ("kernel", "close_range"),
                        ("kernel", "PR_SET_CHILD_SUBREAPER"), ("kernel", "epoll_pwait2"), ("kernel", "clock source"), ("limits", "descriptors"),
                        ("limits", "processes"), ("memory", "overcommit"), ("memory", "/dev/shm"), ("processes", "cgroup v2"), ("systemd", "systemd"),
                        ("sockets", "path"), ("sockets", "running poold")):
        assert (area, check) in found, (area, check)
    assert found["kernel", "pidfd_open"]["level"] == "ok"
    assert found["sockets", "running poold"]["found"] == "none"


def test_it_promises_nothing_of_cgroups():
    """poold does not use them, wherever it runs and whatever is delegated to it."""
    found = findings("--python", sys.executable)["processes", "cgroup v2"]
    assert found["level"] == "warn" and "does not use cgroups" in found["found"] and "Delegate" not in json.dumps(found)


def test_the_keys_that_it_names_exist():
    """In what it says, `recycle.max_memory` and the like are keys of the configuration."""
    reference = subprocess.run([str(BIN / "poolctl"), "config", "reference"], capture_output=True, text=True, timeout=20).stdout
    named = {key for source in (ROOT / "Sources/poolctl/Doctor").glob("*.swift") for key in re.findall(r"`([a-z]+[._][a-z_.]+)`", source.read_text())}
    assert "recycle.max_memory" in named and all(f" {key.split('.')[-1]}:" in reference for key in named), named


def test_it_reads_well():
    done = doctor()
    assert max(len(line) for line in done.stdout.splitlines()) <= 80 and "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1].count(",") == 2
    assert "ok " not in doctor("--problems").stdout.split("\n\n")[0]


def test_no_python(tmp_path):
    found = findings(*configured(tmp_path, one={"module": WORKERS / "basic.py", "python": "/nowhere/python3"}))
    assert any(f["level"] == "fail" and "/nowhere/python3" in f["found"] + f["check"] for f in found.values())


def test_a_python_that_is_none(tmp_path):
    program = tmp_path / "python3"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    found = findings(*configured(tmp_path, one={"module": WORKERS / "basic.py", "python": program}))
    assert found["python", str(program)]["level"] == "fail"


@pytest.mark.parametrize("module, level, check, words", [
    ("basic", "ok", "template", "safe"), ("starts_thread", "warn", "template", "cannot be forked"), ("import_error", "fail", "module", "no_such_module_anywhere"),
    ("dies_at_boot", "fail", "module", "cannot be imported"),
])
def test_modules_are_tried_in_a_process_of_their_own(tmp_path, module, level, check, words):
    found = findings(*configured(tmp_path, one={"module": WORKERS / f"{module}.py"}))
    finding = found["pool one", check]
    assert finding["level"] == level and words in finding["found"] + finding["costs"], finding
    assert found["python", "package poold"]["level"] == "ok"


def test_a_configuration_with_errors(tmp_path):
    (tmp_path / "poold.yaml").write_text("pools:\n  one:\n    modul: x\n    workers: many\n")
    done = doctor("--config", str(tmp_path / "poold.yaml"))
    assert done.returncode == 1 and "poold.yaml:3" in done.stdout.replace("\n      ", "") and "poold.yaml:4" in done.stdout.replace("\n      ", "")


def test_a_running_poold_is_named(poold):
    one = poold("basic")
    done = subprocess.run([str(BIN / "poolctl"), "doctor", "--json", "--socket", one.socket], capture_output=True, text=True, timeout=120)
    found = [f for f in json.loads(done.stdout)["findings"] if f["check"] == "running poold"]
    assert found[0]["level"] == "ok" and str(one.pid) in found[0]["found"]


def test_few_descriptors_and_a_long_path():
    command = f"ulimit -Hn 200; {BIN}/poolctl doctor --json --socket /tmp/{'x' * 120}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    found = {(f["area"], f["check"]): f for f in json.loads(done.stdout)["findings"]}
    assert found["limits", "descriptors"]["level"] in ("warn", "fail") and found["sockets", "path"]["level"] == "fail" and done.returncode == 1
