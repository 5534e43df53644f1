"""How arrays lie in memory. Nothing here copies unless it says so.

Images have the shape (N, C, H, W). The fast kernels want the C numbers of a pixel side by side ("channels-last") and
leave such memory under that shape; what is computed element by element from it lies in the same order.
"""

from __future__ import annotations

import numpy as np

from minidl.backend import Array, Axes, xp_of
from minidl.kernels.threads import parallel, parts

SWAP = 4            # so many times as long as reading and writing a number takes it if its neighbours go elsewhere


def channels_last(images: Array) -> Array:
    """(N, C, H, W) -> (N, H, W, C), in the order of memory; a copy if it was not."""
    return in_c_order(images.transpose(0, 2, 3, 1))


def in_c_order(array: Array) -> Array:
    """The array, its last axis side by side in memory; a copy if it was not, made by all threads."""
    if array.flags.c_contiguous or type(array) is not np.ndarray:
        return xp_of(array).ascontiguousarray(array)
    copy = np.empty(array.shape, array.dtype)
    parallel(_copy, parts(len(array), SWAP * array.size), array, copy)
    return copy


def _copy(start: int, stop: int, array: Array, copy: Array) -> None:
    copy[start:stop] = array[start:stop]


def in_a_row(array: Array) -> Array | None:
    """The numbers in the order of memory, for arrays in C order and for channels-last images; else None."""
    if array.flags.c_contiguous:
        return array.reshape(-1)
    if array.ndim == 4 and (pixels := array.transpose(0, 2, 3, 1)).flags.c_contiguous:
        return pixels.reshape(-1)                                       # (N, C, H, W) -> (N*H*W*C,)
    return None


def in_the_same_order(a: Array, b: Array) -> bool:
    """Whether both have the same shape, and their elements the same order in memory."""
    return a.shape == b.shape and (a.strides == b.strides or all(
        s == t for n, s, t in zip(a.shape, a.strides, b.strides, strict=True) if n > 1))    # of one there is no order


def rows_of_channels(x: Array, axes: Axes) -> Array | None:
    """x as rows (…, C) if `axes` are all axes but that of the channels, which must lie side by side; else None."""
    if x.ndim == 4 and axes == (0, 2, 3):
        x = x.transpose(0, 2, 3, 1)                                     # (N, C, H, W) -> (N, H, W, C)
    elif x.ndim < 2 or axes != tuple(range(x.ndim - 1)):
        return None
    return x.reshape(-1, x.shape[-1]) if x.flags.c_contiguous else None
