"""Convolution on a GPU, the plain way: one thread computes one number of the result.

Read this first. Each kernel is the loop body of `reference`, written for one result; which one, a thread learns from
its own number, `cuda.grid(1)`. Nobody waits for anybody and no two threads write the same number, so the order in which
threads run cannot change a bit of the result.

What is slow about it is memory. For each product a thread fetches two numbers and uses each of them once, and three
more that say where they lie. Caches catch most of that (neighbours want the same weights, and windows overlap), but
every fetch is an instruction, and a GPU multiplies many times faster than it loads. `tiled` fetches each number once
for a whole block of threads.

`taps` says where the K products of a result lie, a line (channel, rows down, columns right) each, so that no thread has
to find that out by division. Channels count from the first one of the group that the result belongs to.
"""

from __future__ import annotations

from minidl.numba_cuda import cuda


@cuda.jit
def conv2d(x, w, bias, taps, groups, stride, corner, y):
    """y[n,o,i,j] = bias[o] + sum over k of  x[n, c, i*s - p + u*d, j*s - p + v*d] · w[o,k],   k = (c, u*d, v*d).

    x (N, C, H, W), w (O, K), bias (O,), taps (K, 3)  ->  y (N, O, OH, OW), K = C/groups · KH · KW

    Memory: 5 K + 1 fetches (x, w and a line of taps for each product) and a store for each of the N·O·OH·OW results.
    """
    thread = cuda.grid(1)
    if thread >= y.size:
        return                                              # the last block has more threads than there are results
    _, outputs, rows, columns = y.shape
    i, j = thread // columns % rows, thread % columns
    n, o = thread // (columns * rows * outputs), thread // (columns * rows) % outputs
    first = o // (outputs // groups) * (x.shape[1] // groups)               # the first channel of o's group
    total = bias[o]
    for k in range(len(taps)):
        row = i * stride[0] - corner[0] + taps[k, 1]
        column = j * stride[1] - corner[1] + taps[k, 2]
        if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
            total += x[n, first + taps[k, 0], row, column] * w[o, k]
    y[n, o, i, j] = total


@cuda.jit
def conv2d_input_grad(g, turned, taps, groups, stride, corner, dx):
    """dx[n,c,h,v] = sum over k of  g[n,o,i,j] · w'[c,k]  for the (i, j) with  i*s - p + u*d = h,  if there is one.

    g (N, O, OH, OW), w' = w with inputs before outputs (C, K), taps (K, 3)  ->  dx (N, C, H, W), K = O/groups · KH · KW

    Not "add each g to the cells it came from", as `reference` does: then threads would meet at a cell. Each cell looks
    for the windows that saw it. Memory: 3 K to 5 K fetches and a store for each of the N·C·H·W cells.
    """
    thread = cuda.grid(1)
    if thread >= dx.size:
        return
    _, channels, rows, columns = dx.shape
    h, v = thread // columns % rows, thread % columns
    n, c = thread // (columns * rows * channels), thread // (columns * rows) % channels
    first = c // (channels // groups) * (g.shape[1] // groups)              # the first output of c's group
    total = dx.dtype.type(0)
    for k in range(len(taps)):
        down = h + corner[0] - taps[k, 1]                                   # i*s, if a window starts there
        right = v + corner[1] - taps[k, 2]
        i, j = down // stride[0], right // stride[1]
        if i * stride[0] == down and j * stride[1] == right and 0 <= i < g.shape[2] and 0 <= j < g.shape[3]:
            total += g[n, first + taps[k, 0], i, j] * turned[c, k]
    dx[n, c, h, v] = total


@cuda.jit
def conv2d_weight_grad(x, g, taps, groups, stride, corner, parts):
    """dw[o,k] = sum over n,i,j of  x[n, c, i*s - p + u*d, j*s - p + v*d] · g[n,o,i,j], in parts to be added up.

    x (N, C, H, W), g (N, O, OH, OW), taps (K, 3)  ->  parts (P, O, K): part p has the lines (n, i) number p, p + P, …

    There are few weights, and a sum of N·OH·OW products for each. A thread that adds up all of them takes long, and
    most of the GPU has nothing to do meanwhile; so P threads share them.

    Memory: 2 N·OH·OW / P fetches and a store for each of the P·O·K sums.
    """
    thread = cuda.grid(1)
    if thread >= parts.size:
        return
    _, outputs, depth = parts.shape
    part, o, k = thread // (depth * outputs), thread // depth % outputs, thread % depth
    c = o // (outputs // groups) * (x.shape[1] // groups) + taps[k, 0]
    total = parts.dtype.type(0)
    for line in range(part, len(x) * g.shape[2], len(parts)):
        n, i = line // g.shape[2], line % g.shape[2]
        row = i * stride[0] - corner[0] + taps[k, 1]
        if 0 <= row < x.shape[2]:
            for j in range(g.shape[3]):
                column = j * stride[1] - corner[1] + taps[k, 2]
                if 0 <= column < x.shape[3]:
                    total += x[n, c, row, column] * g[n, o, i, j]
    parts[part, o, k] = total
