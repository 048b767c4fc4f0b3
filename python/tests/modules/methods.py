"""Well behaved, with methods that do what they are told."""
import functools
import os
import random
import time

from poold import worker

print("imported")
events = []


@worker.preload
def before_the_fork():
    events.append(("preload", os.getpid()))


@worker.setup
def prepare():
    events.append(("setup", os.getpid()))


@worker.teardown
def leave():
    print("torn down", flush=False)


@worker.method
def echo(value=None, *, other=None):
    return value if other is None else [value, other]


@worker.method(codec="bytes", idempotent=True)
def raw(body: bytes) -> bytes:
    assert type(body) is bytes
    return body


@worker.method(codec="bytes", name="typed")
def return_type(body: bytes):
    kind = body.decode()
    return {"bytearray": bytearray(b"ab"), "memoryview": memoryview(b"ab"), "text": "ab", "None": None, "floats": memoryview(b"x" * 16).cast("d")}[kind]


@worker.method(codec="bytes")
def size(body: bytes) -> bytes:
    return b"z" * int(body)


@worker.method
def hooks():
    return events + [("now", os.getpid())]


@worker.method
def environment():
    return {k: v for k, v in os.environ.items() if k.startswith("POOLD_")}


@worker.method
def sleep(seconds: float):
    time.sleep(seconds)
    return "slept"


@worker.method
def spin(seconds: float):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "spun"


@worker.method
def swallow(seconds: float):
    """Swallows its cancellation and finishes."""
    end = time.monotonic() + seconds
    caught = 0
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except worker.Cancelled:
            caught += 1
    return caught


@worker.method
def budget():
    return worker.remaining()


@worker.method
def session():
    return worker.session()


@worker.method
def fail(kind: str, text: str = "gone wrong"):
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "MemoryError": MemoryError, "ValueError": ValueError,
           "TypeError": TypeError, "GeneratorExit": GeneratorExit, "ConnectionError": ConnectionError}[kind](text)


@worker.method
def fail_in_a_chain():
    try:
        {}["key"]
    except KeyError as error:
        raise RuntimeError("no such entry") from error


class Hostile(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@worker.method
def hostile():
    raise Hostile


@worker.method
def recurse(depth: int = 0):
    return recurse(depth + 1)


@worker.method
def type_error_inside(value):
    return len(5) + value


def _decorated(function):
    @functools.wraps(function)
    def wrapper(*positional, **named):
        return function(*positional, **named)

    return wrapper


@worker.method
@_decorated
def decorated(value):
    return value


worker.method(name="length")(len)


@worker.method
def refuse(value):
    raise worker.BadArguments(f"{value} is odd")


@worker.method
def unencodable(kind: str):
    loop = []
    loop.append(loop)
    return {"object": object(), "nan": float("nan"), "loop": loop, "surrogate": "\ud800", "bytes": b"x"}[kind]


@worker.method
def print_line(text: str):
    print(text)


@worker.method
def die(status: int):
    os._exit(status)


@worker.method
def random_number():
    return random.random()


@worker.method
def run_program(seconds: str):
    """Starts a program that outlives the call; its pid."""
    import subprocess

    return subprocess.Popen(["sleep", seconds]).pid
