"""A model that is looked at and not trained: evaluation mode for a while, then every part as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minidl.nn.module import Module


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Inside `with evaluating(model):` all parts are in evaluation mode; after it, each is as it was before."""
    before = {module: module.training for module in model.modules()}
    _set(dict.fromkeys(before, False))
    try:
        yield
    finally:
        _set(before)


def _set(modes: dict[Module, bool]) -> None:
    for module, training in modes.items():
        if module.training != training:                     # setting an attribute of a module costs more than looking
            module.training = training
