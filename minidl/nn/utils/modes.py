"""A model that is looked at and not trained: evaluation mode for a while, then every part as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minidl.nn.module import Module


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Inside `with evaluating(model):` all parts are in evaluation mode; after it, each is as it was before."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
