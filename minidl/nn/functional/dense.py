"""Dense layers, tables of vectors, dropout, attention."""

from __future__ import annotations

import math
from typing import Any

from minidl import ops, recording
from minidl.backend import xp_of
from minidl.errors import LabelError, ModuleError, SettingError, ShapeError
from minidl.functions import broadcast_tensors, einsum
from minidl.graph import new_tensor
from minidl.nn.functional.checks import check_bias, check_floats, check_number, check_range, check_tensors
from minidl.rng import default_generator
from minidl.tensors import Tensor
from minidl.tensors.arithmetic import as_operand


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x wᵀ + b: x (…, I), weight (O, I), bias (O,) -> (…, O)."""
    check_tensors("linear", input, weight, bias)
    if weight.ndim != 2:
        raise ShapeError(f"got a weight of shape {weight.shape}, expected (out_features, in_features)", where="linear")
    if input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ShapeError(_wrong_features(input, weight.shape[1]), where="linear")
    check_bias(bias, weight.shape[0], "linear")
    return ops.Linear()(input, weight, bias)


def _wrong_features(x: Tensor, expected: int) -> str:
    got = x.shape[-1] if x.ndim else 0
    product = ""
    if x.node is not None and isinstance(x.node.op, ops.Reshape) and len(x.node.op.shape_of_x) == 4:
        product = " = " + "×".join(map(str, x.node.op.shape_of_x[1:]))       # "400 = 16×5×5": what was flattened
    advice = f"set in_features={got} or feed inputs of the size that the layer was made for"
    if x.ndim > 2 and got != expected and x[0].numel() == expected:
        advice = "flatten first, x.flatten(1)"
    elif x.ndim == 2 and got != expected and x.numel() == expected:
        advice = "looks like one sample without a batch: give the model x.unsqueeze(0)"
    return f"expects {expected} features, got {got}{product} (input {x.shape}); {advice}"


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[o] = x1ᵀ W[o] x2 + b[o]: (…, I), (…, J), weight (O, I, J) -> (…, O)."""
    check_tensors("bilinear", input1, input2, weight, bias)
    if weight.ndim != 3 or (input1.shape[-1:], input2.shape[-1:]) != (weight.shape[1:2], weight.shape[2:]):
        raise ShapeError(f"got {input1.shape}, {input2.shape} and a weight of shape {weight.shape}, expected (…, I), "
                         f"(…, J) and (O, I, J)", where="bilinear")
    y = einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """A row of the table for each index: input (…) of integers, weight (V, D) -> (…, D).

    The row `padding_idx` gets no gradient.
    """
    check_tensors("embedding", input, weight)
    if input.dtype.kind not in "iu":
        raise LabelError(f"got indices of {input.dtype}, expected integers; use x.long()", where="embedding")
    check_range(input, weight.shape[0], "embedding", "index", "rows of the table; check the indices or num_embeddings")
    rows = weight[input.reshape(-1)].reshape(*input.shape, *weight.shape[1:])
    if padding_idx is not None:
        is_padding = (input == padding_idx % weight.shape[0]).unsqueeze(-1)
        rows = ops.Where()(is_padding, rows.detach(), rows)
    return rows


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """labels (…) -> (…, num_classes): 1 at the label, 0 elsewhere, int64. -1 takes the largest label plus one."""
    check_tensors("one_hot", tensor)
    if tensor.dtype.kind not in "iu":
        raise LabelError(f"got labels of {tensor.dtype}, expected integers; use labels.long()", where="one_hot")
    classes = int(tensor.max().item()) + 1 if num_classes == -1 else num_classes
    check_range(tensor, classes, "one_hot")
    return (tensor.unsqueeze(-1) == new_tensor(xp_of(tensor.array).arange(classes))).long()


# -- dropout -------------------------------------------------------------------------------------------------------

def dropout(input: Tensor, p: float = 0.5, training: bool | None = None, inplace: bool = False) -> Tensor:
    """Each number becomes 0 with chance p, and the others are divided by 1 - p, so that the mean stays; in training.

    Give `training=self.training` inside a module: without it numbers are dropped always, and inside a module in
    evaluation mode that is an error. Ref: Srivastava et al. 2014, JMLR 15
    """
    check_tensors("dropout", input)
    return _dropped(input, p, training, tuple(input.shape), "dropout")


def dropout1d(input: Tensor, p: float = 0.5, training: bool | None = None, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, L)."""
    return _dropped_channels(input, p, training, 3, "dropout1d")


def dropout2d(input: Tensor, p: float = 0.5, training: bool | None = None, inplace: bool = False) -> Tensor:
    """Dropout of whole channels of (N, C, H, W): neighbouring pixels tell the same, so single ones are not missed.

    Ref: Tompson et al. 2015, arXiv:1411.4280
    """
    return _dropped_channels(input, p, training, 4, "dropout2d")


def _dropped_channels(input: Tensor, p: float, training: bool | None, ndim: int, where: str) -> Tensor:
    check_tensors(where, input)
    if input.ndim != ndim:
        letters = {3: "N, C, L", 4: "N, C, H, W"}[ndim]
        raise ShapeError(f"got {tuple(input.shape)}, expected ({letters}); for features without pixels use dropout",
                         where=where)
    return _dropped(input, p, training, (*input.shape[:2], *[1] * (ndim - 2)), where)


def _dropped(x: Tensor, p: float, training: bool | None, mask_shape: tuple[int, ...], where: str) -> Tensor:
    check_number(p, "p", where, 0, 1)
    modules: Any = recording.module_stack()
    if training is None and modules and not modules[-1].training:
        raise ModuleError(f"got no training= inside {type(modules[-1]).__name__}, which is in evaluation mode, so it "
                          f"would drop numbers there too; use F.{where}(x, training=self.training)", where=where)
    if training is False or p == 0:
        return x
    check_floats(where, x)
    keeps = default_generator.numpy.random(mask_shape, dtype="float32") >= p
    scale = 1 / (1 - p) if p < 1 else 0.0
    mask = as_operand(keeps * scale).to(x.device).to(x.dtype)
    return x * mask


# -- attention -----------------------------------------------------------------------------------------------------

def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False,
                                 scale: float | None = None) -> Tensor:
    """softmax(q kᵀ / √d) v: each query's mean of the values, weighted by how well the keys match.

    query (…, L, d), key (…, S, d), value (…, S, e) -> (…, L, e). attn_mask: True where a key may be looked at, or
    numbers to add to the scores. is_causal: no key behind the query's own place.

    Ref: Vaswani et al. 2017, arXiv:1706.03762
    """
    where = "scaled_dot_product_attention"
    check_tensors(where, query, key, value, attn_mask)
    if attn_mask is not None and (is_causal or attn_mask.dtype.kind in "iu"):
        got = "is_causal beside a mask" if is_causal else f"a mask of {attn_mask.dtype}"
        raise SettingError(f"got {got}, expected one mask of booleans (or floats to add); use mask.bool()",
                           where=where)
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)       # (…, L, S)
    if is_causal:
        L, S = scores.shape[-2:]
        allowed = new_tensor(xp_of(scores.array).arange(S) <= xp_of(scores.array).arange(L)[:, None])
        scores = ops.Where()(allowed, scores, -math.inf)
    if attn_mask is not None:
        scores = ops.Where()(attn_mask, scores, -math.inf) if attn_mask.dtype.kind == "b" else scores + attn_mask
    weights = ops.Where()(scores == -math.inf, 0, scores.softmax(-1))        # also where a query may look at nothing
    return (dropout(weights, dropout_p, True) if dropout_p else weights) @ value


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Vectors along `dim` divided by their length, which counts as at least eps."""
    check_floats("normalize", input)
    return input / input.norm(p, dim, keepdim=True).clamp(min=eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 · x2 / (|x1| |x2|) along `dim`, the cosine of the angle; lengths count as at least eps."""
    check_floats("cosine_similarity", x1, x2)
    x1, x2 = broadcast_tensors(x1, x2)
    return (x1 * x2).sum(dim) / (x1.norm(2, dim).clamp(min=eps) * x2.norm(2, dim).clamp(min=eps))


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The distance of each row of x1 to the same row of x2; eps keeps the root of 0 away."""
    check_tensors("pairwise_distance", x1, x2)
    if x1.shape != x2.shape:
        raise ShapeError(f"got {x1.shape} and {x2.shape}, expected equal shapes; all pairs are minidl.cdist(x1, x2)",
                         where="pairwise_distance")
    return (x1 - x2 + eps).norm(p, -1, keepdim)

