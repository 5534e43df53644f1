"""Matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidl.backend import Array
from minidl.errors import ShapeError
from minidl.graph import Op

if TYPE_CHECKING:
    from minidl.tensors import Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b as in NumPy and PyTorch: a vector counts as a row on the left and as a column on the right."""
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError("got a tensor without dimensions, expected vectors or matrices; use * for numbers",
                         where="matmul")
    rows = a.unsqueeze(0) if a.ndim == 1 else a             # (k,) -> (1, k)
    columns = b.unsqueeze(1) if b.ndim == 1 else b          # (k,) -> (k, 1)
    if rows.shape[-1] != columns.shape[-2]:
        raise ShapeError(f"got {a.shape} @ {b.shape}, expected the last size of the first ({rows.shape[-1]}) to equal "
                         f"the last but one of the second ({columns.shape[-2]})", where="matmul")
    y = MatMul()(rows, columns)
    if a.ndim == 1:
        y = y.squeeze(-2)                                   # (…, 1, m) -> (…, m)
    if b.ndim == 1:
        y = y.squeeze(-1)                                   # (…, n, 1) -> (…, n)
    return y


class MatMul(Op):
    """y = a b for matrices (…, n, k) and (…, k, m), batch axes broadcast;   dL/da = g bᵀ,   dL/db = aᵀ g."""

    broadcasts = True
    dtype_rule = "same"

    def forward(self, a: Array, b: Array) -> Array:
        return a @ b                                        # (…, n, k) @ (…, k, m) -> (…, n, m)

    def backward_a(self, g: Tensor, b: Tensor) -> Tensor:
        return g @ b.mT                                     # (…, n, m) @ (…, m, k) -> (…, n, k)

    def backward_b(self, g: Tensor, a: Tensor) -> Tensor:
        return a.mT @ g                                     # (…, k, n) @ (…, n, m) -> (…, k, m)


class Linear(Op):
    """y = x wᵀ + b, a dense layer;   dL/dx = g w,   dL/dw = gᵀ x,   dL/db = sum of g over the batch.

    x (…, I), w (O, I), b (O,) or None  ->  y (…, O)
    """

    dtype_rule = "same"

    def forward(self, x: Array, w: Array, b: Array | None) -> Array:
        y = x @ w.T                                         # (…, I) @ (I, O) -> (…, O)
        if b is not None:
            y += b
        return y

    def backward_x(self, g: Tensor, w: Tensor) -> Tensor:
        return g @ w                                        # (…, O) @ (O, I) -> (…, I)

    def backward_w(self, g: Tensor, x: Tensor) -> Tensor:
        rows_g = g.reshape(-1, g.shape[-1])                 # (…, O) -> (N, O)
        rows_x = x.reshape(-1, x.shape[-1])                 # (…, I) -> (N, I)
        return rows_g.mT @ rows_x                           # (O, N) @ (N, I) -> (O, I)

    def backward_b(self, g: Tensor) -> Tensor:
        return g.reshape(-1, g.shape[-1]).sum(0)            # (…, O) -> (N, O) -> (O,)
