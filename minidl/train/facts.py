"""What lessons ask a trainer about its run, under Lightning's names; and what they ask that it does not have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minidl.errors import no_such_name
from minidl.train.callbacks import EarlyStopping, ModelCheckpoint

_LOOP = "the loop is Trainer._train_epoch, to be read; change trainer.max_epochs, trainer.should_stop"
HINTS = {"fit_loop": _LOOP, "validate_loop": _LOOP, "strategy": "there is one process and one device, so leave it out",
         "accelerator": "use trainer.device", "precision": "numbers are those of the model, model.dtype",
         "progress_bar_metrics": "use trainer.callback_metrics", "lr_schedulers": "use trainer.lr_scheduler_configs"}


@dataclass
class State:
    """fn: "fit", "validate", "test", "predict". stage: "train" or "validate" within a fit, else as fn.
    status: "initializing", "running", "finished", "interrupted".
    """

    fn: str | None = None
    stage: str | None = None
    status: str = "initializing"

    @property
    def finished(self) -> bool:
        """Whether it ended, and not with an error."""
        return self.status == "finished"


class Facts:
    """Questions to a trainer, all of which are answered from what `Run` keeps."""

    sanity_checking, is_global_zero = False, True       # no validation before training; one process
    global_rank = local_rank = 0
    world_size = num_devices = num_nodes = 1

    state: State
    model: Any
    schedules: list[Any]
    callbacks: list[Any]
    train_dataloader: Any
    val_dataloader: Any
    max_epochs: int
    max_steps: int
    accumulate_grad_batches: int
    number_of_batches: int | None
    batch_idx: int
    default_root_dir: str
    logger: Any
    count: Any

    if not TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any:
            raise no_such_name(type(self).__name__, name, lambda: [*vars(self), *dir(type(self))], HINTS)

    training = property(lambda self: self.state.stage == "train", doc="Whether it trains now.")
    validating = property(lambda self: self.state.stage == "validate", doc="Whether it validates now.")
    testing = property(lambda self: self.state.stage == "test", doc="Whether it tests now.")
    predicting = property(lambda self: self.state.stage == "predict", doc="Whether it predicts now.")
    interrupted = property(lambda self: self.state.status == "interrupted", doc="Whether the last run ended early.")
    lightning_module = property(lambda self: self.model, doc="The module.")
    lr_scheduler_configs = property(lambda self: self.schedules, doc="Schedules: scheduler, interval, frequency, …")
    val_dataloaders = property(lambda self: self.val_dataloader, doc="The loader that validates after each epoch.")
    is_last_batch = property(lambda self: self.batch_idx + 1 == self.number_of_batches,
                             doc="Whether the batch that is running is the epoch's last.")

    @property
    def num_training_batches(self) -> int | float:
        """The batches of an epoch, as many as limit_train_batches lets through; inf if nobody knows."""
        count = None if self.train_dataloader is None else self.count(self.train_dataloader, "train")
        return math.inf if count is None else count

    @property
    def estimated_stepping_batches(self) -> int | float:
        """The optimizer steps of the whole run, for schedules that must know."""
        batches, limit = self.num_training_batches, self.max_steps if self.max_steps >= 0 else math.inf
        if self.max_epochs < 0 or batches == math.inf:
            return limit
        return min(math.ceil(batches / self.accumulate_grad_batches) * self.max_epochs, limit)

    @property
    def log_dir(self) -> str:
        """The first logger's folder, or default_root_dir."""
        folder = self.logger.log_dir if self.logger is not None else None
        return self.default_root_dir if folder is None else str(folder)

    @property
    def checkpoint_callbacks(self) -> list[ModelCheckpoint]:
        """Every ModelCheckpoint."""
        return [callback for callback in self.callbacks if isinstance(callback, ModelCheckpoint)]

    @property
    def checkpoint_callback(self) -> ModelCheckpoint | None:
        """The first ModelCheckpoint."""
        return next(iter(self.checkpoint_callbacks), None)

    @property
    def early_stopping_callback(self) -> EarlyStopping | None:
        """The first EarlyStopping."""
        return next((callback for callback in self.callbacks if isinstance(callback, EarlyStopping)), None)
