"""What Tensor methods take and return besides tensors: axes under two names, sizes, data from outside, named pairs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import numpy as np

from minidl import dtypes
from minidl.backend import as_number
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.graph import is_tensor

if TYPE_CHECKING:
    from minidl.tensors import Tensor

# Tensor has methods called int, float and bool and a property called device; inside the class these are the types
Axis: TypeAlias = int
Real: TypeAlias = float
Flag: TypeAlias = bool
Dim: TypeAlias = int | Sequence[int] | None
Method = TypeVar("Method", bound=Callable[..., Any])


class Size(tuple[int, ...]):
    """The shape of a tensor: a tuple of sizes that also knows how many elements that makes."""

    __slots__ = ()

    def numel(self) -> int:
        """The product of the sizes."""
        return math.prod(self)

    def __getitem__(self, i: Any) -> Any:
        part = super().__getitem__(i)
        return Size(part) if isinstance(i, slice) else part


class ValuesAndIndices(NamedTuple):
    """What `max(dim)`, `sort`, `topk` and `median(dim)` return: values, and where along `dim` they stand."""

    values: Tensor
    indices: Tensor


def numpy_names(method: Method) -> Method:
    """Let a method that takes dim and keepdim take NumPy's names for them, axis and keepdims, too."""
    @functools.wraps(method)
    def with_either_name(*args: Any, **kwargs: Any) -> Any:
        if "axis" in kwargs:
            if "dim" in kwargs:
                raise SettingError("got both dim and axis, which mean the same; give one", where=method.__name__)
            kwargs["dim"] = kwargs.pop("axis")
        if "keepdims" in kwargs:
            kwargs["keepdim"] = kwargs.pop("keepdims")
        if "out" in kwargs and kwargs["out"] is None:           # np.mean(tensor) passes it on
            del kwargs["out"]
        return method(*args, **kwargs)
    return with_either_name  # type: ignore[return-value]


def is_numeric(value: Any) -> bool:
    """Whether a value can stand beside a tensor: a tensor, an array, a list, a number."""
    return is_tensor(value) or isinstance(value, np.ndarray | list | tuple) or as_number(value) is not None


def as_tuple(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """`x.reshape(2, 3)` and `x.reshape((2, 3))` are the same."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes


def host_array(data: Any, dtype: Any = None) -> np.ndarray:
    """Numbers, nested lists, arrays or tensors as a NumPy array of a type that minidl has.

    Python floats become the default float type; arrays keep their type.
    """
    if is_tensor(data):
        data = data.detach()._on_host()
    elif isinstance(data, list | tuple) and (first := _first_number(data)) is not None:
        dtype = first.dtype if dtype is None and first.dtype.kind == "f" else dtype
        data = _without_tensors(data)
    try:
        array = np.asarray(data)
    except ValueError:
        raise ShapeError("got a nested list whose rows differ in length, expected a rectangular one",
                         where="tensor") from None
    if dtype is None and not isinstance(data, np.ndarray | np.generic) and array.dtype == np.float64:
        dtype = dtypes.get_default_dtype()
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise DtypeError(f"got data of type {array.dtype}, expected numbers (float16/32/64, integers or booleans)",
                         where="tensor")
    # in the byte order of this machine: a file's may be the other one
    wanted = array.dtype.newbyteorder("=") if dtype is None else dtypes.known(dtype)
    return array.astype(wanted, copy=False)


def _first_number(data: Any) -> Any:
    """The first thing in nested lists that has a dtype: tensors, arrays and NumPy numbers keep theirs."""
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return data if is_tensor(data) or isinstance(data, np.generic | np.ndarray) else None


def _without_tensors(data: Any) -> Any:
    """Nested lists with the tensors in them, such as a list of losses, as arrays."""
    if isinstance(data, list | tuple):
        return [_without_tensors(item) for item in data]
    return data.detach()._on_host() if is_tensor(data) else data
