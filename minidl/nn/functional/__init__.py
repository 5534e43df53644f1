"""Layers as functions, `import minidl.nn.functional as F`: what the modules call, with all inputs passed by hand.

`dense` · `convolution` · `pooling` · `activations` · `normalization` · `images` · `losses`
"""

from __future__ import annotations

from typing import Any

from minidl.errors import no_such_name
from minidl.nn.functional.activations import (
    celu,
    elu,
    gelu,
    glu,
    gumbel_softmax,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    rrelu,
    selu,
    sigmoid,
    silu,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    threshold,
)
from minidl.nn.functional.convolution import conv1d, conv2d, conv_transpose1d, conv_transpose2d, fold, unfold
from minidl.nn.functional.dense import (
    bilinear,
    cosine_similarity,
    dropout,
    dropout1d,
    dropout2d,
    embedding,
    linear,
    normalize,
    one_hot,
    pairwise_distance,
    scaled_dot_product_attention,
)
from minidl.nn.functional.images import interpolate, pad, pixel_shuffle, pixel_unshuffle, upsample
from minidl.nn.functional.losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cross_entropy,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    nll_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from minidl.nn.functional.normalization import batch_norm, group_norm, instance_norm, layer_norm, local_response_norm
from minidl.nn.functional.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
    max_unpool2d,
)

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d",
    "avg_pool2d", "batch_norm", "bilinear", "binary_cross_entropy", "binary_cross_entropy_with_logits", "celu",
    "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "cosine_embedding_loss", "cosine_similarity",
    "cross_entropy", "dropout", "dropout1d", "dropout2d", "elu", "embedding", "fold", "gaussian_nll_loss", "gelu",
    "glu", "group_norm", "gumbel_softmax", "hardshrink", "hardsigmoid", "hardswish", "hardtanh",
    "hinge_embedding_loss", "huber_loss", "instance_norm", "interpolate", "kl_div", "l1_loss", "layer_norm",
    "leaky_relu", "linear", "local_response_norm", "log_softmax", "logsigmoid", "margin_ranking_loss", "max_pool1d",
    "max_pool2d", "max_unpool2d", "mish", "mse_loss", "nll_loss", "normalize", "one_hot", "pad", "pairwise_distance",
    "pixel_shuffle", "pixel_unshuffle", "poisson_nll_loss", "prelu", "relu", "relu6", "rrelu",
    "scaled_dot_product_attention", "selu", "sigmoid", "silu", "smooth_l1_loss", "soft_margin_loss", "softmax",
    "softmin", "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold", "triplet_margin_loss",
    "unfold", "upsample",
]

_HINTS = {
    "conv3d": "convolutions have one or two dimensions here: conv1d, conv2d",
    "ctc_loss": "there are no losses of sequences",
    "multi_head_attention_forward": "use scaled_dot_product_attention",
    "grid_sample": "use interpolate, which makes images of another size",
    "affine_grid": "use interpolate, or the transforms",
}


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.nn.functional", name, __all__, _HINTS)
