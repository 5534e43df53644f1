"""Picking elements out, and the transpose of picking: putting gradients back where the elements came from.

`Index` is `x[...]` with slices, integers, None, index arrays and masks. Its key is split in two: the arrays travel as
inputs (they are data), the rest is `Key`, the setting of the op.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidl import uploads
from minidl.backend import Array, backend_of, xp_of
from minidl.errors import LabelError, OutOfRangeError, ShapeError
from minidl.graph import Op, new_tensor

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Key:
    """The part of an index that is not data: `x[2:, idx]` has the parts (slice(2, None), ARRAY)."""

    ARRAY = object()                                        # stands where an index array belongs

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.is_basic = all(part is not Key.ARRAY for part in parts)
        # without arrays nothing is picked twice, and the result is a view: `...` makes it one for a single element too
        self.parts = (*parts, ...) if self.is_basic and ... not in parts else parts

    def with_arrays(self, arrays: tuple[Array, ...]) -> tuple[Any, ...]:
        """The full index, as NumPy wants it."""
        remaining = iter(arrays)
        return tuple(next(remaining) if part is Key.ARRAY else part for part in self.parts)


def split_key(key: Any, to_tensor: Callable[[Any], Tensor]) -> tuple[list[Key], list[Tensor]]:
    """What stands between the brackets of `x[...]`, as one or two keys to apply in turn, and the arrays of the last.

    Integers beside arrays are applied first, so that they only pick, as in PyTorch; NumPy would broadcast them together
    with the arrays, and `x[0, :, [1, 2]]` would come out transposed.
    """
    parts: list[Any] = []
    tensors: list[Tensor] = []
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, slice):
            parts.append(slice(*(None if v is None else operator.index(v) for v in (part.start, part.stop, part.step))))
        elif part is None or part is Ellipsis or (isinstance(part, int) and not isinstance(part, bool)):
            parts.append(part)
        else:
            index = to_tensor(part)
            index = index.bool() if index.dtype.kind == "u" else index           # PyTorch's older masks are bytes
            if index.dtype.kind not in "iub":
                raise ShapeError(f"got an index of {index.dtype}, expected integers or booleans; use index.long()",
                                 where="index")
            is_integer = index.ndim == 0 and index.dtype.kind in "iu"
            parts.append(operator.index(index) if is_integer else Key.ARRAY)
            tensors += [] if is_integer else [index]
    if Key.ARRAY not in parts or not any(isinstance(part, int) for part in parts):
        return [Key(tuple(parts))], tensors
    picking, arrays, remaining = [], [], iter(tensors)
    for part in parts:
        if part is Key.ARRAY:
            index = next(remaining)
            axes = index.ndim if index.dtype.kind == "b" else 1         # a mask covers as many axes as it has
            picking += [slice(None)] * axes
            arrays.append(part)
        else:
            picking.append(part)
            if not isinstance(part, int):
                arrays.append(part if part is Ellipsis else slice(None))
    return [Key(tuple(picking)), Key(tuple(arrays))], tensors


def check_arrays(shape: tuple[int, ...], key: Key, indices: list[Tensor]) -> None:
    """Raise for an index array that reaches beyond its axis, where it can be read without waiting.

    NumPy raises by itself; on a GPU CuPy goes on from the other end, and the result is a wrong number.
    """
    if not indices or backend_of(indices[0].array).is_host:
        return
    remaining, axis = iter(indices), 0
    parts = [next(remaining) if part is Key.ARRAY else part for part in key.parts]
    axes_of = [_axes_of(part) for part in parts]
    for part, axes in zip(parts, axes_of, strict=True):
        if hasattr(part, "array") and axis < len(shape):                    # else NumPy says that there are too many
            numbers, size = uploads.on_host(part), shape[axis]
            if numbers is not None and numbers.size and not (-size <= numbers.min() and numbers.max() < size):
                wrong = numbers.max() if numbers.max() >= size else numbers.min()
                raise OutOfRangeError(f"got the index {wrong}, expected {-size} to {size - 1} along dim {axis}",
                                      where="index")
        axis += len(shape) - sum(axes_of) if part is Ellipsis else axes


def _axes_of(part: Any) -> int:
    """How many axes a part between brackets is about; a mask covers as many as it has."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if hasattr(part, "array") and part.dtype.kind == "b" else 1


class Index(Op):
    """y = x[key];   dL/dx = 0 everywhere, plus g at the key (elements picked twice add up: IndexAdd)."""

    def __init__(self, key: Key) -> None:
        self.key = key

    def forward(self, x: Array, *indices: Array) -> Array:
        self.shape_of_x = x.shape
        return x[self.key.with_arrays(indices)]

    def backward_x(self, g: Tensor, *indices: Tensor) -> Tensor:
        return IndexAdd(self.key, self.shape_of_x)(g, *indices)


class IndexAdd(Op):
    """The transpose of Index: y = 0, then y[key] += x;   dL/dx = g[key]."""

    def __init__(self, key: Key, shape: tuple[int, ...]) -> None:
        self.key = key
        self.shape = shape

    def forward(self, x: Array, *indices: Array) -> Array:
        xp = xp_of(x)
        # channels-last images are to stay so
        y = xp.zeros(self.shape, x.dtype) if x.flags.c_contiguous else xp.zeros_like(x, shape=self.shape)
        if self.key.is_basic:
            y[self.key.with_arrays(indices)] = x
        else:
            xp.add.at(y, self.key.with_arrays(indices), x)
        return y

    def backward_x(self, g: Tensor, *indices: Tensor) -> Tensor:
        return Index(self.key)(g, *indices)


class IndexPut(Op):
    """y = x, but y[key] = value;   dL/dx = g, but 0 at the key;   dL/dvalue = g[key]."""

    broadcasts = True                                       # value is broadcast to the shape of x[key]

    def __init__(self, key: Key) -> None:
        self.key = key

    def forward(self, x: Array, value: Array, *indices: Array) -> Array:
        y = xp_of(x).empty_like(x)
        y[...] = x
        y[self.key.with_arrays(indices)] = value
        return y

    def backward_x(self, g: Tensor, *indices: Tensor) -> Tensor:
        return IndexPut(self.key)(g, 0.0, *indices)

    def backward_value(self, g: Tensor, *indices: Tensor) -> Tensor:
        return Index(self.key)(g, *indices)


class Diagonal(Op):
    """y[…, k] = x[…, k + below, k + right], a view;   dL/dx = 0 everywhere, plus g on the diagonal.

    offset > 0 starts that many columns to the right, offset < 0 that many rows below.
    """

    def __init__(self, offset: int) -> None:
        self.right, self.below = max(offset, 0), max(-offset, 0)
        self.offset = offset

    def forward(self, x: Array) -> Array:
        self.shape_of_x = x.shape
        y = x.diagonal(self.offset, -2, -1)
        if backend_of(y).is_host:
            y.flags.writeable = x.flags.writeable           # NumPy locks diagonals; x.diagonal().fill_(1) is meant
        return y

    def backward(self, g: Tensor) -> Tensor:
        steps = new_tensor(xp_of(g.array).arange(g.shape[-1]))
        key = Key((..., Key.ARRAY, Key.ARRAY))
        return IndexAdd(key, self.shape_of_x)(g, steps + self.below, steps + self.right)


def check_gather(x: Tensor, axis: int, index: Tensor, where: str = "gather") -> None:
    """Raise unless `index` picks from `x` along `axis`; its range is checked where it can be read without waiting."""
    if not hasattr(index, "array"):
        raise ShapeError(f"got {type(index).__name__} as an index, expected a tensor of integers; use minidl.tensor(x)",
                         where=where)
    if index.dtype.kind not in "iu" or index.ndim != x.ndim:
        raise ShapeError(f"got an index of {index.dtype} and shape {index.shape} for a tensor of shape {x.shape}, "
                         f"expected integers with {x.ndim} dimensions", where=where)
    if any(i > n for k, (i, n) in enumerate(zip(index.shape, x.shape, strict=True)) if k != axis):
        raise ShapeError(f"got an index of shape {index.shape} for a tensor of shape {x.shape}, expected no size "
                         f"larger than the tensor's, except along dim {axis}", where=where)
    numbers = uploads.on_host(index)
    if numbers is not None and numbers.size:
        low, high = int(numbers.min()), int(numbers.max())
        if low < 0 or high >= x.shape[axis]:
            raise LabelError(f"got the index {low if low < 0 else high}, expected 0 to {x.shape[axis] - 1} along "
                             f"dim {axis}", where=where)


class Gather(Op):
    """y[i, j] = x[i, index[i, j]] along one axis;   dL/dx = g added up where it was picked (ScatterAdd)."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array, index: Array) -> Array:
        self.shape_of_x = x.shape
        return x[along_axis(x, index, self.axis)]

    def backward_x(self, g: Tensor, index: Tensor) -> Tensor:
        return ScatterAdd(self.axis, self.shape_of_x)(g, index)


class ScatterAdd(Op):
    """The transpose of Gather: y = 0, then y[i, index[i, j]] += x[i, j];   dL/dx[i, j] = g[i, index[i, j]]."""

    def __init__(self, axis: int, shape: tuple[int, ...]) -> None:
        self.axis = axis
        self.shape = shape

    def forward(self, x: Array, index: Array) -> Array:
        xp = xp_of(x)
        y = xp.zeros(self.shape, x.dtype)
        xp.add.at(y, along_axis(y, index, self.axis), x)
        return y

    def backward_x(self, g: Tensor, index: Tensor) -> Tensor:
        return Gather(self.axis)(g, index)


def along_axis(x: Array, index: Array, axis: int) -> tuple[Array, ...]:
    """The full index that picks index[i, j] along `axis` and i, j themselves along the others."""
    places = []
    for k in range(x.ndim):
        along_k = tuple(-1 if i == k else 1 for i in range(x.ndim))
        places.append(index if k == axis else xp_of(x).arange(index.shape[k]).reshape(along_k))
    return tuple(places)
