"""Imports; its set-up raises."""
from poold import worker


@worker.setup
def load():
    raise RuntimeError("the model file is missing")


@worker.method
def never():
    return 1
