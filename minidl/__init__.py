"""minidl: a deep-learning engine to read, step through and run. PyTorch's names, plain Python underneath.

    import minidl as torch
    from minidl import nn, optim

Importing it loads NumPy and nothing heavier; Numba, matplotlib and scikit-learn come with the first use of what needs
them.
"""

import importlib as _importlib
import os as _os
from typing import Any as _Any

# Threads that wait for work must not spin: Numba's and the matrix library's take turns on the same cores, and spinning
# ones steal milliseconds from each other. OpenMP reads this once, before its first parallel region.
_os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from minidl import autograd, nn, optim
from minidl._version import __version__
from minidl.autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from minidl.backend import device
from minidl.creation import (
    arange,
    as_tensor,
    empty,
    eye,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    rand,
    rand_like,
    randint,
    randn,
    randn_like,
    randperm,
    tensor,
    zeros,
    zeros_like,
)
from minidl.dtypes import bool_ as bool
from minidl.dtypes import (
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    set_default_dtype,
    uint8,
)
from minidl.dtypes import float16 as half
from minidl.dtypes import float32 as float
from minidl.dtypes import float64 as double
from minidl.dtypes import int16 as short
from minidl.dtypes import int32 as int
from minidl.dtypes import int64 as long
from minidl.errors import MinidlError
from minidl.kernels import use_kernels
from minidl.rng import Generator, default_generator, initial_seed, manual_seed
from minidl.tensors import Tensor

# name -> the module it is loaded from when it is first used
_LATER = {"gradcheck": "minidl.debug.gradcheck"}


def __getattr__(name: str) -> _Any:
    if name in _LATER:
        return getattr(_importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"minidl has no {name!r}")


__all__ = [
    "Generator", "MinidlError", "Tensor", "__version__", "arange", "as_tensor", "autograd", "bool", "default_generator",
    "device", "double", "empty", "enable_grad", "eye", "float", "float16", "float32", "float64", "from_numpy", "full",
    "full_like", "get_default_dtype", "gradcheck", "half", "initial_seed", "int", "int8", "int16", "int32", "int64",
    "is_grad_enabled", "linspace", "long", "manual_seed", "nn", "no_grad", "ones", "ones_like", "optim", "rand",
    "rand_like", "randint", "randn", "randn_like", "randperm", "set_default_dtype", "set_grad_enabled", "short",
    "tensor", "uint8", "use_kernels", "zeros", "zeros_like",
]
