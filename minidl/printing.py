"""How a tensor prints: in PyTorch's style, four digits, "tensor([[1.0000, 2.5000]], requires_grad=True)"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minidl.errors import SettingError


@dataclass
class _Options:
    precision: int = 4                          # digits behind the point
    threshold: int = 1000                       # larger tensors show only their ends,
    edgeitems: int = 3                          # this many elements of them
    linewidth: int = 80
    sci_mode: bool | None = None                # powers of ten always, never, or where numbers differ much


options = _Options()


def set_printoptions(precision: int | None = None, threshold: int | None = None, edgeitems: int | None = None,
                     linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None) -> None:
    """How tensors print from now on; what is not given stays. profile: "default", "short" (2 digits) or "full"."""
    global options
    if profile is not None:
        profiles = {"default": _Options(), "short": _Options(2, 1000, 2), "full": _Options(threshold=2**62)}
        if profile not in profiles:
            raise SettingError(f"got profile={profile!r}, expected one of {', '.join(map(repr, profiles))}",
                               where="set_printoptions")
        options = profiles[profile]
    for name, value in (("precision", precision), ("threshold", threshold), ("edgeitems", edgeitems),
                        ("linewidth", linewidth)):
        if value is not None and (not isinstance(value, int | float) or value < 0):
            raise SettingError(f"got {name}={value!r}, expected 0 or more", where="set_printoptions")
    given: dict[str, Any] = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems,
                             "linewidth": linewidth, "sci_mode": sci_mode}
    options = replace(options, **{name: value for name, value in given.items() if value is not None})


def format_array(array: np.ndarray, prefix: str) -> str:
    """The numbers of an array, in brackets; lines after the first are indented by the length of `prefix`."""
    if array.ndim == 0:
        return str(_number_format(array)(array.item()))
    if array.size == 0:
        return "[]" if array.ndim == 1 else f"[], size={array.shape}"
    shown = _shown(array).ravel()
    one = _number_format(shown)
    counts = shown if array.dtype.kind != "f" else shown[np.isfinite(shown) & (shown != 0)]      # not the sign of -0.
    width = max((len(one(v)) for v in counts), default=1)
    return _bracketed(array, len(prefix), lambda v: one(v).rjust(width), width, array.size > options.threshold)


def _bracketed(array: np.ndarray, indent: int, one: Callable[[Any], str], width: int, is_cut: bool) -> str:
    """One pair of brackets and what stands inside: rows of numbers, or smaller pairs one below the other."""
    ends = options.edgeitems
    parts: list[Any] = list(array)
    if is_cut and len(parts) > 2 * ends:
        parts = [*parts[:ends], ..., *parts[-ends:]]
    if array.ndim == 1:
        texts = [" ..." if part is ... else one(part) for part in parts]
        per_line = max(1, (options.linewidth - indent) // (width + 2))
        lines = [", ".join(texts[start:start + per_line]) for start in range(0, len(texts), per_line)]
        gap = ",\n"
    else:
        lines = ["..." if part is ... else _bracketed(part, indent + 1, one, width, is_cut) for part in parts]
        gap = "," + "\n" * (array.ndim - 1)
    return "[" + (gap + " " * (indent + 1)).join(lines) + "]"


def _shown(array: np.ndarray) -> np.ndarray:
    """The elements that are printed: all, or some from each end of each axis of a large array."""
    if array.size <= options.threshold:
        return array
    ends = options.edgeitems
    for axis, n in enumerate(array.shape):
        if n > 2 * ends:
            array = array.take([*range(ends), *range(n - ends, n)], axis)
    return array


def _number_format(shown: np.ndarray) -> Callable[[Any], str]:
    """The format for all numbers of one array: plain integers "2.", four digits, or powers of ten."""
    digits = options.precision
    if shown.dtype.kind != "f":
        return str
    numbers = shown.astype(np.float64)
    magnitudes = np.abs(numbers[np.isfinite(numbers) & (numbers != 0)])
    if magnitudes.size == 0:
        return lambda v: f"{v:.0f}." if np.isfinite(v) else str(float(v))
    largest, smallest = magnitudes.max(), magnitudes.min()
    integers = bool(np.all(np.floor(magnitudes) == magnitudes))
    differ_much = largest > 1e8 or largest / smallest > 1000 or (smallest < 1e-4 and not integers)
    if differ_much if options.sci_mode is None else options.sci_mode:
        return lambda v: f"{v:.{digits}e}"
    if integers:
        return lambda v: f"{v:.0f}." if np.isfinite(v) else str(float(v))
    return lambda v: f"{v:.{digits}f}"


def with_notes(text: str, notes: list[str]) -> str:
    """The text with `, dtype=…` and so on behind it, on a line of their own where the last line has no room."""
    indent = " " * len("tensor(")
    for note in notes:
        last_line = text.rpartition("\n")[2]
        text += f",\n{indent}{note}" if len(last_line) + len(note) + 4 > options.linewidth else f", {note}"
    return text + ")"
