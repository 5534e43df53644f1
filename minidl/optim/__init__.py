"""Optimizers, one file a family: `from minidl import optim`. `optim.lr_scheduler` changes their rates over time."""

from typing import Any

from minidl.errors import no_such_name
from minidl.optim import lr_scheduler
from minidl.optim.adadelta import Adadelta
from minidl.optim.adagrad import Adagrad
from minidl.optim.adam import Adam, AdamW
from minidl.optim.optimizer import Optimizer
from minidl.optim.rmsprop import RMSprop
from minidl.optim.sgd import SGD

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop", "lr_scheduler"]


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.optim", name, __all__, {
        "LBFGS": "use SGD with momentum, or write one: a subclass of 'Optimizer' with a step of its own",
        "SparseAdam": "gradients are dense here; use 'Adam'",
        "Muon": "the nearest is 'SGD' with nesterov=True, which it does before it makes the step orthogonal",
    })
