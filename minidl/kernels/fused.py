"""A convolution and the layers after it in one go, and the way back through these layers.

    z = conv(x, w) + b          (N, O, OH, OW)
    y = the stages of z, in order: ReLU, pooling, ReLU, repeating cells; each is there or not

Nobody but the next stage reads what a stage leaves, so the ReLU works in place and z is gone when y is there. The way
back needs no numbers of z, only which cells the ReLU set to 0 and which cells a max pooling took: that is `Kept`. With
G = dL/dz, where the stages end on the way back, the gradients of x, w and b are those of the convolution alone.

The functions here take the stages one after the other, with the functions of the kernel set in use. They are the
definition of what fused_simd.py does image by image, while z and G are still in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from minidl.backend import Array, backend_of, xp_of
from minidl.kernels import active, kernel_module
from minidl.kernels.geometry import Conv2dGeometry, Pair, Pool2dGeometry
from minidl.kernels.threads import get_num_threads


@dataclass(frozen=True)
class Stages:
    """What follows a convolution: at most one ReLU, and at most one of pooling and repeating cells."""

    relu: bool = False
    relu_last: bool = False                         # whether the ReLU comes after the pooling or repeating
    pooling: Literal["max", "avg"] | None = None
    window: Pool2dGeometry | None = None            # of the pooling
    repeat: Pair = (1, 1)                           # how often each cell is repeated: (down, across)

    @property
    def relu_before_pooling(self) -> bool:
        """Whether the ReLU has to work on z itself.

        The largest of the positive parts is the positive part of the largest, so a ReLU before a max pooling may as
        well come after it, where there are fewer cells. For the same reason it always comes before repeating.
        """
        return self.relu and (self.pooling is None or (self.pooling == "avg" and not self.relu_last))

    @property
    def relu_after_pooling(self) -> bool:
        """Whether the ReLU works on what the pooling leaves."""
        return self.relu and not self.relu_before_pooling


@dataclass(frozen=True, eq=False)
class Kept:
    """What the way back needs."""

    blocked: Array | None = None                    # where the ReLU gave 0, as bools in the shape that it worked on
    indices: Array | None = None                    # which cells a max pooling took, as `max_pool2d` says it


def forward(x: Array, w: Array, b: Array | None, geometry: Conv2dGeometry, stages: Stages) -> tuple[Array, Kept]:
    """x (N, C, H, W), w (O, C/groups, KH, KW), b (O,) or None -> y (N, O, rows, columns), and what is kept."""
    if _is_fast(x, w, b):
        return _compiled().forward(x, w, b, geometry, stages)  # type: ignore[no-any-return]
    kernel, blocked, indices = active(x), None, None
    y = kernel.conv2d(x, w, geometry, bias=b)                                # (N, O, OH, OW)
    if stages.relu_before_pooling:
        blocked = _relu_in_place(y)
    if stages.pooling == "max":
        y, indices = kernel.max_pool2d(y, stages.window)
    elif stages.pooling == "avg":
        y = kernel.avg_pool2d(y, stages.window)
    if stages.relu_after_pooling:
        blocked = _relu_in_place(y)
    if stages.repeat != (1, 1):
        y = kernel.repeat2d(y, stages.repeat)
    return y, Kept(blocked, indices)


def input_grad(g: Array, w: Array, kept: Kept, geometry: Conv2dGeometry, stages: Stages) -> Array:
    """g = dL/dy in the shape of y, w (O, C/groups, KH, KW) -> dL/dx (N, C, H, W)."""
    if _is_fast(g, w) and geometry.stride == (1, 1):
        return _compiled().input_grad(g, w, kept, geometry, stages)
    return active(g).conv2d_input_grad(gradient_of_z(g, kept, stages), w, geometry)


def weight_grad(x: Array, g: Array, kept: Kept, geometry: Conv2dGeometry, stages: Stages) -> tuple[Array, Array]:
    """x (N, C, H, W), g = dL/dy in the shape of y -> dL/dw (O, C/groups, KH, KW) and dL/db (O,)."""
    if _is_fast(x, g):
        return _compiled().weight_grad(x, g, kept, geometry, stages)  # type: ignore[no-any-return]
    dz = gradient_of_z(g, kept, stages)
    return active(g).conv2d_weight_grad(x, dz, geometry), bias_grad(dz)


def bias_grad(dz: Array) -> Array:
    """dL/dz (N, O, OH, OW) -> dL/db (O,)."""
    return backend_of(dz).sum(dz, (0, 2, 3), False)


def gradient_of_z(g: Array, kept: Kept, stages: Stages) -> Array:
    """G: dL/dy in the shape of y -> dL/dz (N, O, OH, OW). The stages in reverse; g itself is not written to."""
    xp, kernel = xp_of(g), active(g)
    if stages.repeat != (1, 1):
        g = kernel.repeat2d_input_grad(g, stages.repeat)
    if stages.relu_after_pooling:
        g = xp.where(kept.blocked, 0, g)
    if stages.pooling == "max":
        g = kernel.max_pool2d_input_grad(g, kept.indices, stages.window)
    elif stages.pooling == "avg":
        g = kernel.avg_pool2d_input_grad(g, stages.window)
    if stages.relu_before_pooling:
        g = xp.where(kept.blocked, 0, g)
    return g


def _is_fast(x: Array, *others: Array | None) -> bool:
    """Whether `fused_simd` does it: where the simd kernels work, for float32, and if each thread gets an image."""
    return (active(x).__name__ == "minidl.kernels.simd" and len(x) >= get_num_threads()
            and all(array is None or array.dtype == "float32" for array in (x, *others)))


def _compiled() -> ModuleType:
    return kernel_module("fused_simd")


def _relu_in_place(z: Array) -> Array:
    """z becomes max(z, 0); returns where that is 0, and so is the derivative."""
    xp_of(z).maximum(z, 0, out=z)
    return z <= 0
