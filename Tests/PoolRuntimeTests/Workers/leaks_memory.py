"""Keeps a mebibyte of touched memory more with each call of `leak`."""
from poold import worker

KEPT = []


@worker.method
def leak(mebibytes: int = 1) -> int:
    """Returns how many mebibytes are kept."""
    KEPT.extend(bytearray(b"x") * (1 << 20) for _ in range(mebibytes))
    return len(KEPT)
