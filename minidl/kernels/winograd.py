"""Winograd's convolution: a 3×3 window with 16 multiplications for four outputs instead of 36.

For one output a 3×3 window takes 9 multiplications, for a square of 2×2 outputs 36. But the 4×4 inputs of that square
and the 3×3 weights can be turned into two tables of 4×4 numbers, whose products, element by element, give all four:

    Y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ d B)] A          d: 4×4 inputs, w: 3×3 weights, Y: 2×2 outputs

    Bᵀ = 1  0 -1  0      G =  1   0   0      Aᵀ = 1  1  1  0
         0  1  1  0          ½   ½   ½            0  1 -1 -1
         0 -1  1  0          ½  -½   ½
         0  1  0 -1           0   0   1

B and A hold only 0, 1 and -1: the turning takes additions. With many channels ⊙ becomes 16 products of matrices, one
for each place in the table,   M[place] = V[place] (squares, C) @ U[place] (C, O),   which is where the time goes; the
sums before and after it are done once for all channels of the other side. The gradient of the inputs is the same
convolution with the weights turned around. The gradient of the weights goes the way back:

    dw = Gᵀ [sum over all squares of  (A dY Aᵀ) ⊙ (Bᵀ d B)] G

What it costs: a number that is not finite spoils all four outputs of a square, also those whose window it is not in.

Ref: Winograd 1980, "Arithmetic Complexity of Computations"; Lavin and Gray 2015, arXiv:1509.09308
"""

from __future__ import annotations

import numpy as np

from minidl.backend import Array
from minidl.kernels.compiling import compiled
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.threads import parallel, parallel_parts, parts, ran
from minidl.kernels.vectors import (
    LANES,
    ROWS,
    WIDTH,
    add_to,
    load,
    minus,
    outer,
    plus,
    pointers,
    save,
    stay_apart,
    store,
    zeros,
)

PLACES = 16
HALF = np.float32(0.5)
SMALLEST = 4                                        # rows and columns of the output, else most squares are cut off
CACHED = 1 << 17                                    # numbers in tables that stay in a core's cache, 512 KiB


def fits(geometry: Conv2dGeometry, channels: int, outputs: int) -> bool:
    """Whether it can be done this way: 3×3 windows side by side, whole tiles of channels on both sides."""
    return (geometry.kernel_size == (3, 3) and geometry.stride == (1, 1) and geometry.dilation == (1, 1)
            and geometry.groups == 1 and min(geometry.output_size) >= SMALLEST
            and channels % WIDTH == 0 and outputs % WIDTH == 0)


def table_of_weights(w: Array) -> Array:
    """w (O, C, 3, 3) -> U = G w Gᵀ in the order in which it is read, (16, O / WIDTH, C, WIDTH)."""
    outputs, channels, _, _ = w.shape
    table = np.empty((PLACES, outputs // WIDTH, channels, WIDTH), np.float32)
    parallel(turn_weights, parts(outputs // WIDTH, 2 * table.size), w, table)
    return table


def correlate(x: Array, padding: tuple[int, int], table: Array, bias: Array | None, y: Array) -> None:
    """x (N, H, W, C), rows and columns of padding before it, table of weights, bias (O,) -> y (N, OH, OW, O)."""
    ran["winograd.correlate"] += 1
    images, rows, columns, outputs = y.shape
    squares = images * -(-rows // 2) * -(-columns // 2)
    blocks = -(-squares // ROWS)
    biases = np.zeros(outputs, np.float32) if bias is None else np.ascontiguousarray(bias)
    parallel(correlate_blocks, parts(blocks, squares * table.size / 16), x, padding, table, biases, y)


def turned(w: Array, geometry: Conv2dGeometry) -> tuple[tuple[int, int], Array]:
    """What makes a convolution of g the gradient of the inputs: its padding, and the table of the weights turned round.
    """
    top, left = geometry.before
    return (2 - top, 2 - left), table_of_weights(w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])      # (C, O, 3, 3)


def weight_grad(x: Array, padding: tuple[int, int], g: Array) -> Array:
    """x (N, H, W, C), rows and columns of padding before it, g (N, OH, OW, O) -> dw (O, C, 3, 3)."""
    ran["winograd.weight_grad"] += 1
    images, rows, columns, outputs = g.shape
    channels, squares = x.shape[3], images * -(-rows // 2) * -(-columns // 2)
    ranges = parts(squares, squares * PLACES * outputs * channels / 16, whole=True)
    table, at_once, of_rows = empty_sums(len(ranges), channels, outputs)
    parallel_parts(weight_blocks, ranges, x, padding, g, at_once, of_rows, table)
    return weights_of(table, outputs)


def empty_sums(parts: int, channels: int, outputs: int) -> tuple[Array, int, Array]:
    """What `weight_blocks` adds to (parts, 16, O', C), how many squares' tables it is to have at a time, and the rows
    of its tiles (O',): whole tiles, the last row repeated.
    """
    at_once = max(ROWS, CACHED // (PLACES * (channels + outputs)))
    of_rows = np.minimum(np.arange(-(-outputs // ROWS) * ROWS), outputs - 1)
    return np.zeros((parts, PLACES, len(of_rows), channels), np.float32), at_once, of_rows


def weights_of(table: Array, outputs: int) -> Array:
    """The sums of `weight_blocks` (parts, 16, O', C) -> dw = Gᵀ (their sum) G (O, C, 3, 3)."""
    dw = np.empty((outputs, table.shape[3], 3, 3), np.float32)
    turn_sums(table.sum(axis=0), dw)
    return dw


@compiled
def times_g(a, b, c):
    """G times three numbers."""
    return a, HALF * (a + b + c), HALF * (a - b + c), c


@compiled
def turn_weights(start, stop, w, table):
    """table[place, o // WIDTH, c, o % WIDTH] = (G w[o, c] Gᵀ)[place], for some blocks of o."""
    _, _, channels, width = table.shape
    rows = np.empty((3, 4), np.float32)                                     # of w Gᵀ
    lines = np.empty((PLACES, width), np.float32)       # in the table they are so far apart that a cache forgets them
    for o_block in range(start, stop):
        for c in range(channels):
            for o in range(width):
                k = w[o_block * width + o, c]                               # (3, 3)
                for u in range(3):
                    rows[u, 0], rows[u, 1], rows[u, 2], rows[u, 3] = times_g(k[u, 0], k[u, 1], k[u, 2])
                for j in range(4):
                    lines[j, o], lines[4 + j, o], lines[8 + j, o], lines[12 + j, o] = times_g(
                        rows[0, j], rows[1, j], rows[2, j])
            for place in range(PLACES):
                line, target = lines[place], table[place, o_block, c]       # (WIDTH,)
                for o in range(width):
                    target[o] = line[o]


@compiled
def times_g_transposed(a, b, c, d):
    """Gᵀ times four numbers."""
    return a + HALF * (b + c), HALF * (b - c), HALF * (b + c) + d


@compiled
def turn_sums(table, dw):
    """dw[o, c] = Gᵀ table[:, o, c] G, the 16 places as a 4×4 matrix."""
    outputs, channels, _, _ = dw.shape
    columns = np.empty((3, 4), np.float32)                                  # of Gᵀ table
    for o in range(outputs):
        for c in range(channels):
            t, k = table[:, o, c], dw[o, c]                                 # (16,), (3, 3)
            for j in range(4):
                columns[0, j], columns[1, j], columns[2, j] = times_g_transposed(t[j], t[4 + j], t[8 + j], t[12 + j])
            for u in range(3):
                k[u, 0], k[u, 1], k[u, 2] = times_g_transposed(
                    columns[u, 0], columns[u, 1], columns[u, 2], columns[u, 3])


@compiled
def correlate_blocks(start, stop, x, padding, table, biases, y):
    """Some blocks of ROWS squares each: turn the inputs, multiply, turn the products back."""
    _, o_blocks, channels, width = table.shape                              # (16, O / width, C, width)
    outputs, (_, rows, columns, _) = o_blocks * width, y.shape
    across, down = (columns + 1) // 2, (rows + 1) // 2
    every = len(y) * down * across
    v = np.empty(PLACES * ROWS * channels, np.float32)                      # (16, ROWS, C)
    m = np.empty(PLACES * ROWS * outputs, np.float32)                       # (16, ROWS, O)
    patch, pixels = np.empty(16 * channels, np.float32), x.reshape(-1)      # (4, 4, C), (N*H*W*C)
    rows_of_v, rows_of_m = np.arange(ROWS) * channels, np.arange(ROWS) * outputs
    u = table.reshape(-1)
    for block in range(start, stop):
        count = min(ROWS, every - block * ROWS)
        for t in range(count):
            n, i, j = square(block * ROWS + t, down, across)
            turn_square(x, pixels, n, 2 * i - padding[0], 2 * j - padding[1], patch, v, t * channels, ROWS * channels)
        for place in range(PLACES):
            for o_block in range(o_blocks):
                multiply(v, place * ROWS * channels, rows_of_v, channels, u,
                         (place * o_blocks + o_block) * channels * width, m,
                         place * ROWS * outputs + o_block * width, rows_of_m)
        for t in range(count):
            n, i, j = square(block * ROWS + t, down, across)
            turn_products(m, t * outputs, ROWS * outputs, biases, y, n, 2 * i, 2 * j)


@compiled
def weight_blocks(part, start, stop, x, padding, g, at_once, of_rows, table):
    """Some squares' sum of (A dY Aᵀ) ⊙ (Bᵀ d B), with products of O × C numbers for each place."""
    (_, rows, columns, outputs), channels = g.shape, x.shape[3]
    across, down = (columns + 1) // 2, (rows + 1) // 2
    at_most = at_once + at_once // 2                                        # squares
    v = np.empty(PLACES * at_most * channels, np.float32)                   # (16, squares, C)
    d = np.empty(PLACES * at_most * outputs, np.float32)                    # (16, squares, O)
    patch, four, pixels = np.empty(16 * channels, np.float32), np.empty(4 * outputs, np.float32), x.reshape(-1)
    table = table[part].reshape(-1)                                         # (16 * O' * C,)
    rounds = max(1, (stop - start + at_once // 2) // at_once)               # of about as many squares
    for r in range(rounds):
        first = start + r * (stop - start) // rounds
        count = start + (r + 1) * (stop - start) // rounds - first
        for t in range(count):
            n, i, j = square(first + t, down, across)
            turn_square(x, pixels, n, 2 * i - padding[0], 2 * j - padding[1], patch, v, t * channels,
                        count * channels)
            cut_out(g, n, 2 * i, 2 * j, 2, four)
            turn_gradients(four, outputs, d, t * outputs, count * outputs)
        for place in range(PLACES):
            for o in range(0, of_rows.size, ROWS):
                for c in range(0, channels, WIDTH):
                    add_products(d, place * count * outputs, of_rows, o, outputs, count, v,
                                 place * count * channels + c, channels, table,
                                 (place * of_rows.size + o) * channels + c)


@compiled
def add_products(d, begin, of_rows, o, outputs, count, v, at_v, channels, table, at):
    """table[place, o, c] += sum over squares t of  d[place, t, o] * v[place, t, c], a tile of it."""
    stay_apart()
    tile = zeros(ROWS, WIDTH)
    rows = pointers(tile, d, begin, of_rows, o)
    for t in range(count):
        tile = outer(tile, rows, t * outputs, v, at_v)
        at_v += channels
    add_to(table, at, channels, tile)


@compiled
def turn_gradients(four, outputs, d, at, step):
    """D[place, t] = (A dY Aᵀ)[place] for all channels; places are `step` apart."""
    zero = zeros(1, LANES)
    for o in range(0, outputs, LANES):
        a, b = load(four, o), load(four, o + outputs)                       # dY, row 0
        e, f = load(four, o + 2 * outputs), load(four, o + 3 * outputs)     # dY, row 1
        save_gradients(d, at + o, step, a, b)
        save_gradients(d, at + o + 4 * step, step, plus(a, e), plus(b, f))
        save_gradients(d, at + o + 8 * step, step, minus(a, e), minus(b, f))
        save_gradients(d, at + o + 12 * step, step, minus(zero, e), minus(zero, f))


@compiled
def save_gradients(d, at, step, a, b):
    """A row of two times Aᵀ, one place after the other."""
    save(d, at, a)
    save(d, at + step, plus(a, b))
    save(d, at + 2 * step, minus(a, b))
    save(d, at + 3 * step, minus(zeros(1, LANES), b))


@compiled
def square(index, down, across):
    """Image, row and column of a square of outputs."""
    n, rest = index // (down * across), index % (down * across)
    return n, rest // across, rest % across


@compiled
def cut_out(x, n, top, left, size, patch):
    """A square of size × size pixels, zeros where it lies outside of the image."""
    _, height, width, channels = x.shape
    pixels, zero = x.reshape(-1), zeros(1, LANES)
    for r in range(size):
        for c in range(size):
            target = (r * size + c) * channels
            if 0 <= top + r < height and 0 <= left + c < width:
                source = ((n * height + top + r) * width + left + c) * channels
                for o in range(0, channels, LANES):
                    save(patch, target + o, load(pixels, source + o))
            else:
                for o in range(0, channels, LANES):
                    save(patch, target + o, zero)


@compiled
def turn_four(a, b, c, d):
    """Bᵀ times four vectors."""
    return minus(a, c), plus(b, c), minus(c, b), minus(b, d)


@compiled
def turn_square(x, pixels, n, top, left, patch, v, at, step):
    """V[place, t] for the square of inputs at (top, left), which may reach beyond the image."""
    _, height, width, channels = x.shape
    if 0 <= top <= height - 4 and 0 <= left <= width - 4:
        turn_inputs(pixels, ((n * height + top) * width + left) * channels, width * channels, channels, v, at, step)
    else:
        cut_out(x, n, top, left, 4, patch)
        turn_inputs(patch, 0, 4 * channels, channels, v, at, step)


@compiled
def turn_inputs(source, start, row, channels, v, at, step):
    """V[place, t] = (Bᵀ d B)[place] for all channels; rows of d are `row` apart, places `step`."""
    for c in range(0, channels, LANES):
        here = start + c
        p00, p01, p02, p03 = turned_column(source, here, row)
        p10, p11, p12, p13 = turned_column(source, here + channels, row)
        p20, p21, p22, p23 = turned_column(source, here + 2 * channels, row)
        p30, p31, p32, p33 = turned_column(source, here + 3 * channels, row)
        save_row(v, at + c, step, p00, p10, p20, p30)
        save_row(v, at + c + 4 * step, step, p01, p11, p21, p31)
        save_row(v, at + c + 8 * step, step, p02, p12, p22, p32)
        save_row(v, at + c + 12 * step, step, p03, p13, p23, p33)


@compiled
def turned_column(source, at, row):
    """Bᵀ times a column of the square."""
    return turn_four(load(source, at), load(source, at + row), load(source, at + 2 * row), load(source, at + 3 * row))


@compiled
def save_row(v, at, step, a, b, c, d):
    """A row of four times B, one place after the other."""
    e, f, g, h = turn_four(a, b, c, d)
    save(v, at, e)
    save(v, at + step, f)
    save(v, at + 2 * step, g)
    save(v, at + 3 * step, h)


@compiled
def multiply(v, begin, rows_of_v, channels, u, at_u, m, at_m, rows_of_m):
    """M[place] = V[place] @ U[place], a tile of it: ROWS squares × WIDTH output channels."""
    stay_apart()
    tile = zeros(ROWS, WIDTH)
    rows = pointers(tile, v, begin, rows_of_v, 0)
    for c in range(channels):
        tile = outer(tile, rows, c, u, at_u)
        at_u += WIDTH
    store(tile, m, at_m, rows_of_m, 0, WIDTH)


@compiled
def turn_products(m, at, step, biases, y, n, i, j):
    """Y = Aᵀ M A + bias for one square, without what lies beyond the image."""
    _, rows, columns, outputs = y.shape
    result = y[n].reshape(-1)
    for o in range(0, outputs, LANES):
        bias = load(biases, o)
        a0, b0 = turned_products(m, at + o, 4 * step)
        a1, b1 = turned_products(m, at + o + step, 4 * step)
        a2, b2 = turned_products(m, at + o + 2 * step, 4 * step)
        a3, b3 = turned_products(m, at + o + 3 * step, 4 * step)
        here = (i * columns + j) * outputs + o
        save(result, here, plus(bias, plus(a0, plus(a1, a2))))
        if j + 1 < columns:
            save(result, here + outputs, plus(bias, minus(minus(a1, a2), a3)))
        if i + 1 < rows:
            save(result, here + columns * outputs, plus(bias, plus(b0, plus(b1, b2))))
            if j + 1 < columns:
                save(result, here + (columns + 1) * outputs, plus(bias, minus(minus(b1, b2), b3)))


@compiled
def turned_products(m, at, row):
    """Aᵀ times a column of four."""
    a, b, c, d = load(m, at), load(m, at + row), load(m, at + 2 * row), load(m, at + 3 * row)
    return plus(a, plus(b, c)), minus(minus(b, c), d)
