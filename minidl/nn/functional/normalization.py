"""Normalization: batch, layer, group and instance norm differ in which numbers share a mean and a variance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minidl import ops
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.graph import new_tensor
from minidl.nn.functional.checks import check_floats
from minidl.nn.functional.images import pad
from minidl.recording import no_grad
from minidl.tensors import Tensor


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
               bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel of (N, C, …) shifted and scaled to mean 0 and variance 1 over the batch, then · weight + bias.

    In training the batch's own mean and variance are used, and the running ones move towards them by `momentum`;
    otherwise the running ones are used.
    """
    check_floats("batch_norm", input, running_mean, running_var, weight, bias)
    if input.ndim < 2:
        raise ShapeError(f"got {input.shape}, expected (N, C, …)", where="batch_norm")
    channels = input.shape[1]
    for name, x in (("running_mean", running_mean), ("running_var", running_var), ("weight", weight), ("bias", bias)):
        if x is not None and x.shape != (channels,):
            raise ShapeError(f"got {name} {tuple(x.shape)} for {tuple(input.shape)}, expected ({channels},), a number "
                             f"for each channel", where="batch_norm")
    per_channel = (1, channels) + (1,) * (input.ndim - 2)                    # (C,) -> (1, C, 1, 1)
    axes = (0, *range(2, input.ndim))
    if not training and (running_mean is None or running_var is None):
        raise SettingError("got no running statistics outside of training, expected running_mean and running_var; use "
                           "training=True to normalize by the batch", where="batch_norm")
    if training or running_mean is None or running_var is None:
        n = input.numel() // max(1, channels)
        if training and n < 2:
            raise ShapeError(f"got {input.shape}, one value per channel, whose variance is 0; train with a batch of 2 "
                             f"or more, or call model.eval()", where="batch_norm")
        op = ops.Normalize(axes, eps)
        y = op(input)
        if training and running_mean is not None and running_var is not None:
            with no_grad():
                unbiased = new_tensor(op.variance).reshape(-1) * (n / (n - 1))
                running_mean += momentum * (new_tensor(op.mean).reshape(-1) - running_mean)
                running_var += momentum * (unbiased - running_var)
        return _scaled(y, weight, bias, per_channel)
    # (x - μ) / √(v + ε) · w + b  =  s · x + t,   with   s = w / √(v + ε),   t = b - s · μ
    # As in PyTorch; where μ is much larger than √v, digits of s · x and t cancel.
    _check_same_dtype(input, weight, bias)
    s = 1 / (running_var + eps).sqrt()                                       # (C,)
    s = s if weight is None else s * weight
    t = -s * running_mean
    return ops.ScaleShift()(input, s, t if bias is None else t + bias)


def _check_same_dtype(x: Tensor, *factors: Tensor | None) -> None:
    """A weight and a bias of another number type than x are refused."""
    for factor in factors:
        if factor is not None and factor.dtype != x.dtype:
            raise DtypeError(f"got {x.dtype} for x and {factor.dtype} for the weight or bias, expected one dtype; cast "
                             f"with x.to(minidl.{factor.dtype})", where="normalization")


def _scaled(y: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    _check_same_dtype(y, weight, bias)
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Each sample normalized over its last axes, those of `normalized_shape`. Ref: Ba et al. 2016, arXiv:1607.06450."""
    check_floats("layer_norm", input, weight, bias)
    shape = tuple(normalized_shape) if isinstance(normalized_shape, tuple | list) else (normalized_shape,)
    if not shape or tuple(input.shape[-len(shape):]) != shape:
        raise ShapeError(f"got {input.shape}, expected the last sizes to be {shape}", where="layer_norm")
    y = ops.Normalize(tuple(range(input.ndim - len(shape), input.ndim)), eps)(input)
    return _scaled(y, weight, bias, shape)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5) -> Tensor:
    """Each sample of (N, C, …) normalized over groups of channels. Ref: Wu and He 2018, arXiv:1803.08494."""
    check_floats("group_norm", input, weight, bias)
    if input.ndim < 2 or not isinstance(num_groups, int) or num_groups < 1 or input.shape[1] % num_groups:
        raise SettingError(f"got num_groups={num_groups} for {input.shape}, expected a divisor of the channels",
                           where="group_norm")
    grouped = input.reshape(input.shape[0], num_groups, math.prod(input.shape[1:]) // num_groups)  # (N, G, C/G·H·W)
    y = ops.Normalize((2,), eps)(grouped).reshape(input.shape)
    return _scaled(y, weight, bias, (1, input.shape[1]) + (1,) * (input.ndim - 2))


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel of each sample of (N, C, …) normalized by itself. Ref: Ulyanov et al. 2016, arXiv:1607.08022."""
    check_floats("instance_norm", input, weight, bias)
    if not use_input_stats or running_mean is not None:
        raise SettingError("got running statistics, which are not kept here; expected use_input_stats=True alone",
                           where="instance_norm")
    if input.ndim < 3:
        raise ShapeError(f"got {input.shape}, expected (N, C, …)", where="instance_norm")
    y = ops.Normalize(tuple(range(2, input.ndim)), eps)(input)
    return _scaled(y, weight, bias, (1, input.shape[1]) + (1,) * (input.ndim - 2))


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + α · mean of x² over `size` neighbouring channels)^β, as in AlexNet (Krizhevsky et al. 2012)."""
    check_floats("local_response_norm", input)
    squares = (input * input).movedim(1, -1)                                 # (N, …, C)
    before = size // 2
    padded = pad(squares, (before, size - 1 - before))                       # zeros beyond the first and last channel
    means = padded.unfold(-1, size, 1).mean(-1).movedim(-1, 1)               # windows over channels, (N, C, …)
    return input / (k + alpha * means) ** beta
