"""Samplers: in which order the samples of a dataset are visited, and how they are grouped into batches.

Random ones draw from the global generator (seeded by `minidl.manual_seed`) or from `generator=`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any, Generic, TypeVar

import numpy as np

from minidl.data.worker import check_generator, current_generator
from minidl.errors import ModuleError, SettingError
from minidl.rng import Generator

T_co = TypeVar("T_co", covariant=True)


def check_count(value: Any, name: str, where: str, least: int = 1) -> int:
    """`value` if it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SettingError(f"got {name}={value!r}, expected a whole number, {least} or more", where=where)
    return int(value)


class Sampler(Generic[T_co]):
    """The base of samplers. A subclass writes `__iter__`, which yields indices, and where it can `__len__`."""

    def __iter__(self) -> Iterator[T_co]:
        raise ModuleError("has no __iter__; define __iter__(self), which yields indices", where=type(self).__name__)


class SequentialSampler(Sampler[int]):
    """0, 1, 2, …"""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(Sampler[int]):
    """Every index once, shuffled; with `replacement`, each draw is independent of the others.

    num_samples: how many to draw; as many as there are without it. More than there are means another shuffle.
    """

    def __init__(self, data_source: Sized, replacement: bool = False, num_samples: int | None = None,
                 generator: Generator | None = None) -> None:
        self.data_source = data_source
        self.replacement = replacement
        self.generator = check_generator(generator, "RandomSampler")
        self._num_samples = num_samples if num_samples is None else check_count(num_samples, "num_samples",
                                                                                "RandomSampler")
        if len(data_source) == 0:
            raise SettingError("got a dataset without samples, expected one or more", where="RandomSampler")

    @property
    def num_samples(self) -> int:
        """How many indices one pass gives."""
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __iter__(self) -> Iterator[int]:
        rng = (self.generator or current_generator()).numpy
        count, total = self.num_samples, len(self.data_source)
        if self.replacement:
            yield from rng.integers(total, size=count).tolist()
            return
        while count > 0:
            yield from rng.permutation(total)[:count].tolist()
            count -= total

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(Sampler[int]):
    """The given indices, shuffled."""

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = check_generator(generator, "SubsetRandomSampler")

    def __iter__(self) -> Iterator[int]:
        order = (self.generator or current_generator()).numpy.permutation(len(self.indices))
        return iter([self.indices[i] for i in order.tolist()])

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(Sampler[int]):
    """Index i with a probability proportional to `weights[i]`.

    Without `replacement` an index that was drawn is out of the game for the rest of the pass.
    """

    def __init__(self, weights: Sequence[float], num_samples: int, replacement: bool = True,
                 generator: Generator | None = None) -> None:
        self.weights = np.array(weights, np.float64)
        self.num_samples = check_count(num_samples, "num_samples", "WeightedRandomSampler")
        self.replacement = replacement
        self.generator = check_generator(generator, "WeightedRandomSampler")
        if self.weights.ndim != 1 or not np.isfinite(self.weights).all() or (self.weights < 0).any() \
                or not self.weights.any():
            raise SettingError(f"got weights of the shape {self.weights.shape}, expected one number a sample, each 0 "
                               f"or more and not all 0", where="WeightedRandomSampler")
        possible = np.count_nonzero(self.weights)
        if not replacement and num_samples > possible:
            raise SettingError(f"got num_samples={num_samples}, expected {possible} or less: so many weights are above "
                               f"0, and replacement is off", where="WeightedRandomSampler")

    def __iter__(self) -> Iterator[int]:
        rng = (self.generator or current_generator()).numpy
        drawn = rng.choice(len(self.weights), self.num_samples, self.replacement, self.weights / self.weights.sum())
        return iter(drawn.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices from another sampler. `drop_last` leaves out a last one that is smaller."""

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = check_count(batch_size, "batch_size", "BatchSampler")
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        batch = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)  # type: ignore[arg-type]
        return full + (rest > 0 and not self.drop_last)
