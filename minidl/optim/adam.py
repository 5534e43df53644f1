"""Adam and AdamW: every weight gets a step size of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minidl.backend import Array, xp_of
from minidl.errors import SettingError
from minidl.kernels import steps_for
from minidl.optim.optimizer import Optimizer, zeros_at_first


class Adam(Optimizer):
    """m ← β₁ m + (1-β₁) g,   v ← β₂ v + (1-β₂) g²,   p ← p - lr · m̂ / (√v̂ + ε)

    with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ): both averages start at 0, and these divisions undo that.
    weight_decay λ adds λ p to the gradient g; maximize turns it round.
    amsgrad: the largest v so far stands in v̂, so that no weight's step size grows again.

    Ref: Kingma and Ba 2015, arXiv:1412.6980; amsgrad: Reddi et al. 2018, arXiv:1904.09237
    """

    from_0 = ("eps", "weight_decay")

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *, maximize: bool = False,
                 decoupled_weight_decay: bool = False, **others: Any) -> None:
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
                    "maximize": maximize, "decoupled_weight_decay": decoupled_weight_decay}
        super().__init__(params, settings, others)

    def check_settings(self, group: dict[str, Any]) -> None:
        """Both betas from 0 to below 1."""
        super().check_settings(group)
        betas = group["betas"]
        if not isinstance(betas, tuple | list) or len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise SettingError(f"got betas={betas}, expected two numbers from 0 to below 1", where=type(self).__name__)

    def update_in_one_pass(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> bool:
        """The same formulas, compiled (see `kernels.steps_for`)."""
        m = zeros_at_first(state, "exp_avg", p)
        v = zeros_at_first(state, "exp_avg_sq", p)
        steps = None if group["amsgrad"] else steps_for(p, g, m, v, among=self._numbers)
        if steps is None:
            return False
        t = state["step"] = state.get("step", 0) + 1
        is_decoupled, decay = group["decoupled_weight_decay"], group["weight_decay"]
        steps.adam(p, g, m, v, group["lr"], group["betas"], group["eps"], t, decay=0.0 if is_decoupled else decay,
                   shrink=1 - group["lr"] * decay if is_decoupled else 1.0, sign=-1 if group["maximize"] else 1)
        return True

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step for one parameter."""
        xp = xp_of(p)
        if group["decoupled_weight_decay"]:
            p *= 1 - group["lr"] * group["weight_decay"]
        beta1, beta2 = group["betas"]
        t = state["step"] = state.get("step", 0) + 1
        m = zeros_at_first(state, "exp_avg", p)
        v = zeros_at_first(state, "exp_avg_sq", p)
        m += (1 - beta1) * (g - m)                          # β₁ m + (1-β₁) g
        v *= beta2
        v += (1 - beta2) * (g * g)
        if group["amsgrad"]:
            v_max = zeros_at_first(state, "max_exp_avg_sq", p)
            v = xp.maximum(v_max, v, out=v_max)
        m_hat = m / (1 - beta1 ** t)
        v_hat = v / (1 - beta2 ** t)
        p -= group["lr"] * m_hat / (xp.sqrt(v_hat) + group["eps"])


class AdamW(Adam):
    """p ← p - lr · λ p, then Adam's step with the bare gradient.

    Adam with weight decay λ divides λ p by √v̂ too, so weights with large gradients decay less; here all decay alike.

    Ref: Loshchilov and Hutter 2019, arXiv:1711.05101
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
                 **others: Any) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, decoupled_weight_decay=True,
                         **others)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state, also from one of Adam: the decay stays decoupled."""
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
