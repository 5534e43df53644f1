"""Kernels for a GPU, run on the CPU as plain Python, one thread after another: to step through, and to find races.

Numba has a simulator of its own, in which each thread of a block is a thread of the operating system; a block of 256
takes half a minute, and what comes out depends on who was faster. Here each thread of the block is a greenlet, a
function that can be left and entered again. One runs at a time, until it comes to `cuda.syncthreads()` or to its end;
then the next one does. So a debugger can stop anywhere, every run is the same, and a small kernel takes a second.

    NUMBA_ENABLE_CUDASIM=1 python script.py

    from minidl.debug import simulator

    simulator.install()                             # before the first launch
    with minidl.use_kernels("cuda"):                # a breakpoint in minidl/kernels/cuda/tiled.py now stops
        y = conv(x)

A kernel may not depend on the order in which threads run between two barriers; `order` chooses it: "forward", "reverse"
or a seed to shuffle by. Shared and local memory start as nan, as on a GPU they start as anything. With a barrier
missing, one of these orders reads what has not been written yet, and nan comes out.

It is a model of the GPU, not one: threads run whole stretches and not 32 in step, an index beyond the end is an error
where a GPU reads somebody else's memory, and there is no timing. Needs greenlet (`pip install greenlet`).
"""

from __future__ import annotations

import random
import sys
import threading
from typing import Any

import numpy as np

from minidl.errors import MinidlError, SettingError

MOST_SHARED = 48 * 1024                     # bytes that a block can have without asking for more


class SimulatorError(MinidlError):
    """A kernel that a GPU would hang on, or not start."""


def install(order: str | int = "forward") -> None:
    """Let the simulator run threads in this order, from now on.

    Raises `SettingError` for an unknown order, or if Numba's simulator is not on.
    """
    if order not in ("forward", "reverse") and (not isinstance(order, int) or isinstance(order, bool)):
        raise SettingError(f'got order={order!r}, expected "forward", "reverse" or a seed', where="simulator")
    from numba import cuda

    if not cuda.jit.__module__.startswith("numba.cuda.simulator"):
        raise SettingError("got Numba with its compiler for GPUs, expected its simulator; set NUMBA_ENABLE_CUDASIM=1 "
                           "in the environment before Python starts", where="simulator")
    try:
        import greenlet  # noqa: F401
    except ImportError:
        raise SettingError("got no greenlet, which lets one thread wait while others run; pip install greenlet",
                           where="simulator") from None
    from numba.cuda.simulator import kernel, kernelapi

    _Block.order = order
    kernel.BlockManager = _Block
    kernelapi.threading = _Threading                        # who asks for the current thread gets a greenlet
    kernelapi.FakeCUDAShared.array = _shared_array
    kernelapi.FakeCUDALocal.array = _local_array


class _Threading:
    """What the simulator uses of the module `threading`."""

    Lock = threading.Lock

    @staticmethod
    def current_thread() -> Any:
        from greenlet import getcurrent

        return getcurrent().thread


class _Thread:
    """One thread of a block: who it is, and the barrier that it waits at."""

    def __init__(self, block: _Block, index: tuple[int, ...], run: Any) -> None:
        from greenlet import greenlet
        from numba.cuda.simulator.kernelapi import Dim3

        self.block, self.threadIdx, self.blockIdx = block, Dim3(*index), block.index
        width, height, _ = block.size
        self.thread_id = index[0] + width * (index[1] + height * index[2])
        self.waits_at: str | None = None
        self.greenlet = greenlet(run)
        self.greenlet.thread = self

    def syncthreads(self) -> None:
        """Let the others come to this point too."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename.endswith("kernelapi.py") and frame.f_back is not None:
            frame = frame.f_back
        self.waits_at = f"line {frame.f_lineno} of {frame.f_code.co_name}"
        self.greenlet.parent.switch()


class _Block:
    """Takes the place of the simulator's own BlockManager: runs the threads of one block."""

    order: str | int = "forward"

    def __init__(self, kernel: Any, grid: tuple[int, ...], size: tuple[int, ...], debug: bool) -> None:
        self.kernel, self.size = kernel, size

    def run(self, place: tuple[int, ...], *arguments: Any) -> None:
        """From barrier to barrier, until all have come to their end."""
        from numba.cuda.simulator.kernelapi import Dim3

        self.index = Dim3(*place)
        threads = [_Thread(self, index, lambda: self.kernel(*arguments)) for index in np.ndindex(*self.size)]
        if self.order == "reverse":
            threads.reverse()
        elif self.order != "forward":
            random.Random(self.order).shuffle(threads)
        while threads:
            for thread in threads:
                thread.waits_at = None
                thread.greenlet.switch()
            waiting = [thread for thread in threads if thread.waits_at is not None]
            places = {thread.waits_at for thread in waiting}
            if waiting and (len(waiting) < len(threads) or len(places) > 1):
                where = " and ".join(sorted(place for place in places if place))
                raise SimulatorError(f"{len(threads) - len(waiting)} of {len(threads)} threads of a block have ended "
                                     f"and the others wait at {where}; all must come to the same barrier",
                                     where=self.kernel.__name__)
            threads = waiting


def _shared_array(self: Any, shape: Any, dtype: Any, alignment: Any = None) -> np.ndarray:
    """One array a block for each place in the code that asks for one."""
    frame = sys._getframe(1)
    place = frame.f_code, frame.f_lasti
    if place not in self._allocations:
        self._allocations[place] = _poisoned(shape, dtype)
        total = sum(array.nbytes for array in self._allocations.values())
        if total > MOST_SHARED:
            raise SimulatorError(f"got {total:,} bytes of shared memory in a block, expected at most {MOST_SHARED:,}",
                                 where=frame.f_code.co_name)
    return self._allocations[place]  # type: ignore[no-any-return]


def _local_array(self: Any, shape: Any, dtype: Any, alignment: Any = None) -> np.ndarray:
    return _poisoned(shape, dtype)


def _poisoned(shape: Any, dtype: Any) -> np.ndarray:
    """Memory as a GPU gives it, with anything in it: nan, or the lowest integer."""
    from numba.cuda import types
    from numba.cuda.np import numpy_support

    kind = np.dtype(numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else dtype)
    return np.full(shape, np.nan if kind.kind == "f" else np.iinfo(kind).min, kind)
