"""Write a worker: one Python file with decorated functions.

    from poold import worker

    @worker.setup
    def load():
        ...                                   # once in each worker, before its first call

    @worker.method                            # JSON: an object becomes keyword arguments, an array positional ones
    def summarize(text: str, sentences: int = 3) -> str:
        ...

    @worker.method(codec="bytes")             # bytes in, bytes out, untouched
    def transform(body: bytes) -> bytes:
        ...

`@worker.preload` runs once before workers are forked, `@worker.teardown` when one ends in peace. A call whose caller has gone gets
`worker.Cancelled` raised in it: clean up with `finally`, and let it pass. Other threads of a worker never get it.

Run by poold (`poold serve --pool text=text.py`); `python -m poold.worker MODULE` is how poold starts it.
"""
from typing import Optional

from poold import _registry
from poold._registry import BadArguments, Cancelled, method, preload, setup, teardown

__all__ = ["BadArguments", "Cancelled", "method", "preload", "remaining", "session", "setup", "teardown"]


def remaining() -> Optional[float]:
    """Seconds left of the running call's budget; None if it has none. Negative once it is over."""
    return _registry.remaining()


def session() -> int:
    """The session number of the running call; 0: none."""
    return _registry.session()


if __name__ == "__main__":
    import sys

    from poold import _serve

    sys.exit(_serve.main(sys.argv[1:]))
