"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.backend import Array, as_array, xp_of
from minidl.errors import SettingError
from minidl.optim.optimizer import Optimizer


class SGD(Optimizer):
    """p ← p - lr · g, or with momentum μ:   v ← μ · v + g,   p ← p - lr · v   (v starts as the first g).

    weight_decay λ adds λ · p to the gradient.

    Ref: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning"
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, weight_decay: float = 0) -> None:
        for name, value in (("momentum", momentum), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise SettingError(f"got {name}={value}, expected 0 or more", where="SGD")
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step for one parameter."""
        if group["weight_decay"]:
            g = as_array(g + group["weight_decay"] * p)
        if group["momentum"]:
            v = state.setdefault("momentum_buffer", xp_of(p).zeros_like(p))
            v *= group["momentum"]
            v += g
            g = v
        p -= group["lr"] * g
