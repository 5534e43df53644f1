"""Kernels: convolution and pooling on plain arrays. No Tensor and no gradient bookkeeping in here.

Every kernel set is a module with the same functions,

    conv2d(x, w, geometry, bias=None)         max_pool2d(x, geometry) -> (y, indices)      avg_pool2d(x, geometry)
    conv2d_input_grad(g, w, geometry)         max_pool2d_input_grad(g, indices, geometry)  avg_pool2d_input_grad(...)
    conv2d_weight_grad(x, g, geometry)

and they are to be read in this order:

    reference   the definition, as loops: slow, and what the others are tested against
    im2col      the classic: copy the windows into a matrix, multiply once; on any array module
    loops       the loops again, compiled by Numba, a few windows at a time
    simd        tiles of the result are kept in vector registers, no window is copied; the default on the CPU
    cuda        for a GPU: one thread for each result, then tiles in shared memory

Beside them stand `dense` (products of matrices on all cores), `passes` (formulas, compiled to one pass over memory
each) and `fused` (a convolution with the layers after it). All of them share the one pool of threads in `threads`.

`active(array)` is the set in use; `with use_kernels("reference"):` chooses another. All sets agree on shapes, on
padding and on what `indices` mean (row · width + column in the unpadded image), so what one set kept, another can use.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from types import ModuleType

import numpy as np

from minidl.backend import Array, backend_of
from minidl.errors import DeviceError, SettingError
from minidl.kernels.layout import in_a_row, in_the_same_order

ON_CPU = ("reference", "im2col", "loops", "simd")       # im2col on any device
SETS = (*ON_CPU, "cuda")
_ON_HOST_ONLY = ("reference", "loops", "simd")
_SIMULATOR = "NUMBA_ENABLE_CUDASIM"       # Numba's switch: kernels for a GPU run on the CPU, as plain Python
_FEW = 1 << 14                            # numbers


class _Choice(threading.local):
    name: str | None = None               # None: the default for the array


_choice = _Choice()


def chosen() -> str | None:
    """The name of the kernel set that `use_kernels` selected in this thread, or None for the default."""
    return _choice.name


def active(array: Array) -> ModuleType:
    """The kernel set that will work on `array`: the selected one, else the fastest that fits."""
    backend = backend_of(array)
    name = _choice.name or backend.kernels
    if name in _ON_HOST_ONLY and not backend.is_host:
        raise DeviceError(f'the "{name}" kernels run on the CPU, the array is on "{backend.name}"; '
                          f'use use_kernels("im2col") or move the tensor with .to("cpu")', where="kernels")
    if name == "cuda" and backend.kernels != "cuda" and os.environ.get(_SIMULATOR) != "1":
        raise DeviceError(f'the "cuda" kernels run on a GPU, the array is on "{backend.name}"; move the tensor with '
                          f'.to("cuda"), or set {_SIMULATOR}=1 to step through them on the CPU', where="kernels")
    return kernel_module(name)


def kernel_module(name: str) -> ModuleType:
    """minidl.kernels.NAME, loaded at first use."""
    name = f"minidl.kernels.{name}"
    return sys.modules.get(name) or importlib.import_module(name)       # import_module takes a lock each time


def passes_for(*arrays: Array, among: int = 0) -> ModuleType | None:
    """The compiled passes over memory (see passes.py), if they can work on these arrays together and it pays.

    They must be NumPy's, float32 or float64, and alike in type, shape and order of memory, without gaps. Few numbers
    are computed by the formula: that is done before Numba has been loaded. among: how many numbers there are in all, if
    others are computed in the same way.
    """
    first = arrays[0]
    if (_choice.name not in (None, "simd", "loops") or type(first) is not np.ndarray or max(first.size, among) < _FEW
            or first.size == 0):
        return None
    alike = all(type(a) is np.ndarray and a.dtype == first.dtype and in_the_same_order(a, first) for a in arrays)
    if not alike or first.dtype not in (np.float32, np.float64) or in_a_row(first) is None:
        return None
    return kernel_module("passes")


def steps_for(*arrays: Array, among: int = 0) -> ModuleType | None:
    """The compiled steps of optimizers that can work on these arrays, `passes` or `cuda`; None if the formula has to.

    The arrays must be alike, as for `passes_for`; on a GPU in C order. among: how many numbers all parameters have.
    """
    first = arrays[0]
    if type(first) is np.ndarray:
        return passes_for(*arrays, among=among)
    if (_choice.name or backend_of(first).kernels) != "cuda":
        return None
    alike = all(type(a) is type(first) and a.dtype == first.dtype and a.shape == first.shape and a.flags.c_contiguous
                for a in arrays)
    return kernel_module("cuda") if alike and first.dtype in (np.float32, np.float64) else None


class use_kernels:
    """Select a kernel set inside a `with` block, in this thread; None selects the default.

    What is recorded inside the block runs backward with the same set, also after the block.
    """

    def __init__(self, name: str | None) -> None:
        if name is not None and name not in SETS:
            raise SettingError(f"got {name!r}, expected one of {', '.join(map(repr, SETS))}", where="use_kernels")
        self._name = name
        self._before: list[str | None] = []

    def __enter__(self) -> None:
        self._before.append(_choice.name)
        _choice.name = self._name

    def __exit__(self, *error: object) -> None:
        _choice.name = self._before.pop()
