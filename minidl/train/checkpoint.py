"""Checkpoints: everything a run needs to go on as if it had never stopped, taken at the end of an epoch.

A checkpoint is a dict, written by `minidl.save`:

    epoch, global_step      how many are finished; logger_step: as the loggers count
    state_dict              the module's weights and buffers
    optimizer_states        moments and settings of each optimizer
    lr_schedulers           where each schedule is
    callbacks               what EarlyStopping, ModelCheckpoint, … remember
    random                  the exact place in every stream of random numbers, those of the loaders included
    history                 the epochs' metrics
    hyper_parameters        the arguments of the module's __init__, if it saved them
    hparams_name            the argument that holds all of them, if one does

At an epoch's end a loader is at its beginning, so its generators say all about where it is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import io, rng
from minidl._version import __version__
from minidl.errors import MinidlError, SettingError
from minidl.rng import Generator

if TYPE_CHECKING:
    from minidl.train.run import Run

NEEDED = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "callbacks", "random", "history")


def of_run(trainer: Run, weights_only: bool = False) -> dict[str, Any]:
    """The checkpoint of a trainer at the end of an epoch."""
    checkpoint: dict[str, Any] = {
        "minidl_version": __version__, "epoch": len(trainer.history), "global_step": trainer.global_step,
        "logger_step": trainer.logger_step,
        "state_dict": dict(trainer.model.state_dict()), "hyper_parameters": dict(trainer.model.hparams),
        "hparams_name": trainer.model._hparams_name,
    }
    if not weights_only:
        checkpoint |= {
            "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "lr_schedulers": [schedule.scheduler.state_dict() for schedule in trainer.schedules],
            "callbacks": {key: callback.state_dict() for key, callback in keyed(trainer.callbacks).items()},
            "random": random_state(trainer),
            "history": trainer.history,
        }
    trainer.call("on_save_checkpoint", checkpoint)
    return checkpoint


def write(trainer: Run, path: Path, weights_only: bool = False) -> None:
    """Save the checkpoint of a trainer, beside the place first, then renamed into it."""
    io.save(of_run(trainer, weights_only), path)


def read(path: Any, map_location: Any = None) -> dict[str, Any]:
    """The checkpoint in a file, if it is one."""
    checkpoint = io.load(path, map_location)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise MinidlError(f"got {path}, which holds no 'state_dict', expected a checkpoint of a Trainer; load weights "
                          f"alone with model.load_state_dict(minidl.load(path))", where="checkpoint")
    return checkpoint


def resume(trainer: Run, path: Path) -> None:
    """Put a trainer where it was when the checkpoint was taken. Nothing changes if the checkpoint does not fit."""
    checkpoint = read(path)
    missing = [name for name in NEEDED if name not in checkpoint]
    if missing:
        raise MinidlError(f"got {path} without {', '.join(missing)}, expected the checkpoint of a whole run; it was "
                          f"saved with weights only, use load_from_checkpoint", where="Trainer.fit")
    for kind, saved, ours in (("optimizer", "optimizer_states", trainer.optimizers),
                              ("scheduler", "lr_schedulers", trainer.schedules)):
        if len(checkpoint[saved]) != len(ours):
            raise SettingError(f"got {path} of a run with {len(checkpoint[saved])} {kind}s, expected {len(ours)}, as "
                               f"configure_optimizers returns", where="Trainer.fit")
    if checkpoint["epoch"] > trainer.max_epochs >= 0:
        raise SettingError(f"got {path} after {checkpoint['epoch']} epochs and max_epochs={trainer.max_epochs}; raise "
                           f"max_epochs", where="Trainer.fit")
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.model.load_state_dict(checkpoint["state_dict"])
    try:
        for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        for schedule, state in zip(trainer.schedules, checkpoint["lr_schedulers"], strict=True):
            schedule.scheduler.load_state_dict(state)
    except MinidlError:
        trainer.model.load_state_dict(before)
        raise
    trainer.call("on_load_checkpoint", checkpoint)
    for key, callback in keyed(trainer.callbacks).items():
        if key in checkpoint["callbacks"]:
            callback.load_state_dict(checkpoint["callbacks"][key])
    set_random_state(trainer, checkpoint["random"])
    trainer.current_epoch, trainer.global_step = checkpoint["epoch"], checkpoint["global_step"]
    trainer.history[:] = checkpoint["history"]
    trainer.logger_step = checkpoint.get("logger_step", trainer.global_step)
    for logger in trainer.loggers:
        logger.resume_at(trainer.logger_step)
    for keeper in trainer.checkpoint_callbacks:
        keeper.write(trainer, only_missing=True)


def keyed(callbacks: list[Any]) -> dict[str, Any]:
    """The callbacks under names that a second run gives them too: "EarlyStopping", "EarlyStopping2", …"""
    named: dict[str, Any] = {}
    for callback in callbacks:
        key = kind = type(callback).__name__
        number = 1
        while key in named:
            number += 1
            key = f"{kind}{number}"
        named[key] = callback
    return named


def random_state(trainer: Run) -> dict[str, Any]:
    """The place in every stream that training draws from: minidl's, the loaders', Python's and NumPy's."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002  the dataset of a lesson may draw from it
    return {
        "minidl": rng.get_rng_state(),
        "loaders": {name: generator.get_state() for name, generator in generators(trainer).items()},
        "python": _as_lists(random.getstate()),
        "numpy": {**legacy, "state": {"key": legacy["state"]["key"].tolist(), "pos": legacy["state"]["pos"]}},
    }


def set_random_state(trainer: Run, state: Mapping[str, Any]) -> None:
    """Go to the place that `random_state` returned."""
    rng.set_rng_state(state["minidl"])
    for name, generator in generators(trainer).items():
        if name in state["loaders"]:
            generator.set_state(state["loaders"][name])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    key = np.array(state["numpy"]["state"]["key"], np.uint32)
    np.random.set_state({**state["numpy"], "state": {**state["numpy"]["state"], "key": key}})  # noqa: NPY002


def generators(trainer: Run) -> dict[str, Generator]:
    """The loaders' own generators, where they have some: of the loader, its sampler and its batch sampler."""
    found: dict[str, Generator] = {}
    for loader_name, loader in (("train", trainer.train_dataloader), ("val", trainer.val_dataloader)):
        batches = getattr(loader, "batch_sampler", None)
        for part, owner in (("loader", loader), ("sampler", getattr(loader, "sampler", None)), ("batches", batches),
                            ("inner", getattr(batches, "sampler", None))):
            generator = getattr(owner, "generator", None)
            if isinstance(generator, Generator):
                found[f"{loader_name}.{part}"] = generator
    return found


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value
