"""Adagrad: a weight that has had large gradients gets small steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.backend import Array, xp_of
from minidl.optim.optimizer import Optimizer


class Adagrad(Optimizer):
    """s ← s + g²,   p ← p - lr / (1 + (t-1) · lr_decay) · g / (√s + ε)     (s starts at initial_accumulator_value)

    weight_decay λ adds λ p to the gradient g; maximize turns it round.

    Ref: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods for online learning and stochastic optimization"
    """

    from_0 = ("lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10, *, maximize: bool = False,
                 **others: Any) -> None:
        settings = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay,
                    "initial_accumulator_value": initial_accumulator_value, "eps": eps, "maximize": maximize}
        super().__init__(params, settings, others)

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step for one parameter."""
        xp = xp_of(p)
        t = state["step"] = state.get("step", 0) + 1
        if "sum" not in state:
            state["sum"] = xp.full_like(p, group["initial_accumulator_value"])
        s = state["sum"]
        s += g * g
        p -= group["lr"] / (1 + (t - 1) * group["lr_decay"]) * g / (xp.sqrt(s) + group["eps"])
