"""Schedules that say by which factor the rate at the start is multiplied in epoch e."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import TypeAlias

from minidl.optim.lr_scheduler.scheduler import LRScheduler
from minidl.optim.optimizer import Optimizer

Function: TypeAlias = Callable[[int], float]


class FactorLR(LRScheduler):
    """lr(e) = initial_lr · factor(e), for a subclass that writes `_factor`; done as lr ← lr · factor(e) / factor(e-1).

    Step by step, and not from the start, so that the factors of two schedulers on one optimizer multiply, and a rate
    that was set by hand in between is where the schedule goes on from.
    """

    def _factor(self, epoch: int) -> float:
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        """lr · factor(e) / factor(e-1); before epoch 0 the factor was 1."""
        e = self.last_epoch
        now, before = self._factor(e), self._factor(e - 1) if e > 0 else 1.0
        is_resumed = self._step_count == 1 and e > 0        # made with last_epoch: the rates are those of this epoch
        ratio = 1.0 if is_resumed or now == before else now / before
        return [group["lr"] * ratio for group in self.optimizer.param_groups]


class StepLR(FactorLR):
    """factor(e) = γ^⌊e / step_size⌋"""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self._expect(step_size > 0, f"step_size={step_size}", "a positive integer")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return self.gamma ** (epoch // self.step_size)


class MultiStepLR(FactorLR):
    """factor(e) = γ^(number of milestones ≤ e)"""

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
                 last_epoch: int = -1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return self.gamma ** bisect_right(self.milestones, epoch)


class ConstantLR(FactorLR):
    """factor(e) = `factor` before epoch `total_iters`, then 1"""

    def __init__(self, optimizer: Optimizer, factor: float = 1 / 3, total_iters: int = 5, last_epoch: int = -1) -> None:
        self._expect(0 < factor <= 1, f"factor={factor}", "above 0 and at most 1")
        self._expect(total_iters > 0, f"total_iters={total_iters}", "a positive integer")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return self.factor if epoch < self.total_iters else 1.0


class LinearLR(FactorLR):
    """factor(e): a straight line from `start_factor` to `end_factor`, reached in epoch `total_iters`"""

    def __init__(self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
                 total_iters: int = 5, last_epoch: int = -1) -> None:
        self._expect(0 < start_factor <= 1, f"start_factor={start_factor}", "above 0 and at most 1")
        self._expect(0 <= end_factor <= 1, f"end_factor={end_factor}", "0 to 1")
        self._expect(total_iters > 0, f"total_iters={total_iters}", "a positive integer")
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        done = min(epoch, self.total_iters) / self.total_iters
        return self.start_factor + (self.end_factor - self.start_factor) * done


class PolynomialLR(FactorLR):
    """factor(e) = (1 - e / total_iters)^power, then 0"""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self._expect(total_iters > 0, f"total_iters={total_iters}", "a positive integer")
        self.total_iters, self.power = total_iters, power
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return float((1 - min(epoch, self.total_iters) / self.total_iters) ** self.power)


class ExponentialLR(FactorLR):
    """factor(e) = γ^e"""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def _factor(self, epoch: int) -> float:
        return self.gamma ** epoch


class LambdaLR(LRScheduler):
    """lr(e) = initial_lr · λ(e), for a function λ, or a list with one for each group. Functions are not saved."""

    _not_saved = ("optimizer", "lr_lambdas")

    def __init__(self, optimizer: Optimizer, lr_lambda: Function | list[Function], last_epoch: int = -1) -> None:
        self.lr_lambdas: list[Function] = self._one_each(optimizer, "lr_lambda", lr_lambda)
        self._expect(all(map(callable, self.lr_lambdas)), f"lr_lambda={lr_lambda}", "a function of the epoch")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """From the rates at the start."""
        return [base * function(self.last_epoch)
                for base, function in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class MultiplicativeLR(LambdaLR):
    """lr(e) = lr(e-1) · λ(e), from e = 1 on. Functions are not saved."""

    def get_lr(self) -> list[float]:
        """From the rates of the epoch before."""
        return [group["lr"] if self._step_count == 1 else group["lr"] * function(self.last_epoch)
                for group, function in zip(self.optimizer.param_groups, self.lr_lambdas, strict=True)]
