"""How both clients come to a connection: one attempt, whether another is worth while, and what is said when the time is up."""
import errno
import socket
import time
from typing import Optional

from poold.errors import Timeout

#: between two attempts to connect
ATTEMPT_SECONDS = 0.05
#: a poold that listens welcomes within milliseconds; so long it may take where a call names no time of its own
WELCOME_SECONDS = 10.0


def unsent(reason: str) -> Timeout:
    """The error of a call whose time was up before poold could have heard of it."""
    return Timeout("timeout_waiting", f"{reason}; the call was not sent")


def is_foreign(error: BaseException) -> bool:
    """Of an exception caught where the call that raised it is written: whether Python code below raised it. So comes what a signal
    handler raises; what a socket raises has no such code."""
    return error.__traceback__ is not None and error.__traceback__.tb_next is not None


def left(deadline: Optional[float]) -> Optional[float]:
    """Seconds, not below 0; None: no deadline."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def attempt(path: str) -> socket.socket:
    """A connected socket that does not block: at once, or not at all. Raises OSError; BlockingIOError: poold is there, and as many
    as it lets wait are waiting."""
    connecting = socket.socket(socket.AF_UNIX)
    try:
        connecting.setblocking(False)
        connecting.connect(path)
    except BaseException as error:
        connecting.close()
        if not isinstance(error, OSError) or is_foreign(error):
            raise
        # Without a number it comes from Python itself: the path does not fit into a socket's address.
        raise OSError(error.errno or errno.ENAMETOOLONG, f"no poold answers on {path}: {error.strerror or error}") from None
    return connecting


def pause(error: Exception, patience: float, deadline: float) -> float:
    """After an attempt that failed with `error`: seconds until the next. Raises `error` where none is worth while after `patience`,
    Timeout after `deadline`."""
    now = time.monotonic()
    if now + ATTEMPT_SECONDS > patience and not isinstance(error, BlockingIOError):
        raise error
    if now >= deadline:
        raise unsent(str(error)) from error
    return min(ATTEMPT_SECONDS, deadline - now)
