"""A device that is not there: arrays that behave as strictly as a GPU's, over NumPy, for tests without a GPU.

`tensor.to("fake")` puts the numbers into a wrapper that is no NumPy array. Like CuPy it refuses what would reach the
GPU from the wrong side, and it knows only the functions and keyword arguments that CuPy has (fake_cupy_names.json,
written by tests/list_cupy_names.py):

- a NumPy array as an operand, `np.exp(fake)`, or an implicit `np.asarray(fake)` is an error;
- an index array that reaches beyond the end goes on from the other end, silently;
- reading a value (`float(x)`, `x.item()`, `if x:`) works and is counted: on a GPU it waits for all work before it.

Code that runs here names nothing that CuPy lacks and moves nothing between host and device by accident. That it is fast
on a GPU, or even right there, only a GPU can tell.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minidl.backend import Backend, cpu, register
from minidl.errors import DeviceError

_CUPY = json.loads((Path(__file__).parent / "fake_cupy_names.json").read_text(encoding="utf-8"))
_UFUNCS_WITH_AT = ("add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor")
_UFUNCS_WITH_REDUCE = ("add", "multiply")
_UFUNC_KEYWORDS = ("out", "where", "casting", "dtype")


class Syncs:
    """How often a value was read from the device, `count`, and by which call, `calls`."""

    def __init__(self) -> None:
        self.count = 0
        self.calls: list[str] = []

    def add(self, call: str) -> None:
        """Count one read."""
        self.count += 1
        self.calls.append(call)

    def reset(self) -> None:
        """Start counting again."""
        self.count, self.calls = 0, []


syncs = Syncs()


def _refuse_host(value: Any) -> None:
    if isinstance(value, np.ndarray):
        raise DeviceError(f"got a NumPy array of shape {value.shape} in a computation on the fake device, expected "
                          f"device arrays; upload it with .to(device)", where="fake")


def _inner(value: Any) -> Any:
    """Arguments as NumPy sees them; refuses host arrays."""
    _refuse_host(value)
    if isinstance(value, FakeArray):
        return value.inner
    if isinstance(value, tuple | list):
        return type(value)(_inner(v) for v in value)
    if isinstance(value, slice):
        return slice(_inner(value.start), _inner(value.stop), _inner(value.step))
    return value


def _outer(result: Any) -> Any:
    """Results of NumPy as device arrays; scalars too, for on a device a reduction stays there."""
    if isinstance(result, np.ndarray | np.generic):
        return FakeArray(np.asarray(result))
    if isinstance(result, tuple | list):
        return type(result)(_outer(v) for v in result)
    return result


def _check_keywords(name: str, allowed: Any, keywords: dict[str, Any]) -> None:
    for keyword in keywords:
        if allowed is not None and keyword not in allowed:
            raise TypeError(f"cupy's {name} has no keyword {keyword!r}, only {', '.join(allowed)}")


def _count_masks(key: Any) -> None:
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, FakeArray) and part.dtype == np.bool_:
            syncs.add("mask")                               # how many it picks is known only after looking


def _wrapped(key: Any, shape: tuple[int, ...]) -> Any:
    """An index as CuPy takes it: arrays of numbers beyond the end go on from the other end, and nobody is told."""
    parts = key if isinstance(key, tuple) else (key,)
    axes_of = [0 if part is None or part is Ellipsis else part.ndim if _is_mask(part) else 1 for part in parts]
    made, axis = [], 0
    for part, axes in zip(parts, axes_of, strict=True):
        is_numbers = isinstance(part, np.ndarray) and not _is_mask(part) and axis < len(shape) and shape[axis] > 0
        made.append(part % shape[axis] if is_numbers else part)
        axis += len(shape) - sum(axes_of) if part is Ellipsis else axes
    return tuple(made) if isinstance(key, tuple) else made[0]


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == np.bool_


class FakeArray:
    """An array on the fake device. The NumPy array inside, `inner`, is for the backend and for tests alone."""

    __slots__ = ("__weakref__", "inner")
    __array_ufunc__ = None                                  # np.exp(fake) and numpy_array * fake fail, as with CuPy

    def __init__(self, inner: np.ndarray) -> None:
        self.inner = inner

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise DeviceError("got an implicit conversion to NumPy, expected an explicit one; use .cpu()", where="fake")

    def __array_function__(self, function: Callable[..., Any], *_: Any) -> Any:
        raise DeviceError(f"got np.{function.__name__} of a device array, expected xp_of(x).{function.__name__}",
                          where="fake")

    # reading values: allowed, counted
    def get(self) -> np.ndarray:
        """A copy on the host."""
        syncs.add("get")
        return self.inner.copy()

    def item(self) -> Any:
        """The single element."""
        syncs.add("item")
        return self.inner.item()

    def tolist(self) -> Any:
        """Nested lists."""
        syncs.add("tolist")
        return self.inner.tolist()

    def __bool__(self) -> bool:
        syncs.add("bool")
        return bool(self.inner)

    def __int__(self) -> int:
        syncs.add("int")
        return int(self.inner)

    def __float__(self) -> float:
        syncs.add("float")
        return float(self.inner)

    def __index__(self) -> int:
        syncs.add("index")
        return operator.index(self.inner.item())

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Iterator[FakeArray]:
        return (FakeArray(np.asarray(part)) for part in self.inner)

    def __repr__(self) -> str:
        return f"fake({self.inner!r})"

    def __getitem__(self, key: Any) -> FakeArray:
        return FakeArray(np.asarray(self.inner[self._counted(key)]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.inner[self._counted(key)] = _inner(value)

    def _counted(self, key: Any) -> Any:
        _count_masks(key)
        return _wrapped(_inner(key), self.inner.shape)

    def __getattr__(self, name: str) -> Any:
        if name in _CUPY["attributes"]:
            value = getattr(self.inner, name)
            return FakeArray(value) if isinstance(value, np.ndarray) else value
        if name not in _CUPY["methods"]:
            raise AttributeError(f"cupy.ndarray has no {name!r}")
        method, allowed = getattr(self.inner, name), _CUPY["methods"][name]

        def call(*args: Any, **keywords: Any) -> Any:
            _check_keywords(f"ndarray.{name}", allowed, keywords)
            return _outer(method(*_inner(args), **{k: _inner(v) for k, v in keywords.items()}))

        return call


def _add_operators() -> None:
    """a + b, b + a and a += b for every operator that CuPy's arrays have."""
    def forward(function: Callable[[Any, Any], Any]) -> Callable[[FakeArray, Any], Any]:
        return lambda self, other: _outer(function(self.inner, _inner(other)))

    def reflected(function: Callable[[Any, Any], Any]) -> Callable[[FakeArray, Any], Any]:
        return lambda self, other: _outer(function(_inner(other), self.inner))

    def in_place(function: Callable[[Any, Any], Any]) -> Callable[[FakeArray, Any], Any]:
        def apply(self: FakeArray, other: Any) -> FakeArray:
            self.inner = function(self.inner, _inner(other))
            return self
        return apply

    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"):
        function = getattr(operator, name + "_" if name in ("and", "or") else name)
        setattr(FakeArray, f"__{name}__", forward(function))
        setattr(FakeArray, f"__r{name}__", reflected(function))
        if name != "matmul":
            setattr(FakeArray, f"__i{name}__", in_place(getattr(operator, f"i{name}")))
    for name in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(FakeArray, f"__{name}__", forward(getattr(operator, name)))
    for name in ("neg", "abs", "invert"):
        function = getattr(operator, name)
        setattr(FakeArray, f"__{name}__", lambda self, function=function: _outer(function(self.inner)))


_add_operators()


class _Function:
    """One function of the array module, with CuPy's keyword arguments and, for ufuncs, CuPy's methods."""

    def __init__(self, name: str, function: Callable[..., Any], allowed: Any) -> None:
        self.name, self.function, self.allowed = name, function, allowed

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        _check_keywords(self.name, self.allowed, keywords)
        given = _inner(args)
        if self.name.endswith(".at"):
            _count_masks(args[1])
            given = (given[0], _wrapped(given[1], given[0].shape), *given[2:])
        return _outer(self.function(*given, **{k: _inner(v) for k, v in keywords.items()}))

    def __getattr__(self, method: str) -> Any:
        if self.name in _CUPY["ufuncs"] and (
                (method == "at" and self.name in _UFUNCS_WITH_AT)
                or (method == "reduce" and self.name in _UFUNCS_WITH_REDUCE)):
            return _Function(f"{self.name}.{method}", getattr(self.function, method), None)
        raise AttributeError(f"cupy.{self.name} has no {method!r}")


class _Module:
    """The array module of the fake device: NumPy, cut down to CuPy's names."""

    ndarray = FakeArray

    def __getattr__(self, name: str) -> Any:
        if name in _CUPY["functions"]:
            return _Function(name, getattr(np, name), _CUPY["functions"][name])
        if name in _CUPY["ufuncs"]:
            return _Function(name, getattr(np, name), _UFUNC_KEYWORDS)
        if name == "matmul":
            return _Function(name, np.matmul, ("out", "axes", "axis"))
        if name in _CUPY["others"]:
            return getattr(np, name)
        raise AttributeError(f"cupy has no {name!r}")

    @staticmethod
    def asarray(data: Any, dtype: Any = None) -> FakeArray:
        """An upload: lists, numbers and host arrays become device arrays."""
        if isinstance(data, FakeArray):
            return FakeArray(np.asarray(data.inner, dtype))
        return FakeArray(np.array(data, dtype))


def _sum(x: FakeArray, axes: Any, keepdims: bool) -> Any:
    return x.sum(axis=axes, keepdims=keepdims)


def _erf(x: Any) -> Any:
    return FakeArray(cpu.erf(x.inner))


backend = Backend(
    name="fake", xp=_Module(), array_type=FakeArray, is_host=False,
    from_host=lambda array: FakeArray(np.array(array)), to_host=lambda array: array.get(),
    sum=_sum, erf=_erf, unwrap=lambda array: array.inner, for_kernel=lambda array: array.inner,
)
register(backend)
