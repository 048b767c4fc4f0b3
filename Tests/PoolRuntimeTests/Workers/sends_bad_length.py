"""Answers a call with a frame whose length is below that of a header."""
import os
import struct
import time

from poold import worker


@worker.method
def answer():
    os.write(3, struct.pack(">IBBHQQQ", 5, 5, 1, 0, 1, 0, 1))
    time.sleep(60)
