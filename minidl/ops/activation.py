"""Activation functions, and the softmax that turns scores into probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidl.backend import Array, xp_of
from minidl.graph import Op
from minidl.ops.elementwise import Where

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class ReLU(Op):
    """y = max(x, 0);   dL/dx = 0 where y <= 0 (also at the kink x = 0), else g."""

    def forward(self, x: Array) -> Array:
        return xp_of(x).maximum(x, 0)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return Where()(y <= 0, 0, g)


class Tanh(Op):
    """y = tanh x;   dL/dx = g · (1 - y²)."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).tanh(x)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return g * (1 - y * y)


class Sigmoid(Op):
    """y = 1 / (1 + e^-x);   dL/dx = g · y · (1 - y), at most g/4.

    For very negative x the exponential overflows to inf, and 1/inf = 0 is the right answer.
    """

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return 1 / (1 + xp_of(x).exp(-x))

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return g * y * (1 - y)


class Softmax(Op):
    """y[i] = e^x[i] / sum over j of e^x[j] along an axis;   dL/dx = y · (g - sum over j of g[j] y[j]).

    The largest x is subtracted first: that changes nothing but keeps e^x from overflowing.
    """

    dtype_rule = "float"

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        if x.size == 0:
            return xp_of(x).zeros_like(x)                   # nothing has no largest
        e = xp_of(x).exp(x - x.max(axis=self.axis, keepdims=True))
        return e / e.sum(axis=self.axis, keepdims=True)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return y * (g - (g * y).sum(self.axis, keepdim=True))


class LogSoftmax(Op):
    """y = x - log(sum over j of e^x[j]) along an axis;   dL/dx = g - e^y · sum over j of g[j].

    With m the largest x, the sum is m + log(sum of e^(x - m)): exact for scores of any size.
    """

    dtype_rule = "float"

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        return log_softmax(x, self.axis)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return g - y.exp() * g.sum(self.axis, keepdim=True)


def log_softmax(x: Array, axis: int) -> Array:
    """The forward of LogSoftmax, on arrays; the cross-entropy needs it too."""
    xp = xp_of(x)
    if x.size == 0:
        return xp.zeros_like(x)                             # nothing has no largest
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))
