"""Pooling: a window moves over each channel and leaves one number per position, the largest or the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidl import kernels
from minidl.backend import Array
from minidl.graph import Op
from minidl.kernels.geometry import Pair, Pool2dGeometry
from minidl.ops.index import Gather

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class MaxPool2d(Op):
    """y = the largest number in each window;   dL/dx = g at the cell it came from (the first of equals), else 0.

    x (N, C, H, W)  ->  y (N, C, OH, OW). Kept: `indices`, row · W + column of each window's largest cell.
    """

    def __init__(self, geometry: Pool2dGeometry) -> None:
        self.geometry = geometry

    def forward(self, x: Array) -> Array:
        y, indices = kernels.active(x).max_pool2d(x, self.geometry)
        self.keep(indices=indices)
        return y

    def backward(self, g: Tensor, indices: Tensor) -> Tensor:
        return MaxPool2dInputGrad(self.geometry)(g, indices)


class MaxPool2dInputGrad(Op):
    """Puts d (N, C, OH, OW) back to where the largest cells were, (N, C, H, W);   dL/dd = g at those cells."""

    def __init__(self, geometry: Pool2dGeometry) -> None:
        self.geometry = geometry

    def forward(self, d: Array, indices: Array) -> Array:
        return kernels.active(d).max_pool2d_input_grad(d, indices, self.geometry)

    def backward_d(self, g: Tensor, indices: Tensor) -> Tensor:
        picked = Gather(2)(g.flatten(2), indices.flatten(2))      # (N, C, H*W) at (N, C, OH*OW) -> (N, C, OH*OW)
        return picked.reshape(indices.shape)                      # (N, C, OH, OW)


class AvgPool2d(Op):
    """y = the mean of each window;   dL/dx = each window's g, shared out evenly over its cells.

    x (N, C, H, W)  ->  y (N, C, OH, OW)
    """

    dtype_rule = "same"

    def __init__(self, geometry: Pool2dGeometry) -> None:
        self.geometry = geometry

    def forward(self, x: Array) -> Array:
        return kernels.active(x).avg_pool2d(x, self.geometry)

    def backward(self, g: Tensor) -> Tensor:
        return AvgPool2dInputGrad(self.geometry)(g)


class Repeat2d(Op):
    """y[.., i, j] = x[.., i // r, j // s]: each cell r times down and s times across ("nearest" upsampling).

    x (N, C, H, W)  ->  y (N, C, H·r, W·s);   dL/dx = the sum of g over the copies of each cell.
    """

    def __init__(self, factors: Pair) -> None:
        self.factors = factors

    def forward(self, x: Array) -> Array:
        return kernels.active(x).repeat2d(x, self.factors)

    def backward(self, g: Tensor) -> Tensor:
        return Repeat2dInputGrad(self.factors)(g)


class Repeat2dInputGrad(Op):
    """The transpose of Repeat2d, d (N, C, H·r, W·s) -> y (N, C, H, W); its own derivative is Repeat2d."""

    dtype_rule = "same"

    def __init__(self, factors: Pair) -> None:
        self.factors = factors

    def forward(self, d: Array) -> Array:
        return kernels.active(d).repeat2d_input_grad(d, self.factors)

    def backward(self, g: Tensor) -> Tensor:
        return Repeat2d(self.factors)(g)


class AvgPool2dInputGrad(Op):
    """The transpose of AvgPool2d, d (N, C, OH, OW) -> y (N, C, H, W); its own derivative is AvgPool2d."""

    dtype_rule = "same"

    def __init__(self, geometry: Pool2dGeometry) -> None:
        self.geometry = geometry

    def forward(self, d: Array) -> Array:
        return kernels.active(d).avg_pool2d_input_grad(d, self.geometry)

    def backward(self, g: Tensor) -> Tensor:
        return AvgPool2d(self.geometry)(g)
