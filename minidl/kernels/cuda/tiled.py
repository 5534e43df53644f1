"""Convolution on a GPU with tiles: a block of threads fetches numbers into shared memory, and uses each many times.

All three functions of a convolution are a product of two matrices,

    y[o, q]   =  sum over k of   w[o, k] · X[k, q]        k: a tap (channel, u, v)       q: a pixel (n, i, j) of y
    dx[c, q]  =  sum over k of  w'[c, k] · G[k, q]        k: a tap (output, u, v)        q: a pixel (n, h, v) of dx
    dw[o, k]  =  sum over q of   g[o, q] · X[k, q]

where X and G are what im2col would write down: the number that a tap sees from a pixel, or 0. Here they are never
written: `taps` says where a tap lies, and the number is fetched from there when it is needed. The first two are one
kernel: dx is a convolution of g whose taps go the other way, up and left (with a stride, of g with zeros between; see
`conv2d_input_grad` in this folder's __init__.py).

A block of THREADS threads computes a tile of the result, ROWS × COLUMNS, DEPTH products at a time:

    1. together they fetch  a (DEPTH, ROWS)  and  b (DEPTH, COLUMNS)  into shared memory
    2. they wait for each other: what one reads, another has fetched
    3. each adds the products to its own PATCH × PATCH results, which stay in registers
    4. they wait again: nobody may overwrite a and b while another still reads

What lies outside of the image, or of the matrices, is put there as 0: so step 3 needs no `if`.

Memory: in step 1 each number is fetched once for a tile, so a number of `b` serves ROWS results and one of `a` COLUMNS.
With 64 × 64 that is 8 · 64 fetches for a and 4 · 8 · 64 for b (a number, and a line of taps that neighbours share), for
8 · 64 · 64 products: 5/64 of a fetch for a product, where `naive` has 5. In step 3 a thread reads 2 · PATCH numbers of
shared memory for PATCH · PATCH products: 1/2 of one for each.

A thread's results lie ROWS / PATCH rows and COLUMNS / PATCH columns apart, not side by side: so the 32 threads that run
in step (a warp) read neighbouring numbers of b, which lie in different banks of shared memory, and store neighbours.

Step 3 stands in both kernels, and the first lines of every kernel in `pooling` are alike: Numba asks the driver before
it compiles a function that kernels call, so on a computer without a GPU the compiler could not be tried on them.

Ref: Chetlur et al. 2014, arXiv:1410.0759 (a convolution as a product whose matrix is never written down)
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np

from minidl.kernels.cuda.launching import is_simulated
from minidl.numba_cuda import cuda

THREADS = 256
DEPTH = 8
PATCH = 4                                       # a thread's share of the tile is PATCH × PATCH
TILES = ((16, 256), (32, 128), (64, 64))        # ROWS, COLUMNS: a lower tile for a layer of few channels
PAD = 4                                         # numbers between two lines of a, and of b: see where a is filled


class Kernels(NamedTuple):
    """The kernels for one number type and one shape of tiles."""

    conv2d: Any
    weight_grad: Any


@cache
def kernels(dtype: np.dtype, ROWS: int, COLUMNS: int) -> Kernels:
    """Make them; they are compiled when they are first launched. The sizes of tiles are constants in them."""
    number = numba.from_dtype(dtype)
    zero = dtype.type(0)
    LANES = COLUMNS // PATCH                                    # threads side by side
    LINES = ROWS // PATCH                                       # and above one another: LANES · LINES = THREADS
    assert LANES * LINES == THREADS
    # Two blocks at once on a processor of the GPU: while one waits for memory, the other computes. So a thread may have
    # half of the registers, 128; in float64 that would not do, and numbers would be spilled to memory.
    bounds = {} if is_simulated() else {"launch_bounds": (THREADS, 2 if dtype == np.float32 else 1)}
    LINE_OF_A, LINE_OF_B = ROWS + PAD, COLUMNS + PAD            # in shared memory

    @cuda.jit(**bounds)
    def conv2d(x, w, bias, taps, groups, stride, corner, y):
        """x (N, C, H, W), w (O, K), bias (O,), taps (K, 3)  ->  y (N, O, OH, OW)."""
        a = cuda.shared.array((DEPTH, LINE_OF_A), number)                   # of w
        b = cuda.shared.array((DEPTH, COLUMNS), number)                     # of X
        sums = cuda.local.array((PATCH, PATCH), number)
        t, group = cuda.threadIdx.x, cuda.blockIdx.z
        line, lane = t // LANES, t % LANES
        images, channels, height, width = x.shape[0], x.shape[1] // groups, x.shape[2], x.shape[3]
        outputs, rows, columns = y.shape[1] // groups, y.shape[2], y.shape[3]
        pixels, depth = images * rows * columns, len(taps)
        first_output, first_pixel = cuda.blockIdx.y * ROWS, cuda.blockIdx.x * COLUMNS

        # The pixel of y whose column of b this thread fetches, and the cell that its window's corner lies on
        q = first_pixel + t % COLUMNS
        n, i, j = q // (rows * columns), q // columns % rows, q % columns
        row, column = i * stride[0] - corner[0], j * stride[1] - corner[1]
        for r in range(PATCH):
            for c in range(PATCH):
                sums[r, c] = zero
        for k0 in range(0, depth, DEPTH):
            for k in range(t // COLUMNS, DEPTH, THREADS // COLUMNS):
                value = zero
                if k0 + k < depth and q < pixels:
                    h, v = row + taps[k0 + k, 1], column + taps[k0 + k, 2]
                    if 0 <= h < height and 0 <= v < width:
                        value = x[n, group * channels + taps[k0 + k, 0], h, v]
                b[k, t % COLUMNS] = value
            # Neighbours along k lie side by side in w, so neighbouring threads take those; in a they then lie ROWS +
            # PAD apart. Without the PAD all of these are in one bank of memory, which serves one thread at a time.
            o, k = t // DEPTH, k0 + t % DEPTH
            while o < ROWS:                                                 # a `for` takes four registers too many
                value = zero
                if k < depth and first_output + o < outputs:
                    value = w[group * outputs + first_output + o, k]
                a[t % DEPTH, o] = value
                o += THREADS // DEPTH
            cuda.syncthreads()
            for k in range(DEPTH):
                for r in range(PATCH):
                    for c in range(PATCH):
                        sums[r, c] += a[k, line + r * LINES] * b[k, lane + c * LANES]
            cuda.syncthreads()

        for c in range(PATCH):
            q = first_pixel + lane + c * LANES
            n, i, j = q // (rows * columns), q // columns % rows, q % columns
            for r in range(PATCH):
                o = first_output + line + r * LINES
                if q < pixels and o < outputs:
                    y[n, group * outputs + o, i, j] = sums[r, c] + bias[group * outputs + o]

    @cuda.jit(**bounds)
    def weight_grad(x, g, taps, groups, stride, corner, slices, parts):
        """x (N, C, H, W), g (N, O, OH, OW), taps (K, 3)  ->  parts (P, O, K), to be added up to dw (O, K).

        The result is small and the sum long, so P blocks share the images of a tile: each image is cut into `slices`,
        and P / slices images are worked on at once. Each writes to a part of its own; were they to add to dw itself
        (atomically), the order would change with every run, and the last digits with it.
        """
        a = cuda.shared.array((DEPTH, LINE_OF_A), number)                   # of g
        b = cuda.shared.array((DEPTH, LINE_OF_B), number)                   # of X
        sums = cuda.local.array((PATCH, PATCH), number)
        t = cuda.threadIdx.x
        group, part = cuda.blockIdx.z % groups, cuda.blockIdx.z // groups
        line, lane = t // LANES, t % LANES
        channels, height, width = x.shape[1] // groups, x.shape[2], x.shape[3]
        outputs, columns = g.shape[1] // groups, g.shape[3]
        pixels, depth = g.shape[2] * columns, len(taps)                     # pixels of one image
        first_output, first_tap = cuda.blockIdx.y * ROWS, cuda.blockIdx.x * COLUMNS
        share = (pixels + slices - 1) // slices
        first_pixel = part % slices * share
        end = min(pixels, first_pixel + share)
        for r in range(PATCH):
            for c in range(PATCH):
                sums[r, c] = zero
        for n in range(part // slices, len(x), len(parts) // slices):
            for q0 in range(first_pixel, end, DEPTH):
                q = q0 + t % DEPTH                                          # the pixel that this thread fetches for
                i, j = q // columns, q % columns
                for o in range(t // DEPTH, ROWS, THREADS // DEPTH):
                    value = zero
                    if q < end and first_output + o < outputs:
                        value = g[n, group * outputs + first_output + o, i, j]
                    a[t % DEPTH, o] = value
                for k in range(t // DEPTH, COLUMNS, THREADS // DEPTH):
                    value = zero
                    if q < end and first_tap + k < depth:
                        h = i * stride[0] - corner[0] + taps[first_tap + k, 1]
                        v = j * stride[1] - corner[1] + taps[first_tap + k, 2]
                        if 0 <= h < height and 0 <= v < width:
                            value = x[n, group * channels + taps[first_tap + k, 0], h, v]
                    b[t % DEPTH, k] = value
                cuda.syncthreads()
                for k in range(DEPTH):
                    for r in range(PATCH):
                        for c in range(PATCH):
                            sums[r, c] += a[k, line + r * LINES] * b[k, lane + c * LANES]
                cuda.syncthreads()

        for r in range(PATCH):
            o = first_output + line + r * LINES
            for c in range(PATCH):
                k = first_tap + lane + c * LANES
                if o < outputs and k < depth:
                    parts[part, group * outputs + o, k] = sums[r, c]

    return Kernels(conv2d, weight_grad)


@cuda.jit
def add_parts(parts, total):
    """total[i] = sum over p of parts[p, i], in the order of p: parts (P, M) -> total (M,).

    Memory: P fetches and a store a thread.
    """
    i = cuda.grid(1)
    if i < len(total):
        s = parts[0, i]
        for p in range(1, len(parts)):
            s += parts[p, i]
        total[i] = s


def tile_for(rows: int) -> tuple[int, int]:
    """The lowest tile with that many rows, or the highest there is."""
    return next((tile for tile in TILES if rows <= tile[0]), TILES[-1])

