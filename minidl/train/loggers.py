"""Loggers: where a Trainer's numbers go, a table of comma-separated values or TensorBoard's files.

They go into the folder save_dir/name/version_N, where N is the next free number unless it is given. It is made when the
first numbers come.

A run that was interrupted goes on with a logger of the same version, after `resume_at(step)`, which forgets what was
logged since its last checkpoint. For that, `save()` is to come before each checkpoint.
"""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import DtypeError, NotWrittenError, SettingError
from minidl.tensors import Tensor
from minidl.utils.metrics_table import MetricsTable
from minidl.utils.summaries import as_scalar
from minidl.utils.tensorboard import SummaryWriter
from minidl.writing import make_folder, replace_whole, writing


class Logger:
    """What a Trainer asks of a logger. One of your own writes `log_metrics`, and what else it needs."""

    @property
    def name(self) -> str | None:
        """The name of the experiment, which may have many versions."""
        return None

    @property
    def version(self) -> int | str | None:
        """Which run of the experiment this is."""
        return None

    @property
    def save_dir(self) -> str | None:
        """The folder of all experiments."""
        return None

    @property
    def log_dir(self) -> str | None:
        """The folder of this run."""
        return None

    @property
    def experiment(self) -> Any:
        """What does the writing, such as a SummaryWriter."""
        return None

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Numbers, by name, at a step of the training."""
        raise NotWrittenError(f"{type(self).__name__} has no log_metrics(self, metrics, step); write it")

    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """The settings of the run, a dict or a Namespace; and numbers to compare it with other runs by."""

    def resume_at(self, step: int) -> None:
        """Forget what was logged at this step and later ones: it will come again."""

    def save(self) -> None:
        """Write what waits in memory."""

    def finalize(self, status: str) -> None:
        """The run has ended: "success" or "failed"."""
        self.save()


class _InFolder(Logger):
    """A logger with a folder save_dir/name/version_N. Names of metrics get `prefix-` in front."""

    def __init__(self, save_dir: Any, name: str | None, version: int | str | None, prefix: str) -> None:
        if not isinstance(save_dir, str | os.PathLike):
            raise SettingError(f"got save_dir={save_dir!r}, expected a folder", where=type(self).__name__)
        self._save_dir = os.path.expanduser(os.fspath(save_dir))
        self._name, self._version, self._prefix = name or "", version, prefix

    @property
    def name(self) -> str:
        """The folder below save_dir, "" for none."""
        return self._name

    @property
    def save_dir(self) -> str:
        """The folder of all experiments."""
        return self._save_dir

    @property
    def root_dir(self) -> str:
        """The folder of all versions."""
        return os.path.join(self.save_dir, self.name)

    @property
    def version(self) -> int | str:
        """The N of version_N, or a name for the folder. A free number is looked for when it is first needed."""
        if self._version is None:
            with writing(self.root_dir, type(self).__name__):
                names = os.listdir(self.root_dir) if os.path.isdir(self.root_dir) else []
            numbers = [name.removeprefix("version_") for name in names if name.startswith("version_")]
            self._version = max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1
        return self._version

    @property
    def log_dir(self) -> str:
        """The folder of this run."""
        return os.path.join(self.root_dir, self.version if isinstance(self.version, str) else f"version_{self.version}")

    def _prefixed(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        for name in metrics:
            if not isinstance(name, str):
                raise DtypeError(f"got a metric called {name!r}, expected a string", where=type(self).__name__)
        return {f"{self._prefix}-{name}" if self._prefix else name: value for name, value in metrics.items()}


class CSVLogger(_InFolder):
    """Writes metrics.csv, and the settings into hparams.json.

    Each call of `log_metrics` is a row. The columns are in alphabetical order, `step` among them; a cell is empty where
    a row has no such metric. Rows wait in memory until a step ends `flush_logs_every_n_steps`, or for `save`. With a
    version that exists, the rows in its file stay and new ones are added. Nothing is written before the first row.
    """

    def __init__(self, save_dir: Any, name: str | None = "lightning_logs", version: int | str | None = None,
                 prefix: str = "", flush_logs_every_n_steps: int = 100) -> None:
        super().__init__(save_dir, name, version, prefix)
        if flush_logs_every_n_steps < 1:
            raise SettingError(f"got flush_logs_every_n_steps={flush_logs_every_n_steps}, expected 1 or more",
                               where="CSVLogger")
        self._flush_every = flush_logs_every_n_steps
        self._has_folder = False
        self._table: MetricsTable | None = None
        self.hparams: dict[str, Any] = {}

    @property
    def experiment(self) -> MetricsTable:
        """The table in metrics.csv."""
        if self._table is None:
            self._table = MetricsTable(Path(self.log_dir) / "metrics.csv")
        return self._table

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """A row of numbers. step: the number of rows before it, unless given."""
        row = {name: as_scalar(value, f"CSVLogger, {name!r}") for name, value in self._prefixed(metrics).items()}
        step = self.experiment.count if step is None else int(as_scalar(step, "CSVLogger, step"))
        if not self._has_folder:
            make_folder(self.log_dir, "CSVLogger")
            self._save_hparams()
            self._has_folder = True
        self.experiment.add({**row, "step": step})
        if (step + 1) % self._flush_every == 0:
            self.save()

    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """The settings of the run; the metrics are for other loggers."""
        self.hparams.update(_settings(params))
        if self._has_folder:
            self._save_hparams()

    def _save_hparams(self) -> None:
        if self.hparams:
            content = json.dumps(self.hparams, indent=2) + "\n"
            replace_whole(Path(self.log_dir) / "hparams.json", content.encode(), "CSVLogger")

    def resume_at(self, step: int) -> None:
        """Leave out the rows of this step and later ones."""
        self.experiment.forget_from(step)

    def save(self) -> None:
        """Write the rows that wait."""
        self.experiment.save()


class TensorBoardLogger(_InFolder):
    """Writes TensorBoard's files with a SummaryWriter: `logger.experiment`, for `experiment.add_image(…)` and so on.

    sub_dir: a folder in the version's folder. default_hp_metric: settings that are logged without a metric get one,
    hp_metric = -1, because TensorBoard's table of runs wants one. kwargs: settings of the SummaryWriter.
    """

    def __init__(self, save_dir: Any, name: str | None = "lightning_logs", version: int | str | None = None,
                 log_graph: bool = False, default_hp_metric: bool = True, prefix: str = "", sub_dir: Any = None,
                 **kwargs: Any) -> None:
        super().__init__(save_dir, name, version, prefix)
        if log_graph:
            raise SettingError("got log_graph=True, expected False: graphs are not written for TensorBoard; print "
                               "minidl.summary(model, size)", where="TensorBoardLogger")
        self._default_hp_metric = default_hp_metric
        self._sub_dir = "" if sub_dir is None else os.fspath(sub_dir)
        self._writer_settings = kwargs
        self._writer: SummaryWriter | None = None

    @property
    def log_dir(self) -> str:
        """The folder of this run."""
        return os.path.join(super().log_dir, self._sub_dir) if self._sub_dir else super().log_dir

    @property
    def experiment(self) -> SummaryWriter:
        """The SummaryWriter, made when it is first needed."""
        if self._writer is None:
            self._writer = SummaryWriter(self.log_dir, **self._writer_settings)
        return self._writer

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """One point for each number; for a dict of numbers, several in one diagram."""
        numbers = {name: {key: as_scalar(x, f"TensorBoardLogger, {name!r}") for key, x in value.items()}
                   if isinstance(value, Mapping) else as_scalar(value, f"TensorBoardLogger, {name!r}")
                   for name, value in self._prefixed(metrics).items()}
        for name, value in numbers.items():
            if isinstance(value, dict):
                self.experiment.add_scalars(name, value, step)
            else:
                self.experiment.add_scalar(name, value, step)

    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | None = None, step: int | None = None) -> None:
        """A row of the table of runs: settings (those in a dict as "dict/name"), and numbers to compare runs by."""
        settings = dict(_flat(_settings(params)))
        if metrics is None:
            metrics = {"hp_metric": -1} if self._default_hp_metric else {}
        if metrics:
            self.log_metrics(metrics, step)
            self.experiment.describe_run(settings, self._prefixed(metrics), global_step=step)

    def resume_at(self, step: int) -> None:
        """Tell TensorBoard to leave out what earlier files say of this step and later ones."""
        self.finalize("")
        self._writer = None
        self._writer_settings["purge_step"] = step

    def save(self) -> None:
        """Write what waits in memory."""
        if self._writer is not None:
            self._writer.flush()

    def finalize(self, status: str) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _settings(params: Any) -> dict[str, Any]:
    """The settings of a run as JSON has them."""
    settings = _plain({} if params is None else params)
    if not isinstance(settings, dict):
        raise DtypeError(f"got settings of type {type(params).__name__}, expected a dict or a Namespace",
                         where="log_hyperparams")
    return settings


def _plain(value: Any) -> Any:
    """A setting as JSON has it: tensors and arrays become lists of numbers, and strange objects strings."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings in settings by their paths, and lists as strings."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value if isinstance(value, bool | int | float | str) else str(value)
