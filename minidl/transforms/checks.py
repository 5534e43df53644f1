"""The settings of transforms: whole numbers, numbers, modes. Wrong ones are refused when the transform is made."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from typing import Any

from minidl.errors import SettingError


class InterpolationMode(enum.Enum):
    """Where the value between pixels comes from."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


_MODES_BY_PILLOWS_NUMBER = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}


def interpolation_mode(value: Any, where: str) -> InterpolationMode:
    """An InterpolationMode, or its name, or Pillow's number for it."""
    try:
        if isinstance(value, int):
            value = _MODES_BY_PILLOWS_NUMBER[value]
        return InterpolationMode(value)
    except (ValueError, KeyError):
        raise SettingError(f"got interpolation={value!r}, expected an InterpolationMode, such as "
                           f"InterpolationMode.BILINEAR", where=where) from None


def _listed(value: Any) -> list[Any]:
    value = _plain(value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else [value]


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value           # arrays, tensors, NumPy's numbers


def whole_numbers(value: Any, name: str, where: str, least: int, counts: Sequence[int]) -> list[int]:
    """One or more whole numbers, as a list of so many as `counts` allows."""
    values = _listed(value)
    if len(values) not in counts or not all(type(number) is int and number >= least for number in values):
        many = f"{', '.join(map(str, counts[:-1]))} or {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        raise SettingError(f"got {name}={value!r}, expected {many} whole number{'s' if counts[-1] > 1 else ''}, "
                           f"{least} or more", where=where)
    return values


def numbers(value: Any, name: str, where: str, expected: str, counts: Sequence[int] | None = None,
            low: float = -math.inf, high: float = math.inf) -> list[float]:
    """One or more finite numbers between `low` and `high`, as a list of so many as `counts` allows (any without)."""
    values = _listed(value)
    good = all(isinstance(number, int | float) and math.isfinite(number) and low <= number <= high for number in values)
    if not good or (counts is not None and len(values) not in counts):
        raise SettingError(f"got {name}={value!r}, expected {expected}", where=where)
    return values


def limits(value: Any, name: str, where: str, expected: str, low: float = -math.inf,
           high: float = math.inf) -> tuple[float, float]:
    """Two numbers, the smaller one first."""
    smallest, largest = numbers(value, name, where, expected, (2,), low, high)
    if smallest > largest:
        raise SettingError(f"got {name}={value!r}, expected {expected}", where=where)
    return smallest, largest


def probability(value: Any, where: str) -> float:
    """A number between 0 and 1."""
    return numbers(value, "p", where, "a probability between 0 and 1", (1,), 0, 1)[0]


def fills(value: Any, where: str) -> list[float]:
    """What new pixels are filled with: one number, or one for each channel. None is 0."""
    values = numbers(0 if value is None else value, "fill", where, "a number, or one for each channel")
    if not values:
        raise SettingError(f"got fill={value!r}, expected a number, or one for each channel", where=where)
    return values
