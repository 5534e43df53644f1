"""What all labs share: their arguments, their data, and the folder in which their results end up.

A lab is a flat script with `# %%` cells. It runs as `python -m labs.NAME`, and opens as a notebook:

    lab = Lab("digits", __doc__, datasets=["digits"], epochs=40, batch_size=32)
    images, labels = lab.images(train=True)
    lab.figure(figure, "samples", "What the images look like")
    lab.metrics["test_accuracy"] = accuracy
    lab.finish()

What the user can mend (an argument, a missing dataset, a full disk) ends a lab with one sentence and exit code 2; a
traceback, with exit code 1, is a bug. In a notebook the command line is left alone, and so is the handling of errors.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import minidl
from labs._arguments import chosen_device, parse
from labs._report import Report, as_text, code, plain, prose, right_aligned, versions
from minidl.datasets.files import data_root, find_together
from minidl.environment import processor_name
from minidl.errors import MinidlError, SettingError
from minidl.writing import replace_whole

# name on the command line -> its class in minidl.datasets, and what is on the images
DATASETS = {
    "digits": ("Digits", "real handwritten digits, which come with scikit-learn"),
    "mnist": ("MNIST", "real handwritten digits"),
    "fashion-mnist": ("FashionMNIST", "real photographs of clothes"),
    "mnist-csv": ("MNISTCSV", "real handwritten digits, from CSV files"),
    "cifar10": ("CIFAR10", "real photographs in colour"),
}
ROOT = Path(__file__).parent.parent


class Lab:
    """One run of a lab: `args` with the final settings, `device`, `classes`, and what it shows, prints and saves.

    about: the docstring of the lab. datasets: those that --dataset may name, the first if it is not given; none for a
    lab that needs no data, which then has no arguments about data either.
    presets and per_dataset: settings that --preset and --dataset bring along, and **defaults, those of every run; a
    dataset's own beat a preset's, and what is on the command line beats all.
    seconds: how long a run with these settings takes. extra_arguments: adds the lab's own to the parser.
    only_on_cpu: why the lab computes on the CPU alone, if it does.
    argv: the arguments, for a notebook or a test; if None, those of the command line, and none in a notebook.
    """

    def __init__(self, name: str, about: str | None, *, datasets: Sequence[str] = ("digits",),
                 presets: Mapping[str, Mapping[str, Any]] | None = None,
                 per_dataset: Mapping[str, Mapping[str, Any]] | None = None,
                 seconds: Callable[[argparse.Namespace], float] | None = None,
                 extra_arguments: Callable[[argparse.ArgumentParser], object] | None = None,
                 only_on_cpu: str = "", argv: Sequence[str] | None = None, **defaults: Any) -> None:
        self._start, self._date = time.perf_counter(), datetime.now(UTC)
        self.name, self.in_notebook = name, in_notebook()
        self.about = about if about and not about.startswith("Automatically created module") else name  # a notebook's
        self.script = Path(sys._getframe(1).f_code.co_filename)
        if argv is None:
            argv = [] if self.in_notebook else sys.argv[1:]
        self.command = shlex.join(["python", "-m", f"labs.{name}", *argv])
        self.args, named = parse(name, self.about, datasets, presets or {"quick": {}, "full": {}}, per_dataset or {},
                                 defaults, extra_arguments, argv)
        brought_along = (per_dataset or {}).get(self.args.dataset, {})
        self._preset_counts = any(key not in brought_along for key in (presets or {}).get(self.args.preset, {}))
        self._hook = sys.excepthook
        if not self.in_notebook:
            import matplotlib

            sys.excepthook = self._explain
            matplotlib.use("Agg")                       # figures are files, not windows
        # What would fail later fails now, before any work: the folder for the results, the device, the dataset.
        self.out, self.args.data_dir = self.args.out, data_root(self.args.data_dir)
        check_writable(self.out)
        self.device, self._why = chosen_device(self.args.device, only_on_cpu)
        self._loaded: dict[tuple[str, bool], Any] = {}
        self._data = "no dataset"
        if datasets:
            train, test = self._load(self.args.dataset, True), self._load(self.args.dataset, False)
            self.classes = [label.partition(" - ")[0] for label in train.classes]       # "0 - zero" is "0" here
            self.args.train_size = self._train_size(len(train), named)
            self._data = self._about_data(len(train), len(test))
        self._start_run()
        self._announce(None if seconds is None else seconds(self.args))

    def _train_size(self, available: int, named: bool) -> int:
        """How many training images: what the command line names must be there, a preset takes what there is."""
        size, classes = self.args.train_size or available, len(self.classes)
        if named and not classes <= size <= available:
            raise SettingError(f"got {size:,}, expected {classes} (the classes) to {available:,} (the training images "
                               f"of {self.args.dataset})", where="--train-size")
        return min(size, available)

    def _start_run(self) -> None:
        """From here on there is a folder for the results, and a fixed seed."""
        from rich.console import Console

        self.out.mkdir(parents=True, exist_ok=True)
        self._before = times_of_files(self.out)
        self._figures: set[str] = set()
        self.metrics: dict[str, Any] = {}
        self.report = Report()
        self.console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
        minidl.manual_seed(self.args.seed)

    def _about_data(self, train_count: int, test_count: int) -> str:
        """Which images, and how many of them."""
        size, name = self.args.train_size, self.args.dataset
        used = f"{size:,}" + (f" of {train_count:,}" if size < train_count else "")
        return f"{name} ({DATASETS[name][1]}): {used} training and {test_count:,} test images"

    def _announce(self, seconds: float | None) -> None:
        """Print what will be done, on which data, and for how long."""
        args = self.args
        device = f"device {self.device}" + (f" (chosen by auto: {self._why})" if args.device == "auto" else "")
        plan = [self._preset_counts and f"preset {args.preset}", args.epochs and f"epochs {args.epochs}",
                args.batch_size and f"batch size {args.batch_size}", f"seed {args.seed}", device]
        span = seconds and (f"{max(seconds, 1):.0f} s" if seconds < 100 else f"{seconds / 60:.0f} minutes")
        print(self.about.strip().partition("\n")[0])
        print(self._data)
        on_cpu = "" if self.device == "cpu" else " on a CPU"
        print(", ".join(part for part in plan if part) + (f": about {span}{on_cpu}" if span else ""))
        print(f"results go to {self.out}", flush=True)

    # -- the data ------------------------------------------------------------------------------------------------------

    def _load(self, name: str, train: bool) -> Any:
        """A dataset, as it is in memory: bytes and labels."""
        if (name, train) not in self._loaded:
            download = {"download": True} if self.args.download and name != "mnist-csv" else {}
            try:
                data = getattr(minidl.datasets, DATASETS[name][0])(self.args.data_dir, train, **download)
            except MinidlError as error:                                    # in the words of the command line
                for ours, theirs in (("download=True", "--download"), ("set root", "set --data-dir"),
                                     ("another root", "another --data-dir")):
                    error.message = error.message.replace(ours, theirs)
                raise
            self._loaded[name, train] = data
        return self._loaded[name, train]

    def images(self, train: bool = True, dataset: str | None = None) -> tuple[minidl.Tensor, minidl.Tensor]:
        """Images, float32 (N, C, H, W) between 0 and 1, and labels, int64 (N,), on the CPU.

        train: the first --train-size training images, else all test images. dataset: another one than --dataset.
        """
        data = self._load(dataset or self.args.dataset, train)
        count = self.args.train_size if train else len(data)
        pixels = np.asarray(data.data)[:count]                              # (N, H, W) or (N, H, W, 3)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        images = np.ascontiguousarray(pixels, np.float32) / 255             # (N, C, H, W)
        return minidl.from_numpy(images), minidl.from_numpy(np.array(data.targets[:count], np.int64))

    # -- what the lab shows --------------------------------------------------------------------------------------------

    def section(self, title: str) -> None:
        """A heading, in the terminal and in the report."""
        from rich.text import Text

        self.console.print(Text(f"\n{title}", style="bold"))
        self.report.section(title)

    def say(self, text: str) -> None:
        """A paragraph, in the terminal and in the report."""
        from rich.text import Text

        self.console.print(Text(text), soft_wrap=not self.console.is_terminal)
        self.report.text(text)

    def table(self, rows: Sequence[Sequence[Any]], columns: Sequence[str], title: str = "") -> None:
        """A table, in the terminal and in the report. Cells are texts, or numbers, which get four digits."""
        from rich.table import Table
        from rich.text import Text

        for row in rows:
            if len(row) != len(columns):
                raise SettingError(f"got a row of {len(row)} cells, expected {len(columns)}, one for each column",
                                   where="lab.table")
        texts = [[as_text(value) for value in row] for row in rows]
        shown = Table(title=Text(title) if title else None, title_justify="left")
        for column, right in zip(columns, right_aligned(texts, columns), strict=True):
            shown.add_column(Text(column), justify="right" if right else "left")
        for row in texts:
            shown.add_row(*map(Text, row))
        self.console.print(shown)
        self.report.table(texts, columns, title)

    def layers(self, summary: Any, title: str) -> None:
        """What `minidl.summary` returned, as a table: each layer's shape, parameters and multiply-adds, and all."""
        rows = [[f"{row.name} {row.kind}", f"{row.output_shape}", f"{row.parameters:,}", f"{row.multiply_adds:,}"]
                for row in summary.rows]
        self.table([*rows, ["all", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}"]],
                   ["layer", "output", "parameters", "multiply-adds"], title)

    def figure(self, figure: Any, name: str, caption: str) -> None:
        """Save a figure of matplotlib as NAME.png, put it into the report, and close it."""
        import matplotlib.pyplot as plt

        self._take_name(name, "lab.figure")
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=120)
        self._write(f"{name}.png", png.getvalue())
        self.report.figure(png.getvalue(), caption)
        if self.in_notebook:
            from IPython.display import display

            display(figure)
        plt.close(figure)

    def drawing(self, drawing: Any, name: str, caption: str) -> None:
        """Save what `minidl.draw` returned, or the text of an SVG, as NAME.svg, and put it into the report."""
        svg = getattr(drawing, "svg", drawing)
        if not isinstance(svg, str) or not svg.startswith("<svg"):
            raise SettingError(f"got {type(drawing).__name__}, expected what minidl.draw returns, or a text that "
                               f"begins with <svg", where="lab.drawing")
        self._take_name(name, "lab.drawing")
        self._write(f"{name}.svg", svg.encode())
        self.report.drawing(svg, caption)
        if self.in_notebook:
            from IPython.display import SVG, display

            display(SVG(svg))

    def _take_name(self, name: str, where: str) -> None:
        """Names of figures and drawings are those of files: each once, but in a notebook cells are run again."""
        if name in self._figures and not self.in_notebook:
            raise SettingError(f"got {name!r} a second time, expected another name for each figure", where=where)
        self._figures.add(name)

    def code(self, thing: Any) -> None:
        """The source of a function or class, folded, with its file and line; only in the report."""
        try:
            (lines, first), path = inspect.getsourcelines(thing), Path(inspect.getfile(thing)).resolve()
        except (OSError, TypeError):                                        # a class that was typed into a notebook
            lines, where = ["(its source cannot be read here)"], "no file"
        else:
            where = f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{first}"
        self.report.folded(f"{thing.__qualname__} ({where})", code("".join(lines)))

    def question(self, question: str, answer: str) -> None:
        """A question whose answer is folded; only in the report."""
        self.report.folded(question, prose(answer))

    # -- what it leaves ------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Write metrics.json, manifest.json and, last, report.html; say where; give back threads and error handling.

        metrics.json has no NaN and no infinity, which JSON does not know: they are null, and named in "not_finite".
        """
        args, seconds = self.args, time.perf_counter() - self._start
        holes: dict[str, str] = {}
        metrics = {"lab": self.name, "dataset": args.dataset, "preset": args.preset, "device": self.device,
                   "seed": args.seed, "epochs": args.epochs, "train_size": args.train_size,
                   "batch_size": args.batch_size, "seconds": seconds, "versions": versions()}
        for name, value in self.metrics.items():
            if name in metrics or name == "not_finite":
                raise SettingError(f"got a metric named {name!r}, expected another name: each lab has this one anyway",
                                   where="lab.metrics")
            metrics[name] = plain(value, name, holes)
        if holes:
            metrics["not_finite"] = holes
            print("not finite, null in metrics.json:", ", ".join(f"{name} = {value}" for name, value in holes.items()))
        numbers = json.dumps(metrics, indent=2, allow_nan=False)
        self._write("metrics.json", f"{numbers}\n".encode())
        manifest = self._manifest(seconds)
        self._write("manifest.json", f"{json.dumps(manifest, indent=2)}\n".encode())
        if self.script.is_file():                                           # not in a notebook
            self.report.folded(f"The whole lab ({self.script.name})", code(self.script.read_text(encoding="utf-8")))
        summary = f"{self._data}; seed {args.seed}, {self.device}, {seconds:.0f} s, {manifest['date'][:10]}"
        facts = {key: value for key, value in manifest.items() if value and key not in ("arguments", "files")}
        page = self.report.html(self.about, summary, {**manifest["arguments"], **facts}, numbers)
        self._write("report.html", page.encode())
        print(f"{seconds:.1f} s; in {self.out}: {', '.join(manifest['files'])}", flush=True)
        if sys.excepthook == self._explain:
            sys.excepthook = self._hook

    def _manifest(self, seconds: float) -> dict[str, Any]:
        """How this run can be repeated: what was asked for, with what, and on which machine."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        last = {"metrics.json", "manifest.json", "report.html"}
        files = {name for name, time in times_of_files(self.out).items() if self._before.get(name) != time}
        return {"lab": self.name, "command": "a notebook" if self.in_notebook else self.command,
                "date": self._date.isoformat(timespec="seconds"), "seconds": round(seconds, 1),
                "arguments": plain({key: str(value) if isinstance(value, Path) else value
                                    for key, value in vars(self.args).items()}, "arguments", {}),
                "images": {f"{name} {'train' if train else 'test'}": len(data)
                           for (name, train), data in self._loaded.items()},
                "data_files": {str(path): path.stat().st_size
                               for data in self._loaded.values() for path in files_of(data)},
                "versions": versions(), "platform": platform.platform(), "processor": processor_name(), "cores": cores,
                "gpu": minidl.cuda.get_device_name() if self.device.startswith("cuda") else None,
                "threads": minidl.get_num_threads(), "files": sorted(files | last)}

    def _write(self, name: str, content: bytes) -> None:
        """A file among the results: whole, or not there."""
        replace_whole(self.out / name, content, where="--out")

    def _explain(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Stands in for sys.excepthook: one sentence for what the user can mend, a traceback for a bug."""
        exit_code = 2
        if isinstance(error, KeyboardInterrupt):
            sentence, exit_code = "stopped", 130
        elif isinstance(error, MemoryError):
            sentence = f"error: not enough memory ({error}); choose a smaller --train-size or --batch-size"
        elif isinstance(error, OSError):
            reason = error.strerror or str(error) or kind.__name__
            sentence = f"error: {error.filename}: {reason}" if error.filename else f"error: {reason}"
        elif isinstance(error, MinidlError):
            sentence = f"error: {error}"
        else:
            self._hook(kind, error, trace)
            return
        if self.args.debug:
            self._hook(kind, error, trace)
        print(" ".join(sentence.split()), file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:                                 # nobody reads it, or its disk is full: Python would complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(exit_code)


def in_notebook() -> bool:
    """Whether the kernel of a notebook runs this, rather than a command line."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def check_writable(folder: Path) -> None:
    """An error if no file can be made in `folder`, or where it would be. Leaves nothing behind."""
    try:
        nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise MinidlError(f"got {folder}, where nothing can be written ({error.strerror}); choose another folder",
                          where="--out") from error


def times_of_files(folder: Path) -> dict[str, int]:
    """Name -> time of the last change, for the files in a folder."""
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}


def files_of(data: Any) -> list[Path]:
    """The files of a dataset in MNIST's format; of others they are not known here."""
    if not isinstance(data, minidl.datasets.MNIST):
        return []
    names = [name for name in data.sha256 if name.startswith("train" if data.train else "t10k")]
    found = (find_together(root, data.folders, names) for root in (data.root, data_root()))
    return next(filter(None, found), [])
