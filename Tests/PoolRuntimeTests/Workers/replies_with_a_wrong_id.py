"""Answers a call that nobody has made."""
import os
import struct
import time

from poold import worker


@worker.method
def answer():
    os.write(3, struct.pack(">IBBHQQQ", 28, 5, 1, 0, 777, 0, 1))
    time.sleep(60)
