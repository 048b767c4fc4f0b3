"""How calls end badly, for a client."""
from typing import Dict, Type

from poold import _wire

__all__ = ["PooldError", "ApplicationError", "Timeout", "Cancelled", "Overloaded", "WorkerLost", "ConnectionLost", "Refused", "BadResult", "Fault"]


class PooldError(Exception):
    """A call ended with an error; the subclasses say what a caller can do about it. `status` is its name in PROTOCOL.md, `detail`
    the traceback if there is one, `retry_after` seconds after which a retry is worth while (0: not said)."""

    def __init__(self, status: str, message: str, detail: str = "", retry_after: float = 0.0) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.detail = detail
        self.retry_after = retry_after

    @property
    def began(self) -> bool:
        """Whether the call may have had effects."""
        return self.status in ("application_error", "timeout_running", "cancelled", "worker_lost", "result_too_large", "result_unencodable", "internal")


class ApplicationError(PooldError):
    """The method raised; `detail` is its traceback."""


class Timeout(PooldError):
    """The budget ended. `began` says whether the method had begun."""


class Cancelled(PooldError):
    """The call was cancelled on its way, not by this client's own task or thread."""


class Overloaded(PooldError):
    """The pool does not take the call now: it is full, draining, without workers, or the caller is over its quota. Nothing has
    begun; see `retry_after`."""


class WorkerLost(PooldError):
    """The worker ended while it ran the call, which may have had effects."""


class ConnectionLost(WorkerLost):
    """The connection ended before the answer came; the call may have had effects."""

    def __init__(self, message: str) -> None:
        super().__init__("worker_lost", message)


class Refused(PooldError):
    """The call can never be served as it is: no such method, arguments that do not fit, no permission, quarantined …"""


class BadResult(PooldError):
    """The method ran, and its result cannot be sent: too large, or not of its codec."""


class Fault(PooldError):
    """A fault of the protocol, of poold or of the worker library."""


#: status → exception; `PooldError.status` says more exactly which
_EXCEPTIONS: Dict[str, Type[PooldError]] = {
    "application_error": ApplicationError, "timeout_waiting": Timeout, "timeout_running": Timeout, "cancelled": Cancelled,
    "overloaded": Overloaded, "draining": Overloaded, "pool_unavailable": Overloaded, "quota_exceeded": Overloaded,
    "worker_lost": WorkerLost, "session_lost": WorkerLost, "no_such_pool": Refused, "no_such_method": Refused, "method_gone": Refused,
    "bad_arguments": Refused, "permission_denied": Refused, "quarantined": Refused, "result_too_large": BadResult,
    "result_unencodable": BadResult,
}


def of_frame(code: int, body: bytes, time: int) -> PooldError:
    """The exception for an ERROR frame: its code, body, and time in ns."""
    first, _, detail = body.decode("utf-8", "replace").partition("\n")
    status = _wire.STATUS.get(code, f"status {code}")
    retry = time / 1e9 if status in ("overloaded", "pool_unavailable") else 0.0
    return _EXCEPTIONS.get(status, Fault)(status, first, detail, retry)
