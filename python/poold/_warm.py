"""The pool's warming commands: run before a worker is ready, and again when an operator asks (PROTOCOL.md, section 7)."""
import importlib
import json
import os
import runpy
import signal
import time
import traceback
from types import FrameType
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from poold import _registry
from poold._registry import Cancelled

#: a JSON object: timeout in seconds of each command, and the commands
VARIABLE = "POOLD_WARM"
#: the number of the method that runs them again; it is in no list
METHOD_NUMBER = 65535
METHOD_NAME = "poold.warm"
#: a command that swallows its end is told again after so many seconds
_INSIST_SECONDS = 1.0
_DEFAULT_SECONDS = 10.0


class Overlong(BaseException):
    """A warming command has outrun its time limit. Not an Exception: a command that catches everything must not swallow it unasked."""


class Failed(Exception):
    """A warming command did not succeed; its cause is what it raised."""


class Command(NamedTuple):
    description: str
    run: Callable[[], Any]


class Outcome(NamedTuple):
    command: str
    error: Optional[BaseException]
    nanoseconds: int


def commands() -> Tuple[List[Command], float]:
    """The commands, and how many seconds each may take. Raises ValueError where POOLD_WARM is not what poold writes."""
    text = os.environ.get(VARIABLE)
    if not text:
        return [], _DEFAULT_SECONDS
    try:
        described = json.loads(text)
        return [_command(one) for one in described["commands"]], float(described["timeout"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{VARIABLE} cannot be read ({type(error).__name__}: {error}); poold sets it, PROTOCOL.md says how") from None


def _command(described: Dict[str, str]) -> Command:
    if "call" in described:
        name, arguments = described["call"], described["arguments"]
        return Command(f"call {name}", lambda: _call(name, arguments))
    if "import" in described:
        name = described["import"]
        return Command(f"import {name}", lambda: importlib.import_module(name))
    path = described["script"]
    return Command(f"script {path}", lambda: _script(path))


def _script(path: str) -> None:
    """Runs a file as `python FILE` would: one that ends with sys.exit() or sys.exit(0) has succeeded."""
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise


def _call(name: str, arguments: str) -> None:
    """Calls a method as a caller would: through its codec, its result encoded and dropped."""
    method = _registry.METHODS.get(name)
    if method is None:
        raise LookupError(f"this pool has no method {name}; it has: {', '.join(_registry.METHODS)}")
    payload = arguments.encode()
    if method.codec == "bytes":
        body = json.loads(arguments)
        if not isinstance(body, str):
            raise TypeError(f"method {name} has codec bytes: its warming argument is a JSON string, not {type(body).__name__}")
        payload = body.encode()
    elif method.codec == "msgpack":
        import msgpack

        payload = msgpack.packb(json.loads(arguments))
    method.invoke(payload)


def _limited(run: Callable[[], Any], seconds: float) -> None:
    """Runs in the main thread, for so long at most: then Overlong is raised in it, again and again. Only what never comes back
    to the interpreter goes on; that is for poold's own limits. Raises what `run` raises."""
    armed = True

    def strike(_signal: int, _frame: Optional[FrameType]) -> None:
        if armed:
            raise Overlong(f"it took longer than {seconds:g} s, the pool's warm_timeout")

    previous = signal.signal(signal.SIGALRM, strike)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6), _INSIST_SECONDS)
        run()
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous if previous is not None else signal.SIG_DFL)


def run(stop_at_failure: bool) -> List[Outcome]:
    """Runs the commands in their order. Raises ValueError for what poold must not write, and Cancelled."""
    outcomes: List[Outcome] = []
    ordered, seconds = commands()
    for command in ordered:
        began = time.monotonic_ns()
        error: Optional[BaseException] = None
        try:
            _limited(command.run, seconds)
        except Cancelled:
            raise  # the call that runs the commands is over: not a fault of this one
        except BaseException as caught:
            error = caught
        outcomes.append(Outcome(command.description, error, time.monotonic_ns() - began))
        if error is not None and stop_at_failure:
            break
    return outcomes


def before_ready() -> None:
    """Runs the commands of a worker that is to become ready. Raises Failed, ValueError."""
    for command, error, nanoseconds in run(stop_at_failure=True):
        if error is not None:
            raise Failed(f"{command}: {_text(error)} (after {nanoseconds / 1e9:.1f} s)") from error


def again() -> Dict[str, Any]:
    """What the method `poold.warm` answers: the outcome of each command, as poold.v1.WarmedWorker in JSON."""
    return {"commands": [
        {"command": command, "succeeded": error is None, "nanoseconds": str(nanoseconds), "problem": "" if error is None else _problem(error)}
        for command, error, nanoseconds in run(stop_at_failure=False)
    ]}


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    except BaseException as second:  # a hostile __str__
        return f"{type(error).__name__} (describing it raised {type(second).__name__})"


def _problem(error: BaseException) -> str:
    try:
        detail = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:
        detail = ""
    return f"{_text(error)}\n{detail}".encode("utf-8", "replace").decode()[:8192]
