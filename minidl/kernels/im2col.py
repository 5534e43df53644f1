"""The classic kernels: copy every window into a row of a matrix ("image to columns"), then multiply once.

One large matrix product is what processors are best at, so this beats loops by far, at the price of memory: a 3×3
window copies each pixel nine times. Only names that NumPy and CuPy share are used, so it runs on either.

Images are handled as (N, H, W, C) inside, because then the C numbers of one pixel lie side by side, and results are
returned as (N, C, H, W) views of that memory: the usual shape, "channels-last" in memory.

Ref: Chellapilla, Puri, Simard 2006, "High Performance Convolutional Neural Networks for Document Processing"
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from minidl.backend import Array, backend_of, xp_of
from minidl.kernels import dense
from minidl.kernels.geometry import Conv2dGeometry, Pair, Pool2dGeometry, Window2d


def conv2d(x: Array, w: Array, geometry: Conv2dGeometry, bias: Array | None = None) -> Array:
    """x (N, C, H, W), w (O, C/groups, KH, KW), bias (O,) or None -> y (N, O, OH, OW).

    rows @ matrix, one product per group:   y[n·i·j, o] = sum over u,v,k of  rows[n·i·j, u·v·k] * matrix[u·v·k, o]
    """
    by_channel = _by_channel(len(x), w, geometry)
    rows = _group_rows(windows_of(x, geometry, fill=0), geometry.groups, by_channel)     # (G, N*OH*OW, KH*KW*C/G)
    y = dense.matmul(rows, _group_matrices(w, geometry.groups, by_channel))  # (G, N*OH*OW, O/G)
    y = _from_groups(y, len(x), geometry.output_size)                        # (N, OH, OW, O)
    if bias is not None:
        y += bias
    return y.transpose(0, 3, 1, 2)                                           # (N, O, OH, OW)


def conv2d_input_grad(g: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """g (N, O, OH, OW), w (O, C/groups, KH, KW) -> dx (N, C, H, W).

    The transposed product gives the gradient of every copied cell; cells copied to several windows add up.
    """
    groups, (kh, kw), by_channel = geometry.groups, geometry.kernel_size, _by_channel(len(g), w, geometry)
    matrices = _group_matrices(w, groups, by_channel)                        # (G, KH*KW*C/G, O/G)
    rows = dense.matmul(_to_groups(g, groups), matrices.swapaxes(1, 2))      # (G, N*OH*OW, KH*KW*C/G)
    channels, places = groups * w.shape[1], (len(g), *geometry.output_size)
    if by_channel:
        rows = rows.reshape(groups, *places, w.shape[1], kh, kw)             # (G, N, OH, OW, C/G, KH, KW)
        rows = rows.transpose(5, 6, 1, 2, 3, 0, 4)                           # (KH, KW, N, OH, OW, G, C/G)
    else:
        rows = rows.reshape(groups, *places, kh, kw, w.shape[1])             # (G, N, OH, OW, KH, KW, C/G)
        rows = rows.transpose(4, 5, 1, 2, 3, 0, 6)                           # (KH, KW, N, OH, OW, G, C/G)
    return add_windows(rows.reshape(kh, kw, *places, channels), geometry)    # (N, C, H, W)


def conv2d_weight_grad(x: Array, g: Array, geometry: Conv2dGeometry) -> Array:
    """x (N, C, H, W), g (N, O, OH, OW) -> dw (O, C/groups, KH, KW)."""
    groups, (kh, kw) = geometry.groups, geometry.kernel_size
    rows = _group_rows(windows_of(x, geometry, fill=0), groups, False)       # (G, N*OH*OW, KH*KW*C/G)
    dw = dense.matmul(_to_groups(g, groups).swapaxes(1, 2), rows)            # (G, O/G, KH*KW*C/G)
    dw = dw.reshape(g.shape[1], kh, kw, x.shape[1] // groups)                # (O, KH, KW, C/G)
    return dw.transpose(0, 3, 1, 2)                                          # (O, C/G, KH, KW)


def max_pool2d(x: Array, geometry: Pool2dGeometry) -> tuple[Array, Array]:
    """x (N, C, H, W) -> the largest value of each window, and where it was: row * W + column (first of equals)."""
    xp, (kh, kw) = xp_of(x), geometry.kernel_size
    lowest = -xp.inf if x.dtype.kind == "f" else xp.iinfo(x.dtype).min
    windows = windows_of(x, geometry, fill=lowest)                           # (N, OH, OW, KH, KW, C)
    windows = windows.reshape(*windows.shape[:3], kh * kw, x.shape[1])       # (N, OH, OW, KH*KW, C)
    tap = windows.argmax(axis=3)                                             # (N, OH, OW, C)
    y = xp.take_along_axis(windows, tap[:, :, :, None, :], axis=3)[:, :, :, 0, :]
    if geometry.padded_size != geometry.input_size:
        # where an image is all -inf, padding is as large; the value then counts as coming from the first cell inside
        tap = xp.where(y == lowest, _first_tap_inside(tap, geometry), tap)
    row, column = _cell_of_tap(tap, geometry)
    indices = row * geometry.input_size[1] + column
    return y.transpose(0, 3, 1, 2), indices.transpose(0, 3, 1, 2)            # (N, C, OH, OW) twice


def max_pool2d_input_grad(g: Array, indices: Array, geometry: Pool2dGeometry) -> Array:
    """Each window's gradient goes to the cell it took its value from; overlapping windows add up."""
    xp, (height, width) = xp_of(g), geometry.input_size
    batch, channels = g.shape[:2]
    dx = xp.zeros((batch, height * width, channels), g.dtype)                # (N, H*W, C)
    n, c = xp.arange(batch)[:, None, None, None], xp.arange(channels)        # (N, 1, 1, 1) and (C,)
    xp.add.at(dx, (n, indices.transpose(0, 2, 3, 1), c), g.transpose(0, 2, 3, 1))
    return dx.reshape(batch, height, width, channels).transpose(0, 3, 1, 2)  # (N, C, H, W)


def avg_pool2d(x: Array, geometry: Pool2dGeometry) -> Array:
    """x (N, C, H, W) -> the mean of each window, (N, C, OH, OW)."""
    total = windows_of(x, geometry, fill=0).sum(axis=(3, 4))                 # (N, OH, OW, C)
    return (total / _divisor(x, geometry)).transpose(0, 3, 1, 2)             # (N, C, OH, OW)


def avg_pool2d_input_grad(g: Array, geometry: Pool2dGeometry) -> Array:
    """Each window's gradient is shared out evenly over its cells."""
    share = g.transpose(0, 2, 3, 1) / _divisor(g, geometry)                  # (N, OH, OW, C)
    kernel = xp_of(g).broadcast_to(share, (*geometry.kernel_size, *share.shape))
    return add_windows(kernel, geometry)                                     # (N, C, H, W)


# -- windows ------------------------------------------------------------------------------------------------------

def windows_of(x: Array, geometry: Window2d, fill: float) -> Array:
    """x (N, C, H, W) -> a copy of every window, (N, OH, OW, KH, KW, C); cells outside the image hold `fill`."""
    xp = xp_of(x)
    batch, channels, height, width = x.shape
    ((top, _), (left, _)) = geometry.padding
    padded = xp.full((batch, *geometry.padded_size, channels), fill, x.dtype)            # (N, H', W', C)
    padded[:, top:top + height, left:left + width] = x.transpose(0, 2, 3, 1)
    windows = xp.empty((batch, *geometry.output_size, *geometry.kernel_size, channels), x.dtype)
    for u, v, rows, columns in _strips(geometry):
        windows[:, :, :, u, v] = padded[:, rows, columns]                                # (N, OH, OW, C)
    return windows


def add_windows(windows: Array, geometry: Window2d) -> Array:
    """The transpose of `windows_of`: (KH, KW, N, OH, OW, C) -> (N, C, H, W), adding where windows overlap."""
    batch, channels = windows.shape[2], windows.shape[5]
    (height, width), ((top, _), (left, _)) = geometry.input_size, geometry.padding
    xp = xp_of(windows)
    padded = xp.zeros((batch, *geometry.padded_size, channels), windows.dtype)   # (N, H', W', C)
    for u, v, rows, columns in _strips(geometry):
        padded[:, rows, columns] += windows[u, v]
    image = xp.ascontiguousarray(padded[:, top:top + height, left:left + width])         # lets go of the padding
    return image.transpose(0, 3, 1, 2)                                                   # (N, C, H, W)


def _strips(geometry: Window2d) -> Iterator[tuple[int, int, slice, slice]]:
    """For each tap (u, v): the rows and columns of the padded image that it meets as the window moves."""
    (s, t), (d, e), (out_h, out_w) = geometry.stride, geometry.dilation, geometry.output_size
    for u in range(geometry.kernel_size[0]):
        for v in range(geometry.kernel_size[1]):
            rows = slice(u * d, u * d + s * (out_h - 1) + 1, s)
            columns = slice(v * e, v * e + t * (out_w - 1) + 1, t)
            yield u, v, rows, columns


# -- groups: the channels as `groups` separate convolutions, the group first ------------------------------------------

def _by_channel(batch: int, w: Array, geometry: Conv2dGeometry) -> bool:
    """Whether the terms of the sum stand in the order of w, channel by channel, or in that of the windows, tap by tap.

    One of them has to be copied into the order of the other: the smaller one.
    """
    return batch * math.prod(geometry.output_size) < len(w) // geometry.groups


def _group_rows(windows: Array, groups: int, by_channel: bool) -> Array:
    """(N, OH, OW, KH, KW, C) -> (G, N*OH*OW, KH*KW*C/G); by channel, (G, N*OH*OW, C/G*KH*KW)."""
    batch, out_h, out_w, kh, kw, channels = windows.shape
    if by_channel:
        split = windows.reshape(batch * out_h * out_w, kh * kw, groups, channels // groups)      # (…, KH*KW, G, C/G)
        return split.transpose(2, 0, 3, 1).reshape(groups, batch * out_h * out_w, channels // groups * kh * kw)
    if groups == 1:
        return windows.reshape(1, batch * out_h * out_w, kh * kw * channels)
    split = windows.reshape(batch * out_h * out_w, kh * kw, groups, channels // groups)  # (N*OH*OW, KH*KW, G, C/G)
    return split.transpose(2, 0, 1, 3).reshape(groups, batch * out_h * out_w, kh * kw * channels // groups)


def _group_matrices(w: Array, groups: int, by_channel: bool) -> Array:
    """(O, C/G, KH, KW) -> (G, KH*KW*C/G, O/G); by channel, (G, C/G*KH*KW, O/G)."""
    outputs, group_channels, kh, kw = w.shape
    if by_channel:
        return w.reshape(groups, outputs // groups, group_channels * kh * kw).swapaxes(1, 2)
    split = w.transpose(2, 3, 1, 0).reshape(kh * kw * group_channels, groups, outputs // groups)   # (KH*KW*C/G, G, O/G)
    return split.transpose(1, 0, 2)                                          # (G, KH*KW*C/G, O/G)


def _to_groups(g: Array, groups: int) -> Array:
    """(N, O, OH, OW) -> (G, N*OH*OW, O/G)."""
    batch, outputs, out_h, out_w = g.shape
    split = g.transpose(0, 2, 3, 1).reshape(batch * out_h * out_w, groups, outputs // groups)      # (N*OH*OW, G, O/G)
    return split.transpose(1, 0, 2)                                          # (G, N*OH*OW, O/G)


def _from_groups(y: Array, batch: int, output_size: tuple[int, int]) -> Array:
    """(G, N*OH*OW, O/G) -> (N, OH, OW, O)."""
    pixels = xp_of(y).ascontiguousarray(y.transpose(1, 0, 2))               # (N*OH*OW, G, O/G), also of one channel
    return pixels.reshape(batch, *output_size, y.shape[0] * y.shape[2])


# -- pooling -------------------------------------------------------------------------------------------------------

def repeat2d(x: Array, factors: Pair) -> Array:
    """x (N, C, H, W), (r, s) -> y (N, C, H*r, W*s): each cell r times down and s times across."""
    pixels = x.transpose(0, 2, 3, 1)                                         # (N, H, W, C), as it may lie in memory
    pixels = pixels.repeat(factors[0], axis=1).repeat(factors[1], axis=2)    # (N, H*r, W*s, C)
    return pixels.transpose(0, 3, 1, 2)                                      # (N, C, H*r, W*s)


def repeat2d_input_grad(g: Array, factors: Pair) -> Array:
    """Each cell gets the sum of the gradients of its copies: g (N, C, H*r, W*s) -> dx (N, C, H, W)."""
    (batch, channels, height, width), (r, s) = g.shape, factors
    pixels = xp_of(g).ascontiguousarray(g.transpose(0, 2, 3, 1))             # (N, H*r, W*s, C)
    copies = pixels.reshape(batch, height // r, r, width // s, s, channels)  # (N, H, r, W, s, C)
    return backend_of(g).sum(copies, (2, 4), False).transpose(0, 3, 1, 2)    # (N, H, W, C) -> (N, C, H, W)


def _cell_of_tap(tap: Array, geometry: Window2d) -> tuple[Array, Array]:
    """Row and column in the unpadded image of tap u*KW + v, for every window; tap is (N, OH, OW, C)."""
    (s, t), (d, e), ((top, _), (left, _)) = geometry.stride, geometry.dilation, geometry.padding
    (out_h, out_w), kw = geometry.output_size, geometry.kernel_size[1]
    i = xp_of(tap).arange(out_h)[:, None, None]                              # (OH, 1, 1)
    j = xp_of(tap).arange(out_w)[:, None]                                    # (OW, 1)
    return i * s + tap // kw * d - top, j * t + tap % kw * e - left


def _first_tap_inside(tap: Array, geometry: Window2d) -> Array:
    """The first tap u*KW + v of each window that lies on the image and not on padding, (OH, OW, 1)."""
    xp = xp_of(tap)
    (s, t), (d, e), ((top, _), (left, _)) = geometry.stride, geometry.dilation, geometry.padding
    out_h, out_w = geometry.output_size
    u = xp.maximum(0, -(-(top - xp.arange(out_h) * s) // d))                 # smallest u with i*s + u*d - top >= 0
    v = xp.maximum(0, -(-(left - xp.arange(out_w) * t) // e))
    return (u[:, None] * geometry.kernel_size[1] + v)[:, :, None]            # (OH, OW, 1)


def _divisor(x: Array, geometry: Pool2dGeometry) -> Array:
    """How many cells each window averages, as (OH, OW, 1)."""
    xp = xp_of(x)
    rows = xp.asarray(geometry.divisors(0), dtype=x.dtype)                   # (OH,)
    columns = xp.asarray(geometry.divisors(1), dtype=x.dtype)                # (OW,)
    return rows[:, None, None] * columns[:, None]
