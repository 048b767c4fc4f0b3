"""Echo, for measuring: the payload's first byte picks the work."""
import time

from poold import worker


@worker.method(codec="bytes")
def handle(payload: bytes) -> bytes:
    """'b' burns 1 ms of CPU, 's' sleeps 5 ms, anything else is an echo."""
    first = payload[0] if payload else 0
    if first == 98:
        clock = time.thread_time_ns
        end = clock() + 1_000_000
        while clock() < end:
            pass
    elif first == 115:
        time.sleep(0.005)
    return payload
