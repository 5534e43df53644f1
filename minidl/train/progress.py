"""What a Trainer shows: a bar while an epoch runs, then one line for it, aligned below the ones before."""

from __future__ import annotations

from typing import Any

from minidl.train.callbacks import Callback


class EpochTable(Callback):
    """A header with the names of the metrics, and a line of numbers for each epoch."""

    looks_at_epoch = True

    def __init__(self) -> None:
        self.columns: list[str] = []

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        """A new table for a new run."""
        self.columns = []

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """One line; the header again if the metrics are others."""
        row = dict(trainer.history[-1])
        cells = {"epoch": str(row.pop("epoch") + 1)}
        cells |= {name: as_text(value) for name, value in row.items() if name != "seconds"}
        cells["seconds"] = f"{row['seconds']:.1f}"
        if any(name not in self.columns for name in cells):
            self.columns = list(cells)
            trainer.console.print("  ".join(name.rjust(width(name)) for name in self.columns), highlight=False)
        line = "  ".join(cells.get(name, "").rjust(width(name)) for name in self.columns)
        trainer.console.print(line, highlight=False)


class ProgressBar(Callback):
    """How far the epoch is, how many batches a second, and the numbers logged with prog_bar=True."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None

    def _start(self, trainer: Any, text: str, total: int | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self.bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(),
                       TextColumn("{task.fields[numbers]}"))
            self.bar = Progress(*columns, console=trainer.console, transient=True, refresh_per_second=4,
                                disable=not (trainer.console.is_terminal or trainer.console.is_jupyter))
            self.bar.start()
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(text, total=total, numbers="")

    def _advance(self, trainer: Any) -> None:
        if self.bar is not None and not self.bar.disable:
            shown = trainer.log.for_bar() if trainer.reads_numbers_now else None
            fields = {} if shown is None else {"numbers": "  ".join(f"{n} {as_text(x)}" for n, x in shown.items())}
            self.bar.update(self.task, advance=1, **fields)

    def _stop(self, *args: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
        self.bar = self.task = None

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """A bar for the epoch."""
        self._start(trainer, f"epoch {trainer.current_epoch + 1}", trainer.number_of_batches)

    def on_validation_epoch_start(self, trainer: Any, module: Any) -> None:
        """A bar for validation."""
        self._start(trainer, "validating", trainer.number_of_batches)

    def on_test_epoch_start(self, trainer: Any, module: Any) -> None:
        """A bar for the test."""
        self._start(trainer, "testing", trainer.number_of_batches)

    def on_predict_epoch_start(self, trainer: Any, module: Any) -> None:
        """A bar for predictions."""
        self._start(trainer, "predicting", trainer.number_of_batches)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """One batch more."""
        self._advance(trainer)

    def on_validation_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """One batch more."""
        self._advance(trainer)

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    teardown = on_exception = _stop


def width(name: str) -> int:
    """How wide a column is."""
    return max(len(name), 5 if name == "epoch" else 9)


def as_text(value: float) -> str:
    """A number for a person: four decimals, or three digits and an exponent if that would hide it."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e5 or value != value else f"{value:.3e}"
