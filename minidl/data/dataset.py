"""Datasets: things with a length and with samples by number, and ways to join, cut and split them."""

from __future__ import annotations

import bisect
import itertools
import math
import operator
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from minidl.data.worker import check_generator, current_generator
from minidl.errors import ModuleError, SettingError, ShapeError
from minidl.rng import Generator
from minidl.tensors import Tensor

T_co = TypeVar("T_co", covariant=True)


class Dataset(Generic[T_co]):
    """Samples by number. A subclass writes `__getitem__(index)` and `__len__()`.

    Two optional methods spare a DataLoader the walk over single samples:

        __getitems__(indices)   a list of samples, as in PyTorch
        whole_batch(indices)    the finished batch, exactly what default_collate would make of the samples, or None

    `one_dataset + another` is the two of them, one after the other.
    """

    def __getitem__(self, index: Any) -> T_co:
        raise ModuleError("has no __getitem__; define __getitem__(self, index), which returns one sample",
                          where=type(self).__name__)

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T_co]):
    """Samples that come one after the other, without numbers. A subclass writes `__iter__()`."""

    def __iter__(self) -> Iterator[T_co]:
        raise ModuleError("has no __iter__; define __iter__(self), which yields samples", where=type(self).__name__)


def offers(dataset: Any, method: str) -> bool:
    """Whether a dataset has `method`, and its class did not write a newer `__getitem__` that it would pass over."""
    for cls in type(dataset).__mro__:
        if method in vars(cls):
            return True
        if "__getitem__" in vars(cls):
            return False
    return False


def whole_batch(dataset: Any, indices: Sequence[int]) -> Any | None:
    """The batch with these indices in one go; None where the dataset must be asked for single samples."""
    return dataset.whole_batch(indices) if offers(dataset, "whole_batch") else None


def as_indices(indices: Iterable[Any]) -> np.ndarray:
    """Numbers, or tensors of one number, as an index array."""
    return np.fromiter(map(operator.index, indices), np.int64)


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Tensors of the same length: sample i is `(tensors[0][i], tensors[1][i], …)`."""

    def __init__(self, *tensors: Tensor) -> None:
        for place, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise ModuleError(f"got a {type(tensor).__name__} in place {place}, expected tensors; use "
                                  f"minidl.tensor(x)", where="TensorDataset")
        if not tensors or any(t.ndim == 0 or len(t) != len(tensors[0]) for t in tensors):
            raise ShapeError(f"got tensors of the shapes {[t.shape for t in tensors]}, expected one or more of the "
                             f"same length", where="TensorDataset")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def whole_batch(self, indices: Sequence[int]) -> list[Tensor]:
        """All samples at once: one indexing a tensor."""
        index = as_indices(indices)
        return [tensor[index] for tensor in self.tensors]


class Subset(Dataset[T_co]):
    """The samples of `dataset` whose numbers are in `indices`, in that order."""

    def __init__(self, dataset: Dataset[T_co], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[T_co]:
        """A list of samples; by the dataset's own `__getitems__` if it has one."""
        inner = [self.indices[i] for i in indices]
        if offers(self.dataset, "__getitems__"):
            samples: list[T_co] = self.dataset.__getitems__(inner)  # type: ignore[attr-defined]
            return samples
        return [self.dataset[i] for i in inner]

    def whole_batch(self, indices: Sequence[int]) -> Any | None:
        """The finished batch, where the dataset can make one."""
        return whole_batch(self.dataset, [self.indices[i] for i in indices])

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[Any]):
    """Datasets one after the other; `cumulative_sizes` says where each of them ends."""

    def __init__(self, datasets: Iterable[Dataset[Any]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise SettingError("got no datasets, expected at least one", where="ConcatDataset")
        for dataset in self.datasets:
            if isinstance(dataset, IterableDataset):
                raise ModuleError(f"got {type(dataset).__name__}, whose samples have no numbers, expected datasets "
                                  f"with __getitem__ and __len__", where="ConcatDataset")
        self.cumulative_sizes = list(itertools.accumulate(map(len, self.datasets)))  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        if not -len(self) <= index < len(self):
            raise IndexError(f"ConcatDataset: got the index {index}, expected one below {len(self)}")
        index %= len(self)
        which = bisect.bisect_right(self.cumulative_sizes, index)
        first = self.cumulative_sizes[which - 1] if which else 0
        return self.datasets[which][index - first]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


def random_split(dataset: Dataset[T_co], lengths: Sequence[float],
                 generator: Generator | None = None) -> list[Subset[T_co]]:
    """Cut a dataset into parts of these lengths (or fractions that sum to 1), each sample in one of them, at random.

    What the fractions leave over is dealt out one by one, beginning with the first part.
    """
    total = len(dataset)  # type: ignore[arg-type]
    wrong = SettingError(f"got the lengths {lengths!r}, expected numbers that sum to the {total} samples, or fractions "
                         f"that sum to 1", where="random_split")
    if not hasattr(lengths, "__iter__") or not all(isinstance(part, int | float | np.number) and 0 <= part < math.inf
                                                   for part in lengths):
        raise wrong
    if math.isclose(sum(lengths), 1) and max(lengths) <= 1:
        sizes = [math.floor(total * part) for part in lengths]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
        if 0 in sizes:
            warnings.warn(f"random_split: part {sizes.index(0)} of {total} samples is empty", stacklevel=2)
    else:
        sizes = [int(part) for part in lengths]
        if sum(sizes) != total or sizes != list(lengths):
            raise wrong
    order = (check_generator(generator, "random_split") or current_generator()).numpy.permutation(total).tolist()
    ends = itertools.accumulate(sizes)
    return [Subset(dataset, order[end - size:end]) for size, end in zip(sizes, ends, strict=True)]
