"""The fast kernels: direct convolution with register tiles, for float32 on the CPU.

In channels-last memory a convolution needs no copied windows. Let p number the pixels of the output and k the terms of
the sum for one of them. Where a term lies in the padded image is pixels[p] + terms[k] (see addresses.py), and the three
functions of a convolution are products of matrices, one of which is never written down:

    forward        y[p, o]  = sum over k of  x[pixels[p] + terms[k]] · w[k, o]
    weight grad    dw[k, o] = sum over p of  x[terms[k] + pixels[p]] · g[p, o]
    input grad     the forward sum once more, with g in the place of x, a transposed w, and other tables

Each is computed a tile at a time (see vectors.py). What a sum runs over comes as `Runs`, evenly spaced addresses: a
table read in the innermost loop made it half as fast.

3×3 windows side by side, with many channels, take a shorter way (see winograd.py).

Handed on: numbers that are not float32, and many weights for few pixels, to im2col; pooling, which multiplies nothing,
to loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minidl.backend import Array
from minidl.kernels import im2col, winograd
from minidl.kernels.addresses import (
    Frame,
    Runs,
    Tables,
    all_of,
    forward_tables,
    input_grad_tables,
    pixel_runs,
    whole_tiles,
)
from minidl.kernels.compiling import compiled
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.layout import SWAP, channels_last
from minidl.kernels.pooling import (
    avg_pool2d,
    avg_pool2d_input_grad,
    max_pool2d,
    max_pool2d_input_grad,
    repeat2d,
    repeat2d_input_grad,
)
from minidl.kernels.threads import get_num_threads, parallel, parallel_parts, parts, ran
from minidl.kernels.vectors import (
    LANES,
    ROWS,
    WIDTH,
    WIDTHS,
    add_to,
    copies,
    inner,
    outer,
    pointers,
    stay_apart,
    store,
    store_sums,
    zeros,
)

__all__ = ["avg_pool2d", "avg_pool2d_input_grad", "conv2d", "conv2d_input_grad", "conv2d_weight_grad", "fits",
           "max_pool2d", "max_pool2d_input_grad", "repeat2d", "repeat2d_input_grad"]

FEW = 4                         # output channels that are computed one at a time
MANY_WEIGHTS = 1 << 17          # numbers whose order it takes long to change
FEW_PIXELS = 128                # of a batch


# -- the three functions -----------------------------------------------------------------------------------------------

def fits(*arrays: Array | None) -> bool:
    """Whether tiles can do the work: they hold float32."""
    return all(array is None or array.dtype == np.float32 for array in arrays)


def has_few_pixels(batch: int, w: Array, geometry: Conv2dGeometry) -> bool:
    """Whether to put the weights into the order in which tiles read them would take longer than to multiply them."""
    return w.size >= MANY_WEIGHTS and batch * math.prod(geometry.output_size) <= FEW_PIXELS


def conv2d(x: Array, w: Array, geometry: Conv2dGeometry, bias: Array | None = None) -> Array:
    """x (N, C, H, W), w (O, C/groups, KH, KW), bias (O,) or None -> y (N, O, OH, OW)."""
    if not fits(x, w, bias) or has_few_pixels(len(x), w, geometry):
        return im2col.conv2d(x, w, geometry, bias)
    ran["simd.conv2d"] += 1
    y = np.empty((len(x), *geometry.output_size, len(w)), np.float32)                   # (N, OH, OW, O)
    if winograd.fits(geometry, x.shape[1], len(w)):
        winograd.correlate(channels_last(x), geometry.before, winograd.table_of_weights(w), bias, y)
        return y.transpose(0, 3, 1, 2)                                                  # (N, O, OH, OW)
    frame, tables = forward_tables(geometry, x.shape[1], len(w))
    matrices = w.transpose(2, 3, 1, 0).reshape(-1, geometry.groups, len(w) // geometry.groups)     # (K, G, O/G)
    correlate(channels_last(x), frame, tables, matrices, bias, y)
    return y.transpose(0, 3, 1, 2)                                                      # (N, O, OH, OW)


def conv2d_input_grad(g: Array, w: Array, geometry: Conv2dGeometry) -> Array:
    """g (N, O, OH, OW), w (O, C/groups, KH, KW) -> dx (N, C, H, W).

    dx at row r collects  g[i] · w[u]  for all taps u and windows i with  i·s + u·d - top = r.  Rows that leave the same
    remainder when r + top is divided by s see the same taps; so there is one correlation for each pair of remainders.
    """
    if not fits(g, w) or has_few_pixels(len(g), w, geometry):
        return im2col.conv2d_input_grad(g, w, geometry)
    ran["simd.conv2d_input_grad"] += 1
    groups, (outputs, group_channels) = geometry.groups, w.shape[:2]
    dx = np.empty((len(g), *geometry.input_size, groups * group_channels), np.float32)  # (N, H, W, C)
    g = channels_last(g)                                                                # (N, OH, OW, O)
    if winograd.fits(geometry, group_channels, outputs):
        winograd.correlate(g, *winograd.turned(w, geometry), None, dx)
        return dx.transpose(0, 3, 1, 2)                                                 # (N, C, H, W)
    for frame, tables in input_grad_tables(geometry, groups * group_channels, outputs):
        correlate(g, frame, tables, turned_matrices(w, groups, tables.taps), None, dx)
    return dx.transpose(0, 3, 1, 2)                                                     # (N, C, H, W)


def turned_matrices(w: Array, groups: int, taps: Array) -> Array:
    """w (O, C/groups, KH, KW) -> the matrices of the input gradient (K, G, C/G), of the taps that take part."""
    outputs, group_channels = w.shape[:2]
    split = w.reshape(groups, outputs // groups, group_channels, -1)                    # (G, O/G, C/G, KH*KW)
    taken = split if len(taps) == split.shape[3] else split[..., taps]                  # (G, O/G, C/G, T)
    taken = taken.transpose(3, 1, 0, 2)                                                 # (T, O/G, G, C/G)
    return taken.reshape(-1, groups, group_channels)                                    # (K, G, C/G)


def conv2d_weight_grad(x: Array, g: Array, geometry: Conv2dGeometry) -> Array:
    """x (N, C, H, W), g (N, O, OH, OW) -> dw (O, C/groups, KH, KW)."""
    if not fits(x, g):
        return im2col.conv2d_weight_grad(x, g, geometry)
    ran["simd.conv2d_weight_grad"] += 1
    channels, outputs = x.shape[1], g.shape[1]
    x, g = channels_last(x), channels_last(g)                                           # (N, H, W, C), (N, OH, OW, O)
    if winograd.fits(geometry, channels, outputs):
        return winograd.weight_grad(x, geometry.before, g)
    plan = WeightGrad.of(geometry, channels, outputs)
    framed, rows = (g, x) if plan.turned else (x, g)
    chunks = _chunks(len(x), len(plan.pixels.starts))
    ranges = parts(len(x) * chunks, rows.size / plan.columns * math.prod(plan.shape) / 16, whole=True)
    dw = plan.empty_sums(len(ranges))
    parallel_parts(WEIGHTS[plan.width], ranges, framed, plan.frame, plan.pixels, plan.tiles,
                   readable_beyond(rows, plan.overhang), plan.columns, chunks, dw)
    return plan.weights_of(dw)


@dataclass(frozen=True, eq=False)
class WeightGrad:
    """How the sum of the weight gradient is cut into tiles:  dw[k, o] = sum over all images' p of

        x[terms[k] + pixels[p]] · g[p, o]           or, turned,         g[terms[k] + pixels[p]] · x[p, o]

    Few output channels would leave most of each vector empty. The same sum with x and g in each other's place, which
    windows in steps of 1 allow, has the channels of x there.
    """

    turned: bool
    frame: Frame                        # of x, or of g
    tiles: Array                        # terms (K',), rounded up to whole tiles
    pixels: Runs
    columns: int                        # the channels of g, or of x, in all groups
    width: int                          # of a tile
    shape: tuple[int, ...]              # (G, blocks, K', width)
    geometry: Conv2dGeometry
    terms: int                          # K

    @staticmethod
    @lru_cache(maxsize=256)
    def of(geometry: Conv2dGeometry, channels: int, outputs: int) -> WeightGrad:
        """The cheaper of both ways."""
        (frame, tables), pixels, columns = forward_tables(geometry, channels, outputs), None, outputs
        turned = geometry.stride == (1, 1) and _tiles(outputs, channels, geometry) < _tiles(channels, outputs, geometry)
        if turned:
            (frame, tables), columns = input_grad_tables(geometry, channels, outputs)[0], channels
            height, width = geometry.input_size
            pixels = Runs(np.arange(height) * (frame.width * outputs), width, outputs)
        terms = all_of(tables.terms)                                                    # (K,)
        (width, blocks), tiles = _blocks(columns // geometry.groups), whole_tiles(terms)
        return WeightGrad(turned, frame, tiles, pixels or pixel_runs(geometry, channels), columns, width,
                          (geometry.groups, blocks, len(tiles), width), geometry, len(terms))

    @property
    def overhang(self) -> int:
        """By how many numbers tiles reach beyond the channels of a group."""
        return self.columns // self.geometry.groups % self.width

    def empty_sums(self, parts: int) -> Array:
        """What the kernel adds to: (parts, G, blocks, K', width)."""
        return np.zeros((parts, *self.shape), np.float32)

    def weights_of(self, sums: Array) -> Array:
        """The sums of all parts -> dw (O, C/groups, KH, KW)."""
        (groups, blocks, _, width), (kh, kw) = self.shape, self.geometry.kernel_size
        of_group = self.columns // groups
        total = sums.sum(axis=0)[:, :, :self.terms].transpose(0, 2, 1, 3)               # (G, K, blocks, width)
        total = total.reshape(groups, self.terms, blocks * width)[:, :, :of_group]      # (G, K, O/G); turned C/G
        dw = total.reshape(groups, kh, kw, -1, of_group)
        dw = dw.transpose(0, 3, 4, 1, 2) if self.turned else dw.transpose(0, 4, 3, 1, 2)     # (G, O/G, C/G, KH, KW)
        return np.ascontiguousarray(dw).reshape(-1, dw.shape[2], kh, kw)


def correlate(x: Array, frame: Frame, tables: Tables, matrices: Array, bias: Array | None, y: Array) -> None:
    """The forward sum: x (N, H, W, C), matrices (K, G, O/G), bias (O,) or None -> y (N, OH, OW, O), filled in."""
    chunks = _chunks(len(x), len(tables.pixels) // ROWS)
    if matrices.shape[2] <= FEW and tables.terms.length % LANES == 0 and len(matrices):
        lines = np.ascontiguousarray(matrices.transpose(1, 2, 0))                       # (G, O/G, K)
        biases = np.zeros(y.shape[3], np.float32) if bias is None else np.ascontiguousarray(bias)
        ranges = parts(len(x) * chunks, len(x) * len(tables.pixels) * lines.size / 16)
        parallel(correlate_few, ranges, x, frame, tables.pixels, tables.terms, tables.outputs, lines, biases, chunks, y)
        return
    width, panels, biases = panels_of(matrices, bias)
    ranges = parts(len(x) * chunks, len(x) * len(tables.pixels) * panels.size / 16)
    parallel(CORRELATE[width], ranges, x, frame, tables.pixels, tables.terms, tables.outputs, panels, biases,
             matrices.shape[2], chunks, y)


def panels_of(matrices: Array, bias: Array | None) -> tuple[int, Array, Array]:
    """How wide the tiles are to be; the matrices cut into panels of that width, in the order in which they are read
    (G, blocks, K, width); and the bias for each panel (G, blocks * width). What is too wide is 0.
    """
    terms, groups, group_outputs = matrices.shape
    width, blocks = _blocks(group_outputs)
    panels = np.empty((groups, blocks, terms, width), np.float32)
    parallel(fill_panels, parts(blocks, SWAP * panels.size), matrices, panels)
    biases = np.zeros((groups, blocks * width), np.float32)
    if bias is not None:
        biases[:, :group_outputs] = bias.reshape(groups, group_outputs)
    return width, panels, biases


@compiled
def fill_panels(start, stop, matrices, panels):
    """panels[group, block, k, o] = matrices[k, group, block * width + o] for some blocks, 0 beyond the last column.

    A line of the cache holds LANES numbers of the matrices' rows, or of their columns: so as many k at a time.
    """
    groups, _, terms, width = panels.shape
    columns = matrices.shape[2]
    for group in range(groups):
        for block in range(start, stop):
            panel, first = panels[group, block], block * width              # (K, width)
            for at in range(0, terms, LANES):
                end = min(at + LANES, terms)
                for o in range(width):
                    if first + o < columns:
                        for k in range(at, end):
                            panel[k, o] = matrices[k, group, first + o]
                    else:
                        for k in range(at, end):
                            panel[k, o] = 0


# -- the kernels: (start, stop) are units of work, each a chunk of the pixels of one image ----------------------------

@compiled
def aligned_zeros(count):
    """Zeros that begin where a line of the cache does, so that a vector of them is in one line and not in two."""
    memory = np.zeros(count + LANES, np.float32)
    skip = -memory.ctypes.data // 4 % LANES
    return memory[skip:skip + count]


@compiled
def framed(x, n, frame, scratch):
    """The memory in which image n of x (N, H, W, C) stands in its frame, and where it begins there."""
    _, height, width, channels = x.shape
    if frame.height == height and frame.width == width:                     # no padding: it stands in x itself
        return x.reshape(-1), n * height * width * channels
    for i in range(height):
        at = ((i + frame.top) * frame.width + frame.left) * channels
        row = x[n, i].reshape(-1)                                           # (W*C,)
        place = scratch[at:at + row.size]
        for k in range(row.size):
            place[k] = row[k]
    return scratch, 0


@compiled
def chunk_of(unit, chunks, count):
    """Which image a unit of work is about, and which part of range(count) for it: from the first to before the last."""
    n, chunk = unit // chunks, unit % chunks
    return n, chunk * count // chunks, (chunk + 1) * count // chunks


def _make_correlate(width: int) -> Callable[..., None]:
    """The kernel of the forward sum, with tiles of ROWS pixels × `width` output channels."""
    @compiled
    def pixels_tile(image, begin, pixels, p, terms, w, at_w, biases, at_bias, y, at_y, outputs, count):
        """y[outputs[p] + o] = bias[o] + sum over k of  x[pixels[p] + terms[k]] * w[k, o], for ROWS pixels from p on."""
        stay_apart()
        tile = copies(zeros(ROWS, width), biases, at_bias)
        rows = pointers(tile, image, begin, pixels, p)
        for start in terms.starts:
            for i in range(terms.length):
                tile = outer(tile, rows, start + i * terms.step, w, at_w)
                at_w += width
        store(tile, y, at_y, outputs, p, count)

    @compiled
    def correlate_images(start, stop, x, frame, pixels, terms, outputs, panels, biases, group_outputs, chunks, y):
        groups, blocks, terms_count, _ = panels.shape                       # (G, blocks, K, width)
        group_channels, image_size = x.shape[3] // groups, y.size // len(y)
        w, biases, y = panels.reshape(-1), biases.reshape(-1), y.reshape(-1)
        scratch = aligned_zeros(frame.height * frame.width * x.shape[3])
        for unit in range(start, stop):
            n, first, last = chunk_of(unit, chunks, pixels.size // ROWS)
            image, begin = framed(x, n, frame, scratch)
            for group in range(groups):
                for block in range(blocks):
                    panel, o = group * blocks + block, block * width
                    at = n * image_size + group * group_outputs + o                     # y[n, 0, o] of this group
                    for p in range(first * ROWS, last * ROWS, ROWS):
                        pixels_tile(image, begin + group * group_channels, pixels, p, terms, w,
                                    panel * terms_count * width, biases, panel * width, y, at, outputs,
                                    group_outputs - o)

    return correlate_images


@compiled
def few_tile(image, begin, pixels, p, terms, line, at, y, at_y, outputs, bias):
    """y[outputs[p]] = bias + sum over k of  x[pixels[p] + terms[k]] * w[k], for ROWS pixels from p on."""
    stay_apart()
    tile = zeros(ROWS, LANES)
    rows = pointers(tile, image, begin, pixels, p)
    for start in terms.starts:
        for i in range(0, terms.length, LANES):
            tile = inner(tile, rows, start + i, line, at)
            at += LANES
    store_sums(tile, y, at_y, outputs, p, bias)


@compiled
def correlate_few(start, stop, x, frame, pixels, terms, outputs, lines, biases, chunks, y):
    """The forward sum for few output channels, one at a time: vectors hold 16 terms of a sum and not 16 channels."""
    groups, group_outputs, terms_count = lines.shape                        # (G, O/G, K)
    group_channels, image_size = x.shape[3] // groups, y.size // len(y)
    lines, y = lines.reshape(-1), y.reshape(-1)
    scratch = aligned_zeros(frame.height * frame.width * x.shape[3])
    for unit in range(start, stop):
        n, first, last = chunk_of(unit, chunks, pixels.size // ROWS)
        image, begin = framed(x, n, frame, scratch)
        for o in range(groups * group_outputs):
            group = o // group_outputs
            for p in range(first * ROWS, last * ROWS, ROWS):
                few_tile(image, begin + group * group_channels, pixels, p, terms, lines, o * terms_count, y,
                         n * image_size + o, outputs, biases[o])


def _make_weights(width: int) -> Callable[..., None]:
    """The kernel of the weight gradient, with tiles of ROWS terms × `width` output channels."""
    @compiled
    def terms_tile(image, begin, terms, k, pixels, first, last, g, at_g, outputs, dw, at_dw):
        """dw[k, o] += sum over p of  x[terms[k] + pixels[p]] * g[p, o], for ROWS terms from k on."""
        stay_apart()
        tile = zeros(ROWS, width)
        rows = pointers(tile, image, begin, terms, k)
        at_g += first * pixels.length * outputs
        for run in range(first, last):
            start = pixels.starts[run]
            for j in range(pixels.length):
                tile = outer(tile, rows, start + j * pixels.step, g, at_g)
                at_g += outputs
        add_to(dw, at_dw, width, tile)

    @compiled
    def weights_of_images(part, start, stop, x, frame, pixels, terms, g, outputs, chunks, dw):
        groups, blocks, terms_count, _ = dw.shape[1:]                       # (parts, G, blocks, K', width)
        group_channels, group_outputs = x.shape[3] // groups, outputs // groups
        image_size = pixels.starts.size * pixels.length * outputs
        dw = dw[part].reshape(-1)
        scratch = aligned_zeros(frame.height * frame.width * x.shape[3])
        for unit in range(start, stop):
            n, first, last = chunk_of(unit, chunks, pixels.starts.size)
            image, begin = framed(x, n, frame, scratch)
            for group in range(groups):
                for block in range(blocks):
                    at = n * image_size + group * group_outputs + block * width         # g[n, 0, o] of this group
                    for k in range(0, terms_count, ROWS):
                        terms_tile(image, begin + group * group_channels, terms, k, pixels, first, last, g, at, outputs,
                                   dw, ((group * blocks + block) * terms_count + k) * width)

    return weights_of_images


# Several shapes of tiles: narrow results would leave most of a wide tile unused.
CORRELATE = {width: _make_correlate(width) for width in WIDTHS}
WEIGHTS = {width: _make_weights(width) for width in WIDTHS}


# -- how the work is cut up -------------------------------------------------------------------------------------------

def _tiles(channels: int, outputs: int, geometry: Conv2dGeometry) -> int:
    """What the tiles of the weight gradient cost in all for one pixel, with these channels of x and of g."""
    kh, kw = geometry.kernel_size
    terms, (width, blocks) = kh * kw * channels // geometry.groups, _blocks(outputs // geometry.groups)
    return -(-terms // ROWS) * blocks * _cost(width)


def _blocks(outputs: int) -> tuple[int, int]:
    """How wide a tile is to be for that many output channels, and how many tiles they take: little is left unused."""
    width = min(reversed(WIDTHS), key=lambda width: -(-outputs // width) * _cost(width))
    return width, -(-outputs // width)


def _cost(width: int) -> int:
    """What a tile of this width costs; one of 8 fetches as much as one of 16, and takes three quarters of its time."""
    return max(width, 12)


def _chunks(images: int, most: int) -> int:
    """Into how many chunks to cut each image, so that few images keep all threads busy too."""
    wanted, images = 4 * get_num_threads(), max(images, 1)                  # units of work; images of an empty batch
    return 1 if images >= wanted else min(-(-wanted // images), most)


def readable_beyond(g: Array, overhang: int) -> Array:
    """g in a row. If tiles hang over the last channel, they read some numbers beyond the end, so there must be some."""
    if overhang == 0:
        return g.reshape(-1)
    row = np.zeros(g.size + WIDTH, g.dtype)
    row[:g.size] = g.reshape(-1)
    return row
