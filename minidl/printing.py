"""How a tensor prints: in PyTorch's style, four digits, "tensor([[1.0000, 2.5000]], requires_grad=True)"."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def format_array(array: np.ndarray, prefix: str) -> str:
    """The numbers of an array, in brackets; lines after the first are indented by the length of `prefix`."""
    if array.ndim == 0:
        return str(_number_format(array)(array.item()))
    if array.size == 0:
        return "[]"
    shown = _shown(array).ravel()
    one = _number_format(shown)
    width = max(len(one(v)) for v in (shown if array.dtype.kind != "f" else [1.0, *shown[np.isfinite(shown)]]))
    text = np.array2string(array, separator=", ", prefix=prefix, threshold=1000, edgeitems=3, max_line_width=80,
                           formatter={"all": lambda v: one(v).rjust(width)})
    return str(text).replace(", ..., ", ",  ..., ")


def _shown(array: np.ndarray) -> np.ndarray:
    """The elements that are printed: all, or three from each end of each axis of a large array."""
    if array.size <= 1000:
        return array
    for axis, n in enumerate(array.shape):
        if n > 6:
            array = array.take([0, 1, 2, n - 3, n - 2, n - 1], axis)
    return array


def _number_format(shown: np.ndarray) -> Callable[[Any], str]:
    """The format for all numbers of one array: plain integers "2.", four digits, or powers of ten."""
    if shown.dtype.kind != "f":
        return str
    numbers = shown.astype(np.float64)
    magnitudes = np.abs(numbers[np.isfinite(numbers) & (numbers != 0)])
    if magnitudes.size == 0:
        largest = smallest = 1.0
    else:
        largest, smallest = magnitudes.max(), magnitudes.min()
    integers = bool(np.all(np.floor(magnitudes) == magnitudes))
    if largest > 1e8 or largest / smallest > 1000 or (smallest < 1e-4 and not integers):
        return lambda v: f"{v:.4e}"
    if integers:
        return lambda v: f"{v:.0f}." if np.isfinite(v) else str(float(v))
    return lambda v: f"{v:.4f}"
