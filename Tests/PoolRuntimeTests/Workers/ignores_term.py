"""Ignores SIGTERM from its first call on, and serves."""
import os
import signal

from poold import worker


@worker.method
def ignore() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return os.getpid()
