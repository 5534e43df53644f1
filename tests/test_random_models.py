"""Models drawn at random, trained in minidl and in PyTorch: outputs, gradients and 20 Adam steps must agree.

100 models by default; `python -m pytest tests/test_random_models.py --models 2000` for more.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import minidl
from minidl import nn, optim

ACTIVATIONS = ["ReLU()", "ReLU6()", "LeakyReLU(0.1)", "PReLU()", "ELU()", "SELU()", "CELU(0.5)", "GELU()", "GELU('tanh')",
               "SiLU()", "Mish()", "Softplus()", "Softsign()", "Tanhshrink()", "Hardtanh()", "Tanh()", "Sigmoid()",
               "LogSigmoid()", "Softmax(dim=1)", "LogSoftmax(dim=1)"]


@st.composite
def models(draw):
    """(shape of the images, the layers as text, the number of classes): every layer fits the one before."""
    def one_of(*values):
        return draw(st.sampled_from(values))

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    channels, height, width = one_of(1, 2, 3, 4), draw(st.integers(4, 9)), draw(st.integers(4, 9))
    shape, layers = (channels, height, width), []
    for _ in range(draw(st.integers(1, 5))):
        kind = one_of("conv", "conv", "transposed", "pool", "norm", "upsample", "activation", "activation")
        if kind == "conv":
            groups = one_of(*(g for g in (1, 2, 4) if channels % g == 0))
            outputs = groups * draw(st.integers(1, 3))
            k, d, p = pair(1, 3), pair(1, 2), pair(0, 2)
            mode = one_of("zeros", "zeros", "reflect", "replicate", "circular")
            s = pair(1, 2)
            if mode != "zeros" and (p[0] >= height or p[1] >= width):
                continue
            size = [(n + 2 * q - e * (c - 1) - 1) // t + 1 for n, q, e, c, t in zip((height, width), p, d, k, s, strict=True)]
            if min(size) < 1:
                continue
            layers.append(f"Conv2d({channels}, {outputs}, {k}, {s}, {p}, {d}, {groups}, bias={draw(st.booleans())}, "
                          f"padding_mode={mode!r})")
            channels, (height, width) = outputs, size
        elif kind == "transposed":
            groups = one_of(*(g for g in (1, 2, 4) if channels % g == 0))
            outputs = groups * draw(st.integers(1, 2))
            k, d, s, p = pair(1, 3), pair(1, 2), pair(1, 2), pair(0, 1)
            extra = tuple(draw(st.integers(0, t - 1)) for t in s)
            size = [(n - 1) * t - 2 * q + e * (c - 1) + x + 1
                    for n, t, q, e, c, x in zip((height, width), s, p, d, k, extra, strict=True)]
            if min(size) < 1 or max(size) > 16:
                continue
            layers.append(f"ConvTranspose2d({channels}, {outputs}, {k}, {s}, {p}, {extra}, {groups}, {draw(st.booleans())}, {d})")
            channels, (height, width) = outputs, size
        elif kind == "pool":
            k = pair(1, 3)
            s, p, ceil = pair(1, 3), tuple(draw(st.integers(0, c // 2)) for c in k), draw(st.booleans())
            how = one_of("max", "average", "adaptive average", "adaptive max")
            if how.startswith("adaptive"):
                height, width = pair(1, 5)
                layers.append(f"Adaptive{'Avg' if 'average' in how else 'Max'}Pool2d(({height}, {width}))")
                continue
            size = []
            for n, c, t, q in zip((height, width), k, s, p, strict=True):
                free = n + 2 * q - c
                out = (-(-free // t) if ceil else free // t) + 1
                size.append(out - 1 if ceil and (out - 1) * t >= n + q else out)
            if min(size) < 1 or height + 2 * p[0] < k[0] or width + 2 * p[1] < k[1]:
                continue
            layers.append(f"MaxPool2d({k}, {s}, {p}, ceil_mode={ceil})" if how == "max" else
                          f"AvgPool2d({k}, {s}, {p}, {ceil}, {draw(st.booleans())})")
            height, width = size
        elif kind == "norm":
            groups = one_of(*(g for g in (1, 2, 3) if channels % g == 0))
            choice = one_of("batch", "batch", "group", "layer", "instance")
            together = {"batch": 4, "group": channels // groups, "layer": channels, "instance": 1}[choice] * height * width
            if together < 4:                                    # two numbers become 1 and -1 whatever they were: no gradient
                continue
            layers.append({"batch": f"BatchNorm2d({channels}, momentum=0.3)", "group": f"GroupNorm({groups}, {channels})",
                           "layer": f"LayerNorm(({channels}, {height}, {width}))",
                           "instance": f"InstanceNorm2d({channels}, affine=True)"}[choice])
        elif kind == "upsample":
            factor = one_of(1.5, 2, 3)
            if max(height, width) * factor > 16:
                continue
            mode = one_of("'nearest'", "'bilinear'", "'bilinear', align_corners=True")
            layers.append(f"Upsample(scale_factor={factor}, mode={mode})")
            height, width = int(height * factor), int(width * factor)
        else:
            layers.append(one_of(*ACTIVATIONS))
    classes = draw(st.integers(2, 4))
    layers += ["Flatten()", f"Linear({channels * height * width}, {classes})"]
    return shape, layers, classes, draw(st.integers(0, 2**32 - 1))


@pytest.mark.torch
def test_models_at_random(request, torch):
    @settings(max_examples=request.config.getoption("--models"), deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))
    @given(models())
    def agree(model):
        note(", ".join(model[1]))
        train_both(*model, torch)

    agree()


def train_both(shape, layers, classes, seed, torch):
    text = f"Sequential({', '.join(layers)})"
    rng = np.random.default_rng(seed)
    mine = eval(text, vars(nn) | {"__builtins__": {}}).double()
    theirs = eval(text, vars(torch.nn) | {"__builtins__": {}}).double()
    # no weight near 0: two such in a row in front of a norm, which divides by what is left, leave few digits to compare
    state = {name: rng.choice([-1, 1], tuple(x.shape)) * rng.uniform(0.2, 0.8, tuple(x.shape))
             for name, x in theirs.state_dict().items() if "running" not in name and "num_batches" not in name}
    mine.load_state_dict({name: minidl.tensor(array) for name, array in state.items()}, strict=False)
    theirs.load_state_dict({name: torch.tensor(array) for name, array in state.items()}, strict=False)
    images, labels = rng.normal(size=(4, *shape)), rng.integers(0, classes, 4)
    x, y = minidl.tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
    # eps 1e-5: a bias in front of a norm has a gradient of rounding errors alone, and with 1e-8 Adam would follow them
    my_steps = optim.Adam(mine.parameters(), lr=1e-3, eps=1e-5)
    their_steps = torch.optim.Adam(theirs.parameters(), lr=1e-3, eps=1e-5)
    for step in range(20):
        outputs, expected = mine(x), theirs(y)
        losses = nn.CrossEntropyLoss()(outputs, minidl.tensor(labels)), torch.nn.CrossEntropyLoss()(
            expected, torch.tensor(labels))
        my_steps.zero_grad(), their_steps.zero_grad()
        for loss in losses:
            loss.backward()
        if step == 0:
            same(outputs.detach(), expected.detach(), "outputs")
            same(x.grad, y.grad, "gradient of the images")
            for (name, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
                same(p.grad, q.grad, f"gradient of {name}")
        my_steps.step(), their_steps.step()
    for (name, p), q in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
        same(p, q, f"{name} after 20 steps")
    mine.eval(), theirs.eval()
    same(mine(x).detach(), theirs(y).detach(), "outputs in evaluation")


def same(mine, theirs, what):
    # a thousandth of a thousandth of the largest number: small ones may come from cancellation
    scale = max(1.0, float(theirs.abs().max()))
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-8, atol=1e-9 * scale, err_msg=what)


@pytest.mark.torch
def test_a_wrong_layer_would_be_noticed(torch, monkeypatch):
    """The comparison fails for a gradient that is off by a millionth."""
    from minidl.ops import Conv2dWeightGrad

    right = Conv2dWeightGrad.forward
    monkeypatch.setattr(Conv2dWeightGrad, "forward", lambda self, x, d: right(self, x, d) * 1.000001)
    with pytest.raises(AssertionError, match=r"gradient of 0\.weight"):
        train_both((1, 5, 5), ["Conv2d(1, 2, 3)", "Flatten()", "Linear(18, 3)"], 3, 0, torch)
