"""Leaves children behind that never end: forked, started as a program, or in a session of their own."""
import os
import subprocess
import time

from poold import worker


@worker.method
def fork() -> int:
    """A fork that holds the worker's descriptors open. Returns its pid."""
    pid = os.fork()
    if pid == 0:
        time.sleep(3600)
        os._exit(0)
    return pid


@worker.method
def popen() -> int:
    """A program in the worker's process group. Returns its pid."""
    return subprocess.Popen(["sleep", "3600"]).pid


@worker.method
def setsid() -> int:
    """A program that has left the worker's process group. Returns its pid."""
    return subprocess.Popen(["sleep", "3600"], start_new_session=True).pid
