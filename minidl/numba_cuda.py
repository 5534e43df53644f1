"""`numba.cuda`, loaded so that it works with every NumPy: `from minidl.numba_cuda import cuda`.

numba-cuda 0.30 asks for `numpy.row_stack` when it compiles its first kernel, a second name of `vstack` that NumPy 2.5
no longer has. It gets it here for as long as it loads.
"""

from __future__ import annotations

import importlib
import warnings

import numpy as np
from numba import config

GONE = "row_stack"


def _load() -> None:
    lacks_it = not hasattr(np, GONE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)     # numba-cuda's own: a timedelta without a unit
        if lacks_it:
            setattr(np, GONE, np.vstack)
        try:
            importlib.import_module("numba.cuda")
            if not config.ENABLE_CUDASIM:
                importlib.import_module("numba.cuda.fp16")      # it and what it needs ask for the name
        finally:
            if lacks_it:
                delattr(np, GONE)


_load()

from numba import cuda  # noqa: E402

__all__ = ["cuda"]
