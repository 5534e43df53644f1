"""Pooling of the set `loops`: the loops of `reference`, compiled.

The order of the loops is what makes them fast. Images are handled as (N, H, W, C), the numbers of one pixel side by
side, and the innermost loop runs over them: the compiler then takes 8 or 16 in one instruction. The images are divided
among threads.

Arrays of other types than float32 and float64 are handed on to `im2col`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from minidl.backend import Array
from minidl.kernels import im2col
from minidl.kernels.compiling import compiled
from minidl.kernels.geometry import Pair, Pool2dGeometry, Window2d
from minidl.kernels.layout import channels_last
from minidl.kernels.threads import parallel, parts, ran

TWO_BY_TWO = (2, 2, 2, 2, 1, 1, 0, 0)           # `numbers_of` a window of 2×2 in steps of 2, without the last


def max_pool2d(x: Array, geometry: Pool2dGeometry) -> tuple[Array, Array]:
    """x (N, C, H, W) -> the largest value of each window, and where it was: row * W + column (first of equals)."""
    if not fits(x):
        return im2col.max_pool2d(x, geometry)
    ran["loops.max_pool2d"] += 1
    y = np.empty((len(x), *geometry.output_size, x.shape[1]), x.dtype)                   # (N, OH, OW, C)
    indices = np.empty(y.shape, np.int64)
    parallel(max_pool, parts(len(x), x.size), channels_last(x), numbers_of(geometry), y, indices)
    return y.transpose(0, 3, 1, 2), indices.transpose(0, 3, 1, 2)                        # (N, C, OH, OW) twice


def max_pool2d_input_grad(g: Array, indices: Array, geometry: Pool2dGeometry) -> Array:
    """Each window's gradient goes to the cell it took its value from; overlapping windows add up."""
    if not fits(g):
        return im2col.max_pool2d_input_grad(g, indices, geometry)
    ran["loops.max_pool2d_input_grad"] += 1
    shape = (len(g), *geometry.input_size, g.shape[1])                                   # (N, H, W, C)
    if tiles_the_image(geometry):
        dx = np.empty(shape, g.dtype)
        parallel(max_pool_cells, parts(len(g), dx.size), channels_last(g), channels_last(indices),
                 geometry.kernel_size, dx)
    else:
        dx = np.zeros(shape, g.dtype)
        parallel(max_pool_input_grad, parts(len(g), dx.size), channels_last(g), channels_last(indices), dx)
    return dx.transpose(0, 3, 1, 2)                                                      # (N, C, H, W)


def avg_pool2d(x: Array, geometry: Pool2dGeometry) -> Array:
    """x (N, C, H, W) -> the mean of each window, (N, C, OH, OW)."""
    if not fits(x):
        return im2col.avg_pool2d(x, geometry)
    ran["loops.avg_pool2d"] += 1
    y = np.empty((len(x), *geometry.output_size, x.shape[1]), x.dtype)                   # (N, OH, OW, C)
    parallel(avg_pool, parts(len(x), x.size), channels_last(x), numbers_of(geometry), shares_of(geometry, x.dtype), y)
    return y.transpose(0, 3, 1, 2)                                                       # (N, C, OH, OW)


def avg_pool2d_input_grad(g: Array, geometry: Pool2dGeometry) -> Array:
    """Each window's gradient is shared out evenly over its cells."""
    if not fits(g):
        return im2col.avg_pool2d_input_grad(g, geometry)
    ran["loops.avg_pool2d_input_grad"] += 1
    shape = (len(g), *geometry.input_size, g.shape[1])                                   # (N, H, W, C)
    shares = shares_of(geometry, g.dtype)                                                # (OH, OW)
    if tiles_the_image(geometry):
        dx = np.empty(shape, g.dtype)
        parallel(avg_pool_cells, parts(len(g), dx.size), channels_last(g), geometry.kernel_size, shares, dx)
    else:
        dx = np.zeros(shape, g.dtype)
        parallel(avg_pool_input_grad, parts(len(g), dx.size), channels_last(g), numbers_of(geometry), shares, dx)
    return dx.transpose(0, 3, 1, 2)                                                      # (N, C, H, W)


def repeat2d(x: Array, factors: Pair) -> Array:
    """x (N, C, H, W), (r, s) -> y (N, C, H*r, W*s): each cell r times down and s times across."""
    if not fits(x):
        return im2col.repeat2d(x, factors)
    ran["loops.repeat2d"] += 1
    y = np.empty((len(x), x.shape[2] * factors[0], x.shape[3] * factors[1], x.shape[1]), x.dtype)   # (N, H*r, W*s, C)
    parallel(repeat_cells, parts(len(x), y.size), channels_last(x), factors, y)
    return y.transpose(0, 3, 1, 2)                                                       # (N, C, H*r, W*s)


def repeat2d_input_grad(g: Array, factors: Pair) -> Array:
    """Each cell gets the sum of the gradients of its copies: g (N, C, H*r, W*s) -> dx (N, C, H, W)."""
    if not fits(g):
        return im2col.repeat2d_input_grad(g, factors)
    ran["loops.repeat2d_input_grad"] += 1
    dx = np.empty((len(g), g.shape[2] // factors[0], g.shape[3] // factors[1], g.shape[1]), g.dtype)   # (N, H, W, C)
    parallel(sum_copies, parts(len(g), g.size), channels_last(g), factors, dx)
    return dx.transpose(0, 3, 1, 2)                                                      # (N, C, H, W)


# -- the loops ---------------------------------------------------------------------------------------------------------

@compiled
def max_pool(start, stop, x, numbers, y, indices):
    """The largest cell of each window, and which it was."""
    kh, kw, s, t, d, e, top, left, _ = numbers
    _, height, width, channels = x.shape
    for n in range(start, stop):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                largest, index = y[n, i, j], indices[n, i, j]
                first = True
                for u in range(kh):
                    for v in range(kw):
                        row, column = i * s + u * d - top, j * t + v * e - left
                        if not (0 <= row < height and 0 <= column < width):
                            continue
                        pixel, cell = x[n, row, column], row * width + column
                        for c in range(channels):
                            value, before = pixel[c], largest[c]
                            # NaN is not equal to itself; it is larger than nothing, yet wins over all other numbers
                            wins = first | (value > before) | ((value != value) & (before == before))
                            largest[c] = value if wins else before
                            index[c] = cell if wins else index[c]
                        first = False


@compiled
def max_pool_input_grad(start, stop, g, indices, dx):
    """Each window's gradient is added to one cell."""
    _, rows, columns, channels = g.shape
    for n in range(start, stop):
        cells = dx[n].reshape(-1, channels)                                 # (H*W, C)
        for i in range(rows):
            for j in range(columns):
                for c in range(channels):
                    cells[indices[n, i, j, c], c] += g[n, i, j, c]


@compiled
def avg_pool(start, stop, x, numbers, shares, y):
    """The mean of each window."""
    if numbers[:8] == TWO_BY_TWO and y.shape[1] * 2 == x.shape[1] and y.shape[2] * 2 == x.shape[2]:
        sum_2x2(start, stop, x, shares[0, 0], y)
        return
    kh, kw, s, t, d, e, top, left, _ = numbers
    _, height, width, channels = x.shape
    for n in range(start, stop):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                mean = y[n, i, j]
                mean[:] = 0
                for u in range(kh):
                    for v in range(kw):
                        row, column = i * s + u * d - top, j * t + v * e - left
                        if 0 <= row < height and 0 <= column < width:
                            pixel = x[n, row, column]
                            for c in range(channels):
                                mean[c] += pixel[c]
                for c in range(channels):
                    mean[c] *= shares[i, j]


@compiled
def avg_pool_input_grad(start, stop, g, numbers, shares, dx):
    """Each window's gradient is added to all of its cells, in equal shares."""
    kh, kw, s, t, d, e, top, left, _ = numbers
    _, height, width, channels = dx.shape
    for n in range(start, stop):
        for i in range(g.shape[1]):
            for j in range(g.shape[2]):
                for u in range(kh):
                    for v in range(kw):
                        row, column = i * s + u * d - top, j * t + v * e - left
                        if 0 <= row < height and 0 <= column < width:
                            pixel, share = dx[n, row, column], g[n, i, j]
                            for c in range(channels):
                                pixel[c] += share[c] * shares[i, j]


@compiled
def repeat_cells(start, stop, x, factors, y):
    """Every cell of y is a copy."""
    if factors == (2, 2):
        spread_2x2(start, stop, x, 1, y)
        return
    r, s = factors
    for n in range(start, stop):
        for row in range(y.shape[1]):
            for column in range(y.shape[2]):
                pixel, cell = y[n, row, column], x[n, row // r, column // s]
                for c in range(cell.size):
                    pixel[c] = cell[c]


@compiled
def sum_copies(start, stop, g, factors, dx):
    """The transpose of `repeat_cells`."""
    if factors == (2, 2):
        sum_2x2(start, stop, g, 1, dx)
        return
    r, s = factors
    for n in range(start, stop):
        for row in range(dx.shape[1]):
            for column in range(dx.shape[2]):
                total = dx[n, row, column]
                total[:] = 0
                for copy in range(r * s):
                    pixel = g[n, row * r + copy // s, column * s + copy % s]
                    for c in range(total.size):
                        total[c] += pixel[c]


# Where windows lie side by side and cover the image, each cell is in one window. It can be written at once, without
# setting all to 0 first and adding.

@compiled
def max_pool_cells(start, stop, g, indices, kernel_size, dx):
    """Each cell gets its window's gradient, or 0."""
    kh, kw = kernel_size
    _, height, width, channels = dx.shape
    for n in range(start, stop):
        for row in range(height):
            for column in range(width):
                share, index = g[n, row // kh, column // kw], indices[n, row // kh, column // kw]
                pixel, cell = dx[n, row, column], row * width + column
                for c in range(channels):
                    pixel[c] = share[c] if index[c] == cell else 0


@compiled
def avg_pool_cells(start, stop, g, kernel_size, shares, dx):
    """Each cell gets its share of its window's gradient."""
    if kernel_size == (2, 2):
        spread_2x2(start, stop, g, shares[0, 0], dx)
        return
    kh, kw = kernel_size
    _, height, width, channels = dx.shape
    for n in range(start, stop):
        for row in range(height):
            for column in range(width):
                share, pixel = g[n, row // kh, column // kw], dx[n, row, column]
                for c in range(channels):
                    pixel[c] = share[c] * shares[row // kh, column // kw]


# The usual window by far, 2×2 beside 2×2: its loops need no checks, and four cells at a time are three times as fast.

@compiled
def sum_2x2(start, stop, x, share, y):
    """y = share · the sum of each window."""
    share = y.dtype.type(share)
    for n in range(start, stop):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                a, b = x[n, 2 * i, 2 * j], x[n, 2 * i, 2 * j + 1]
                c, d = x[n, 2 * i + 1, 2 * j], x[n, 2 * i + 1, 2 * j + 1]
                total = y[n, i, j]
                for k in range(total.size):
                    total[k] = ((a[k] + b[k]) + (c[k] + d[k])) * share


@compiled
def spread_2x2(start, stop, g, share, dx):
    """dx = share · the gradient of the window that a cell is in."""
    share = dx.dtype.type(share)
    for n in range(start, stop):
        for i in range(g.shape[1]):
            for j in range(g.shape[2]):
                source = g[n, i, j]
                for u in range(2):
                    for v in range(2):
                        pixel = dx[n, 2 * i + u, 2 * j + v]
                        for c in range(source.size):
                            pixel[c] = source[c] * share


# -- arrays and sizes as compiled loops take them ----------------------------------------------------------------------

def fits(*arrays: Array | None) -> bool:
    """Whether these loops can do the work: all arrays hold float32, or all float64."""
    dtypes = {array.dtype for array in arrays if array is not None}
    return len(dtypes) == 1 and dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}


def numbers_of(geometry: Window2d) -> tuple[int, ...]:
    """The geometry as a row of integers: kernel, stride, dilation, padding above and left, windows in a row."""
    (top, _), (left, _) = geometry.padding
    return (*geometry.kernel_size, *geometry.stride, *geometry.dilation, top, left, geometry.output_size[1])


def tiles_the_image(geometry: Window2d) -> bool:
    """Whether each cell of the image lies in exactly one window."""
    return (geometry.stride == geometry.kernel_size and geometry.dilation == (1, 1)
            and geometry.padding == ((0, 0), (0, 0))
            and all(k * n == size for k, n, size in zip(geometry.kernel_size, geometry.output_size,
                                                        geometry.input_size, strict=True)))


@lru_cache(maxsize=256)
def shares_of(geometry: Pool2dGeometry, dtype: np.dtype) -> Array:
    """One over the number of cells that each window averages, (OH, OW)."""
    return (1 / np.outer(geometry.divisors(0), geometry.divisors(1))).astype(dtype)
