"""The table in the README: where PyTorch goes on in silence, or with a warning, minidl raises. Both halves are shown.

Each case runs with both libraries: in PyTorch it must come through (else the table would be unfair), in minidl it must
raise the error whose sentence is given.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

import minidl
from minidl.errors import MinidlError

README = Path(__file__).parent.parent / "README.md"


def list_of_layers(t):
    class Net(t.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = [t.nn.Linear(2, 2)]

    assert not list(Net().parameters())


def careless_dropout(t):
    class Net(t.nn.Module):
        def forward(self, x):
            return t.nn.functional.dropout(x)

    assert (Net().eval()(t.ones(1000)) == 0).any()


def kept_value_changed_through_data(t):
    w = t.tensor([1.0], requires_grad=True)
    y = w * w
    w.data.mul_(3)
    y.sum().backward()
    assert w.grad.item() == 6                                   # wrong: w was 1 when y was computed, and 2w is 2


def infinite_gradient_clipped(t):
    p = t.zeros(2, requires_grad=True)
    p.grad = t.tensor([float("inf"), 1.0])
    t.nn.utils.clip_grad_norm_([p], 1.0)
    assert p.grad.isnan().any()


def same_parameter_twice(t):
    p = t.zeros(1, requires_grad=True)
    t.optim.SGD([p, p], lr=0.1)


def loss(name, *shapes, **settings):
    def call(t):
        getattr(t.nn.functional, name)(*(t.full(shape, -1.0) for shape in shapes), **settings)
    return call


# (row of the README's table, what is done with the library t, a part of minidl's sentence)
CASES = [
    ("layers = [nn.Linear", list_of_layers, "use self.layers = nn.ModuleList"),
    ("mse_loss", loss("mse_loss", (4, 1), (4,)), "mse_loss: got an input of shape (4, 1) and a target of shape (4,), expected "
     "one shape, because broadcasting would compare all pairs; use input.squeeze(1) or target.view_as(input)"),
    ("mse_loss", loss("l1_loss", (4, 1), (4,)), "l1_loss: got an input of shape (4, 1)"),
    ("mse_loss", loss("smooth_l1_loss", (4,), (4, 1)), "smooth_l1_loss: got an input of shape (4,)"),
    ("mse_loss", loss("huber_loss", (4, 1), (4,)), "huber_loss"), ("mse_loss", loss("kl_div", (4, 3), (3,), reduction="sum"), "kl_div"),
    ("mse_loss", loss("poisson_nll_loss", (4, 1), (4,)), "poisson_nll_loss"),
    ("mse_loss", loss("hinge_embedding_loss", (4, 1), (4,)), "hinge_embedding_loss"),
    ("mse_loss", loss("margin_ranking_loss", (4, 1), (1, 4), (4, 1)), "margin_ranking_loss"),
    ("mse_loss", loss("pairwise_distance", (4, 3), (1, 3)), "pairwise_distance"),
    ("mse_loss", loss("triplet_margin_loss", (4, 3), (1, 3), (4, 3)), "pairwise_distance"),
    ("F.dropout(x)", careless_dropout, "training=self.training"),
    ("w.data.mul_", kept_value_changed_through_data, "kept its input"),
    ("softmax(x)", lambda t: t.nn.functional.softmax(t.ones(2, 3, 4)), "got no dim for a tensor of shape (2, 3, 4)"),
    ("nll_loss", lambda t: t.nn.functional.nll_loss(t.ones(2, 3), t.tensor([0, 1])), "got 1 as a log-probability"),
    ("nll_loss", lambda t: t.nn.functional.kl_div(t.ones(2, 3) / 3, t.ones(2, 3) / 3, reduction="sum"), "as a log-probability"),
    ("with_logits", lambda t: t.nn.functional.binary_cross_entropy_with_logits(t.ones(3), t.tensor([1.0, -1.0, 1.0])),
     "got targets from -1 to 1, expected probabilities between 0 and 1"),
    ("clamp(min=1, max=0)", lambda t: t.ones(2).clamp(min=1, max=0), "got min=1 above max=0"),
    ("clip_grad_norm_", infinite_gradient_clipped, "gradients of length inf"),
    ("pooling window", lambda t: t.nn.functional.max_pool2d(t.ones(1, 1, 2, 2), 2, 2, 1, dilation=3, ceil_mode=True), "padding"),
    ("same parameter twice", same_parameter_twice, "the same parameter twice"),
    ("learning rate of 0", lambda t: t.optim.SGD([t.zeros(1, requires_grad=True)], lr=0), "got lr=0"),
]


@pytest.mark.parametrize(("row", "do", "sentence"), CASES, ids=[f"{row} {k}" for k, (row, _, _) in enumerate(CASES)])
def test_minidl_raises(row, do, sentence):
    with pytest.raises(MinidlError, match=re.escape(sentence)):
        do(minidl)


@pytest.mark.torch
@pytest.mark.parametrize(("row", "do", "sentence"), CASES, ids=[f"{row} {k}" for k, (row, _, _) in enumerate(CASES)])
def test_pytorch_goes_on(row, do, sentence, torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        do(torch)


def test_every_row_of_the_table_is_shown_here():
    table = README.read_text(encoding="utf-8").split("| what | PyTorch | minidl |")[1].split("\n\n")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    shown = {row for row, _, _ in CASES}
    assert len(rows) == len(shown)
    for key in shown:
        assert sum(key in row for row in rows) == 1, key


def test_probabilities_into_cross_entropy_give_a_warning():
    """Lessons do this, and it trains, badly: so they run, with one sentence about it."""
    scores = minidl.randn(2, 3, requires_grad=True)
    with pytest.warns(UserWarning, match="leave the softmax out"):
        minidl.nn.functional.cross_entropy(scores.softmax(1), minidl.tensor([0, 1]))
