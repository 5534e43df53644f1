"""Random numbers: one generator, seeded by `manual_seed`, drawn on the host.

Every draw happens in NumPy on the CPU and is uploaded where needed, so that one seed gives the same weights and the
same batches on every device.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np


class Generator:
    """A stream of random numbers with a seed of its own, as `torch.Generator`.

    Functions that draw (`minidl.randn`, …) take `generator=`; without one they use the global generator.
    """

    def __init__(self, device: object = "cpu") -> None:
        self.manual_seed(int.from_bytes(os.urandom(6), "big"))

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream again from `seed` (any int). Returns the generator."""
        self._seed = int(seed)
        self._numpy: np.random.Generator | None = None
        return self

    @property
    def numpy(self) -> np.random.Generator:
        """NumPy's generator, which does the drawing. Made at first use: loading numpy.random takes a while."""
        if self._numpy is None:
            # negative seeds are allowed, as in PyTorch; NumPy's take none
            self._numpy = np.random.Generator(np.random.PCG64(self._seed % 2**64))
        return self._numpy

    def initial_seed(self) -> int:
        """The seed that the stream was started from."""
        return self._seed

    def get_state(self) -> dict[str, Any]:
        """The exact place in the stream, as plain numbers that JSON can hold."""
        return {"seed": self._seed, "bit_generator": self.numpy.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> Generator:
        """Continue from a place that `get_state` returned."""
        self.manual_seed(state["seed"])
        self.numpy.bit_generator.state = state["bit_generator"]
        return self


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the global generator, from which weights, dropout masks and shuffles are drawn."""
    return default_generator.manual_seed(seed)


def initial_seed() -> int:
    """The seed of the global generator."""
    return default_generator.initial_seed()


def seed() -> int:
    """Seed the global generator from the machine's own randomness. Returns the seed."""
    return default_generator.manual_seed(Generator().initial_seed()).initial_seed()


def get_rng_state() -> dict[str, Any]:
    """The exact place in the global stream."""
    return default_generator.get_state()


def set_rng_state(state: dict[str, Any]) -> None:
    """Continue from a place that `get_rng_state` returned."""
    default_generator.set_state(state)
