"""A convolution with the layers after it as one op: less memory is written, and less is kept for backward."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from minidl import dtypes
from minidl.backend import Array, quiet
from minidl.graph import Op, new_tensor
from minidl.kernels import fused
from minidl.kernels.fused import Kept, Stages
from minidl.kernels.geometry import Conv2dGeometry

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class FusedConv2d(Op):
    """y = stages(z) with z = conv(x, w) + b; the stages are a ReLU and a pooling or repeating, in either order.

    x (N, C, H, W), w (O, C/groups, KH, KW), b (O,) or None  ->  y (N, O, rows, columns)

    With G = dL/dz, the gradient where the convolution alone would end, the rest is that of a convolution:

    dL/dx = Conv2dInputGrad(G, w)     dL/dw = Conv2dWeightGrad(x, G)     dL/db = sum over n,i,j of G[n,o,i,j]

    z is never kept. G follows from masks and indices, image by image (see `minidl.kernels.fused`). The graph knows
    nothing of either, so the op can be differentiated only once.
    """

    dtype_rule = "same"
    once_differentiable = True

    def __init__(self, geometry: Conv2dGeometry, stages: Stages) -> None:
        self.geometry = geometry
        self.stages = stages

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        y, kept = fused.forward(x, w, b, self.geometry, self.stages)
        self.keep(way_back=WayBack(kept, self.geometry, self.stages))
        return y

    def backward_x(self, g: Tensor, w: Tensor, way_back: WayBack) -> Tensor:
        return way_back.input_grad(g, w)

    def backward_w(self, g: Tensor, x: Tensor, way_back: WayBack) -> Tensor:
        return way_back.weight_grad(g, x)

    def backward_b(self, g: Tensor, way_back: WayBack) -> Tensor:
        return way_back.bias_grad(g)


class WayBack:
    """The gradients by way of G, each from the g = dL/dy that came in.

    Whoever computes the gradient of w has that of b too, for next to nothing; it stays here until b asks for it.
    """

    def __init__(self, kept: Kept, geometry: Conv2dGeometry, stages: Stages) -> None:
        self.kept, self.geometry, self.stages = kept, geometry, stages
        self._for_b: tuple[weakref.ref[Tensor], int, Array] | None = None       # g, its version, and dL/db

    def input_grad(self, g: Tensor, w: Tensor) -> Tensor:
        """dL/dx (N, C, H, W)."""
        with quiet():
            return _of_type(g, fused.input_grad(_wide(g), _wide(w), self.kept, self.geometry, self.stages))

    def weight_grad(self, g: Tensor, x: Tensor) -> Tensor:
        """dL/dw (O, C/groups, KH, KW)."""
        with quiet():
            dw, db = fused.weight_grad(_wide(x), _wide(g), self.kept, self.geometry, self.stages)
        self._for_b = weakref.ref(g), g.version.count, db
        return _of_type(g, dw)

    def bias_grad(self, g: Tensor) -> Tensor:
        """dL/db (O,)."""
        waiting, self._for_b = self._for_b, None
        if waiting is not None and waiting[0]() is g and waiting[1] == g.version.count:
            return _of_type(g, waiting[2])
        with quiet():
            return _of_type(g, fused.bias_grad(fused.gradient_of_z(_wide(g), self.kept, self.stages)))

    def __repr__(self) -> str:
        return f"WayBack({self.stages}, {self.kept})"


def _wide(x: Tensor) -> Array:
    """The array; float16 as float32, in which forward computed too."""
    return x.array.astype(dtypes.float32) if x.array.dtype == dtypes.float16 else x.array


def _of_type(g: Tensor, gradient: Array) -> Tensor:
    return new_tensor(gradient.astype(g.array.dtype, copy=False))
