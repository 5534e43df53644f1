"""What lessons use besides functions and layers: in-place methods, distributions, Functions, hooks, init, summary …

Most of it is held against PyTorch by running the same text with both libraries.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import nn
from minidl.autograd import Function
from minidl.debug.gradcheck import gradcheck
from minidl.debug.summary import summary
from minidl.errors import GraphError, MinidlError, ModuleError, SettingError, ShapeError
from tests.helpers import f64

# -- changes in place ----------------------------------------------------------------------------------------------

IN_PLACE = [
    "x.add_(y)", "x.add_(2, alpha=3)", "x.sub_(y, alpha=0.5)", "x.mul_(y)", "x.div_(3)", "x.pow_(2)", "x.neg_()", "x.abs_()",
    "x.exp_()", "x.abs_().add_(1).log_()", "x.abs_().sqrt_()", "x.square_()", "x.relu_()", "x.tanh_()", "x.sigmoid_()", "x.sign_()",
    "x.round_()", "x.floor_()", "x.ceil_()", "x.clamp_(-0.5, 0.5)", "x.clamp_min_(0.1)", "x.clamp_max_(0.1)", "x.fill_(3)", "x.zero_()",
    "x.copy_(y)", "x.copy_(v)", "x.masked_fill_(m, 9)", "x.scatter_(1, i, 5.0)", "x.scatter_(1, i, y)", "x.scatter_add_(1, i, y)",
    "x.index_add_(0, i[:, 0], y)", "x.fill_diagonal_(7)", "x.addcmul_(y, y, value=2)", "x.addcdiv_(y, y * y + 1)", "x.lerp_(y, 0.3)",
    "x.remainder_(2)", "x.floor_divide_(0.3)", "x[0].fill_(1)", "x[:, 1].add_(10)", "x[m].add_(100)", "x.T.mul_(2)",
    "x.unsqueeze_(1)", "x.unsqueeze_(0).squeeze_()", "x.t_()", "x.transpose_(0, 1)", "x.data.add_(1)", "x.detach().mul_(3)",
    "x.view(-1)[::2].zero_()", "x.flatten()[0].add_(1)",
]
STATEMENTS = [
    "x += y", "x -= 1", "x *= v", "x /= 2", "x **= 2", "x //= 0.3", "x %= 0.7", "m &= x > 0", "m |= x > 0", "m ^= x > 0", "x[0] = 5",
    "x[:, 1] = v[0]", "x[m] = 0", "x[1:, ::2] = y[1:, ::2]", "x[i[:, 0], [0, 1, 2]] = v[:3]", "x[..., -1] += 1", "x[x > 0] *= 2",
    "x[range(3), [1, 0, 2]] = x.max()", "x[:, :2] *= 0.0", "x[0], x[1] = x[1].clone(), x[0].clone()", "x[m] = y[m]", "x[None, 0] = 1",
    "x[0, 1:3] = t.tensor([7.0, 8.0])", "n[n > 0] = 0", "n[0] = 2.7", "x[i] = 1",
]


def scene(library):
    rng = np.random.default_rng(3)
    arrays = {"x": rng.normal(size=(3, 4)), "y": rng.normal(size=(3, 4)), "v": rng.normal(size=4), "m": rng.random((3, 4)) > 0.5,
              "i": rng.integers(0, 3, (3, 4)), "n": rng.integers(-3, 4, (3, 4))}
    return {"t": library, **{name: library.tensor(array) for name, array in arrays.items()}}


@pytest.mark.torch
@pytest.mark.parametrize("text", IN_PLACE + STATEMENTS)
def test_changes_in_place_equal_pytorchs(text, torch):
    mine, theirs = scene(minidl), scene(torch)
    exec(text, mine), exec(text, theirs)
    for name in ("x", "y", "v", "m", "i", "n"):
        assert mine[name].shape == tuple(theirs[name].shape)
        np.testing.assert_allclose(mine[name].numpy(), theirs[name].numpy(), rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("text", [text for text in IN_PLACE if text.startswith("x.") and "data" not in text and "[" not in text
                                  and "detach" not in text and "view" not in text and ".T" not in text])
def test_a_method_with_an_underscore_returns_the_tensor_itself(text):
    mine = scene(minidl)
    assert eval(text, mine) is mine["x"]


def test_a_leaf_keeps_its_shape_and_a_result_may_change_it():
    x = f64([[1.0, 2.0]])
    with pytest.raises(GraphError, match=r"unsqueeze_: got a leaf that requires grad"):
        x.unsqueeze_(0)
    y = (x * 2).t_()
    y.sum().backward()
    assert y.shape == (2, 1)
    assert x.grad.tolist() == [[2, 2]]
    assert y.detach_().is_leaf
    assert not y.requires_grad


# -- making tensors ------------------------------------------------------------------------------------------------

@pytest.mark.torch
@pytest.mark.parametrize("text", [
    "t.zeros(2, 3)", "t.ones((2,), dtype=t.int64)", "t.full((2, 2), 7)", "t.full((2,), 0.5)", "t.empty(2, 0)", "t.arange(5)",
    "t.arange(1, 2, 0.25)", "t.arange(5.0)", "t.linspace(0, 1, 5)", "t.logspace(0, 2, 3)", "t.eye(2, 3)", "t.zeros_like(x, dtype=t.int64)",
    "t.ones_like(x)", "t.full_like(n, 3)", "x.new_zeros(2, 3)", "x.new_ones((2,))", "n.new_full((2, 2), 4)", "n.new_tensor([1.5, 2])",
    "x.new_tensor([1, 2])", "t.FloatTensor([1, 2])", "t.LongTensor([[1], [2]])", "t.DoubleTensor([1])", "t.BoolTensor([1, 0])",
    "t.IntTensor([3])", "t.Tensor([1, 2])", "t.as_tensor([1.5])", "t.tensor([[True, False]])", "t.tensor(3)", "t.tensor(2.5)",
    "t.from_numpy(x.numpy())", "t.scalar_tensor(2)", "t.tensor([t.tensor(1.5), t.tensor(2.0)])", "t.tensor([1, 2.5])",
    "x.byte() * 0", "x.short()", "x.int()", "x.half()", "x.type(t.float32)", "x.type_as(n)", "x.to(t.float32)", "x.to(n)", "x.bool()",
])
def test_what_is_made_equals_pytorchs(text, torch):
    mine, theirs = eval(text, scene(minidl)), eval(text, scene(torch))
    assert mine.shape == tuple(theirs.shape)
    assert str(mine.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6)


def test_uninitialised_tensors_have_the_shape_asked_for():
    assert minidl.Tensor(3, 4).shape == (3, 4)
    assert minidl.FloatTensor(2, 3).shape == (2, 3)
    assert minidl.Tensor(minidl.zeros(2, 5).shape).shape == (2, 5)
    assert minidl.empty_like(minidl.ones(2, 3, dtype=minidl.int64)).dtype == minidl.int64
    assert minidl.Size([2, 3]).numel() == 6
    assert minidl.ones(2, 3, 4).shape[1:].numel() == 12
    assert minidl.ones(2, 3).t().stride() == (1, 3)


def test_random_draws_have_the_distribution_they_name():
    n = 40_000
    draws = {
        "normal_": (minidl.empty(n).normal_(2, 3), 2, 3), "uniform_": (minidl.empty(n).uniform_(-1, 3), 1, 4 / math.sqrt(12)),
        "bernoulli_": (minidl.empty(n).bernoulli_(0.3), 0.3, math.sqrt(0.21)), "rand": (minidl.rand(n), 0.5, 1 / math.sqrt(12)),
        "random_": (minidl.empty(n).random_(0, 5), 2, math.sqrt(2)), "randint": (minidl.randint(5, (n,)).double(), 2, math.sqrt(2)),
        "bernoulli": (minidl.bernoulli(minidl.full((n,), 0.25)), 0.25, math.sqrt(3 / 16)),
        "normal": (minidl.normal(minidl.full((n,), 1.0), 0.5), 1, 0.5), "randn_like": (minidl.randn_like(minidl.ones(n)), 0, 1),
        "randint_like": (minidl.randint_like(minidl.ones(n), 2, 4), 2.5, 0.5), "normal with a size": (minidl.normal(0.0, 2.0, (n,)), 0, 2),
    }
    for name, (x, mean, std) in draws.items():
        assert x.shape == (n,), name
        assert abs(x.double().mean().item() - mean) < 5 * std / math.sqrt(n), name
        assert abs(x.double().std().item() - std) < 0.02 * max(std, 0.1) + 0.01, name
    picked = minidl.tensor([0.1, 0.0, 0.6, 0.3]).multinomial(n, replacement=True)
    np.testing.assert_allclose(np.bincount(picked.numpy(), minlength=4) / n, [0.1, 0, 0.6, 0.3], atol=0.02)
    assert sorted(minidl.ones(2, 5).multinomial(5)[1].tolist()) == [0, 1, 2, 3, 4]


def test_one_seed_gives_one_stream_and_its_place_can_be_kept():
    minidl.manual_seed(5)
    first, place = minidl.randn(3), minidl.get_rng_state()
    second = minidl.empty(3).uniform_()
    minidl.set_rng_state(place)
    assert minidl.empty(3).uniform_().equal(second)
    minidl.cuda.manual_seed_all(5)
    assert minidl.randn(3).equal(first)
    assert minidl.seed() == minidl.initial_seed()


# -- NumPy and matplotlib --------------------------------------------------------------------------------------------

def test_numpy_functions_take_tensors():
    x = minidl.tensor([[1.0, 4.0], [9.0, 16.0]])
    assert isinstance(np.sqrt(x), minidl.Tensor)
    assert np.sqrt(x).tolist() == [[1, 2], [3, 4]]
    assert float(np.mean(x)) == 7.5
    assert np.max(x, axis=1).values.tolist() == [4, 16]
    assert np.array(x).sum() == 30
    assert np.concatenate([x, x]).shape == (4, 2)
    assert (np.ones(2) * x).tolist() == [[1, 4], [9, 16]]
    assert isinstance(np.ones(2) + x, minidl.Tensor)
    with pytest.raises(GraphError, match=r"use x\.detach\(\)\.numpy\(\)"):
        np.sqrt(x.requires_grad_())


def test_matplotlib_draws_tensors():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    (line,) = axes.plot(minidl.linspace(0, 1, 5), minidl.arange(5) ** 2)
    image = axes.imshow(minidl.rand(4, 4))
    axes.scatter(minidl.rand(3), minidl.rand(3), c=minidl.tensor([0, 1, 2]))
    axes.hist(minidl.randn(10))
    assert list(line.get_ydata()) == [0, 1, 4, 9, 16]
    assert image.get_array().shape == (4, 4)
    plt.close(figure)


# -- distributions -------------------------------------------------------------------------------------------------

DISTRIBUTIONS = [
    "Normal(x, y.abs() + 0.1)", "Normal(0.0, 2.0)", "Uniform(x - 9, x + 9)", "Bernoulli(x.sigmoid())", "Bernoulli(logits=x)",
    "Categorical(y.abs())", "Categorical(logits=y)", "Categorical(logits=v)",
]


@pytest.mark.torch
@pytest.mark.parametrize("text", DISTRIBUTIONS)
def test_distributions_equal_pytorchs(text, torch):
    import torch.distributions as theirs

    def use(module, library, value):
        names = {name: value.requires_grad_() if value.is_floating_point() else value
                 for name, value in scene(library).items() if name in ("x", "y", "v")}
        d = eval(text, {"Normal": module.Normal, "Uniform": module.Uniform, "Bernoulli": module.Bernoulli,
                        "Categorical": module.Categorical, **names})
        results = [d.log_prob(value), d.entropy()]
        if not text.startswith("Categorical"):
            results += [d.mean, d.variance, d.stddev]
        total = sum((r * (k + 1)).sum() for k, r in enumerate(results))
        if total.requires_grad:
            total.backward()
        return results, names

    shape = {"Normal(0.0": (), "Categorical(logits=v": ()}.get(text.split(",")[0].removesuffix(")"),
                                                               (3,) if "Categ" in text else (3, 4))
    kind = "Categorical" in text or "Bernoulli" in text
    value = np.random.default_rng(1).integers(0, 2, shape) if kind else np.random.default_rng(1).normal(size=shape)
    mine, my_names = use(minidl.distributions, minidl, minidl.tensor(value))
    other, their_names = use(theirs, torch, torch.tensor(value).to(torch.float64) if "Bernoulli" in text else torch.tensor(value))
    for a, b in zip(mine, other, strict=True):
        assert a.shape == tuple(b.shape)
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-6 if "0.0" in text else 1e-9)
    for name, x in my_names.items():
        if x.grad is not None or their_names[name].grad is not None:
            np.testing.assert_allclose(x.grad.numpy(), their_names[name].grad.numpy(), rtol=1e-8, atol=1e-12, err_msg=name)


@pytest.mark.torch
@pytest.mark.parametrize(("p", "q"), [("Normal(x, y.abs() + 0.1)", "Normal(y, x.abs() + 0.2)"),
                                      ("Bernoulli(logits=x)", "Bernoulli(logits=y)"),
                                      ("Categorical(logits=x)", "Categorical(logits=y)")])
def test_divergences_equal_pytorchs(p, q, torch):
    import torch.distributions as theirs

    results = []
    for module, library in ((minidl.distributions, minidl), (theirs, torch)):
        names = {**vars(module), **scene(library)}
        results.append(module.kl_divergence(eval(p, names), eval(q, names)).numpy())
    np.testing.assert_allclose(*results, rtol=1e-9)


def test_samples_follow_their_distribution_and_their_gradient():
    from minidl.distributions import Bernoulli, Categorical, Normal, Uniform

    n = 40_000
    assert abs(Normal(minidl.tensor([1.0, -1.0]), 2.0).sample((n,)).mean(0).numpy() - [1, -1]).max() < 0.06
    assert abs(Uniform(2.0, 4.0).sample((n,)).mean().item() - 3) < 0.02
    assert abs(Bernoulli(0.2).sample((n,)).mean().item() - 0.2) < 0.01
    draws = Categorical(minidl.tensor([[1.0, 3.0], [0.0, 1.0]])).sample((n,))
    assert draws.shape == (n, 2)
    np.testing.assert_allclose(draws.double().mean(0).numpy(), [0.75, 1.0], atol=0.01)
    assert Categorical(minidl.ones(3)).sample().shape == ()
    loc, scale = f64(1.0), f64(2.0)
    y = Normal(loc, scale).rsample((5,))
    y.sum().backward()
    assert loc.grad.item() == 5
    assert abs(scale.grad.item() - ((y - 1) / 2).sum().item()) < 1e-12
    assert not Normal(loc, scale).sample().requires_grad


@pytest.mark.parametrize(("make", "message"), [
    (lambda d: d.Normal(0.0, -1.0), "expected more than 0"), (lambda d: d.Uniform(1.0, 1.0), "low that is not below high"),
    (lambda d: d.Bernoulli(1.5), "outside of 0 to 1"), (lambda d: d.Categorical(), "either probs or logits"),
    (lambda d: d.Categorical(minidl.tensor([1.0, -1.0])), "negative or all 0"), (lambda d: d.Categorical(2.0), "one number"),
    (lambda d: d.Categorical(minidl.ones(2)).rsample(), "no draws with a gradient"),
    (lambda d: d.kl_divergence(d.Normal(0.0, 1.0), d.Bernoulli(0.5)), "expected two of the same"),
])
def test_distributions_refuse_what_makes_no_sense(make, message):
    with pytest.raises(MinidlError, match=message):
        make(minidl.distributions)


# -- Functions in PyTorch's style --------------------------------------------------------------------------------------

class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


class ExpBySavedOutput(Function):
    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y


class ScaledProduct(Function):
    """The newer style, two tensors, a constant, and a gradient that is only made where it is needed."""

    @staticmethod
    def forward(a, b, factor):
        return a * b * factor

    @staticmethod
    def setup_context(ctx, inputs, output):
        a, b, ctx.factor = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return (g * b * ctx.factor if ctx.needs_input_grad[0] else None,
                g * a * ctx.factor if ctx.needs_input_grad[1] else None, None)


def test_functions_have_gradients_of_both_orders():
    x, y = f64([0.5, -1.5]), f64([2.0, 3.0])
    assert gradcheck(Cube.apply, x, order=2)
    assert gradcheck(ExpBySavedOutput.apply, x, order=2)
    assert gradcheck(lambda a, b: ScaledProduct.apply(a, b, 2.0), (x, y), order=2)
    ScaledProduct.apply(x, y.detach(), 2.0).sum().backward()
    assert x.grad.tolist() == [4, 6]
    assert "Cube" in repr(Cube.apply(x))


def test_what_is_saved_besides_inputs_and_output_has_one_derivative():
    class Halfway(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x * 2)
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0]

    x = f64(3.0)
    (g,) = minidl.autograd.grad(Halfway.apply(x), x, create_graph=True)
    assert g.item() == 6
    with pytest.raises(GraphError, match="once"):
        minidl.autograd.grad(g, x)


class WithDefault(Function):
    """As the tutorials write it: a gradient for an argument that may be left out."""

    @staticmethod
    def forward(ctx, x, weight, bias=None):
        ctx.save_for_backward(x, weight, bias)
        y = x.mm(weight.t())
        return y if bias is None else y + bias.unsqueeze(0).expand_as(y)

    @staticmethod
    def backward(ctx, g):
        x, weight, bias = ctx.saved_tensors
        return g.mm(weight), g.t().mm(x), g.sum(0) if bias is not None and ctx.needs_input_grad[2] else None


def test_arguments_of_a_function_may_be_left_out(rng):
    x, w, b = (f64(rng.normal(size=shape)) for shape in ((2, 3), (4, 3), (4,)))
    assert gradcheck(WithDefault.apply, (x, w))
    assert gradcheck(WithDefault.apply, (x, w, b))
    assert (x * 2).numpy(force=True).shape == (2, 3)
    with pytest.raises(NotImplementedError, match="has no forward"):
        nn.Module()(x)


def test_a_function_says_what_is_wrong_with_it():
    class TwoOutputs(Function):
        forward = staticmethod(lambda ctx, x: (x, x))

    class TooMany(Cube):
        backward = staticmethod(lambda ctx, g: (g, g))

    class Forgetful(Cube):
        backward = staticmethod(lambda ctx, g: g * ctx.factor)

    with pytest.raises(GraphError, match="TwoOutputs: forward returned tuple, expected one tensor"):
        TwoOutputs.apply(f64(1.0))
    with pytest.raises(GraphError, match="backward returned 2 gradients, expected 1"):
        TooMany.apply(f64(1.0)).backward()
    with pytest.raises(AttributeError, match=r"the context has no 'factor'.*ctx.factor = "):
        Forgetful.apply(f64(1.0)).backward()


# -- modules -------------------------------------------------------------------------------------------------------

def test_backward_hooks_see_and_change_gradients():
    seen = []
    layer, activation = nn.Linear(2, 2).double(), nn.Identity()
    model = nn.Sequential(layer, activation)
    handle = layer.register_full_backward_hook(lambda m, gi, go: seen.append((m, gi, go)))
    model(f64([[1.0, 2.0]], requires_grad=False)).sum().backward()
    ((module, grad_input, grad_output),) = seen
    assert module is layer
    assert grad_input == (None,)
    assert grad_output[0].tolist() == [[1, 1]]
    x = f64([[1.0, 2.0]])
    activation.register_full_backward_hook(lambda m, gi, go: (gi[0] * 10,))
    model(x).sum().backward()
    np.testing.assert_allclose(seen[1][1][0].numpy(), 10 * layer.weight.detach().numpy().sum(0, keepdims=True))
    np.testing.assert_allclose(x.grad.numpy(), seen[1][1][0].numpy())
    handle.remove()
    model(x).sum().backward()
    assert len(seen) == 2


def test_dropout_keeps_the_mean_and_drops_whole_channels():
    x = minidl.ones(200, 50, 4, 4)
    y = F.dropout(x, 0.25, training=True)
    assert set(np.unique(y.numpy())) == {0, np.float32(1 / 0.75)}
    assert abs(y.mean().item() - 1) < 0.01
    of_channels = F.dropout2d(x, 0.25, training=True).numpy().reshape(200 * 50, 16)
    assert (of_channels.min(1) == of_channels.max(1)).all()
    assert abs((of_channels[:, 0] == 0).mean() - 0.25) < 0.02
    of_sequences = F.dropout1d(x[:, :, 0], 0.5, True).numpy().reshape(200 * 50, 4)
    assert (of_sequences.min(1) == of_sequences.max(1)).all()
    assert set(np.unique(of_sequences)) == {0, 2}
    layer = nn.Dropout(0.5)
    assert layer.eval()(x) is x
    assert layer.train()(x).numpy().min() == 0


class Careless(nn.Module):
    def forward(self, x):
        return F.dropout(x)


def test_dropout_without_training_inside_a_model_in_evaluation_mode_is_refused():
    model = Careless()
    assert (model(minidl.ones(1000)) == 0).any()
    with pytest.raises(ModuleError, match=r"use F\.dropout\(x, training=self\.training\)"):
        model.eval()(minidl.ones(3))
    assert (F.dropout(minidl.ones(1000)) == 0).any()


def test_running_statistics_are_the_moving_mean_and_the_unbiased_variance(rng):
    layer, batches = nn.BatchNorm1d(3, momentum=None).double(), rng.normal(size=(4, 5, 3))
    for batch in batches:
        layer(minidl.tensor(batch))
    np.testing.assert_allclose(layer.running_mean.numpy(), batches.mean(1).mean(0))
    np.testing.assert_allclose(layer.running_var.numpy(), batches.var(1, ddof=1).mean(0))
    assert layer.num_batches_tracked.item() == 4
    layer.reset_running_stats()
    assert layer.running_var.tolist() == [1, 1, 1]
    with pytest.raises(ShapeError, match=r"one value per channel.*model.eval\(\)"):
        layer(minidl.ones(1, 3).double())


def test_embedding_rows_add_up_and_the_padding_row_stays():
    layer = nn.Embedding(4, 2, padding_idx=0)
    layer(minidl.tensor([[0, 1, 1], [3, 0, 1]])).sum().backward()
    assert layer.weight.grad.tolist() == [[0, 0], [3, 3], [0, 0], [1, 1]]
    frozen = nn.Embedding.from_pretrained(minidl.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert frozen(minidl.tensor([1])).tolist() == [[3, 4]]
    assert not frozen.weight.requires_grad


def test_lists_of_parameters_and_modules():
    class Polynomial(nn.Module):
        def __init__(self):
            super().__init__()
            self.factors = nn.ParameterList([minidl.ones(1) * k for k in range(3)])

    model = Polynomial()
    model.factors.append(nn.Parameter(minidl.ones(1)))
    assert [name for name, _ in model.named_parameters()] == [f"factors.{k}" for k in range(4)]
    assert [p.item() for p in model.factors] == [0, 1, 2, 1]
    assert len(model.factors) == 4
    assert model.factors[2].item() == 2
    layers = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert [type(m).__name__ for m in layers[:2]] == ["Linear", "ReLU"]
    assert layers[-1] is layers[2]
    twin = copy.deepcopy(layers)
    twin[0].weight.data.zero_()
    assert layers[0].weight.abs().sum().item() > 0


@pytest.mark.torch
@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_clipping_equals_pytorchs(norm_type, torch, rng):
    gradients = [rng.normal(size=(3, 2)), rng.normal(size=4)]
    totals, results = [], []
    for library, utils in ((minidl, nn.utils), (torch, torch.nn.utils)):
        parameters = [library.zeros(g.shape).double().requires_grad_() for g in gradients]
        for p, g in zip(parameters, gradients, strict=True):
            p.grad = library.tensor(g)
        totals.append(utils.clip_grad_norm_(parameters, 1.5, norm_type).item())
        utils.clip_grad_value_(parameters, 0.3)
        results.append([p.grad.numpy() for p in parameters])
    assert totals[0] == pytest.approx(totals[1], rel=1e-12)
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    vector = nn.utils.parameters_to_vector(parameters := [f64([[1.0, 2.0]]), f64([3.0])])
    nn.utils.vector_to_parameters(vector * 2, parameters)
    assert [p.tolist() for p in parameters] == [[[2, 4]], [6]]
    with pytest.raises(ShapeError, match="as many numbers as the parameters have"):
        nn.utils.vector_to_parameters(vector[:2], parameters)


def test_clipping_gradients_that_are_not_finite_is_refused():
    p = f64([1.0])
    p.grad = minidl.tensor([math.nan]).double()
    with pytest.raises(SettingError, match="gradients of length nan"):
        nn.utils.clip_grad_norm_([p], 1.0)
    assert math.isnan(nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=False).item())
    assert nn.utils.clip_grad_norm_([f64([1.0])], 1.0).item() == 0


# -- how weights start ---------------------------------------------------------------------------------------------

def test_initial_weights_have_the_size_that_the_formula_says():
    w = minidl.empty(300, 200, 3, 2)
    fan_in, fan_out = 200 * 6, 300 * 6
    expected = {
        "xavier_uniform_": math.sqrt(2 / (fan_in + fan_out)), "xavier_normal_": math.sqrt(2 / (fan_in + fan_out)),
        "kaiming_normal_": math.sqrt(2 / fan_in), "kaiming_uniform_": math.sqrt(2 / fan_in), "normal_": 1.0,
        "uniform_": 1 / math.sqrt(12), "trunc_normal_": 0.8796,
    }
    for name, std in expected.items():
        assert getattr(nn.init, name)(w) is w
        assert w.std().item() == pytest.approx(std, rel=0.01), name
    nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu")
    assert w.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.01)
    nn.init.kaiming_uniform_(w, a=math.sqrt(5))
    assert w.abs().max().item() <= 1 / math.sqrt(fan_in)
    assert nn.init.trunc_normal_(w, std=2.0).abs().max().item() <= 2
    assert nn.init.constant_(w, 0.5).mean().item() == 0.5
    rows = nn.init.orthogonal_(minidl.empty(3, 5), gain=2)
    np.testing.assert_allclose((rows @ rows.T).numpy(), 4 * np.eye(3), atol=1e-5)
    np.testing.assert_array_equal(nn.init.eye_(minidl.empty(2, 3)).numpy(), np.eye(2, 3))
    images = minidl.randn(1, 4, 5, 5)
    passed = F.conv2d(images, nn.init.dirac_(minidl.empty(4, 4, 3, 3)), padding=1)
    np.testing.assert_allclose(passed.numpy(), images.numpy(), atol=1e-6)
    assert ((nn.init.sparse_(minidl.empty(10, 20), 0.3) == 0).sum(0) == 3).all()


@pytest.mark.torch
def test_gains_equal_pytorchs(torch):
    for name, param in (("linear", None), ("relu", None), ("tanh", None), ("leaky_relu", 0.2), ("leaky_relu", None), ("selu", None),
                        ("sigmoid", None)):
        assert nn.init.calculate_gain(name, param) == pytest.approx(torch.nn.init.calculate_gain(name, param), rel=1e-12)


# -- names ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("use", "message"), [
    (lambda: minidl.linspce, "minidl has no 'linspce'; the nearest is 'linspace'"),
    (lambda: minidl.compile, "there is no compiler"), (lambda: nn.LSTM, "write the cell with nn.Linear"),
    (lambda: nn.Conv3d, "Conv1d, Conv2d"), (lambda: nn.Relu, "the nearest is 'ReLU'"),
    (lambda: F.crossentropy, "the nearest is 'cross_entropy'"), (lambda: minidl.ones(1).sumsum, "Tensor has no 'sumsum'"),
    (lambda: minidl.ones(1).squeese(), "'squeeze'"), (lambda: nn.init.xavier_uniform, "use xavier_uniform_"),
    (lambda: minidl.optim.Adm, "'Adam'"), (lambda: minidl.optim.LBFGS, "minidl.optim has no 'LBFGS'"),
    (lambda: minidl.distributions.Gaussian, "minidl.distributions has no 'Gaussian'"), (lambda: minidl.linalg.norms, "'norm'"),
    (lambda: nn.Linear(1, 1).wieght, "the nearest is 'weight'"), (lambda: minidl.transforms.ToTenser, "'ToTensor'"),
    (lambda: minidl.datasets.MINST, "'MNIST'"), (lambda: minidl.data.Dataloader, "'DataLoader'"),
    (lambda: nn.utils.clip_grad_norm, "use clip_grad_norm_"), (lambda: minidl.cuda.amp, "minidl.cuda has no 'amp'"),
])
def test_a_name_that_is_not_there_is_answered_with_the_nearest(use, message):
    with pytest.raises(AttributeError, match=message.replace("(", r"\(")):
        use()


def test_hasattr_stays_a_question():
    assert not hasattr(minidl, "compile")
    assert not hasattr(minidl.ones(1), "bfloat16")
    assert hasattr(minidl, "gradcheck")


def test_switches_that_scripts_set_are_there():
    minidl.backends.cudnn.deterministic = True
    assert not minidl.cuda.is_available()
    assert minidl.device("cuda" if minidl.cuda.is_available() else "cpu").type == "cpu"
    assert not minidl.backends.mps.is_available()
    with minidl.inference_mode():
        assert not minidl.is_grad_enabled()
    assert minidl.autograd.Variable(minidl.ones(2), requires_grad=True).requires_grad


# -- summary -------------------------------------------------------------------------------------------------------

def test_summary_counts_what_the_formulas_say(capsys):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, 2),
                          nn.Flatten(), nn.Dropout(0.5), nn.Linear(2 * 16 * 16, 10))
    model[0].weight.requires_grad = False
    result = summary(model, (1, 8, 8))
    rows = {row.name: row for row in result.rows}
    assert rows["0"].output_shape == (1, 4, 8, 8)
    assert rows["0"].kernel == (3, 3)
    assert (rows["0"].parameters, rows["0"].bytes, rows["0"].multiply_adds) == (36, 144, 4 * 64 * 9)
    assert rows["3"].multiply_adds == 4 * 64 * 2 * 4
    assert rows["6"].multiply_adds == 512 * 10
    assert result.parameters == 36 + 8 + (4 * 2 * 4 + 2) + 5130
    assert result.trainable == result.parameters - 36
    assert result.bytes == 4 * result.parameters
    assert result.multiply_adds == sum(row.multiply_adds for row in result.rows)
    printed = capsys.readouterr().out
    assert f"{result.parameters:,}" in printed
    assert "36 are frozen" in printed
    assert all(module.training for module in model.modules())
    assert model[1].num_batches_tracked.item() == 0
    assert minidl.autograd.observers == []
    assert summary(model, (1, 8, 8), batch_size=3, verbose=False).multiply_adds == 3 * result.multiply_adds
    assert summary(model, (3, 1, 8, 8), verbose=False).multiply_adds == 3 * result.multiply_adds
    assert capsys.readouterr().out == ""


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.unused = nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, a, b):
        return self.first(a) @ b.mT + F.linear(a, self.first.weight) @ b.mT


def test_summary_counts_functions_and_several_inputs_and_names_what_was_not_called():
    result = summary(TwoInputs(), [(5, 3), (5, 2)], verbose=False)
    assert {row.name: row.multiply_adds for row in result.rows} == {"": 2 * 50 + 30, "first": 30}
    assert result.unused == ["unused.weight", "unused.bias"]
    with pytest.raises(ShapeError, match="expects 3 features, got 4"):
        summary(TwoInputs(), [(5, 4), (5, 2)])
    with pytest.raises(SettingError, match="either input_size or input_data"):
        summary(TwoInputs())
    table = nn.Embedding(5, 2)
    assert summary(table, input_data=minidl.tensor([[1, 2]]), verbose=False).rows[0].output_shape == (1, 2, 2)
