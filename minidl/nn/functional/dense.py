"""Layers as functions, `import minidl.nn.functional as F`: what the modules call, with all inputs passed by hand."""

from __future__ import annotations

from typing import Any

from minidl import ops
from minidl.backend import backend_of, xp_of
from minidl.errors import DtypeError, LabelError, MinidlError, SettingError, ShapeError
from minidl.kernels.geometry import Conv2dGeometry, IntOrPair, Pool2dGeometry
from minidl.tensors import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x wᵀ + b: x (…, I), weight (O, I), bias (O,) -> (…, O)."""
    if weight.ndim != 2:
        raise ShapeError(f"got a weight of shape {weight.shape}, expected (out_features, in_features)", where="linear")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(_wrong_features(x, weight.shape[1]), where="linear")
    _check_bias(bias, weight, "linear")
    return ops.Linear()(x, weight, bias)


def _check_bias(bias: Tensor | None, weight: Tensor, where: str) -> None:
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"got a bias of shape {bias.shape}, expected {weight.shape[:1]}: one number for each output",
                         where=where)


def _wrong_features(x: Tensor, expected: int) -> str:
    got = x.shape[-1] if x.ndim else 0
    product = ""
    if x.node is not None and isinstance(x.node.op, ops.Reshape) and len(x.node.op.shape_of_x) == 4:
        product = " = " + "×".join(map(str, x.node.op.shape_of_x[1:]))       # "400 = 16×5×5": what was flattened
    advice = f"set in_features={got} or feed inputs of the size that the layer was made for"
    if x.ndim > 2 and got != expected and x[0].numel() == expected:
        advice = "flatten first, x.flatten(1)"
    return f"expects {expected} features, got {got}{product} (input {x.shape}); {advice}"


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: IntOrPair = 1,
           padding: IntOrPair | str = 0, dilation: IntOrPair = 1, groups: int = 1) -> Tensor:
    """Convolution: x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) -> (N, O, OH, OW).

    padding: cells on each side, "same" (stride 1 only) or "valid".
    """
    geometry = _located("conv2d", Conv2dGeometry.of, x.shape, weight.shape, stride, padding, dilation, groups)
    _check_bias(bias, weight, "conv2d")
    return ops.Conv2d(geometry)(x, weight, bias)


def max_pool2d(x: Tensor, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0,
               dilation: IntOrPair = 1, ceil_mode: bool = False) -> Tensor:
    """The largest number in each window: (N, C, H, W) -> (N, C, OH, OW). The stride is the kernel size unless given."""
    geometry = _located("max_pool2d", Pool2dGeometry.of, x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    return ops.MaxPool2d(geometry)(x)


def avg_pool2d(x: Tensor, kernel_size: IntOrPair, stride: IntOrPair | None = None, padding: IntOrPair = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW). The stride is the kernel size unless given."""
    if not x.is_floating_point():
        raise DtypeError(f"got {x.dtype}, expected floats; use x.float()", where="avg_pool2d")
    geometry = _located("avg_pool2d", Pool2dGeometry.of, x.shape, kernel_size, stride, padding, 1, ceil_mode,
                        count_include_pad)
    return ops.AvgPool2d(geometry)(x)


def _located(where: str, make: Any, *args: Any) -> Any:
    """Make a geometry; its errors say which function was called."""
    try:
        return make(*args)
    except MinidlError as error:
        error.where = where
        raise


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return x.relu()


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return x.tanh()


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return x.sigmoid()


def softmax(x: Tensor, dim: int) -> Tensor:
    """e^x divided by its sum along `dim`."""
    return x.softmax(dim)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """The logarithm of softmax."""
    return x.log_softmax(dim)


def one_hot(labels: Tensor, num_classes: int = -1) -> Tensor:
    """labels (…) -> (…, num_classes): 1 at the label, 0 elsewhere, int64. -1 takes the largest label plus one."""
    if labels.dtype.kind not in "iu":
        raise LabelError(f"got labels of {labels.dtype}, expected integers; use labels.long()", where="one_hot")
    classes = int(labels.max().item()) + 1 if num_classes == -1 else num_classes
    _check_range(labels, classes, "one_hot")
    return (labels.unsqueeze(-1) == Tensor._from(range(classes)).to(labels.device)).long()


def cross_entropy(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """How badly the scores predict the labels: the mean of -log(the softmax probability of the right class).

    input: scores (N, C) or (N, C, …), any size of numbers. target: class indices (N, …) of any integer type, or
    probabilities of the shape of input. reduction: "mean", "sum" or "none".

    Labels are checked where they can be read without waiting, on the CPU.
    """
    if not isinstance(target, Tensor):
        raise LabelError(f"got labels as {type(target).__name__}, expected a tensor; use minidl.tensor(labels)",
                         where="cross_entropy")
    if input.ndim < 2:
        raise ShapeError(f"got scores of shape {input.shape}, expected (N, classes)", where="cross_entropy")
    if target.shape == input.shape and target.is_floating_point():
        wanted = target
    else:
        _check_labels(target, input)
        # one-hot along axis 1: (N, 1, …) == (C, 1, …) -> (N, C, …)
        classes = Tensor._of(xp_of(input.array).arange(input.shape[1])).reshape(-1, *[1] * (input.ndim - 2))
        wanted = (target.unsqueeze(1) == classes).to(input.dtype)
        if not backend_of(input.array).is_host:
            # a label out of range cannot be seen here without waiting; 0/0 makes its loss nan instead of 0
            wanted = wanted / wanted.sum(1, keepdim=True)
    losses = ops.CrossEntropy()(input, wanted)
    return reduced(losses, reduction)


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The losses of the samples as one number: their "mean", their "sum", or as they are ("none")."""
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise SettingError(f'got reduction={reduction!r}, expected "mean", "sum" or "none"', where="loss")


def _check_labels(target: Tensor, scores: Tensor) -> None:
    """Raise a LabelError unless these are class indices that fit the scores."""
    expected = (scores.shape[0], *scores.shape[2:])
    classes = scores.shape[1]
    if target.shape != expected:
        fix = "; use labels.squeeze(1)" if target.shape == (*expected[:1], 1, *expected[1:]) else ""
        raise LabelError(f"got labels of shape {target.shape} for scores of shape {scores.shape}, expected class "
                         f"indices {expected} or probabilities {scores.shape}{fix}", where="cross_entropy")
    if target.dtype.kind not in "iu":
        raise LabelError(f"got labels of {target.dtype}, expected integer class indices; use labels.long()",
                         where="cross_entropy")
    _check_range(target, classes, "cross_entropy")


def _check_range(labels: Tensor, classes: int, where: str) -> None:
    if not backend_of(labels.array).is_host or labels.numel() == 0:
        return
    low, high = labels.array.min(), labels.array.max()
    if low < 0 or high >= classes:
        wrong = (labels.array < 0) | (labels.array >= classes)
        first = tuple(int(i) for i in xp_of(wrong).argwhere(wrong)[0])
        place = first[0] if len(first) == 1 else first
        raise LabelError(f"got the label {int(labels.array[first])} at index {place}, expected 0 to {classes - 1} for "
                         f"{classes} classes; check the labels or the size of the last layer", where=where)
