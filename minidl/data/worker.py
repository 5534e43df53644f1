"""What is different while a DataLoader fetches a batch: where random numbers come from, and which thread it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from minidl.errors import SettingError
from minidl.rng import Generator, default_generator


@dataclass(frozen=True)
class WorkerInfo:
    """Which thread of a DataLoader is running: `get_worker_info()` returns it."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


class _State(threading.local):
    generator: Generator = default_generator
    info: WorkerInfo | None = None


_state = _State()


def current_generator() -> Generator:
    """Where random transforms draw from: the generator of the batch that is being fetched, else the global one.

    Every batch has a generator of its own, so what is drawn for it does not depend on how many threads fetch batches
    at the same time, or on which of them is faster.
    """
    return _state.generator


def check_generator(generator: Any, where: str) -> Generator | None:
    """`generator` if it is one, or None."""
    if generator is not None and not isinstance(generator, Generator):
        raise SettingError(f"got generator={generator!r}, expected a minidl.Generator; write "
                           f"minidl.Generator().manual_seed(5), with a seed of yours", where=where)
    return generator


@contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """Make `generator` the current one in this thread."""
    before, _state.generator = _state.generator, generator
    try:
        yield
    finally:
        _state.generator = before


def get_worker_info() -> WorkerInfo | None:
    """The worker that calls this, with id, num_workers, seed and dataset; None outside of a DataLoader's threads."""
    return _state.info


def set_worker_info(info: WorkerInfo) -> None:
    """Note, in a thread of a DataLoader, which one it is."""
    _state.info = info
