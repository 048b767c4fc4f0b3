"""Answers, and ends 50 ms later with status 0."""
import os
import threading

from poold import worker


@worker.method
def leave() -> int:
    threading.Timer(0.05, os._exit, (0,)).start()
    return os.getpid()
