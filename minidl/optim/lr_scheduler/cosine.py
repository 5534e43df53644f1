"""Rates that come down along a cosine, with and without restarts."""

from __future__ import annotations

import math

from minidl.optim.lr_scheduler.scheduler import LRScheduler
from minidl.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """lr(e) = η + (initial_lr - η) · h(e),   h(e) = (1 + cos(π e / T_max)) / 2,   η = eta_min

    Ref: Loshchilov and Hutter 2017, arXiv:1608.03983
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self._expect(T_max > 0, f"T_max={T_max}", "a positive integer")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """η + (lr - η) · h(e) / h(e-1): step by step, as in `FactorLR`."""
        groups, e, low = self.optimizer.param_groups, self.last_epoch, self.eta_min
        if self._step_count == 1:
            return [group["lr"] for group in groups]
        now, before = ((1 + math.cos(math.pi * epoch / self.T_max)) / 2 for epoch in (e, e - 1))
        if before == 0:                                     # at the bottom lr is η, and no factor leads up again
            up = (1 - math.cos(math.pi / self.T_max)) / 2   # h(T_max + 1)
            return [group["lr"] + (base - low) * up for group, base in zip(groups, self.base_lrs, strict=True)]
        return [low + (group["lr"] - low) * (now / before) for group in groups]


class CosineAnnealingWarmRestarts(LRScheduler):
    """lr = η + (initial_lr - η) · (1 + cos(π T_cur / T_i)) / 2,   η = eta_min

    T_cur: epochs since the last restart, T_i: epochs until the next; first T_0, each time T_mult times as many.

    Ref: Loshchilov and Hutter 2017, arXiv:1608.03983
    """

    def __init__(self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0,
                 last_epoch: int = -1) -> None:
        self._expect(isinstance(T_0, int) and T_0 > 0, f"T_0={T_0}", "a positive integer")
        self._expect(isinstance(T_mult, int) and T_mult > 0, f"T_mult={T_mult}", "a positive integer")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def step(self, epoch: float | None = None) -> None:
        """Go on to the next epoch, or to a given one; `epoch + batch / batches` is a point within an epoch."""
        epoch = self.last_epoch + 1 if epoch is None else epoch
        self._expect(epoch >= 0, f"epoch={epoch}", "0 or more")
        self.T_cur, self.T_i = epoch, self.T_0
        while self.T_cur >= self.T_i:
            self.T_cur -= self.T_i
            self.T_i *= self.T_mult
        self.last_epoch = math.floor(epoch) - 1
        super().step()

    def get_lr(self) -> list[float]:
        """From the rates at the start."""
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]
