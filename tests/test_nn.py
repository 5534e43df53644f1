"""Modules: how they find their parts, save their state, print, hook; and that they equal PyTorch's."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import nn, optim


def small_cnn(nn):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, padding=1), nn.Conv2d(4, 6, (2, 3), stride=2, groups=2),
        nn.Tanh(), nn.AvgPool2d((2, 1), stride=1), nn.Flatten(), nn.Linear(6, 5, bias=False), nn.Sigmoid(), nn.Linear(5, 3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 2)
        self.scale = nn.Parameter(minidl.ones(2))
        self.rest = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 1, bias=False)])
        self.register_buffer("mean", minidl.zeros(3))
        self.register_buffer("scratch", minidl.zeros(1), persistent=False)
        self.register_parameter("nothing", None)

    def forward(self, x):
        return self.rest[1](self.rest[0](self.first(x - self.mean) * self.scale))


def test_parts_are_found_in_order():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "scale", "first.weight", "first.bias", "rest.0.weight", "rest.0.bias", "rest.1.weight"]
    assert list(net.state_dict()) == ["scale", "mean", "first.weight", "first.bias", "rest.0.weight", "rest.0.bias",
                                      "rest.1.weight"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert [name for name, _ in net.named_children()] == ["first", "rest"]
    assert [name for name, _ in net.named_buffers()] == ["mean", "scratch"]
    assert net.get_submodule("rest.1") is net.rest[1]
    assert sum(p.numel() for p in net.parameters()) == 2 + 8 + 6 + 2
    assert all(isinstance(p, nn.Parameter) and p.requires_grad and p.is_leaf for p in net.parameters())
    with pytest.raises(AttributeError, match="Net has no 'lenght'"):
        _ = net.lenght


@pytest.mark.torch
def test_the_same_order_as_pytorch(torch):
    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(3, 2)
            self.scale = torch.nn.Parameter(torch.ones(2))
            self.rest = torch.nn.ModuleList([torch.nn.Linear(2, 2), torch.nn.Linear(2, 1, bias=False)])
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("scratch", torch.zeros(1), persistent=False)

    assert list(Theirs().state_dict()) == list(Net().state_dict())
    assert [n for n, _ in Theirs().named_parameters()] == [n for n, _ in Net().named_parameters()]
    assert [n for n, _ in Theirs().named_modules()] == [n for n, _ in Net().named_modules()]
    assert repr(Theirs()).replace("Theirs", "Net") == repr(Net())


@pytest.mark.torch
def test_a_cnn_equals_pytorchs_with_its_weights(torch):
    ours, theirs = small_cnn(nn), small_cnn(torch.nn)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(ours.state_dict()[k].shape == tuple(v.shape) for k, v in theirs.state_dict().items())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x, labels = np.random.default_rng(0).normal(size=(4, 1, 7, 7)).astype("f4"), [0, 2, 1, 2]
    mine = F.cross_entropy(ours(minidl.tensor(x)), minidl.tensor(labels))
    other = torch.nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(labels))
    mine.backward()
    other.backward()
    assert mine.item() == pytest.approx(other.item(), rel=1e-6)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=2e-4, atol=1e-6, err_msg=name)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})


@pytest.mark.torch
def test_modules_print_as_pytorchs(torch):
    for build in (
        lambda nn: nn.Conv2d(3, 6, 5), lambda nn: nn.Conv2d(4, 6, (3, 2), 2, 1, 2, 2, bias=False),
        lambda nn: nn.Conv2d(1, 1, 3, padding="same"), lambda nn: nn.MaxPool2d(2), lambda nn: nn.MaxPool2d((3, 2), 1, 1),
        lambda nn: nn.AvgPool2d(3, stride=2, padding=1), lambda nn: nn.Flatten(), lambda nn: nn.Linear(2, 3, bias=False),
        lambda nn: nn.ReLU(), lambda nn: nn.ReLU(inplace=True), lambda nn: nn.Softmax(dim=1), lambda nn: nn.Identity(),
        lambda nn: nn.CrossEntropyLoss(), lambda nn: nn.ModuleDict({"a": nn.Tanh()}), lambda nn: nn.Sequential(),
        lambda nn: nn.Sequential(nn.Sequential(nn.Sigmoid()), nn.Linear(1, 1)),
    ):
        assert repr(build(nn)) == repr(build(torch.nn))


@pytest.mark.torch
def test_optimizers_print_as_pytorchs_do(torch):
    mine, theirs = optim.SGD(Net().parameters(), lr=0.1), torch.optim.SGD([torch.ones(1)], lr=0.1)
    ours = repr(mine).split("\n")
    assert ours[0] == repr(theirs).split("\n")[0]
    assert set(ours) <= set(repr(theirs).split("\n"))


@pytest.mark.parametrize("build", [lambda: nn.Linear(100, 400), lambda: nn.Conv2d(4, 400, 5)])
def test_default_initialisation_is_uniform_within_one_over_root_fan_in(build):
    layer = build()
    for values in (layer.weight.detach().numpy().ravel(), layer.bias.detach().numpy()):
        bound = 0.1                                             # both have fan-in 100
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.95 * bound
        assert values.std() == pytest.approx(bound / 3 ** 0.5, rel=0.1)
    assert layer.weight.dtype == minidl.float32


@pytest.mark.torch
def test_default_initialisation_has_pytorchs_distribution(torch):
    from scipy.stats import ks_2samp

    for ours, theirs in ((nn.Linear(30, 500), torch.nn.Linear(30, 500)), (nn.Conv2d(3, 200, 3), torch.nn.Conv2d(3, 200, 3))):
        for name in ("weight", "bias"):
            a = getattr(ours, name).detach().numpy().ravel()
            b = getattr(theirs, name).detach().numpy().ravel()
            assert ks_2samp(a, b).pvalue > 1e-4


def test_the_same_seed_gives_the_same_model():
    def weights(seed):
        minidl.manual_seed(seed)
        return [p.tolist() for p in small_cnn(nn).parameters()]

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)


def test_state_goes_out_and_in():
    a, b = Net(), Net()
    result = b.load_state_dict(a.state_dict())
    assert result == ([], [])
    x = minidl.randn(2, 3)
    np.testing.assert_array_equal(a(x).detach().numpy(), b(x).detach().numpy())
    weight = b.first.weight.array
    b.load_state_dict(a.state_dict())
    assert b.first.weight.array is weight
    partial = {k: v for k, v in a.state_dict().items() if "rest" not in k}
    missing, unexpected = b.load_state_dict({**partial, "more": minidl.ones(1)}, strict=False)
    assert missing == ["rest.0.weight", "rest.0.bias", "rest.1.weight"]
    assert unexpected == ["more"]


def test_modes_and_apply():
    net, seen = Net(), []
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Linear", "Linear", "ModuleList", "Net"]
    net.requires_grad_(False)
    assert not net(minidl.ones(1, 3)).requires_grad


def test_to_moves_parameters_buffers_and_gradients():
    net = Net()
    net(minidl.ones(1, 3)).sum().backward()
    weight = net.first.weight
    net.double()
    assert net.first.weight is weight                           # an optimizer keeps knowing it
    assert {t.dtype for t in (*net.parameters(), *net.buffers())} == {np.dtype("float64")}
    assert weight.grad.dtype == np.float64
    net.to("fake")
    assert net.mean.device.type == "fake"
    loss = net(minidl.ones(1, 3, dtype=minidl.float64, device="fake")).sum()
    loss.backward()
    assert weight.grad.device.type == "fake"
    net.to("cpu").float()
    net(minidl.ones(1, 3)).sum().backward()


def test_hooks_of_modules():
    net, seen = Net(), []
    before = net.first.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    after = net.first.register_forward_hook(lambda module, args, output: output * 0)
    assert net(minidl.ones(1, 3)).tolist() == net(minidl.ones(1, 3) * 5).tolist()
    assert seen == [(1, 3), (1, 3)]
    before.remove()
    after.remove()
    net(minidl.ones(1, 3))
    assert len(seen) == 2
    with net.first.register_forward_pre_hook(lambda module, args: (args[0] * 0,)):
        zero = net.first(minidl.ones(1, 3))
    np.testing.assert_array_equal(zero.detach().numpy()[0], net.first.bias.detach().numpy())


def test_containers():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert len(net) == 3
    assert isinstance(net[-1], nn.Linear)
    assert [type(m).__name__ for m in net[:2]] == ["Linear", "ReLU"]
    assert net[:2][0] is net[0]
    net[1] = nn.Tanh()
    assert isinstance(net[1], nn.Tanh)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    named = nn.Sequential({"hidden": nn.Linear(2, 3), "out": nn.Linear(3, 1)})
    assert next(iter(named.state_dict())) == "hidden.weight"
    assert named(minidl.ones(1, 2)).shape == (1, 1)
    heads = nn.ModuleDict({"a": nn.Linear(1, 1)})
    heads["b"] = nn.Linear(1, 2)
    assert (list(heads), len(heads), "b" in heads, heads["b"].out_features) == (["a", "b"], 2, True, 2)
    layers = nn.ModuleList([nn.Linear(1, 1)])
    layers.append(nn.Linear(1, 1)).extend([nn.Linear(1, 1)])
    assert len(list(layers.parameters())) == 6


def test_names_that_would_hide_something_are_refused():
    for name in ("items", "training", "forward", "a.b", ""):
        with pytest.raises(minidl.MinidlError, match="got the name"):
            nn.ModuleDict({name: nn.Tanh()})
    net = Net()
    with pytest.raises(minidl.MinidlError, match="got a int for the submodule 'first'"):
        net.first = 5
    del net.mean
    assert "mean" not in net.state_dict()
    with pytest.raises(minidl.MinidlError, match="got int64, expected a floating type"):
        net.to(minidl.int64)
    assert net.first.weight.dtype == minidl.float32


def test_a_single_number_can_be_trained():
    w = minidl.tensor(1.0, requires_grad=True)
    for optimizer in (optim.SGD([w], momentum=0.9, weight_decay=0.1), optim.Adam([w], weight_decay=0.1)):
        for _ in range(2):
            (w * 2).backward()
            optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.step()
    assert w.array.shape == ()


def test_a_shared_parameter_counts_once():
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.weight = a.weight
    assert len(list(nn.Sequential(a, b).parameters())) == 3
    assert len(nn.Sequential(a, b).state_dict()) == 4


def test_deepcopy_of_a_model_is_independent():
    net = small_cnn(nn)
    twin = copy.deepcopy(net)
    optim.SGD(twin.parameters(), lr=1.0)
    with minidl.no_grad():
        for p in twin.parameters():
            p.zero_()
    assert all(np.abs(p.detach().numpy()).sum() > 0 for p in net.parameters())
    assert repr(twin) == repr(net)
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in twin.parameters())
    assert twin[0].register_forward_hook is not None


def test_zero_grad():
    net = Net()
    net(minidl.ones(1, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert all(np.all(p.grad.numpy() == 0) for p in net.parameters())
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_module_cannot_be_called_before_its_forward_is_written():
    class Child(nn.Module):
        pass

    with pytest.raises(minidl.MinidlError, match="Child"):
        Child()(1)


OPTIMIZERS = [
    ("SGD", {"lr": 0.05}), ("SGD", {"lr": 0.05, "momentum": 0.9}), ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01}), ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-4, "weight_decay": 0.1}),
]


@pytest.mark.torch
@pytest.mark.parametrize(("name", "settings"), OPTIMIZERS, ids=str)
def test_a_hundred_steps_equal_pytorchs(name, settings, torch):
    def train(library, array, as_numpy):
        x, target = array(np.random.default_rng(0).normal(size=(8, 3))), array(np.random.default_rng(1).normal(size=(8, 2)))
        w = array(np.random.default_rng(2).normal(size=(3, 2))).requires_grad_()
        b = array(np.zeros(2)).requires_grad_()
        optimizer = getattr(library.optim, name)([w, b], **settings)
        for _ in range(100):
            optimizer.zero_grad()
            ((x @ w + b).tanh() - target).pow(2).mean().backward()
            optimizer.step()
        return np.concatenate([as_numpy(w).ravel(), as_numpy(b)])

    ours = train(minidl, minidl.tensor, lambda t: t.detach().numpy())
    theirs = train(torch, torch.tensor, lambda t: t.detach().numpy())
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_optimizer_state_resumes_exactly():
    def step(optimizer, w):
        optimizer.zero_grad()
        ((w - 1) ** 2).sum().backward()
        optimizer.step()

    for make in (lambda w: optim.Adam([w], lr=0.1), lambda w: optim.SGD([w], lr=0.01, momentum=0.9)):
        w = minidl.zeros(3, requires_grad=True)
        optimizer = make(w)
        for _ in range(3):
            step(optimizer, w)
        twin = copy.deepcopy(w)
        resumed = make(twin)
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        step(optimizer, w)
        step(resumed, twin)
        assert w.tolist() == twin.tolist()


def test_parameter_groups_and_closures():
    a, b = minidl.ones(1, requires_grad=True), minidl.ones(1, requires_grad=True)
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0}], lr=0.5)
    loss = optimizer.step(lambda: (a + b).sum().backward() or 7)
    assert loss == 7
    assert (a.item(), b.item()) == (0.5, 0.0)
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.step()
    assert a.item() == 0.25
    unused = minidl.ones(1, requires_grad=True)
    optim.SGD([unused], lr=1.0).step()
    assert unused.item() == 1


def test_adam_moves_by_its_rate_at_first():
    """Known without any library: the first step of Adam is lr · sign(g)."""
    w = minidl.tensor([1.0, -2.0], dtype=minidl.float64, requires_grad=True)
    (w * minidl.tensor([3.0, -1e-3], dtype=minidl.float64)).sum().backward()
    optim.Adam([w], lr=0.1).step()
    np.testing.assert_allclose(w.detach().numpy(), [0.9, -1.9], rtol=1e-5)


@pytest.mark.torch
def test_cross_entropy_equals_pytorch_for_every_integer_type(torch):
    z = np.random.default_rng(0).normal(size=(5, 3, 2)).astype("f4") * 100
    labels = np.random.default_rng(1).integers(0, 3, (5, 2))
    for reduction in ("mean", "sum", "none"):
        expected = torch.nn.functional.cross_entropy(torch.tensor(z), torch.tensor(labels), reduction=reduction)
        for dtype in ("uint8", "int8", "int16", "int32", "int64"):
            ours = nn.CrossEntropyLoss(reduction=reduction)(minidl.tensor(z), minidl.tensor(labels, dtype=dtype))
            np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_masked_scores_of_minus_infinity_do_not_poison_the_loss():
    z = minidl.tensor([[0.0, -np.inf, 1.0]], requires_grad=True)
    loss = F.cross_entropy(z, minidl.tensor([2]))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(1 + np.exp(-1)), rel=1e-6)
    assert np.isfinite(z.grad.numpy()).all()
    assert z.grad.numpy()[0, 1] == 0


def test_one_hot():
    assert F.one_hot(minidl.tensor([1, 0]), 3).tolist() == [[0, 1, 0], [1, 0, 0]]
    with pytest.raises(minidl.MinidlError, match="got the label 3 at index 1"):
        F.one_hot(minidl.tensor([1, 3]), 3)
