"""Where arrays live: everything that differs between NumPy on the CPU and another array library is here.

An op never writes `np.`; it asks `xp_of(x)` for the array module of the array in its hands:

    def forward(self, x):
        return xp_of(x).exp(x)

so the same line runs on any device. A `Backend` is found from the type of an array (`backend_of`) or from a device
(`backend_for`). The test backend `fake` (see `minidl/fake.py`) has the strictness of a GPU without needing one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from minidl.errors import DeviceError, OutOfMemoryError

Array: TypeAlias = Any                  # an ndarray of NumPy, or the same thing on another device
Axes: TypeAlias = int | tuple[int, ...] | None


@dataclass(frozen=True, eq=False)
class Backend:
    """One place where arrays live, and how to reach it."""

    name: str                                           # "cpu", "fake"
    xp: Any                                             # the array module: numpy, or one with numpy's names
    array_type: type
    is_host: bool                                       # can Python read values without waiting for a device?
    from_host: Callable[[np.ndarray], Array]            # upload
    to_host: Callable[[Array], np.ndarray]              # download
    sum: Callable[[Array, Axes, bool], Array]           # a sum that keeps its precision in float32
    erf: Callable[[Array], Array]                       # the error function, which no array module itself has
    unwrap: Callable[[Array], Array] = lambda array: array      # the array with a `base` that tells who owns memory
    kernels: str = "im2col"                             # the kernel set for its arrays
    for_kernel: Callable[[Array], Any] = lambda array: array    # as Numba takes it, where kernels run on it
    stream: Callable[[], Any] = lambda: 0               # the queue that its work goes into now
    free_memory: Callable[[], tuple[int, int] | None] = lambda: None        # (free, all) bytes, where that is known


class device:
    """The name of a place for tensors: `device("cpu")`, `device("cuda", 0)`, `device("cuda:0")`.

    Making one checks its spelling, not that the device is there; that is found out when a tensor is moved to it.
    `device("auto")` is the GPU if there is one, else the CPU, and says which on stderr.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, place: str | device, index: int | None = None) -> None:
        name, _, number = (_chosen_by_auto() if place == "auto" else str(place)).partition(":")
        if name not in ("cpu", "cuda", "fake") or (number and not number.isdigit()):
            raise DeviceError(f'got {place!r}, expected "cpu", "cuda", "cuda:0" or "auto"', where="device")
        self.type = name
        self.index = int(number) if number else index

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))


def why_no_cuda() -> str | None:
    """Why nothing can be computed on a GPU, with what to do about it; None if it can."""
    found: str | None = importlib.import_module("minidl.cupy_backend").problem()
    return found


def _chosen_by_auto() -> str:
    reason = why_no_cuda()
    name = "cuda" if reason is None else "cpu"
    sys.stderr.write(f'minidl: device "auto" is "{name}"{f", because {reason}" if reason else ""}\n')
    return name


def _sum_on_host(x: Array, axes: Axes, keepdims: bool) -> Array:
    # NumPy adds pairwise only along the fastest axis; along the others a float32 sum of n terms loses log2(n) bits.
    # Adding in float64 costs less than twice the time and gives the digits back.
    if x.dtype == np.float32 or x.dtype == np.float16:
        return x.sum(axis=axes, dtype=np.float64, keepdims=keepdims).astype(x.dtype)
    return x.sum(axis=axes, keepdims=keepdims)


def _erf_on_host(x: Array) -> Array:
    scipy_special = importlib.import_module("scipy.special")        # here, because `import minidl` is to be light
    return scipy_special.erf(x)


cpu = Backend(
    name="cpu", xp=np, array_type=np.ndarray, is_host=True,
    from_host=lambda array: array, to_host=lambda array: array, sum=_sum_on_host, erf=_erf_on_host,
    kernels="simd",
)

_by_array_type: dict[type, Backend] = {np.ndarray: cpu}


def register(backend: Backend) -> None:
    """Make the arrays of `backend` known to `backend_of` and `xp_of`."""
    _by_array_type[backend.array_type] = backend


def backend_of(array: Array) -> Backend:
    """The backend that an array lives on, found by the array's type."""
    try:
        return _by_array_type[type(array)]
    except KeyError:
        raise DeviceError(f"got a {type(array).__name__}, expected an array of a known backend "
                          f"({', '.join(b.name for b in _by_array_type.values())})") from None


def xp_of(array: Array) -> Any:
    """The array module (NumPy, or one with its names) that an array belongs to."""
    return backend_of(array).xp


def backend_for(place: str | device) -> Backend:
    """The backend of a device; loads it at first use. Raises `DeviceError` if it is not there."""
    place = device(place)
    if place.type == "cpu":
        return cpu
    if place.type == "fake":
        fake: Backend = importlib.import_module("minidl.fake").backend      # loaded here: only tests pay for it
        return fake
    on_cuda: Backend = importlib.import_module("minidl.cupy_backend").backend_on(place.index)
    return on_cuda


def device_of(array: Array) -> device:
    """The device that an array lives on."""
    return device(backend_of(array).name)


def memory_of(array: Array) -> object:
    """The object that owns the memory: two arrays with the same owner are views of one another."""
    inner = backend_of(array).unwrap(array)
    while isinstance(inner.base, type(inner)):              # not a buffer: bytes under an array own nothing that we see
        inner = inner.base
    return inner


def is_same_place(a: Array, b: Array) -> bool:
    """Whether two arrays are the same elements of the same memory."""
    if a.shape != b.shape or a.strides != b.strides:
        return False
    first, second = backend_of(a).unwrap(a), backend_of(b).unwrap(b)
    kind = "__array_interface__" if hasattr(first, "__array_interface__") else "__cuda_array_interface__"
    return bool(getattr(first, kind)["data"][0] == getattr(second, kind)["data"][0])


def is_writable(array: Array) -> bool:
    """Whether the memory may be changed; NumPy can lock an array, other libraries cannot."""
    return bool(getattr(array.flags, "writeable", True))


def as_array(result: Any) -> Array:
    """What a function of NumPy returned, as an array: its reductions and its sums of 0-d arrays give scalars."""
    return np.asarray(result) if isinstance(result, np.generic) else result


def as_number(value: Any) -> bool | int | float | None:
    """`value` as a plain Python number if it is one (a NumPy scalar counts), else None.

    NumPy's own scalars are not let through: `float32_array * np.sqrt(64)` would become float64.
    """
    if type(value) in (float, int, bool):
        return value  # type: ignore[no-any-return]
    if isinstance(value, np.generic):
        return value.item()  # type: ignore[no-any-return]
    return None


def out_of_memory(error: MemoryError, backend: Backend, where: str) -> OutOfMemoryError:
    """The array library's MemoryError in words: what was asked for, what is there, and what to do."""
    free = backend.free_memory()
    asked = getattr(error, "_size", None) or getattr(error, "_total_size", None)        # CuPy's, and NumPy's
    what = f"{int(asked):,} bytes" if asked else f"more memory ({error})"
    there = f", and {free[0]:,} of {free[1]:,} bytes on the GPU are free" if free else ", more than the system gives"
    return OutOfMemoryError(f"got a need for {what}{there}; use a smaller batch size", where=where)


def quiet() -> Any:
    """A context in which overflow and 0/0 give inf and nan without NumPy's warnings, as on every other device."""
    return np.errstate(all="ignore")
