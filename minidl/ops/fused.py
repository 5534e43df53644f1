"""A convolution with the layers after it as one op: less memory is written, and less is kept for backward."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from minidl import dtypes
from minidl.backend import Array
from minidl.graph import Op, new_tensor
from minidl.kernels import fused
from minidl.kernels.fused import Kept, Stages
from minidl.kernels.geometry import Conv2dGeometry
from minidl.ops.conv import Conv2dInputGrad, Conv2dWeightGrad

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class FusedConv2d(Op):
    """y = stages(z) with z = conv(x, w) + b; the stages are a ReLU and a pooling or repeating, in either order.

    x (N, C, H, W), w (O, C/groups, KH, KW), b (O,) or None  ->  y (N, O, rows, columns)

    With G = dL/dz, the gradient where the convolution alone would end, the rest is that of a convolution:

    dL/dx = Conv2dInputGrad(G, w)     dL/dw = Conv2dWeightGrad(x, G)     dL/db = sum over n,i,j of G[n,o,i,j]

    z is never kept, and G is computed from masks and indices (see `minidl.kernels.fused`) that the graph does not know:
    it can be differentiated only once.
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
        return Conv2dInputGrad(self.geometry)(way_back.to_convolution(g), w)

    def backward_w(self, g: Tensor, x: Tensor, way_back: WayBack) -> Tensor:
        return Conv2dWeightGrad(self.geometry)(x, way_back.to_convolution(g))

    def backward_b(self, g: Tensor, way_back: WayBack) -> Tensor:
        return way_back.to_convolution(g).sum((0, 2, 3))    # (N, O, OH, OW) -> (O,)


class WayBack:
    """From dL/dy to G = dL/dz. Three gradients need G, so it stays until the g that it was computed from is gone.

    The engine lets go of g when it is done with the op, so G lives no longer than in a graph of separate layers.
    """

    def __init__(self, kept: Kept, geometry: Conv2dGeometry, stages: Stages) -> None:
        self.kept, self.geometry, self.stages = kept, geometry, stages
        self._last: tuple[weakref.ref[Tensor], int, Tensor] | None = None       # g, its version, and G

    def to_convolution(self, g: Tensor) -> Tensor:
        """G (N, O, OH, OW), computed once for the same g."""
        last = self._last
        if last is not None and last[0]() is g and last[1] == g.version.count:
            return last[2]
        result = new_tensor(self._computed(g.array))
        self._last = (weakref.ref(g, _forgetting(self)), g.version.count, result)
        return result

    def _computed(self, g: Array) -> Array:
        if g.dtype == dtypes.float16:                       # forward computed in float32 too
            wide = fused.output_gradient(g.astype(dtypes.float32), self.kept, self.geometry, self.stages)
            return wide.astype(dtypes.float16)
        return fused.output_gradient(g, self.kept, self.geometry, self.stages)

    def forget(self, g: weakref.ref[Tensor]) -> None:
        """Drop the G of this g."""
        if self._last is not None and self._last[0] is g:
            self._last = None

    def __repr__(self) -> str:
        return f"WayBack({self.stages}, {self.kept})"


def _forgetting(way_back: WayBack) -> Callable[[weakref.ref[Tensor]], None]:
    """What is called when g is gone. It knows the WayBack weakly: with a cycle, G would wait for the collector."""
    weakly = weakref.ref(way_back)

    def forget(g: weakref.ref[Tensor]) -> None:
        alive = weakly()
        if alive is not None:
            alive.forget(g)
    return forget
