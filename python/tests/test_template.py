"""The template: what it forks, and what it refuses to."""
import os
import random
import signal
import socket
import statistics
import struct
import threading
import time

import pytest
from supervisor import Template, Worker, descriptors_of, parent_of, state_of, wait_for

from poold import _wire


def returned(reply):
    import json

    assert reply[0] == _wire.RESULT, reply
    return json.loads(reply[6])


def own_descriptors(pid):
    """Without the one that Python's mmap keeps of the page."""
    return sorted(d for d, what in descriptors_of(pid).items() if d < 6 or "page" not in what)


@pytest.fixture
def template():
    with Template() as one:
        yield one


def test_a_fork_is_a_worker(template):
    with Worker(template=template, slot=5) as one:
        one.ready()
        assert parent_of(one.pid) == os.getpid(), "poold's own child"
        assert os.getpgid(one.pid) == one.pid, "a group of its own"
        with open(f"/proc/{one.pid}/comm") as name:
            assert name.read().strip() == "pool/5"
        found = descriptors_of(one.pid)
        assert own_descriptors(one.pid) == [0, 1, 2, 3, 4, 5], found
        assert "page" in found[4] and "stack" in found[5] and "output" in found[1] and found[0] == "/dev/null"
        events = returned(one.call("hooks"))
        assert [e[0] for e in events] == ["preload", "setup", "now"]
        assert events[0][1] == template.pid and events[1][1] == events[2][1] == one.pid
        assert one.end() == 0


def test_forks_draw_different_random_numbers(template):
    with Worker(template=template) as one, Worker(template=template) as two:
        assert returned(one.ready().call("random_number")) != returned(two.ready().call("random_number"))


def test_the_environment_limits_threads():
    pytest.importorskip("numpy")
    with Template("imports_numpy") as template:
        if b"No module named 'numpy'" in template.answer:
            pytest.skip("the workers' interpreter has no numpy")
    with Template("imports_numpy") as template, Worker(template=template) as one, Worker(template=template) as two:
        first, second = returned(one.ready().call("random_numbers")), returned(two.ready().call("random_numbers"))
        assert first[0] != second[0] and first[1] == second[1] == "1"
    with Template("imports_numpy", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="3") as template:
        assert template.answer == b"R"


def test_threads_are_refused():
    with Template("starts_thread") as template:
        text = template.answer.decode()
        assert text.startswith("FRuntimeError: importing ") and "started 1 thread(s)" in text and "template: off" in text
        assert template.process.wait(10) == 70


@pytest.mark.parametrize("name, words", [("import_error", "no_such_module_anywhere"), ("syntax_error", "SyntaxError"), ("exits_at_import", "no licence"),
                                         ("no_method", "declares no method"), ("/nowhere/at_all.py", "does not exist")])
def test_a_failed_import_is_told(name, words):
    with Template(name) as template:
        first, _, detail = template.answer.decode().partition("\n")
        assert first[0] == "F" and words in first and "Traceback" in detail
        assert template.process.wait(10) == 70


def test_nothing_of_the_import_leaks_into_a_fork():
    with Template("opens_files") as template:
        workers = [Worker(template=template) for _ in range(3)]
        try:
            for one in workers:
                one.ready()
                assert own_descriptors(one.pid) == [0, 1, 2, 3, 4, 5]
                assert returned(one.call("mask")) == []
            # Its handler of SIGTERM would keep a starting worker alive; the library's own ends this one.
            os.kill(workers[0].pid, signal.SIGTERM)
            assert workers[0].exit_status(3) == 0
            workers[1].send(workers[1].call_frame("sleep", b"[30]"))
            wait_for(lambda: workers[1].page[2] == workers[1].number, what="the call to run")
            workers[1].revoke(workers[1].number)
            assert _wire.STATUS[workers[1].frame()[2]] == "cancelled"
            for one in workers[1:]:
                assert one.end() == 0
            assert [one.log() for one in workers] == ["", "", ""]
        finally:
            for one in workers:
                one.close()
        template.close()
        assert template.log() == "once only"


def test_the_worker_is_poolds_child_when_poold_is_told(tmp_path):
    """Also where the intermediate process takes its time to end, with much memory to give back."""
    path = tmp_path / "large.py"
    path.write_text("from poold import worker\nballast = bytearray(b'x' * (200 << 20))\n\n"
                    "@worker.method\ndef nothing():\n    pass\n")
    with Template(str(path)) as template:
        for _ in range(10):
            with Worker(template=template) as one:
                assert parent_of(one.pid) == os.getpid()
                one.ready()
                assert one.end() == 0


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "reap"])
def test_an_application_that_reaps_every_child_takes_no_worker_away(tmp_path, handler):
    path = tmp_path / "reaper.py"
    path.write_text("import os, signal\nfrom poold import worker\n\ndef reap(*_):\n    try:\n        while os.waitpid(-1, os.WNOHANG)[0]: pass\n"
                    f"    except ChildProcessError: pass\n\nsignal.signal(signal.SIGCHLD, {handler})\n\n@worker.method\ndef nothing():\n    pass\n")
    with Template(str(path)) as template:
        for _ in range(20):
            with Worker(template=template) as one:
                one.ready()
                assert one.end() == 0


def intermediate_of(template):
    """The process that waits between the template and its next worker."""
    with open(f"/proc/{template.pid}/task/{template.pid}/children") as children:
        return [int(pid) for pid in children.read().split()]


def test_bad_orders_are_refused_and_survived(template):
    before = sorted(descriptors_of(template.pid))
    for message, count in ((b"S", 5), (b"X" + bytes(12), 5), (b"S" + bytes(12), 4), (b"S" + bytes(12), 0), (b"S" + bytes(40), 5)):
        null = os.open("/dev/null", os.O_RDONLY)
        socket.send_fds(template.control, [message], [null] * count)
        os.close(null)
        answer = template.control.recv(65536)
        assert answer[:1] == b"E" and b"an order is S" in answer, answer
    assert sorted(descriptors_of(template.pid)) == before
    with Worker(template=template) as one:
        assert returned(one.ready().call("echo", b"[1]")) == 1


def test_an_intermediate_process_waits_and_ends_with_the_template(template):
    waiting, = intermediate_of(template)
    with Worker(template=template) as one:
        one.ready()
        wait_for(lambda: state_of(waiting) == "", what="its end with the fork")
        successor, = wait_for(lambda: intermediate_of(template), what="its successor")
        assert template.close() == 0
        assert state_of(successor) == "", "waited for"
        assert one.end() == 0


def test_an_intermediate_process_that_was_killed_is_replaced(template):
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP):
        waiting, = wait_for(lambda: intermediate_of(template), what="the next one")
        os.kill(waiting, number)
        if number == signal.SIGSTOP:
            # What it is told while it is stopped it does once it goes on.
            threading.Timer(0.2, os.kill, (waiting, signal.SIGCONT)).start()
        else:
            wait_for(lambda: state_of(waiting) == "Z", what="its end")
        with Worker(template=template) as one:
            assert returned(one.ready().call("echo", b"[1]")) == 1
            assert one.end() == 0
    assert template.log() == "imported\n"


def test_an_intermediate_process_that_dies_with_an_order_is_told(template):
    waiting, = intermediate_of(template)
    os.kill(waiting, signal.SIGSTOP)
    null = os.open("/dev/null", os.O_RDONLY)
    socket.send_fds(template.control, [b"S" + bytes(12)], [null] * 5)
    os.close(null)
    wait_for(lambda: len(descriptors_of(template.pid)) > 6, what="the order to arrive")
    time.sleep(0.05)
    os.kill(waiting, signal.SIGKILL)
    answer = template.control.recv(65536)
    assert answer[:1] == b"E" and b"intermediate process died" in answer, answer
    with Worker(template=template) as one:
        assert returned(one.ready().call("echo", b"[1]")) == 1
        assert one.end() == 0


def test_a_fork_that_fails_is_told_and_leaves_no_descriptor():
    if os.getuid() == 0:
        pytest.skip("the limit on processes does not bind root")
    import resource

    with Template() as template:
        before = sorted(descriptors_of(template.pid))
        for pid in (template.pid, *intermediate_of(template)):
            resource.prlimit(pid, resource.RLIMIT_NPROC, (1, 1))
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(5):
            socket.send_fds(template.control, [b"S" + bytes(12)], [null] * 5)
            assert template.control.recv(65536)[:1] == b"E"
        os.close(null)
        wait_for(lambda: sorted(descriptors_of(template.pid)) in (before, before[:-1]), what="the descriptors of before")


def test_end_of_file_ends_the_template_and_no_worker():
    template = Template()
    with Worker(template=template) as one:
        one.ready()
        assert template.close() == 0
        assert returned(one.call("echo", b"[1]")) == 1
        assert one.end() == 0


def test_a_worker_dies_with_its_parent(tmp_path):
    """The death signal is armed after the adoption: a kill of poold ends a busy worker."""
    pipe = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        try:
            with Template() as template:
                one = Worker(template=template).ready()
                one.send(one.call_frame("sleep", b"[60]"))
                wait_for(lambda: one.page[2] == 1, what="the call to run")
                os.write(pipe[1], struct.pack(">II", one.pid, template.pid))
                time.sleep(60)
        finally:
            os._exit(1)
    worker, template_pid = struct.unpack(">II", os.read(pipe[0], 8))
    os.kill(keeper, signal.SIGKILL)
    os.waitpid(keeper, 0)
    wait_for(lambda: state_of(worker) in ("", "Z") and state_of(template_pid) in ("", "Z"), 3, "the end of both")
    for pid in (worker, template_pid):  # this process has adopted them
        if state_of(pid):
            os.waitpid(pid, 0)
    for descriptor in pipe:
        os.close(descriptor)


def test_a_storm_of_forks_leaves_nothing_behind(template):
    own, others = sorted(descriptors_of(os.getpid())), sorted(descriptors_of(template.pid))
    chance = random.Random(3)
    alive = []
    for _ in range(200):
        alive.append(Worker(template=template))
        if len(alive) > 8:
            one = alive.pop(chance.randrange(len(alive)))
            one.ready()
            assert one.end() == 0
            one.close()
    for one in alive:
        one.ready()
        assert one.end() == 0
        one.close()
    assert sorted(descriptors_of(os.getpid())) == own and sorted(descriptors_of(template.pid)) == others
    children = [int(p) for p in os.listdir("/proc") if p.isdigit() and state_of(int(p)) == "Z" and parent_of(int(p)) in (os.getpid(), template.pid)]
    assert children == []


def test_the_template_may_die_at_once_after_a_fork(template):
    with Worker(template=template) as one:
        os.kill(template.pid, signal.SIGKILL)
        assert returned(one.ready().call("echo", b"[1]")) == 1
        assert one.end() == 0
    template.process.wait()
    template.answer = b""


def test_forks_are_quick(template):
    times = []
    for _ in range(20):
        with Worker(template=template) as one:
            one.ready()
            times.append(time.monotonic() - one.began)
            one.end()
    # 3 to 5 ms on an idle machine; this is the bound that a mistake would break.
    assert statistics.median(times) < 0.1
