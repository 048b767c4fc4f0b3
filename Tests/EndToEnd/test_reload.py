"""Another configuration while calls run: all of it or nothing, and no call is lost."""
import json
import os
import resource
import signal
import threading
import time

import pytest
from conftest import Poold, wait_for

from poold.client import Client, PooldError

MODULE = """
import os, time
from poold import worker

@worker.method
def {name}(value=None):
    return [value, {version}]

@worker.method
def nap(seconds=0.01):
    time.sleep(seconds)
    return os.getpid()
"""

LOUD = """
import threading, time
from poold import worker

@worker.setup
def flood():
    def run():
        while True:
            print("a line of the flood")
            time.sleep(0.005)
    threading.Thread(target=run, daemon=True).start()

@worker.method
def nothing():
    pass
"""


class Site:
    """A folder with a configuration file, its modules, and the poold that runs on it."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "poold.yaml"

    def module(self, name, method="greet", version=1):
        temporary = self.folder / f".{name}.new"
        temporary.write_text(MODULE.format(name=method, version=version))
        os.replace(temporary, self.folder / f"{name}.py")

    def configure(self, pools, **top):
        text = [f"daemon: {{ shutdown_limit: 5s{top.pop('daemon', '')} }}"]
        for key, value in top.items():
            text.append(f"{key}: {value}")
        text.append("pools:")
        for name, keys in pools.items():
            text.append(f"  {name}: {{ module: {name}.py{''.join(f', {k}: {v}' for k, v in keys.items())} }}")
        self.file.write_text("\n".join(text) + "\n")

    def start(self, wait=True):
        self.poold = Poold(str(self.folder), options=["--config", str(self.file)], workers=None, wait=wait)
        return self.poold

    def reload(self, *options):
        done = self.poold.ctl("reload", "--json", *options, check=False)
        return json.loads(done.stdout)


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path)
    yield one
    if hasattr(one, "poold"):
        one.poold.stop()


class Callers:
    """Threads that call without a pause, by cached method numbers; every end is kept."""

    def __init__(self, path, method, count=3):
        self.ends, self.over = [], False
        self.method = method
        self.threads = [threading.Thread(target=self.run, args=(path,)) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self, path):
        with Client(path) as client:
            while not self.over:
                try:
                    self.ends.append(client.call(self.method, [1], timeout=20))
                except PooldError as error:
                    self.ends.append(error.status)

    def stop(self):
        self.over = True
        for thread in self.threads:
            thread.join()
        return self.ends


def pids(poold, pool):
    return {w["pid"] for w in poold.workers(pool)}


def test_a_method_renamed_while_a_client_calls_it(site):
    site.module("text")
    site.configure({"text": {"workers": 2}})
    poold = site.start()
    before = poold.full("text")
    callers = Callers(poold.socket, "text.greet")
    time.sleep(0.3)
    site.module("text", method="welcome", version=2)
    changes = site.reload()["changes"]
    assert any(c["key"] == "pools.text.module" and c["effect"] == "recycle" for c in changes), changes
    wait_for(lambda: len(pids(poold, "text") - before) == 2 and not pids(poold, "text") & before, 20, "new workers")
    with poold.client() as client:
        wait_for(lambda: call(client, "text.welcome") == [1, 2], 20, "the new method")
        assert call(client, "text.greet") == "no_such_method"
    ends = callers.stop()
    served = [e for e in ends if isinstance(e, list)]
    refused = [e for e in ends if not isinstance(e, list)]
    assert served and all(e == [1, 1] for e in served)
    assert refused and set(refused) <= {"method_gone", "no_such_method"}, set(refused)


def call(client, method):
    try:
        return client.call(method, [1], timeout=10)
    except PooldError as error:
        return error.status


def test_a_new_method_is_told_only_when_every_worker_has_it(site):
    site.module("text")
    site.configure({"text": {"workers": 3}})
    poold = site.start()
    site.module("text", method="welcome", version=2)
    site.reload()
    with poold.client() as client:
        wait_for(lambda: call(client, "text.welcome") == [1, 2], 20, "the new method")
        # From its first answer on it is always there.
        assert all(call(client, "text.welcome") == [1, 2] for _ in range(200))


def test_pools_come_and_go_under_load(site):
    site.module("text")
    site.configure({"text": {"workers": 2}})
    poold = site.start()
    before = poold.full("text")
    callers = Callers(poold.socket, "text.greet")
    descriptors = poold.descriptors()
    for version in range(1, 4):
        site.module("extra", method="ask", version=version)
        site.configure({"text": {"workers": 2}, "extra": {"workers": 1}})
        assert [c["effect"] for c in site.reload()["changes"]] == ["added"]
        with poold.client() as client:
            wait_for(lambda: call(client, "extra.ask") == [1, version], 20, "the added pool")
            site.configure({"text": {"workers": 2}})
            assert [c["effect"] for c in site.reload()["changes"]] == ["removed"]
            assert call(client, "extra.ask") in ("method_gone", "no_such_pool")
        wait_for(lambda: "extra" not in {p["name"] for p in poold.status()["pools"]}, 10, "the pool's end")
    ends = callers.stop()
    assert ends and all(e == [1, 1] for e in ends), {str(e) for e in ends if e != [1, 1]}
    assert pids(poold, "text") == before, "a pool that did not change keeps its workers"
    wait_for(lambda: poold.descriptors() <= descriptors + 3, 10, "closed descriptors")


def test_a_removed_pool_finishes_what_it_has(site):
    site.module("text")
    site.module("extra")
    site.configure({"text": {"workers": 1}, "extra": {"workers": 1}})
    poold = site.start()
    with poold.client() as client:
        result = []
        thread = threading.Thread(target=lambda: result.append(client.call("extra.nap", [1.0], timeout=10)))
        thread.start()
        time.sleep(0.3)
        site.configure({"text": {"workers": 1}})
        site.reload()
        thread.join()
        assert result and result[0] > 0


def test_limits_lowered_below_what_is_in_use(site):
    site.module("text")
    site.configure({"text": {"workers": 6, "max_workers": 8}})
    poold = site.start()
    results = []

    def nap():
        with poold.client() as client:
            results.append(call_nap(client))

    threads = [threading.Thread(target=nap) for _ in range(24)]
    for thread in threads:
        thread.start()
    wait_for(lambda: poold.pool("text").get("queuedCalls", 0) >= 12, 10, "a queue")
    site.configure({"text": {"workers": 1, "max_workers": 2, "queue": "{ max_calls: 2 }", "sessions": "{ max_sessions: 0 }"}})
    result = site.reload()
    assert not result.get("errors"), result
    for thread in threads:
        thread.join()
    assert all(isinstance(r, int) for r in results), results
    wait_for(lambda: len(poold.workers("text")) == 1, 15, "one worker")
    assert poold.pool("text")["wanted"] == 1


def call_nap(client):
    try:
        return client.call("text.nap", [0.3], timeout=30)
    except PooldError as error:
        return error.status


def test_nothing_changes_if_anything_is_wrong(site):
    site.module("text")
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    before = poold.full("text")
    site.file.write_text("pools:\n  text:\n    module: text.py\n    workers: many\n    wrokers: 3\n  gone: { module: missing.py }\n")
    errors = site.reload()["errors"]
    assert any("poold.yaml:4" in e and "many" in e for e in errors), errors
    assert any("poold.yaml:5" in e and "workers" in e for e in errors), errors
    assert any("poold.yaml:6" in e and "missing.py" in e for e in errors), errors
    assert pids(poold, "text") == before and poold.pool("text")["wanted"] == 1
    assert "configuration is not reloaded" in poold.log()
    site.file.unlink()
    assert "poold.yaml" in site.reload()["errors"][0]


def test_sighup_a_dry_run_and_what_needs_a_restart(site):
    site.module("text")
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    site.configure({"text": {"workers": 3}})
    changes = site.reload("--dry-run")["changes"]
    assert [(c["key"], c["old"], c["new"], c["effect"]) for c in changes] == [("pools.text.workers", "1", "3", "live")]
    assert poold.pool("text")["wanted"] == 1
    os.kill(poold.pid, signal.SIGHUP)
    wait_for(lambda: len(poold.workers("text")) == 3, 15, "three workers")
    site.configure({"text": {"workers": 3}}, limits="{ max_connections: 100 }")
    assert [c["effect"] for c in site.reload()["changes"]] == ["restart"]
    assert "takes effect when poold is started again" in poold.log()
    # It is told until it is done, and what is shown is what holds.
    assert [c["effect"] for c in site.reload()["changes"]] == ["restart"]
    shown = json.loads(poold.ctl("config", "show", "--running", "--json").stdout)["values"]
    assert next(value for value in shown if value["key"] == "limits.max_connections")["value"] == "65536"
    site.configure({"text": {"workers": 3}})
    assert site.reload().get("changes", []) == []


def test_a_broken_module_leaves_the_old_workers(site):
    site.module("text")
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    (site.folder / "text.py").write_text("import nothing_like_this\n")
    site.reload()
    wait_for(lambda: "nothing_like_this" in poold.pool("text").get("failure", ""), 15, "the failure")
    with poold.client() as client:
        assert call(client, "text.greet") == [1, 1]
    site.module("text", version=3)
    site.reload()
    with poold.client() as client:
        wait_for(lambda: call(client, "text.greet") == [1, 3], 30, "the mended module")


def test_many_reloads_at_once(site):
    site.module("text")
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    callers = Callers(poold.socket, "text.greet", 2)
    descriptors = poold.descriptors()
    for round in range(30):
        site.configure({"text": {"workers": 1 + round % 3, "environment": f"{{ ROUND: '{round}' }}"}})
        os.kill(poold.pid, signal.SIGHUP)
        if round % 5 == 0:
            site.reload()
    ends = callers.stop()
    assert ends and all(e == [1, 1] for e in ends), {str(e) for e in ends if e != [1, 1]}
    site.configure({"text": {"workers": 1}})
    site.reload()
    wait_for(lambda: len(poold.children()) == 3, 40, "guard, template and one worker")
    wait_for(lambda: poold.descriptors() <= descriptors + 2, 10, "closed descriptors")


def test_reloads_for_which_no_thread_can_be_made_are_refused(site):
    """Also those that wait behind one that is under way."""
    site.module("text")
    site.configure({"text": {"workers": 1}})
    poold = site.start()
    wait_for(lambda: poold.workers("text"), 20, "a worker")
    site.configure({"text": {"workers": 2}})
    with open(f"/proc/{poold.pid}/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    # Room for what poold itself allocates, and none for the stack of a thread.
    resource.prlimit(poold.pid, resource.RLIMIT_AS, (size + (3 << 19), resource.RLIM_INFINITY))
    try:
        answers = [site.reload() for _ in range(3)]
        os.kill(poold.pid, signal.SIGHUP)
        with poold.client() as client:
            assert call(client, "text.greet") == [1, 1]
    finally:
        resource.prlimit(poold.pid, resource.RLIMIT_AS, unlimited)
    assert all("no thread could be made" in answer["errors"][0] for answer in answers), answers
    assert poold.log().count("configuration is not reloaded") == 4
    assert "errors" not in site.reload() or site.reload()["errors"] == []
    wait_for(lambda: len(poold.workers("text")) == 2, 15, "two workers")


def test_a_limit_on_output_holds_for_a_worker_that_floods_now(site):
    site.module("text")
    (site.folder / "loud.py").write_text(LOUD)
    site.configure({"loud": {"workers": 1}}, log="{ worker_lines_per_second: 5 }")
    poold = site.start()

    def lines():
        return poold.log().count("a line of the flood")

    wait_for(lambda: lines() >= 50, 20, "the first lines, ten seconds' worth")
    began, before = time.monotonic(), lines()
    time.sleep(1.5)
    assert lines() - before <= 5 * (time.monotonic() - began) + 2
    site.configure({"loud": {"workers": 1}}, log="{ worker_lines_per_second: 0 }")
    assert [c["effect"] for c in site.reload()["changes"]] == ["live"]
    before = lines()
    wait_for(lambda: lines() - before > 100, 10, "every line")
    assert " lines suppressed, more than 5 a second" in poold.log() and "more than 0 a second" not in poold.log()
    site.configure({"loud": {"workers": 1}}, log="{ worker_lines_per_second: 1 }")
    site.reload()
    time.sleep(0.5)
    wait_for(lambda: (before := lines(), time.sleep(1))[0] + 3 >= lines(), 20, "few lines again")


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user: needs root")
def test_who_may_do_what(site):
    site.module("text")
    site.module("secret")
    os.chmod(site.folder, 0o755)
    for parent in site.folder.parents:
        if str(parent).startswith("/tmp/"):
            os.chmod(parent, 0o755)
    site.configure({"text": {"workers": 1}, "secret": {"workers": 1, "callers": "[root]"}})
    poold = site.start()

    def as_nobody(function):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                os.write(write, json.dumps(function()).encode())
            finally:
                os._exit(0)
        os.close(write)
        text = b""
        while piece := os.read(read, 65536):
            text += piece
        os.close(read)
        os.waitpid(child, 0)
        return json.loads(text)

    def calls():
        with Client(poold.socket) as client:
            return [call(client, "text.greet"), call(client, "secret.greet"), sorted(client.methods())]

    def operates():
        return [poold.ctl(*command, check=False).returncode for command in (["status"], ["scale", "text", "2"])]

    assert as_nobody(calls) == [[1, 1], "permission_denied", ["text.greet", "text.nap"]]
    assert 0 not in as_nobody(operates)
    assert "operation refused" in poold.log() and "call refused" in poold.log()
    site.configure({"text": {"workers": 1}, "secret": {"workers": 1, "callers": "[nobody]"}}, roles="{ look: [nobody] }")
    site.reload()
    assert as_nobody(calls)[1] == [1, 1]
    looked, operated = as_nobody(operates)
    assert looked == 0 and operated != 0
    site.configure({"text": {"workers": 1}, "secret": {"workers": 1}}, roles="{ operate: [nobody] }")
    site.reload()
    assert as_nobody(operates) == [0, 0]
