"""Stops itself with SIGSTOP in a call; after SIGCONT the call ends."""
import os
import signal

from poold import worker


@worker.method
def stop() -> str:
    os.kill(os.getpid(), signal.SIGSTOP)
    return "continued"
