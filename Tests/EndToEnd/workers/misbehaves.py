"""Breaks the protocol on request, by writing to the socket and the page behind the library's back."""
import mmap
import os
import struct
import time

from poold import worker


def _page():
    return memoryview(mmap.mmap(4, 4096)).cast("Q")


@worker.method
def echo(value=None):
    return value


@worker.method
def bad_length():
    os.write(3, struct.pack(">IBBHQQQ", 5, 5, 1, 0, 1, 0, 0))
    time.sleep(30)


@worker.method
def huge_length():
    os.write(3, struct.pack(">IBBHQQQ", 0xFFFFFFF0, 5, 1, 0, 1, 0, 0))
    time.sleep(30)


@worker.method
def unknown_type():
    os.write(3, struct.pack(">IBBHQQQ", 28, 99, 0, 0, 1, 0, 0))
    time.sleep(30)


@worker.method
def wrong_id():
    os.write(3, struct.pack(">IBBHQQQ", 28, 5, 1, 0, 777, 0, 5))
    time.sleep(30)


@worker.method
def twice():
    # The library's own reply follows: the second one names a call that is answered.
    number = _page()[1]
    os.write(3, struct.pack(">IBBHQQQ", 28 + 4, 5, 1, 0, number, 0, 5) + b'"me"')
    return "again"


@worker.method
def rubbish():
    os.write(3, os.urandom(4096))
    time.sleep(30)


@worker.method
def closes_socket():
    os.close(3)
    time.sleep(30)


@worker.method
def scribbles():
    page = _page()
    page[1] = 1 << 60
    page[2] = 1 << 59
    os.kill(os.getpid(), 9)


@worker.method
def floods():
    line = b"x" * 200 + b"\n"
    for _ in range(20000):
        os.write(1, line)
    return "flooded"


@worker.method
def prints(text: str):
    print(text)
    return "printed"


@worker.method
def forks(kind: str):
    """Leaves a child behind; returns its pid."""
    import subprocess

    if kind == "fork":
        pid = os.fork()
        if pid == 0:
            time.sleep(3600)
            os._exit(0)
        return pid
    return subprocess.Popen(["sleep", "3600"], start_new_session=kind == "setsid").pid


@worker.method
def holds_gil(seconds: int):
    import ctypes

    ctypes.PyDLL(None).sleep(seconds)
    return "released"


@worker.method
def exits_soon():
    """Answers, then ends between calls."""
    import threading

    threading.Timer(0.05, lambda: os._exit(0)).start()
    return "bye"


@worker.method
def ignores_term():
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    return os.getpid()


@worker.method
def hangs():
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass


_leaked = []


@worker.method
def leaks(mebibytes: int):
    _leaked.append(os.urandom(mebibytes << 20))
    return os.getpid()
