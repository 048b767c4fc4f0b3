"""Its import ends only where no template runs it."""
import os
import time

from poold import worker

if "POOLD_SLOT" not in os.environ:
    time.sleep(3600)


@worker.method
def answer():
    return 42
