"""Compiled passes over memory: what costs little to compute and much to fetch, so that each number is fetched once.

In NumPy every operation of a formula is a pass of its own, over memory that was just allocated for the last one: Adam's
formula takes a dozen. Each function here is one pass, on all threads. The formula itself stands in `ops` or `optim`,
and computes what these do not fit (see `kernels.passes_for`): few numbers, other types, other places, gaps in memory.
"""

from __future__ import annotations

import numpy as np

from minidl.backend import Array
from minidl.kernels.compiling import compiled
from minidl.kernels.layout import in_a_row
from minidl.kernels.step_numbers import numbers_of_adam, numbers_of_sgd
from minidl.kernels.threads import parallel, parallel_parts, parts, ran

# -- activations -------------------------------------------------------------------------------------------------------

def relu(x: Array) -> Array:
    """max(x, 0)."""
    ran["passes.relu"] += 1
    y = np.empty_like(x)
    _in_parallel(_relu, x, y)
    return y


def relu_grad(g: Array, y: Array) -> Array:
    """g where y > 0, else 0."""
    ran["passes.relu_grad"] += 1
    dx = np.empty_like(g)
    _in_parallel(_relu_grad, g, y, dx)
    return dx


@compiled
def _relu(start, stop, x, y):
    x, y = x[start:stop], y[start:stop]                 # loops from 0 to size: no index can be negative
    for i in range(x.size):
        y[i] = 0 if x[i] <= 0 else x[i]                 # in this order NaN stays NaN


@compiled
def _relu_grad(start, stop, g, y, dx):
    g, y, dx = g[start:stop], y[start:stop], dx[start:stop]
    for i in range(g.size):
        dx[i] = 0 if y[i] <= 0 else g[i]


# -- batch-norm with fixed numbers -------------------------------------------------------------------------------------

def scale_shift(rows: Array, s: Array, t: Array | None) -> Array:
    """rows (N, C) -> s · rows + t, with s (C,) and t (C,), None for 0."""
    ran["passes.scale_shift"] += 1
    y = np.empty_like(rows)
    s, t = np.ascontiguousarray(s), np.zeros_like(s) if t is None else np.ascontiguousarray(t)
    parallel(_scale_shift, parts(len(rows), 2 * rows.size), rows, s, t, y)
    return y


@compiled
def _scale_shift(start, stop, rows, s, t, y):
    for n in range(start, stop):
        row, target = rows[n], y[n]                     # (C,)
        for c in range(row.size):
            target[c] = s[c] * row[c] + t[c]


# -- sums --------------------------------------------------------------------------------------------------------------

def channel_sums(rows: Array) -> Array:
    """rows (N, C) -> the sum over N of each channel (C,), added up in float64."""
    ran["passes.channel_sums"] += 1
    channels = rows.shape[1]
    together = max(1, 64 // channels)                   # short rows are added as long ones, several side by side
    left_over = rows[len(rows) // together * together:]
    wide = rows[:len(rows) - len(left_over)].reshape(-1, together * channels)
    ranges = parts(len(wide), wide.size // 2)
    sums = np.zeros((len(ranges), wide.shape[1]), np.float64)
    parallel_parts(add_rows, ranges, wide, sums)
    total = sums.reshape(-1, channels).sum(axis=0) + left_over.sum(axis=0, dtype=np.float64)
    return total.astype(rows.dtype)


def scaled_difference(a: Array, b: Array, s: Array) -> Array:
    """s · (a - b), s a single number."""
    ran["passes.scaled_difference"] += 1
    y = np.empty_like(a)
    _in_parallel(_scaled_difference, a, b, y, numbers=(s,))
    return y


@compiled
def _scaled_difference(start, stop, a, b, y, s):
    a, b, y = a[start:stop], b[start:stop], y[start:stop]
    for i in range(a.size):
        y[i] = s * (a[i] - b[i])


def mean_squared_error(x: Array, t: Array) -> Array:
    """The mean of (x - t)², added up in float64."""
    ran["passes.mean_squared_error"] += 1
    ranges = parts(x.size, 2 * x.size)
    sums = np.zeros(len(ranges), np.float64)
    parallel_parts(_squared_distance, ranges, in_a_row(x), in_a_row(t), sums)
    return np.asarray(sums.sum() / x.size, x.dtype)


@compiled
def _squared_distance(part, start, stop, x, t, sums):
    x, t = x[start:stop], t[start:stop]
    total = 0.0
    for i in range(x.size):
        d = np.float64(x[i] - t[i])
        total += d * d
    sums[part] = total


@compiled
def add_rows(part, start, stop, rows, sums):
    """sums[part] += the sum of some rows."""
    total = sums[part]
    rows = rows[start:stop]
    for n in range(0, len(rows) - 3, 4):                # four in float32 at a time: fewer numbers are made float64
        a, b, c, d = rows[n], rows[n + 1], rows[n + 2], rows[n + 3]
        for i in range(total.size):
            total[i] += (a[i] + b[i]) + (c[i] + d[i])
    for n in range(len(rows) // 4 * 4, len(rows)):
        row = rows[n]
        for i in range(total.size):
            total[i] += row[i]


# -- optimizers --------------------------------------------------------------------------------------------------------

def sgd(p: Array, g: Array, v: Array, lr: float, momentum: float, new: float, nesterov: bool, decay: float,
        sign: float) -> None:
    """The formulas of `optim.SGD` with G = sign · g + decay · p: v ← momentum · v + new · G,   p ← p - lr · v."""
    ran["passes.sgd"] += 1
    _in_parallel(_sgd, p, g, v, numbers=numbers_of_sgd(lr, momentum, new, nesterov, decay, sign))


@compiled
def _sgd(start, stop, p, g, v, lr, momentum, new, share_of_v, share_of_g, decay, sign):
    p, g, v = p[start:stop], g[start:stop], v[start:stop]
    for i in range(p.size):
        gradient = sign * g[i] + decay * p[i]
        v[i] = momentum * v[i] + new * gradient
        p[i] -= lr * (share_of_v * v[i] + share_of_g * gradient)


def adam(p: Array, g: Array, m: Array, v: Array, lr: float, betas: tuple[float, float], eps: float, t: int,
         decay: float, shrink: float, sign: float) -> None:
    """The formulas of `optim.Adam` with G = sign · g + decay · p, after p ← shrink · p."""
    ran["passes.adam"] += 1
    _in_parallel(_adam, p, g, m, v, numbers=numbers_of_adam(lr, betas, eps, t, decay, shrink, sign))


@compiled
def _adam(start, stop, p, g, m, v, step, new1, beta2, new2, root, eps, decay, shrink, sign):
    p, g, m, v = p[start:stop], g[start:stop], m[start:stop], v[start:stop]
    for i in range(p.size):
        weight = shrink * p[i]
        gradient = sign * g[i] + decay * weight
        m[i] += new1 * (gradient - m[i])                                    # β₁ m + (1-β₁) G
        v[i] = beta2 * v[i] + new2 * gradient * gradient
        p[i] = weight - step * m[i] / (np.sqrt(v[i]) * root + eps)          # p - lr · m̂ / (√v̂ + ε)


def _in_parallel(kernel, first, *others, numbers=()):
    """kernel(start, stop, arrays in a row, numbers of their type), over all numbers."""
    rows = [in_a_row(array) for array in (first, *others)]
    ranges = parts(first.size, first.size * len(others))
    parallel(kernel, ranges, *rows, *(first.dtype.type(number) for number in numbers))      # Python's are float64
