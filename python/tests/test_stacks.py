"""A living worker says where it is, and a dying one too."""
import os
import signal
import time

import pytest
from supervisor import RUNNING, Template, Worker, wait_for

from poold import _stacks, _wire

WANTED, DONE = 4, 5


@pytest.fixture(params=["cold", "forked"])
def own(request):
    if request.param == "cold":
        with Worker("waits") as one:
            yield one.ready()
    else:
        with Template("waits") as template, Worker("waits", template) as one:
            yield one.ready()


def ask(one):
    """Asks for a stack as poold does; returns what was written."""
    os.truncate(one.stack, 0)
    os.lseek(one.stack, 0, os.SEEK_SET)
    one.page[WANTED] += 1
    os.kill(one.pid, signal.SIGUSR1)
    wait_for(lambda: one.page[DONE] == one.page[WANTED], what="an answer")
    return one.stacks()


def begin(one, method, body):
    one.send(one.call_frame(method, body))
    wait_for(lambda: one.page[RUNNING] == one.number, what="the call to run")
    time.sleep(0.1)  # the page names the call a moment before its function is entered


def test_of_a_running_call(own):
    begin(own, "nap", b"[0.6]")
    text = ask(own)
    assert text.startswith("Thread MainThread:") and "in nap" in text and "time.sleep(seconds)" in text
    assert "_serve.py" not in text and "runpy" not in text, "only the application's frames"
    assert own.frame()[6] == b'"slept"', "the call is not disturbed"


def test_of_an_idle_worker(own):
    assert "waits for a call" in ask(own)
    assert own.call("nap", b"[0]")[6] == b'"slept"'


def test_asked_again_and_not_asked(own):
    for _ in range(20):
        assert "waits for a call" in ask(own)
    os.truncate(own.stack, 0)
    os.kill(own.pid, signal.SIGUSR1)
    assert own.call("nap", b"[0]")[6] == b'"slept"' and own.stacks() == ""


def test_other_threads_by_name(own):
    begin(own, "in_thread", b"[0.6]")
    text = ask(own)
    assert "Thread the helper:" in text and "in helper_function" in text and "in in_thread" in text
    own.frame()


def test_tasks_of_asyncio(own):
    begin(own, "in_asyncio", b"[0.8]")
    text = ask(own)
    assert "asyncio task first task:" in text and text.count("in inner_coroutine") == 2
    assert own.frame()[6] == b'"gathered"'


def test_deep_stacks_keep_the_innermost_frames(own):
    begin(own, "deep", b"[0.6, 300]")
    text = ask(own)
    assert "frames further out" in text and "in nap" in text and len(text) < _stacks.LIMIT
    own.frame()


def test_the_stack_comes_before_the_interruption(own):
    begin(own, "nap", b"[5]")
    own.page[64 + own.number % 64] = own.number
    text = ask(own)
    assert "in nap" in text
    reply = own.frame()
    assert reply[0] == _wire.ERROR and _wire.STATUS[reply[2]] == "cancelled"


def test_a_dump_is_bounded():
    class Frame:
        pass

    assert len(_stacks.describe(None)) <= _stacks.LIMIT
    assert b"could not be told" in _stacks.describe(Frame())


def test_a_crash_leaves_its_stack(own):
    begin(own, "nap", b"[5]")
    os.kill(own.pid, signal.SIGSEGV)
    assert own.exit_status() == -signal.SIGSEGV and "Segmentation fault" in own.stacks() and "in nap" in own.stacks()


def test_idempotency_metadata():
    assert _wire.idempotency_metadata("abc") == b"\0\0\0\5\x2a\3abc"
    assert _wire.idempotency_metadata("k" * 300) == b"\0\0\1\x2f\x2a\xac\2" + b"k" * 300
    with pytest.raises(ValueError, match="at most 1024"):
        _wire.idempotency_metadata("k" * 1025)
