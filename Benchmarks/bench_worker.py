"""The worker that is measured: the public API, codec bytes. The payload's first byte picks the work."""
import time

from poold import worker


@worker.method(codec="bytes")
def handle(payload):
    c = payload[0] if payload else 0
    if c == 98:
        t = time.thread_time_ns
        end = t() + 1_000_000
        while t() < end:
            pass
    elif c == 115:
        time.sleep(0.005)
    elif c == 109:
        # A mix: nine of ten take 50 us, the tenth 20 ms of CPU; the calls' own order decides, not chance.
        global _count
        _count += 1
        t = time.thread_time_ns
        end = t() + (20_000_000 if _count % 10 == 0 else 50_000)
        while t() < end:
            pass
    return payload


_count = 0
