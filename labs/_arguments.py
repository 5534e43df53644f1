"""The arguments that every lab takes, and which value of a setting counts: command line, dataset, preset, default."""

from __future__ import annotations

import argparse
import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import minidl
from minidl.errors import DeviceError, SettingError

Settings = Mapping[str, Any]


def parse(name: str, about: str, datasets: Sequence[str], presets: Mapping[str, Settings],
          per_dataset: Mapping[str, Settings], defaults: Settings,
          extra_arguments: Callable[[argparse.ArgumentParser], object] | None,
          argv: Sequence[str]) -> tuple[argparse.Namespace, bool]:
    """The settings of a run, and whether the command line names a train size (which must then be there to be had).

    What is on the command line beats what the dataset brings along, that beats the preset, and that the defaults.
    """
    def values_of(setting: str) -> str:
        sources = [("", defaults), *((f"{preset} ", values) for preset, values in presets.items()),
                   *((f"{dataset} ", values) for dataset, values in per_dataset.items())]
        shown = ", ".join(f"{source}{values[setting]}" for source, values in sources if setting in values)
        return f" ({shown})" if shown else ""

    parser = _Parser(prog=f"python -m labs.{name}", description=about.strip().partition("\n")[0])
    add = parser.add_argument
    if datasets:
        add("--dataset", type=one_of(datasets), default=datasets[0], metavar="NAME",
            help=f"{', '.join(datasets)} (default {datasets[0]})")
        add("--data-dir", type=folder, metavar="FOLDER",
            help="folder of the datasets (default $MINIDL_DATA, else data/)")
        add("--download", action="store_true", help="fetch the dataset if it is not there")
    add("--device", type=place, default="cpu", metavar="cpu|cuda|auto", help="where to compute (default cpu)")
    add("--preset", type=one_of(list(presets)), default=next(iter(presets)), metavar="|".join(presets),
        help=f"the size of the run (default {next(iter(presets))})")
    if datasets:
        add("--epochs", type=positive, metavar="N", help=f"passes over the training set{values_of('epochs')}")
        add("--train-size", type=positive, metavar="N",
            help=f"how many training images{values_of('train_size') or ' (all)'}")
    else:
        parser.set_defaults(dataset=None, data_dir=None, download=False, epochs=None, train_size=None)
    add("--batch-size", type=positive, metavar="N", help=f"images in a step of training{values_of('batch_size')}")
    add("--seed", type=seed, default=0, metavar="N", help="of all that is drawn at random (default 0)")
    add("--out", type=folder, default=Path("runs", name), metavar="FOLDER",
        help=f"folder for the results (default runs/{name})")
    add("--debug", action="store_true", help="show where an error was raised")
    if extra_arguments is not None:
        extra_arguments(parser)

    asked = parser.parse_args(argv)                                 # preset and dataset say what the defaults are
    for values in (defaults, *presets.values(), *per_dataset.values()):
        for key in values:
            if key not in asked:
                raise SettingError(f"got the setting {key!r}, expected one of {', '.join(vars(asked))}", where="Lab")
    parser.set_defaults(**{**defaults, **presets[asked.preset], **per_dataset.get(asked.dataset, {})})
    return parser.parse_args(argv), asked.train_size is not None


def chosen_device(asked: str, only_on_cpu: str) -> tuple[str, str]:
    """The device to compute on, which is there, and why "auto" is that one.

    Only "auto" may become something else: an error if what is asked for is not there, or not for this lab.
    """
    if only_on_cpu and asked not in ("cpu", "auto"):
        raise SettingError(f"got {asked}, expected cpu: {only_on_cpu}", where="--device")
    if only_on_cpu:
        return "cpu", only_on_cpu
    device, why = asked, ""
    if asked == "auto":
        from minidl.train.settings import why_auto

        device = str(minidl.accelerator.current_accelerator() or "cpu")
        why = why_auto(device)
    minidl.zeros(1, device=device)
    return device, why


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print it and leave."""
        self.exit(2, f"error: {message}; --help shows all arguments\n")


# Types of arguments: each returns the value, or raises what the parser prints.

def positive(text: str) -> int:
    """A whole number above 0."""
    return _whole(text, 1, None, "a whole number above 0")


def several(text: str) -> int:
    """A whole number from 2 up: as many as are needed to say how far they differ."""
    return _whole(text, 2, None, "a whole number from 2 up")


def index(text: str) -> int:
    """A whole number from 0 up: one of several that are counted from 0."""
    return _whole(text, 0, None, "a whole number from 0 up")


def seed(text: str) -> int:
    """A seed that minidl, NumPy and scikit-learn all take."""
    return _whole(text, 0, 2**32 - 1, f"a whole number from 0 to {2**32 - 1:,}")


def rate(text: str) -> float:
    """A learning rate: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return number


def _whole(text: str, least: int, most: int | None, expected: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
    return number


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """One of these names; for another one the error says which is nearest."""
    def check(text: str) -> str:
        if text not in names:
            near = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.4)
            nearest = f"; the nearest is {near[0]!r}" if near else ""
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {either(names)}{nearest}")
        return text

    return check


def either(names: Iterable[str]) -> str:
    """'a, b or c'."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def place(text: str) -> str:
    """The name of a device, or auto."""
    try:
        return text if text == "auto" else str(minidl.device(text))
    except DeviceError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected cpu, cuda, cuda:0 or auto") from None


def folder(text: str) -> Path:
    """A path; ~ is the home folder."""
    return Path(os.path.expanduser(text))
