"""Functions that make tensors: from data, filled with a number, or drawn at random."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import dtypes, uploads
from minidl.backend import as_number, backend_for, device
from minidl.dtypes import Dtype
from minidl.errors import DtypeError, SettingError
from minidl.rng import Generator, default_generator
from minidl.tensors import Tensor, as_tuple, host_array

__all__ = [
    "BoolTensor", "ByteTensor", "DoubleTensor", "FloatTensor", "HalfTensor", "IntTensor", "LongTensor", "arange",
    "as_tensor", "asarray", "empty", "empty_like", "eye", "from_numpy", "full", "full_like", "linspace", "logspace",
    "ones", "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "randperm",
    "scalar_tensor", "tensor", "zeros", "zeros_like",
]

Place = str | device | None


def _finished(array: np.ndarray, place: Place, requires_grad: bool) -> Tensor:
    """A new host array as a tensor on the device that was asked for."""
    tensor = Tensor._of(backend_for(place or "cpu").from_host(array))
    if place is not None:
        uploads.note(tensor, array)
    return tensor.requires_grad_() if requires_grad else tensor


def _shape(sizes: Sequence[Any]) -> tuple[int, ...]:
    """`zeros(2, 3)` and `zeros((2, 3))` are the same; sizes may be tensors of one integer."""
    given = as_tuple(tuple(sizes))
    if not all(hasattr(n, "__index__") for n in given):
        raise SettingError(f"got the size {given}, expected integers")
    shape = tuple(operator.index(n) for n in given)
    if any(n < 0 for n in shape):
        raise SettingError(f"got the size {shape}, expected no negative numbers")
    return shape


def _float(dtype: Any) -> Dtype:
    return dtypes.get_default_dtype() if dtype is None else dtypes.known(dtype)


def tensor(data: Any, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of the data: a number, nested lists, an array; or a tensor, on whose device it stays.

    Python floats become the default float type (float32), integers int64, booleans bool; arrays keep their type.
    """
    place = data.device if device is None and isinstance(data, Tensor) else device
    return _finished(np.array(host_array(data, dtype)), place, requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Place = None) -> Tensor:
    """Like `tensor`, but without a copy where none is needed."""
    if isinstance(data, Tensor):
        return data.to(dtype=dtype, device=device)
    return _finished(host_array(data, dtype), device, False)


asarray = as_tensor


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor that shares memory with a NumPy array."""
    return Tensor._of(host_array(array))


def zeros(*sizes: Any, size: Any = None, dtype: Any = None, device: Place = None,
          requires_grad: bool = False) -> Tensor:
    """Zeros, `zeros(2, 3)`."""
    return _finished(np.zeros(_shape(sizes if size is None else [size]), _float(dtype)), device, requires_grad)


def ones(*sizes: Any, size: Any = None, dtype: Any = None, device: Place = None,
         requires_grad: bool = False) -> Tensor:
    """Ones, `ones(2, 3)`."""
    return _finished(np.ones(_shape(sizes if size is None else [size]), _float(dtype)), device, requires_grad)


def empty(*sizes: Any, size: Any = None, dtype: Any = None, device: Place = None,
          requires_grad: bool = False) -> Tensor:
    """Memory as it comes: whatever numbers happen to be in it."""
    return _finished(np.empty(_shape(sizes if size is None else [size]), _float(dtype)), device, requires_grad)


def full(size: Sequence[int], fill_value: Any, dtype: Any = None, device: Place = None,
         requires_grad: bool = False) -> Tensor:
    """One number everywhere; its type decides the dtype unless one is given."""
    if as_number(fill_value) is None and not isinstance(fill_value, Tensor):
        raise DtypeError(f"got fill_value={fill_value!r}, expected a number", where="full")
    number = fill_value.item() if isinstance(fill_value, Tensor) else as_number(fill_value)
    number_type = dtypes.dtype_of_number(number) if dtype is None else dtypes.known(dtype)
    array = np.full(_shape([size]), dtypes.wrapped(number, number_type), number_type)
    return _finished(array, device, requires_grad)


def zeros_like(input: Tensor, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """Zeros of another tensor's shape, dtype and device."""
    return zeros(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device,
                 requires_grad=requires_grad)


def ones_like(input: Tensor, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """Ones of another tensor's shape, dtype and device."""
    return ones(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device,
                requires_grad=requires_grad)


def full_like(input: Tensor, fill_value: Any, dtype: Any = None, device: Place = None,
              requires_grad: bool = False) -> Tensor:
    """One number everywhere, in another tensor's shape, dtype and device."""
    return full(tuple(input.shape), fill_value, dtype or input.dtype, device or input.device, requires_grad)


def empty_like(input: Tensor, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """Memory as it comes, in another tensor's shape, dtype and device."""
    return empty(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device,
                 requires_grad=requires_grad)


def arange(start: Any, end: Any = None, step: Any = 1, dtype: Any = None,
           device: Place = None, requires_grad: bool = False) -> Tensor:
    """Numbers from `start` (or 0) up to, not including, `end`."""
    first, last = (0, start) if end is None else (start, end)
    if any(as_number(n) is None and not isinstance(n, Tensor) for n in (first, last, step)):
        raise SettingError(f"got {first!r}, {last!r} and a step of {step!r}, expected numbers", where="arange")
    first, last, step = (n.item() if isinstance(n, Tensor) else n for n in (first, last, step))
    if step == 0 or (last - first) * step < 0:
        raise SettingError(f"got {first} to {last} in steps of {step}, which lead nowhere", where="arange")
    if dtype is None:
        integers = all(isinstance(n, int) for n in (first, last, step))
        dtype = dtypes.int64 if integers else dtypes.get_default_dtype()
    return _finished(np.arange(first, last, step).astype(dtype), device, requires_grad)


def linspace(start: float, end: float, steps: int, dtype: Any = None, device: Place = None,
             requires_grad: bool = False) -> Tensor:
    """`steps` numbers at equal distances, both ends included."""
    if not hasattr(steps, "__index__") or steps < 0:
        raise SettingError(f"got steps={steps!r}, expected 0 or more", where="linspace")
    return _finished(np.linspace(start, end, steps).astype(_float(dtype)), device, requires_grad)


def logspace(start: float, end: float, steps: int, base: float = 10.0, dtype: Any = None, device: Place = None,
             requires_grad: bool = False) -> Tensor:
    """`steps` powers of `base`, from base^start to base^end."""
    return _finished(np.logspace(start, end, steps, base=base).astype(_float(dtype)), device, requires_grad)


def scalar_tensor(number: Any, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """One number, in the default float type unless told otherwise."""
    return _finished(np.array(number, _float(dtype)), device, requires_grad)


def eye(n: int, m: int | None = None, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal of an n×m matrix."""
    return _finished(np.eye(n, m, dtype=_float(dtype)), device, requires_grad)


# -- random; all from one generator, on the host -------------------------------------------------------------------

def rand(*sizes: Any, size: Any = None, dtype: Any = None, device: Place = None, requires_grad: bool = False,
         generator: Generator | None = None) -> Tensor:
    """Uniform between 0 (included) and 1."""
    shape = _shape(sizes if size is None else [size])
    array = (generator or default_generator).numpy.random(shape).astype(_float(dtype))
    # a float64 just below 1 may round to 1 in float32, which is outside of the interval
    array[array == 1] = np.nextafter(array.dtype.type(1), array.dtype.type(0))
    return _finished(array, device, requires_grad)


def randn(*sizes: Any, size: Any = None, dtype: Any = None, device: Place = None, requires_grad: bool = False,
          generator: Generator | None = None) -> Tensor:
    """Normally distributed with mean 0 and standard deviation 1."""
    array = (generator or default_generator).numpy.standard_normal(_shape(sizes if size is None else [size]))
    return _finished(np.asarray(array, _float(dtype)), device, requires_grad)


def randint(low: int = 0, high: Any = None, size: Sequence[int] | None = None, dtype: Any = dtypes.int64,
            device: Place = None, generator: Generator | None = None) -> Tensor:
    """Integers from `low` up to, not including, `high`; `randint(10, (3,))` starts at 0."""
    if size is None:
        low, high, size = 0, low, high
    elif high is None:
        low, high = 0, low                                  # randint(9, size=(2,))
    if size is None or not low < high:
        raise SettingError(f"got low={low}, high={high} and size={size}, expected low below high, and a size",
                           where="randint")
    array = (generator or default_generator).numpy.integers(low, high, _shape([size]), dtype=np.int64)
    return _finished(array.astype(dtype), device, False)


def randperm(n: int, device: Place = None, generator: Generator | None = None) -> Tensor:
    """The numbers 0 … n-1 in random order."""
    if not hasattr(n, "__index__") or n < 0:
        raise SettingError(f"got n={n!r}, expected a whole number of 0 or more", where="randperm")
    return _finished((generator or default_generator).numpy.permutation(int(n)), device, False)


def rand_like(input: Tensor, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """`rand` in another tensor's shape, dtype and device."""
    return rand(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device,
                requires_grad=requires_grad)


def randn_like(input: Tensor, dtype: Any = None, device: Place = None, requires_grad: bool = False) -> Tensor:
    """`randn` in another tensor's shape, dtype and device."""
    return randn(tuple(input.shape), dtype=dtype or input.dtype, device=device or input.device,
                 requires_grad=requires_grad)


def randint_like(input: Tensor, low: int, high: int | None = None, dtype: Any = None) -> Tensor:
    """`randint` in another tensor's shape, dtype and device."""
    first, last = (0, low) if high is None else (low, high)
    return randint(first, last, tuple(input.shape), dtype=dtype or input.dtype, device=input.device)


# -- the older names of constructors with a type -------------------------------------------------------------------

def _typed(data: tuple[Any, ...], dtype: Dtype) -> Tensor:
    """`FloatTensor(2, 3)` is of that shape, `FloatTensor([2, 3])` holds the numbers."""
    sizes = bool(data) and all(isinstance(n, int) for n in data)
    return empty(*data, dtype=dtype) if sizes or not data else tensor(data[0], dtype=dtype)


def FloatTensor(*data: Any) -> Tensor:
    """A float32 tensor with this data, or of this shape."""
    return _typed(data, dtypes.float32)


def DoubleTensor(*data: Any) -> Tensor:
    """A float64 tensor with this data, or of this shape."""
    return _typed(data, dtypes.float64)


def LongTensor(*data: Any) -> Tensor:
    """An int64 tensor with this data, or of this shape."""
    return _typed(data, dtypes.int64)


def IntTensor(*data: Any) -> Tensor:
    """An int32 tensor with this data, or of this shape."""
    return _typed(data, dtypes.int32)


def ByteTensor(*data: Any) -> Tensor:
    """A uint8 tensor with this data, or of this shape."""
    return _typed(data, dtypes.uint8)


def HalfTensor(*data: Any) -> Tensor:
    """A float16 tensor with this data, or of this shape."""
    return _typed(data, dtypes.float16)


def BoolTensor(*data: Any) -> Tensor:
    """A tensor of booleans with this data, or of this shape."""
    return _typed(data, dtypes.bool_)
