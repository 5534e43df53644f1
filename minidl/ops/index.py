"""Picking elements out, and the transpose of picking: putting gradients back where the elements came from.

`Index` is `x[...]` with slices, integers, None, index arrays and masks. Its key is split in two: the arrays travel as
inputs (they are data), the rest is `Key`, the setting of the op.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minidl.backend import Array, xp_of
from minidl.graph import Op

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Key:
    """The part of an index that is not data: `x[2, idx, :]` has the parts (2, ARRAY, slice(None))."""

    ARRAY = object()                                        # stands where an index array belongs

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts
        # without arrays nothing is picked twice, and the picked elements can be written in one assignment
        self.is_basic = all(part is not Key.ARRAY for part in parts)

    @classmethod
    def split(cls, key: Any, to_tensor: Callable[[Any], Tensor]) -> tuple[Key, list[Tensor]]:
        """What stands between the brackets of `x[...]`, as settings and data."""
        parts: list[Any] = []
        tensors: list[Tensor] = []
        for part in key if isinstance(key, tuple) else (key,):
            if part is None or part is Ellipsis or (isinstance(part, int | slice) and not isinstance(part, bool)):
                parts.append(part)
            else:
                parts.append(cls.ARRAY)
                tensors.append(to_tensor(part))
        return cls(tuple(parts)), tensors

    def with_arrays(self, arrays: tuple[Array, ...]) -> tuple[Any, ...]:
        """The full index, as NumPy wants it."""
        remaining = iter(arrays)
        return tuple(next(remaining) if part is Key.ARRAY else part for part in self.parts)


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
        y = xp.zeros(self.shape, x.dtype)
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


class Gather(Op):
    """y[i, j] = x[i, index[i, j]] along one axis;   dL/dx = g added up where it was picked (ScatterAdd)."""

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Array, index: Array) -> Array:
        self.shape_of_x = x.shape
        return x[_along_axis(x, index, self.axis)]

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
        xp.add.at(y, _along_axis(y, index, self.axis), x)
        return y

    def backward_x(self, g: Tensor, index: Tensor) -> Tensor:
        return Gather(self.axis)(g, index)


def _along_axis(x: Array, index: Array, axis: int) -> tuple[Array, ...]:
    """The full index that picks index[i, j] along `axis` and i, j themselves along the others."""
    places = []
    for k in range(x.ndim):
        along_k = tuple(-1 if i == k else 1 for i in range(x.ndim))
        places.append(index if k == axis else xp_of(x).arange(index.shape[k]).reshape(along_k))
    return tuple(places)
