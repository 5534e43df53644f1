"""Training without writing the loop: PyTorch Lightning's names, `from minidl import train as L`.

To read: trainer.py (the loop), hooks.py (where you can step in), module.py (what you write), then checkpoint.py.
"""

from typing import Any as _Any

from minidl.errors import no_such_name as _no_such_name
from minidl.train import callbacks, loggers
from minidl.train.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from minidl.train.loggers import CSVLogger, TensorBoardLogger
from minidl.train.module import LightningDataModule, LightningModule
from minidl.train.trainer import Trainer

__all__ = ["CSVLogger", "Callback", "EarlyStopping", "LearningRateMonitor", "LightningDataModule", "LightningModule",
           "ModelCheckpoint", "TensorBoardLogger", "Trainer", "callbacks", "loggers", "seed_everything"]

_HINTS = {"Fabric": "write the loop yourself, with `loss.backward()` and `optimizer.step()`",
          "pytorch": "import from minidl.train itself"}


def seed_everything(seed: int | None = None, workers: bool = False, verbose: bool = True) -> int:
    """Seed minidl, Python's random and NumPy's; returns the seed, 0 if none was given. workers changes nothing."""
    import random

    import numpy

    from minidl.rng import manual_seed

    seed = 0 if seed is None else int(seed)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002  the dataset of a lesson may draw from it
    manual_seed(seed)
    return seed


def __getattr__(name: str) -> _Any:
    raise _no_such_name("minidl.train", name, __all__, _HINTS)
