"""ReduceLROnPlateau: a smaller rate where training has come to a halt."""

from __future__ import annotations

import math
from typing import Any, Literal

from minidl.optim.lr_scheduler.scheduler import LRScheduler
from minidl.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """lr ← lr · factor when a metric has not become better for more than `patience` epochs.

    Better is, for mode "min", metric < best · (1 - threshold), or best - threshold in threshold_mode "abs"; for "max"
    the mirror image. After a reduction `cooldown` epochs do not count. Reductions by `eps` or less are left out.
    """

    def __init__(self, optimizer: Optimizer, mode: Literal["min", "max"] = "min", factor: float = 0.1,
                 patience: int = 10, threshold: float = 1e-4, threshold_mode: Literal["rel", "abs"] = "rel",
                 cooldown: int = 0, min_lr: float | list[float] = 0, eps: float = 1e-8) -> None:
        self._expect(0 <= factor < 1, f"factor={factor}", "0 to below 1")
        self._expect(mode in ("min", "max"), f"mode={mode!r}", "'min' or 'max'")
        self._expect(threshold_mode in ("rel", "abs"), f"threshold_mode={threshold_mode!r}", "'rel' or 'abs'")
        self._one_each(optimizer, "min_lr", min_lr)
        self.optimizer, self.mode, self.factor, self.patience, self.min_lr = optimizer, mode, factor, patience, min_lr
        self.threshold, self.threshold_mode, self.cooldown, self.eps = threshold, threshold_mode, cooldown, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = [group["lr"] for group in optimizer.param_groups]

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Look at the metric of another epoch, a number or a tensor with one."""
        metric = float(metrics)
        groups = self.optimizer.param_groups
        least = self._one_each(self.optimizer, "min_lr", self.min_lr)       # there may be more groups by now
        self.last_epoch += 1
        self.num_bad_epochs += 1
        if self.is_better(metric):
            self.best, self.num_bad_epochs = metric, 0
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            for group, lowest in zip(groups, least, strict=True):
                reduced = max(group["lr"] * self.factor, lowest)
                if group["lr"] - reduced > self.eps:
                    group["lr"] = reduced
        self._last_lr = [group["lr"] for group in groups]

    @property
    def in_cooldown(self) -> bool:
        """Whether this epoch does not count."""
        return self.cooldown_counter > 0

    def is_better(self, metric: float) -> bool:
        """Whether a metric beats the best so far by the threshold."""
        sign = -1 if self.mode == "min" else 1
        if self.threshold_mode == "rel":
            target = self.best * (1 + sign * self.threshold)
        else:
            target = self.best + sign * self.threshold
        return sign * metric > sign * target
