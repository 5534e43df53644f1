"""`fused` at the speed of `simd`: image after image, all stages while the convolution's output is in the cache.

The output z of the convolution exists for one image at a time in each thread; the next stages read it from there, with
the loops that they have when they stand alone. The way back is one pass that writes G = dL/dz.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.backend import Array
from minidl.kernels import winograd
from minidl.kernels.addresses import before, forward_tables
from minidl.kernels.compiling import compiled
from minidl.kernels.fused import Kept, Stages
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.layout import channels_last
from minidl.kernels.pooling import (
    avg_pool,
    avg_pool_cells,
    avg_pool_input_grad,
    max_pool,
    max_pool_cells,
    max_pool_input_grad,
    numbers_of,
    repeat_cells,
    shares_of,
    sum_copies,
    tiles_the_image,
)
from minidl.kernels.simd import CORRELATE, panels_of
from minidl.kernels.threads import parallel, parts, ran
from minidl.kernels.vectors import ROWS

NO_POOLING, MAX, AVG = 0, 1, 2
FIRST, ONE = np.int64(0), np.int64(1)                       # written as 0 and 1 they would be types of their own
NOTHING = np.empty((0, 0, 0, 0), np.bool_)                  # stands for a mask that is not there


def forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry, stages: Stages) -> tuple[Array, Kept]:
    """What `fused.forward` does, for float32."""
    ran["fused_simd.forward"] += 1
    outputs, size = len(w), geometry.output_size
    pooled = stages.window.output_size if stages.window else size
    y = np.empty((len(x), pooled[0] * stages.repeat[0], pooled[1] * stages.repeat[1], outputs), np.float32)
    blocked = np.empty((len(x), *(size if stages.relu_before_pooling else pooled), outputs), np.bool_) \
        if stages.relu else NOTHING
    indices = np.empty((len(x), *pooled, outputs), np.int64) if stages.pooling == "max" else NOTHING.astype(np.int64)
    rest = (_plan(stages), _window(stages), _shares(stages), stages.repeat)
    numbers, images = len(x) * size[0] * size[1] * w.size / 16, channels_last(x)
    if winograd.fits(geometry, x.shape[1], outputs):
        biases = np.zeros(outputs, np.float32) if b is None else np.ascontiguousarray(b)
        parallel(forward_by_winograd, parts(len(x), numbers), images, before(geometry), winograd.table_of_weights(w),
                 biases, size, _images_at_once(size), rest, blocked, indices, y)
    else:
        frame, tables = forward_tables(geometry, x.shape[1], outputs)
        matrices = w.transpose(2, 3, 1, 0).reshape(-1, geometry.groups, outputs // geometry.groups)    # (K, G, O/G)
        width, panels, biases = panels_of(matrices, b)
        parallel(FORWARD[width], parts(len(x), numbers), images, frame, tables.pixels, tables.terms, tables.outputs,
                 panels, biases, matrices.shape[2], size, rest, blocked, indices, y)
    return y.transpose(0, 3, 1, 2), Kept(                                               # (N, O, rows, columns)
        blocked.transpose(0, 3, 1, 2) if stages.relu else None,                         # (N, O, OH, OW) or pooled
        indices.transpose(0, 3, 1, 2) if stages.pooling == "max" else None)


def output_gradient(g: Array, kept: Kept, geometry: Conv2dGeometry, stages: Stages) -> Array:
    """What `fused.output_gradient` does, for float32."""
    ran["fused_simd.output_gradient"] += 1
    blocked = NOTHING if kept.blocked is None else channels_last(kept.blocked)
    indices = NOTHING.astype(np.int64) if kept.indices is None else channels_last(kept.indices)
    tiles = stages.window is not None and tiles_the_image(stages.window)
    shape = (len(g), *geometry.output_size, g.shape[1])                                 # (N, OH, OW, O)
    dz = np.empty(shape, np.float32) if tiles or stages.window is None else np.zeros(shape, np.float32)
    parallel(_backward, parts(len(g), dz.size), channels_last(g), _plan(stages), tiles, _window(stages),
             _shares(stages), stages.repeat, blocked, indices, dz)
    return dz.transpose(0, 3, 1, 2)                                                     # (N, O, OH, OW)


# -- the kernels -------------------------------------------------------------------------------------------------------

def _make_forward(width: int) -> Callable[..., None]:
    correlate_images = CORRELATE[width]

    @compiled
    def forward_images(start, stop, x, frame, pixels, terms, outputs, panels, biases, group_outputs, size, rest,
                       blocked, indices, y):
        z = np.empty((1, *size, y.shape[3]), np.float32)
        for n in range(start, stop):
            correlate_images(FIRST, ONE, x[n:n + 1], frame, pixels, terms, outputs, panels, biases, group_outputs, ONE,
                             z)
            finish(z, n, rest, blocked, indices, y)

    return forward_images


@compiled
def forward_by_winograd(start, stop, x, padding, table, biases, size, at_once, rest, blocked, indices, y):
    """The same for some images at a time, so that few tiles are cut off by the end of the last image."""
    z = np.empty((at_once, *size, y.shape[3]), np.float32)
    squares = ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
    for n in range(start, stop, at_once):
        count = min(at_once, stop - n)
        winograd.correlate_blocks(FIRST, (count * squares + ROWS - 1) // ROWS, x[n:n + count], padding, table, biases,
                                  z[:count])
        finish(z[:count], n, rest, blocked, indices, y)


@compiled
def finish(z, n, rest, blocked, indices, y):
    """What follows the convolution, for the images z of which the first is number n."""
    (relu_first, relu_after, pooling), window, shares, repeat = rest
    images, last = len(z), n + len(z)
    pooled = np.empty((images, y.shape[1] // repeat[0], y.shape[2] // repeat[1], y.shape[3]), np.float32)
    if relu_first:
        relu_in_place(z, blocked[n:last])
    if pooling == MAX:
        max_pool(FIRST, images, z, window, pooled, indices[n:last])
    elif pooling == AVG:
        avg_pool(FIRST, images, z, window, shares, pooled)
    result = z if pooling == NO_POOLING else pooled
    if relu_after:
        relu_in_place(result, blocked[n:last])
    repeat_cells(FIRST, images, result, repeat, y[n:last])


@compiled
def relu_in_place(z, blocked):
    """z becomes max(z, 0), and `blocked` says where that is 0."""
    z, blocked = z.reshape(-1), blocked.reshape(-1)
    for i in range(z.size):
        blocked[i] = z[i] <= 0
        z[i] = 0 if z[i] <= 0 else z[i]


@compiled
def _backward(start, stop, g, plan, tiles, window, shares, repeat, blocked, indices, dz):
    relu_first, relu_after, pooling = plan
    _, rows, columns, channels = g.shape
    pooled = np.empty((1, rows // repeat[0], columns // repeat[1], channels), np.float32)
    for n in range(start, stop):
        below = dz[n:n + 1] if pooling == NO_POOLING else pooled
        if repeat == (1, 1):
            below[:] = g[n:n + 1]
        else:
            sum_copies(FIRST, ONE, g[n:n + 1], repeat, below)
        if relu_after:
            block(below, blocked[n])
        if pooling == MAX and tiles:
            max_pool_cells(FIRST, ONE, below, indices[n:n + 1], (window[0], window[1]), dz[n:n + 1])
        elif pooling == MAX:
            max_pool_input_grad(FIRST, ONE, below, indices[n:n + 1], dz[n:n + 1])
        elif pooling == AVG and tiles:
            avg_pool_cells(FIRST, ONE, below, (window[0], window[1]), shares, dz[n:n + 1])
        elif pooling == AVG:
            avg_pool_input_grad(FIRST, ONE, below, window, shares, dz[n:n + 1])
        if relu_first:
            block(dz[n:n + 1], blocked[n])


@compiled
def block(g, blocked):
    """g becomes 0 where the ReLU gave 0."""
    g, blocked = g.reshape(-1), blocked.reshape(-1)
    for i in range(g.size):
        g[i] = 0 if blocked[i] else g[i]


FORWARD = {width: _make_forward(width) for width in CORRELATE}


# -- the stages as compiled loops take them ----------------------------------------------------------------------------

def _images_at_once(size: tuple[int, int]) -> int:
    """How many images of this output size fill whole tiles best, among those that a cache holds."""
    squares = -(-size[0] // 2) * -(-size[1] // 2)
    return min(range(1, max(1, min(8, 1024 // (4 * squares))) + 1), key=lambda n: -n * squares % ROWS / n)


def _plan(stages: Stages) -> tuple[bool, bool, int]:
    return (stages.relu_before_pooling, stages.relu_after_pooling,
            {None: NO_POOLING, "max": MAX, "avg": AVG}[stages.pooling])


def _window(stages: Stages) -> tuple[int, ...]:
    return numbers_of(stages.window) if stages.window else (1,) * 9


def _shares(stages: Stages) -> Array:
    window = stages.window if stages.pooling == "avg" else None
    return shares_of(window, np.dtype(np.float32)) if window else np.ones((1, 1), np.float32)
