"""Event files, which TensorBoard reads: records, one after the other.

A record is one Event (the time, the step, and a summary: values with their tags) as a protocol buffer, with its length
and checksums. Events and records are TensorBoard's own code. No thread writes them beside the program, as PyTorch's
does: the line that logs is the line that writes, so that it is also the line where a full disk is noticed.
"""

from __future__ import annotations

import io
import itertools
import os
import socket
import time
import weakref
from types import SimpleNamespace
from typing import Any

from minidl.errors import MinidlError, SettingError
from minidl.writing import append_whole, make_folder


def tensorboard_parts() -> SimpleNamespace:
    """What is used of the package `tensorboard`. Importing it takes half a second."""
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2  # type: ignore[import-untyped]
        from tensorboard.plugins.hparams import metadata as hparams
        from tensorboard.plugins.scalar import metadata as scalar  # type: ignore[import-untyped]
        from tensorboard.plugins.text import metadata as text  # type: ignore[import-untyped]
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
        from tensorboard.util.tensor_util import make_tensor_proto  # type: ignore[import-untyped]
    except ImportError as error:
        raise MinidlError(f'got no package tensorboard ({error}), expected version 2.21 or newer; '
                          f'pip install "minidl[tensorboard]"', where="SummaryWriter") from None
    return SimpleNamespace(event=event_pb2, summary=summary_pb2, api=api_pb2, plugin_data=plugin_data_pb2,
                           hparams=hparams, scalar=scalar, text=text, RecordWriter=RecordWriter,
                           make_tensor_proto=make_tensor_proto)


class EventFile:
    """A file of events in a folder, and those that wait in memory to be appended to it.

    They wait until there are `max_queue`, or until the last ones were written `flush_secs` ago; `flush` writes them,
    and so does the end of the program.
    """

    numbers = itertools.count()             # two files made in one second have different names, in order

    def __init__(self, tb: SimpleNamespace, folder: str, max_queue: int, flush_secs: float, suffix: str) -> None:
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(self.numbers):04d}{suffix}"
        self.path = os.path.join(folder, f"events.out.tfevents.{name}")
        self.max_queue, self.flush_secs = max_queue, flush_secs
        self.waiting, self.written = 0, time.monotonic()    # how many wait; when the last ones were written
        self.buffer = io.BytesIO()
        self.records = tb.RecordWriter(self.buffer)
        make_folder(folder, "SummaryWriter")
        self.add(tb.event.Event(file_version="brain.Event:2"), None, None)
        self.flush()
        weakref.finalize(self, _write_out, self.buffer, self.path)

    def add(self, event: Any, step: Any, walltime: float | None) -> None:
        """One event: of the step, or of none; at a time in seconds since 1970, or now."""
        try:
            event.wall_time = time.time() if walltime is None else walltime
            event.step = 0 if step is None else int(step)
        except (TypeError, ValueError, OverflowError):
            raise SettingError(f"got global_step={step!r} and walltime={walltime!r}, expected a whole number, and "
                               f"seconds since 1970", where="SummaryWriter") from None
        self.records.write(event.SerializeToString())
        self.waiting += 1
        if self.waiting >= self.max_queue or time.monotonic() - self.written >= self.flush_secs:
            self.flush()

    def flush(self) -> None:
        """Append what waits to the file."""
        _write_out(self.buffer, self.path)
        self.waiting, self.written = 0, time.monotonic()


def _write_out(buffer: io.BytesIO, path: str) -> None:
    """Not a method: what runs when an object has gone must not hold it."""
    if buffer.tell():
        append_whole(path, buffer.getvalue(), "SummaryWriter")
        buffer.seek(0)
        buffer.truncate()
