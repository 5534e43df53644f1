"""Activation functions as modules."""

from __future__ import annotations

from minidl.nn.module import Module
from minidl.tensors import Tensor


class ReLU(Module):
    """max(x, 0). `inplace` is accepted and changes nothing."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        """x -> max(x, 0)."""
        return x.relu()

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return "inplace=True" if self.inplace else ""


class Tanh(Module):
    """The hyperbolic tangent: between -1 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> tanh x."""
        return x.tanh()


class Sigmoid(Module):
    """1 / (1 + e^-x): between 0 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        """x -> sigmoid x."""
        return x.sigmoid()


class Softmax(Module):
    """e^x divided by its sum along `dim`: probabilities. CrossEntropyLoss wants the scores before it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """x -> softmax x."""
        return x.softmax(self.dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}"
