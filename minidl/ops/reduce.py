"""Operations that make one number out of many: sum, mean, and where the largest is.

`axes` is a tuple of axes without negative numbers, sorted. `max` itself is no op: it is `ArgMax` followed by `Gather`,
so its gradient goes to the first of equal elements.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minidl import dtypes
from minidl.backend import Array, backend_of
from minidl.errors import ShapeError
from minidl.graph import BroadcastTo, Op

if TYPE_CHECKING:
    from minidl.tensors import Tensor


def axes_of(dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """The axes that `dim` names, sorted and without negative numbers; None or () means all of them."""
    dims: list[Any] = list(dim) if isinstance(dim, tuple | list) else [] if dim is None else [dim]
    axes = sorted(axis_of(d, ndim) for d in dims)
    if len(set(axes)) < len(axes):
        raise ShapeError(f"got dim={dim} for a tensor with {ndim} dimensions, expected each axis once")
    return tuple(axes) if dims and ndim else tuple(range(ndim))


def axis_of(dim: int, ndim: int) -> int:
    """`dim` without the negative numbers: -1 is the last axis. A number without axes takes 0 and -1, as in PyTorch."""
    dim = operator.index(dim)
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise ShapeError(f"got dim={dim} for a tensor with {ndim} dimensions, expected {-max(ndim, 1)} to "
                         f"{max(ndim, 1) - 1}")
    return dim % ndim if ndim else 0


class _Reduction(Op):
    def __init__(self, axes: tuple[int, ...], keepdims: bool) -> None:
        self.axes = axes
        self.keepdims = keepdims

    def spread(self, g: Tensor) -> Tensor:
        """The transpose of a sum: every element that went into one sum gets that sum's gradient."""
        with_ones = tuple(1 if i in self.axes else n for i, n in enumerate(self.shape_of_x))
        return BroadcastTo(self.shape_of_x)(g.reshape(with_ones))            # (2, 1, 4) -> (2, 3, 4) for axes (1,)

    shape_of_x: tuple[int, ...]


class Sum(_Reduction):
    """y = sum over i of x[i];   dL/dx[i] = g. Integers and booleans add up to int64."""

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        if not dtypes.is_floating(x.dtype):
            return x.sum(axis=self.axes, dtype=dtypes.int64, keepdims=self.keepdims)
        return backend_of(x).sum(x, self.axes, self.keepdims)

    def backward(self, g: Tensor) -> Tensor:
        return self.spread(g)


class Mean(_Reduction):
    """y = 1/n · sum over i of x[i];   dL/dx[i] = g / n."""

    dtype_rule = "same"

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        total = backend_of(x).sum(x, self.axes, self.keepdims)
        self.n = math.prod(x.shape[axis] for axis in self.axes)
        return total / self.n if self.n else total * math.nan                # the mean of nothing is nan

    def backward(self, g: Tensor) -> Tensor:
        return self.spread(g / self.n)


class ArgMax(Op):
    """The index of the largest element along an axis; the first of equals. No gradient."""

    def __init__(self, axis: int | None, keepdims: bool = False) -> None:
        self.axis = axis
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        return x.argmax(axis=self.axis, keepdims=self.keepdims)


class ArgMin(Op):
    """The index of the smallest element along an axis; the first of equals. No gradient."""

    def __init__(self, axis: int | None, keepdims: bool = False) -> None:
        self.axis = axis
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        return x.argmin(axis=self.axis, keepdims=self.keepdims)
