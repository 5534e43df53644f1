"""Callbacks: what happens besides training. Stopping early, keeping checkpoints, writing down the learning rate."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minidl import io
from minidl.errors import MinidlError, SettingError, no_such_name
from minidl.tensors import Tensor
from minidl.train.finite import not_finite_weight
from minidl.train.hooks import Hooks
from minidl.train.log import monitored

_BAR, _TUNE = "the bar is there unless enable_progress_bar=False", "freeze in on_fit_start, add_param_group later"
HINTS = {"RichProgressBar": _BAR, "TQDMProgressBar": _BAR, "ProgressBar": _BAR, "BaseFinetuning": _TUNE,
         "BackboneFinetuning": _TUNE, "ModelSummary": "use minidl.summary(model, size)",
         "Timer": "each row of trainer.history has its 'seconds'", "LambdaCallback": "write a Callback with such hooks",
         "GradientAccumulationScheduler": "set trainer.accumulate_grad_batches in on_train_epoch_start"}


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.train.callbacks", name, lambda: globals(), HINTS)


class Callback(Hooks):
    """Something to do at fixed points of a run: write the hooks you need, see `minidl.train.hooks`.

    What `state_dict` returns is kept in checkpoints and given to `load_state_dict` when a run goes on.
    """

    looks_at_epoch = False              # True: its on_train_epoch_end comes last, when all numbers are there

    def state_dict(self) -> dict[str, Any]:
        """What must be remembered: numbers, strings, tensors, and lists and dicts of them."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""


class EarlyStopping(Callback):
    """Stop when `monitor` has not become better for `patience` epochs.

    mode: "min" or "max", what better means; min_delta: by how much at least. restore_best_weights: when training ends,
    early or not, the module gets the weights of its best epoch. stopping_threshold: stop at once when the metric is
    better than this; divergence_threshold: or worse than this; check_finite: or nan or infinite. strict=False: a metric
    may be missing. check_on_train_epoch_end and log_rank_zero_only change nothing here.

    Ref: Prechelt 1998, "Early Stopping - But When?"
    """

    looks_at_epoch = True

    def __init__(self, monitor: str, min_delta: float = 0.0, patience: int = 3, verbose: bool = False,
                 mode: str = "min", strict: bool = True, check_finite: bool = True,
                 stopping_threshold: float | None = None, divergence_threshold: float | None = None,
                 check_on_train_epoch_end: bool | None = None, log_rank_zero_only: bool = False,
                 restore_best_weights: bool = False) -> None:
        check_mode(mode, "EarlyStopping")
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 0:
            raise SettingError(f"got patience={patience!r}, expected 0 or more epochs", where="EarlyStopping")
        self.monitor, self.min_delta, self.patience, self.mode = monitor, abs(min_delta), patience, mode
        self.verbose, self.strict, self.check_finite = verbose, strict, check_finite
        self.stopping_threshold, self.divergence_threshold = stopping_threshold, divergence_threshold
        self.restore_best_weights = restore_best_weights
        self._forget()

    def _forget(self) -> None:
        self.best_score = math.inf if self.mode == "min" else -math.inf
        self.best_epoch: int | None = None          # epochs count from 0
        self.wait_count = 0                         # epochs since the best one
        self.stopped_epoch = 0
        self.best_weights: dict[str, Tensor] = {}

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """A new run starts without a best epoch."""
        if stage == "fit":
            self._forget()

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """A run that had stopped and is continued has stopped still."""
        if self.best_epoch is not None and self.wait_count >= self.patience > 0:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Compare with the best epoch so far."""
        metrics = trainer.metrics_of_epoch
        if not_now(self.monitor, trainer) or (self.monitor not in metrics and not self.strict):
            return
        score = monitored(metrics, self.monitor, "EarlyStopping")
        if self.check_finite and not math.isfinite(score):
            self._stop(trainer, f"{self.monitor} is {score}")
        elif self.divergence_threshold is not None and is_better(self.divergence_threshold, score, self.mode):
            self._stop(trainer, f"{self.monitor} {score:.4f} is worse than {self.divergence_threshold}")
        elif is_better(score, self.best_score, self.mode, self.min_delta):
            self.best_score, self.best_epoch, self.wait_count = score, trainer.current_epoch, 0
            if self.restore_best_weights:
                self.best_weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            if self.stopping_threshold is not None and is_better(score, self.stopping_threshold, self.mode):
                self._stop(trainer, f"{self.monitor} {score:.4f} is better than {self.stopping_threshold}")
        else:
            self.wait_count += 1
            if self.wait_count >= self.patience:
                best = "none" if self.best_epoch is None else f"{self.best_score:.4f} in epoch {self.best_epoch + 1}"
                self._stop(trainer, f"{self.monitor} has not become better for {self.wait_count} "
                                    f"epoch{'s' if self.wait_count > 1 else ''}, the best was {best}")

    def _stop(self, trainer: Any, reason: str) -> None:
        trainer.should_stop, self.stopped_epoch = True, trainer.current_epoch
        if self.verbose or trainer.shows_progress:
            trainer.console.print(f"stopped early: {reason}", highlight=False)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Go back to the best weights, if that was asked for."""
        if self.best_weights:
            module.load_state_dict(self.best_weights)

    def state_dict(self) -> dict[str, Any]:
        """The best epoch, its weights if they are to be restored, and how long ago it was."""
        return {"best_score": self.best_score, "best_epoch": self.best_epoch, "wait_count": self.wait_count,
                "stopped_epoch": self.stopped_epoch, "best_weights": self.best_weights}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from there."""
        vars(self).update(state_dict)


class ModelCheckpoint(Callback):
    """Keep the checkpoints of the `save_top_k` epochs that are best in `monitor`; without monitor, of the last one.

    dirpath: the folder, else "checkpoints" in the logger's; one run a folder. filename: "{epoch}-{val_loss:.2f}" gives
    epoch=3-val_loss=0.12.ckpt (epochs count from 0). save_last: a copy of the newest as last.ckpt, to go on from with
    `fit(…, ckpt_path="last")`. save_top_k: 0 for none, -1 for all. every_n_epochs: look only that often.
    save_weights_only: a smaller file, from which a run cannot go on.

    best_model_path, best_model_score, last_model_path: where they are. A file is written beside its place and renamed,
    and the one it replaces is deleted only then: there is always a whole one. Weights that are not finite
    are not saved.
    """

    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = ".ckpt"
    looks_at_epoch = True

    def __init__(self, dirpath: Any = None, filename: str | None = None, monitor: str | None = None,
                 verbose: bool = False, save_last: bool = False, save_top_k: int = 1, save_weights_only: bool = False,
                 mode: str = "min", auto_insert_metric_name: bool = True, every_n_train_steps: int | None = None,
                 train_time_interval: Any = None, every_n_epochs: int | None = None,
                 save_on_train_epoch_end: bool | None = None, enable_version_counter: bool = True) -> None:
        check_mode(mode, "ModelCheckpoint")
        if save_top_k < -1 or (monitor is None and save_top_k > 1):
            raise SettingError(f"got save_top_k={save_top_k} and monitor={monitor!r}, expected -1 (all), 0 (none), 1, "
                               f"or more with a metric to compare by", where="ModelCheckpoint")
        if every_n_train_steps or train_time_interval:
            raise SettingError(f"got every_n_train_steps={every_n_train_steps}, train_time_interval="
                               f"{train_time_interval}, expected None: a run goes on from the end of an epoch; use "
                               f"every_n_epochs", where="ModelCheckpoint")
        every_n_epochs = 1 if every_n_epochs is None else every_n_epochs
        if every_n_epochs < 1:
            raise SettingError(f"got every_n_epochs={every_n_epochs}, expected 1 or more", where="ModelCheckpoint")
        self.given_dirpath, self.filename, self.monitor, self.mode = dirpath, filename, monitor, mode
        self.save_top_k, self.save_last, self.every_n_epochs = save_top_k, save_last, every_n_epochs
        self.save_weights_only, self.auto_insert_metric_name = save_weights_only, auto_insert_metric_name
        self.verbose = verbose
        self.dirpath: Path | None = None if dirpath is None else Path(dirpath)
        self._forget()

    def _forget(self) -> None:
        self.best_k_models: dict[str, float] = {}           # path -> score
        self.best_model_path, self.last_model_path = "", ""
        self.best_model_score: float | None = None
        self.to_write: list[str] = []                       # after this epoch
        self.to_delete: list[str] = []

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """Choose the folder, and clear away what a run that was killed while writing has left there."""
        if stage == "fit":
            self._forget()
            if self.given_dirpath is None:
                base = trainer.logger.log_dir if trainer.logger is not None else None
                self.dirpath = Path(trainer.default_root_dir if base is None else base) / "checkpoints"
            if self.dirpath is not None and self.dirpath.is_dir():
                for left_over in self.dirpath.glob(f".*{self.FILE_EXTENSION}.*.part"):
                    left_over.unlink(missing_ok=True)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Decide whether this epoch is good enough. The trainer calls `write` when all have decided."""
        self.to_write, self.to_delete = [], []
        metrics = trainer.metrics_of_epoch
        if (trainer.current_epoch + 1) % self.every_n_epochs or not_now(self.monitor, trainer):
            return
        where = not_finite_weight(module)
        if where is not None:
            raise MinidlError(f"got {where} with numbers that are not finite after epoch {trainer.current_epoch + 1}, "
                              f"so no checkpoint was written{self.kept}; lower the learning rate, or set "
                              f"gradient_clip_val", where="ModelCheckpoint")
        if self.save_top_k != 0:
            score = math.nan if self.monitor is None else monitored(metrics, self.monitor, "ModelCheckpoint")
            if self.monitor is not None and math.isnan(score):
                score = math.inf if self.mode == "min" else -math.inf       # any number is better
            self._keep_if_good(trainer, metrics, score)
        if self.save_last:
            self.last_model_path = str(self._path(self.CHECKPOINT_NAME_LAST))
            self.to_write.append(self.last_model_path)

    def _keep_if_good(self, trainer: Any, metrics: Mapping[str, float], score: float) -> None:
        """Put this epoch among the best, if it is one of them, and push out the worst."""
        pushed_out: list[str] = []
        if self.monitor is None and self.save_top_k == 1:
            pushed_out = list(self.best_k_models)
        elif 0 < self.save_top_k <= len(self.best_k_models):
            worst = (max if self.mode == "min" else min)(self.best_k_models, key=lambda p: self.best_k_models[p])
            if not is_better(score, self.best_k_models[worst], self.mode):
                return
            pushed_out = [worst]
        name = self.format_checkpoint_name({**metrics, "epoch": trainer.current_epoch, "step": trainer.global_step})
        for old in pushed_out:
            del self.best_k_models[old]
        path, version = str(self._path(name)), 0
        while path in self.best_k_models:                   # another of the best has this name: name-v1, name-v2, …
            version += 1
            path = str(self._path(f"{name}-v{version}"))
        self.best_k_models[path] = score
        self._choose_best()
        self.to_write = [path]
        self.to_delete = [old for old in pushed_out if old != path]

    def _choose_best(self) -> None:
        """The best of them; without a metric, the newest."""
        self.best_model_path, self.best_model_score = next(reversed(self.best_k_models), ""), None
        if self.monitor is not None and self.best_k_models:
            best = (min if self.mode == "min" else max)(self.best_k_models, key=lambda path: self.best_k_models[path])
            self.best_model_path, self.best_model_score = best, self.best_k_models[best]

    def write(self, trainer: Any, only_missing: bool = False) -> None:
        """Write what was decided, then delete what it replaces. only_missing: a run that was killed here goes on."""
        for path in self.to_write:
            is_there = only_missing and Path(path).is_file() and io.load(path).get("epoch") == trainer.current_epoch
            if not is_there:
                trainer.save_checkpoint(path, self.save_weights_only)
                if self.verbose:
                    trainer.console.print(f"saved {path}", highlight=False)
        for path in self.to_delete:
            if not any(path in keeper.best_k_models for keeper in trainer.checkpoint_callbacks):
                Path(path).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        assert self.dirpath is not None             # setup chose it
        return self.dirpath / f"{name}{self.FILE_EXTENSION}"

    def format_checkpoint_name(self, metrics: Mapping[str, Any]) -> str:
        """The file's name, without its ending, for an epoch with these metrics."""
        pattern = (self.filename or "{epoch}-{step}").removesuffix(self.FILE_EXTENSION)

        def filled(found: re.Match[str]) -> str:
            name, form = found[1], found[2] or ""
            if name not in metrics:
                raise SettingError(f"got {{{name}}} in filename={pattern!r}, expected one of "
                                   f"{', '.join(sorted(metrics))}", where="ModelCheckpoint")
            try:
                text = format(metrics[name], form[1:])
            except ValueError as error:
                raise SettingError(f"got {found[0]} in filename={pattern!r} for {name}={metrics[name]}, which does not "
                                   f"fit: {error}", where="ModelCheckpoint") from None
            return f"{name}={text}" if self.auto_insert_metric_name else text

        return re.sub(r"\{([^:{}]+)(:[^{}]*)?\}", filled, pattern).replace("/", "_")

    @property
    def kept(self) -> str:
        """For an error: the last good checkpoint, if there is one."""
        path = self.last_model_path or self.best_model_path
        return f"; the last good checkpoint is {path}" if path else ""

    def newest(self) -> Path | None:
        """The whole checkpoint in the folder that was taken last, to go on from; None if there is none."""
        if self.dirpath is None or not self.dirpath.is_dir():
            return None
        steps: dict[Path, int] = {}
        for path in sorted(self.dirpath.glob(f"*{self.FILE_EXTENSION}")):
            checkpoint = io.load(path)
            if isinstance(checkpoint, dict) and "optimizer_states" in checkpoint:       # not only weights
                steps[path] = checkpoint["global_step"]
        return max(steps, key=lambda path: steps[path]) if steps else None

    def state_dict(self) -> dict[str, Any]:
        """Which files there are, or will be in a moment, and their scores."""
        return {"best_k_models": self.best_k_models, "best_model_path": self.best_model_path,
                "last_model_path": self.last_model_path, "best_model_score": self.best_model_score,
                "to_write": self.to_write, "to_delete": self.to_delete}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from there, with those of the files that are in this folder: another run's stay what they are."""
        due, folder = state_dict.get("to_write", []), self.dirpath
        assert folder is not None                   # setup chose it
        named = [*state_dict["best_k_models"], *due, *state_dict.get("to_delete", []), state_dict["last_model_path"]]
        here = {path: str(folder / Path(path).name) for path in named
                if path in due or (path and (folder / Path(path).name).is_file())}
        self.best_k_models = {here[path]: score for path, score in state_dict["best_k_models"].items() if path in here}
        self.to_write = [here[path] for path in due]
        self.to_delete = [here[path] for path in state_dict.get("to_delete", []) if path in here]
        self.last_model_path = here.get(state_dict["last_model_path"], "")
        self._choose_best()


class LearningRateMonitor(Callback):
    """Log the learning rates, "lr-Adam", at the start of each "epoch" or "step"; unless told, when schedules step."""

    def __init__(self, logging_interval: str | None = None) -> None:
        if logging_interval not in (None, "epoch", "step"):
            raise SettingError(f"got logging_interval={logging_interval!r}, expected 'epoch' or 'step'",
                               where="LearningRateMonitor")
        self.logging_interval = logging_interval

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Log the rates of the epoch."""
        self._log(trainer, "epoch")

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Log the rates of the step."""
        if (trainer.logger_step + 1) % trainer.log_every_n_steps == 0:
            self._log(trainer, "step")

    def _log(self, trainer: Any, interval: str) -> None:
        rates = self.rates(trainer, interval) if self.logging_interval in (None, interval) else {}
        trainer.noted.update(rates)
        for logger in trainer.loggers if rates else []:
            logger.log_metrics(rates, trainer.logger_step)

    def rates(self, trainer: Any, interval: str) -> dict[str, float]:
        """lr-Adam, or lr-Adam/pg1, lr-Adam/pg2 where there are several groups; a schedule may give another name."""
        found: dict[str, float] = {}
        scheduled = {schedule.scheduler.optimizer: schedule for schedule in trainer.schedules}
        kinds = [type(optimizer).__name__ for optimizer in trainer.optimizers]
        for i, optimizer in enumerate(trainer.optimizers):
            schedule, earlier = scheduled.get(optimizer), kinds[:i].count(kinds[i])
            name = (schedule and schedule.name) or f"lr-{kinds[i]}" + (f"-{earlier}" if earlier else "")
            if self.logging_interval is not None or schedule is None or schedule.interval == interval:
                for number, group in enumerate(optimizer.param_groups, start=1):
                    found[name + (f"/pg{number}" if len(optimizer.param_groups) > 1 else "")] = group["lr"]
        return found


def not_now(monitor: str | None, trainer: Any) -> bool:
    """Whether a metric is not there because this epoch has no validation, as others do."""
    return monitor is not None and monitor not in trainer.metrics_of_epoch and trainer.validates and \
        not trainer.validates_now


def check_mode(mode: str, where: str) -> None:
    """Raise unless it is "min" or "max"."""
    if mode not in ("min", "max"):
        raise SettingError(f"got mode={mode!r}, expected 'min' or 'max'", where=where)


def is_better(score: float, than: float, mode: str, by: float = 0.0) -> bool:
    """Whether a score beats another by more than `by`; nan never does."""
    return score < than - by if mode == "min" else score > than + by
