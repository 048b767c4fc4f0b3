"""The badly behaved workers of the Swift tests do what their names say; a test of poold would prove nothing if one behaved."""
import os
import pathlib
import signal
import time

import pytest
from supervisor import RUNNING, STARTED, Worker, parent_of, state_of, wait_for

from poold import _wire

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "Tests/PoolRuntimeTests/Workers"
if not FOLDER.is_dir():
    pytest.skip("only in poold's source tree", allow_module_level=True)


def start(name):
    return Worker(str(FOLDER / f"{name}.py"))


def kill(one):
    os.kill(one.pid, signal.SIGKILL)
    assert one.exit_status() == -signal.SIGKILL


def resident(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_leaks_memory():
    with start("leaks_memory") as one:
        one.ready()
        before = resident(one.pid)
        assert one.call("leak", b"[20]")[6] == b"20" and resident(one.pid) - before > 15 << 20


def test_ignores_term():
    with start("ignores_term") as one:
        one.ready().call("ignore")
        os.kill(one.pid, signal.SIGTERM)
        assert one.call("ignore")[0] == _wire.RESULT


def test_sends_bad_length():
    with start("sends_bad_length") as one:
        one.ready()
        one.send(one.call_frame("answer"))
        with pytest.raises(_wire.WireError, match="below 28"):
            one.frame()
        kill(one)


def test_dies_at_boot():
    with start("dies_at_boot") as one:
        assert one.exit_status() == 9


def test_cannot_be_imported():
    with start("cannot_be_imported") as one:
        assert one.frame()[0] == _wire.HELLO and one.frame()[2] == _wire.STATUS_NUMBER["setup_failed"] and one.exit_status() == 70


def test_floods_stdout():
    with start("floods_stdout") as one:
        one.ready().call("flood", b"[3]")
        assert os.fstat(one.output).st_size == 3 << 20


def test_forks_grandchildren():
    with start("forks_grandchildren") as one:
        one.ready()
        pids = [int(one.call(kind)[6]) for kind in ("fork", "popen", "setsid")]
        try:
            wait_for(lambda: [os.getpgid(pid) == one.pid for pid in pids] == [True, True, False], what="their groups")
            assert all(parent_of(pid) == one.pid for pid in pids)
            assert os.path.exists(f"/proc/{pids[0]}/fd/3") and not os.path.exists(f"/proc/{pids[1]}/fd/3")
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)


def test_closes_its_socket():
    with start("closes_its_socket") as one:
        one.ready()
        one.send(one.call_frame("close"))
        with pytest.raises(EOFError):
            one.frame()
        assert state_of(one.pid) in "SR"
        kill(one)


def test_holds_the_gil():
    with start("holds_the_gil") as one:
        one.ready()
        one.send(one.call_frame("match", b"[]"))
        wait_for(lambda: one.page[RUNNING] == 1, what="the call to run")
        time.sleep(0.2)
        one.revoke(1)
        assert one.frame()[2] == _wire.STATUS_NUMBER["cancelled"]
        one.send(one.call_frame("hold", b"[60]"))
        wait_for(lambda: one.page[RUNNING] == 2, what="the call to run")
        time.sleep(0.5)
        one.revoke(2)
        assert one.silent(0.3)
        os.kill(one.pid, signal.SIGUSR2)
        wait_for(lambda: "in hold" in one.stacks(), what="its stack, which needs no lock")
        kill(one)


def test_is_never_ready():
    with start("is_never_ready") as one:
        assert one.frame()[0] == _wire.HELLO and one.silent(0.5)
        os.kill(one.pid, signal.SIGUSR2)
        wait_for(lambda: "in load" in one.stacks(), what="the stack of its set-up")
        os.kill(one.pid, signal.SIGTERM)
        assert one.exit_status(2) == -signal.SIGTERM


def test_exits_between_calls():
    with start("exits_between_calls") as one:
        assert one.ready().call("leave")[0] == _wire.RESULT
        assert one.exit_status(2) == 0 and one.page[RUNNING] == 0


def test_scribbles_its_page():
    with start("scribbles_its_page") as one:
        one.ready()
        one.send(one.call_frame("scribble"))
        assert one.exit_status() == -signal.SIGKILL and one.page[STARTED] == 1 << 60


def test_replies_with_a_wrong_id():
    with start("replies_with_a_wrong_id") as one:
        one.ready()
        one.send(one.call_frame("answer"))
        assert one.frame()[3] == 777
        kill(one)


def test_replies_twice():
    with start("replies_twice") as one:
        assert one.ready().call("answer")[6] == b'"first"'
        assert (one.frame()[3], one.silent(0)) == (one.number, True)


def test_never_answers_ping():
    with start("never_answers_ping") as one:
        one.ready()
        one.send(_wire.frame(_wire.PING, id=1))
        assert one.call("echo", b"body")[6] == b"body" and one.silent(0.2)


def test_hangs_in_call():
    with start("hangs_in_call") as one:
        one.ready()
        one.send(one.call_frame("hang"))
        wait_for(lambda: one.page[RUNNING] == 1, what="the call to run")
        time.sleep(0.1)  # the page names the call a moment before its function is entered
        one.revoke(1)
        os.kill(one.pid, signal.SIGTERM)
        assert one.silent(0.3)
        kill(one)


def test_stops_itself():
    with start("stops_itself") as one:
        one.ready()
        one.send(one.call_frame("stop"))
        wait_for(lambda: state_of(one.pid) == "T", what="its stop")
        os.kill(one.pid, signal.SIGCONT)
        assert one.frame()[6] == b'"continued"'


def test_all_are_tested():
    names = {path.stem for path in FOLDER.glob("*.py")}
    assert names == {name[5:] for name in globals() if name.startswith("test_") and name != "test_all_are_tested"}
