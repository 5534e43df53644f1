"""Losses as modules."""

from __future__ import annotations

from minidl.nn import functional as F
from minidl.nn.module import Module
from minidl.tensors import Tensor


class CrossEntropyLoss(Module):
    """The mean of -log(the softmax probability of the right class), from scores (N, C) and labels (N,)."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Scores (N, C, …) and class indices (N, …) or probabilities (N, C, …) -> a number."""
        return F.cross_entropy(input, target, reduction=self.reduction)
