"""Losses as modules; their formulas stand in `minidl/nn/functional/losses.py`.

`reduction` says what becomes of the samples' losses: their "mean", their "sum", or "none" of it.
"""

from __future__ import annotations

from typing import Any

from minidl.errors import SettingError
from minidl.nn import functional as F
from minidl.nn.functional.losses import Old, reduction_of
from minidl.nn.module import Module
from minidl.tensors import Tensor


class _Loss(Module):
    def __init__(self, size_average: Old = None, reduce: Old = None, reduction: str = "mean") -> None:
        super().__init__()
        reduction = reduction_of(reduction, size_average, reduce)         # the first two are PyTorch's older words
        if reduction not in ("mean", "sum", "none", "batchmean"):
            raise SettingError(f'got reduction={reduction!r}, expected "mean", "sum" or "none"',
                               where=type(self).__name__)
        self.reduction = reduction


class MSELoss(_Loss):
    """The mean of (input - target)²."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape -> a number."""
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """The mean of |input - target|."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape -> a number."""
        return F.l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """A parabola for differences below beta, straight lines beyond."""

    def __init__(self, size_average: Old = None, reduce: Old = None, reduction: str = "mean",
                 beta: float = 1.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape -> a number."""
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(_Loss):
    """A parabola for differences below delta, straight lines of that slope beyond."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape -> a number."""
        return F.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class KLDivLoss(_Loss):
    """t · (log t - input) for log-probabilities `input`; reduction "batchmean" is the divergence proper."""

    def __init__(self, size_average: Old = None, reduce: Old = None, reduction: str = "mean",
                 log_target: bool = False) -> None:
        super().__init__(size_average, reduce, reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape -> a number."""
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class PoissonNLLLoss(_Loss):
    """The loss of counts, the input being the logarithm of the rate."""

    def __init__(self, log_input: bool = True, full: bool = False, size_average: Old = None,
                 eps: float = 1e-8, reduce: Old = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.full = full
        self.eps = eps
        self.log_input = log_input

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape -> a number."""
        return F.poisson_nll_loss(input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction)


class HingeEmbeddingLoss(_Loss):
    """x where t = 1, max(0, margin - x) where t = -1."""

    def __init__(self, margin: float = 1.0, size_average: Old = None, reduce: Old = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape -> a number."""
        return F.hinge_embedding_loss(input, target, reduction=self.reduction, margin=self.margin)


class SoftMarginLoss(_Loss):
    """log(1 + e^(-t · x)) for t = 1 or -1."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Input and target of one shape -> a number."""
        return F.soft_margin_loss(input, target, reduction=self.reduction)


class GaussianNLLLoss(_Loss):
    """½ (log v + (input - target)² / v) of predictions that come with a variance."""

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.full = full
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor, var: Any) -> Tensor:
        """Means, targets and variances of one shape -> a number."""
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)


class CrossEntropyLoss(_Loss):
    """The mean of -log(the softmax probability of the right class), from scores (N, C) and labels (N,).

    weight (C,): how much each class counts. ignore_index: a label that does not count. label_smoothing: the share of
    each target that is spread over all classes.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, size_average: Old = None, ignore_index: int = -100,
                 reduce: Old = None, reduction: str = "mean", label_smoothing: float = 0.0) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Scores (N, C, …) and class indices (N, …) or probabilities (N, C, …) -> a number."""
        return F.cross_entropy(input, target, self.weight, None, self.ignore_index, None, self.reduction,
                               self.label_smoothing)


class NLLLoss(_Loss):
    """The mean of -input at the right class, from log-probabilities (N, C) and labels (N,)."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, size_average: Old = None, ignore_index: int = -100,
                 reduce: Old = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities (N, C, …) and class indices (N, …) -> a number."""
        return F.nll_loss(input, target, self.weight, None, self.ignore_index, None, self.reduction)


class BCELoss(_Loss):
    """The mean of -(t · log p + (1 - t) · log(1 - p)), for probabilities p, as from a sigmoid."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, size_average: Old = None, reduce: Old = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Probabilities and targets of one shape -> a number."""
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """BCELoss of sigmoid(x), exact for scores of any size; pos_weight multiplies the losses where t = 1."""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, size_average: Old = None, reduce: Old = None,
                 reduction: str = "mean", pos_weight: Tensor | None = None) -> None:
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Scores and targets of one shape -> a number."""
        return F.binary_cross_entropy_with_logits(input, target, self.weight, reduction=self.reduction,
                                                  pos_weight=self.pos_weight)


class TripletMarginLoss(_Loss):
    """max(0, d(anchor, positive) - d(anchor, negative) + margin)."""

    def __init__(self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
                 size_average: Old = None, reduce: Old = None, reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Three times (N, D) -> a number."""
        return F.triplet_margin_loss(anchor, positive, negative, self.margin, self.p, self.eps, self.swap,
                                     reduction=self.reduction)


class MarginRankingLoss(_Loss):
    """max(0, -t · (x1 - x2) + margin): x1 is to be larger where t = 1, x2 where t = -1."""

    def __init__(self, margin: float = 0.0, size_average: Old = None, reduce: Old = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """Three tensors of one shape -> a number."""
        return F.margin_ranking_loss(input1, input2, target, self.margin, reduction=self.reduction)


class CosineEmbeddingLoss(_Loss):
    """1 - cos(x1, x2) where t = 1, max(0, cos(x1, x2) - margin) where t = -1."""

    def __init__(self, margin: float = 0.0, size_average: Old = None, reduce: Old = None,
                 reduction: str = "mean") -> None:
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        """x1, x2 (N, D) and t (N,) -> a number."""
        return F.cosine_embedding_loss(input1, input2, target, self.margin, reduction=self.reduction)
