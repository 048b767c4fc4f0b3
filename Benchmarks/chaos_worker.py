"""The worker of `poolbench chaos`: returns its body after doing what the body's first byte asks for, which is often bad.

A body is empty, or: u8 work, u8 flags (1: note the call in the journal), u16 0, u32 number in the journal, u64 token, u32 CRC-32 of the
first 4 KiB of the content, then the content; big-endian. The journal is one file of the whole run, opened for appending: 8 bytes for each
call that began, so that a call that ran twice, or ran although its caller was told that it did not, can be seen.
"""
import ctypes
import os
import signal
import struct
import sys
import time
import zlib

from poold import worker

HEADER = struct.Struct(">BBHIQI")
CHECKED = 4096
MIB = 1 << 20
_journal = -1
_leaked = []
numpy = None

if os.environ.get("POOLD_POOL") == "numbers":
    import numpy  # in the template, once


@worker.setup
def open_journal():
    global _journal
    path = os.environ.get("CHAOS_JOURNAL")
    if path:
        _journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def burn(nanoseconds):
    clock = time.thread_time_ns
    end = clock() + nanoseconds
    while clock() < end:
        pass


def note(number):
    """Before anything else, so that the journal knows whatever has begun."""
    if _journal >= 0:
        os.write(_journal, struct.pack(">II", number, os.getpid()))


def work(body):
    if not body:
        return body
    kind, flags, _, number, _, checksum = HEADER.unpack_from(body)
    if flags & 1:
        note(number)
    if kind == 101:  # e: echo
        pass
    elif kind == 98:  # b: 1 ms of CPU
        burn(1_000_000)
    elif kind == 115:  # s: 5 ms of waiting
        time.sleep(0.005)
    elif kind == 110:  # n: numpy
        numpy.frombuffer(body, dtype="uint8").sum()
    elif kind == 114:  # r
        raise RuntimeError("chaos asked for an exception")
    elif kind == 120:  # x
        sys.exit(3)
    elif kind == 88:  # X
        os._exit(3)
    elif kind in (83, 80):  # S, and P: always the same body
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)
    elif kind == 76:  # L: 20 MB that stay
        _leaked.append(b"\1" * (20 * MIB))
    elif kind == 70:  # F
        for line in range(5_000):
            print("chaos floods the log", line)
    elif kind == 71:  # G: a child that nobody waits for
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
    elif kind == 90:  # Z: longer than its budget
        time.sleep(3)
    elif kind == 72:  # H: in C, with the GIL
        ctypes.PyDLL(None).usleep(300_000)
    if zlib.crc32(memoryview(body)[HEADER.size:HEADER.size + CHECKED]) != checksum:
        raise ValueError("the body was changed on its way")
    return body


worker.method(name="work", codec="bytes")(work)
