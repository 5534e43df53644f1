"""What integers on a device are, as far as the host knows it: they came from there.

Labels and indices have to be checked, or a wrong one becomes a wrong number silently. Reading them from a GPU would
make every step wait for it. But a loader makes them on the host, so `x.to("cuda")` notes a copy of small integer
tensors, and what wants to check them looks here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backend import Array, backend_of

MOST = 1 << 16                              # numbers: labels of a batch, not a dataset


def note(tensor: Any, numbers: np.ndarray) -> None:
    """Remember the integers that were uploaded into this tensor; nothing to remember of floats, or on the host."""
    if numbers.dtype.kind in "iu" and numbers.size <= MOST and not backend_of(tensor.array).is_host:
        tensor.version.uploaded = tensor.version.count, tensor.array, numbers.copy()


def on_host(tensor: Any) -> Array | None:
    """The numbers of a tensor if they can be read without waiting for a device; else None."""
    if backend_of(tensor.array).is_host:
        return tensor.array
    count, array, numbers = tensor.version.uploaded or (None, None, None)
    return numbers if count == tensor.version.count and array is tensor.array else None
