"""How weights start. Each function fills a tensor in place and returns it.

A layer's fan-in is how many inputs one of its outputs adds up: weight.shape[1] times the size of the kernel.
"""

from __future__ import annotations

import math

from minidl import creation
from minidl.errors import ShapeError
from minidl.recording import no_grad
from minidl.tensors import Tensor


def fan_in_of(weight: Tensor) -> int:
    """The number of inputs that one output of a layer with this weight (O, I, …) adds up."""
    if weight.ndim < 2:
        raise ShapeError(f"got a weight of shape {weight.shape}, expected (outputs, inputs, …)", where="init")
    return math.prod(weight.shape[1:])


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform between a and b."""
    with no_grad():
        draw = creation.rand(tensor.shape, dtype=tensor.dtype)
        return tensor.copy_(draw * (b - a) + a)


def default_uniform_(tensor: Tensor, fan_in: int) -> Tensor:
    """PyTorch's default for dense and convolutional layers, weight and bias: uniform within ±1/√fan_in."""
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
    return uniform_(tensor, -bound, bound)
