"""minidl: a deep-learning engine to read, step through and run. PyTorch's names, plain Python underneath.

    import minidl as torch
    from minidl import nn, optim

Importing it loads NumPy and nothing heavier; Numba, matplotlib and scikit-learn come with the first use of what needs
them.
"""

import importlib as _importlib
import math as _math
from typing import Any as _Any

import minidl.environment  # noqa: F401  first: NumPy must not be there yet

# isort: split

import numpy as _np

from minidl import accelerator, autograd, backends, cuda, nn, optim
from minidl._version import __version__
from minidl.autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from minidl.backend import device
from minidl.backends import (
    get_num_threads,
    set_float32_matmul_precision,
    set_num_threads,
    use_deterministic_algorithms,
)
from minidl.creation import *  # noqa: F403
from minidl.creation import __all__ as _of_creation
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
from minidl.errors import no_such_name as _no_such_name
from minidl.functions import *  # noqa: F403
from minidl.functions import __all__ as _of_functions
from minidl.kernels import use_kernels
from minidl.kernels.memory import keep_freed_memory as _keep_freed_memory
from minidl.printing import set_printoptions
from minidl.rng import Generator, default_generator, get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from minidl.tensors import Size, Tensor

_keep_freed_memory()

inf, nan, pi, e = _math.inf, _math.nan, _math.pi, _math.e
inference_mode = no_grad
finfo, iinfo, dtype = _np.finfo, _np.iinfo, _np.dtype
newaxis = None

# name -> the module it is loaded from when it is first used
_LATER = {"draw": "minidl.debug.draw", "fuse": "minidl.nn.fusing", "gradcheck": "minidl.debug.gradcheck",
          "load": "minidl.io", "save": "minidl.io", "summary": "minidl.debug.summary"}
# modules that are loaded when they are first used
_MODULES_LATER = ("attacks", "data", "datasets", "distributions", "linalg", "models", "train", "transforms", "utils",
                  "visualize")
# functions of nn.functional that PyTorch has here too
_OF_FUNCTIONAL = ("adaptive_avg_pool1d", "avg_pool1d", "batch_norm", "bilinear", "celu", "conv1d", "conv2d",
                  "conv_transpose1d", "conv_transpose2d", "cosine_similarity", "dropout", "embedding", "group_norm",
                  "instance_norm", "layer_norm", "max_pool1d", "max_pool2d", "pairwise_distance", "pixel_shuffle",
                  "prelu", "rrelu", "selu", "softplus", "threshold")
# names of PyTorch that are not here, with what to use instead
_HINTS = {
    "bfloat16": "the float types are float16, float32 and float64",
    "complex64": "there are no complex numbers", "fft": "there are no complex numbers; use numpy.fft",
    "compile": "there is no compiler; call the model itself", "jit": "there is no compiler; call the model itself",
    "amp": "there is no mixed precision; the model computes in the type of its weights",
    "autocast": "there is no mixed precision; the model computes in the type of its weights",
    "distributed": "there is one process and one device", "multiprocessing": "use Python's own multiprocessing",
    "sparse": "there are no sparse tensors", "onnx": "there is no export",
    "special": "erf, log1p, expm1 and logsumexp are functions here", "vmap": "write the batch as an axis",
    "func": "use autograd.grad; with create_graph=True it can be differentiated again",
    "range": "use arange, which leaves out the end",
}


def __getattr__(name: str) -> _Any:
    if name in _LATER:
        return getattr(_importlib.import_module(_LATER[name]), name)
    if name in _OF_FUNCTIONAL:
        return getattr(nn.functional, name)
    if name in _MODULES_LATER:
        return _importlib.import_module(f"minidl.{name}")
    raise _no_such_name("minidl", name, __all__, _HINTS)


__all__ = [  # noqa: F405  draw, fuse, gradcheck and summary come from __getattr__
    "Generator", "MinidlError", "Size", "Tensor", "__version__", "accelerator", "autograd", "backends", "bool", "cuda",
    "default_generator", "device", "double", "draw", "dtype", "e", "enable_grad", "finfo", "float", "float16",
    "float32", "float64", "fuse", "get_default_dtype", "get_num_threads", "get_rng_state", "gradcheck", "half", "iinfo",
    "inf", "inference_mode", "initial_seed", "int", "int8", "int16", "int32", "int64", "is_grad_enabled", "load",
    "long", "manual_seed", "nan", "newaxis", "nn", "no_grad", "optim", "pi", "seed", "set_default_dtype",
    "set_float32_matmul_precision", "set_grad_enabled", "set_num_threads", "set_printoptions", "set_rng_state", "short",
    "summary", "uint8", "use_deterministic_algorithms", "use_kernels",
]
__all__ += _of_creation + _of_functions
