"""Projected gradient descent: small steps, and back to within eps after each."""

from __future__ import annotations

import math
import operator

from minidl import creation
from minidl.attacks.attack import Attack
from minidl.errors import SettingError
from minidl.nn.module import Module
from minidl.nn.utils.directions import lengths, unit
from minidl.rng import Generator
from minidl.tensors import Tensor


class PGD(Attack):
    """Repeat: x' ← project(x' + alpha · direction(dJ/dx')), within `clip`.

        norm="inf":  direction(g) = sign(g),       project: each pixel back to within eps of x
        norm=2:      direction(g) = g / ‖g‖₂,      project: δ = x' - x shortened to the length eps, if it is longer

    alpha: the size of a step; None is 2.5 · eps / steps, so that every point within eps can be reached. An alpha that
    is given stays as it is when `evaluate` tries other values of eps: small steps then do not reach far.
    random_start: begin at a random point within eps instead of at x, where the gradient may be misleading.
    generator: draws that point.

    Ref: Madry et al. 2018, arXiv:1706.06083
    """

    def __init__(self, model: Module, eps: float, alpha: float | None = None, steps: int = 10,
                 random_start: bool = True, norm: float | str = "inf", *, targeted: bool = False,
                 clip: tuple[float, float] = (0.0, 1.0), generator: Generator | None = None) -> None:
        if norm not in ("inf", math.inf, 2, "2"):
            raise SettingError(f"got norm={norm!r}, expected 'inf' or 2", where="PGD")
        self.norm = float(norm)
        super().__init__(model, eps, targeted=targeted, clip=clip)
        try:
            self.steps = operator.index(steps)                              # NumPy's whole numbers, too
        except TypeError:
            self.steps = 0
        if self.steps < 1:
            raise SettingError(f"got steps={steps!r}, expected a whole number, 1 or more", where="PGD")
        self.random_start, self.generator = random_start, generator
        self.alpha = None if alpha is None else self._checked("alpha", alpha)

    def perturb(self, images: Tensor, labels: Tensor) -> Tensor:
        """`steps` steps, each back to within eps and to within `clip`."""
        alpha = 2.5 * self.eps / self.steps if self.alpha is None else self.alpha
        x = images
        if self.random_start and self.eps > 0:
            x = self.clipped(images + self._random_change(images))
        for _ in range(self.steps):
            x = x + alpha * self._direction(self.uphill(x, labels))
            x = self.clipped(images + self._projected(x - images))
        return x

    def _direction(self, g: Tensor) -> Tensor:
        if self.norm == math.inf:
            return g.sign()
        return unit(g)

    def _projected(self, change: Tensor) -> Tensor:
        if self.norm == math.inf:
            return change.clamp(-self.eps, self.eps)
        return change * (self.eps / lengths(change).clamp(min=1e-30)).clamp(max=1)

    def _random_change(self, images: Tensor) -> Tensor:
        """A point drawn uniformly from all δ with ‖δ‖ <= eps."""
        if self.norm == math.inf:
            u = creation.rand(images.shape, generator=self.generator).to(images)
            return (2 * u - 1) * self.eps
        n = images[0].numel()
        direction = self._direction(creation.randn(images.shape, generator=self.generator).to(images))
        u = creation.rand(len(images), generator=self.generator).to(images).reshape(-1, *[1] * (images.ndim - 1))
        return direction * self.eps * u ** (1 / n)                          # most of a ball is near its surface
