"""Checks of a Trainer's settings, each with its sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from minidl import accelerator as accelerators
from minidl import cuda
from minidl.backend import backend_for, device, why_no_cuda
from minidl.errors import DeviceError, SettingError
from minidl.tensors import Tensor

# settings of Lightning that have one value here
FIXED: dict[str, tuple[Any, ...]] = {
    "num_nodes": (1,), "strategy": ("auto",), "precision": (None, 32, "32", "32-true"), "profiler": (None,),
    "benchmark": (None, False, True), "num_sanity_val_steps": (None, 0, 2), "inference_mode": (True, False),
    "use_distributed_sampler": (True, False), "detect_anomaly": (False,), "barebones": (False,), "plugins": (None,),
    "sync_batchnorm": (False,), "reload_dataloaders_every_n_epochs": (0,), "overfit_batches": (0, 0.0),
    "val_check_interval": (None, 1.0), "min_epochs": (None, 0, 1), "min_steps": (None,), "max_time": (None,),
}
_WHY = {
    "precision": "numbers are those of the model; use model.double() or model.half()",
    "strategy": "there is one process and one device", "num_nodes": "there is one process and one device",
    "overfit_batches": "use limit_train_batches", "val_check_interval": "use check_val_every_n_epoch",
    "max_time": "use max_epochs or max_steps", "profiler": "use Python's cProfile",
    "min_epochs": "raise the patience of EarlyStopping",
}


def refuse_others(others: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise for settings that a Trainer does not have, and for those whose value it cannot follow."""
    for name, value in others.items():
        if name not in FIXED:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise SettingError(f"got a setting {name!r}, which is not there; {hint}", where="Trainer")
        if value not in FIXED[name]:
            allowed = " or ".join(repr(choice) for choice in FIXED[name])
            because = f": {_WHY[name]}" if name in _WHY else ""
            raise SettingError(f"got {name}={value!r}, expected {allowed}{because}",
                               where="Trainer")


def batch_limit(name: str, value: Any) -> int | float | None:
    """A limit for batches: None for all, a whole number of them, or a fraction of them as a float."""
    if value is None or (isinstance(value, float) and value == 1.0):
        return None
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_number and not (isinstance(value, float) and 0 <= value < 1):
        raise SettingError(f"got {name}={value!r}, expected a number of batches, or a fraction from 0.0 to 1.0",
                           where="Trainer")
    return value  # type: ignore[no-any-return]


def chosen_device(accelerator: str, devices: Any) -> device:
    """The device of an accelerator's name, which is there: nothing takes the place of one that is not."""
    if devices not in (1, "auto", [0], "1"):
        raise SettingError(f"got devices={devices!r}, expected 1: there is one process and one device", where="Trainer")
    try:
        if accelerator == "auto":
            place = accelerators.current_accelerator() or device("cpu")
        else:
            place = device({"gpu": "cuda"}.get(accelerator, accelerator))
    except (DeviceError, TypeError):                        # TypeError: not even a string
        raise SettingError(f"got accelerator={accelerator!r}, expected 'auto', 'cpu' or 'gpu'",
                           where="Trainer") from None
    try:
        return device(backend_for(place).name)              # "cuda:0" for "cuda": as the tensors there say it
    except DeviceError as error:
        reason = error.message.partition(", but ")[2].replace("--device cpu", 'accelerator="cpu"')
        raise DeviceError(f"got accelerator={accelerator!r}, but {reason or error.message}", where="Trainer") from None


def why_auto(place: str | device) -> str:
    """Why "auto" is this device: the name of the GPU, or the reason that there is none."""
    if device(place).type == "cuda":
        return cuda.get_device_name()
    return (why_no_cuda() or "none was found at first").partition("; ")[0]


def moved(batch: Any, place: device) -> Any:
    """A batch, however nested, with its tensors on the device."""
    if isinstance(batch, Tensor):
        return batch if batch.device == place else batch.to(place)
    if isinstance(batch, Mapping):
        return {name: moved(item, place) for name, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(item, place) for item in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(moved(item, place) for item in batch)
    return batch
