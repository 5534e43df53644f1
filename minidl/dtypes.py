"""Number types, and the one rule that decides which type an operation computes in (PyTorch's rule).

NumPy alone would turn float32 × int64 into float64 and uint8 / 255 into float64: twice the memory, half the speed,
and nobody asked for it. `result_type` follows PyTorch's promotion table instead:

1. Types come in categories, bool < integer < floating.
2. Tensors with dimensions decide; a tensor without dimensions counts only if its category is higher;
   a Python number only if its category is higher still.
3. Integers that meet floats take the float's type. A Python float beside integers means the default float type.

Source: https://docs.pytorch.org/docs/stable/tensor_attributes.html#type-promotion-doc
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

from minidl.errors import DtypeError

Dtype: TypeAlias = "np.dtype[np.generic]"

float16 = np.dtype("float16")
float32 = np.dtype("float32")
float64 = np.dtype("float64")
int8 = np.dtype("int8")
int16 = np.dtype("int16")
int32 = np.dtype("int32")
int64 = np.dtype("int64")
uint8 = np.dtype("uint8")
bool_ = np.dtype("bool")                # minidl.bool, as torch.bool; the other short names are in minidl/__init__

_BOOL, _INTEGER, _FLOATING = 0, 1, 2
_CATEGORY = {"b": _BOOL, "i": _INTEGER, "u": _INTEGER, "f": _FLOATING}

_default: Dtype = float32


def set_default_dtype(dtype: Dtype) -> None:
    """Set the type of new float tensors (float32 at the start). float64 is what gradient checks want."""
    global _default
    if not is_floating(np.dtype(dtype)):
        raise DtypeError(f"got {np.dtype(dtype)}, expected a floating type such as minidl.float32",
                         where="set_default_dtype")
    _default = np.dtype(dtype)


def get_default_dtype() -> Dtype:
    """The type of new float tensors."""
    return _default


_ALL = (float32, float64, float16, int64, int32, int16, int8, uint8, bool_)


def known(dtype: Any) -> Dtype:
    """Anything that names a number type, as one of those that minidl has."""
    try:
        found: Dtype | None = np.dtype({bool: "bool", int: "int64", float: "float64"}.get(dtype, dtype))
    except (TypeError, ValueError):
        found = None
    if found is None or found not in _ALL:
        raise DtypeError(f"got {dtype!r}, expected one of {', '.join(map(str, _ALL))}", where="dtype")
    return found


def is_floating(dtype: Dtype) -> bool:
    """Whether the type can carry a gradient."""
    return dtype.kind == "f"


def category(dtype: Dtype) -> int:
    """0 for booleans, 1 for integers, 2 for floats: what a type can hold, a higher one can hold too."""
    return _CATEGORY[dtype.kind]


def dtype_of_number(number: object) -> Dtype:
    """The type that a Python number stands for: bool, int64 or the default float."""
    if isinstance(number, bool):
        return bool_
    return int64 if isinstance(number, int) else _default


def wrapped(number: Any, dtype: Dtype) -> Any:
    """A Python integer as an integer type holds it: -1 is 255 in uint8. Anything else is returned as it is."""
    if dtype.kind not in "iu" or type(number) is not int:
        return number
    values: int = 2 ** (8 * dtype.itemsize)
    lowest = -values // 2 if dtype.kind == "i" else 0
    return (number - lowest) % values + lowest


def result_type(operands: Iterable[tuple[Dtype, int]], numbers: Iterable[object] = ()) -> Dtype:
    """The type to compute in.

    operands: (dtype, number of dimensions) of each tensor; numbers: the Python numbers beside them.
    """
    with_dims: Dtype | None = None
    without_dims: Dtype | None = None
    for dtype, ndim in operands:
        if ndim:
            with_dims = _promote(with_dims, dtype)
        else:
            without_dims = _promote(without_dims, dtype)
    of_numbers: Dtype | None = None
    for number in numbers:
        of_numbers = _promote(of_numbers, dtype_of_number(number))
    result = _higher_category(with_dims, _higher_category(without_dims, of_numbers))
    assert result is not None, "an operation without operands has no type"
    return result


def _higher_category(strong: Dtype | None, weak: Dtype | None) -> Dtype | None:
    """`strong`, unless `weak` is of a higher category."""
    if strong is None or weak is None:
        return strong if weak is None else weak
    if category(weak) > category(strong):
        return weak
    return strong


def _promote(a: Dtype | None, b: Dtype) -> Dtype:
    if a is None or a == b:
        return b
    if is_floating(a) != is_floating(b):               # NumPy would widen float32 × int64 to float64
        return a if is_floating(a) else b
    return np.promote_types(a, b)
