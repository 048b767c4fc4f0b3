"""Remembers what it was warmed with, and hangs or fails as told."""
import signal
import time

from poold import worker

seen = []
strikes = []


@worker.setup
def prepare():
    seen.append("setup")


@worker.method
def remember(value):
    seen.append(value)


@worker.method(codec="bytes")
def take(body):
    seen.append(body.decode())
    return body


@worker.method
def told():
    return seen


@worker.method
def fail(text="no"):
    raise ValueError(text)


@worker.method
def hang(seconds=60.0):
    time.sleep(seconds)


@worker.method
def stubborn():
    """Swallows the first end that it is told."""
    try:
        time.sleep(60)
    except BaseException as error:
        strikes.append(type(error).__name__)
    time.sleep(60)


@worker.method
def alarm_handler():
    return signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
