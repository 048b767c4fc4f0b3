"""Answers its call behind the library's back; the library's own answer follows."""
import mmap
import os
import struct

from poold import worker


@worker.method
def answer() -> str:
    number = memoryview(mmap.mmap(4, 4096)).cast("Q")[1]
    os.write(3, struct.pack(">IBBHQQQ", 28 + 7, 5, 1, 0, number, 0, 1) + b'"first"')
    return "second"
