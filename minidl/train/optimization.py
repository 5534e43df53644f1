"""What `configure_optimizers` may return, brought into one form: optimizers, and when their rates change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minidl.errors import SettingError
from minidl.optim.lr_scheduler import ReduceLROnPlateau
from minidl.optim.optimizer import Optimizer
from minidl.train.log import monitored
from minidl.train.module import LightningModule


@dataclass
class Schedule:
    """A scheduler, stepped every `frequency` epochs or steps."""

    scheduler: Any
    interval: str = "epoch"                 # or "step"
    frequency: int = 1
    monitor: str | None = None              # what ReduceLROnPlateau looks at
    name: str | None = None

    @property
    def follows_metric(self) -> bool:
        """Whether it looks at a number."""
        return isinstance(self.scheduler, ReduceLROnPlateau)

    def step(self, trainer: Any) -> None:
        """Set the next rates."""
        if self.follows_metric:
            self.scheduler.step(float(monitored(trainer.callback_metrics, str(self.monitor), "ReduceLROnPlateau")))
        else:
            self.scheduler.step()


def configured(model: LightningModule) -> tuple[list[Optimizer], list[Schedule]]:
    """The optimizers and schedules of a module, whose `configure_optimizers` returns

    - an optimizer, or a list of them (for manual optimization);
    - two lists, of optimizers and of schedulers (or a scheduler);
    - {"optimizer": optimizer, "lr_scheduler": scheduler}, or several such dicts;

    In place of a scheduler there may be a dict {"scheduler": …, "interval": "epoch" or "step", "frequency": 1,
    "monitor": name}; a ReduceLROnPlateau needs "monitor".
    """
    where, returned = f"{type(model).__name__}.configure_optimizers", model.configure_optimizers()
    optimizers: list[Any] = []
    schedulers: list[Any] = []
    if _are_two_lists(returned):
        optimizers, schedulers = returned[0], returned[1] if isinstance(returned[1], list) else [returned[1]]
    elif returned is not None:
        for item in returned if isinstance(returned, list | tuple) else [returned]:
            if isinstance(item, Mapping):
                if "optimizer" not in item:
                    raise SettingError(f"got a dict with {', '.join(map(str, item))}, expected 'optimizer' and "
                                       f"'lr_scheduler'", where)
                optimizers.append(item["optimizer"])
                schedule = item.get("lr_scheduler")
                if isinstance(schedule, Mapping) and "monitor" not in schedule:
                    schedule = {**schedule, "monitor": item.get("monitor")}
                elif schedule is not None and not isinstance(schedule, Mapping):
                    schedule = {"scheduler": schedule, "monitor": item.get("monitor")}
                schedulers += [] if schedule is None else [schedule]
            else:
                optimizers.append(item)
    if returned is None:
        raise SettingError("got None back, expected an optimizer; end it with return optimizer", where)
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise SettingError(f"got a {type(optimizer).__name__}, expected an optimizer, or a dict "
                               f"{{'optimizer': …, 'lr_scheduler': …}}", where)
    if model.automatic_optimization and len(optimizers) != 1:
        raise SettingError(f"got {len(optimizers)} optimizers, expected one; with several, set "
                           f"self.automatic_optimization = False and call backward and step in training_step", where)
    return optimizers, [_schedule(scheduler, where) for scheduler in schedulers]


def _are_two_lists(returned: Any) -> bool:
    return isinstance(returned, tuple | list) and len(returned) == 2 and isinstance(returned[0], list)


def _schedule(given: Any, where: str) -> Schedule:
    settings = dict(given) if isinstance(given, Mapping) else {"scheduler": given}
    settings.pop("strict", None)
    settings.pop("reduce_on_plateau", None)
    unknown = settings.keys() - Schedule.__dataclass_fields__.keys()
    if unknown or "scheduler" not in settings:
        raise SettingError(f"got a schedule with {', '.join(map(str, settings))}, expected 'scheduler', 'interval', "
                           f"'frequency', 'monitor'", where)
    schedule = Schedule(**settings)
    if not hasattr(schedule.scheduler, "step") or isinstance(schedule.scheduler, Optimizer):
        raise SettingError(f"got a {type(schedule.scheduler).__name__}, expected a scheduler", where)
    if schedule.interval not in ("epoch", "step") or schedule.frequency < 1:
        raise SettingError(f"got interval={schedule.interval!r}, frequency={schedule.frequency}, expected 'epoch' or "
                           f"'step', and 1 or more", where)
    if isinstance(schedule.scheduler, ReduceLROnPlateau) and schedule.monitor is None:
        raise SettingError("got a ReduceLROnPlateau without 'monitor', the name of what it looks at; return "
                           "{'optimizer': optimizer, 'lr_scheduler': {'scheduler': scheduler, 'monitor': 'val_loss'}}",
                           where)
    return schedule
