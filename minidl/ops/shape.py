"""Operations that only rearrange: the same numbers in another shape or order. Their gradients undo the rearranging."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minidl.backend import Array, xp_of
from minidl.errors import ShapeError
from minidl.graph import Op
from minidl.kernels.layout import channels_last, in_a_row, in_c_order

if TYPE_CHECKING:
    from minidl.tensors import Tensor


def full_shape(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    """A requested shape with its -1 worked out; checks that it holds exactly `size` elements."""
    if not all(hasattr(n, "__index__") for n in shape):
        raise ShapeError(f"got the shape {shape}, expected integers", where="reshape")
    if any(n < -1 for n in shape) or shape.count(-1) > 1:
        raise ShapeError(f"got the shape {shape}, expected sizes of 0 or more, and -1 at most once", where="reshape")
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) == 1 and known and size % known == 0:
        shape = tuple(size // known if n == -1 else n for n in shape)
    if -1 in shape or math.prod(shape) != size:
        raise ShapeError(f"got {size} elements for the shape {shape}, which holds {known}"
                         f"{' times a whole number' if -1 in shape else ''}", where="reshape")
    return shape


class Reshape(Op):
    """y = x in another shape, elements in the same (C) order;   dL/dx = g in the shape of x.

    A view where the memory allows it, else a copy. If images came in with the channels of a pixel side by side in
    memory, their gradient goes back like that.
    """

    def __init__(self, shape: tuple[int, ...], channels_last: bool = False) -> None:
        self.shape = shape
        self.channels_last = channels_last

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        self.x_is_channels_last = x.ndim == 4 and not x.flags.c_contiguous and in_a_row(x) is not None
        y = (in_c_order(x) if self.x_is_channels_last else x).reshape(self.shape)
        return channels_last(y).transpose(0, 3, 1, 2) if self.channels_last else y      # (N, H, W, C) -> (N, C, H, W)

    def backward(self, g: Tensor) -> Tensor:
        return Reshape(self.shape_of_x, self.x_is_channels_last)(g)


class Permute(Op):
    """y[i_p0, i_p1, …] = x[i_0, i_1, …], a view;   dL/dx = g with the axes put back."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes                                    # axis k of y is axis axes[k] of x

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, g: Tensor) -> Tensor:
        inverse = tuple(self.axes.index(axis) for axis in range(len(self.axes)))
        return Permute(inverse)(g)


class Cat(Op):
    """y = the inputs one behind the other along an axis;   dL/dx_k = the part of g where x_k stands."""

    dtype_rule = "promote"

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, *xs: Array) -> Array:
        self.lengths = [x.shape[self.axis] for x in xs]
        return xp_of(xs[0]).concatenate(xs, axis=self.axis)

    def backward(self, g: Tensor) -> tuple[Tensor, ...]:
        return tuple(g.split(self.lengths, self.axis))
