"""Activation functions. `inplace` is accepted everywhere and changes nothing."""

from __future__ import annotations

import math

from minidl import ops
from minidl.errors import SettingError, ShapeError
from minidl.nn.functional.checks import check_number, check_tensors
from minidl.rng import default_generator
from minidl.tensors import Tensor
from minidl.tensors.arithmetic import as_operand


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    return input.relu()


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x between 0 and 6."""
    return hardtanh(input, 0.0, 6.0)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where x > 0, else slope · x."""
    return ops.LeakyReLU(negative_slope)(input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else w · x: one slope (1,) for all, or (C,) one for each channel of x (N, C, …)."""
    check_tensors("prelu", input, weight)
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        raise ShapeError(f"got slopes of shape {weight.shape} for {channels} channels, expected (1,) or ({channels},)",
                         where="prelu")
    slopes = weight.reshape(-1, *[1] * (input.ndim - 2)) if weight.numel() > 1 else weight     # (C,) -> (C, 1, …)
    return ops.PReLU()(input, slopes)


def rrelu(input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """Leaky ReLU with a slope drawn between lower and upper for each number in training, else their mean.

    Ref: Xu et al. 2015, arXiv:1505.00853
    """
    if not lower <= upper:
        raise SettingError(f"got lower={lower} above upper={upper}", where="rrelu")
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    slopes = as_operand(default_generator.numpy.uniform(lower, upper, tuple(input.shape))).to(input.device)
    return ops.Where()(input > 0, input, input * slopes.to(input.dtype))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else α (e^x - 1)."""
    return ops.ELU(alpha)(input)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """λ · elu(x, α), with the λ and α that keep mean 0 and variance 1 from layer to layer.

    Ref: Klambauer et al. 2017, arXiv:1706.02515
    """
    return 1.0507009873554804934193349852946 * ops.ELU(1.6732632423543772848170429916717)(input)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where x > 0, else α (e^(x/α) - 1): an elu whose slope at 0 is 1 for every α > 0.

    Ref: Barron 2017, arXiv:1704.07483
    """
    check_number(alpha, "alpha", "celu", 1e-300)
    return alpha * ops.ELU(1.0)(input / alpha)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x · Φ(x), or its approximation by "tanh"."""
    if approximate == "none":
        return ops.GELU()(input)
    if approximate != "tanh":
        raise SettingError(f'got approximate={approximate!r}, expected "none" or "tanh"', where="gelu")
    inner = math.sqrt(2 / math.pi) * (input + 0.044715 * input * input * input)
    return 0.5 * input * (1 + inner.tanh())


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x · sigmoid(x). Ref: Elfwing et al. 2017, arXiv:1702.03118."""
    return ops.SiLU()(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · tanh(softplus(x)). Ref: Misra 2019, arXiv:1908.08681."""
    return input * ops.Softplus()(input).tanh()


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """1/β · log(1 + e^βx). Exact everywhere, so that no `threshold` is needed beyond which it would be x."""
    if beta == 0:
        raise SettingError("got beta=0, expected another number: it divides", where="softplus")
    return ops.Softplus(beta)(input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (1 + input.abs())


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - input.tanh()


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x between min_val and max_val."""
    if not min_val <= max_val:
        raise SettingError(f"got min_val={min_val} above max_val={max_val}", where="hardtanh")
    return ops.HardTanh(min_val, max_val)(input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x/6 + 1/2 between 0 and 1."""
    return ops.HardTanh(0.0, 6.0)(input + 3) / 6


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x · hardsigmoid(x). Ref: Howard et al. 2019, arXiv:1905.02244."""
    return input * hardsigmoid(input)


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)) = -softplus(-x), exact for every x."""
    return -ops.Softplus()(-input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x is above the threshold, else `value`."""
    return ops.Where()(input <= threshold, value, input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x, but 0 between -λ and λ."""
    return ops.Where()(input.abs() <= lambd, 0, input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by λ, and 0 between -λ and λ."""
    check_number(lambd, "lambd", "softshrink", 0)
    return input - ops.Clamp(-lambd, lambd)(input)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return input.tanh()


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return input.sigmoid()


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a · sigmoid(b), where a and b are the halves of x along `dim`. Ref: Dauphin et al. 2017, arXiv:1612.08083."""
    if input.shape[dim] % 2:
        raise ShapeError(f"got {input.shape[dim]} numbers along dim {dim}, expected an even count", where="glu")
    a, b = input.chunk(2, dim)
    return a * b.sigmoid()


def softmax(input: Tensor, dim: int | None = None, dtype: object = None) -> Tensor:
    """e^x divided by its sum along `dim`."""
    return input.softmax(class_axis(input, dim, "softmax"), dtype=dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: object = None) -> Tensor:
    """The logarithm of softmax."""
    return input.log_softmax(class_axis(input, dim, "log_softmax"), dtype=dtype)


def softmin(input: Tensor, dim: int | None = None, dtype: object = None) -> Tensor:
    """softmax(-x)."""
    return (-input).softmax(class_axis(input, dim, "softmin"), dtype=dtype)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, dim: int = -1) -> Tensor:
    """A draw from the classes that has a gradient: softmax((x + Gumbel noise) / τ). hard: one-hot going forward.

    Ref: Jang, Gu, Poole 2017, arXiv:1611.01144
    """
    noise = as_operand(default_generator.numpy.gumbel(size=tuple(logits.shape))).to(logits.device).to(logits.dtype)
    soft = ((logits + noise) / tau).softmax(dim)
    if not hard:
        return soft
    index = soft.argmax(dim, keepdim=True)
    one = soft.detach().new_zeros(soft.shape).scatter(dim, index, 1.0)
    return one - soft.detach() + soft


def class_axis(x: Tensor, dim: int | None, where: str) -> int:
    """The axis of a softmax. Vectors and matrices leave no doubt; for more axes it must be said which one."""
    if dim is not None:
        return dim
    if x.ndim > 2:
        raise SettingError(f"got no dim for a tensor of shape {x.shape}, expected the axis of the classes; use dim=1 "
                           f"for (N, C, …)", where=where)
    return -1
