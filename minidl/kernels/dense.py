"""The product of matrices on all cores: each thread multiplies a part, with the matrix library at one thread.

The library's own threads would do it as fast, but spin between products and slow down every other kernel (see
threads.py). Results are cut along their longer side, so that the parts have the least to read twice.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np

from minidl.backend import Array, backend_of
from minidl.kernels.threads import one_blas_thread, parallel, parts, ran


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """a (…, n, k) @ b (…, k, m) + bias (m,) or None -> (…, n, m), batch axes broadcast."""
    if a.ndim == b.ndim == 3 and len(a) == len(b) == 1:
        return matmul(a[0], b[0], bias)[None]                           # one matrix can be cut, one batch cannot
    ranges, axis = _cut(a, b)
    if len(ranges) > 1:
        ran["dense.matmul"] += 1
        y = np.empty((*a.shape[:-1], b.shape[-1]), a.dtype)             # (…, n, m)
        with one_blas_thread():
            parallel(_some_columns if axis == 1 else _some_rows, ranges, a, b, bias, y)
        return y
    with one_blas_thread() if ranges else nullcontext():
        y = a @ b
    if bias is not None:
        y += bias
    return y


def _cut(a: Array, b: Array) -> tuple[list[tuple[int, int]], int]:
    """How threads divide the product: ranges (none if it is not the matrix library's work), and of which axis."""
    floats = a.dtype == b.dtype and a.dtype in (np.float32, np.float64)
    if not floats or not backend_of(a).is_host:
        return [], 0
    if a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2]:
        return [(0, len(a))], 0                                         # vectors, or batch axes that broadcast
    axis = 0 if a.ndim > 2 or a.shape[0] >= b.shape[1] else 1
    return parts(len(a) if axis == 0 else b.shape[1], math.prod(a.shape) * b.shape[-1] / 16, whole=True), axis


def _some_rows(start: int, stop: int, a: Array, b: Array, bias: Array | None, y: Array) -> None:
    """Some rows of y, or some matrices of a batch."""
    np.matmul(a[start:stop], b if b.ndim == 2 else b[start:stop], out=y[start:stop])
    if bias is not None:
        y[start:stop] += bias


def _some_columns(start: int, stop: int, a: Array, b: Array, bias: Array | None, y: Array) -> None:
    np.matmul(a, b[:, start:stop], out=y[:, start:stop])
    if bias is not None:
        y[:, start:stop] += bias[start:stop]
