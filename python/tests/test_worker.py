"""A worker against section 7 of PROTOCOL.md: cold and forked, well and badly treated."""
import json
import os
import random
import re
import signal
import struct
import subprocess
import threading
import time

import pytest
from supervisor import PYTHON, REVOKED, RUNNING, SKIPPED, STARTED, Template, Worker, environment, state_of, wait_for

from poold import _wire

SECOND = 1_000_000_000
STATUS = _wire.STATUS_NUMBER


@pytest.fixture(scope="module")
def template():
    with Template() as one:
        yield one


@pytest.fixture(scope="module", params=["cold", "forked"])
def shared(request):
    """One worker for all tests that leave it as it was."""
    if request.param == "cold":
        with Worker() as one:
            yield one.ready()
    else:
        with Template() as template, Worker(template=template) as one:
            yield one.ready()


@pytest.fixture(params=["cold", "forked"])
def own(request, template):
    """A worker of the test's own."""
    with Worker(template=template if request.param == "forked" else None) as one:
        yield one.ready()


def now():
    return time.monotonic_ns()


def error_of(reply, status):
    assert reply[0] == _wire.ERROR and _wire.STATUS[reply[2]] == status, reply
    return reply[6].decode()


def returned(reply):
    assert reply[0] == _wire.RESULT and reply[1] == _wire.END and reply[2] == 0, reply
    return json.loads(reply[6])


# ---- results and errors


@pytest.mark.parametrize(
    "body, result",
    [(b"", None), (b"[]", None), (b"{}", None), (b"[1]", 1), (b'{"value":2}', 2), (b'{"value":2,"other":3}', [2, 3]), (b"5", 5), (b'"text"', "text"),
     (b"null", None), (b"[null]", None), (b"[[1,2]]", [1, 2]), (b'[{"a":1}]', {"a": 1}), ('["ä€😀"]'.encode(), "ä€😀"), (b'["\\u00e4"]', "ä"), (b" [1.5] ", 1.5)])
def test_arguments(shared, body, result):
    assert returned(shared.call("echo", body)) == result


def test_bytes_are_untouched(shared):
    for size in (0, 1, 100, 65503, 65504, 65505, 65536, 65537, 131072, 1_000_003):
        body = random.Random(size).randbytes(size)
        assert shared.call("raw", body)[6] == body, size
    assert shared.codecs["raw"] == 0 and shared.codecs["echo"] == 1
    assert [shared.call("typed", kind)[6] for kind in (b"bytearray", b"memoryview", b"floats")] == [b"ab", b"ab", b"x" * 16]
    for kind in (b"text", b"None"):
        assert "needs a bytes-like value" in error_of(shared.call("typed", kind), "result_unencodable")


def test_a_large_body_among_small_ones(shared):
    large = random.Random(1).randbytes(5_000_000)
    frames = [(b"a", 0), (large, 0), (b"b", 0), (large[:70_000], 0), (b"c", 0)]
    data = b"".join(shared.call_frame("raw", body) for body, _ in frames)
    sender = threading.Thread(target=shared.send, args=(data,))
    sender.start()
    assert [shared.frame()[6] for _ in frames] == [body for body, _ in frames]
    sender.join()


@pytest.mark.parametrize("method, body, words", [
    ("echo", b"[1,2,3]", r"pool\.echo\(value=None, \*, other=None\): .*positional"),
    ("echo", b'{"nonsense":1}', r"pool\.echo\(.*nonsense"),
    ("sleep", b"[]", r"pool\.sleep\(seconds: float\)"),
    ("echo", b"{broken", r"the payload of pool\.echo is not valid JSON"),
    ("echo", b"\xff", r"not valid JSON.*utf-8"),
    ("echo", b"[" * 100_000, r"not valid JSON"),
    ("length", b"[1,2]", r"length|len"),
    ("refuse", b"[3]", r"3 is odd"),
])
def test_bad_arguments(shared, method, body, words):
    assert re.search(words, error_of(shared.call(method, body), "bad_arguments"))


def test_a_type_error_inside_is_the_methods_own(shared):
    # The call has begun: bad_arguments would deny that.
    assert error_of(shared.call("type_error_inside", b"[1]"), "application_error").startswith("TypeError: object of type 'int' has no len() (in method pool.type_error_inside)")
    assert error_of(shared.call("decorated", b"[]"), "application_error").startswith("TypeError")
    assert error_of(shared.call("length", b"[5]"), "application_error").startswith("TypeError")
    assert error_of(shared.call("fail", b'["TypeError"]'), "application_error").startswith("TypeError: gone wrong")


@pytest.mark.parametrize("kind", ["ValueError", "SystemExit", "KeyboardInterrupt", "MemoryError", "GeneratorExit", "ConnectionError"])
def test_what_a_method_raises(shared, kind):
    first, _, detail = error_of(shared.call("fail", json.dumps([kind, "two\nlines"]).encode()), "application_error").partition("\n")
    assert first == f"{kind}: two lines (in method pool.fail)"
    assert detail.startswith("Traceback") and "in fail\n" in detail and "poold/_" not in detail
    assert returned(shared.call("echo", b"[1]")) == 1


def test_hard_errors_are_survived(shared):
    assert error_of(shared.call("recurse"), "application_error").startswith("RecursionError")
    assert "describing it raised RuntimeError" in error_of(shared.call("hostile"), "application_error")
    text = error_of(shared.call("fail_in_a_chain"), "application_error")
    assert "KeyError" in text and "direct cause" in text
    long = error_of(shared.call("fail", json.dumps(["ValueError", "x" * 300_000]).encode()), "application_error")
    assert len(long) <= 65536
    assert returned(shared.call("echo", b"[1]")) == 1


def test_unencodable(shared):
    for kind in ("object", "nan", "loop", "surrogate", "bytes"):
        assert "does not fit JSON" in error_of(shared.call("unencodable", json.dumps([kind]).encode()), "result_unencodable")


def test_no_such_method(shared):
    shared.methods["gone"] = 500
    assert "500" in error_of(shared.call("gone"), "no_such_method")


def test_result_too_large(template):
    with Worker(template=template, limit=100_000) as one:
        one.ready()
        assert len(one.call("size", b"100000")[6]) == 100_000
        assert "100001 bytes" in error_of(one.call("size", b"100001"), "result_too_large")
        assert one.call("raw", b"x")[6] == b"x"


def test_budget_and_session(shared):
    assert 4.9 < returned(shared.call("budget", deadline=now() + 5 * SECOND)) <= 5
    assert returned(shared.call("budget")) is None
    assert returned(shared.call("session", session=2**63 + 5)) == 2**63 + 5
    assert returned(shared.call("session")) == 0


def test_metadata_is_skipped(shared):
    assert returned(shared.call("echo", struct.pack(">I", 3) + b"abc[7]", flags=3)) == 7
    assert shared.call("raw", struct.pack(">I", 70_000) + b"m" * 70_000 + b"payload", flags=3)[6] == b"payload"
    assert shared.call("raw", struct.pack(">I", 3) + b"abc" + b"p" * 70_000, flags=3)[6] == b"p" * 70_000


def test_priorities_and_idempotence_are_ignored(shared):
    assert returned(shared.call("echo", b"[7]", flags=0x51)) == 7


def test_time_says_how_long_it_ran(shared):
    assert 0.05 * SECOND <= shared.call("sleep", b"[0.05]")[5] < 0.5 * SECOND
    assert 0 < shared.call("raw", b"x")[5] < 0.01 * SECOND


def test_the_environment(shared):
    found = returned(shared.call("environment"))
    assert found["POOLD_POOL"] == "pool" and found["POOLD_SLOT"] == "3" and found["POOLD_GENERATION"].isdigit()


def test_ping(shared):
    shared.send(_wire.frame(_wire.PING, b"body", id=77, time=99))
    assert shared.frame() == (_wire.PONG, 0, 0, 77, 0, 99, b"body")


def test_lines_reach_the_log_at_once(shared):
    shared.call("print_line", b'["a line"]')
    assert "a line\n" in shared.log()


def test_programs_that_a_method_starts_inherit_only_the_output(own):
    pid = returned(own.call("run_program", b'["5"]'))
    try:
        wait_for(lambda: "sleep" in open(f"/proc/{pid}/cmdline").read(), what="sleep")
        # The loader has a library open for a moment.
        wait_for(lambda: sorted(int(d) for d in os.listdir(f"/proc/{pid}/fd")) == [0, 1, 2], what="no descriptor but the output")
    finally:
        os.kill(pid, signal.SIGKILL)


# ---- order, batches, the page


def test_byte_by_byte(shared):
    for byte in shared.call_frame("echo", b"[1]") + shared.call_frame("raw", b"two"):
        shared.send(bytes((byte,)))
    assert [shared.frame()[6] for _ in range(2)] == [b"1", b"two"]


def test_a_reply_does_not_wait_for_the_rest_of_the_next_frame(shared):
    for body in (b"x" * 10, b"x" * 500_000):
        following = shared.call_frame("raw", b"first") + shared.call_frame("raw", body)
        cut = len(following) - len(body) + 5
        shared.send(following[:cut])
        assert shared.frame(2)[6] == b"first"
        shared.send(following[cut:])
        assert shared.frame()[6] == body


def test_many_calls_come_back_in_order(shared):
    first = shared.number + 1
    data = b"".join(shared.call_frame("raw", b"%d" % n) for n in range(3000))
    sender = threading.Thread(target=shared.send, args=(data,))
    sender.start()
    replies = [shared.frame() for _ in range(3000)]
    sender.join()
    assert [r[3] for r in replies] == list(range(first, first + 3000))
    assert [r[6] for r in replies] == [b"%d" % n for n in range(3000)]
    assert shared.page[STARTED] == shared.number and shared.page[RUNNING] == 0


def test_replies_do_not_wait_for_a_slow_call(own):
    # Once measured as slow: what is finished is sent before it begins.
    own.call("sleep", b"[0.05]")
    for _ in range(3):
        own.call("raw", b"")
    own.send(own.call_frame("raw", b"quick") + own.call_frame("sleep", b"[1]"))
    began = time.monotonic()
    assert own.frame()[6] == b"quick" and time.monotonic() - began < 0.5
    wait_running(own)
    own.frame()
    # Never measured: the same.
    own.send(own.call_frame("raw", b"quick") + own.call_frame("spin", b"[1]"))
    began = time.monotonic()
    assert own.frame()[6] == b"quick" and time.monotonic() - began < 0.5


def test_expired_and_revoked_calls_do_not_begin(own):
    past = own.call("echo", b"[1]", deadline=now() - 1)
    assert past[5] == 0 and "expired" in error_of(past, "timeout_waiting")
    own.revoke(own.number + 1, signalled=False)
    revoked = own.call("echo", b"[1]")
    assert revoked[5] == 0 and "revoked" in error_of(revoked, "cancelled")
    # Of another call in the same place of the ring.
    own.page[REVOKED + (own.number + 1) % 64] = own.number + 1 + 64
    assert returned(own.call("echo", b"[1]")) == 1
    assert own.page[SKIPPED] == 2 and own.page[STARTED] == own.number
    large = own.call("raw", b"x" * 300_000, deadline=1)
    assert error_of(large, "timeout_waiting") and returned(own.call("echo", b"[2]")) == 2


def test_a_call_expires_behind_another(own):
    own.call("sleep", b"[0]")
    own.send(own.call_frame("sleep", b"[0.2]") + own.call_frame("echo", b"[1]", deadline=now() + SECOND // 10))
    assert own.frame()[0] == _wire.RESULT
    assert error_of(own.frame(), "timeout_waiting")


def test_death_in_a_batch_leaves_a_truthful_page(own):
    own.call("raw", b"warm")
    calls = [("raw", b"1"), ("raw", b"2"), ("die", b"[7]"), ("raw", b"4"), ("raw", b"5")]
    first = own.number + 1
    own.send(b"".join(own.call_frame(*call) for call in calls))
    assert own.exit_status() == 7
    assert own.page[STARTED] == first + 2 and own.page[RUNNING] == first + 2
    replies = []
    with pytest.raises(EOFError):
        while True:
            replies.append(own.frame())
    # `die` was never measured, so the replies before it were sent.
    assert [r[6] for r in replies] == [b"1", b"2"]


# ---- cancellation


def wait_running(worker):
    wait_for(lambda: worker.page[RUNNING] == worker.number, what="the call to run")


@pytest.mark.parametrize("method", ["sleep", "spin"])
def test_a_running_call_is_interrupted(own, method):
    own.send(own.call_frame(method, b"[30]"))
    wait_running(own)
    began = time.monotonic()
    own.revoke(own.number)
    reply = own.frame()
    assert "while it ran" in error_of(reply, "cancelled") and reply[5] > 0 and time.monotonic() - began < 1
    assert own.page[RUNNING] == 0
    assert returned(own.call("echo", b"[1]")) == 1


def test_a_call_that_swallows_its_cancellation_is_struck_once(own):
    own.send(own.call_frame("swallow", b"[0.5]"))
    wait_running(own)
    time.sleep(0.1)  # It runs, but is perhaps not inside of its `try` yet.
    for _ in range(5):
        own.revoke(own.number)
        time.sleep(0.03)
    assert returned(own.frame()) == 1


def test_a_mark_that_is_taken_away_again_is_no_expiry(own):
    """poold takes back what was sent ahead, sees that it has begun, and lets it be: just then the worker looks."""
    page, over = own.page, threading.Event()

    def torment():
        while not over.is_set():
            number = page[STARTED] + 1
            for _ in range(20):
                page[REVOKED + number % 64] = number
                page[REVOKED + number % 64] = 0

    thread = threading.Thread(target=torment)
    thread.start()
    try:
        for _ in range(60):
            own.send(b"".join(own.call_frame("echo", b"[1]") for _ in range(200)))
            for _ in range(200):
                reply = own.frame()
                assert (reply[0], reply[2]) in ((_wire.RESULT, 0), (_wire.ERROR, 4)), reply
    finally:
        over.set()
        thread.join()


def test_signals_without_a_revocation_are_harmless(own):
    for _ in range(20):
        os.kill(own.pid, signal.SIGUSR1)
        time.sleep(0.002)
    own.send(own.call_frame("sleep", b"[0.2]"))
    wait_running(own)
    own.revoke(own.number + 64, signalled=True)
    os.kill(own.pid, signal.SIGINT)
    assert returned(own.frame()) == "slept"


def test_cancelled_never_leaks_between_calls(own):
    """Signals at random moments, revocations of calls that are past, running and to come: each call has one answer, in order."""
    stop = threading.Event()
    chance = random.Random(7)

    def torment():
        while not stop.is_set():
            if chance.random() < 0.5:
                number = own.page[STARTED] + chance.randrange(-2, 4)
                if number > 0:
                    own.page[REVOKED + number % 64] = number
            os.kill(own.pid, signal.SIGUSR1)
            time.sleep(chance.random() * 0.0005)

    tormentor = threading.Thread(target=torment)
    tormentor.start()
    ends = {"result": 0, "unrun": 0, "interrupted": 0}
    try:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            asked = [("raw", b"%d" % n) if chance.random() < 0.7 else ("spin", b"[0.0003]") for n in range(8)]
            first = own.number + 1
            own.send(b"".join(own.call_frame(*call) for call in asked))
            for at, (method, body) in enumerate(asked):
                reply = own.frame()
                assert reply[3] == first + at
                if reply[0] == _wire.RESULT:
                    assert reply[6] == (body if method == "raw" else b'"spun"')
                    ends["result"] += 1
                else:
                    assert reply[2] == STATUS["cancelled"], reply
                    ends["interrupted" if reply[5] else "unrun"] += 1
    finally:
        stop.set()
        tormentor.join()
    assert state_of(own.pid) in "SR" and own.page[RUNNING] == 0 and own.page[SKIPPED] == ends["unrun"]
    assert min(ends.values()) > 0, ends
    own.page[REVOKED:REVOKED + 64] = memoryview(bytes(512)).cast("Q")
    assert returned(own.call("echo", b"[1]")) == 1


def test_stacks_on_request(own):
    own.send(own.call_frame("sleep", b"[0.5]"))
    wait_running(own)
    time.sleep(0.1)  # the page names the call a moment before its function is entered
    os.kill(own.pid, signal.SIGUSR2)
    wait_for(lambda: "in sleep" in own.stacks(), what="a stack")
    assert returned(own.frame()) == "slept"


# ---- the end


def test_end_of_file(own):
    assert own.end() == 0 and "torn down" in own.log()


def test_end_of_file_inside_a_frame(template):
    for size, cut in ((10, 3), (10, 20), (10, 36), (500_000, 40), (500_000, 300_000)):
        with Worker(template=template) as one:
            one.ready()
            data = one.call_frame("raw", b"x" * size)
            one.send(data[:cut])
            assert one.end() == 0 and one.page[STARTED] == 0 and "Traceback" not in one.log()


def test_drain_finishes_what_was_sent(own):
    own.send(own.call_frame("echo", b"[1]") + own.call_frame("sleep", b"[0.1]") + own.call_frame("raw", b"3") + _wire.frame(_wire.DRAIN))
    assert [own.frame()[6] for _ in range(3)] == [b"1", b'"slept"', b"3"]
    with pytest.raises(EOFError):
        own.frame()
    assert own.exit_status() == 0 and "torn down" in own.log()


def test_terminate_while_idle(own):
    own.call("raw", b"")
    os.kill(own.pid, signal.SIGTERM)
    assert own.exit_status(2) == 0 and "torn down" in own.log()


def test_terminate_finishes_the_running_call_and_begins_no_other(own):
    own.send(own.call_frame("sleep", b"[0.3]") + own.call_frame("raw", b"2"))
    wait_for(lambda: own.page[RUNNING] == 1, what="the call to run")
    for _ in range(3):
        os.kill(own.pid, signal.SIGTERM)
    assert own.frame()[6] == b'"slept"'
    with pytest.raises(EOFError):
        own.frame()
    assert own.exit_status() == 0 and own.page[STARTED] == 1


def test_terminate_inside_a_frame(own):
    own.send(own.call_frame("raw", b"x" * 500_000)[:1000])
    time.sleep(0.1)
    os.kill(own.pid, signal.SIGTERM)
    assert own.exit_status(2) == 0


def test_poold_vanishes_while_a_call_runs(own):
    own.send(own.call_frame("size", b"5000000"))
    assert own.end() == 0 and "Traceback" not in own.log()


@pytest.mark.parametrize("name, data, words", [
    ("short length", struct.pack(">IBBHQQQ", 27, 4, 1, 1, 1, 0, 0), "length 27"),
    ("no length", bytes(32), "length 0"),
    ("beyond the limit", struct.pack(">IBBHQQQ", 0xFFFFFFFF, 4, 1, 1, 1, 0, 0), "limit"),
    ("unknown type", _wire.frame(77), "type 77"),
    ("wrong direction", _wire.frame(_wire.RESULT, b"", 0, id=1), "type 5"),
    ("flags on PING", _wire.frame(_wire.PING, flags=1), "flags 0x1"),
    ("a stream", _wire.frame(_wire.CALL, b"", 0, 1, 1), "flags 0x0"),
    ("a memfd", _wire.frame(_wire.CALL, b"", 5, 1, 1), "flags 0x5"),
    ("a name", _wire.frame(_wire.CALL, b"\1a", 9, 1, 1), "flags 0x9"),
    ("reserved flag", _wire.frame(_wire.CALL, b"", 0x21, 1, 1), "flags 0x21"),
    ("metadata beyond the frame", _wire.frame(_wire.CALL, b"\0\0\0\5abcd", 3, 1, 1), "metadata"),
    ("metadata without length", _wire.frame(_wire.CALL, b"\0\0", 3, 1, 1), "metadata"),
    ("version", _wire.frame(_wire.WELCOME, struct.pack(">HHIII", 2, 1, 0, 1 << 20, 0) + b"\0\0"), "version 2"),
    ("malformed WELCOME", _wire.frame(_wire.WELCOME, b"\0\1"), ""),
])
def test_malformed_frames_end_the_worker_with_a_clear_word(template, name, data, words):
    with Worker(template=template) as one:
        one.ready()
        one.send(one.call_frame("raw", b"before") + data)
        assert one.exit_status() == 76
        assert words in one.log() and "the worker ends" in one.log() and "Traceback" not in one.log()
        frames = []
        with pytest.raises(EOFError):
            while True:
                frames.append(one.frame())
        # What was answered before stays answered.
        assert [f[6] for f in frames if f[0] == _wire.RESULT] == [b"before"]
        assert frames[-1][:4] == (_wire.ERROR, 1, STATUS["bad_frame"], 0)


# ---- the start


@pytest.mark.parametrize("name, words", [
    ("import_error", "import of .*import_error.py failed: ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
    ("syntax_error", "SyntaxError"),
    ("setup_error", "set-up failed: RuntimeError: the model file is missing"),
    ("exits_at_import", "SystemExit: no licence"),
    ("no_method", "declares no method"),
    ("/nowhere/at_all.py", "FileNotFoundError: worker module /nowhere/at_all.py does not exist"),
])
def test_a_worker_that_cannot_serve_says_why(name, words):
    with Worker(name) as one:
        assert one.frame()[0] == _wire.HELLO
        kind, _, status, number, _, _, body = one.frame()
        first = body.decode().partition("\n")[0]
        assert (kind, status, number) == (_wire.ERROR, STATUS["setup_failed"], 0) and re.search(words, first), first
        assert one.exit_status() == 70 and "Traceback" in one.log()


def test_setup_error_in_a_fork():
    with Template("setup_error") as template, Worker(template=template) as one:
        assert one.frame()[0] == _wire.HELLO
        assert "the model file is missing" in one.frame()[6].decode()
        assert one.exit_status() == 70


def test_dotted_modules(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").write_text("")
    (tmp_path / "package/pool.py").write_text("from poold import worker\nimport poold.worker\nassert worker is poold.worker\n"
                                              "@worker.method\ndef one(): return 1\n")
    import supervisor

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    original, supervisor.module = supervisor.module, lambda name: name
    try:
        with Worker("package.pool") as one:
            assert returned(one.ready().call("one")) == 1
    finally:
        supervisor.module = original
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def test_started_by_hand():
    for arguments, words in ((["poold.worker"], "usage"), (["poold.template"], "usage"), (["poold.worker", "x.py"], "descriptor 3"),
                             (["poold.template", "x.py"], "descriptor 3")):
        done = subprocess.run([PYTHON, "-m", *arguments], env=environment(), capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
        assert done.returncode == 2 and words in done.stderr, done.stderr


def test_without_a_page():
    with Worker(welcome=False) as one:
        one.page[0] = 0
        one.welcome()
        assert one.frame()[0] == _wire.HELLO
        assert "not poold's execution page" in one.frame()[6].decode() and one.exit_status() == 70


@pytest.mark.parametrize("source, words", [
    ("@worker.method\nasync def f(): pass", "coroutine"),
    ("@worker.method(codec='pickle')\ndef f(x): pass", "codec 'pickle'"),
    ("@worker.method(codec='bytes')\ndef f(): pass", "must take the body"),
    ("@worker.method(name='a.b')\ndef f(): pass", "no dot"),
    ("@worker.method\ndef f(): pass\n@worker.method(name='f')\ndef g(): pass", "declared twice"),
    ("worker.method(5)", "needs a function"),
])
def test_wrong_declarations(tmp_path, source, words):
    path = tmp_path / "pool.py"
    path.write_text("from poold import worker\n" + source)
    done = subprocess.run([PYTHON, str(path)], env=environment(), capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and words in done.stderr
