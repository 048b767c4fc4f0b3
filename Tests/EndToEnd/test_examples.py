"""The clients of proto/examples, which strangers would write from PROTOCOL.md alone, against a real poold."""
import os
import re
import shutil
import signal
import subprocess

import pytest
from conftest import ROOT, wait_for

EXAMPLES = ROOT / "proto/examples"


@pytest.fixture(params=["c", "perl"])
def command(request, tmp_path):
    """What starts the client, without poold's socket."""
    tool = {"c": "cc", "perl": "perl"}[request.param]
    if not shutil.which(tool):
        pytest.skip(f"there is no {tool} on this machine")
    if request.param == "perl":
        return ["perl", str(EXAMPLES / "client.pl")]
    built = str(tmp_path / "client")
    # As the first line of the file says.
    line = re.search(r"Build: (cc .*)", (EXAMPLES / "client.c").read_text()).group(1)
    subprocess.run(line.replace("-o client client.c", f"-Werror -o {built} {EXAMPLES / 'client.c'}").split(), check=True)
    return [built]


@pytest.fixture
def run(command):
    """run(poold, line, …) → what it printed, as lines; its exit status must be 0."""

    def one(poold, *lines):
        # Not text mode, which would change the bytes 13 of a body.
        done = subprocess.run([*command, poold.socket], input=("\n".join(lines) + "\n").encode("latin-1"), capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode("latin-1").split("\n")[:-1]

    return one


def test_they_stay_small():
    for name in ("client.c", "client.pl"):
        assert len((EXAMPLES / name).read_text().splitlines()) < 150


def test_results_errors_and_budgets(poold, run):
    one = poold("basic")
    lines = run(one, "methods", "ping", 'call 1 basic.echo 5000 {"value": [1, "a b"]}', "wait", "call 2 basic.raw 0 @" + __file__, "wait",
                'call 3 basic.fail 5000 ["cold feet"]', "wait", "call 4 basic.sleep 200 [30]", "wait", "call 5 basic.nothing 0 []", "wait",
                "call 6 basic.budget 7000 []")
    text = "\n".join(lines)
    assert re.search(r"^\d+ 1 basic\.echo$", text, re.M) and re.search(r"^\d+ 0 basic\.raw$", text, re.M) and "pong there?" in lines
    assert '1 result [1,"a b"]' in lines
    with open(__file__, encoding="latin-1") as file:
        assert "2 result " + file.read() in text
    assert "3 error 1 ValueError: cold feet (in method basic.fail)" in lines and "Traceback (most recent call last):" in lines
    assert re.search(r"^4 error 3 .*budget", text, re.M)
    assert re.search(r"^5 error 9 .*it has: echo", text, re.M), "not listed, so it went by name"
    assert 5 < float(re.search(r"^6 result (.*)$", text, re.M).group(1)) <= 7


def test_answers_in_any_order_and_cancel(poold, run):
    one = poold("basic", workers=2)
    lines = run(one, "call 1 basic.sleep 20000 [0.7]", "call 2 basic.echo 0 [2]", "wait", "call 3 basic.sleep 0 [60]", "cancel 3", "wait")
    assert lines[:2] == ["2 result 2", '1 result "slept"']
    assert re.match("3 error 4 cancelled", lines[2])


def test_large_bodies_both_ways(poold, run, tmp_path):
    one = poold("basic")
    body = os.urandom(9_000_000)
    (tmp_path / "body").write_bytes(body)
    calls = [f"call {n} basic.raw 60000 @{tmp_path / 'body'}" for n in (1, 2, 3)]
    answers = "\n".join(run(one, *calls, "wait")) + "\n"
    assert sorted(re.findall(r"^([123]) result ", answers, re.M)) == ["1", "2", "3"]
    assert answers.count(body.decode("latin-1")) == 3
    lines = run(one, "call 7 basic.large 60000 [3000000]")
    assert lines == ['7 result "' + "x" * 3_000_000 + '"']


def test_the_end_of_poold_is_told(poold, command):
    one = poold("basic")
    client = subprocess.Popen([*command, one.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    client.stdin.write("ping\ncall 1 basic.sleep 0 [60]\n")
    client.stdin.flush()
    wait_for(lambda: any(w.get("outstanding") for w in one.workers("basic")), what="the call is at a worker")
    one.process.send_signal(signal.SIGKILL)
    output, problem = client.communicate(timeout=20)
    assert client.returncode not in (0, None) and "poold closed the connection" in problem and "1" in problem
    assert "pong there?" in output
