"""The kernel set for a GPU. Here arrays are prepared and results made; the kernels themselves are in

    naive         a thread computes one number of the result: the way to read first
    tiled         a block of threads fetches numbers into shared memory and uses each many times
    pooling       a thread for each result, which is all that a pooling needs
    optimizers    Adam and SGD in one pass

They are Python, compiled by Numba when they are first launched. On a computer without a GPU they run too, in Numba's
simulator, where a debugger can stop in any thread (docs/gpu.md).

No kernel adds to a number that another thread adds to, so two runs give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from minidl.backend import Array, Backend, backend_of, xp_of
from minidl.kernels.cuda import naive, optimizers, pooling, tiled
from minidl.kernels.cuda.launching import THREADS, blocks_for, launch
from minidl.kernels.geometry import Conv2dGeometry, Pair, Pool2dGeometry, Window2d
from minidl.kernels.step_numbers import numbers_of_adam, numbers_of_sgd
from minidl.kernels.threads import ran

FEW = 4                     # rows of a result; a tile would compute four times as many, or more, for nothing
BLOCKS = 512                # keep a large GPU busy: it has 100 to 150 processors, and each works on a few blocks
MOST_BLOCKS = 65535         # along the second and third axis of a grid
LEAST_PIXELS = 64           # of an image for a block: with fewer, fetching and adding up would outweigh the products

# -- convolution -------------------------------------------------------------------------------------------------------

def conv2d(x: Array, w: Array, geometry: Conv2dGeometry, bias: Array | None = None) -> Array:
    """x (N, C, H, W), w (O, C/groups, KH, KW), bias (O,) or None -> y (N, O, OH, OW)."""
    ran["cuda.conv2d"] += 1
    y = xp_of(x).empty((len(x), len(w), *geometry.output_size), x.dtype)
    taps = _kept_beside(x, _taps, geometry, w.shape[1])
    rows_of_w = _in_order(w).reshape(len(w), -1)                            # (O, C/groups, KH, KW) -> (O, K)
    _convolve(_in_order(x), rows_of_w, bias, taps, geometry.groups, geometry.stride, geometry.before, y)
    return y


def conv2d_input_grad(g: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """g (N, O, OH, OW), w (O, C/groups, KH, KW) -> dx (N, C, H, W)."""
    ran["cuda.conv2d_input_grad"] += 1
    groups, (outputs, channels) = geometry.groups, w.shape[:2]
    dx = xp_of(g).empty((len(g), channels * groups, *geometry.input_size), g.dtype)
    by_group = w.reshape(groups, outputs // groups, channels, -1)           # (groups, O/groups, C/groups, KH·KW)
    turned = _in_order(by_group.transpose(0, 2, 1, 3)).reshape(channels * groups, -1)          # (C, O/groups · KH·KW)
    if channels < FEW or groups > MOST_BLOCKS:
        taps = _kept_beside(g, _taps, geometry, outputs // groups)
        launch(naive.conv2d_input_grad, blocks_for(dx), THREADS, _in_order(g), turned, taps, groups, geometry.stride,
               geometry.before, dx)
        return dx
    # The cell (h, v) gets what the windows that begin at (h + p - u·d, v + p - v·d) sent: a convolution of g with taps
    # that go up and left. With a stride, windows begin at every s-th cell only: g with zeros between.
    up_and_left, (top, left) = _kept_beside(g, _taps, geometry, outputs // groups, -1), geometry.before
    _convolve(_spread(_in_order(g), geometry.stride), turned, None, up_and_left, groups, (1, 1), (-top, -left), dx)
    return dx


def conv2d_weight_grad(x: Array, g: Array, geometry: Conv2dGeometry) -> Array:
    """x (N, C, H, W), g (N, O, OH, OW) -> dw (O, C/groups, KH, KW)."""
    ran["cuda.conv2d_weight_grad"] += 1
    xp, groups, outputs, channels = xp_of(x), geometry.groups, g.shape[1], x.shape[1] // geometry.groups
    if len(x) == 0:
        return xp.zeros((outputs, channels, *geometry.kernel_size), x.dtype)
    taps = _kept_beside(x, _taps, geometry, channels)
    x, g, place = _in_order(x), _in_order(g), (groups, geometry.stride, geometry.before)
    dw, (rows_of_g, columns_of_g) = xp.empty((outputs, len(taps)), x.dtype), g.shape[2:]       # dw: (O, K)
    # One sum is too long for one thread, or for one tile: parts of it, as many as keep the GPU busy, and then their sum
    if outputs // groups < FEW or groups > MOST_BLOCKS:
        parts = min(len(x) * rows_of_g, -(-BLOCKS // blocks_for(dw)))
        of_parts = xp.empty((parts, *dw.shape), x.dtype)                    # (P, O, K)
        launch(naive.conv2d_weight_grad, blocks_for(of_parts), THREADS, x, g, taps, *place, of_parts)
    else:
        rows, columns = tiled.tile_for(outputs // groups)
        tiles = -(-len(taps) // columns), -(-outputs // groups // rows)
        wanted = max(1, BLOCKS // (tiles[0] * tiles[1] * groups))
        images = min(len(x), wanted)
        slices = min(-(-wanted // images), -(-rows_of_g * columns_of_g // LEAST_PIXELS))
        parts = images * slices
        of_parts = xp.empty((parts, *dw.shape), x.dtype)                    # (P, O, K)
        launch(tiled.kernels(x.dtype, rows, columns).weight_grad, (*tiles, groups * parts), tiled.THREADS, x, g, taps,
               *place, slices, of_parts)
    launch(tiled.add_parts, blocks_for(dw), THREADS, of_parts.reshape(parts, -1), dw.reshape(-1))
    return dw.reshape(outputs, channels, *geometry.kernel_size)


def _convolve(x: Array, w: Array, bias: Array | None, taps: Array, groups: int, stride: Pair, corner: Pair,
              y: Array) -> None:
    """y[n,o,i,j] = bias[o] + sum over taps k of x[n, …] · w[o,k]: w (O, K), taps (K, 3), y (N, O, OH, OW)."""
    outputs = y.shape[1] // groups
    bias = _kept_beside(x, np.zeros, y.shape[1], x.dtype) if bias is None else _in_order(bias)
    arguments = (x, w, bias, taps, groups, stride, corner, y)
    if outputs < FEW or groups > MOST_BLOCKS:
        launch(naive.conv2d, blocks_for(y), THREADS, *arguments)
        return
    rows, columns = tiled.tile_for(outputs)
    pixels = y.size // y.shape[1]
    blocks = (-(-pixels // columns), -(-outputs // rows), groups)
    launch(tiled.kernels(x.dtype, rows, columns).conv2d, blocks, tiled.THREADS, *arguments)


def _taps(geometry: Conv2dGeometry, channels: int, sign: int = 1) -> np.ndarray:
    """Where the products of a result lie: a line (channel, rows down, columns right) each, (channels · KH·KW, 3).

    sign -1: up and left instead.
    """
    (d, e), count = geometry.dilation, (channels, *geometry.kernel_size)
    c, u, v = np.indices(count, np.int32).reshape(3, -1)                    # each (channels · KH·KW,)
    return np.ascontiguousarray(np.stack([c, sign * d * u, sign * e * v], axis=1), np.int32)


def _spread(g: Array, stride: Pair) -> Array:
    """g (N, O, OH, OW) with stride - 1 zeros between neighbours, (N, O, (OH-1)·s + 1, (OW-1)·t + 1)."""
    if stride == (1, 1):
        return g
    (s, t), (rows, columns) = stride, g.shape[2:]
    spread = xp_of(g).zeros((*g.shape[:2], (rows - 1) * s + 1, (columns - 1) * t + 1), g.dtype)
    spread[:, :, ::s, ::t] = g
    return spread


def _in_order(array: Array) -> Array:
    """The array with its last axis side by side in memory; a copy if it was not. A kernel is compiled for that."""
    return xp_of(array).ascontiguousarray(array)


# -- pooling -----------------------------------------------------------------------------------------------------------

def max_pool2d(x: Array, geometry: Pool2dGeometry) -> tuple[Array, Array]:
    """x (N, C, H, W) -> the largest value of each window, and where it was: row * W + column (first of equals)."""
    ran["cuda.max_pool2d"] += 1
    xp = xp_of(x)
    if x.dtype == np.float16:                                               # stored, not computed with
        y, indices = max_pool2d(x.astype(np.float32), geometry)
        return y.astype(np.float16), indices
    y = xp.empty((*x.shape[:2], *geometry.output_size), x.dtype)            # (N, C, OH, OW)
    indices = xp.empty(y.shape, np.int64)
    launch(pooling.max_pool2d, blocks_for(y), THREADS, _maps(x), geometry.kernel_size, _window(geometry), _maps(y),
           _maps(indices))
    return y, indices


def max_pool2d_input_grad(g: Array, indices: Array, geometry: Pool2dGeometry) -> Array:
    """Each window's gradient goes to the cell it took its value from; overlapping windows add up."""
    ran["cuda.max_pool2d_input_grad"] += 1
    if g.dtype == np.float16:
        return max_pool2d_input_grad(g.astype(np.float32), indices, geometry).astype(np.float16)
    dx = xp_of(g).empty((*g.shape[:2], *geometry.input_size), g.dtype)      # (N, C, H, W)
    launch(pooling.max_pool2d_input_grad, blocks_for(dx), THREADS, _maps(g), _maps(indices), geometry.kernel_size,
           _window(geometry), _maps(dx))
    return dx


def avg_pool2d(x: Array, geometry: Pool2dGeometry) -> Array:
    """x (N, C, H, W) -> the mean of each window, (N, C, OH, OW)."""
    ran["cuda.avg_pool2d"] += 1
    y = xp_of(x).empty((*x.shape[:2], *geometry.output_size), x.dtype)
    launch(pooling.avg_pool2d, blocks_for(y), THREADS, _maps(x), geometry.kernel_size, _window(geometry),
           *(_kept_beside(x, _counts, geometry, axis, x.dtype) for axis in (0, 1)), _maps(y))
    return y


def avg_pool2d_input_grad(g: Array, geometry: Pool2dGeometry) -> Array:
    """Each cell of a window gets the window's gradient, divided by the number of cells averaged."""
    ran["cuda.avg_pool2d_input_grad"] += 1
    dx = xp_of(g).empty((*g.shape[:2], *geometry.input_size), g.dtype)      # (N, C, H, W)
    launch(pooling.avg_pool2d_input_grad, blocks_for(dx), THREADS, _maps(g), geometry.kernel_size, _window(geometry),
           *(_kept_beside(g, _counts, geometry, axis, g.dtype) for axis in (0, 1)), _maps(dx))
    return dx


def repeat2d(x: Array, factors: Pair) -> Array:
    """x (N, C, H, W), (r, s) -> y (N, C, H*r, W*s): each cell r times down and s times across."""
    ran["cuda.repeat2d"] += 1
    y = xp_of(x).empty((*x.shape[:2], x.shape[2] * factors[0], x.shape[3] * factors[1]), x.dtype)
    launch(pooling.repeat2d, blocks_for(y), THREADS, _maps(x), factors, _maps(y))
    return y


def repeat2d_input_grad(g: Array, factors: Pair) -> Array:
    """Add up the gradients of a cell's copies: g (N, C, H*r, W*s) -> dx (N, C, H, W)."""
    ran["cuda.repeat2d_input_grad"] += 1
    dx = xp_of(g).empty((*g.shape[:2], g.shape[2] // factors[0], g.shape[3] // factors[1]), g.dtype)
    launch(pooling.repeat2d_input_grad, blocks_for(dx), THREADS, _maps(g), factors, _maps(dx))
    return dx


def _maps(images: Array) -> Array:
    """(N, C, H, W) -> (N·C, H, W)."""
    return _in_order(images).reshape(-1, *images.shape[2:])


def _window(geometry: Window2d) -> tuple[int, ...]:
    """(s, t, p, q, d, e): strides, padding at the top and left, dilations."""
    return (*geometry.stride, *geometry.before, *geometry.dilation)


def _counts(geometry: Pool2dGeometry, axis: int, dtype: Any) -> np.ndarray:
    """How many cells each window's mean divides by, (OH,) for its rows and (OW,) for its columns."""
    return np.array(geometry.divisors(axis), dtype)


# -- what is uploaded once ---------------------------------------------------------------------------------------------

def _kept_beside(array: Array, make: Callable[..., np.ndarray], *arguments: Any) -> Array:
    """make(*arguments), on the device of `array`: a training step asks for the same few again and again."""
    backend = backend_of(array)
    return _uploaded(backend, backend.stream(), make, *arguments)


@lru_cache(maxsize=512)
def _uploaded(backend: Backend, stream: Any, make: Callable[..., np.ndarray], *arguments: Any) -> Array:
    """For each stream: what another one uploads may not be there yet."""
    return backend.from_host(make(*arguments))


# -- optimizers --------------------------------------------------------------------------------------------------------

def adam(p: Array, g: Array, m: Array, v: Array, lr: float, betas: tuple[float, float], eps: float, t: int,
         decay: float, shrink: float, sign: float) -> None:
    """The formulas of `optim.Adam` with G = sign · g + decay · p, after p ← shrink · p."""
    ran["cuda.adam"] += 1
    _step(optimizers.adam, (p, g, m, v), numbers_of_adam(lr, betas, eps, t, decay, shrink, sign))


def sgd(p: Array, g: Array, v: Array, lr: float, momentum: float, new: float, nesterov: bool, decay: float,
        sign: float) -> None:
    """The formulas of `optim.SGD` with G = sign · g + decay · p: v ← momentum · v + new · G,   p ← p - lr · v."""
    ran["cuda.sgd"] += 1
    _step(optimizers.sgd, (p, g, v), numbers_of_sgd(lr, momentum, new, nesterov, decay, sign))


def _step(kernel: Any, arrays: tuple[Array, ...], numbers: tuple[float, ...]) -> None:
    """kernel(arrays in a row, numbers of their type): Python's are float64, and would make the kernel compute so."""
    number = arrays[0].dtype.type
    launch(kernel, blocks_for(arrays[0]), THREADS, *(array.reshape(-1) for array in arrays), *map(number, numbers))
