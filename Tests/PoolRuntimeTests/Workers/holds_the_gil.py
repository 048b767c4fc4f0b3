"""Holds the interpreter's lock in C: no Python signal handler runs until it returns."""
import collections
import itertools
import re
import time

from poold import worker


def _consume(count: int) -> None:
    """One call into C that neither releases the lock nor looks for signals. (A C sleep would end at the first signal.)"""
    collections.deque(itertools.repeat(None, count), maxlen=0)


@worker.method
def hold(seconds: float) -> str:
    """For about so many seconds."""
    began = time.perf_counter()
    _consume(10_000_000)
    _consume(int(10_000_000 * seconds / (time.perf_counter() - began)))
    return "released"


@worker.method
def match(length: int = 40) -> bool:
    """A regular expression that backtracks 2^length times. It holds the lock, but it does look for signals: a revocation ends it."""
    return re.match(r"(a+)+$", "a" * length + "b") is not None
