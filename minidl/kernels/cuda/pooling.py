"""Pooling on a GPU: one thread for each result.

There is nothing to share here: a window's cells are fetched once and used once, unless windows overlap, and then the
cache has them. So these are as fast as memory is, and there are no tiles. Gradients are gathered, not scattered: each
cell of an image looks for the windows that saw it, so no two threads write to the same place.

All images are (N, C, H, W) as `maps` (M, H, W) with M = N · C: channels do not mix. `window` is (s, t, p, q, d, e): the
strides, the padding at the top and left, the dilations.
"""

from __future__ import annotations

from minidl.numba_cuda import cuda


@cuda.jit
def max_pool2d(x, kernel, window, y, indices):
    """y = the largest cell of a window (nan before all), indices = where it is, row · W + column; the first of equals.

    x (M, H, W)  ->  y, indices (M, OH, OW). Memory: KH·KW fetches and two stores a thread.
    """
    thread = cuda.grid(1)
    if thread >= y.size:
        return
    _, rows, columns = y.shape
    m, i, j = thread // (rows * columns), thread // columns % rows, thread % columns
    s, t, p, q, d, e = window
    best, where = y.dtype.type(0), -1
    for u in range(kernel[0]):
        row = i * s + u * d - p
        if 0 <= row < x.shape[1]:
            for v in range(kernel[1]):
                column = j * t + v * e - q
                if 0 <= column < x.shape[2]:
                    value = x[m, row, column]
                    is_first_nan = value != value and best == best          # only nan differs from itself
                    if where < 0 or value > best or is_first_nan:
                        best, where = value, row * x.shape[2] + column
    y[m, i, j] = best
    indices[m, i, j] = where


@cuda.jit
def max_pool2d_input_grad(g, indices, kernel, window, dx):
    """dx[m, row, column] = the sum of g over the windows that took their number from that cell.

    g, indices (M, OH, OW)  ->  dx (M, H, W). Memory: at most 2 KH·KW fetches and a store a thread.
    """
    thread = cuda.grid(1)
    if thread >= dx.size:
        return
    _, height, width = dx.shape
    m, row, column = thread // (height * width), thread // width % height, thread % width
    s, t, p, q, d, e = window
    total = dx.dtype.type(0)
    for u in range(kernel[0]):
        down = row + p - u * d                                              # i*s, if a window starts there
        i = down // s
        if i * s == down and 0 <= i < g.shape[1]:
            for v in range(kernel[1]):
                right = column + q - v * e
                j = right // t
                if j * t == right and 0 <= j < g.shape[2] and indices[m, i, j] == row * width + column:
                    total += g[m, i, j]
    dx[m, row, column] = total


@cuda.jit
def avg_pool2d(x, kernel, window, row_counts, column_counts, y):
    """y = the sum of each window's cells, divided by row_counts[i] · column_counts[j].

    x (M, H, W), counts (OH,) and (OW,)  ->  y (M, OH, OW). Memory: KH·KW + 2 fetches and a store a thread.
    """
    thread = cuda.grid(1)
    if thread >= y.size:
        return
    _, rows, columns = y.shape
    m, i, j = thread // (rows * columns), thread // columns % rows, thread % columns
    s, t, p, q, d, e = window
    total = y.dtype.type(0)
    for u in range(kernel[0]):
        row = i * s + u * d - p
        if 0 <= row < x.shape[1]:
            for v in range(kernel[1]):
                column = j * t + v * e - q
                if 0 <= column < x.shape[2]:
                    total += x[m, row, column]
    y[m, i, j] = total / (row_counts[i] * column_counts[j])


@cuda.jit
def avg_pool2d_input_grad(g, kernel, window, row_counts, column_counts, dx):
    """dx[m, row, column] = the sum, over the windows that saw the cell, of g divided by how many cells they have.

    g (M, OH, OW), counts (OH,) and (OW,)  ->  dx (M, H, W). Memory: at most 3 KH·KW fetches and a store a thread.
    """
    thread = cuda.grid(1)
    if thread >= dx.size:
        return
    _, height, width = dx.shape
    m, row, column = thread // (height * width), thread // width % height, thread % width
    s, t, p, q, d, e = window
    total = dx.dtype.type(0)
    for u in range(kernel[0]):
        down = row + p - u * d
        i = down // s
        if i * s == down and 0 <= i < g.shape[1]:
            for v in range(kernel[1]):
                right = column + q - v * e
                j = right // t
                if j * t == right and 0 <= j < g.shape[2]:
                    total += g[m, i, j] / (row_counts[i] * column_counts[j])
    dx[m, row, column] = total


@cuda.jit
def repeat2d(x, factors, y):
    """y[m,i,j] = x[m, i // r, j // s]:  x (M, H, W)  ->  y (M, H·r, W·s). Memory: a fetch and a store a thread."""
    thread = cuda.grid(1)
    if thread < y.size:
        _, rows, columns = y.shape
        i, j = thread // columns % rows, thread % columns
        m = thread // (rows * columns)
        y[m, i, j] = x[m, i // factors[0], j // factors[1]]


@cuda.jit
def repeat2d_input_grad(g, factors, dx):
    """dx[m,h,v] = the sum of g over the copies of that cell:  g (M, H·r, W·s)  ->  dx (M, H, W).

    Memory: r·s fetches and a store a thread.
    """
    thread = cuda.grid(1)
    if thread >= dx.size:
        return
    _, height, width = dx.shape
    m, h, v = thread // (height * width), thread // width % height, thread % width
    total = dx.dtype.type(0)
    for i in range(h * factors[0], (h + 1) * factors[0]):
        for j in range(v * factors[1], (v + 1) * factors[1]):
            total += g[m, i, j]
    dx[m, h, v] = total
