"""Closes its socket in a call, and lives."""
import os
import time

from poold import worker


@worker.method
def close():
    os.close(3)
    time.sleep(60)
