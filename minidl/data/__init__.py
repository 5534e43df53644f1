"""Datasets and how they become batches, with the names of `torch.utils.data`."""

from typing import Any as _Any

from minidl.data.collate import default_collate, default_convert
from minidl.data.dataloader import DataLoader
from minidl.data.dataset import (
    ConcatDataset,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from minidl.data.sampler import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from minidl.data.worker import WorkerInfo, current_generator, get_worker_info
from minidl.errors import no_such_name as _no_such_name

__all__ = [
    "BatchSampler", "ConcatDataset", "DataLoader", "Dataset", "IterableDataset", "RandomSampler", "Sampler",
    "SequentialSampler", "Subset", "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "WorkerInfo",
    "current_generator", "default_collate", "default_convert", "get_worker_info", "random_split",
]

_HINTS = {
    "ChainDataset": "write an IterableDataset whose __iter__ goes through the others, `itertools.chain(*others)`",
    "DistributedSampler": "training runs in one process; use RandomSampler",
    "StackDataset": "write a Dataset whose __getitem__ returns the samples of the others as a tuple",
}


def __getattr__(name: str) -> _Any:
    raise _no_such_name("minidl.data", name, __all__, _HINTS)
