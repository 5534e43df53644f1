"""Operations that make one number out of many: sum, mean, norm, and where the largest is.

`axes` is a tuple of axes without negative numbers, sorted. `max` itself is no op: it is `ArgMax` followed by `Gather`,
so its gradient goes to the first of equal elements. Sorting is `ArgSort` followed by `Gather`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minidl import dtypes, kernels
from minidl.backend import Array, backend_of, xp_of
from minidl.errors import AxisError, ShapeError
from minidl.graph import BroadcastTo, Op
from minidl.kernels.layout import rows_of_channels
from minidl.ops.elementwise import Where

if TYPE_CHECKING:
    from minidl.tensors import Tensor


def axes_of(dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """The axes that `dim` names, sorted and without negative numbers; None or () means all of them."""
    dims: list[int] = list(dim) if isinstance(dim, tuple | list) else [] if dim is None else [dim]  # type: ignore[list-item]
    axes = sorted(axis_of(d, ndim) for d in dims)
    if len(set(axes)) < len(axes):
        raise ShapeError(f"got dim={dim} for a tensor with {ndim} dimensions, expected each axis once")
    return tuple(axes) if dims and ndim else tuple(range(ndim))


def axis_of(dim: int, ndim: int) -> int:
    """`dim` without the negative numbers: -1 is the last axis. A number without axes takes 0 and -1, as in PyTorch."""
    if not hasattr(dim, "__index__"):
        raise ShapeError(f"got dim={dim!r}, expected an integer")
    dim = operator.index(dim)
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise AxisError(f"got dim={dim} for a tensor with {ndim} dimensions, expected {-max(ndim, 1)} to "
                        f"{max(ndim, 1) - 1}")
    return dim % ndim if ndim else 0


class _Reduction(Op):
    def __init__(self, axes: tuple[int, ...], keepdims: bool) -> None:
        self.axes = axes
        self.keepdims = keepdims

    def with_ones(self, y: Tensor) -> Tensor:
        """A result, or its gradient, with the axes that were summed as axes of size 1: it broadcasts beside x."""
        return y.reshape(tuple(1 if i in self.axes else n for i, n in enumerate(self.shape_of_x)))

    def spread(self, g: Tensor) -> Tensor:
        """The transpose of a sum: every element that went into one sum gets that sum's gradient."""
        g = self.with_ones(g) if g.ndim else g                               # (2, 4) -> (2, 1, 4) for axes (1,)
        return BroadcastTo(self.shape_of_x)(g)                               # -> (2, 3, 4)

    shape_of_x: tuple[int, ...]


class Sum(_Reduction):
    """y = sum over i of x[i];   dL/dx[i] = g. Integers and booleans add up to int64."""

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        if not dtypes.is_floating(x.dtype):
            return x.sum(axis=self.axes, dtype=dtypes.int64, keepdims=self.keepdims)
        rows = None if self.keepdims else rows_of_channels(x, self.axes)
        if rows is not None and (passes := kernels.passes_for(rows)):
            return passes.channel_sums(rows)                                 # (N*H*W, C) -> (C,)
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


class LogSumExp(_Reduction):
    """y = log(sum over i of e^x[i]);   dL/dx[i] = g · e^(x[i] - y), the softmax of x.

    The largest x is taken out of the sum, m + log(sum of e^(x - m)), so that nothing overflows.
    """

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        xp = xp_of(x)
        if x.size == 0:
            return xp.log(x.sum(axis=self.axes, keepdims=self.keepdims))     # log 0
        m = x.max(axis=self.axes, keepdims=True)
        m = xp.where(xp.isinf(m), 0, m)                                      # inf - inf would be nan
        y = m + xp.log(xp.exp(x - m).sum(axis=self.axes, keepdims=True))
        return y if self.keepdims else y.squeeze(axis=self.axes)

    def backward(self, g: Tensor, x: Tensor, y: Tensor) -> Tensor:
        y = self.with_ones(y)
        return self.with_ones(g) * (x - Where()(y == -math.inf, 0, y)).exp()


class Norm(_Reduction):
    """y = √(sum over i of x[i]²), the Euclidean length;   dL/dx = g · x / y, and 0 where y = 0."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        return xp_of(x).sqrt(backend_of(x).sum(x * x, self.axes, self.keepdims))

    def backward(self, g: Tensor, x: Tensor, y: Tensor) -> Tensor:
        y = self.with_ones(y)
        return self.with_ones(g) * x / Where()(y == 0, 1, y)


class CumSum(Op):
    """y[i] = sum over j <= i of x[j] along an axis;   dL/dx[j] = sum over i >= j of g[i]."""

    dtype_rule = "same"

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array) -> Array:
        return x.cumsum(axis=self.axis, dtype=x.dtype if dtypes.is_floating(x.dtype) else dtypes.int64)

    def backward(self, g: Tensor) -> Tensor:
        return CumSum(self.axis)(g.flip(self.axis)).flip(self.axis)          # the sum from the other end


class Any(Op):
    """Whether any element along the axes is not 0. No gradient."""

    def __init__(self, axes: tuple[int, ...], keepdims: bool = False) -> None:
        self.axes = axes
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        return (x != 0).any(axis=self.axes, keepdims=self.keepdims)


class All(Op):
    """Whether all elements along the axes are not 0. No gradient."""

    def __init__(self, axes: tuple[int, ...], keepdims: bool = False) -> None:
        self.axes = axes
        self.keepdims = keepdims

    def forward(self, x: Array) -> Array:
        return (x != 0).all(axis=self.axes, keepdims=self.keepdims)


class ArgSort(Op):
    """The indices that put the elements along an axis in order; equal ones stay in their order. No gradient."""

    def __init__(self, axis: int, descending: bool = False) -> None:
        self.axis = axis
        self.descending = descending

    def forward(self, x: Array) -> Array:
        xp = xp_of(x)
        if not self.descending:
            return xp.argsort(x, axis=self.axis, kind="stable")
        # Turned around twice: sort what stands in reverse, so that after the second turn equals are in order again.
        order = xp.argsort(xp.flip(x, self.axis), axis=self.axis, kind="stable")
        return xp.flip(x.shape[self.axis] - 1 - order, self.axis)


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
