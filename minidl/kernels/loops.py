"""The loops of `reference`, compiled: what plain Numba buys. Pooling, the simpler half, stands in pooling.py.

A convolution is a product with the matrix that has every window as a row, (N·OH·OW, KH·KW·C), as in `im2col`. But here
only CHUNK windows exist at a time, in an array so small that it never leaves the processor's cache:

    forward        gather windows;  y = windows @ matrix            (CHUNK, O)
    input grad     windows = g @ matrix.T;  scatter them            (CHUNK, KH·KW·C)
    weight grad    gather windows;  matrix += windows.T @ g         (KH·KW·C, O)

`add_product` is the product that all three need. Two rules make compiled loops fast: the innermost loop runs over
numbers side by side in memory, and what was fetched is used several times before the next is fetched.

The images are divided among threads. Arrays of other types than float32 and float64 are handed on to `im2col`.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.backend import Array
from minidl.kernels import im2col
from minidl.kernels.compiling import compiled
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.layout import channels_last
from minidl.kernels.pooling import (
    avg_pool2d,
    avg_pool2d_input_grad,
    fits,
    max_pool2d,
    max_pool2d_input_grad,
    numbers_of,
    repeat2d,
    repeat2d_input_grad,
)
from minidl.kernels.threads import parallel, parallel_parts, parts, ran

__all__ = ["avg_pool2d", "avg_pool2d_input_grad", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "fits",
           "max_pool2d", "max_pool2d_input_grad", "repeat2d", "repeat2d_input_grad"]

CHUNK = 16               # windows that exist at a time


def conv2d(x: Array, w: Array, geometry: Conv2dGeometry, bias: Array | None = None) -> Array:
    """x (N, C, H, W), w (O, C/groups, KH, KW), bias (O,) or None -> y (N, O, OH, OW)."""
    if not fits(x, w, bias):
        return im2col.conv2d(x, w, geometry, bias)
    ran["loops.conv2d"] += 1
    groups, outputs, pixels = geometry.groups, len(w), math.prod(geometry.output_size)
    matrices = _matrices(w, groups)                                                      # (G, KH*KW*C/G, O/G)
    start_at = np.zeros(outputs, x.dtype) if bias is None else np.ascontiguousarray(bias)
    y = np.empty((len(x), *geometry.output_size, outputs), x.dtype)                      # (N, OH, OW, O)
    ranges = parts(len(x) * groups, len(x) * pixels * w.size / 16)
    parallel(_forward, ranges, channels_last(x), matrices, start_at.reshape(groups, -1), numbers_of(geometry),
             y.reshape(len(x), pixels, groups, outputs // groups))
    return y.transpose(0, 3, 1, 2)                                                       # (N, O, OH, OW)


def conv2d_input_grad(g: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """g (N, O, OH, OW), w (O, C/groups, KH, KW) -> dx (N, C, H, W)."""
    if not fits(g, w):
        return im2col.conv2d_input_grad(g, w, geometry)
    ran["loops.conv2d_input_grad"] += 1
    groups, outputs, pixels = geometry.groups, len(w), math.prod(geometry.output_size)
    matrices = np.ascontiguousarray(_matrices(w, groups).swapaxes(1, 2))                 # (G, O/G, KH*KW*C/G)
    dx = np.zeros((len(g), *geometry.input_size, groups * w.shape[1]), g.dtype)          # (N, H, W, C)
    g = channels_last(g).reshape(len(g), pixels, groups, outputs // groups)              # (N, OH*OW, G, O/G)
    ranges = parts(len(g) * groups, len(g) * pixels * w.size / 16)
    parallel(_input_grad, ranges, g, matrices, numbers_of(geometry), dx)
    return dx.transpose(0, 3, 1, 2)                                                      # (N, C, H, W)


def conv2d_weight_grad(x: Array, g: Array, geometry: Conv2dGeometry) -> Array:
    """x (N, C, H, W), g (N, O, OH, OW) -> dw (O, C/groups, KH, KW)."""
    if not fits(x, g):
        return im2col.conv2d_weight_grad(x, g, geometry)
    ran["loops.conv2d_weight_grad"] += 1
    groups, outputs, pixels = geometry.groups, g.shape[1], math.prod(geometry.output_size)
    (kh, kw), group_channels = geometry.kernel_size, x.shape[1] // groups
    ranges = parts(len(x), g.size * kh * kw * group_channels / 16)
    matrices = np.zeros((len(ranges), groups, kh * kw * group_channels, outputs // groups), x.dtype)   # one a thread
    g = channels_last(g).reshape(len(g), pixels, groups, outputs // groups)              # (N, OH*OW, G, O/G)
    parallel_parts(_weight_grad, ranges, channels_last(x), g, numbers_of(geometry), matrices)
    dw = matrices.sum(axis=0).transpose(0, 2, 1).reshape(outputs, kh, kw, -1)            # (O, KH, KW, C/G)
    return dw.transpose(0, 3, 1, 2)                                                      # (O, C/G, KH, KW)


# -- convolution: the loops --------------------------------------------------------------------------------------------

@compiled
def _forward(start, stop, x, matrices, bias, numbers, y):
    """y[n, p, group] = bias[group] + window p of image n @ matrices[group]; y is (N, OH*OW, G, O/G)."""
    groups, terms, outputs = matrices.shape
    windows, total = np.empty((CHUNK, terms), x.dtype), np.empty((CHUNK, outputs), x.dtype)
    for unit in range(start, stop):
        n, group = unit // groups, unit % groups
        for first in range(0, y.shape[1], CHUNK):
            count = min(CHUNK, y.shape[1] - first)
            for p in range(count):
                gather(windows[p], x[n], group * (x.shape[3] // groups), first + p, numbers)
                total[p] = bias[group]
            add_product(total[:count], windows[:count], matrices[group])
            for p in range(count):
                y[n, first + p, group] = total[p]


@compiled
def _input_grad(start, stop, g, matrices, numbers, dx):
    """dx[n] += scattered windows, window p being g[n, p, group] @ matrices[group]; g is (N, OH*OW, G, O/G)."""
    groups, outputs, terms = matrices.shape
    windows, factors = np.empty((CHUNK, terms), g.dtype), np.empty((CHUNK, outputs), g.dtype)
    for unit in range(start, stop):
        n, group = unit // groups, unit % groups
        for first in range(0, g.shape[1], CHUNK):
            count = min(CHUNK, g.shape[1] - first)
            for p in range(count):
                factors[p] = g[n, first + p, group]
            windows[:] = 0
            add_product(windows[:count], factors[:count], matrices[group])
            for p in range(count):
                scatter(windows[p], dx[n], group * (dx.shape[3] // groups), first + p, numbers)


@compiled
def _weight_grad(part, start, stop, x, g, numbers, matrices):
    """matrices[part, group] += windows.T @ g[n, :, group] for the images of one part; g is (N, OH*OW, G, O/G)."""
    _, groups, terms, outputs = matrices.shape
    window, factors = np.empty(terms, x.dtype), np.empty((CHUNK, outputs), g.dtype)
    windows = np.empty((terms, CHUNK), x.dtype)                             # turned: a column is a window
    for n in range(start, stop):
        for group in range(groups):
            for first in range(0, g.shape[1], CHUNK):
                count = min(CHUNK, g.shape[1] - first)
                windows[:], factors[:] = 0, 0
                for p in range(count):
                    gather(window, x[n], group * (x.shape[3] // groups), first + p, numbers)
                    windows[:, p] = window
                    factors[p] = g[n, first + p, group]
                add_product(matrices[part, group], windows, factors)


@compiled
def add_product(total, left, right):
    """total (A, M) += left (A, K) @ right (K, M).

    Four rows of `total` and four of `right` at a time: that is sixteen products for eight loads and four stores.
    """
    rows, terms = left.shape
    for a in range(0, rows - 3, 4):
        t0, t1, t2, t3 = total[a], total[a + 1], total[a + 2], total[a + 3]
        for k in range(0, terms - 3, 4):
            r0, r1, r2, r3 = right[k], right[k + 1], right[k + 2], right[k + 3]
            a0, a1, a2, a3 = left[a, k], left[a, k + 1], left[a, k + 2], left[a, k + 3]
            b0, b1, b2, b3 = left[a + 1, k], left[a + 1, k + 1], left[a + 1, k + 2], left[a + 1, k + 3]
            c0, c1, c2, c3 = left[a + 2, k], left[a + 2, k + 1], left[a + 2, k + 2], left[a + 2, k + 3]
            d0, d1, d2, d3 = left[a + 3, k], left[a + 3, k + 1], left[a + 3, k + 2], left[a + 3, k + 3]
            for m in range(t0.size):
                t0[m] += a0 * r0[m] + a1 * r1[m] + a2 * r2[m] + a3 * r3[m]
                t1[m] += b0 * r0[m] + b1 * r1[m] + b2 * r2[m] + b3 * r3[m]
                t2[m] += c0 * r0[m] + c1 * r1[m] + c2 * r2[m] + c3 * r3[m]
                t3[m] += d0 * r0[m] + d1 * r1[m] + d2 * r2[m] + d3 * r3[m]
        for k in range(terms // 4 * 4, terms):                              # the terms left over
            r0, a0, b0, c0, d0 = right[k], left[a, k], left[a + 1, k], left[a + 2, k], left[a + 3, k]
            for m in range(t0.size):
                t0[m] += a0 * r0[m]
                t1[m] += b0 * r0[m]
                t2[m] += c0 * r0[m]
                t3[m] += d0 * r0[m]
    for a in range(rows // 4 * 4, rows):                                    # the rows left over
        t0 = total[a]
        for k in range(terms):
            r0, a0 = right[k], left[a, k]
            for m in range(t0.size):
                t0[m] += a0 * r0[m]


@compiled
def gather(window, image, channel, p, numbers):
    """Copy window p of an image (H, W, C) into a row, zeros where it lies on padding; from `channel` on, for groups."""
    kh, kw, s, t, d, e, top, left, out_w = numbers
    height, width, _ = image.shape
    channels = window.size // (kh * kw)
    i, j = p // out_w, p % out_w
    for u in range(kh):
        for v in range(kw):
            row, column = i * s + u * d - top, j * t + v * e - left
            cells = window[(u * kw + v) * channels:(u * kw + v + 1) * channels]
            if 0 <= row < height and 0 <= column < width:
                pixel = image[row, column, channel:channel + channels]
                for c in range(cells.size):
                    cells[c] = pixel[c]
            else:
                for c in range(cells.size):
                    cells[c] = 0


@compiled
def scatter(window, image, channel, p, numbers):
    """The transpose of `gather`: add the row to the cells that it would have been copied from."""
    kh, kw, s, t, d, e, top, left, out_w = numbers
    height, width, _ = image.shape
    channels = window.size // (kh * kw)
    i, j = p // out_w, p % out_w
    for u in range(kh):
        for v in range(kw):
            row, column = i * s + u * d - top, j * t + v * e - left
            if 0 <= row < height and 0 <= column < width:
                cells = window[(u * kw + v) * channels:(u * kw + v + 1) * channels]
                pixel = image[row, column, channel:channel + channels]
                for c in range(cells.size):
                    pixel[c] += cells[c]


def _matrices(w: Array, groups: int) -> Array:
    """(O, C/G, KH, KW) -> (G, KH*KW*C/G, O/G), in order in memory."""
    split = w.reshape(groups, len(w) // groups, *w.shape[1:])                            # (G, O/G, C/G, KH, KW)
    return np.ascontiguousarray(split.transpose(0, 3, 4, 2, 1)).reshape(groups, -1, len(w) // groups)
