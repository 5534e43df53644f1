"""ResNet50V2 written down once more, in PyTorch's functions, with minidl's names of weights: for comparison."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F


def weights_for_pytorch(model):
    """{name: tensor} of a model of minidl's."""
    return {name: torch.from_numpy(np.array(tensor.numpy())) for name, tensor in model.state_dict().items()}


def activations(w, x):
    """(name, activation), one after the other: images (N, 3, H, W) -> probabilities (N, classes) as the last."""
    def conv(name, x, **settings):
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **settings)

    def bn_relu(name, x):
        parts = [w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *parts, eps=1.001e-5))

    x = conv("conv1_conv", x, stride=2, padding=3)
    yield "conv1_conv", x
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, stride=2)
    yield "pool1_pool", x
    for stage, count in {"conv2": 3, "conv3": 4, "conv4": 6, "conv5": 3}.items():
        for i in range(1, count + 1):
            block, stride = f"{stage}_block{i}", 2 if i == count and stage != "conv5" else 1
            a = bn_relu(f"{block}_preact_bn", x)
            f = conv(f"{block}_1_conv", a)
            yield f"{block}_1_conv", f
            f = conv(f"{block}_2_conv", bn_relu(f"{block}_1_bn", f), stride=stride, padding=1)
            yield f"{block}_2_conv", f
            f = conv(f"{block}_3_conv", bn_relu(f"{block}_2_bn", f))
            yield f"{block}_3_conv", f
            x = f + (conv(f"{block}_0_conv", a) if i == 1 else x[:, :, ::stride, ::stride])
            yield f"{block}_out", x
    x = bn_relu("post_bn", x)
    yield "post_relu", x
    if "predictions.0.weight" in w:
        yield "predictions", F.linear(x.mean((2, 3)), w["predictions.0.weight"], w["predictions.0.bias"]).softmax(1)


def activation(w, x, layer):
    """That of one layer; nothing after it is computed."""
    return next(y for name, y in activations(w, x) if name == layer)
