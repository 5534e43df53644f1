"""Starting kernels on a GPU: one way in, which costs little and refuses what Numba would put right silently and slowly.

A NumPy array handed to a compiled kernel is uploaded before it and downloaded after it, with a warning at most; an
array in another layout is another type to the compiler, which compiles the kernel again; a kernel on a stream of its
own does not wait for what the array library has been asked to do. None of that happens here.

At every launch Numba would also wrap each array in one of its own and find out its type, which takes far longer than
the launch itself. Here Numba compiles a kernel, once for each combination of types of arguments, and NVIDIA's library
`cuda.core` starts it, as it does for Numba. It is given what Numba's compiled kernels take, numbers only:

    an array            0, 0, its size, bytes of an element, its address, its shape, its strides in bytes
                        (the zeros: who owns the memory and from which array it was cut, of no use on a GPU)
    a tuple             its elements
    an int, a float     itself, in 8 bytes; a NumPy scalar in its own size

An array must live until `launch` has returned. It may be freed then, before the kernel has begun: its memory goes to
work that comes later in the same stream.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
from numba import config

from minidl.backend import Array, Backend, backend_of
from minidl.errors import DeviceError
from minidl.numba_cuda import cuda

THREADS = 256                                   # in a block, for kernels in which threads have nothing to share
NUMBERS = (int, float, np.generic, tuple)       # arguments that are no arrays
launches: Counter[str] = Counter()              # kernel -> how often it was started

config.CUDA_LOW_OCCUPANCY_WARNINGS = 0          # Numba warns of grids under 128 blocks; small networks have no others

_compiled: dict[tuple[Any, ...], Any] = {}      # a kernel and the kinds of its arguments -> what cuda.core starts


def is_simulated() -> bool:
    """Whether kernels run in Numba's simulator, on the CPU: NUMBA_ENABLE_CUDASIM=1 when Numba was loaded."""
    return bool(cuda.jit.__module__.startswith("numba.cuda.simulator"))


if not is_simulated():
    from numba.cuda.typing.typeof import typeof

    core: Any = importlib.import_module("cuda.core")


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
    backends = [_checked(kernel, argument) for argument in arguments if not isinstance(argument, NUMBERS)]
    launches[kernel.__name__] += 1
    if is_simulated():
        kernel[blocks, threads](*(argument if isinstance(argument, NUMBERS) else
                                  backend_of(argument).for_kernel(argument) for argument in arguments))
        return
    stream = core_stream(backends[0].stream() if backends else 0)           # first of all, it chooses the card
    kinds, words = kinds_and_words(arguments)
    function = _compiled.get((kernel, *kinds)) or _compile(kernel, kinds, arguments)
    core.launch(stream, launch_config(blocks, threads), function, *words)


def _checked(kernel: Any, array: Array) -> Backend:
    """The backend of an array that a kernel can be given."""
    backend = backend_of(array)
    if not array.flags.c_contiguous:
        raise DeviceError(f"got an array of shape {array.shape} and strides {array.strides}, expected one in C order; "
                          f"use xp.ascontiguousarray(x)", where=kernel.__name__)
    if backend.kernels != "cuda" and not is_simulated():
        raise DeviceError(f'got an array of shape {array.shape} on "{backend.name}", expected one on the GPU; move it '
                          f'with .to("cuda"), or set NUMBA_ENABLE_CUDASIM=1 to run kernels in the simulator',
                          where=kernel.__name__)
    return backend


def kinds_and_words(arguments: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """What a kernel is compiled for, one kind for each argument; and the words that it is given."""
    kinds: list[Any] = []
    words: list[Any] = []
    for argument in arguments:
        if isinstance(argument, tuple):
            kinds.append(tuple(map(type, argument)))
            words += argument
        elif isinstance(argument, NUMBERS):
            kinds.append(type(argument))
            words.append(argument)
        else:
            kinds.append((argument.dtype, argument.ndim))
            words += (0, 0, argument.size, argument.itemsize, backend_of(argument).for_kernel(argument),
                      *argument.shape, *argument.strides)
    return kinds, words


def _compile(kernel: Any, kinds: list[Any], arguments: tuple[Any, ...]) -> Any:
    """The kernel, compiled for arguments of these kinds, from now on."""
    types = tuple(typeof(argument if isinstance(argument, NUMBERS) else np.empty((0,) * argument.ndim, argument.dtype))
                  for argument in arguments)
    function = kernel.compile(types).library.get_cufunc().kernel
    _compiled[kernel, *kinds] = function
    return function


@lru_cache(maxsize=4096)
def launch_config(blocks: int | tuple[int, ...], threads: int) -> Any:
    """So many blocks of so many threads, as cuda.core takes it."""
    return core.LaunchConfig(grid=blocks, block=threads)


@lru_cache(maxsize=64)
def core_stream(pointer: int) -> Any:
    """The stream of the array library, as cuda.core takes it."""
    return core.Stream.from_handle(pointer)
