"""Directions in the space of images: what attacks and activation maximisation step along."""

from __future__ import annotations

from minidl.tensors import Tensor


def lengths(x: Tensor) -> Tensor:
    """The L2 norm of each image: (N, C, H, W) -> (N, 1, 1, 1)."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1))


def unit(g: Tensor) -> Tensor:
    """g / ‖g‖ for each image, and 0 where the gradient is 0: (N, C, H, W) -> (N, C, H, W).

    Divided by its largest number first: the squares of small ones would be 0 in float32, and the length with them.
    """
    largest = g.flatten(1).abs().amax(dim=1).reshape(-1, *[1] * (g.ndim - 1))           # (N, 1, 1, 1)
    g = g / largest.masked_fill(largest == 0, 1)
    length = lengths(g)                                                                 # 1 or more, or 0
    return g / length.masked_fill(length == 0, 1)
