"""RMSprop: the gradient, divided by its usual size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.backend import Array, xp_of
from minidl.optim.optimizer import Optimizer, zeros_at_first


class RMSprop(Optimizer):
    """v ← α v + (1-α) g²,   p ← p - lr · g / (√v + ε)

    centered: √(v - m²) for √v, with m ← α m + (1-α) g: the spread of g instead of its size.
    momentum μ: b ← μ b + g / (√v + ε),   p ← p - lr · b.
    weight_decay λ adds λ p to the gradient g; maximize turns it round.

    Ref: Tieleman and Hinton 2012, lecture 6.5 of "Neural Networks for Machine Learning"; centered: Graves 2013,
    arXiv:1308.0850
    """

    from_0 = ("eps", "weight_decay", "momentum")
    from_0_to_1 = ("alpha",)

    def __init__(self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0, centered: bool = False, *, maximize: bool = False,
                 **others: Any) -> None:
        settings = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum,
                    "centered": centered, "maximize": maximize}
        super().__init__(params, settings, others)

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step for one parameter."""
        xp, alpha = xp_of(p), group["alpha"]
        state["step"] = state.get("step", 0) + 1
        v = zeros_at_first(state, "square_avg", p)
        v *= alpha
        v += (1 - alpha) * (g * g)
        if group["centered"]:
            m = zeros_at_first(state, "grad_avg", p)
            m += (1 - alpha) * (g - m)                      # α m + (1-α) g
            v = xp.maximum(v - m * m, 0)                    # where g is constant the two round to just below 0
        scaled = g / (xp.sqrt(v) + group["eps"])
        if group["momentum"]:
            b = zeros_at_first(state, "momentum_buffer", p)
            b *= group["momentum"]
            b += scaled
            scaled = b
        p -= group["lr"] * scaled
