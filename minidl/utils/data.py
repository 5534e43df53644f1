"""Another name of `minidl.data`, for programs that write `from torch.utils.data import DataLoader`."""

from typing import Any as _Any

import minidl.data as _data
from minidl.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    WorkerInfo,
    current_generator,
    dataloader,
    dataset,
    default_collate,
    default_convert,
    get_worker_info,
    random_split,
    sampler,
)

__all__ = [
    "BatchSampler", "ConcatDataset", "DataLoader", "Dataset", "IterableDataset", "RandomSampler", "Sampler",
    "SequentialSampler", "Subset", "SubsetRandomSampler", "TensorDataset", "WeightedRandomSampler", "WorkerInfo",
    "current_generator", "dataloader", "dataset", "default_collate", "default_convert", "get_worker_info",
    "random_split", "sampler",
]


def __getattr__(name: str) -> _Any:
    return getattr(_data, name)
