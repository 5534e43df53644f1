"""The product of matrices on all cores: each thread multiplies a part, with the matrix library at one thread.

The library's own threads would do it as fast, but spin between products and slow down every other kernel (see
threads.py). Results are cut along their longer side, so that the parts have the least to read twice.
"""

from __future__ import annotations

import math

import numpy as np

from minidl.backend import Array, backend_of
from minidl.kernels.threads import one_blas_thread, parallel, parts, ran


def matmul(a: Array, b: Array) -> Array:
    """a (…, n, k) @ b (…, k, m) -> (…, n, m), batch axes broadcast."""
    floats = a.dtype == b.dtype and a.dtype in (np.float32, np.float64)
    if not floats or not backend_of(a).is_host:
        return a @ b
    with one_blas_thread():
        if a.ndim != b.ndim or a.shape[:-2] != b.shape[:-2]:
            return a @ b                                                # vectors, or batch axes that broadcast
        y_shape, work = (*a.shape[:-1], b.shape[-1]), math.prod(a.shape) * b.shape[-1] / 16
        axis = 0 if a.ndim > 2 or y_shape[0] >= y_shape[1] else 1
        ranges = parts(y_shape[axis], work)
        if len(ranges) == 1:
            return a @ b
        ran["dense.matmul"] += 1
        y = np.empty(y_shape, a.dtype)                                  # (…, n, m)
        some = _some_products if a.ndim > 2 else _some_columns if axis else _some_rows
        parallel(some, ranges, a, b, y)
    return y


def _some_products(start: int, stop: int, a: Array, b: Array, y: Array) -> None:
    np.matmul(a[start:stop], b[start:stop], out=y[start:stop])


def _some_rows(start: int, stop: int, a: Array, b: Array, y: Array) -> None:
    np.matmul(a[start:stop], b, out=y[start:stop])


def _some_columns(start: int, stop: int, a: Array, b: Array, y: Array) -> None:
    np.matmul(a, b[:, start:stop], out=y[:, start:stop])
