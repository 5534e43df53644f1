"""Loss functions that are one op because the composed form would lose precision."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minidl import kernels
from minidl.backend import Array, backend_of, xp_of
from minidl.graph import Op
from minidl.ops.activation import log_softmax, softmax
from minidl.ops.index import along_axis

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class MeanSquaredError(Op):
    """y = 1/n · sum over i of (x[i] - t[i])²;   dL/dx = 2 g / n · (x - t),   dL/dt = -dL/dx.

    x and t of one shape with n numbers  ->  y, a single number
    """

    dtype_rule = "same"

    def forward(self, x: Array, t: Array) -> Array:
        if passes := kernels.passes_for(x, t):
            return passes.mean_squared_error(x, t)
        d = x - t
        return backend_of(x).sum(d * d, None, False) / d.size if d.size else d.sum() * math.nan    # of nothing: nan

    def backward_x(self, g: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return ScaledDifference(2 / x.numel())(x, t, g)

    def backward_t(self, g: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return ScaledDifference(2 / x.numel())(t, x, g)


class ScaledDifference(Op):
    """y = k s · (a - b) for a constant k and a single number s;   dL/da = k s g,   dL/db = -k s g,

    dL/ds = k · sum of g · (a - b).
    """

    dtype_rule = "same"

    def __init__(self, k: float) -> None:
        self.k = k

    def forward(self, a: Array, b: Array, s: Array) -> Array:
        scale = s * self.k
        if passes := kernels.passes_for(a, b):
            return passes.scaled_difference(a, b, scale)
        return (a - b) * scale

    def backward_a(self, g: Tensor, s: Tensor) -> Tensor:
        return g * (s * self.k)

    def backward_b(self, g: Tensor, s: Tensor) -> Tensor:
        return g * (s * -self.k)

    def backward_s(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (g * (a - b)).sum() * self.k


class CrossEntropy(Op):
    """L[n] = - sum over c of  q[n,c] · log p[n,c],  with p = softmax(z) along axis 1 and q the wanted probabilities.

    z (N, C, …), q (N, C, …)  ->  L (N, …)

    dL/dz = g · (p · (sum over c of q) - q), g · (p - q) for probabilities: what was said minus what is true.
    dL/dq = -g · log p

    Softmax, logarithm and sum in one op stay exact for scores of any size: log p is z - logsumexp(z), never log(0).
    """

    dtype_rule = "same"

    def forward(self, z: Array, q: Array) -> Array:
        log_p = log_softmax(z, axis=1)
        # where q is 0 a class does not count, even if its log p is -inf
        return -xp_of(z).where(q == 0, 0, q * log_p).sum(axis=1)            # (N, C, …) -> (N, …)

    def backward_z(self, g: Tensor, z: Tensor, q: Tensor) -> Tensor:
        return CrossEntropyGrad()(g, z, q)

    def backward_q(self, g: Tensor, z: Tensor) -> Tensor:
        return -z.log_softmax(1) * g.unsqueeze(1)                           # g (N, …) -> (N, 1, …)


class CrossEntropyGrad(Op):
    """y = d · (p · Q - q),  with p = softmax(z) along axis 1 and Q = sum over c of q: what a CrossEntropy sends to z.

    d (N, …), z (N, C, …), q (N, C, …)  ->  y (N, C, …)

    With <g, p> for the sum over c of g · p:

    dL/dd = <g, p · Q - q>        dL/dz = d · Q · p · (g - <g, p>)        dL/dq = d · (<g, p> - g)
    """

    dtype_rule = "same"

    def forward(self, d: Array, z: Array, q: Array) -> Array:
        p = softmax(z, 1)
        return (p * q.sum(axis=1, keepdims=True) - q) * d[:, None]          # d (N, …) -> (N, 1, …)

    def backward_d(self, g: Tensor, z: Tensor, q: Tensor) -> Tensor:
        return (g * (z.softmax(1) * q.sum(1, keepdim=True) - q)).sum(1)

    def backward_z(self, g: Tensor, d: Tensor, z: Tensor, q: Tensor) -> Tensor:
        p = z.softmax(1)
        from_mean = g - (g * p).sum(1, keepdim=True)
        return d.unsqueeze(1) * q.sum(1, keepdim=True) * p * from_mean

    def backward_q(self, g: Tensor, d: Tensor, z: Tensor) -> Tensor:
        return d.unsqueeze(1) * ((g * z.softmax(1)).sum(1, keepdim=True) - g)


class LabelCrossEntropy(Op):
    """y = the mean over n of  -log p[n, label[n]],  with p = softmax(z) along axis 1.

    This is the mean of `CrossEntropy` where each sample is of one class and all of them count alike.

    z (N, C, …), labels (N, …) of integers  ->  y, a single number

    dL/dz[n, c] = g / N · (p[n, c] - 1 if c is label[n], else p[n, c])
    """

    def forward(self, z: Array, labels: Array) -> Array:
        log_p = log_softmax(z, axis=1)
        right = log_p[along_axis(log_p, labels[:, None], 1)]                # (N, C, …) at (N, 1, …) -> (N, 1, …)
        return backend_of(z).sum(right, None, False) / -right.size if right.size else right.sum() * math.nan

    def backward_z(self, g: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        return LabelCrossEntropyGrad()(g, z, labels)


class LabelCrossEntropyGrad(Op):
    """y = d / N · (p - e), with p = softmax(z) along axis 1 and e = 1 at the labels: what LabelCrossEntropy sends to z.

    d, a single number, z (N, C, …), labels (N, …)  ->  y (N, C, …)

    With <g, p> for the sum over c of g · p:

    dL/dd = 1 / N · sum of g · (p - e)        dL/dz = d / N · p · (g - <g, p>)
    """

    def forward(self, d: Array, z: Array, labels: Array) -> Array:
        y = softmax(z, 1)
        y[along_axis(y, labels[:, None], 1)] -= 1
        y *= d / labels.size
        return y

    def backward_d(self, g: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        right = g.gather(1, labels.long().unsqueeze(1))                     # (N, C, …) at (N, 1, …)
        return ((g * z.softmax(1)).sum() - right.sum()) / labels.numel()

    def backward_z(self, g: Tensor, d: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        p = z.softmax(1)
        return d / labels.numel() * p * (g - (g * p).sum(1, keepdim=True))


class BCE(Op):
    """L = -(t · log p + (1 - t) · log(1 - p)) of a probability p and a target t, both between 0 and 1.

    dL/dp = g · (p - t) / (p · (1 - p));   dL/dt = g · log((1 - p) / p)

    Logarithms end at -100 and the divisor at 1e-12, so that a p of exactly 0 or 1 stays finite (as in PyTorch).
    `BCEWithLogitsLoss`, which takes scores, needs neither.
    """

    dtype_rule = "same"

    def forward(self, p: Array, t: Array) -> Array:
        xp = xp_of(p)
        return -(t * xp.maximum(xp.log(p), -100) + (1 - t) * xp.maximum(xp.log1p(-p), -100))

    def backward_p(self, g: Tensor, p: Tensor, t: Tensor) -> Tensor:
        return g * (p - t) / (p * (1 - p)).clamp(min=1e-12)

    def backward_t(self, g: Tensor, p: Tensor) -> Tensor:
        return g * ((-p).log1p().clamp(min=-100) - p.log().clamp(min=-100))
