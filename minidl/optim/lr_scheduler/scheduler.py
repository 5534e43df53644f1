"""What all schedulers share."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from minidl.errors import SettingError
from minidl.optim.optimizer import Optimizer


class LRScheduler:
    """Sets `group["lr"]` of the groups of an optimizer. A subclass writes `get_lr`, the rates of epoch `last_epoch`.

    Making one starts epoch 0 (for `last_epoch=-1`). base_lrs: the rates at the start, `group["initial_lr"]`.
    """

    _not_saved: ClassVar[tuple[str, ...]] = ("optimizer",)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        for group in self._groups(optimizer):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            self._expect("initial_lr" in group, f"last_epoch={last_epoch} and an optimizer that had no schedule",
                         "initial_lr in its groups; load the optimizer's state first")
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._step_count = 0
        self.step()

    def get_lr(self) -> list[float]:
        """The rates for epoch `last_epoch`, given those of the epoch before; `get_last_lr` is for everyone else."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr()")

    def get_last_lr(self) -> list[float]:
        """The rates that were set last, one for each group."""
        return self._last_lr

    def step(self) -> None:
        """Go on to the next epoch and set its rates."""
        is_watched = type(self.optimizer).step is Optimizer.step
        if self._step_count == 1 and is_watched and not self.optimizer._steps_taken:
            warnings.warn(f"{type(self).__name__}: got step() before the optimizer's, so the first rate of the "
                          f"schedule is never used; call optimizer.step() first", UserWarning, stacklevel=2)
        self._step_count += 1
        self.last_epoch += 1
        self._set_rates(self.get_lr())

    def _set_rates(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _start(self) -> None:
        """Begin at epoch 0 with the rates at the start, whatever the rates are now."""
        self._set_rates(self.base_lrs)
        self.last_epoch, self._step_count = -1, 0
        self.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, which has a state of its own (the rates are in there), and functions."""
        return {name: value for name, value in vars(self).items() if name not in self._not_saved}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned. Its rates are in the state of the optimizer; load that too."""
        self._check_state(state_dict)
        names = self.state_dict().keys() - set(self._not_saved)
        vars(self).update({name: copy.deepcopy(state_dict[name]) for name in names})

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        missing = sorted(self.state_dict().keys() - state_dict.keys())
        self._expect(not missing, f"a state without {', '.join(missing)}",
                     "one of this kind of scheduler; nothing was loaded")

    def _expect(self, is_fine: bool, got: str, expected: str) -> None:
        if not is_fine:
            raise SettingError(f"got {got}, expected {expected}", where=type(self).__name__)

    def _groups(self, optimizer: Optimizer) -> list[dict[str, Any]]:
        self._expect(isinstance(optimizer, Optimizer), f"a {type(optimizer).__name__}", "an optimizer")
        return optimizer.param_groups

    def _one_each(self, optimizer: Optimizer, name: str, value: Any) -> list[Any]:
        """A list with an entry for each group; a single value is meant for all."""
        number = len(self._groups(optimizer))
        values = list(value) if isinstance(value, list | tuple) else [value] * number
        self._expect(len(values) == number, f"{len(values)} values of {name}", f"one for each of {number} groups")
        return values
