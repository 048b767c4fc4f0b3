"""Where a living worker is, in words: the stacks of its threads and of asyncio's tasks (PROTOCOL.md, section 7).

Written in the handler of a signal, so nothing here takes a lock that the interrupted code may hold.
"""
import os
import sys
import threading
import traceback
from types import FrameType
from typing import Any, Dict, List, Optional

#: bytes of one dump
LIMIT = 65536
#: threads and tasks of one dump, and frames of each: the innermost
_THREADS, _TASKS, _FRAMES = 64, 64, 64
_HERE = os.path.dirname(os.path.abspath(__file__))


def _chain(frame: Optional[FrameType]) -> List[FrameType]:
    """Outermost first."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _lines(frames: List[FrameType]) -> List[str]:
    cut = len(frames) - _FRAMES
    summary = traceback.StackSummary.extract(((frame, frame.f_lineno) for frame in frames[max(cut, 0):]))
    return ([f"  … {cut} frames further out\n"] if cut > 0 else []) + traceback.format_list(summary)


def _of_application(frames: List[FrameType]) -> List[FrameType]:
    """Without what this library and the interpreter put around a call."""
    at = 0
    while at < len(frames) and (frames[at].f_code.co_filename.startswith(_HERE) or "runpy" in frames[at].f_code.co_filename):
        at += 1
    return frames[at:]


def _tasks(chains: List[List[FrameType]]) -> List[str]:
    """asyncio's tasks of every loop that one of these stacks runs."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return []
    loops: List[Any] = []
    for frames in chains:
        for frame in frames:
            if frame.f_code.co_name == "run_forever" and "asyncio" in frame.f_code.co_filename:
                loops.append(frame.f_locals.get("self"))
    running = asyncio._get_running_loop()
    if running is not None and all(running is not loop for loop in loops):
        loops.append(running)
    parts = []
    for loop in loops:
        for task in list(asyncio.all_tasks(loop))[:_TASKS]:
            parts.append(f"asyncio task {task.get_name()}:\n")
            parts += _lines(task.get_stack(limit=_FRAMES)) or ["  (it is not suspended in Python code)\n"]
    return parts


def describe(interrupted: Optional[FrameType]) -> bytes:
    """All stacks; `interrupted` is where the main thread was. Never raises an Exception."""
    parts: List[str] = []
    try:
        # Not threading.enumerate(): its lock may be held by the code that was interrupted.
        names: Dict[Optional[int], str] = {thread.ident: thread.name for thread in list(getattr(threading, "_active", {}).values())}
        main = _chain(interrupted)
        application = _of_application(main)
        parts.append("Thread MainThread:\n" + ("" if application else "  (waits for a call)\n"))
        parts += _lines(application)
        chains = [main]
        for number, frame in list(sys._current_frames().items())[:_THREADS]:
            if number != threading.main_thread().ident:
                chains.append(_chain(frame))
                parts.append(f"Thread {names.get(number, number)}:\n")
                parts += _lines(chains[-1])
        parts += _tasks(chains)
    except Exception as error:
        parts.append(f"(the rest could not be told: {type(error).__name__}: {error})\n")
    text = "".join(parts).encode("utf-8", "backslashreplace")
    return text if len(text) <= LIMIT else text[:LIMIT - 6] + b"\n(cut)"


def append(descriptor: int, interrupted: Optional[FrameType]) -> None:
    """Writes all stacks to the stack file. Never raises an Exception."""
    try:
        os.write(descriptor, describe(interrupted))
    except OSError:
        pass  # no stack file: poold then says that nothing was written
