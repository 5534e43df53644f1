"""The GPU: arrays of CuPy, which has NumPy's names, on an NVIDIA card.

`problem()` says in one sentence why there is none, as far as it can be told: no CuPy, two of them, a CuPy that cannot
be loaded, no driver, one that is too old, no card, no numba-cuda. CuPy itself calls most of that "driver version is
insufficient".

A process computes on one card: the first that is asked for, `cuda` being `cuda:0`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np

from minidl.backend import Array, Axes, Backend, out_of_memory, register
from minidl.errors import DeviceError

# which CUDA a wheel of CuPy brings, and the oldest driver that can run it (on Linux)
WHEELS = {"cupy-cuda12x": ("12", "525"), "cupy-cuda13x": ("13", "580")}
_INSTALL = ("pip install 'minidl[cuda13]' (driver 580 or newer; `nvidia-smi` prints the version) or "
            "'minidl[cuda12]' (525 or newer)")


def wheels() -> list[str]:
    """The distributions of CuPy that are installed; they share one folder, so two of them are one too many."""
    names = {(found.metadata["Name"] or "").lower() for found in metadata.distributions()}
    return sorted(name for name in names if name == "cupy" or name.startswith("cupy-cuda"))


def problem() -> str | None:
    """Why nothing can be computed on a GPU, with what to do about it; None if all is there."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed; {_INSTALL}"
    installed = wheels()
    if len(installed) > 1:
        return (f"got {' and '.join(installed)}, which write to one folder and spoil each other; run pip uninstall "
                f"{' '.join(installed)}, then {_INSTALL}")
    try:
        cupy = importlib.import_module("cupy")
    except ModuleNotFoundError as error:
        return f"CuPy needs {error.name}, which is not installed; {_INSTALL}"
    except Exception as error:                              # a library of CUDA that it cannot load
        return f"CuPy cannot be loaded ({_first_line(error)}); run pip uninstall cupy, then {_INSTALL}"
    return _problem_of(cupy) or _problem_of_libraries() or _problem_of_numba()


def _problem_of(cupy: Any) -> str | None:
    runtime = cupy.cuda.runtime
    try:
        driver = runtime.driverGetVersion()
    except runtime.CUDARuntimeError:
        driver = 0
    if driver == 0:
        return ("there is no NVIDIA driver; install one, or on a computer without an NVIDIA card use the CPU "
                "(--device cpu)")
    needed = runtime.runtimeGetVersion()
    if driver // 1000 < needed // 1000:                     # 12080 is CUDA 12.8; minor versions go together
        return (f"the NVIDIA driver knows CUDA {version_text(driver)}, CuPy was made for {version_text(needed)}; "
                f"update the driver, or pip uninstall {' '.join(wheels()) or 'cupy'} and pip install "
                f"'minidl[cuda{driver // 1000}]'")
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        if "NoDevice" not in str(error):
            return f"the NVIDIA driver does not answer ({error}); see what nvidia-smi says"
        count = 0
    if count == 0:
        return ("there is an NVIDIA driver but no card that this process may use; see nvidia-smi, and whether "
                "CUDA_VISIBLE_DEVICES hides it")
    return None


def _problem_of_libraries() -> str | None:
    """CuPy loads cuBLAS at the first product of matrices; its wheels bring it only if they are asked to."""
    try:
        importlib.import_module("cupy_backends.cuda.libs.cublas")
    except ImportError as error:
        return (f"CuPy does not find CUDA's libraries ({_first_line(error)}); {_INSTALL}, which brings them")
    return None


def _problem_of_numba() -> str | None:
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return ("NUMBA_ENABLE_CUDASIM=1 is set, with which kernels run in the simulator and not on the card; unset it, "
                'or use the simulator on the CPU, with use_kernels("cuda")')
    try:
        version = metadata.version("numba-cuda")
        importlib.import_module("minidl.numba_cuda")
    except (ImportError, metadata.PackageNotFoundError):
        return f"numba-cuda, which compiles the kernels, is not installed; {_INSTALL}"
    except AttributeError as error:                         # of a NumPy that it does not know
        return (f"numba-cuda {version} does not go together with NumPy {np.__version__} ({_first_line(error)}); "
                f"pip install --upgrade numba-cuda")
    return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def version_text(number: int) -> str:
    """13020 is CUDA 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"


@cache
def cupy_or_error() -> Any:
    """The module CuPy, once it is known to work. Raises `DeviceError` with `problem()` as its sentence."""
    found = problem()
    if found is not None:
        cupy_or_error.cache_clear()
        raise DeviceError(f"got device \"cuda\", but {found}", where="cuda")
    return importlib.import_module("cupy")


def backend_on(index: int | None) -> Backend:
    """The backend of `cuda:index`. Raises `DeviceError` if it is not there, or another one is in use."""
    cupy = cupy_or_error()
    count = cupy.cuda.runtime.getDeviceCount()
    number = index or 0
    if number >= count:
        there = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f'got device "cuda:{number}", but there is {there}', where="cuda")
    return _backend(_in_use[0] if index is None and _in_use else number)


_in_use: list[int] = []
_thread = threading.local()


@cache
def _backend(number: int) -> Backend:
    cupy = cupy_or_error()
    if _in_use and _in_use[0] != number:
        raise DeviceError(f'got device "cuda:{number}", but this process computes on cuda:{_in_use[0]} already; use '
                          f"one card in a process, or choose it with CUDA_VISIBLE_DEVICES={number}", where="cuda")
    _in_use.append(number)
    _on_our_card()
    made = Backend(
        name=f"cuda:{number}", xp=cupy, array_type=cupy.ndarray, is_host=False, from_host=_upload,
        to_host=lambda array: array.get(), sum=_sum, erf=_erf, kernels="cuda", for_kernel=_for_numba, stream=_stream,
        free_memory=_free_memory,
    )
    register(made)
    return made


def _upload(array: np.ndarray) -> Array:
    _on_our_card()
    try:
        return cupy_or_error().asarray(array, order="C")
    except MemoryError as error:
        raise out_of_memory(error, _backend(_in_use[0]), "to") from error


def _on_our_card() -> None:
    """CuPy notes for each thread which card it uses, and starts with the first; and it connects a thread with the card
    when the thread first needs it, which a kernel of ours would not wait for.
    """
    if _in_use[0] != 0 or not hasattr(_thread, "is_connected"):
        cupy_or_error().cuda.Device(_in_use[0]).use()
        _thread.is_connected = True


def _free_memory() -> tuple[int, int]:
    """(free, all) bytes; free is what the card has, and what CuPy keeps for the next array."""
    cupy = cupy_or_error()
    free, total = cupy.cuda.runtime.memGetInfo()
    return free + cupy.get_default_memory_pool().free_bytes(), total


def _sum(x: Array, axes: Axes, keepdims: bool) -> Array:
    # Each of CuPy's threads adds many terms one after the other; in float64 that costs no digits of the result, and no
    # time, because the memory is the slower of the two.
    if x.dtype == np.float32 or x.dtype == np.float16:
        return x.sum(axis=axes, dtype=np.float64, keepdims=keepdims).astype(x.dtype)
    return x.sum(axis=axes, keepdims=keepdims)


def _erf(x: Array) -> Array:
    return importlib.import_module("cupyx.scipy.special").erf(x)


def _for_numba(array: Array) -> Any:
    """Where its numbers lie: what a kernel that Numba compiled is given for an array, beside its size and strides."""
    return array.data.ptr


def _stream() -> int:
    """CuPy's current stream, as the number that CUDA knows it by."""
    _on_our_card()
    pointer: int = cupy_or_error().cuda.get_current_stream().ptr
    return pointer
