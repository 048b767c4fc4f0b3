"""Warming commands: before a worker is ready, and again on request."""
import json

import pytest
from supervisor import Template, Worker, wait_for

from poold import _wire


def described(*commands, timeout=20.0):
    return json.dumps({"timeout": timeout, "commands": list(commands)})


def call(method, *arguments):
    return {"call": method, "arguments": json.dumps(list(arguments))}


@pytest.fixture(params=["cold", "forked"])
def start(request):
    """start(POOLD_WARM) → a worker that may be ready."""
    opened = []

    def one(text):
        if request.param == "cold":
            worker = Worker("warmed", variables={"POOLD_WARM": text})
        else:
            template = Template("warmed", POOLD_WARM=text)
            opened.append(template)
            worker = Worker("warmed", template=template)
        opened.append(worker)
        return worker

    yield one
    for thing in reversed(opened):
        thing.close()


def refusal(worker):
    """The text of `setup_failed`."""
    assert worker.frame()[0] == _wire.HELLO
    kind, _, status, number, _, _, body = worker.frame()
    assert (kind, _wire.STATUS[status], number) == (_wire.ERROR, "setup_failed", 0)
    assert worker.exit_status() == 70
    return body.decode()


def again(worker):
    """Calls method 65535."""
    worker.methods["poold.warm"] = 65535
    reply = worker.call("poold.warm", b"")
    assert reply[0] == _wire.RESULT, reply
    return json.loads(reply[6])["commands"]


def value(reply):
    assert reply[0] == _wire.RESULT, reply
    return json.loads(reply[6])


def test_commands_run_in_order_after_setup(start, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nmodule = sys.modules['warmed']\nmodule.seen.append(__name__)\n")
    worker = start(described(call("remember", "ä"), {"call": "take", "arguments": '"bytes"'}, {"import": "colorsys"}, {"script": str(script)})).ready()
    assert value(worker.call("told")) == ["setup", "ä", "bytes", "__main__"]
    assert "poold.warm" not in worker.methods
    outcomes = again(worker)
    assert [(o["command"], o["succeeded"], o["problem"]) for o in outcomes] == [
        ("call remember", True, ""), ("call take", True, ""), ("import colorsys", True, ""), (f"script {script}", True, "")]
    assert all(int(o["nanoseconds"]) > 0 for o in outcomes)
    assert value(worker.call("told"))[4:] == ["ä", "bytes", "__main__"]
    assert value(worker.call("alarm_handler"))


@pytest.mark.parametrize("command, words", [
    (call("fail", "cold feet"), ["warming failed", "call fail", "ValueError: cold feet", "Traceback", "in fail"]),
    (call("nothing"), ["call nothing", "has no method nothing; it has: remember"]),
    (call("remember"), ["call remember", "BadArguments"]),
    ({"call": "remember", "arguments": "{"}, ["call remember", "BadArguments"]),
    ({"call": "take", "arguments": "[1]"}, ["call take", "JSON string"]),
    ({"import": "no_such_module_anywhere"}, ["import no_such_module_anywhere", "ModuleNotFoundError"]),
    ({"script": "/nowhere/warm.py"}, ["script /nowhere/warm.py", "FileNotFoundError"]),
    ({"unknown": 1}, ["POOLD_WARM cannot be read"]),
])
def test_a_failing_command_keeps_the_worker_from_serving(command, words):
    with Worker("warmed", variables={"POOLD_WARM": described(command, call("remember", 1))}) as worker:
        text = refusal(worker)
        assert not [word for word in words if word not in text], text
        assert "warming failed" in text.split("\n")[0]


@pytest.mark.parametrize("end, succeeds", [("", True), ("0", True), ("None", True), ("3", False), ("'no model'", False)])
def test_a_script_that_exits(tmp_path, end, succeeds):
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nsys.exit({end})\n")
    with Worker("warmed", variables={"POOLD_WARM": described({"script": str(script)}, call("remember", 1))}) as worker:
        if succeeds:
            assert value(worker.ready().call("told")) == ["setup", 1]
            assert [o["succeeded"] for o in again(worker)] == [True, True]
        else:
            assert f"SystemExit: {end}".replace("'", "") in refusal(worker)


def test_a_failing_command_in_a_fork(start):
    assert "ValueError: no" in refusal(start(described(call("remember", 1), call("fail"))))


@pytest.mark.parametrize("method", ["hang", "stubborn"])
def test_an_overlong_command(method):
    with Worker("warmed", variables={"POOLD_WARM": described(call(method), timeout=0.2)}) as worker:
        text = refusal(worker)
        assert f"call {method}" in text and "longer than 0.2 s" in text and "Traceback" in text


def test_failures_on_request_are_told_one_by_one(start):
    worker = start("")
    worker.ready()
    assert again(worker) == []


def test_a_failure_on_request_does_not_stop_the_others(tmp_path):
    # The script fails the second time.
    script = tmp_path / "script.py"
    script.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).mkdir()\n")
    text = described({"script": str(script)}, call("hang", 0.01), call("remember", 2))
    with Worker("warmed", variables={"POOLD_WARM": text}) as worker:
        worker.ready()
        outcomes = again(worker)
        assert [o["succeeded"] for o in outcomes] == [False, True, True]
        assert "FileExistsError" in outcomes[0]["problem"] and "Traceback" in outcomes[0]["problem"]
        assert value(worker.call("told")) == ["setup", 2, 2]


def test_a_warming_call_is_cancelled_like_any_other(tmp_path):
    flag = tmp_path / "flag"
    script = tmp_path / "script.py"
    script.write_text(f"import pathlib, time\nflag = pathlib.Path({str(flag)!r})\nif flag.exists(): time.sleep(60)\nflag.touch()\n")
    with Worker("warmed", variables={"POOLD_WARM": described({"script": str(script)}, timeout=100)}) as worker:
        worker.ready()
        worker.methods["poold.warm"] = 65535
        worker.send(worker.call_frame("poold.warm", b""))
        wait_for(lambda: worker.page[2] == worker.number, what="the call runs")
        assert worker.silent(0.2)
        worker.revoke(worker.number)
        reply = worker.frame()
        assert reply[0] == _wire.ERROR and _wire.STATUS[reply[2]] == "cancelled"
        assert value(worker.call("told")) == ["setup"]


def test_the_template_does_not_run_them(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import os\nopen({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}}\\n')\n")
    with Template("warmed", POOLD_WARM=described({"script": str(script)})) as template, Worker("warmed", template=template) as worker:
        worker.ready()
        assert (tmp_path / "pids").read_text() == f"{worker.pid}\n"
