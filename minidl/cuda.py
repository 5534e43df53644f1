"""Questions about a GPU, under PyTorch's names. So far minidl computes on the CPU alone."""

from __future__ import annotations

from typing import Any

from minidl.errors import no_such_name
from minidl.rng import manual_seed as _manual_seed


def is_available() -> bool:
    """Whether tensors can be moved to a GPU."""
    return False


def device_count() -> int:
    """How many GPUs there are."""
    return 0


def manual_seed(seed: int) -> None:
    """Seed the global generator: there is one for all devices."""
    _manual_seed(seed)


manual_seed_all = manual_seed


def synchronize() -> None:
    """Wait until the GPU has finished; nothing to wait for on the CPU."""


def empty_cache() -> None:
    """Give unused GPU memory back; there is none on the CPU."""


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.cuda", name, ("is_available", "device_count", "manual_seed", "manual_seed_all",
                                             "synchronize", "empty_cache"))
