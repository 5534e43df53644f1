"""What `self.log("val_loss", loss)` collects: numbers of single steps, and means over an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minidl.errors import MinidlError, SettingError, ShapeError
from minidl.functions import stack
from minidl.tensors import Tensor

REDUCTIONS = ("mean", "sum", "min", "max")


class Log:
    """The numbers of one epoch of training or of one pass of validation.

    Tensors stay on their device, unread, until someone needs their value: reading one would make a GPU wait.
    """

    def __init__(self, in_training: bool) -> None:
        self.in_training = in_training
        self.has_ended = False                              # then there are means
        self.batch_size: int | None = None                  # of the batch that is running; None between batches
        self._entries: dict[str, _Entry] = {}

    def add(self, name: str, value: Any, prog_bar: bool, logger: bool, on_step: bool | None, on_epoch: bool | None,
            reduce_fx: Any, batch_size: int | None) -> None:
        """One number. Loggers get it for its step inside of training_step, elsewhere for the epoch, if not told else.

        The history has the mean over the epoch of everything.
        """
        for_step = self.in_training and self.batch_size is not None
        on_step = for_step if on_step is None else on_step
        on_epoch = not for_step if on_epoch is None else on_epoch
        value = checked(name, value)
        entry = self._entries.get(name)
        if entry is None:
            how = getattr(reduce_fx, "__name__", reduce_fx)         # minidl.max is "max"
            if how not in REDUCTIONS:
                raise SettingError(f"got reduce_fx={reduce_fx!r}, expected one of {', '.join(REDUCTIONS)}",
                                   where=f"log({name!r})")
            if not on_step and not on_epoch:
                raise SettingError("got on_step=False and on_epoch=False, so nobody would see it; expected one of them",
                                   where=f"log({name!r})")
            entry = self._entries[name] = _Entry(how, prog_bar, logger, on_step, on_epoch)
        size = self.batch_size if batch_size is None else batch_size
        entry.values.append(value)
        entry.weights.append(1 if size is None else size)

    def of_step(self) -> dict[str, float]:
        """The last step's numbers, for the loggers: `name`, or `name_step` if the epoch's mean is logged too."""
        return {f"{name}_step" if entry.on_epoch else name: float(entry.values[-1])
                for name, entry in self._entries.items() if entry.logger and entry.on_step}

    def for_bar(self) -> dict[str, float]:
        """The last step's numbers that the progress bar shows."""
        return {name: float(entry.values[-1]) for name, entry in self._entries.items()
                if entry.prog_bar and entry.on_step}

    def of_epoch(self) -> dict[str, float]:
        """Name -> mean over the epoch (or sum, smallest, largest), each batch weighted by its size."""
        return {name: entry.reduced() for name, entry in self._entries.items()}

    def for_loggers(self, hidden_too: bool = False) -> dict[str, float]:
        """What the loggers get at an epoch's end: `name`, or `name_epoch` if the steps are logged too.

        hidden_too: those with logger=False as well.
        """
        return {f"{name}_epoch" if entry.on_step else name: entry.reduced()
                for name, entry in self._entries.items() if entry.on_epoch and (entry.logger or hidden_too)}

    def newest(self) -> dict[str, Any]:
        """What callbacks see: in training the last step's numbers, when the epoch has ended its means.

        What is logged for both has three names, `name` for the newer of the two, `name_step` and `name_epoch`.
        """
        found: dict[str, Any] = {}
        for name, entry in self._entries.items():
            if entry.on_step and self.in_training:
                found[name] = entry.values[-1]
                if entry.on_epoch:
                    found[f"{name}_step"] = entry.values[-1]
            if entry.on_epoch and self.has_ended:
                found[name] = entry.reduced()
                if entry.on_step:
                    found[f"{name}_epoch"] = found[name]
        return found


class _Entry:
    """All values of one name in one epoch."""

    def __init__(self, how: str, prog_bar: bool, logger: bool, on_step: bool, on_epoch: bool) -> None:
        self.how, self.prog_bar, self.logger, self.on_step, self.on_epoch = how, prog_bar, logger, on_step, on_epoch
        self.values: list[Any] = []
        self.weights: list[int] = []
        self._reduced: tuple[int, float] = (0, math.nan)            # of how many values, and what it was

    def reduced(self) -> float:
        count, result = self._reduced
        if count != len(self.values):
            self._reduced = len(self.values), self._reduce(as_numbers(self.values))
            result = self._reduced[1]
        return result

    def _reduce(self, numbers: list[float]) -> float:
        if self.how == "mean":
            total = sum(self.weights)
            return sum(x * n for x, n in zip(numbers, self.weights, strict=True)) / total if total else math.nan
        return float({"sum": sum, "min": min, "max": max}[self.how](numbers))  # type: ignore[operator]


def as_numbers(values: Sequence[Any]) -> list[float]:
    """Tensors and numbers as Python's floats. Tensors of one type are read from their device together, at once."""
    types = {value.dtype if isinstance(value, Tensor) else None for value in values}
    if len(types) == 1 and None not in types:
        return [float(x) for x in stack(list(values)).tolist()]
    return [float(value) for value in values]


def checked(name: Any, value: Any) -> Any:
    """A value that can be logged: a number, or a tensor with one element; it is read at once where that is free."""
    if not isinstance(name, str) or not name:
        raise SettingError(f"got the name {name!r}, expected a string", where="log")
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ShapeError(f"got a tensor {tuple(value.shape)}, expected a single number; log its mean()",
                             where=f"log({name!r})")
        return float(value.item()) if value.device.type == "cpu" else value.detach().reshape(())
    if isinstance(value, np.ndarray) and value.size == 1:
        return float(value.reshape(()))
    if not isinstance(value, int | float | np.number):
        raise SettingError(f"got a {type(value).__name__}, expected a number or a tensor with one element",
                           where=f"log({name!r})")
    return float(value)


def size_of(batch: Any) -> int | None:
    """The number of samples in a batch: the first axis of the first tensor in it; None if it holds none."""
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.ndim else 1
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        return next((size for size in map(size_of, batch) if size is not None), None)
    return None


def monitored(metrics: Mapping[str, float], name: str, where: str) -> float:
    """The number that a callback or a schedule watches."""
    if name not in metrics:
        import difflib

        known = sorted(metrics)
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"log it with self.log({name!r}, value, on_epoch=True)"
        raise MinidlError(f"got monitor={name!r}, which was not logged in this epoch; logged were "
                          f"{', '.join(known) or 'none'}; {hint}", where=where)
    return metrics[name]
