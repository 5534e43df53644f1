"""Normalization: the numbers of a group shifted and scaled to mean 0 and variance 1.

Batch, layer, group and instance norm are this one op; they differ in which numbers form a group, that is, in `axes`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minidl import kernels
from minidl.backend import Array, backend_of, xp_of
from minidl.errors import ShapeError
from minidl.graph import Op
from minidl.kernels.layout import rows_of_channels

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Normalize(Op):
    """y = (x - μ) / σ, with the mean μ and σ = √(variance + ε), both taken over `axes`.

    dL/dx = (g - mean of g - y · mean of g·y) / σ

    because every x moves μ (the second term) and σ (the third). After forward the op holds `mean` and `variance`, with
    the axes as axes of size 1, for the running averages of batch-norm.

    Ref: Ioffe and Szegedy 2015, arXiv:1502.03167
    """

    dtype_rule = "same"

    def __init__(self, axes: tuple[int, ...], eps: float) -> None:
        self.axes = axes
        self.eps = eps

    def forward(self, x: Array) -> Array:
        add_up, n = backend_of(x).sum, math.prod(x.shape[axis] for axis in self.axes)
        self.mean = add_up(x, self.axes, True) / n                           # (1, C, 1, 1) for axes (0, 2, 3)
        centred = x - self.mean
        self.variance = add_up(centred * centred, self.axes, True) / n
        return centred / xp_of(x).sqrt(self.variance + self.eps)

    def backward(self, g: Tensor, x: Tensor, y: Tensor) -> Tensor:
        sigma = (x.var(self.axes, correction=0, keepdim=True) + self.eps).sqrt()
        mean_g = g.mean(self.axes, keepdim=True)
        mean_gy = (g * y).mean(self.axes, keepdim=True)
        return (g - mean_g - y * mean_gy) / sigma


class ScaleShift(Op):
    """y[n, c, …] = s[c] · x[n, c, …] + t[c]: what batch-norm is once its mean and variance are fixed numbers.

    x (N, C, …), s (C,), t (C,) or None;   dL/dx = s · g,   dL/ds = sum over all but c of g·x,   dL/dt = that of g
    """

    dtype_rule = "same"

    def forward(self, x: Array, s: Array, t: Array | None = None) -> Array:
        if x.ndim < 2 or any(v is not None and v.shape != x.shape[1:2] for v in (s, t)):
            given = ", ".join(f"{v.shape}" for v in (s, t) if v is not None)
            raise ShapeError(f"got x {x.shape} with {given}, expected (N, C, …) with a number for each channel",
                             where="ScaleShift")
        rows = rows_of_channels(x, (0, *range(2, x.ndim)))
        if rows is not None and (passes := kernels.passes_for(rows)):
            y = passes.scale_shift(rows, s, t)                               # (N*H*W, C)
            n, _, *size = x.shape
            return y.reshape(n, *size, -1).transpose(0, 3, 1, 2) if size else y              # (N, C, H, W)
        per_channel = (1, len(s)) + (1,) * (x.ndim - 2)                          # (C,) -> (1, C, 1, 1)
        y = x * s.reshape(per_channel)
        return y if t is None else y + t.reshape(per_channel)

    def backward_x(self, g: Tensor, s: Tensor) -> Tensor:
        return ScaleShift()(g, s)

    def backward_s(self, g: Tensor, x: Tensor) -> Tensor:
        return (g * x).sum((0, *range(2, x.ndim)))

    def backward_t(self, g: Tensor) -> Tensor:
        return g.sum((0, *range(2, g.ndim)))
