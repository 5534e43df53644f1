"""What several functions check about their inputs, and the words for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from minidl import uploads
from minidl.errors import DtypeError, LabelError, MinidlError, SettingError, ShapeError
from minidl.tensors import Tensor

Made = TypeVar("Made")


def check_bias(bias: Tensor | None, outputs: int, where: str) -> None:
    """Raise unless there is one number for each output."""
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(f"got a bias of shape {bias.shape}, expected {(outputs,)}: one number for each output",
                         where=where)


def check_range(labels: Tensor, classes: int, where: str, what: str = "label",
                of: str = "classes; check the labels or the size of the last layer") -> None:
    """Raise unless all labels are between 0 and `classes` - 1, where that can be seen without waiting."""
    numbers = uploads.on_host(labels)
    if numbers is not None:
        check_numbers(numbers, classes, where, what, of)


def check_numbers(labels: np.ndarray, classes: int, where: str, what: str = "label",
                  of: str = "classes; check the labels or the size of the last layer") -> None:
    """Raise unless all labels are between 0 and `classes` - 1."""
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        first = tuple(int(i) for i in np.argwhere((labels < 0) | (labels >= classes))[0])
        place = first[0] if len(first) == 1 else first
        raise LabelError(f"got the {what} {int(labels[first])} at index {place}, expected 0 to {classes - 1} for "
                         f"{classes} {of}", where=where)


def check_tensors(where: str, *inputs: Any) -> None:
    """Raise unless all of these are tensors; None stands for one that is left out."""
    for x in inputs:
        if x is not None and not isinstance(x, Tensor):
            raise DtypeError(f"got {type(x).__name__}, expected a tensor; use minidl.tensor(x)", where=where)


def check_floats(where: str, *inputs: Any) -> None:
    """Raise unless all of these are tensors of floats; None stands for one that is left out."""
    check_tensors(where, *inputs)
    for x in inputs:
        if x is not None and not x.is_floating_point():
            raise DtypeError(f"got a tensor of {x.dtype}, expected floats; use x.float()", where=where)


def check_number(value: Any, name: str, where: str, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise unless this is a number from `low` to `high`."""
    if not isinstance(value, int | float) or not low <= value <= high:
        bounds = "" if (low, high) == (-math.inf, math.inf) else (
            f" of {low:g} or more" if high == math.inf else f" from {low:g} to {high:g}")
        raise SettingError(f"got {name}={value!r}, expected a number{bounds}", where=where)


def located(where: str, make: Callable[..., Made], *args: Any) -> Made:
    """Make a geometry; its errors say which function was called."""
    try:
        return make(*args)
    except MinidlError as error:
        error.where = where
        raise
