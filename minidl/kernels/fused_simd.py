"""`fused` at the speed of `simd`: image after image, all stages while the convolution's output is in the cache.

The output z of the convolution exists for one image at a time in each thread; the next stages read it from there, with
the loops that they have when they stand alone. So it is on the way back: G = dL/dz of one image after the other, and
what follows from it. Winograd's convolution takes a few images at a time, so that the last one cuts off few tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backend import Array
from minidl.kernels import winograd
from minidl.kernels.addresses import forward_tables, input_grad_tables
from minidl.kernels.compiling import compiled
from minidl.kernels.fused import Kept, Stages
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.layout import channels_last
from minidl.kernels.passes import add_rows
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
from minidl.kernels.simd import CORRELATE, WEIGHTS, WeightGrad, panels_of, readable_beyond, turned_matrices
from minidl.kernels.threads import parallel, parallel_parts, parts, ran
from minidl.kernels.vectors import ROWS, WIDTH, WIDTHS

NO_POOLING, MAX, AVG = 0, 1, 2
FIRST, ONE = np.int64(0), np.int64(1)                       # written as 0 and 1 they would be types of their own
NO_MASK = np.empty((0, 0, 0, 0), np.bool_)                  # these stand for arrays that are not there
NO_INDICES = np.empty((0, 0, 0, 0), np.int64)
NO_SHARES = np.ones((1, 1), np.float32)


def forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry, stages: Stages) -> tuple[Array, Kept]:
    """What `fused.forward` does, for float32."""
    ran["fused_simd.forward"] += 1
    outputs, size = len(w), geometry.output_size
    pooled = stages.window.output_size if stages.window else size
    y = np.empty((len(x), pooled[0] * stages.repeat[0], pooled[1] * stages.repeat[1], outputs), np.float32)
    blocked = np.empty((len(x), *(size if stages.relu_before_pooling else pooled), outputs), np.bool_) \
        if stages.relu else NO_MASK
    indices = np.empty((len(x), *pooled, outputs), np.int64) if stages.pooling == "max" else NO_INDICES
    rest = _numbers_of(stages)
    numbers, images = len(x) * size[0] * size[1] * w.size / 16, channels_last(x)
    if winograd.fits(geometry, x.shape[1], outputs):
        biases = np.zeros(outputs, np.float32) if b is None else np.ascontiguousarray(b)
        parallel(forward_by_winograd, parts(len(x), numbers), images, geometry.before, winograd.table_of_weights(w),
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


def input_grad(g: Array, w: Array, kept: Kept, geometry: Conv2dGeometry, stages: Stages) -> Array:
    """What `fused.input_grad` does, for float32 and windows in steps of 1."""
    ran["fused_simd.input_grad"] += 1
    (outputs, group_channels), groups, size = w.shape[:2], geometry.groups, geometry.output_size
    channels = group_channels * groups
    dx = np.empty((len(g), *geometry.input_size, channels), np.float32)                 # (N, H, W, C)
    way = (channels_last(g), _numbers_of(stages), *_arrays_of(kept))
    numbers = len(g) * size[0] * size[1] * w.size / 16
    if winograd.fits(geometry, channels, outputs):
        padding, table = winograd.turned(w, geometry)
        parallel(input_grad_by_winograd, parts(len(g), numbers), way, size, _images_at_once(geometry.input_size),
                 padding, table, np.zeros(channels, np.float32), dx)
    else:
        (frame, tables), = input_grad_tables(geometry, channels, outputs)
        matrices = turned_matrices(w, groups, tables.taps)                              # (K, G, C/G)
        width, panels, biases = panels_of(matrices, None)
        parallel(INPUT_GRAD[width], parts(len(g), numbers), way, size, frame, tables.pixels, tables.terms,
                 tables.outputs, panels, biases, group_channels, dx)
    return dx.transpose(0, 3, 1, 2)                                                     # (N, C, H, W)


def weight_grad(x: Array, g: Array, kept: Kept, geometry: Conv2dGeometry, stages: Stages) -> tuple[Array, Array]:
    """What `fused.weight_grad` does, for float32."""
    ran["fused_simd.weight_grad"] += 1
    (images, channels, _, _), outputs, size = x.shape, g.shape[1], geometry.output_size
    pixels = size[0] * size[1]
    together = max(n for n in range(1, max(1, 64 // outputs) + 1) if pixels % n == 0)    # short rows as one long one
    way = (channels_last(g), _numbers_of(stages), *_arrays_of(kept))
    x = channels_last(x)                                                                # (N, H, W, C)
    numbers = images * pixels * outputs * channels // geometry.groups * math.prod(geometry.kernel_size) / 16
    ranges = parts(images, numbers, whole=True)
    sums = np.zeros((len(ranges), together * outputs), np.float64)
    if winograd.fits(geometry, channels, outputs):
        table, at_once, of_rows = winograd.empty_sums(len(ranges), channels, outputs)
        parallel_parts(weight_grad_by_winograd, ranges, way, size, _images_at_once(size), x, geometry.before, at_once,
                       of_rows, table, sums)
        dw = winograd.weights_of(table, outputs)
    else:
        plan = WeightGrad.of(geometry, channels, outputs)
        row_of_x = readable_beyond(x, plan.overhang) if plan.turned else x.reshape(-1)
        dw = plan.empty_sums(len(ranges))
        parallel_parts(WEIGHT_GRAD[plan.width], ranges, way, size, x, row_of_x, plan.turned, plan.frame, plan.pixels,
                       plan.tiles, plan.columns, dw, sums)
        dw = plan.weights_of(dw)
    return dw, sums.reshape(-1, outputs).sum(axis=0).astype(np.float32)


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
    (relu_first, relu_after, pooling), _, window, shares, repeat = rest
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
def go_back(way, n, dz):
    """G of the images of which the first is number n: `finish` in reverse."""
    g, ((relu_first, relu_after, pooling), tiles, window, shares, repeat), blocked, indices = way
    images, last = len(dz), n + len(dz)
    _, rows, columns, channels = g.shape
    below = g[n:last]
    if pooling == NO_POOLING:
        below = dz
    elif relu_after or repeat != (1, 1):
        below = np.empty((images, rows // repeat[0], columns // repeat[1], channels), np.float32)
    if pooling == NO_POOLING or relu_after or repeat != (1, 1):             # else g itself is what the pooling gets
        sum_copies(FIRST, images, g[n:last], repeat, below)
    if relu_after:
        block(below, blocked[n:last])
    if pooling != NO_POOLING and not tiles:
        dz[:] = 0
    if pooling == MAX and tiles:
        max_pool_cells(FIRST, images, below, indices[n:last], (window[0], window[1]), dz)
    elif pooling == MAX:
        max_pool_input_grad(FIRST, images, below, indices[n:last], dz)
    elif pooling == AVG and tiles:
        avg_pool_cells(FIRST, images, below, (window[0], window[1]), shares, dz)
    elif pooling == AVG:
        avg_pool_input_grad(FIRST, images, below, window, shares, dz)
    if relu_first:
        block(dz, blocked[n:last])


@compiled
def block(g, blocked):
    """g becomes 0 where the ReLU gave 0."""
    g, blocked = g.reshape(-1), blocked.reshape(-1)
    for i in range(g.size):
        g[i] = 0 if blocked[i] else g[i]


def _make_input_grad(width: int) -> Callable[..., None]:
    correlate_images = CORRELATE[width]

    @compiled
    def input_grad_of_images(start, stop, way, size, frame, pixels, terms, outputs, panels, biases, group_channels, dx):
        dz = np.empty((1, *size, way[0].shape[3]), np.float32)
        for n in range(start, stop):
            go_back(way, n, dz)
            correlate_images(FIRST, ONE, dz, frame, pixels, terms, outputs, panels, biases, group_channels, ONE,
                             dx[n:n + 1])

    return input_grad_of_images


@compiled
def input_grad_by_winograd(start, stop, way, size, at_once, padding, table, biases, dx):
    """The same for some images at a time."""
    dz = np.empty((at_once, *size, way[0].shape[3]), np.float32)
    squares = ((dx.shape[1] + 1) // 2) * ((dx.shape[2] + 1) // 2)
    for n in range(start, stop, at_once):
        count = min(at_once, stop - n)
        go_back(way, n, dz[:count])
        winograd.correlate_blocks(FIRST, (count * squares + ROWS - 1) // ROWS, dz[:count], padding, table, biases,
                                  dx[n:n + count])


def _make_weight_grad(width: int) -> Callable[..., None]:
    weights_of_images = WEIGHTS[width]

    @compiled
    def weight_grad_of_images(part, start, stop, way, size, x, row_of_x, turned, frame, pixels, terms, columns, dw,
                              sums):
        _, height, across, channels = x.shape
        outputs = way[0].shape[3]
        row_of_dz = np.zeros(size[0] * size[1] * outputs + WIDTH, np.float32)           # readable beyond its end
        dz = row_of_dz[:row_of_dz.size - WIDTH].reshape((1, *size, outputs))
        for n in range(start, stop):
            go_back(way, n, dz)
            add_bias_grad(part, dz, sums)
            if turned:
                weights_of_images(part, FIRST, ONE, dz, frame, pixels, terms, row_of_x[n * height * across * channels:],
                                  columns, ONE, dw)
            else:
                weights_of_images(part, FIRST, ONE, x[n:n + 1], frame, pixels, terms, row_of_dz, columns, ONE, dw)

    return weight_grad_of_images


@compiled
def weight_grad_by_winograd(part, start, stop, way, size, images_at_once, x, padding, at_once, of_rows, table, sums):
    """The same for some images at a time."""
    dz = np.empty((images_at_once, *size, way[0].shape[3]), np.float32)
    squares = ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
    for n in range(start, stop, images_at_once):
        count = min(images_at_once, stop - n)
        go_back(way, n, dz[:count])
        add_bias_grad(part, dz[:count], sums)
        winograd.weight_blocks(part, FIRST, count * squares, x[n:n + count], padding, dz[:count], at_once, of_rows,
                               table)


@compiled
def add_bias_grad(part, dz, sums):
    """sums[part] += the sum over all pixels, several of which may stand side by side in sums[part]."""
    rows = dz.reshape(-1, sums.shape[1])
    add_rows(part, FIRST, len(rows), rows, sums)


FORWARD = {width: _make_forward(width) for width in WIDTHS}
INPUT_GRAD = {width: _make_input_grad(width) for width in WIDTHS}
WEIGHT_GRAD = {width: _make_weight_grad(width) for width in WIDTHS}


# -- the stages as compiled loops take them ----------------------------------------------------------------------------

def _images_at_once(size: tuple[int, int]) -> int:
    """How many images of this output size fill whole tiles best, among those that a cache holds."""
    squares = -(-size[0] // 2) * -(-size[1] // 2)
    return min(range(1, max(1, min(8, 1024 // (4 * squares))) + 1), key=lambda n: -n * squares % ROWS / n)


def _numbers_of(stages: Stages) -> tuple[Any, ...]:
    """(where the ReLU is and which pooling), whether windows tile the image, the window, its shares, the repeats."""
    plan = (stages.relu_before_pooling, stages.relu_after_pooling,
            {None: NO_POOLING, "max": MAX, "avg": AVG}[stages.pooling])
    if stages.window is None:
        return plan, True, (1,) * 9, NO_SHARES, stages.repeat
    averages = stages.pooling == "avg"
    shares = shares_of(stages.window, np.dtype(np.float32)) if averages else NO_SHARES
    return plan, tiles_the_image(stages.window), numbers_of(stages.window), shares, stages.repeat


def _arrays_of(kept: Kept) -> tuple[Array, Array]:
    """Masks and indices, channels-last; empty ones for those that are not there."""
    return (NO_MASK if kept.blocked is None else channels_last(kept.blocked),
            NO_INDICES if kept.indices is None else channels_last(kept.indices))
