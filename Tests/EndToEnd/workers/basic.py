"""Well behaved, with methods that take as long and end as badly as they are told."""
import os
import signal
import time

from poold import worker


@worker.method
def echo(value=None):
    return value


@worker.method(codec="bytes")
def raw(body):
    return body


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
def stubborn(seconds: float):
    """Swallows its cancellation."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except BaseException:
            pass
    return "done anyway"


@worker.method
def budget():
    return worker.remaining()


@worker.method
def session():
    return [worker.session(), os.getpid()]


@worker.method
def pid():
    return os.getpid()


@worker.method
def fail(text="no"):
    raise ValueError(text)


@worker.method
def leave():
    raise SystemExit(3)


@worker.method
def die(name="SIGKILL"):
    os.kill(os.getpid(), getattr(signal, name))


@worker.method
def count(path: str):
    """Appends a line: how often was it run?"""
    with open(path, "a") as file:
        file.write("x\n")
    return "counted"


@worker.method(idempotent=True)
def count_then_die(path: str):
    with open(path, "a") as file:
        file.write("x\n")
    os.kill(os.getpid(), signal.SIGKILL)


@worker.method
def unencodable():
    return object()


@worker.method
def large(size: int):
    return "x" * size
