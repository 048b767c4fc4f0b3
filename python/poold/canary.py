"""poold's own worker behind systemd's watchdog: it answers, and so shows that calls can be answered at all."""
from poold import worker


@worker.method(codec="bytes")
def ping(body: bytes) -> bytes:
    """The same bytes again."""
    return body
