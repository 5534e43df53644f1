"""Schedules for the learning rate: call `scheduler.step()` once an epoch, after the optimizer's steps of that epoch."""

from typing import Any

from minidl.errors import no_such_name
from minidl.optim.lr_scheduler.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from minidl.optim.lr_scheduler.factors import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from minidl.optim.lr_scheduler.one_cycle import OneCycleLR
from minidl.optim.lr_scheduler.plateau import ReduceLROnPlateau
from minidl.optim.lr_scheduler.scheduler import LRScheduler
from minidl.optim.lr_scheduler.sequential import SequentialLR

__all__ = ["ConstantLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ExponentialLR", "LRScheduler", "LambdaLR",
           "LinearLR", "MultiStepLR", "MultiplicativeLR", "OneCycleLR", "PolynomialLR", "ReduceLROnPlateau",
           "SequentialLR", "StepLR"]

_LRScheduler = LRScheduler                      # its old name, which lessons derive from


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.optim.lr_scheduler", name, __all__, {
        "ChainedScheduler": "call step() of each scheduler instead", "CyclicLR": "the nearest is 'OneCycleLR'"})
