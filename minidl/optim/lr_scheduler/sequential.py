"""SequentialLR: one scheduler after another."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from minidl.optim.lr_scheduler.plateau import ReduceLROnPlateau
from minidl.optim.lr_scheduler.scheduler import LRScheduler
from minidl.optim.optimizer import Optimizer


class SequentialLR(LRScheduler):
    """One scheduler after another: the next begins, at its epoch 0, in each of the epochs `milestones`."""

    _not_saved = ("optimizer", "_schedulers")

    def __init__(self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int],
                 last_epoch: int = -1) -> None:
        self._groups(optimizer)
        for scheduler in schedulers:
            self._expect(isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau),
                         f"a {type(scheduler).__name__}", "schedulers that need to be told nothing")
            self._expect(scheduler.optimizer is optimizer, f"a {type(scheduler).__name__} of another optimizer",
                         "schedulers of this one")
        self._expect(len(schedulers) == len(milestones) + 1, f"{len(schedulers)} schedulers and {len(milestones)} "
                     f"milestones", "a milestone less than schedulers")
        self._expect(sorted(milestones) == list(milestones), f"milestones={milestones}", "them in increasing order")
        self.optimizer, self._schedulers, self._milestones = optimizer, schedulers, milestones
        self._start()
        self.last_epoch = last_epoch + 1

    def _start(self) -> None:
        self.last_epoch = 0
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._start()
        self._last_lr = first.get_last_lr()

    def step(self) -> None:
        """Go on to the next epoch of the scheduler whose turn it is."""
        self.last_epoch += 1
        scheduler = self._schedulers[bisect_right(self._milestones, self.last_epoch)]
        if self.last_epoch in self._milestones:
            scheduler._start()
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Its own state, and those of the schedulers."""
        return {**super().state_dict(), "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned. The rates are in the state of the optimizer; load that too."""
        super().load_state_dict(state_dict)
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)

    def _check_state(self, state_dict: Mapping[str, Any]) -> None:
        super()._check_state(state_dict)
        states = state_dict["_schedulers"]
        self._expect(len(states) == len(self._schedulers), f"the states of {len(states)} schedulers",
                     f"{len(self._schedulers)}; nothing was loaded")
        for scheduler, state in zip(self._schedulers, states, strict=True):
            scheduler._check_state(state)
