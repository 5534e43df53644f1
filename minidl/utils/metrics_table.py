"""A table of metrics that grows while a program trains, in a file of comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minidl.errors import MinidlError
from minidl.writing import append_whole, replace_whole, writing

Row = dict[str, Any]


class MetricsTable:
    """A CSV file that grows by rows, and now and then by columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics: list[Row] = []                        # rows that wait to be written
        self.columns: list[str] = []                        # of the file, once this object has written it
        self.count = len(self.rows())                       # rows in the file and in memory

    def rows(self) -> list[Row]:
        """The rows in the file, as strings. A last line that was cut off is none."""
        if not self.path.exists():
            return []
        with writing(self.path, "CSVLogger"), open(self.path, encoding="utf-8", errors="replace", newline="") as file:
            text = file.read()
        reader = csv.DictReader(io.StringIO(text[:text.rfind("\n") + 1], newline=""))
        rows = [{name: cell for name, cell in row.items() if cell} for row in reader]
        if not all(row.get("step", "").removeprefix("-").isdecimal() and None not in row for row in rows):
            raise MinidlError(f"got {self.path}, which has rows without a step, expected the file of a CSVLogger; "
                              f"choose another version", where="CSVLogger")
        return rows

    def add(self, row: Row) -> None:
        """One more row, in memory."""
        self.metrics.append(row)
        self.count += 1

    def save(self) -> None:
        """Append the rows that wait. The file is written anew if they have new columns."""
        if not self.metrics:
            return
        if self.path.exists() and {*self.columns}.issuperset(name for row in self.metrics for name in row):
            append_whole(self.path, _as_csv(self.metrics, self.columns), "CSVLogger")
        else:
            self._write([*self.rows(), *self.metrics])
        self.metrics = []

    def forget_from(self, step: int) -> None:
        """Leave out all rows of this step and later ones."""
        rows = [*self.rows(), *self.metrics]
        kept = [row for row in rows if int(row["step"]) < step]
        if len(kept) == len(rows):
            return
        if kept:
            self._write(kept)
        else:
            with writing(self.path, "CSVLogger"):
                self.path.unlink(missing_ok=True)
        self.metrics, self.count = [], len(kept)

    def _write(self, rows: list[Row]) -> None:
        columns = sorted({name for row in rows for name in row})
        header = {name: name for name in columns}
        replace_whole(self.path, _as_csv([header, *rows], columns), "CSVLogger")
        self.columns = columns


def _as_csv(rows: Iterable[Row], columns: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()
