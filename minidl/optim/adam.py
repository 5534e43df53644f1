"""Adam: every weight gets a step size of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.backend import Array, as_array, xp_of
from minidl.errors import SettingError
from minidl.optim.optimizer import Optimizer


class Adam(Optimizer):
    """m ← β₁ m + (1-β₁) g,   v ← β₂ v + (1-β₂) g²,   p ← p - lr · m̂ / (√v̂ + ε)

    with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ): both averages start at 0, and these divisions undo that.
    weight_decay λ adds λ · p to the gradient.

    Ref: Kingma and Ba 2015, arXiv:1412.6980
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise SettingError(f"got betas={betas}, expected two numbers from 0 to below 1", where="Adam")
        for name, value in (("eps", eps), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise SettingError(f"got {name}={value}, expected 0 or more", where="Adam")
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step for one parameter."""
        xp = xp_of(p)
        if not state:
            state.update(step=0, exp_avg=xp.zeros_like(p), exp_avg_sq=xp.zeros_like(p))
        if group["weight_decay"]:
            g = as_array(g + group["weight_decay"] * p)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        m, v, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
        m += (1 - beta1) * (g - m)                          # β₁ m + (1-β₁) g
        v *= beta2
        v += (1 - beta2) * (g * g)
        m_hat = m / (1 - beta1 ** t)
        v_hat = v / (1 - beta2 ** t)
        p -= group["lr"] * m_hat / (xp.sqrt(v_hat) + group["eps"])
