"""Starts a thread at import: a template must refuse to fork it; a cold worker serves."""
import threading
import time

from poold import worker

threading.Thread(target=time.sleep, args=(3600,), daemon=True, name="background").start()


@worker.method
def answer():
    return 42
