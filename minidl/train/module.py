"""LightningModule: a model that brings its training step along. LightningDataModule: the data that belongs to it."""

from __future__ import annotations

import builtins
import inspect
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from minidl.dtypes import get_default_dtype
from minidl.errors import ModuleError, NotWrittenError, SettingError, no_such_name
from minidl.nn.module import Module, Parameter
from minidl.nn.utils import clip_grad_norm_, clip_grad_value_
from minidl.optim.optimizer import Optimizer
from minidl.tensors import Tensor
from minidl.train.hooks import Hooks

L = TypeVar("L", bound="LightningModule")
HINTS = {"all_gather": "there is one process, so use the tensor itself", "on_gpu": "use self.device.type",
         "to_onnx": "save the weights with minidl.save", "to_torchscript": "save the weights with minidl.save"}


class HyperParameters(dict[str, Any]):
    """The arguments of `__init__`, as `hparams["lr"]` or `hparams.lr`."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"hparams has no {name!r}, only {', '.join(self) or 'nothing'}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        width = max((len(name) for name in self), default=0) + 3
        return "\n".join(f'"{name}":'.ljust(width) + f" {self[name]}" for name in sorted(self))


class of_class(classmethod):  # type: ignore[type-arg]
    """A classmethod for the class alone: on an object it would seem to change it."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        def refuse(*args: Any, **kwargs: Any) -> None:
            name = type(instance).__name__
            raise ModuleError(f"got a call on an object, which it would not change; use model = {name}."
                              f"{self.__func__.__name__}(path)", where=name)

        return super().__get__(None, owner) if instance is None else refuse


class LightningModule(Module, Hooks):
    """Write `forward`, what one batch means for training, and which optimizer; a `Trainer` does the loop.

        class Classifier(LightningModule):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

            def training_step(self, batch, batch_idx):
                images, labels = batch
                loss = F.cross_entropy(self.net(images), labels)
                self.log("train_loss", loss)
                return loss

            def configure_optimizers(self):
                return optim.Adam(self.parameters(), lr=1e-3)

    Besides: validation_step, test_step, predict_step, and the hooks in `minidl.train.hooks`. It stays an ordinary
    nn.Module: a loop of your own may call `training_step` too (`log` then does nothing).
    Names and meaning are those of PyTorch Lightning 2.
    """

    automatic_optimization: bool = True             # False: training_step calls backward and the optimizers itself
    example_input_array: Any = None                 # for your own use
    global_rank = local_rank = 0                    # there is one process
    trainer: Any

    def __init__(self) -> None:
        super().__init__()
        self.trainer = None
        self._hparams = HyperParameters()
        self._hparams_name: str | None = None       # the argument of __init__ that holds them all, if one does

    def __getattr__(self, name: str) -> Any:
        if name in HINTS:
            raise no_such_name(type(self).__name__, name, (), HINTS)
        return super().__getattr__(name)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "trainer": None}      # a copy of the module does not copy the trainer and its loaders

    # -- to be written --

    def prepare_data(self) -> None:
        """Download; called before `setup`."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """The loss of one batch: a scalar tensor, or a dict with it under "loss"; None leaves the batch out."""
        raise NotWrittenError("has no training_step; define training_step(self, batch, batch_idx), which returns the "
                              "loss", where=type(self).__name__)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        """What is measured on one batch, without gradients: `self.log("val_loss", …)`."""

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        """As validation_step, for `Trainer.test`."""

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """What `Trainer.predict` collects; unless written, the outputs for the batch without its labels."""
        return self(batch[0] if isinstance(batch, tuple | list) else batch)

    def configure_optimizers(self) -> Any:
        """An optimizer, or {"optimizer": …, "lr_scheduler": …}; see `minidl.train.optimization.configured`."""
        raise NotWrittenError("has no configure_optimizers; define configure_optimizers(self), for instance "
                              "return optim.Adam(self.parameters(), lr=1e-3)", where=type(self).__name__)

    def configure_callbacks(self) -> Any:
        """Callbacks that belong to this module."""
        return []

    # -- to be called in steps and hooks --

    def log(self, name: str, value: Any, prog_bar: bool = False, logger: bool = True, on_step: bool | None = None,
            on_epoch: bool | None = None, reduce_fx: Any = "mean", batch_size: int | None = None,
            **others: Any) -> None:
        """Record a number: in training_step for this step, elsewhere as mean over the epoch's samples.

        on_step, on_epoch change that; with both, loggers get `name_step` and `name_epoch`. prog_bar: shown while
        training. batch_size: the weight in the mean, else the first axis of the batch's first tensor.
        sync_dist, rank_zero_only, sync_dist_group, add_dataloader_idx and metric_attribute change nothing here.
        """
        unknown = others.keys() - {"sync_dist", "rank_zero_only", "sync_dist_group", "add_dataloader_idx",
                                   "metric_attribute"}
        if unknown:
            raise SettingError(f"got a setting {min(unknown)!r}, which log does not have", where=f"log({name!r})")
        if self.trainer is not None:
            self.trainer.log.add(name, value, prog_bar, logger, on_step, on_epoch, reduce_fx, batch_size)

    def log_dict(self, dictionary: Mapping[str, Any], **settings: Any) -> None:
        """`log` for each entry."""
        if not isinstance(dictionary, Mapping):
            raise SettingError(f"got a {type(dictionary).__name__}, expected a dict of numbers", where="log_dict")
        for name, value in dictionary.items():
            self.log(name, value, **settings)

    def print(self, *args: Any) -> None:
        """Print above the progress bar."""
        text = " ".join(map(str, args))
        (self.trainer if self.trainer is not None else builtins).print(text)

    def optimizers(self) -> Any:
        """The optimizer, or the list of them, of configure_optimizers: for manual optimization."""
        optimizers = self._running().optimizers
        return optimizers[0] if len(optimizers) == 1 else optimizers

    def lr_schedulers(self) -> Any:
        """The scheduler, or the list of them; None without one."""
        schedulers = [schedule.scheduler for schedule in self._running().schedules]
        return (schedulers[0] if schedulers else None) if len(schedulers) < 2 else schedulers

    def manual_backward(self, loss: Tensor, **settings: Any) -> None:
        """`loss.backward()`, with the hooks around it."""
        trainer = self._running()
        trainer.call("on_before_backward", loss)
        loss.backward(**settings)
        trainer.call("on_after_backward")

    def toggle_optimizer(self, optimizer: Optimizer) -> None:
        """Until `untoggle_optimizer`, only this optimizer's parameters get gradients (for GANs)."""
        trainer = self._running()
        own = {p for group in optimizer.param_groups for p in group["params"]}
        everyone = {p for other in trainer.optimizers for group in other.param_groups for p in group["params"]}
        trainer.frozen = [p for p in everyone - own if p.requires_grad]
        for p in trainer.frozen:
            p.requires_grad_(False)

    def untoggle_optimizer(self, optimizer: Optimizer) -> None:
        """Let all parameters get gradients again."""
        trainer = self._running()
        for p in trainer.frozen:
            p.requires_grad_()
        trainer.frozen = []

    def clip_gradients(self, optimizer: Optimizer, gradient_clip_val: float | None = None,
                       gradient_clip_algorithm: str | None = None) -> None:
        """Make the optimizer's gradients smaller: the norm of all together, or with "value" each element."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_val is not None and gradient_clip_algorithm == "value":
            clip_grad_value_(parameters, gradient_clip_val)
        elif gradient_clip_val is not None:
            is_read = self.trainer is None or self.trainer.reads_numbers_now       # else no GPU is made to wait
            clip_grad_norm_(parameters, gradient_clip_val, error_if_nonfinite=is_read)

    def freeze(self) -> None:
        """No parameter is trained any more; evaluation mode."""
        self.requires_grad_(False).eval()

    def unfreeze(self) -> None:
        """All parameters are trained; training mode."""
        self.requires_grad_(True).train()

    def _running(self) -> Any:
        if self.trainer is None:
            raise ModuleError("has no trainer yet, so no optimizers; this works inside of Trainer.fit",
                              where=type(self).__name__)
        return self.trainer

    # -- what it knows about the run --

    @property
    def device(self) -> Any:
        """Where its parameters are."""
        return next((p.device for p in self.parameters()), Tensor(0.0).device)

    @property
    def dtype(self) -> Any:
        """The type of its parameters."""
        return next((p.dtype for p in self.parameters()), get_default_dtype())

    @property
    def current_epoch(self) -> int:
        """Epochs that are finished: 0 in the first one."""
        return 0 if self.trainer is None else int(self.trainer.current_epoch)

    @property
    def global_step(self) -> int:
        """Optimizer steps so far."""
        return 0 if self.trainer is None else int(self.trainer.global_step)

    @property
    def logger(self) -> Any:
        """The first logger of the trainer, or None."""
        return None if self.trainer is None else self.trainer.logger

    @property
    def loggers(self) -> list[Any]:
        """All loggers of the trainer."""
        return [] if self.trainer is None else list(self.trainer.loggers)

    # -- hyperparameters --

    @property
    def hparams(self) -> HyperParameters:
        """What save_hyperparameters collected."""
        return self._hparams

    def save_hyperparameters(self, *names: Any, ignore: Any = (), logger: bool = True) -> None:
        """Keep the arguments of `__init__` as `self.hparams`, and in checkpoints. Called from `__init__`.

        names: only these (or one dict or Namespace with them); ignore: not these. `load_from_checkpoint` passes them
        again.
        """
        if isinstance(self, Module):
            self._check_initialised()
        given = arguments = _arguments(inspect.currentframe().f_back)  # type: ignore[union-attr]  # CPython has frames
        if len(names) == 1 and isinstance(names[0], Mapping | Namespace):
            given = dict(names[0] if isinstance(names[0], Mapping) else vars(names[0]))
            self._hparams_name = next((name for name, value in arguments.items() if value is names[0]), None)
        ignored = [ignore] if isinstance(ignore, str) else list(ignore)
        wanted = [name for name in names if isinstance(name, str)] or list(given)
        for name in wanted:
            if name not in ignored:
                self._hparams[name] = _saveable(name, given.get(name), type(self).__name__)

    @of_class
    def load_from_checkpoint(cls: type[L], checkpoint_path: Any, map_location: Any = None, strict: bool = True,
                             weights_only: bool | None = None, **arguments: Any) -> L:
        """The module with the saved hyperparameters (changed or completed by `arguments`) and weights.

        map_location: the device that it goes to, the CPU unless given, wherever it was saved.
        """
        from minidl.train.checkpoint import read

        checkpoint = read(checkpoint_path, map_location)
        expected = inspect.signature(cls.__init__).parameters.values()
        takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in expected)
        saved, whole = checkpoint.get("hyper_parameters", {}), checkpoint.get("hparams_name")
        saved = {whole: HyperParameters(saved | arguments)} if whole else saved
        given = {name: value for name, value in saved.items()
                 if takes_all or name in [parameter.name for parameter in expected]} | ({} if whole else arguments)
        missing = [p.name for p in list(expected)[1:] if p.default is p.empty and p.name not in given and
                   p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if missing:
            raise SettingError(f"got {checkpoint_path} without {', '.join(missing)}, which __init__ needs; pass "
                               f"{missing[0]}=…, or call self.save_hyperparameters() in __init__", where=cls.__name__)
        model = cls(**given)
        model.load_state_dict(checkpoint["state_dict"], strict)
        model.on_load_checkpoint(checkpoint)
        return model if map_location is None else model.to(map_location)


class LightningDataModule(Hooks):
    """The loaders of a run in one object: write `setup(stage)` and `train_dataloader`, `val_dataloader`, …"""

    trainer: Any = None

    def prepare_data(self) -> None:
        """Download; called before `setup`."""

    def train_dataloader(self) -> Any:
        """Batches to train on."""

    def val_dataloader(self) -> Any:
        """Batches to validate with after each epoch."""

    def test_dataloader(self) -> Any:
        """Batches for Trainer.test."""

    def predict_dataloader(self) -> Any:
        """Batches for Trainer.predict."""

    save_hyperparameters = LightningModule.save_hyperparameters
    _hparams_name: str | None = None

    @property
    def hparams(self) -> HyperParameters:
        """What save_hyperparameters collected."""
        return self._hparams

    @property
    def _hparams(self) -> HyperParameters:
        values: HyperParameters = vars(self).setdefault("_kept", HyperParameters())
        return values


def _arguments(frame: Any) -> dict[str, Any]:
    """The arguments that the function of a frame was called with, **settings included; and those of the `__init__` of
    a subclass that has called it, as far as they can be saved.
    """
    found, first = _own_arguments(frame), frame
    while frame.f_back is not None and frame.f_back.f_code.co_name == "__init__" and \
            frame.f_back.f_locals.get("self") is first.f_locals.get("self"):
        frame = frame.f_back
        found |= {name: value for name, value in _own_arguments(frame).items() if _is_plain(value)}
    return found


def _own_arguments(frame: Any) -> dict[str, Any]:
    names, _, keywords, values = inspect.getargvalues(frame)
    return {name: values[name] for name in names if name != "self"} | (values[keywords] if keywords else {})


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | np.generic) or \
        (isinstance(value, Tensor) and not isinstance(value, Parameter))


def _saveable(name: str, value: Any, where: str) -> Any:
    if not _is_plain(value):
        raise SettingError(f"got {name}, a {type(value).__name__}, among the hyperparameters, expected numbers, "
                           f"strings, and lists and dicts of them; use save_hyperparameters(ignore=[{name!r}])", where)
    return value
