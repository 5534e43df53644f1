"""Questions about the GPU, under PyTorch's names."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, NamedTuple

from minidl.backend import backend_for, why_no_cuda
from minidl.backend import device as _device
from minidl.errors import no_such_name
from minidl.rng import manual_seed as _manual_seed


class DeviceProperties(NamedTuple):
    """What a card is."""

    name: str
    major: int                          # of its compute capability: sm_90 is 9.0
    minor: int
    total_memory: int                   # bytes
    multi_processor_count: int


@cache
def is_available() -> bool:
    """Whether tensors can be moved to a GPU. `python -m minidl doctor` says why not."""
    return why_no_cuda() is None


def device_count() -> int:
    """How many GPUs there are."""
    if not is_available():
        return 0
    cupy = importlib.import_module("minidl.cupy_backend").cupy_or_error()       # without taking one into use
    return int(cupy.cuda.runtime.getDeviceCount())


def current_device() -> int:
    """The number of the GPU in use."""
    return int(backend_for("cuda").name.partition(":")[2])


def set_device(device: Any) -> None:
    """Compute on this GPU: a number, "cuda:1" or a device. Before anything else went to another one."""
    backend_for(_device(device if isinstance(device, str | _device) else f"cuda:{device}"))


def get_device_properties(device: Any = None) -> DeviceProperties:
    """What the GPU in use is."""
    found = _cupy().cuda.runtime.getDeviceProperties(current_device())
    name = found["name"]
    return DeviceProperties(name.decode() if isinstance(name, bytes) else name, int(found["major"]),
                            int(found["minor"]), int(found["totalGlobalMem"]), int(found["multiProcessorCount"]))


def get_device_name(device: Any = None) -> str:
    """The name of the GPU in use."""
    return get_device_properties().name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """(9, 0) for sm_90."""
    properties = get_device_properties()
    return properties.major, properties.minor


def manual_seed(seed: int) -> None:
    """Seed the global generator: there is one for all devices."""
    _manual_seed(seed)


manual_seed_all = manual_seed


def synchronize(device: Any = None) -> None:
    """Wait until the GPU has done all that it was asked for; without one there is nothing to wait for."""
    if is_available():
        _cupy().cuda.get_current_stream().synchronize()


def empty_cache() -> None:
    """Give memory that is kept for the next arrays back to the card."""
    if is_available():
        _cupy().get_default_memory_pool().free_all_blocks()


def memory_allocated(device: Any = None) -> int:
    """The bytes of all arrays on the GPU."""
    return int(_cupy().get_default_memory_pool().used_bytes()) if is_available() else 0


def memory_reserved(device: Any = None) -> int:
    """The bytes of all arrays, and of what is kept for the next ones."""
    return int(_cupy().get_default_memory_pool().total_bytes()) if is_available() else 0


def _cupy() -> Any:
    return backend_for("cuda").xp


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.cuda", name, [known for known in globals() if not known.startswith("_")],
                       {"amp": "numbers are computed as they are stored", "Stream": "use CuPy's, cupy.cuda.Stream",
                        "Event": "use CuPy's, cupy.cuda.Event"})
