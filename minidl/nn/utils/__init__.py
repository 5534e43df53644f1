"""What is done to all parameters of a model at once: bounding gradients, one long vector of everything."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from minidl.errors import SettingError, ShapeError, no_such_name
from minidl.functions import cat
from minidl.nn.utils import rnn
from minidl.recording import no_grad
from minidl.tensors import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "rnn", "vector_to_parameters"]


def _with_gradient(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p for p in given if p.grad is not None]


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = True) -> Tensor:
    """Scale all gradients together so that their length is at most `max_norm`; returns the length before.

    A length that is nan or infinite would turn every gradient into nan, so it is an error unless
    error_if_nonfinite=False. Ref: Pascanu et al. 2013, arXiv:1211.5063
    """
    gradients = [p.grad for p in _with_gradient(parameters)]
    if not max_norm >= 0:
        raise SettingError(f"got max_norm={max_norm}, expected 0 or more", where="clip_grad_norm_")
    if not gradients:
        return Tensor([0.0]).reshape(())
    with no_grad():
        total = cat([g.norm(norm_type).reshape(1) for g in gradients if g is not None]).norm(norm_type)
        if error_if_nonfinite and not math.isfinite(total.item()):
            raise SettingError(f"got gradients of length {total.item()}, which clipping would turn into nan and 0; "
                               f"look at the loss and the learning rate, or pass error_if_nonfinite=False",
                               where="clip_grad_norm_")
        scale = (max_norm / (total + 1e-6)).clamp(max=1.0)
        for g in gradients:
            if g is not None:
                g.mul_(scale.to(g.dtype))
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Bound every element of all gradients to ±clip_value."""
    if not clip_value >= 0:
        raise SettingError(f"got clip_value={clip_value}, expected 0 or more", where="clip_grad_value_")
    for p in _with_gradient(parameters):
        if p.grad is not None:
            p.grad.clamp_(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters one behind the other as one axis."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """The parts of a vector back into the parameters, the inverse of `parameters_to_vector`."""
    parameters = list(parameters)
    total = sum(p.numel() for p in parameters)
    if vec.shape != (total,):
        raise ShapeError(f"got {vec.shape}, expected ({total},): as many numbers as the parameters have",
                         where="vector_to_parameters")
    start = 0
    for p in parameters:
        part = vec.detach()[start:start + p.numel()].reshape(p.shape)
        p.data = part.clone()
        start += p.numel()


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.nn.utils", name, __all__, {"clip_grad_norm": "use clip_grad_norm_"})
