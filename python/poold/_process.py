"""What a worker asks of the kernel, through libc. Its function objects are made at import, so that a fork finds them ready."""
import ctypes
import os
import platform
import signal
import sys
from typing import Iterable, List, Tuple

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_MEMBARRIER_REGISTER_GLOBAL_EXPEDITED = 4
#: number of the membarrier system call; libc has no wrapper for it
_MEMBARRIER = {"x86_64": 324, "aarch64": 283}.get(platform.machine(), 0)
_libc = ctypes.CDLL(None, use_errno=True)
_prctl, _syscall = _libc.prctl, _libc.syscall


def register_membarrier() -> None:
    """Lets poold's expedited barrier reach this process. Where that fails the worker still serves, and stderr says what is lost."""
    if not _MEMBARRIER:
        reason = f"its number on {platform.machine()} is not known"
    elif _syscall(_MEMBARRIER, _MEMBARRIER_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0:
        return
    else:
        reason = os.strerror(ctypes.get_errno())
    print(f"poold.worker: membarrier is not available ({reason}): a call that is revoked in the instant of its beginning may still begin",
          file=sys.stderr)


def die_with_parent() -> None:
    """The kernel kills this process when the thread that is its parent ends. Whoever calls checks os.getppid() afterwards:
    a parent that was gone before sends nothing."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def set_name(name: str) -> None:
    """The name in ps and top; the kernel keeps 15 bytes of it."""
    _prctl(_PR_SET_NAME, name.encode("utf-8", "replace")[:15], 0, 0, 0)


def move_descriptors(moves: Iterable[Tuple[int, int]], close_from: int) -> None:
    """Moves descriptors to fixed numbers, then closes every descriptor from `close_from` on. Only those moved to 0, 1 and 2
    stay open in programs that this process starts. Raises OSError."""
    # First above all targets, so that no source is overwritten before it was moved.
    lifted: List[Tuple[int, int]] = []
    for source, target in moves:
        low = []
        while source < close_from:
            low.append(source)
            source = os.dup(source)
        for descriptor in low[1:]:
            os.close(descriptor)
        lifted.append((source, target))
    for source, target in lifted:
        os.dup2(source, target, inheritable=target < 3)
    # Not os.closerange: where Python was built without close_range it closes two thousand million numbers one by one.
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= close_from:
            try:
                os.close(int(name))
            except OSError:
                pass  # the listing's own descriptor is gone already


def reset_signals() -> None:
    """Default actions and an empty mask: a fork inherits whatever the application installed while it was imported."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)


def other_threads() -> List[str]:
    """Names of this process's threads beside the main one."""
    names = []
    for task in os.listdir("/proc/self/task"):
        if int(task) != os.getpid():
            try:
                with open(f"/proc/self/task/{task}/comm") as name:
                    names.append(name.read().strip())
            except OSError:
                pass  # it ended meanwhile
    return names
