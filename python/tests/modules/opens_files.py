"""Leaves at import: an open file, a signal handler, a blocked signal, and output that was not flushed."""
import signal
import sys

from poold import worker

FILE = open("/proc/self/status")
signal.signal(signal.SIGTERM, lambda *_: None)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGALRM])
sys.stdout.reconfigure(line_buffering=False)
sys.stdout.write("once only")


@worker.method
def mask():
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))


@worker.method
def sleep(seconds: float):
    import time

    time.sleep(seconds)
