"""Swallows every interruption and never returns."""
import time

from poold import worker


@worker.method
def hang():
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass
