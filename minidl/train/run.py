"""Run: what a Trainer needs beside its loop. The settings; the module, loaders, callbacks and loggers of a run."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from minidl.backends import use_deterministic_algorithms
from minidl.creation import tensor
from minidl.data.sampler import check_count
from minidl.dtypes import float64
from minidl.errors import GraphError, MinidlError, ModuleError, SettingError, ShapeError
from minidl.optim.optimizer import Optimizer
from minidl.tensors import Tensor
from minidl.train import checkpoint
from minidl.train.callbacks import Callback, ModelCheckpoint
from minidl.train.facts import Facts, State
from minidl.train.hooks import check_hooks
from minidl.train.log import Log
from minidl.train.loggers import CSVLogger, Logger
from minidl.train.module import LightningDataModule, LightningModule
from minidl.train.optimization import Schedule
from minidl.train.progress import EpochTable, ProgressBar
from minidl.train.settings import batch_limit, chosen_device, moved, refuse_others, why_auto

KIND = {"validate": "validation", "test": "test"}       # what a stage's hooks and steps are called


class Run(Facts):
    """The settings of a Trainer, and one run of it.

    max_epochs: 1000 if neither it nor max_steps is given, -1 for no limit. max_steps: optimizer steps, -1 for no limit.
    accelerator "auto", "cpu" or "gpu", devices=1: where. logger: a Logger, a list of them, True for a CSVLogger, False
    for none. callbacks: a Callback or a list. limit_train_batches, limit_val_batches, limit_test_batches,
    limit_predict_batches: a number of batches, or a fraction as a float. fast_dev_run: a number of batches (True: 1) of
    everything, once, without loggers and checkpoints. gradient_clip_val: the largest norm of all gradients together, or
    with gradient_clip_algorithm="value" of each element. accumulate_grad_batches: a step only every so many batches.
    check_val_every_n_epoch: how often is validated. log_every_n_steps: how often numbers of single steps are written.
    deterministic: nothing to do on the CPU. default_root_dir: where logs and checkpoints go (the working folder).
    enable_checkpointing: keep the newest checkpoint if no ModelCheckpoint is among the callbacks. enable_progress_bar:
    show the bar and the table of epochs. enable_model_summary: one line about the module.
    """

    def __init__(self, *, accelerator: str = "auto", devices: Any = 1, max_epochs: int | None = None,
                 max_steps: int = -1, logger: Any = True, callbacks: Any = None,
                 limit_train_batches: int | float | None = None, limit_val_batches: int | float | None = None,
                 limit_test_batches: int | float | None = None, limit_predict_batches: int | float | None = None,
                 fast_dev_run: int | bool = False, gradient_clip_val: float | None = None,
                 gradient_clip_algorithm: str | None = None, deterministic: bool | str | None = None,
                 accumulate_grad_batches: int = 1, check_val_every_n_epoch: int = 1, log_every_n_steps: int = 50,
                 default_root_dir: Any = None, enable_checkpointing: bool = True, enable_progress_bar: bool = True,
                 enable_model_summary: bool = True, **others: Any) -> None:
        refuse_others(others, list(inspect.signature(Run.__init__).parameters)[1:-1])
        self.device, self._is_auto = chosen_device(accelerator, devices), accelerator == "auto"
        self.fast_dev_run = check_count(int(fast_dev_run), "fast_dev_run", "Trainer", 0)
        if max_epochs is None:
            max_epochs = 1000 if max_steps == -1 else -1
        self.max_epochs = check_count(max_epochs, "max_epochs", "Trainer", -1)
        self.max_steps = check_count(max_steps, "max_steps", "Trainer", -1)
        self.limits = {"train": batch_limit("limit_train_batches", limit_train_batches),
                       "validation": batch_limit("limit_val_batches", limit_val_batches),
                       "test": batch_limit("limit_test_batches", limit_test_batches),
                       "predict": batch_limit("limit_predict_batches", limit_predict_batches)}
        if gradient_clip_algorithm not in ("norm", "value", None):
            raise SettingError(f"got gradient_clip_algorithm={gradient_clip_algorithm!r}, expected 'norm' or 'value'",
                               where="Trainer")
        if gradient_clip_val is not None and not gradient_clip_val >= 0:
            raise SettingError(f"got gradient_clip_val={gradient_clip_val}, expected 0 or more", where="Trainer")
        self.gradient_clip_val, self.gradient_clip_algorithm = gradient_clip_val, gradient_clip_algorithm or "norm"
        self.accumulate_grad_batches = check_count(accumulate_grad_batches, "accumulate_grad_batches", "Trainer", 1)
        self.check_val_every_n_epoch = check_count(check_val_every_n_epoch, "check_val_every_n_epoch", "Trainer", 1)
        self.log_every_n_steps = check_count(log_every_n_steps, "log_every_n_steps", "Trainer", 1)
        self.default_root_dir = str(default_root_dir or Path.cwd())
        if deterministic is not None:
            use_deterministic_algorithms(bool(deterministic))
        if self.fast_dev_run:
            self.max_epochs, self.limits = 1, dict.fromkeys(self.limits, self.fast_dev_run)
            logger, enable_checkpointing = False, False

        from rich.console import Console

        self.console = Console()
        self.shows_progress, self.enable_model_summary = enable_progress_bar, enable_model_summary
        if logger is True:
            logger = CSVLogger(self.default_root_dir)
        self.loggers: list[Logger] = list(logger) if isinstance(logger, list | tuple) else [logger] if logger else []
        given = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks] if callbacks else []
        for callback in given:
            if not isinstance(callback, Callback):
                got = f"the class {callback.__name__}" if isinstance(callback, type) else f"a {type(callback).__name__}"
                raise SettingError(f"got {got} among the callbacks, expected a Callback object", where="Trainer")
        if self.fast_dev_run:
            given = [callback for callback in given if not isinstance(callback, ModelCheckpoint)]
        elif enable_checkpointing and not any(isinstance(callback, ModelCheckpoint) for callback in given):
            given.append(ModelCheckpoint())
        self._given = ([ProgressBar(), EpochTable()] if enable_progress_bar else []) + given
        self.callbacks = in_order(self._given)

        self.model: Any = None
        self.datamodule: LightningDataModule | None = None
        self.train_dataloader: Any = None
        self.val_dataloader: Any = None
        self.frozen: list[Any] = []                     # parameters that toggle_optimizer froze
        self.buffers: list[tuple[str, Any, str]] = []   # where they are, to be copied before each step
        self.state = State()
        self.ckpt_path: Path | None = None
        self.start_anew()

    def start_anew(self) -> None:
        """What a run counts, at 0."""
        self.optimizers: list[Optimizer] = []
        self.schedules: list[Schedule] = []
        self.current_epoch = 0                          # epochs that are finished
        self._steps_before = 0                          # of the optimizers, before this run or its break
        self.logger_step = 0                            # the same for loggers; batches, if the module steps itself
        self.should_stop = False                        # set it to stop after this batch; then validation still comes
        self.history: list[dict[str, Any]] = []
        self.log = Log(in_training=False)
        self.noted: dict[str, Any] = {}                # the newest numbers of the logs before this one
        self._logged: dict[str, float] = {}             # and those for the loggers, under the loggers' names
        self.metrics_of_epoch: dict[str, float] = {}    # what the monitors look at
        self.number_of_batches: int | None = None       # of the epoch or pass that is running
        self.batch_idx = -1                             # of the batch that is running

    # -- a run --

    @contextmanager
    def running(self, stage: str, model: LightningModule | None, given: Any, datamodule: LightningDataModule | None
                ) -> Iterator[None]:
        """Before: setup of everyone. After, whatever happened: teardown, and the loggers write what they have.

        given: a loader, or the datamodule in its place.
        """
        self._attach(model, stage, given if isinstance(given, LightningDataModule) else datamodule)
        try:
            self._set_up(stage)
            yield
            self.state.status = "finished"
        except BaseException as error:
            self.state.status = "interrupted"
            for callback in self.callbacks:
                callback.on_exception(self, self.model, error)
            raise
        finally:
            with ExitStack() as last:                   # each of these happens, even if one before it raises
                self.state.stage = None
                if self.datamodule is not None:
                    last.callback(self.datamodule.teardown, stage)
                last.callback(self.call, "teardown", stage)
                for logger in reversed(self.loggers):
                    last.callback(logger.finalize, "success" if self.state.finished else "failed")

    def _attach(self, model: LightningModule | None, stage: str, datamodule: LightningDataModule | None) -> None:
        model = self.model if model is None else model
        if not isinstance(model, LightningModule):
            got = "no model" if model is None else f"a {type(model).__name__}"
            if isinstance(model, type):
                got = f"the class {model.__name__}; write {model.__name__}()"
            raise ModuleError(f"got {got}, expected a LightningModule, which says in training_step what a batch means",
                              where=f"Trainer.{stage}")
        check_hooks(model, LightningModule)
        if stage in ("validate", "test") and not is_written(model, f"{KIND[stage]}_step"):
            raise ModuleError(f"has no {KIND[stage]}_step, so there is nothing to measure; define it, with "
                              f"(self, batch, batch_idx), and log what it finds", where=type(model).__name__)
        own = list(model.configure_callbacks()) if stage == "fit" else []
        for callback in self._given + own:
            check_hooks(callback, Callback)
        if stage == "fit":
            self.callbacks = in_order(self._given + own)
            self.start_anew()
        self.noted, self._logged, self.log = {}, {}, Log(in_training=False)
        self.model, self.datamodule = model, datamodule
        self.state = State(stage, "train" if stage == "fit" else stage, "running")
        model.trainer = self
        model.to(self.device)                       # every part: some may be there already

    def _set_up(self, stage: str) -> None:
        if stage == "fit" and self.enable_model_summary:
            count = sum(p.numel() for p in self.model.parameters())
            chosen = f" (chosen by auto: {why_auto(self.device)})" if self._is_auto else ""
            self.console.print(f"{type(self.model).__name__}: {count:,} parameters, on {self.device}{chosen}",
                               highlight=False, markup=False, soft_wrap=True)
        self.model.prepare_data()
        if self.datamodule is not None:
            self.datamodule.trainer = self
            self.datamodule.prepare_data()
            self.datamodule.setup(stage)
        self.call("setup", stage)

    def call(self, hook: str, *args: Any) -> Any:
        """A hook of every callback, then of the module; what the module's returns."""
        for callback in self.callbacks:
            getattr(callback, hook)(self, self.model, *args)
        return getattr(self.model, hook)(*args)

    @property
    def global_step(self) -> int:
        """Optimizer steps so far."""
        return self._steps_before + sum(optimizer._steps_taken for optimizer in self.optimizers)

    @global_step.setter
    def global_step(self, count: int) -> None:
        self._steps_before = count - sum(optimizer._steps_taken for optimizer in self.optimizers)

    def is_finished(self) -> bool:
        """Whether max_epochs or max_steps is reached."""
        return self.current_epoch >= self.max_epochs >= 0 or self.global_step >= self.max_steps >= 0

    # -- batches --

    def loader(self, given: Any, name: str, is_needed: bool = True) -> Any:
        """The loader that was given, or that the datamodule or the module makes."""
        if given is None or isinstance(given, LightningDataModule):
            owner = self.model if self.datamodule is None else self.datamodule
            given = getattr(owner, name)() if callable(getattr(type(owner), name, None)) else None
        if isinstance(given, list | tuple):
            if len(given) > 1:
                raise SettingError(f"got {len(given)} loaders for {name}, expected one; call validate or test for "
                                   f"each, and make batches with a DataLoader", where="Trainer")
            given = given[0] if given else None
        if given is None and is_needed:
            raise SettingError(f"got no loader, expected batches: pass a DataLoader, or define {name}(self)",
                               where="Trainer")
        if given is not None and not hasattr(given, "__iter__"):
            raise SettingError(f"got a {type(given).__name__}, expected a DataLoader or another iterable of batches",
                               where="Trainer")
        if given is not None and name != "train_dataloader" and length(given) == 0:
            warnings.warn(f"got no batches from {name}, so nothing is measured; look at the dataset and drop_last",
                          stacklevel=3)
        return given

    def val_loader(self, given: Any) -> Any:
        """The loader that validates after each epoch, or None."""
        loader = self.loader(given, "val_dataloader", is_needed=False)
        if loader is not None and not is_written(self.model, "validation_step"):
            warnings.warn(f"{type(self.model).__name__} has no validation_step, so it is not validated; define "
                          f"validation_step(self, batch, batch_idx), or leave the loader out", stacklevel=3)
        return loader

    def count(self, loader: Any, kind: str) -> int | None:
        """How many batches of a loader the limit lets through; None if the loader does not know its length."""
        limit, total = self.limits[kind], length(loader)
        if isinstance(limit, float):
            if total is None:
                raise SettingError(f"got the fraction {limit} as limit for {kind} batches of a loader without a "
                                   f"length, expected a number of batches", where="Trainer")
            limit = int(limit * total)
        if kind == "train" and (total == 0 or limit == 0):
            raise SettingError(f"got {total} training batches{'' if limit is None else f' and a limit of {limit}'}, "
                               f"expected at least one; look at the dataset, drop_last, and limit_train_batches",
                               where="Trainer.fit")
        return total if limit is None else limit if total is None else min(limit, total)

    def batches(self, loader: Any, kind: str) -> Iterator[tuple[int, Any]]:
        """The batches of a pass with their numbers, as many as the limit lets through, on the device."""
        self.number_of_batches = self.count(loader, kind)
        return self._numbered(loader, kind)

    def _numbered(self, loader: Any, kind: str) -> Iterator[tuple[int, Any]]:
        batches, self.batch_idx = islice(loader, self.number_of_batches), -1
        for batch in self._one_ahead(batches) if length(loader) is None else batches:
            self.batch_idx += 1
            yield self.batch_idx, moved(batch, self.device)
        if kind == "train" and self.batch_idx < 0:
            raise SettingError(f"got no batch from a {type(loader).__name__} in epoch {self.current_epoch + 1}, "
                               f"expected some; a generator can be used only once", where="Trainer.fit")

    def _one_ahead(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, each asked for before the one ahead of it is used: so the last is known to be the last."""
        count, ahead = 0, list(islice(batches, 1))
        while ahead:
            count, batch, ahead = count + 1, ahead[0], list(islice(batches, 1))
            if not ahead:
                self.number_of_batches = count
            yield batch

    @property
    def validates(self) -> bool:
        """Whether there is validation in this run."""
        return self.val_dataloader is not None and is_written(self.model, "validation_step") and \
            self.limits["validation"] not in (0, 0.0)

    @property
    def validates_now(self) -> bool:
        """Whether the epoch that is running ends with validation."""
        return self.validates and (self.current_epoch + 1) % self.check_val_every_n_epoch == 0

    @property
    def reads_numbers_now(self) -> bool:
        """Whether numbers may be read from the device in this step. Elsewhere than on the CPU reading is waiting."""
        return self.device.type == "cpu" or (self.logger_step + 1) % self.log_every_n_steps == 0

    # -- numbers --

    @property
    def logger(self) -> Logger | None:
        """The first logger."""
        return self.loggers[0] if self.loggers else None

    def log_to_loggers(self, metrics: dict[str, float]) -> None:
        """Write numbers down, for the step that was last."""
        self._logged.update(metrics)
        step = self.logger_step - (self.state.fn == "fit")
        for logger in self.loggers if metrics else []:
            logger.log_metrics({"epoch": self.current_epoch, **metrics}, max(step, 0))

    def write_history(self, of_validation: Log | None, seconds: float) -> None:
        """The row of the epoch: means of everything that was logged until now.

        Monitors look at these means, those that the table shows, also for what is logged by step alone. (Lightning's
        look at the last step then, which may be good or bad by luck.)
        """
        logs = [self.log] if of_validation is None else [self.log, of_validation]
        row: dict[str, Any] = {"epoch": self.current_epoch}
        for log in logs:
            row |= log.of_epoch()
        self.history[self.current_epoch:] = [{**row, "seconds": seconds}]
        self.metrics_of_epoch = {name: float(x) for log in logs for name, x in log.newest().items()} | row

    def begin_log(self, log: Log) -> Log:
        """Log into another one from now on; returns the one until now, whose newest numbers stay to be seen."""
        before, self.log = self.log, log
        self.noted.update(before.newest())
        self._logged.update(before.of_step())
        return before

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """The newest value of everything logged, see `Log.newest`."""
        return {name: value if isinstance(value, Tensor) else tensor(value, dtype=float64)
                for name, value in {**self.noted, **self.log.newest()}.items()}

    @property
    def logged_metrics(self) -> dict[str, Tensor]:
        """The newest value of everything that is for loggers, under the names that they see."""
        return {name: tensor(value, dtype=float64) for name, value in {**self._logged, **self.log.of_step()}.items()}

    def print(self, *args: Any) -> None:
        """Print above the progress bar."""
        self.console.print(" ".join(map(str, args)), markup=False, highlight=False)

    def show(self, metrics: dict[str, float]) -> None:
        """Print numbers below one another."""
        width = max(map(len, metrics), default=0)
        for name, value in metrics.items():
            self.console.print(f"{name.ljust(width)}  {value:.4f}", highlight=False)

    # -- checkpoints --

    def save_checkpoint(self, filepath: Any, weights_only: bool = False) -> None:
        """Write a checkpoint, from which `fit(…, ckpt_path=filepath)` goes on: between epochs, or in on_train_epoch_end
        of a callback with looks_at_epoch = True.
        """
        path = Path(filepath)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MinidlError(f"got {path.parent} as folder for checkpoints, which cannot be made ({error.strerror}); "
                              f"choose another", where="Trainer") from None
        for logger in self.loggers:
            logger.save()                               # what a run that goes on from here must not lose
        checkpoint.write(self, path, weights_only)

    def load_weights(self, ckpt_path: Any) -> None:
        """Give the module the weights of a checkpoint, if one is given."""
        self.ckpt_path = self.checkpoint_file(ckpt_path)
        if self.ckpt_path is not None:
            self.model.load_state_dict(checkpoint.read(self.ckpt_path)["state_dict"])

    def checkpoint_file(self, wanted: Any) -> Path | None:
        """A path; "last": the newest checkpoint in the folder, None if there is none; "best"."""
        if wanted is None:
            return None
        keeper = self.checkpoint_callback
        if wanted in ("last", "best"):
            if keeper is None:
                raise SettingError(f"got ckpt_path={wanted!r} and no ModelCheckpoint among the callbacks, expected a "
                                   f"path", where="Trainer")
            if wanted == "last":
                return keeper.newest()
            if not keeper.best_model_path:
                raise SettingError("got ckpt_path='best', but no checkpoint was saved yet; fit first", where="Trainer")
            return Path(keeper.best_model_path)
        return Path(wanted)


def in_order(callbacks: list[Any]) -> list[Any]:
    """Those that look at the whole epoch last, and checkpoints after them: they save what others have made of it."""
    return sorted(callbacks, key=lambda callback: (callback.looks_at_epoch, isinstance(callback, ModelCheckpoint)))


def is_written(model: LightningModule, name: str) -> bool:
    """Whether a module has a step of its own."""
    return getattr(getattr(model, name), "__func__", None) is not getattr(LightningModule, name)


def step_of(model: LightningModule, name: str) -> Any:
    """A step of a module, to be called with a batch and its number, even if it takes the batch alone."""
    step = getattr(model, name)
    function = getattr(step, "__func__", step)
    return step if arguments_of(function) - (function is not step) > 1 else lambda batch, batch_idx: step(batch)


@lru_cache(maxsize=64)
def arguments_of(function: Any) -> int:
    """How many arguments a function takes, self included; many with *args."""
    parameters = inspect.signature(function).parameters.values()
    return 99 if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters) else len(parameters)


def length(loader: Any) -> int | None:
    """How many batches a loader has; None for an IterableDataset's and for a generator, which do not know."""
    try:
        return len(loader)
    except TypeError:
        return None


def checked_loss(outputs: Any, model: LightningModule) -> Tensor:
    """The loss in what training_step returned."""
    where = f"{type(model).__name__}.training_step"
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    if not isinstance(loss, Tensor):
        raise ModuleError(f"got a {type(loss).__name__} back, expected the loss, a scalar tensor, or a dict with it "
                          f"under 'loss'", where=where)
    if loss.numel() != 1:
        raise ShapeError(f"got a loss of shape {tuple(loss.shape)} back, expected a single number; use loss.mean()",
                         where=where)
    if not loss.requires_grad:
        raise GraphError("got a loss back that depends on no parameter, so there is nothing to train; return the loss "
                         "itself, not loss.item() or loss.detach()", where=where)
    return loss


def check_losses(count: int, model: LightningModule) -> None:
    """Raise if no batch of a whole epoch had a loss."""
    if not count:
        raise ModuleError("got None back for every batch of the epoch, so nothing was trained; end it with return loss",
                          where=f"{type(model).__name__}.training_step")


def outputs_as_dict(outputs: Any, loss: Tensor | None = None) -> dict[str, Any]:
    """What training_step returned, for on_train_batch_end; loss: the one that was differentiated."""
    found = dict(outputs) if isinstance(outputs, dict) else {} if outputs is None else {"loss": outputs}
    return found if loss is None else {**found, "loss": loss.detach()}
