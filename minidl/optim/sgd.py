"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl.backend import Array
from minidl.errors import SettingError
from minidl.kernels import steps_for
from minidl.optim.optimizer import Optimizer, zeros_at_first


class SGD(Optimizer):
    """p ← p - lr · g, or with momentum μ and dampening τ:

    v ← μ v + (1-τ) g,   p ← p - lr · v            (v starts as the first g)
    v ← μ v + g,         p ← p - lr · (g + μ v)    with nesterov: the gradient a step ahead, nearly

    weight_decay λ adds λ p to the gradient g; maximize turns it round.

    Ref: Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning"
    """

    from_0 = ("momentum", "weight_decay")

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False, **others: Any) -> None:
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
                    "nesterov": nesterov, "maximize": maximize}
        super().__init__(params, settings, others)

    def check_settings(self, group: dict[str, Any]) -> None:
        """Nesterov needs a momentum that is not dampened."""
        super().check_settings(group)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise SettingError(f"got nesterov=True with momentum={group['momentum']}, dampening={group['dampening']}, "
                               f"expected a momentum above 0 and no dampening", where="SGD")

    def update_in_one_pass(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> bool:
        """The same formulas with momentum, compiled (see `kernels.steps_for`)."""
        if not group["momentum"]:
            return False
        is_first = "momentum_buffer" not in state
        v = zeros_at_first(state, "momentum_buffer", p)
        steps = steps_for(p, g, v, among=self._numbers)
        if steps is None:
            if is_first:
                del state["momentum_buffer"]
            return False
        steps.sgd(p, g, v, group["lr"], group["momentum"], new=1 if is_first else 1 - group["dampening"],
                  nesterov=group["nesterov"], decay=group["weight_decay"], sign=-1 if group["maximize"] else 1)
        return True

    def update(self, p: Array, g: Array, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step for one parameter."""
        if group["momentum"]:
            is_first = "momentum_buffer" not in state
            v = zeros_at_first(state, "momentum_buffer", p)
            v *= group["momentum"]
            v += g if is_first else (1 - group["dampening"]) * g
            g = g + group["momentum"] * v if group["nesterov"] else v
        p -= group["lr"] * g
