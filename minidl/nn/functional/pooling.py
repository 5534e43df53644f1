"""Pooling with windows of a fixed size, and with windows that are chosen for a fixed number of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import kernels, ops
from minidl.errors import SettingError, ShapeError
from minidl.graph import new_tensor
from minidl.kernels.geometry import IntOrPair, Pool2dGeometry, pair
from minidl.nn.functional.checks import check_floats, check_tensors, located
from minidl.nn.functional.convolution import single
from minidl.tensors import Tensor
from minidl.tensors.arithmetic import as_operand


def max_pool2d(input: Tensor, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0,
               dilation: IntOrPair = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest number in each window: (N, C, H, W) -> (N, C, OH, OW). The stride is the kernel size unless given.

    return_indices: also where each came from, row · W + column, which `max_unpool2d` takes.
    """
    check_tensors("max_pool2d", input)
    if input.ndim == 3:                                                      # one image (C, H, W)
        pooled = max_pool2d(input.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        return (pooled[0].squeeze(0), pooled[1].squeeze(0)) if return_indices else pooled.squeeze(0)
    geometry = located("max_pool2d", Pool2dGeometry.of, tuple(input.shape), kernel_size, stride, padding, dilation,
                       ceil_mode)
    y = ops.MaxPool2d(geometry)(input)
    if not return_indices:
        return y
    _, indices = kernels.active(input.array).max_pool2d(input.array, geometry)
    return y, new_tensor(indices)


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: IntOrPair, stride: IntOrPair | None = None,
                 padding: IntOrPair = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """Each number back to where max_pool2d took it from, zeros elsewhere: (N, C, OH, OW) -> (N, C, H, W)."""
    check_tensors("max_unpool2d", input, indices)
    kernel, p = pair(kernel_size, "kernel_size", 1), pair(padding, "padding", 0)
    s = kernel if stride is None else pair(stride, "stride", 1)
    size = [(n - 1) * s[k] + kernel[k] - 2 * p[k] for k, n in enumerate(input.shape[2:])]
    height, width = size if output_size is None else tuple(output_size)[-2:]
    places = indices.flatten(2)                                              # (N, C, OH·OW)
    empty = as_operand(np.zeros((*input.shape[:2], height * width))).to(input)
    return empty.scatter(2, places, input.flatten(2)).reshape(*input.shape[:2], height, width)


def avg_pool2d(input: Tensor, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW). The stride is the kernel size unless given."""
    check_floats("avg_pool2d", input)
    if input.ndim == 3:                                                      # one image (C, H, W)
        return avg_pool2d(input.unsqueeze(0), kernel_size, stride, padding, ceil_mode, count_include_pad).squeeze(0)
    geometry = located("avg_pool2d", Pool2dGeometry.of, tuple(input.shape), kernel_size, stride, padding, 1, ceil_mode,
                       count_include_pad)
    return ops.AvgPool2d(geometry)(input)


def max_pool1d(input: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0, dilation: int = 1,
               ceil_mode: bool = False) -> Tensor:
    """The largest number in each window of a sequence: (N, C, L) -> (N, C, OL)."""
    k = single(kernel_size, "kernel_size")
    step = k if stride is None else single(stride, "stride")
    y: Tensor = max_pool2d(_as_images(input, "max_pool1d"), (1, k), (1, step), (0, single(padding, "padding")),
                           (1, single(dilation, "dilation")), ceil_mode)
    return y.squeeze(2)                                                      # (N, C, 1, OL) -> (N, C, OL)


def avg_pool1d(input: Tensor, kernel_size: int, stride: int | None = None, padding: int = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Tensor:
    """The mean of each window of a sequence: (N, C, L) -> (N, C, OL)."""
    k = single(kernel_size, "kernel_size")
    step = k if stride is None else single(stride, "stride")
    y = avg_pool2d(_as_images(input, "avg_pool1d"), (1, k), (1, step), (0, single(padding, "padding")), ceil_mode,
                   count_include_pad)
    return y.squeeze(2)


def _as_images(x: Tensor, where: str) -> Tensor:
    check_tensors(where, x)
    if x.ndim != 3:
        raise ShapeError(f"got {x.shape}, expected (N, C, L)", where=where)
    return x.unsqueeze(2)                                                    # (N, C, L) -> (N, C, 1, L)


# -- adaptive: the number of windows is given, window i of O over H cells reaches from i·H/O to (i+1)·H/O, rounded out

def _bins(size: int, outputs: int) -> list[tuple[int, int]]:
    return [(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]


def _adaptive_size(x: Tensor, output_size: Any, where: str) -> tuple[int, int]:
    check_tensors(where, x)
    if x.ndim != 4:
        raise ShapeError(f"got {x.shape}, expected (N, C, H, W)", where=where)
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    if len(wanted) != 2:
        raise SettingError(f"got output_size={output_size!r}, expected a number or a pair", where=where)
    rows, columns = (n if w is None else w for w, n in zip(wanted, x.shape[2:], strict=True))
    return located(where, pair, (rows, columns), "output_size", 1)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The means of as many windows as asked for: (N, C, H, W) -> (N, C, *output_size); None keeps a size.

    A mean over windows along one axis is a product with a matrix, so along two it is  rows · x · columnsᵀ.
    """
    check_tensors("adaptive_avg_pool2d", input)
    if input.ndim == 3:                                                      # one image (C, H, W)
        return adaptive_avg_pool2d(input.unsqueeze(0), output_size).squeeze(0)
    rows, columns = _adaptive_size(input, output_size, "adaptive_avg_pool2d")
    check_floats("adaptive_avg_pool2d", input)
    if (rows, columns) == (1, 1):
        return input.mean((2, 3), keepdim=True)
    height, width = input.shape[2:]
    if height % rows == 0 and width % columns == 0:
        return avg_pool2d(input, (height // rows, width // columns))
    return _averaging(input, height, rows) @ input @ _averaging(input, width, columns).mT


def _averaging(x: Tensor, size: int, outputs: int) -> Tensor:
    """The matrix (outputs, size) that takes means over the bins."""
    matrix = np.zeros((outputs, size))
    for i, (start, end) in enumerate(_bins(size, outputs)):
        matrix[i, start:end] = 1 / (end - start)
    return as_operand(matrix).to(x)


def adaptive_max_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The largest numbers of as many windows as asked for: (N, C, H, W) -> (N, C, *output_size)."""
    rows, columns = _adaptive_size(input, output_size, "adaptive_max_pool2d")
    height, width = input.shape[2:]
    if height % rows == 0 and width % columns == 0:
        y: Tensor = max_pool2d(input, (height // rows, width // columns))
        return y
    in_rows = input[:, :, _cells(height, rows)]                              # (N, C, H, W) -> (N, C, OH, K, W)
    return in_rows[..., _cells(width, columns)].amax((3, 5))                 # (N, C, OH, K, OW, L) -> (N, C, OH, OW)


def _cells(size: int, outputs: int) -> np.ndarray:
    """The cells of each bin, (outputs, cells); shorter bins repeat their last cell, which changes no maximum."""
    bins = _bins(size, outputs)
    longest = max(end - start for start, end in bins)
    return np.array([[min(start + k, end - 1) for k in range(longest)] for start, end in bins])


def adaptive_avg_pool1d(input: Tensor, output_size: int) -> Tensor:
    """The means of as many windows as asked for: (N, C, L) -> (N, C, output_size)."""
    pooled = adaptive_avg_pool2d(_as_images(input, "adaptive_avg_pool1d"), (1, single(output_size, "output_size")))
    return pooled.squeeze(2)


def adaptive_max_pool1d(input: Tensor, output_size: int) -> Tensor:
    """The largest numbers of as many windows as asked for: (N, C, L) -> (N, C, output_size)."""
    pooled = adaptive_max_pool2d(_as_images(input, "adaptive_max_pool1d"), (1, single(output_size, "output_size")))
    return pooled.squeeze(2)
