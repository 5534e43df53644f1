"""Starting kernels on a GPU: one way in, which refuses what Numba would put right silently and slowly.

A NumPy array handed to a compiled kernel is uploaded before it and downloaded after it, with a warning at most; an
array in another layout is another type to the compiler, which compiles the kernel again; a kernel on a stream of its
own does not wait for what the array library has been asked to do. None of that happens here.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numba import config

from minidl.backend import Array, backend_of
from minidl.errors import DeviceError
from minidl.numba_cuda import cuda

THREADS = 256                                   # in a block, for kernels in which threads have nothing to share
launches: Counter[str] = Counter()              # kernel -> how often it was started

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0          # Numba warns of grids under 128 blocks; small networks have no others


def is_simulated() -> bool:
    """Whether kernels run in Numba's simulator, on the CPU: NUMBA_ENABLE_CUDASIM=1 when Numba was loaded."""
    return bool(cuda.jit.__module__.startswith("numba.cuda.simulator"))


def blocks_for(result: Array) -> int:
    """How many blocks of THREADS threads give each number of the result a thread."""
    return -(-int(result.size) // THREADS)


def launch(kernel: Any, blocks: int | tuple[int, ...], threads: int, *arguments: Any) -> None:
    """kernel[blocks, threads](*arguments), on the stream that the array library uses now. It does not wait for the end.

    Arguments are device arrays in C order, numbers, and tuples of numbers. Raises `DeviceError` for an array on the
    host, and for one in another order.
    """
    number_of_blocks = math.prod(blocks) if isinstance(blocks, tuple) else blocks
    if number_of_blocks == 0:                                               # a result without a number
        return
    given, backend = [], None
    for argument in arguments:
        if isinstance(argument, int | float | tuple | np.generic):
            given.append(argument)
            continue
        backend = backend_of(argument)
        if not argument.flags.c_contiguous:
            raise DeviceError(f"got an array of shape {argument.shape} and strides {argument.strides}, expected one "
                              f"in C order; use xp.ascontiguousarray(x)", where=kernel.__name__)
        if backend.kernels != "cuda" and not is_simulated():
            raise DeviceError(f'got an array of shape {argument.shape} on "{backend.name}", expected one on the GPU; '
                              f'move it with .to("cuda"), or set NUMBA_ENABLE_CUDASIM=1 to run kernels in the '
                              f"simulator", where=kernel.__name__)
        given.append(backend.for_kernel(argument))
    launches[kernel.__name__] += 1
    kernel[blocks, threads, backend.stream() if backend else 0](*given)
