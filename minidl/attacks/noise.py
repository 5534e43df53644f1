"""The control: a change as large as that of an attack, which knows nothing of the model."""

from __future__ import annotations

from minidl import creation
from minidl.attacks.attack import Attack
from minidl.nn.module import Module
from minidl.rng import Generator
from minidl.tensors import Tensor


class SignNoise(Attack):
    """x' = x + eps · s, within `clip`, where each s_i is -1 or 1 by the toss of a coin.

    `FGSM` with random signs instead of those of the gradient. If the model stands this and not FGSM, it is the
    direction of the change that fools it, and not its size. generator: tosses the coins.
    """

    def __init__(self, model: Module, eps: float, *, targeted: bool = False, clip: tuple[float, float] = (0.0, 1.0),
                 generator: Generator | None = None) -> None:
        super().__init__(model, eps, targeted=targeted, clip=clip)
        self.generator = generator

    def perturb(self, images: Tensor, labels: Tensor) -> Tensor:
        """A step of the size eps up or down in every pixel."""
        coins = creation.randint(0, 2, images.shape, generator=self.generator).to(images)
        return self.clipped(images + self.eps * (2 * coins - 1))
