"""Templates of many pools: they start in turns, and none keeps the workers of another pool from starting."""
import os
import signal
import time

import pytest
from conftest import wait_for
from test_reload import pids, site  # noqa: F401

SERVE = "\nfrom poold import worker\n\n@worker.method\ndef greet(value=None):\n    return value\n"
THREADED = """import threading, time
print('said before')
threading.Thread(target=time.sleep, args=(60,)).start()
""" + SERVE
HEAVY = """import os, time
def note(what):
    with open(os.path.join(os.path.dirname(__file__), "imports"), "a") as file:
        file.write(f"{what} {os.getpid()}\\n")
note("begin")
end = time.process_time() + 0.2
while time.process_time() < end: pass
note("end")
""" + SERVE
SLOW = "import os, time\nwhile not os.path.exists(__file__ + '.go'): time.sleep(0.01)\n" + SERVE


def write(site, name, text):
    (site.folder / f"{name}.py").write_text(text)
    return name


def started(site):
    """As soon as it answers an operator."""
    poold = site.start(wait=False)
    wait_for(lambda: poold.ctl("status", check=False).returncode == 0, 10, "poold")
    return poold


def state(poold, name):
    return poold.pool(name)["template"]


def template(poold, name):
    return poold.pool(name).get("templatePid", 0)


def test_imports_of_many_pools_are_no_storm(site):
    names = [write(site, f"heavy_{number}", HEAVY) for number in range(20)]
    site.configure({name: {"workers": 1} for name in names}, daemon=", starting_at_once: 3")
    poold = site.start()
    wait_for(lambda: all(len(pids(poold, name)) == 1 for name in names), 60, "all pools")
    assert {state(poold, name) for name in names} == {"ready"}
    assert "template is gone" not in poold.log()
    running, most = set(), 0
    for line in (site.folder / "imports").read_text().splitlines():
        what, pid = line.split()
        (running.add if what == "begin" else running.remove)(pid)
        most = max(most, len(running))
    assert most == 3


def test_a_slow_import_holds_up_its_own_pool_alone(site):
    slow, quick = write(site, "a_slow", SLOW), write(site, "b_quick", SERVE)
    site.configure({slow: {"workers": 8, "starting_at_once": 8}, quick: {"workers": 2}})
    poold = started(site)
    wait_for(lambda: len(pids(poold, quick)) == 2, 8, "the quick pool")
    assert state(poold, slow) == "starting"
    (site.folder / "a_slow.py.go").touch()
    wait_for(lambda: len(pids(poold, slow)) == 8, 20, "the slow pool")
    assert state(poold, slow) == "ready" and "template is gone" not in poold.log()


def queued(site, names):
    """Two pools whose templates wait for the one before them."""
    for name in names:
        write(site, name, SLOW)
    site.configure({name: {"workers": 1} for name in names}, daemon=", starting_at_once: 1")
    poold = started(site)
    wait_for(lambda: template(poold, names[0]) > 0, 10, "the first template")
    assert [(state(poold, name), template(poold, name)) for name in names[1:]] == [("starting", 0)] * (len(names) - 1)
    return poold


def go(site, *names):
    for name in names:
        (site.folder / f"{name}.py.go").touch()


def test_a_template_that_dies_at_its_import_lets_the_next_one_start(site):
    poold = queued(site, ["one", "two"])
    go(site, "two")
    os.kill(template(poold, "one"), signal.SIGKILL)
    wait_for(lambda: state(poold, "two") == "ready", 10, "the second template")
    go(site, "one")
    wait_for(lambda: state(poold, "one") == "ready" and pids(poold, "one") and pids(poold, "two"), 20, "both pools")


@pytest.mark.parametrize("change", ["removed", "without a template", "recycled"])
def test_a_template_that_waits_for_its_turn_is_changed(site, change):
    poold = queued(site, ["one", "two", "three"])
    go(site, "two", "three")
    if change == "recycled":
        assert poold.ctl("recycle", "two").returncode == 0
    else:
        two = {} if change == "removed" else {"two": {"workers": 1, "template": "false"}}
        site.configure({"one": {"workers": 1}, **two, "three": {"workers": 1}}, daemon=", starting_at_once: 1")
        assert not site.reload().get("errors")
    if change == "removed":
        assert [p["name"] for p in poold.status()["pools"]] == ["one", "three"]
    if change == "without a template":
        wait_for(lambda: pids(poold, "two") and state(poold, "two") == "off", 20, "a cold worker")
    go(site, "one")
    wait_for(lambda: pids(poold, "one") and pids(poold, "three"), 20, "the others")
    if change == "recycled":
        wait_for(lambda: state(poold, "two") == "ready" and pids(poold, "two"), 20, "it too")
    with poold.client() as client:
        assert client.call("three.greet", [3], timeout=10) == 3


def test_a_template_that_hangs_lets_the_next_one_start(site):
    """Also one whose start timeout is over before it is known to be there."""
    hurried = [write(site, f"hurried_{number}", SLOW) for number in range(12)]
    patient, quick = write(site, "patient", SLOW), write(site, "quick", SERVE)
    pools = {name: {"workers": 1, "lifecycle": "{ start_timeout: 3ms }"} for name in hurried}
    site.configure({**pools, patient: {"workers": 1, "lifecycle": "{ start_timeout: 3s }"}, quick: {"workers": 1}}, daemon=", starting_at_once: 3")
    poold = started(site)
    wait_for(lambda: pids(poold, quick), 20, "the quick pool")
    for name in hurried:
        wait_for(lambda: any(f"pool={name} " in line and "it did not answer within" in line for line in poold.log().splitlines()), 10, "a word on why")


def test_a_template_that_cannot_be_used_ends_at_once(site):
    """What its module started would keep the process."""
    bad, quick = write(site, "bad", THREADED), write(site, "quick", SERVE)
    site.configure({bad: {"workers": 1}, quick: {"workers": 1}}, daemon=", starting_at_once: 1")
    poold = started(site)
    wait_for(lambda: pids(poold, quick) and pids(poold, bad), 8, "both pools")
    assert state(poold, bad) == "failed" and "thread" in next(line for line in poold.log().splitlines() if "template is gone" in line)
    assert "said before" in poold.log()


def test_a_recycled_pool_waits_for_its_template_although_it_had_failed(site):
    write(site, "one", SLOW)
    write(site, "two", "raise ValueError('not yet')")
    site.configure({"two": {"workers": 1}, "one": {"workers": 1}}, daemon=", starting_at_once: 1")
    poold = started(site)
    wait_for(lambda: state(poold, "two") == "failed" and template(poold, "one"), 10, "a template that fails, and one that imports")
    write(site, "two", SERVE)
    wait_for(lambda: pids(poold, "two"), 20, "a cold worker")
    time.sleep(1.5)  # Its template is to be tried again after 400 ms, and waits for its turn.
    poold.ctl("recycle", "two")
    wait_for(lambda: state(poold, "two") == "starting", 10, "a template that waits")
    time.sleep(0.5)
    assert template(poold, "two") == 0
    go(site, "one")
    wait_for(lambda: state(poold, "two") == "ready", 10, "its template")


@pytest.mark.parametrize("number", [1, 2], ids=["once", "twice"])
def test_a_stop_while_templates_wait(site, number):
    poold = queued(site, ["one", "two", "three"])
    began = time.monotonic()
    for _ in range(number):
        poold.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert poold.process.wait(10) == 0
    assert time.monotonic() - began < 4 and "stopped" in poold.log()
