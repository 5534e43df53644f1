"""Adadelta: steps as large as the steps before them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.backend import Array, xp_of
from minidl.optim.optimizer import Optimizer, zeros_at_first


class Adadelta(Optimizer):
    """v ← ρ v + (1-ρ) g²,   d = √(u + ε) / √(v + ε) · g,   u ← ρ u + (1-ρ) d²,   p ← p - lr · d

    The step d has the unit of p: u averages the squares of the steps before it, as v does those of the gradients.
    weight_decay λ adds λ p to the gradient g; maximize turns it round.

    Ref: Zeiler 2012, arXiv:1212.5701
    """

    from_0 = ("eps", "weight_decay")
    from_0_to_1 = ("rho",)

    def __init__(self, params: Iterable[Any], lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0, *, maximize: bool = False, **others: Any) -> None:
        settings = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, settings, others)

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step for one parameter."""
        xp, rho, eps = xp_of(p), group["rho"], group["eps"]
        state["step"] = state.get("step", 0) + 1
        v = zeros_at_first(state, "square_avg", p)
        u = zeros_at_first(state, "acc_delta", p)
        v *= rho
        v += (1 - rho) * (g * g)
        d = xp.sqrt(u + eps) / xp.sqrt(v + eps) * g
        u *= rho
        u += (1 - rho) * (d * d)
        p -= group["lr"] * d
