"""Imports numpy."""
import os

import numpy

from poold import worker


@worker.method
def random_numbers():
    return [float(numpy.random.random()), os.environ.get("OPENBLAS_NUM_THREADS")]
