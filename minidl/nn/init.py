"""How weights start. Each function fills a tensor in place and returns it.

A layer's fan-in is how many inputs one of its outputs adds up: weight.shape[1] times the size of the kernel. Its
fan-out is the same seen from an input: weight.shape[0] times the size of the kernel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.errors import SettingError, ShapeError, no_such_name
from minidl.recording import no_grad
from minidl.rng import Generator, default_generator
from minidl.tensors import Tensor

__all__ = [
    "calculate_gain", "constant_", "default_uniform_", "dirac_", "eye_", "fan_in_of", "fan_out_of", "kaiming_normal_",
    "kaiming_uniform_", "normal_", "ones_", "orthogonal_", "sparse_", "trunc_normal_", "uniform_", "xavier_normal_",
    "xavier_uniform_", "zeros_",
]


def fan_in_of(weight: Tensor) -> int:
    """The number of inputs that one output of a layer with this weight (O, I, …) adds up."""
    if weight.ndim < 2:
        raise ShapeError(f"got a weight of shape {weight.shape}, expected (outputs, inputs, …)", where="init")
    return int(math.prod(weight.shape[1:]))


def fan_out_of(weight: Tensor) -> int:
    """The number of outputs that one input of a layer with this weight (O, I, …) goes to."""
    return int(fan_in_of(weight) // max(1, weight.shape[1]) * weight.shape[0])


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """What an activation function takes from the size of the numbers; the weights are to give it back."""
    gains = {"linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv_transpose1d": 1.0, "conv_transpose2d": 1.0,
             "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4,
             "leaky_relu": math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))}
    if nonlinearity not in gains:
        raise SettingError(f"got nonlinearity={nonlinearity!r}, expected one of {', '.join(gains)}",
                           where="calculate_gain")
    return gains[nonlinearity]


# -- by numbers ----------------------------------------------------------------------------------------------------

def constant_(tensor: Tensor, val: float) -> Tensor:
    """One number everywhere."""
    with no_grad():
        return tensor.fill_(val)


def zeros_(tensor: Tensor) -> Tensor:
    """Zeros."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Ones."""
    return constant_(tensor, 1.0)


def eye_(tensor: Tensor) -> Tensor:
    """Ones on the diagonal of a matrix: a dense layer that passes its input on."""
    return _filled(tensor, np.eye(*_two_axes(tensor, "eye_")))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """A convolution that passes its input on: channel i of each group in the middle of kernel i."""
    if tensor.ndim < 3 or tensor.shape[0] % groups:
        raise ShapeError(f"got {tensor.shape} and groups={groups}, expected (O, C, K, …) with groups dividing O",
                         where="dirac_")
    outputs = tensor.shape[0] // groups
    kernel = np.zeros(tuple(tensor.shape))
    middle = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for i in range(min(outputs, tensor.shape[1])):
            kernel[(group * outputs + i, i, *middle)] = 1
    return _filled(tensor, kernel)


# -- by draws ------------------------------------------------------------------------------------------------------

def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform between a and b."""
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normally distributed."""
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def trunc_normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
                  generator: Generator | None = None) -> Tensor:
    """Normally distributed, and drawn again where outside of a to b."""
    if not a < b or not mean - 8 * std < b or not mean + 8 * std > a:
        raise SettingError(f"got a={a} and b={b}, expected an interval that draws of mean {mean} and std {std} meet",
                           where="trunc_normal_")
    draw = (generator or default_generator).numpy.normal
    numbers = draw(mean, std, tuple(tensor.shape))
    while (outside := (numbers < a) | (numbers > b)).any():
        numbers[outside] = draw(mean, std, outside.sum())
    return _filled(tensor, numbers)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform within ±gain · √(6 / (fan-in + fan-out)). Ref: Glorot and Bengio 2010."""
    bound = gain * math.sqrt(6 / (fan_in_of(tensor) + fan_out_of(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with the standard deviation gain · √(2 / (fan-in + fan-out))."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / (fan_in_of(tensor) + fan_out_of(tensor))), generator)


def kaiming_uniform_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                     generator: Generator | None = None) -> Tensor:
    """Uniform within ±gain · √(3 / fan). Ref: He et al. 2015, arXiv:1502.01852."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
                    generator: Generator | None = None) -> Tensor:
    """Normal with the standard deviation gain / √fan."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)), generator)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """Rows (or columns, if there are more rows) at right angles to each other. Ref: Saxe 2014, arXiv:1312.6120."""
    rows, columns = tensor.shape[0], fan_in_of(tensor)
    draws = (generator or default_generator).numpy.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(draws)
    q = q * np.sign(np.diag(r))                             # the signs that make all such matrices equally likely
    return _filled(tensor, gain * (q if rows >= columns else q.T).reshape(tuple(tensor.shape)))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Normal, with the share `sparsity` of each column 0."""
    rows, columns = _two_axes(tensor, "sparse_")
    numpy = (generator or default_generator).numpy
    numbers = numpy.normal(0, std, (rows, columns))
    for column in range(columns):
        numbers[numpy.permutation(rows)[:math.ceil(sparsity * rows)], column] = 0
    return _filled(tensor, numbers)


def default_uniform_(tensor: Tensor, fan_in: int) -> Tensor:
    """PyTorch's default for dense and convolutional layers, weight and bias: uniform within ±1/√fan_in."""
    bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
    return uniform_(tensor, -bound, bound)


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise SettingError(f'got mode={mode!r}, expected "fan_in" or "fan_out"', where="init")
    return max(1, fan_in_of(tensor) if mode == "fan_in" else fan_out_of(tensor))


def _two_axes(tensor: Tensor, where: str) -> tuple[int, int]:
    if tensor.ndim != 2:
        raise ShapeError(f"got {tensor.shape}, expected a matrix", where=where)
    return tensor.shape[0], tensor.shape[1]


def _filled(tensor: Tensor, numbers: np.ndarray) -> Tensor:
    with no_grad():
        return tensor.copy_(numbers)


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.nn.init", name, __all__, {"xavier_uniform": "use xavier_uniform_, in place"})
