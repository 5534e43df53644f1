"""Trainer: the training loop, once, with everything that belongs to it.

The loop that people write by hand,

    for epoch in range(10):
        for batch_idx, batch in enumerate(train_loader):
            loss = model.training_step(batch, batch_idx)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

is `_train_epoch` and `_train_batch` below; the rest is validation, stopping, saving and showing. Names and meaning are
those of PyTorch Lightning 2. What these methods use and you need not read first:

    self.call(hook, …)          the hook of each callback, then of the module: hooks.py is the list of them
    self.batches(loader, kind)  (number, batch) for as many batches as the limits let through, on the device
    self.log                    what `module.log(name, value)` has recorded in this epoch or pass: log.py
    self.running(…)             setup before and teardown after a run, whatever happens in it: run.py
    self.optimizers, schedules  what configure_optimizers returned, in one form: optimization.py
"""

from __future__ import annotations

import math
import time
from typing import Any

from minidl.errors import MinidlError
from minidl.nn.utils.modes import evaluating
from minidl.optim.optimizer import Optimizer
from minidl.recording import no_grad
from minidl.tensors import Tensor
from minidl.train import checkpoint
from minidl.train.finite import ADVICE, copied_buffers, first_not_finite, not_finite_gradient, places_of_buffers
from minidl.train.log import Log, size_of
from minidl.train.module import LightningDataModule, LightningModule
from minidl.train.optimization import configured
from minidl.train.run import KIND, Run, check_losses, checked_loss, outputs_as_dict, step_of

Metrics = dict[str, float]


class Trainer(Run):
    """Trains, validates and tests a `LightningModule`. Its settings are those of `Run`.

        trainer = Trainer(max_epochs=10, callbacks=[EarlyStopping("val_loss", restore_best_weights=True)])
        trainer.fit(model, train_loader, val_loader)
        trainer.test(model, test_loader)

    history: a dict of metrics for each epoch, means over it. callback_metrics: the newest value of everything logged.
    """

    # -- training --

    def fit(self, model: LightningModule, train_dataloaders: Any = None, val_dataloaders: Any = None,
            datamodule: LightningDataModule | None = None, ckpt_path: Any = None) -> None:
        """Train, a new run from epoch 0; validate after each epoch if there is a loader for it.

        train_dataloaders: a loader, or a datamodule, which brings all of them.
        ckpt_path: go on from this checkpoint, bit for bit as if there had been no break; "last" for the newest one that
        the ModelCheckpoint finds in its folder, or a new run if there is none.
        """
        with self.running("fit", model, train_dataloaders, datamodule):
            self.train_dataloader = self.loader(train_dataloaders, "train_dataloader")
            self.val_dataloader = self.val_loader(val_dataloaders)
            self.optimizers, self.schedules = configured(model)
            self.global_step = 0
            for logger in self.loggers if model.hparams else []:
                logger.log_hyperparams(model.hparams)
            self.ckpt_path = self.checkpoint_file(ckpt_path)
            if self.ckpt_path is not None:
                checkpoint.resume(self, self.ckpt_path)
                if self.shows_progress:
                    self.print(f"going on after epoch {self.current_epoch}, from {self.ckpt_path}")
            elif ckpt_path == "last":                   # the run broke off before its first checkpoint
                for logger in self.loggers:
                    logger.resume_at(0)
            if not model.training:
                model.train()
            self.call("on_fit_start")
            self.call("on_train_start")
            while not self.should_stop and not self.is_finished():
                self._train_epoch()
            self.call("on_train_end")
            self.call("on_fit_end")

    def _train_epoch(self) -> None:
        """All batches once, then validation, then what happens at an epoch's end."""
        start, batches_with_loss = time.perf_counter(), 0
        self.begin_log(Log(in_training=True))
        batches = self.batches(self.train_dataloader, "train")
        self.call("on_train_epoch_start")
        self.buffers = places_of_buffers(self.model)        # such as batch-norm's means, which forward changes
        for batch_idx, batch in batches:
            if self.should_stop or self.is_finished():
                break
            self.log.batch_size = size_of(batch)
            if self.call("on_train_batch_start", batch, batch_idx) == -1:
                break
            step_before = self.global_step
            outputs = self._train_batch(batch, batch_idx)
            self.call("on_train_batch_end", outputs, batch, batch_idx)
            if self.global_step > step_before or not self.model.automatic_optimization:
                self.logger_step += 1
                if self.logger_step % self.log_every_n_steps == 0:
                    self.log_to_loggers(self.log.of_step())
            batches_with_loss += bool(outputs) or not self.model.automatic_optimization
        else:                                               # the epoch was not broken off
            self._step_schedules("epoch", self.current_epoch + 1)
            check_losses(batches_with_loss, self.model)
        self.log.batch_size = None
        of_validation = self._pass_over(self.val_dataloader, "validation") if self.validates_now else None
        self._end_of_epoch(of_validation, time.perf_counter() - start)

    def _train_batch(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One step: the loss of a batch, its gradients, and the weights change against them."""
        # if the loss is not finite, the module goes back to what it was before this step
        buffers = copied_buffers(self.buffers) if self.reads_numbers_now else {}
        outputs = step_of(self.model, "training_step")(batch, batch_idx)
        if not self.model.automatic_optimization:           # it has stepped the optimizers itself
            return outputs_as_dict(outputs)
        optimizer, every = self.optimizers[0], self.accumulate_grad_batches
        loss = None if outputs is None else checked_loss(outputs, self.model)
        if loss is not None and self.reads_numbers_now:
            self._check_finite(loss, batch, batch_idx, buffers)
        if batch_idx % every == 0:
            self.call("on_before_zero_grad", optimizer)
            optimizer.zero_grad()
        if loss is not None:                                # else the batch is left out
            loss = loss / every if every > 1 else loss
            self.call("on_before_backward", loss)
            loss.backward()
            self.call("on_after_backward")
        if (batch_idx + 1) % every == 0 or self.is_last_batch:
            if self.device.type == "cpu":
                self._check_gradients(optimizer)
            self.call("on_before_optimizer_step", optimizer)
            self.model.clip_gradients(optimizer, self.gradient_clip_val, self.gradient_clip_algorithm)
            count = optimizer._steps_taken
            optimizer.step()
            optimizer._steps_taken = count + 1              # also for an optimizer whose own step() does not count
            self._step_schedules("step", self.global_step)
        return outputs_as_dict(outputs, loss)

    def _end_of_epoch(self, of_validation: Log | None, seconds: float) -> None:
        """Means, history, the rates that follow a metric; then the callbacks that look at it; then it is finished."""
        self.log.has_ended = True
        self.write_history(of_validation, seconds)          # so that the hooks can look at it
        for callback in self.callbacks:
            if not callback.looks_at_epoch:
                callback.on_train_epoch_end(self, self.model)
        self.model.on_train_epoch_end()
        self.write_history(of_validation, seconds)          # again: they may have logged something
        self.log_to_loggers(self.log.for_loggers())
        self._step_schedules("epoch", self.current_epoch + 1, by_metric=True)
        for callback in self.callbacks:
            if callback.looks_at_epoch:
                callback.on_train_epoch_end(self, self.model)
        for keeper in self.checkpoint_callbacks:            # each file knows what all of them have decided
            keeper.write(self)
        self.current_epoch += 1

    def _step_schedules(self, interval: str, count: int, by_metric: bool = False) -> None:
        """Those that follow a metric are stepped by epoch after validation, the others before."""
        for schedule in self.schedules if self.model.automatic_optimization else []:
            if schedule.interval == interval and count % schedule.frequency == 0 and \
                    (schedule.follows_metric == by_metric or interval == "step"):
                schedule.step(self)

    def _check_finite(self, loss: Tensor, batch: Any, batch_idx: int, buffers: dict[str, Tensor]) -> None:
        """Stop before a loss that is nan or infinite spoils the weights; say where it comes from."""
        value = loss.item()
        if not math.isfinite(value):
            self.log, step = Log(in_training=True), step_of(self.model, "training_step")
            self.log.batch_size = size_of(batch)            # the step runs once more; what it logs is dropped
            where = first_not_finite(self.model, batch, lambda: step(batch, batch_idx), buffers)
            raise self._not_finite(f"the loss is {value}", where)

    def _check_gradients(self, optimizer: Optimizer) -> None:
        """Stop before a gradient that is nan or infinite spoils the weights."""
        name = not_finite_gradient(self.model, optimizer)
        if name is not None:
            raise self._not_finite(f"the gradient of {name} is not finite", "the loss is; look for a sqrt, a norm or a "
                                   f"std of 0, or a division by almost 0; else {ADVICE}")

    def _not_finite(self, what: str, where: str) -> MinidlError:
        rates = ", ".join(f"{group['lr']:g}" for group in self.optimizers[0].param_groups)
        kept = next((keeper.kept for keeper in self.checkpoint_callbacks), "")
        return MinidlError(f"{what} in epoch {self.current_epoch + 1}, step {self.batch_idx + 1} (learning rate {rates}"
                           f"): {where}{kept}", where="Trainer.fit")

    # -- measuring --

    def validate(self, model: LightningModule | None = None, dataloaders: Any = None, ckpt_path: Any = None,
                 verbose: bool = True, datamodule: LightningDataModule | None = None) -> list[Metrics]:
        """One pass of validation_step over the loader; returns [what was logged] and shows it as a table."""
        return self._measure("validate", model, dataloaders, ckpt_path, verbose, datamodule)

    def test(self, model: LightningModule | None = None, dataloaders: Any = None, ckpt_path: Any = None,
             verbose: bool = True, datamodule: LightningDataModule | None = None) -> list[Metrics]:
        """One pass of test_step over the loader; returns [what was logged] and shows it as a table.

        ckpt_path: a file with other weights, or "best" for those of the ModelCheckpoint.
        """
        return self._measure("test", model, dataloaders, ckpt_path, verbose, datamodule)

    def predict(self, model: LightningModule | None = None, dataloaders: Any = None, ckpt_path: Any = None,
                datamodule: LightningDataModule | None = None, return_predictions: bool = True) -> list[Any] | None:
        """What predict_step returns for each batch of the loader; None without return_predictions."""
        outputs: list[Any] | None = [] if return_predictions else None
        with self.running("predict", model, dataloaders, datamodule):
            self.load_weights(ckpt_path)
            self._pass_over(self.loader(dataloaders, "predict_dataloader"), "predict", outputs)
        return outputs

    def _measure(self, stage: str, model: LightningModule | None, dataloaders: Any, ckpt_path: Any, verbose: bool,
                 datamodule: LightningDataModule | None) -> list[Metrics]:
        with self.running(stage, model, dataloaders, datamodule):
            self.load_weights(ckpt_path)
            name = "val_dataloader" if stage == "validate" else "test_dataloader"
            metrics = self._pass_over(self.loader(dataloaders, name), KIND[stage]).for_loggers(hidden_too=True)
        if verbose:
            self.show(metrics)
        return [metrics]

    def _pass_over(self, loader: Any, kind: str, outputs: list[Any] | None = None) -> Log:
        """Every batch once, in evaluation mode and without gradients; kind: "validation", "test" or "predict"."""
        model, stage, before = self.model, self.state.stage, self.begin_log(Log(in_training=False))
        step = step_of(model, f"{kind}_step")
        self.state.stage = "validate" if kind == "validation" else kind
        try:
            with evaluating(model), no_grad():              # a part that was frozen in evaluation mode stays so
                self.call(f"on_{kind}_start")
                batches = self.batches(loader, kind)
                self.call(f"on_{kind}_epoch_start")
                for batch_idx, batch in batches:
                    self.log.batch_size = size_of(batch)
                    self.call(f"on_{kind}_batch_start", batch, batch_idx)
                    result = step(batch, batch_idx)
                    if outputs is not None:
                        outputs.append(result)
                    self.call(f"on_{kind}_batch_end", result, batch, batch_idx)
                self.log.batch_size, self.log.has_ended = None, True
                self.call(f"on_{kind}_epoch_end")
                self.log_to_loggers(self.log.for_loggers())
                self.call(f"on_{kind}_end")
        finally:
            self.state.stage = stage
        return self.begin_log(before)
