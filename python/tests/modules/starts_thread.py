"""Starts a thread while it is imported."""
import threading
import time

from poold import worker

threading.Thread(target=time.sleep, args=(3600,), daemon=True, name="background").start()


@worker.method
def answer():
    return 42
