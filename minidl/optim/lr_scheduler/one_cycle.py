"""OneCycleLR: the rate up once and down again, the momentum the other way round."""

from __future__ import annotations

import math
from typing import Literal

from minidl.optim.lr_scheduler.scheduler import LRScheduler
from minidl.optim.optimizer import Optimizer


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr, then down to that start / final_div_factor; a step a batch.

    pct_start: how much of `total_steps` (or `epochs · steps_per_epoch`) goes up; three_phase: down to the start as fast
    as up, then on to the end. Momentum (or β₁) goes the opposite way, between max_momentum and base_momentum.

    Ref: Smith and Topin 2018, arXiv:1708.07120
    """

    def __init__(self, optimizer: Optimizer, max_lr: float | list[float], total_steps: int | None = None,
                 epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
                 anneal_strategy: Literal["cos", "linear"] = "cos", cycle_momentum: bool = True,
                 base_momentum: float | list[float] = 0.85, max_momentum: float | list[float] = 0.95,
                 div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
                 last_epoch: int = -1) -> None:
        if total_steps is None:
            total_steps = (epochs or 0) * (steps_per_epoch or 0)
        self._expect(isinstance(total_steps, int) and total_steps > 0, f"total_steps={total_steps}, epochs={epochs}, "
                     f"steps_per_epoch={steps_per_epoch}", "positive integers: total_steps, or the two others")
        self._expect(0 <= pct_start <= 1, f"pct_start={pct_start}", "0 to 1")
        self._expect(anneal_strategy in ("cos", "linear"), f"anneal_strategy={anneal_strategy!r}", "'cos' or 'linear'")
        max_lrs = self._one_each(optimizer, "max_lr", max_lr)
        base_momenta = self._one_each(optimizer, "base_momentum", base_momentum)
        max_momenta = self._one_each(optimizer, "max_momentum", max_momentum)
        has_momentum = "momentum" in optimizer.defaults or "betas" in optimizer.defaults
        self._expect(has_momentum or not cycle_momentum, f"cycle_momentum=True for {type(optimizer).__name__}, which "
                     f"has no momentum", "cycle_momentum=False")
        self.total_steps, self.anneal_strategy, self.cycle_momentum = total_steps, anneal_strategy, cycle_momentum
        top, back, end = pct_start * total_steps - 1, 2 * pct_start * total_steps - 2, total_steps - 1
        self.phases = [                         # (from step, to step, rate from, rate to, momentum from, momentum to)
            (0, top, "initial_lr", "max_lr", "max_momentum", "base_momentum"),
            (top, end, "max_lr", "min_lr", "base_momentum", "max_momentum"),
        ]
        if three_phase:
            self.phases[1:] = [(top, back, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                               (back, end, "initial_lr", "min_lr", "max_momentum", "max_momentum")]
        if last_epoch == -1:
            for i, group in enumerate(optimizer.param_groups):
                start = max_lrs[i] / div_factor
                group.update(initial_lr=start, max_lr=max_lrs[i], min_lr=start / final_div_factor)
                if cycle_momentum:
                    group.update(base_momentum=base_momenta[i], max_momentum=max_momenta[i])
        super().__init__(optimizer, last_epoch)

    def step(self) -> None:
        """Go on to the next batch: set its rates and momenta."""
        self._expect(self.last_epoch < self.total_steps, f"step {self.last_epoch + 1}",
                     f"no more than total_steps={self.total_steps}")
        super().step()
        for group in self.optimizer.param_groups if self.cycle_momentum else ():
            _, _, _, _, start, end = self._phase()
            momentum = self._between(group[start], group[end])
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum

    def get_lr(self) -> list[float]:
        """On the way between the two rates of the phase."""
        _, _, start, end, _, _ = self._phase()
        return [self._between(group[start], group[end]) for group in self.optimizer.param_groups]

    def _phase(self) -> tuple[float, float, str, str, str, str]:
        return next((phase for phase in self.phases if self.last_epoch <= phase[1]), self.phases[-1])

    def _between(self, start: float, end: float) -> float:
        """The value in step `last_epoch` of what goes from `start` to `end` in this phase."""
        first, last, *_ = self._phase()
        done = (self.last_epoch - first) / (last - first) if last > first else 1.0
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * done))
        return start + (end - start) * done
