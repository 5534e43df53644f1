"""Lines that could be changed without any test going red, found by changing them one at a time; now each is held.

Where PyTorch has the same, the same text runs with both libraries (t is the library, F its functional).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import nn
from minidl.errors import MinidlError
from tests.helpers import assert_equals_pytorchs, f64

VALUES = [
    "t.tensor([-inf, inf, nan, 2.0]).nan_to_num()", "t.tensor([-inf, inf, nan]).nan_to_num(3.0, 1.0, -1.0)", "t.zeros(0).logsumexp(0)",
    "t.zeros(2, 0).logsumexp(1)", "t.zeros(2, 0).logsumexp(0, keepdim=True)", "F.poisson_nll_loss(x, t.tensor([[0.0, 1, 2], [3, 4, 5]]), full=True)",
    "x.index_add(0, t.tensor([1, 1]), x * x, alpha=-2)", "x.clone().index_add_(1, t.tensor([2, 0, 0]), x * x, alpha=0.5)",
    "F.batch_norm(x, t.zeros(3), t.ones(3), training=True)", "t.distributions.Categorical(probs=t.tensor([0.0, 1.0])).logits",
    "t.distributions.Categorical(probs=t.tensor([0.0, 1.0], dtype=t.float64)).logits", "t.distributions.Bernoulli(t.tensor([0.0, 1.0], dtype=t.float64)).logits",
    "t.isclose(t.tensor([nan, inf, 1.0]), t.tensor([nan, inf, 1.0]))", "t.isclose(t.tensor([nan, 1.0]), t.tensor([nan, 2.0]), equal_nan=True)",
    "t.tensor(t.allclose(x * nan, x * nan))", "t.tensor(t.allclose(x * nan, x * nan, equal_nan=True))", "x.clone().random_(3, 4)",
]
AT_THE_KINKS = ["F.hardtanh(x)", "F.relu6(x)", "F.hardtanh(x, -3, 2)", "F.hardsigmoid(x)", "x.clamp(-1, 1)"]      # gradients exactly at the ends
REFUSED = [
    ("F.linear(x, x[0])", "linear: got a weight of shape (3,), expected (out_features, in_features)"),
    ("F.linear(x, t.ones(1, 3, 3))", "linear: got a weight of shape (1, 3, 3)"), ("F.prelu([1.0], t.ones(1))", "prelu: got list, expected a tensor"),
    ("F.prelu(x, 0.2)", "prelu: got float, expected a tensor"), ("F.gelu(x, approximate='abc')", "gelu: got approximate='abc'"),
    ("F.fold(t.ones(1, 5, 4), 3, 2)", "fold: got (1, 5, 4), expected (N, a multiple of 2·2, 2·2 windows)"),
    ("F.fold(t.ones(1, 4, 5), 3, 2)", "fold: got (1, 4, 5)"), ("F.margin_ranking_loss(x, x, x[:, :1])", "and a target of shape (2, 1), expected one shape"),
    ("F.margin_ranking_loss(x, x[:, :1], x)", "margin_ranking_loss: got"), ("t.ones(2, 2, 2).trace()", "trace: got (2, 2, 2), expected a matrix"),
    ("x.narrow(1, 2, 5)", "narrow: got start=2 and length=5"), ("x.narrow(1, 0, -1)", "narrow: got start=0 and length=-1"),
    ("x.random_(3, 3)", "random_: got 3 and 3, expected the first to be smaller"), ("t.broadcast_tensors([1.0], x)", "broadcast_tensors: got list in the list"),
    ("t.nn.init.kaiming_uniform_(x, mode='fan')", "got mode='fan', expected"), ("x.__setitem__(0, 'a')", "got 'a', expected a number, a tensor or an array"),
    ("t.nn.init.trunc_normal_(x, 1.0, 2e-17, 1.0, 1.0)", "trunc_normal_: got a=1.0 and b=1.0"),      # so narrow that a draw would be 1
    ("t.nn.ConvTranspose2d(1, 1, 3, 2)(img, output_size=(11, 9))", "got output_size=(11, 9), expected 9 to 10 by 9 to 10"),
    ("t.nn.ConvTranspose2d(1, 1, 3, 2)(img, output_size=(9, 8))", "got output_size=(9, 8)"),
]


def scene(library):
    return {"t": library, "F": library.nn.functional, "nan": math.nan, "inf": math.inf, "x": library.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]]),
            "img": library.arange(16.0).reshape(1, 1, 4, 4)}


@pytest.mark.torch
@pytest.mark.parametrize("text", VALUES)
def test_values_equal_pytorchs(text, torch):
    assert_equals_pytorchs(eval(text, scene(minidl)), eval(text, scene(torch)))


@pytest.mark.torch
@pytest.mark.parametrize("text", AT_THE_KINKS)
def test_gradients_at_the_kinks_equal_pytorchs(text, torch):
    gradients = []
    for library in (minidl, torch):
        x = library.arange(-4.0, 8.0).requires_grad_()
        eval(text, {"F": library.nn.functional, "x": x}).sum().backward()
        gradients.append(x.grad.numpy())
    np.testing.assert_allclose(*gradients, rtol=1e-6)


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_nonsense_is_answered_with_a_sentence(text, sentence):
    names = scene(minidl)
    with pytest.raises(MinidlError) as caught:
        eval(text, names)
    assert sentence in str(caught.value)
    assert names["x"].equal(scene(minidl)["x"])


@pytest.mark.torch
@pytest.mark.parametrize("size", [(9, 9), (9, 10), [10, 9], (1, 1, 10, 10), (10, 9)])
def test_a_transposed_convolution_gives_the_size_asked_for(size, torch, rng):
    mine, theirs = nn.ConvTranspose2d(1, 2, 3, stride=2), torch.nn.ConvTranspose2d(1, 2, 3, stride=2)
    with torch.no_grad():
        for name, p in mine.named_parameters():
            theirs.get_parameter(name).copy_(torch.tensor(p.detach().numpy()))
    x = rng.normal(size=(1, 1, 4, 4)).astype("float32")
    y = mine(minidl.tensor(x), output_size=size)
    assert y.shape[2:] == tuple(size)[-2:]
    np.testing.assert_allclose(y.detach().numpy(), theirs(torch.tensor(x), output_size=list(size)).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_clipping_measures_the_euclidean_length_unless_told_otherwise():
    p = f64([3.0, 4.0])
    p.grad = p.detach().clone()
    assert nn.utils.clip_grad_norm_(p, 1.0).item() == 5
    assert p.grad.tolist() == pytest.approx([0.6, 0.8])


def test_buffers_of_the_module_alone_are_without_those_of_its_parts():
    model = nn.Sequential(nn.BatchNorm1d(2))
    model.register_buffer("own", minidl.ones(1))
    assert list(model.buffers(recurse=False)) == [model.own]
    assert len(list(model.buffers())) == 4


@pytest.mark.parametrize("text", [
    "Linear(2, 3)", "Conv2d(2, 3, 2)", "Conv1d(2, 3, 2)", "ConvTranspose2d(2, 3, 2)", "ConvTranspose1d(2, 3, 2)", "BatchNorm2d(2)", "LayerNorm(2)",
    "GroupNorm(1, 2)", "InstanceNorm2d(2, affine=True)", "Embedding(3, 2)", "PReLU()",
])
def test_a_layer_has_all_its_numbers_where_and_in_the_type_it_was_asked_for(text):
    layer = eval(f"nn.{text[:-1]}{', ' if text[-2] != '(' else ''}device='fake', dtype=minidl.float16)", {"nn": nn, "minidl": minidl})
    numbers = dict(layer.named_parameters()) | dict(layer.named_buffers())
    assert numbers
    assert {name: p.device.type for name, p in numbers.items()} == dict.fromkeys(numbers, "fake")
    assert {p.dtype for p in numbers.values() if p.is_floating_point()} == {minidl.float16}


def test_the_warning_about_probabilities_points_at_the_line_that_passed_them():
    with pytest.warns(UserWarning, match="leave the softmax out") as caught:
        F.cross_entropy(minidl.ones(2, 3, requires_grad=True).softmax(1), minidl.tensor([0, 1]))
    assert caught[0].filename == __file__
