"""Matrix products."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minidl.backend import Array, xp_of
from minidl.errors import ShapeError
from minidl.graph import BroadcastTo, Op
from minidl.kernels import dense

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
        return dense.matmul(a, b)                           # (…, n, k) @ (…, k, m) -> (…, n, m)

    def backward_a(self, g: Tensor, b: Tensor) -> Tensor:
        return g @ b.mT                                     # (…, n, m) @ (…, m, k) -> (…, n, k)

    def backward_b(self, g: Tensor, a: Tensor) -> Tensor:
        return a.mT @ g                                     # (…, k, n) @ (…, n, m) -> (…, k, m)


class Einsum(Op):
    """y[output] = sum over the letters that are not in the output of  the product of all x_k[its letters].

    "nd,md->nm" is y[n,m] = sum over d of a[n,d] · b[m,d]. Each gradient is an Einsum again: the letters of x_k are the
    output, and g with its letters takes the place of x_k. Letters that only x_k has were summed there, so its gradient
    is the same number along them.
    """

    dtype_rule = "same"

    def __init__(self, letters: list[str], output: str) -> None:
        self.letters = letters                              # one string an input, each letter at most once in it
        self.output = output

    def forward(self, *xs: Array) -> Array:
        self.size = {letter: n for letters, x in zip(self.letters, xs, strict=True)
                     for letter, n in zip(letters, x.shape, strict=True)}
        return xp_of(xs[0]).einsum(f"{','.join(self.letters)}->{self.output}", *xs, optimize=len(xs) > 1)

    def backward(self, g: Tensor, *xs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._gradient(k, g, xs) for k in range(len(xs)))

    def _gradient(self, k: int, g: Tensor, xs: tuple[Tensor, ...]) -> Tensor:
        others = [letters for i, letters in enumerate(self.letters) if i != k]
        wanted = self.letters[k]
        reached = "".join(letter for letter in wanted if letter in "".join([self.output, *others]))
        summed = Einsum([self.output, *others], reached)(g, *xs[:k], *xs[k + 1:])
        with_ones = tuple(self.size[letter] if letter in reached else 1 for letter in wanted)
        return BroadcastTo(tuple(self.size[letter] for letter in wanted))(summed.reshape(with_ones))


class Linear(Op):
    """y = x wᵀ + b, a dense layer;   dL/dx = g w,   dL/dw = gᵀ x over the batch,   dL/db = sum of g over the batch.

    x (…, I), w (O, I), b (O,) or None  ->  y (…, O)
    """

    dtype_rule = "same"

    def forward(self, x: Array, w: Array, b: Array | None) -> Array:
        return dense.matmul(x, w.T, bias=b)                 # (…, I) @ (I, O) -> (…, O)

    def backward_x(self, g: Tensor, w: Tensor) -> Tensor:
        return g @ w                                        # (…, O) @ (O, I) -> (…, I)

    def backward_w(self, g: Tensor, x: Tensor) -> Tensor:
        return SumOfOuterProducts()(g, x)

    def backward_b(self, g: Tensor) -> Tensor:
        return g.sum(tuple(range(g.ndim - 1))) if g.ndim > 1 else g         # (…, O) -> (O,)


class SumOfOuterProducts(Op):
    """y[o, i] = sum over n of a[n, o] · b[n, i], which is y = aᵀ b;   dL/da = b gᵀ,   dL/db = a g.

    a (…, O), b (…, I) with the same axes in front, over all of which n runs  ->  y (O, I)
    """

    dtype_rule = "same"

    def forward(self, a: Array, b: Array) -> Array:
        n = math.prod(a.shape[:-1])
        return dense.matmul(a.reshape(n, a.shape[-1]).T, b.reshape(n, b.shape[-1]))     # (O, N) @ (N, I) -> (O, I)

    def backward_a(self, g: Tensor, b: Tensor) -> Tensor:
        return b @ g.mT                                     # (…, I) @ (I, O) -> (…, O)

    def backward_b(self, g: Tensor, a: Tensor) -> Tensor:
        return a @ g                                        # (…, O) @ (O, I) -> (…, I)
