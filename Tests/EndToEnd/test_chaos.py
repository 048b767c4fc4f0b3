"""The chaos run notices what it is made to prove: each deliberate fault of its own ends it with status 1 and its name."""
import json
import os
import subprocess
import sys

from conftest import BIN

# A fault that the run commits itself, and what it must say of it.
FAULTS = {
    "lost-reply": "lost: call",
    "other-body": "bytes that are not its",
    "second-run": "ran 2 times",
    "descriptor": "descriptors of poold at the end",
    "process": "outlived poold",
    "counter": "the client made",
    "overload": "were refused as overloaded",
}


def chaos(folder, *options):
    command = [BIN / "poolbench", "chaos", "--seconds", "10", "--rate", "400", "--seed", "3", "--python", sys.executable, "--folder", folder, "--json"]
    run = subprocess.run([*map(str, command), *options], capture_output=True, text=True, timeout=240, env=dict(os.environ))
    return run, json.loads(run.stdout)


def test_every_detector_fires(tmp_path_factory):
    run, report = chaos(tmp_path_factory.mktemp("chaos"), *(part for fault in FAULTS for part in ("--sabotage", fault)))
    assert run.returncode == 1, run.stderr
    violations = report["violations"]
    for fault, text in FAULTS.items():
        assert any(text in violation for violation in violations), (fault, violations)
    assert any("processes at the end" in violation for violation in violations), violations
    # Each of them, and nothing by accident.
    known = [*FAULTS.values(), "processes at the end", "did not come to rest", "poold counted"]
    assert [violation for violation in violations if not any(text in violation for text in known)] == []
    assert report["survivors"] == 1
    assert report["memory_kib"].startswith("not judged")
