"""Collating: a list of samples becomes one batch, with a new first axis wherever there are numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from minidl import creation, dtypes
from minidl.backend import backend_of
from minidl.errors import DeviceError, DtypeError, ShapeError
from minidl.functions import stack
from minidl.tensors import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """Samples of the same structure as one sample of that structure, whose numbers are tensors.

        tensors, arrays of one shape    one tensor (N, …) of their type
        NumPy numbers                   a tensor (N,) of their type
        Python floats, ints, bools      a tensor (N,) of float64, int64, bool
        strings, bytes                  the list of them
        dicts, named tuples             the same with a batch in each place
        tuples, lists                   a list with a batch in each place
    """
    if not hasattr(batch, "__len__") or len(batch) == 0:
        raise ShapeError(f"got {batch!r}, expected a list of one or more samples", where="default_collate")
    first = batch[0]
    if isinstance(first, Tensor):
        return _stacked([_same(Tensor, sample, place) for place, sample in enumerate(batch)])
    if isinstance(first, np.ndarray):
        return _stacked([creation.from_numpy(_same(np.ndarray, sample, place)) for place, sample in enumerate(batch)])
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, np.generic):
        return creation.from_numpy(np.asarray(batch))
    if isinstance(first, float):
        return creation.tensor(batch, dtype=dtypes.float64)
    if isinstance(first, int):
        return creation.tensor(batch)
    if isinstance(first, Mapping):
        for place, sample in enumerate(batch):
            if not first.keys() <= _same(Mapping, sample, place).keys():
                raise ShapeError(f"got the keys {list(first)} in sample 0 of the batch and {list(sample)} in sample "
                                 f"{place}, expected the same; give the DataLoader a collate_fn",
                                 where="default_collate")
        return _rebuilt(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, Sequence):
        for place, sample in enumerate(batch):
            if len(_same(Sequence, sample, place)) != len(first):
                raise ShapeError(f"got {len(first)} parts in sample 0 of the batch and {len(sample)} in sample "
                                 f"{place}, expected the same number; give the DataLoader a collate_fn",
                                 where="default_collate")
        return _rebuilt(first, [default_collate(parts) for parts in zip(*batch, strict=True)])
    raise _cannot_batch(first, 0)


def default_convert(sample: Any) -> Any:
    """One sample with its NumPy arrays and numbers as tensors; everything else as it is."""
    if isinstance(sample, np.ndarray | np.generic) and not isinstance(sample, np.str_ | np.bytes_):
        return sample if sample.dtype.kind in "SUO" else creation.from_numpy(np.asarray(sample))
    if isinstance(sample, Mapping):
        return _rebuilt(sample, {key: default_convert(sample[key]) for key in sample})
    if isinstance(sample, Sequence) and not isinstance(sample, str | bytes):
        return _rebuilt(sample, [default_convert(part) for part in sample])
    return sample


def _same(kind: type, sample: Any, place: int) -> Any:
    if not isinstance(sample, kind) or isinstance(sample, str | bytes):
        raise _cannot_batch(sample, place)
    return sample


def _cannot_batch(sample: Any, place: int) -> DtypeError:
    fix = "give the DataLoader a collate_fn"
    if type(sample).__module__.startswith("PIL."):
        fix = "give the dataset transform=transforms.ToTensor()"
    elif sample is None:
        fix = "does the dataset's __getitem__ return something?"
    return DtypeError(f"got {type(sample).__name__} in sample {place} of the batch, expected tensors, arrays, numbers, "
                      f"strings, or dicts and sequences of them, alike in all samples; {fix}", where="default_collate")


def _stacked(tensors: list[Tensor]) -> Tensor:
    """(…) N times -> (N, …)."""
    first = tensors[0]
    for place, tensor in enumerate(tensors):
        if tensor.shape != first.shape:
            raise ShapeError(f"got shape {first.shape} in sample 0 of the batch and {tensor.shape} in sample {place}, "
                             f"expected the same; bring them to one size (transforms.Resize, transforms.CenterCrop) or "
                             f"give the DataLoader a collate_fn", where="default_collate")
        if tensor.device != first.device:
            raise DeviceError(f'got sample 0 of the batch on "{first.device}" and sample {place} on "{tensor.device}", '
                              f"expected one device", where="default_collate")
    if any(tensor.requires_grad for tensor in tensors):
        return stack(tensors)
    arrays = [tensor.array for tensor in tensors]
    dtype = dtypes.result_type((array.dtype, 1) for array in arrays)
    return Tensor._of(backend_of(arrays[0]).xp.stack(arrays).astype(dtype, copy=False))


def _rebuilt(like: Any, parts: Any) -> Any:
    """A container of the same type with other parts. A plain tuple becomes a list, as in PyTorch."""
    if isinstance(like, tuple):
        make: Callable[..., Any] = type(like)
        return make(*parts) if hasattr(like, "_fields") else parts
    try:
        if isinstance(like, MutableMapping | MutableSequence):
            clone: Any = copy.copy(like)                # a copy keeps what else a class of its own may hold
            for key, part in parts.items() if isinstance(like, MutableMapping) else enumerate(parts):
                clone[key] = part
            return clone
        return type(like)(parts)
    except TypeError:
        return parts
