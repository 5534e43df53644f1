"""Loss functions. `reduction` says what becomes of the samples' losses: their "mean", their "sum", or "none" of it.

A loss that compares numbers one by one takes input and target of one shape: (4, 1) against (4,) would broadcast to all
16 pairs, train towards the mean, and never say so.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, TypeAlias

import numpy as np

from minidl import dtypes, ops, uploads
from minidl.backend import backend_of, xp_of
from minidl.errors import DeviceError, DtypeError, LabelError, SettingError, ShapeError
from minidl.graph import is_tensor, new_tensor
from minidl.nn.functional.activations import softplus
from minidl.nn.functional.checks import check_floats, check_number, check_numbers
from minidl.nn.functional.dense import cosine_similarity, pairwise_distance
from minidl.tensors import Tensor

Old: TypeAlias = bool | None            # size_average and reduce: what PyTorch had before `reduction`


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The losses of the samples as one number: their "mean", their "sum", or as they are ("none")."""
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise SettingError(f'got reduction={reduction!r}, expected "mean", "sum" or "none"', where="loss")


def reduction_of(reduction: str, size_average: Old, reduce: Old) -> str:
    """The reduction that PyTorch's older arguments size_average and reduce mean, if they are given."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        return "none"
    return "sum" if size_average is False else "mean"


# -- classes -------------------------------------------------------------------------------------------------------

def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Old = None,
                  ignore_index: int = -100, reduce: Old = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """How badly the scores predict the labels: the mean of -log(the softmax probability of the right class).

    input: scores (N, C) or (N, C, …), any size of numbers, or (C,) for one sample. target: class indices (N, …) of any
    integer type, or probabilities of the shape of input. weight (C,): how much each class counts; the mean is then
    weighted too. Labels equal to ignore_index do not count. label_smoothing: this share of each target is spread over
    all classes (Szegedy et al. 2015, arXiv:1512.00567).

    Labels are checked where they can be read without waiting: on the CPU, or if they were moved from there.
    """
    reduction = reduction_of(reduction, size_average, reduce)
    _check_classification(input, target, weight, "cross_entropy")
    check_number(label_smoothing, "label_smoothing", "cross_entropy", 0, 1)
    if input.node is not None and isinstance(input.node.op, ops.Softmax):
        warnings.warn(f"cross_entropy got probabilities from the softmax at {input.node.where}, but it takes the "
                      f"scores before it and applies the softmax itself; leave the softmax out", stacklevel=2)
    if input.ndim == 1:                                                      # one sample without a batch
        losses = cross_entropy(input.unsqueeze(0), target.unsqueeze(0), weight, None, ignore_index, None, reduction,
                               label_smoothing)
        return losses.squeeze(0) if reduction == "none" else losses
    classes = input.shape[1]
    class_weight = 1.0 if weight is None else weight.reshape(-1, *[1] * (input.ndim - 2))        # (C,) -> (C, 1, …)
    if target.shape == input.shape and target.is_floating_point():
        wanted = target * (1 - label_smoothing) + label_smoothing / classes if label_smoothing else target
        return reduced(ops.CrossEntropy()(input, wanted if weight is None else wanted * class_weight), reduction)
    labels, counts = _labels(target, input, ignore_index, "cross_entropy")
    seen = uploads.on_host(target) is not None
    is_plain = reduction == "mean" and weight is None and counts is None and not label_smoothing
    if is_plain and seen and input.dtype != dtypes.float16:
        return ops.LabelCrossEntropy()(input, labels)                        # the common case, in one op
    wanted = _as_probabilities(labels, input)
    if not seen:
        # a label out of range cannot be seen here without waiting; 0/0 makes its loss nan instead of 0
        wanted = wanted / wanted.sum(1, keepdim=True)
    if label_smoothing:
        wanted = wanted * (1 - label_smoothing) + label_smoothing / classes
    if weight is not None:
        wanted = wanted * class_weight
    if counts is not None:
        wanted = wanted * counts.unsqueeze(1)
    losses = ops.CrossEntropy()(input, wanted)
    return _weighted(losses, _shares(labels, counts, weight), reduction)


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Old = None,
             ignore_index: int = -100, reduce: Old = None, reduction: str = "mean") -> Tensor:
    """-input at the right class, weighted: the cross-entropy of scores that are log-probabilities already.

    input (N, C, …), as from log_softmax; target (N, …).
    """
    reduction = reduction_of(reduction, size_average, reduce)
    _check_classification(input, target, weight, "nll_loss")
    _check_log_probabilities(input, "nll_loss", "apply log_softmax first, or use cross_entropy on the scores")
    if input.ndim == 1:                                                      # one sample without a batch
        losses = nll_loss(input.unsqueeze(0), target.unsqueeze(0), weight, None, ignore_index, None, reduction)
        return losses.squeeze(0) if reduction == "none" else losses
    labels, counts = _labels(target, input, ignore_index, "nll_loss")
    picked = -input.gather(1, labels.long().unsqueeze(1)).squeeze(1)         # (N, C, …) -> (N, …)
    if uploads.on_host(target) is None:
        # A label out of range cannot be seen here without waiting, and a GPU takes another class in its place.
        is_class = (labels >= 0) & (labels < input.shape[1])
        picked = ops.Where()(is_class, picked, math.nan)
    shares = _shares(labels, counts, weight)
    return _weighted(picked if shares is None else picked * shares, shares, reduction)


def _check_classification(scores: Tensor, target: Any, weight: Tensor | None, where: str) -> None:
    check_floats(where, scores)
    if not is_tensor(target):
        raise LabelError(f"got labels as {type(target).__name__}, expected a tensor; use minidl.tensor(labels)",
                         where=where)
    if type(target.array) is not type(scores.array):
        raise DeviceError(f'got scores on "{scores.device}" and labels on "{target.device}", expected one device; use '
                          f'labels.to("{scores.device}")', where=where)
    if scores.ndim == 0 or (scores.ndim == 1 and target.ndim != 0 and target.shape != scores.shape):
        raise ShapeError(f"got scores of shape {scores.shape}, expected (N, classes)", where=where)
    classes = scores.shape[min(1, scores.ndim - 1)]
    if weight is not None and (not is_tensor(weight) or weight.shape != (classes,)):
        got = f"shape {weight.shape}" if is_tensor(weight) else f"type {type(weight).__name__}"
        raise ShapeError(f"got class weights of {got}, expected a tensor of shape {(classes,)}", where=where)


def _check_log_probabilities(x: Tensor, where: str, fix: str) -> None:
    """Raise for scores or probabilities in place of their logarithms, where that can be seen without waiting."""
    if backend_of(x.array).is_host and x.numel() and float(x.array.max()) > 1e-4:
        raise LabelError(f"got {float(x.array.max()):.4g} as a log-probability, expected 0 or less; {fix}", where=where)


def _check_between_0_and_1(x: Tensor, where: str, what: str, fix: str) -> None:
    """Raise for what cannot be a probability, where that can be seen without waiting."""
    if backend_of(x.array).is_host and x.numel():
        low, high = float(x.array.min()), float(x.array.max())
        if not (low >= 0 and high <= 1):
            raise LabelError(f"got {what} from {low:.4g} to {high:.4g}, expected probabilities between 0 and 1; {fix}",
                             where=where)


def _labels(target: Tensor, scores: Tensor, ignore_index: int, where: str) -> tuple[Tensor, Tensor | None]:
    """The labels, 0 in place of those to ignore, and which count, (N, …) of booleans; None if all do.

    Checks that those that count are class indices.
    """
    expected = (scores.shape[0], *scores.shape[2:])
    if target.shape != expected:
        fix = "; use labels.squeeze(1)" if target.shape == (*expected[:1], 1, *expected[1:]) else ""
        if target.shape == scores.shape:                    # one-hot, and integers: probabilities are floats
            fix = f", which are floats, and got {target.dtype}; use labels.argmax(dim=1)"
        raise LabelError(f"got labels of shape {target.shape} for scores of shape {scores.shape}, expected class "
                         f"indices {expected} or probabilities {scores.shape}{fix}", where=where)
    if target.dtype.kind not in "iu":
        raise LabelError(f"got labels of {target.dtype}, expected integer class indices; use labels.long()",
                         where=where)
    labels, counts, numbers = target, None, uploads.on_host(target)
    if numbers is not None and numbers.size:
        low, high = numbers.min(), numbers.max()
        if low >= 0 and high < scores.shape[1] and not low <= ignore_index <= high:
            return labels, None                             # all are classes, and all count
    if numbers is None or (numbers == ignore_index).any():
        counts = target != ignore_index
        labels = ops.Where()(counts, target, 0)
    if numbers is not None:
        check_numbers(np.where(numbers == ignore_index, 0, numbers), scores.shape[1], where)
    return labels, counts


def _as_probabilities(labels: Tensor, scores: Tensor) -> Tensor:
    """One-hot along axis 1: (N, 1, …) == (C, 1, …) -> (N, C, …)."""
    classes = xp_of(scores.array).arange(scores.shape[1]).reshape(-1, *[1] * (scores.ndim - 2))     # (C, 1, …)
    return new_tensor((labels.array[:, None] == classes).astype(scores.dtype))      # arrays: labels have no gradient


def _shares(labels: Tensor, counts: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """How much each sample counts, (N, …); None if all count 1."""
    if weight is None:
        return counts
    of_label = weight[labels.long()]
    return of_label if counts is None else of_label * counts


def _weighted(losses: Tensor, shares: Tensor | None, reduction: str) -> Tensor:
    """The losses, in which the shares are multiplied already, reduced; a mean divides by the sum of the shares."""
    if reduction != "mean" or shares is None:
        return reduced(losses, reduction)
    total = shares.sum()
    # of no labels at all the mean is nan, as PyTorch's, but its gradient is 0 and spoils no weights
    return ops.Where()(total == 0, math.nan, losses.sum() / ops.Where()(total == 0, 1, total))


# -- numbers -------------------------------------------------------------------------------------------------------

def check_same_shape(input: Tensor, target: Tensor, where: str) -> None:
    """Raise unless both are tensors of one shape."""
    if not is_tensor(input) or not is_tensor(target):
        got = target if is_tensor(input) else input
        raise DtypeError(f"got {type(got).__name__}, expected a tensor; use minidl.tensor(x)", where=where)
    if input.shape == target.shape:
        return
    fix = ""
    if input.numel() == target.numel():
        shorter, longer = sorted(("input", "target"), key=lambda name: (input, target)[name == "target"].ndim)
        fix = f"; use {longer}.squeeze(1) or {shorter}.view_as({longer})"
    raise ShapeError(f"got an input of shape {input.shape} and a target of shape {target.shape}, expected one shape, "
                     f"because broadcasting would compare all pairs{fix}", where=where)


def mse_loss(input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None, reduction: str = "mean",
             weight: Tensor | None = None) -> Tensor:
    """The mean of (input - target)²."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "mse_loss")
    if weight is None and reduction == "mean" and input.dtype == target.dtype and input.is_floating_point():
        return ops.MeanSquaredError()(input, target)
    difference = input - target
    if weight is None:
        return reduced(difference * difference, reduction)
    check_same_shape(input, weight, "mse_loss")
    return _weighted(difference * difference * weight, weight, reduction)


def l1_loss(input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None,
            reduction: str = "mean") -> Tensor:
    """The mean of |input - target|."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "l1_loss")
    return reduced((input - target).abs(), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None,
                   reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """With d = |input - target|: d²/2β where d < β, else d - β/2. A parabola that goes on as straight lines."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "smooth_l1_loss")
    check_number(beta, "beta", "smooth_l1_loss", 0)
    d = (input - target).abs()
    return reduced(ops.Where()(d < beta, d * d * (0.5 / beta), d - 0.5 * beta) if beta else d, reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """With d = |input - target|: d²/2 where d < δ, else δ · (d - δ/2). Ref: Huber 1964."""
    check_same_shape(input, target, "huber_loss")
    check_number(delta, "delta", "huber_loss", 1e-300)
    d = (input - target).abs()
    return reduced(ops.Where()(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta)), reduction)


# -- probabilities -------------------------------------------------------------------------------------------------

def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Old = None,
                         reduce: Old = None, reduction: str = "mean") -> Tensor:
    """The mean of -(t · log p + (1 - t) · log(1 - p)), for probabilities p, as from a sigmoid."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "binary_cross_entropy")
    _check_between_0_and_1(input, "binary_cross_entropy", "an input",
                           "use a sigmoid, or binary_cross_entropy_with_logits of the scores")
    _check_between_0_and_1(target, "binary_cross_entropy", "targets", "check the labels")
    losses = ops.BCE()(input, target.to(input.dtype) if not target.is_floating_point() else target)
    return reduced(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     size_average: Old = None, reduce: Old = None, reduction: str = "mean",
                                     pos_weight: Tensor | None = None) -> Tensor:
    """The binary cross-entropy of sigmoid(z), exact for scores z of any size:  (1 - t) · z + softplus(-z).

    pos_weight w multiplies the losses where t = 1:  (1 - t) · z + (1 + (w - 1) · t) · softplus(-z).
    """
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "binary_cross_entropy_with_logits")
    _check_between_0_and_1(target, "binary_cross_entropy_with_logits", "targets", "check the labels")
    below = softplus(-input)
    if pos_weight is not None:
        below = below * (1 + (pos_weight - 1) * target)
        if below.shape != input.shape:
            raise ShapeError(f"got pos_weight of shape {pos_weight.shape}, expected one that broadcasts to "
                             f"{input.shape}", where="binary_cross_entropy_with_logits")
    losses = (1 - target) * input + below
    return reduced(losses if weight is None else losses * weight, reduction)


def kl_div(input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None, reduction: str = "mean",
           log_target: bool = False) -> Tensor:
    """t · (log t - input), for log-probabilities `input`. "batchmean" is the divergence proper: the sum / N."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "kl_div")
    _check_log_probabilities(input, "kl_div", "it takes logarithms: use log_softmax, or probabilities.log()")
    if log_target:
        losses = target.exp() * (target - input)
    else:
        is_zero = target <= 0                                                # 0 · log 0 counts as 0
        losses = ops.Where()(is_zero, 0, target * ops.Where()(is_zero, 1, target).log()) - target * input
    return losses.sum() / input.shape[0] if reduction == "batchmean" else reduced(losses, reduction)


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Tensor:
    """½ (log v + (input - target)² / v), with the variance v at least eps; full: + ½ log 2π."""
    check_same_shape(input, target, "gaussian_nll_loss")
    if is_tensor(var) and var.shape != input.shape:
        raise ShapeError(f"got variances of shape {var.shape} for {input.shape}, expected one shape; expand them",
                         where="gaussian_nll_loss")
    if is_tensor(var) and backend_of(var.array).is_host and (var.array < 0).any():
        raise SettingError("got a negative variance, expected 0 or more", where="gaussian_nll_loss")
    # clamped without changing the gradient, as in PyTorch: a variance that is too small may still grow
    bounded = var + (var.clamp(min=eps) - var).detach() if is_tensor(var) else max(var, eps)
    log_v = bounded.log() if is_tensor(bounded) else math.log(bounded)
    losses = 0.5 * (log_v + (input - target) * (input - target) / bounded)
    return reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: Old = None, eps: float = 1e-8, reduce: Old = None,
                     reduction: str = "mean") -> Tensor:
    """e^input - target · input for counts, the input being the logarithm of the rate; full: + log of target!."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "poisson_nll_loss")
    losses = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:                                                                 # log of target!, by Stirling
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        losses = losses + ops.Where()(target > 1, stirling, 0)
    return reduced(losses, reduction)


# -- similarities --------------------------------------------------------------------------------------------------

def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
                        eps: float = 1e-6, swap: bool = False, size_average: Old = None, reduce: Old = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, d(a, p) - d(a, n) + margin): the positive is to be nearer than the negative.

    Ref: Schroff et al. 2015, arXiv:1503.03832
    """
    reduction = reduction_of(reduction, size_average, reduce)
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = far.minimum(pairwise_distance(positive, negative, p, eps))
    return reduced((near - far + margin).clamp(min=0), reduction)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Old = None,
                        reduce: Old = None, reduction: str = "mean") -> Tensor:
    """max(0, -t · (x1 - x2) + margin): x1 is to be larger where t = 1, x2 where t = -1."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input1, input2, "margin_ranking_loss")
    check_same_shape(input1, target, "margin_ranking_loss")
    return reduced((-target * (input1 - input2) + margin).clamp(min=0), reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, size_average: Old = None,
                         reduce: Old = None, reduction: str = "mean") -> Tensor:
    """x where t = 1, max(0, margin - x) where t = -1."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "hinge_embedding_loss")
    return reduced(ops.Where()(target == 1, input, (margin - input).clamp(min=0)), reduction)


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Old = None,
                          reduce: Old = None, reduction: str = "mean") -> Tensor:
    """1 - cos(x1, x2) where t = 1, max(0, cos(x1, x2) - margin) where t = -1."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input1, input2, "cosine_embedding_loss")
    cosine = cosine_similarity(input1, input2)
    check_same_shape(cosine, target, "cosine_embedding_loss")
    return reduced(ops.Where()(target == 1, 1 - cosine, (cosine - margin).clamp(min=0)), reduction)


def soft_margin_loss(input: Tensor, target: Tensor, size_average: Old = None, reduce: Old = None,
                     reduction: str = "mean") -> Tensor:
    """log(1 + e^(-t · x)) for t = 1 or -1."""
    reduction = reduction_of(reduction, size_average, reduce)
    check_same_shape(input, target, "soft_margin_loss")
    return reduced(softplus(-target * input), reduction)
