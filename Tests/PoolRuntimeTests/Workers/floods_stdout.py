"""Writes 64 MiB to stdout in one call, as fast as the pipe takes them."""
import os

from poold import worker


@worker.method
def flood(mebibytes: int = 64) -> str:
    lines = (b"x" * 1023 + b"\n") * 64
    for _ in range(mebibytes * 16):
        os.write(1, lines)
    return "flooded"
