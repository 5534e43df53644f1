"""The reference kernels: the definitions as loops. Nothing here is fast; everything here is right.

The three functions of a convolution are one sum,

    sum over all terms of   x[n, c, row, column] * w[o, k, u, v] * g[n, o, i, j],

with one of the three factors left out: that factor's indices are what the result is indexed by.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.backend import Array
from minidl.kernels.geometry import Conv2dGeometry, Pair, Pool2dGeometry


def _channels(outputs: int, group_channels: int, groups: int) -> Iterator[tuple[int, int, int]]:
    """All (o, c, k): output channel o sees input channel c through w[o, k]."""
    for o in range(outputs):
        group = o // (outputs // groups)
        for k in range(group_channels):
            yield o, group * group_channels + k, k


def conv2d(x: Array, w: Array, geometry: Conv2dGeometry, bias: Array | None = None) -> Array:
    """x (N, C, H, W), w (O, C/groups, KH, KW), bias (O,) or None -> y (N, O, OH, OW)."""
    y = np.zeros((len(x), len(w), *geometry.output_size), np.float64)
    for o, c, k in _channels(len(w), w.shape[1], geometry.groups):
        for i, j, u, v, row, column in geometry.taps():
            for n in range(len(x)):
                y[n, o, i, j] += float(x[n, c, row, column]) * float(w[o, k, u, v])
    if bias is not None:
        for o in range(len(w)):
            y[:, o] += bias[o]
    return y.astype(x.dtype)


def conv2d_input_grad(g: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """g (N, O, OH, OW), w (O, C/groups, KH, KW) -> dx (N, C, H, W)."""
    dx = np.zeros((len(g), w.shape[1] * geometry.groups, *geometry.input_size), np.float64)
    for o, c, k in _channels(len(w), w.shape[1], geometry.groups):
        for i, j, u, v, row, column in geometry.taps():
            for n in range(len(g)):
                dx[n, c, row, column] += float(g[n, o, i, j]) * float(w[o, k, u, v])
    return dx.astype(g.dtype)


def conv2d_weight_grad(x: Array, g: Array, geometry: Conv2dGeometry) -> Array:
    """x (N, C, H, W), g (N, O, OH, OW) -> dw (O, C/groups, KH, KW)."""
    dw = np.zeros((g.shape[1], x.shape[1] // geometry.groups, *geometry.kernel_size), np.float64)
    for o, c, k in _channels(g.shape[1], dw.shape[1], geometry.groups):
        for i, j, u, v, row, column in geometry.taps():
            for n in range(len(x)):
                dw[o, k, u, v] += float(x[n, c, row, column]) * float(g[n, o, i, j])
    return dw.astype(x.dtype)


def max_pool2d(x: Array, geometry: Pool2dGeometry) -> tuple[Array, Array]:
    """x (N, C, H, W) -> the largest value of each window, and where it was: row * W + column (first of equals)."""
    batch, channels, _, width = x.shape
    y = np.full((batch, channels, *geometry.output_size), -np.inf, x.dtype)
    indices = np.full(y.shape, -1, np.int64)
    for i, j, _, _, row, column in geometry.taps():
        for n in range(batch):
            for c in range(channels):
                value = x[n, c, row, column]
                first = indices[n, c, i, j] < 0
                if first or value > y[n, c, i, j] or (np.isnan(value) and not np.isnan(y[n, c, i, j])):
                    y[n, c, i, j] = value
                    indices[n, c, i, j] = row * width + column
    return y, indices


def max_pool2d_input_grad(g: Array, indices: Array, geometry: Pool2dGeometry) -> Array:
    """Each window's gradient goes to the cell it took its value from; overlapping windows add up."""
    height, width = geometry.input_size
    dx = np.zeros((*g.shape[:2], height, width), np.float64)
    for n, c, i, j in np.ndindex(g.shape):
        row, column = divmod(int(indices[n, c, i, j]), width)
        dx[n, c, row, column] += float(g[n, c, i, j])
    return dx.astype(g.dtype)


def avg_pool2d(x: Array, geometry: Pool2dGeometry) -> Array:
    """x (N, C, H, W) -> the mean of each window, (N, C, OH, OW)."""
    y = np.zeros((*x.shape[:2], *geometry.output_size), np.float64)
    rows, columns = geometry.divisors(0), geometry.divisors(1)
    for i, j, _, _, row, column in geometry.taps():
        y[:, :, i, j] += x[:, :, row, column] / (rows[i] * columns[j])
    return y.astype(x.dtype)


def repeat2d(x: Array, factors: Pair) -> Array:
    """x (N, C, H, W), (r, s) -> y (N, C, H*r, W*s): each cell r times down and s times across."""
    r, s = factors
    y = np.empty((*x.shape[:2], x.shape[2] * r, x.shape[3] * s), x.dtype)
    for i, j in np.ndindex(*y.shape[2:]):
        y[:, :, i, j] = x[:, :, i // r, j // s]
    return y


def repeat2d_input_grad(g: Array, factors: Pair) -> Array:
    """Each cell gets the sum of the gradients of its copies."""
    r, s = factors
    dx = np.zeros((*g.shape[:2], g.shape[2] // r, g.shape[3] // s), np.float64)
    for i, j in np.ndindex(*g.shape[2:]):
        dx[:, :, i // r, j // s] += g[:, :, i, j]
    return dx.astype(g.dtype)


def avg_pool2d_input_grad(g: Array, geometry: Pool2dGeometry) -> Array:
    """Each window's gradient is shared out evenly over its cells."""
    dx = np.zeros((*g.shape[:2], *geometry.input_size), np.float64)
    rows, columns = geometry.divisors(0), geometry.divisors(1)
    for i, j, _, _, row, column in geometry.taps():
        dx[:, :, row, column] += g[:, :, i, j] / (rows[i] * columns[j])
    return dx.astype(g.dtype)
