"""Activation functions, and the softmax that turns scores into probabilities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minidl import kernels
from minidl.backend import Array, backend_of, xp_of
from minidl.graph import Op
from minidl.ops.elementwise import Where

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class ReLU(Op):
    """y = max(x, 0);   dL/dx = 0 where y <= 0 (also at the kink x = 0), else g."""

    def forward(self, x: Array) -> Array:
        if passes := kernels.passes_for(x):
            return passes.relu(x)
        return xp_of(x).maximum(x, 0)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return ReLUGrad()(g, y)


class ReLUGrad(Op):
    """y = 0 where z, the output of a ReLU, is 0, and d elsewhere;   dL/dd = the same, of g."""

    def forward(self, d: Array, z: Array) -> Array:
        if passes := kernels.passes_for(d, z):
            return passes.relu_grad(d, z)
        return xp_of(d).where(z <= 0, 0, d)

    def backward_d(self, g: Tensor, z: Tensor) -> Tensor:
        return ReLUGrad()(g, z)


class LeakyReLU(Op):
    """y = x where x > 0, else slope · x;   dL/dx = g or slope · g."""

    dtype_rule = "float"

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def forward(self, x: Array) -> Array:
        return xp_of(x).where(x > 0, x, self.slope * x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return Where()(x > 0, g, g * self.slope)


class PReLU(Op):
    """y = x where x > 0, else w · x with a slope w that is learned.

    x (N, C, …), w (C, 1, …) or (1,);   dL/dx = g where x > 0, else g · w;   dL/dw = g · x where x <= 0, which the
    engine sums to the shape of w.
    """

    broadcasts = True
    dtype_rule = "same"

    def forward(self, x: Array, w: Array) -> Array:
        return xp_of(x).where(x > 0, x, w * x)

    def backward_x(self, g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return Where()(x > 0, g, g * w)

    def backward_w(self, g: Tensor, x: Tensor) -> Tensor:
        return Where()(x > 0, 0, g * x)


class ELU(Op):
    """y = x where x > 0, else α (e^x - 1);   dL/dx = g where x > 0, else g · (y + α).

    Ref: Clevert, Unterthiner, Hochreiter 2016, arXiv:1511.07289
    """

    dtype_rule = "float"

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def forward(self, x: Array) -> Array:
        return xp_of(x).where(x > 0, x, self.alpha * xp_of(x).expm1(x))

    def backward(self, g: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return Where()(x > 0, g, g * (y + self.alpha))


class GELU(Op):
    """y = x · Φ(x), with Φ(x) = (1 + erf(x/√2)) / 2, the chance that a normal draw is below x.

    dL/dx = g · (Φ(x) + x · φ(x)), with φ(x) = e^(-x²/2) / √2π.

    Ref: Hendrycks and Gimpel 2016, arXiv:1606.08415
    """

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return x * 0.5 * (1 + backend_of(x).erf(x * math.sqrt(0.5)))

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        cumulative = 0.5 * (1 + (x * math.sqrt(0.5)).erf())
        density = (-0.5 * x * x).exp() / math.sqrt(2 * math.pi)
        return g * (cumulative + x * density)


class SiLU(Op):
    """y = x · s, with s = sigmoid x;   dL/dx = g · s · (1 + x · (1 - s)). Also called swish."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return x / (1 + xp_of(x).exp(-x))

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        s = x.sigmoid()
        return g * s * (1 + x * (1 - s))


class Softplus(Op):
    """y = 1/β · log(1 + e^βx), a smooth ReLU;   dL/dx = g · sigmoid(βx)."""

    dtype_rule = "float"

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def forward(self, x: Array) -> Array:
        return xp_of(x).logaddexp(self.beta * x, 0) / self.beta              # never overflows

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (self.beta * x).sigmoid()


class HardTanh(Op):
    """y = x between `low` and `high`, else the nearer of the two;   dL/dx = g strictly between them, else 0."""

    dtype_rule = "float"

    def __init__(self, low: float, high: float) -> None:
        self.low = low
        self.high = high

    def forward(self, x: Array) -> Array:
        return xp_of(x).clip(x, self.low, self.high)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return Where()((self.low < x) & (x < self.high), g, 0)


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
        return softmax(x, self.axis)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return y * (g - (g * y).sum(self.axis, keepdim=True))


def softmax(x: Array, axis: int) -> Array:
    """The forward of Softmax, on arrays; the gradient of the cross-entropy needs it too."""
    if x.size == 0:
        return xp_of(x).zeros_like(x)                       # nothing has no largest
    e = xp_of(x).exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


class LogSoftmax(Op):
    """y = x - log(sum over j of e^x[j]) along an axis;   dL/dx = g - e^y · sum over j of g[j].

    The logarithm is m + log(sum of e^(x - m)), with m the largest x: exact for scores of any size.
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
