"""Its set-up never ends."""
import time

from poold import worker


@worker.setup
def load():
    time.sleep(3600)


@worker.method
def never():
    return None
