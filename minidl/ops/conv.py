"""Convolution: three ops that are each other's derivatives.

With y = conv(x, w), the loss depends on x through  sum of g · conv(x, w), which is linear in x and in w. So each
derivative is again one of the three, and so are the derivatives of the derivatives:

    Conv2d(x, w)               dx: Conv2dInputGrad(g, w)     dw: Conv2dWeightGrad(x, g)
    Conv2dInputGrad(d, w)      dd: Conv2d(g, w)              dw: Conv2dWeightGrad(g, d)
    Conv2dWeightGrad(x, d)     dx: Conv2dInputGrad(d, g)     dd: Conv2d(x, g)

Ref: Dumoulin and Visin 2016, arXiv:1603.07285
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidl import kernels
from minidl.backend import Array
from minidl.graph import Op
from minidl.kernels.geometry import Conv2dGeometry

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Conv2d(Op):
    """Cross-correlation, which every deep-learning library calls convolution.

    x (N, C, H, W), w (O, C/groups, KH, KW), b (O,) or None  ->  y (N, O, OH, OW)

    y[n,o,i,j] = b[o] + sum over c,u,v of  x[n, c, i*s + u*d - p, j*s + v*d - p] · w[o,c,u,v]

    (stride s, dilation d, padding p; cells outside of the image count as 0)
    """

    dtype_rule = "same"

    def __init__(self, geometry: Conv2dGeometry) -> None:
        self.geometry = geometry

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        return kernels.active(x).conv2d(x, w, self.geometry, bias=b)

    def backward_x(self, g: Tensor, w: Tensor) -> Tensor:
        return Conv2dInputGrad(self.geometry)(g, w)

    def backward_w(self, g: Tensor, x: Tensor) -> Tensor:
        return Conv2dWeightGrad(self.geometry)(x, g)

    def backward_b(self, g: Tensor) -> Tensor:
        return g.sum((0, 2, 3))                             # (N, O, OH, OW) -> (O,)


class Conv2dInputGrad(Op):
    """The derivative of Conv2d with respect to its images; it is the transposed convolution.

    d (N, O, OH, OW), w (O, C/groups, KH, KW)  ->  y (N, C, H, W)

    y[n, c, i*s + u*d - p, j*s + v*d - p]  +=  d[n,o,i,j] · w[o,c,u,v]   for all o,i,j,u,v
    """

    dtype_rule = "same"

    def __init__(self, geometry: Conv2dGeometry) -> None:
        self.geometry = geometry

    def forward(self, d: Array, w: Array) -> Array:
        return kernels.active(d).conv2d_input_grad(d, w, self.geometry)

    def backward_d(self, g: Tensor, w: Tensor) -> Tensor:
        return Conv2d(self.geometry)(g, w)

    def backward_w(self, g: Tensor, d: Tensor) -> Tensor:
        return Conv2dWeightGrad(self.geometry)(g, d)


class Conv2dWeightGrad(Op):
    """The derivative of Conv2d with respect to its weights.

    x (N, C, H, W), d (N, O, OH, OW)  ->  y (O, C/groups, KH, KW)

    y[o,c,u,v] = sum over n,i,j of  x[n, c, i*s + u*d - p, j*s + v*d - p] · d[n,o,i,j]
    """

    dtype_rule = "same"

    def __init__(self, geometry: Conv2dGeometry) -> None:
        self.geometry = geometry

    def forward(self, x: Array, d: Array) -> Array:
        return kernels.active(x).conv2d_weight_grad(x, d, self.geometry)

    def backward_x(self, g: Tensor, d: Tensor) -> Tensor:
        return Conv2dInputGrad(self.geometry)(d, g)

    def backward_d(self, g: Tensor, x: Tensor) -> Tensor:
        return Conv2d(self.geometry)(x, g)
