"""A stand-in for CuPy on a computer without a GPU: the fake device under CuPy's name, with a driver and a card.

`install()` puts it where `import cupy` finds it. Settings say what the driver and the card are; arrays are those of
minidl.fake. With Numba's simulator, kernels run on them too.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types

import numpy as np

from minidl import cupy_backend, fake


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    def __init__(self, size: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes")
        self._size = size


class StandIn(types.ModuleType):
    def __init__(self, driver: int = 13000, runtime: int = 13000, cards: int = 1, memory: int = 10**9) -> None:
        super().__init__("cupy")
        self.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
        self.ndarray = fake.FakeArray
        self.used: list[int] = []                               # which card was chosen
        self.memory = memory

        def count() -> int:
            if driver == 0:
                raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version")
            if cards == 0:
                raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
            return cards

        device = lambda number: types.SimpleNamespace(use=lambda: self.used.append(number))  # noqa: E731
        self.cuda = types.SimpleNamespace(
            runtime=types.SimpleNamespace(
                CUDARuntimeError=CUDARuntimeError, driverGetVersion=lambda: driver, runtimeGetVersion=lambda: runtime, getDeviceCount=count,
                memGetInfo=lambda: (self.memory, 2 * 10**9),
                getDeviceProperties=lambda number: {"name": b"Stand-in", "major": 9, "minor": 0, "totalGlobalMem": 2 * 10**9, "multiProcessorCount": 132}),
            Device=device, get_current_stream=lambda: types.SimpleNamespace(ptr=0, synchronize=lambda: None))

    def get_default_memory_pool(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(free_bytes=lambda: 5, used_bytes=lambda: 7, total_bytes=lambda: 12, free_all_blocks=lambda: None)

    def asarray(self, data, dtype=None, order=None):
        if getattr(data, "nbytes", 0) > self.memory:
            raise OutOfMemoryError(data.nbytes)
        return fake.backend.xp.asarray(np.array(data) if isinstance(data, np.ndarray) else data, dtype)

    def empty(self, shape, dtype=float):
        made = fake.backend.xp.empty(shape, dtype)
        if made.nbytes > self.memory:
            raise OutOfMemoryError(made.nbytes)
        return made

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(fake.backend.xp, name)


def install(**settings: int) -> StandIn:
    made = StandIn(**settings)
    sys.modules["cupy"] = made
    special = types.ModuleType("cupyx.scipy.special")
    special.erf = fake.backend.erf
    sys.modules.update({"cupyx": types.ModuleType("cupyx"), "cupyx.scipy": types.ModuleType("cupyx.scipy"), "cupyx.scipy.special": special})
    cupy_backend._problem_of_libraries = lambda: None
    cupy_backend._problem_of_numba = lambda: None               # the simulator takes numba's place
    cupy_backend.wheels = lambda: ["cupy-cuda13x"]
    cupy_backend._for_numba = lambda array: array.inner
    fake.FakeArray.__cuda_array_interface__ = property(lambda array: array.inner.__array_interface__)
    return made
