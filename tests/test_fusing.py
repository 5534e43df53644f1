"""minidl.fuse: the same results, names and parameters, one op for a run of layers, and never a wrong number."""

from __future__ import annotations

import copy
import gc
import weakref
from contextlib import nullcontext

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import fuse, kernels, nn, optim
from minidl.errors import DtypeError, GraphError, MinidlError, ModuleError, ShapeError
from minidl.kernels import fused as fused_kernels
from minidl.kernels import threads
from minidl.models import small_cnn
from minidl.nn.fusing import Absorbed, FusedConv2d
from minidl.train import LightningModule

AFTER = {
    "relu": lambda: [nn.ReLU()],
    "max": lambda: [nn.MaxPool2d(2)],
    "avg": lambda: [nn.AvgPool2d(2)],
    "up": lambda: [nn.Upsample(scale_factor=2)],
    "relu, max": lambda: [nn.ReLU(), nn.MaxPool2d(2)],
    "relu, avg": lambda: [nn.ReLU(), nn.AvgPool2d(2)],
    "relu, up": lambda: [nn.ReLU(inplace=True), nn.Upsample(scale_factor=(2, 3))],
    "max, relu": lambda: [nn.MaxPool2d(3, 2, 1), nn.ReLU()],
    "avg, relu": lambda: [nn.AvgPool2d((3, 2), (2, 1), 1, count_include_pad=False), nn.ReLU()],
    "up, relu": lambda: [nn.UpsamplingNearest2d(scale_factor=3), nn.ReLU()],
    "max with all settings": lambda: [nn.ReLU(), nn.MaxPool2d((3, 2), (2, 1), (1, 1), (1, 2), ceil_mode=True)],
    "avg with ceil_mode": lambda: [nn.ReLU(), nn.AvgPool2d(3, 2, 1, ceil_mode=True)],
}
CONVS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided, grouped": lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), (1, 2), (1, 2), groups=2, bias=False),
    "same": lambda: nn.Conv2d(4, 6, 2, padding="same"),
}
every_run = pytest.mark.parametrize("after", AFTER)


def ops_of(model, x):
    """The names of the ops that a forward pass calls."""
    called = []

    class Watch(minidl.autograd.Observer):
        def op_called(self, op, inputs, output):
            called.append(str(op))

    watch = Watch()
    minidl.autograd.observers.append(watch)
    try:
        model(x)
    finally:
        minidl.autograd.observers.remove(watch)
    return called


def results(model, x, weights=None):
    """The output, and the gradients of the images and of all parameters."""
    x = minidl.tensor(x, requires_grad=True)
    y = model(x)
    weights = np.random.default_rng(1).normal(size=y.shape) if weights is None else weights
    parameters = list(model.parameters())
    gradients = minidl.autograd.grad(y, [x, *parameters], minidl.tensor(weights).to(y))
    return [y.detach().numpy(), *(g.numpy() for g in gradients)]


def assert_same(model, fused, x, tolerance):
    for ours, expected in zip(results(fused, x), results(model, x), strict=True):
        assert ours.dtype == expected.dtype
        scale = max(1e-30, np.abs(expected).max())
        assert np.abs(ours - expected).max() <= tolerance * scale


def images(*shape, dtype="f4"):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


# -- the same numbers --------------------------------------------------------------------------------------------------

@every_run
@pytest.mark.parametrize("conv", CONVS)
@pytest.mark.parametrize("kernel_set", kernels.ON_CPU)
@pytest.mark.parametrize(("dtype", "tolerance"), [("f4", 1e-5), ("f8", 1e-10)])
def test_output_and_gradients_are_those_of_the_layers(after, conv, kernel_set, dtype, tolerance):
    model = nn.Sequential(CONVS[conv](), *AFTER[after]()).to(np.dtype(dtype))
    fused = fuse(model)
    with minidl.use_kernels(kernel_set):
        assert_same(model, fused, images(2, 4, 7, 9, dtype=dtype), tolerance)
        assert ops_of(fused, minidl.zeros(1, 4, 7, 9).to(np.dtype(dtype))) == ["FusedConv2d"]


@pytest.mark.parametrize("conv", [
    (1, 16, 3, 1, 1), (16, 8, 3, 1, 1), (8, 4, 3, 1, 1), (4, 40, 2, 1, 0), (17, 33, 3, 1, 2), (32, 64, 3, 1, 1), (64, 32, 3, 1, 0),
    (3, 32, 5, 2, 2), (32, 16, 1, 1, 0), (16, 16, 3, (2, 1), 1), (8, 64, 3, 1, 1, 2, 4), (64, 64, 3, 1, 1, 1, 2)], ids=str)
def test_every_width_of_tiles(conv):
    """In, out, kernel, stride, padding, dilation, groups: narrow and wide tiles, turned sums, Winograd's convolution."""
    torch_like = dict(zip(["in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"], conv, strict=False))
    for after, images_in_batch in (("relu, avg", 5), ("max, relu", 4), ("relu", 3), ("up, relu", 2)):
        model, before = nn.Sequential(nn.Conv2d(**torch_like), *AFTER[after]()), threads.ran.copy()
        x = images(images_in_batch, conv[0], 10, 13)
        assert_same(model, fuse(model), x, 1e-5)
        assert (threads.ran - before)["fused_simd.weight_grad"] == 1
        assert (threads.ran - before)["fused_simd.input_grad"] == (conv[3] == 1)
        with minidl.use_kernels("reference") if images_in_batch == 5 and conv[0] * conv[1] < 200 else nullcontext():
            expected = results(model, x)
        for ours, right in zip(results(fuse(model), x), expected, strict=True):
            assert np.abs(ours - right).max() <= 1e-5 * np.abs(right).max()


@every_run
def test_gradcheck(after):
    fused = fuse(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), *AFTER[after]()).double())
    x = minidl.tensor(images(1, 2, 4, 5, dtype="f8"), requires_grad=True)
    weight, bias = fused.parameters()

    def call(x, w, b):
        vars(fused[0]).update(weight=w, bias=b)
        return fused(x)

    assert minidl.gradcheck(call, [x, weight, bias], rtol=1e-6, atol=1e-8)


@every_run
def test_on_the_strict_device(after):
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), *AFTER[after]()).double()
    expected = results(model, images(2, 2, 5, 7, dtype="f8"))
    fused = fuse(model).to("fake")
    x = minidl.tensor(images(2, 2, 5, 7, dtype="f8"), device="fake", requires_grad=True)
    y = fused(x)
    y.backward(minidl.tensor(np.random.default_rng(1).normal(size=y.shape), device="fake"))
    for ours, other in zip([y.detach(), x.grad, *(p.grad for p in fused.parameters())], expected, strict=True):
        np.testing.assert_allclose(ours.cpu().numpy(), other, rtol=1e-12, atol=1e-12)


def test_half_precision():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(3, 1)).half()
    assert_same(model, fuse(model), images(2, 2, 7, 7, dtype="f2"), 5e-3)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
def test_cells_that_the_pooling_leaves_out_get_no_gradient(pool):
    fused = fuse(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), pool))
    x = minidl.tensor(np.abs(images(1, 1, 5, 7)) + 1, requires_grad=True)
    fused[0].weight.data = minidl.ones(2, 1, 1, 1)
    fused(x).sum().backward()
    assert not x.grad[:, :, 4].any()
    assert not x.grad[:, :, :, 6].any()
    assert (x.grad[:, :, :4, :6] != 0).any()


def test_where_the_relu_gives_0_and_where_two_are_largest():
    """At z = 0 the derivative is 0, of equals the first counts: as in the layers."""
    x = images(2, 1, 6, 6, dtype="f8").round()                  # many zeros and equals
    for after in AFTER.values():
        model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), *after()).double()
        model[0].weight.data.fill_(1)
        for ours, expected in zip(results(fuse(model), x), results(model, x), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-12)          # not a cell more or less gets a gradient


def test_nan_and_inf_go_the_same_way():
    x = images(1, 1, 6, 6, dtype="f8")
    x[0, 0, 1, 1], x[0, 0, 3, 4], x[0, 0, 5, 5] = np.nan, np.inf, -np.inf
    for after in AFTER.values():
        model = nn.Sequential(nn.Conv2d(1, 2, 1), *after()).double()
        for ours, expected in zip(results(fuse(model), x), results(model, x), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-12)


LAYERS = [
    lambda rng: nn.Conv2d(4, 4, int(rng.integers(1, 4)), padding=1, groups=int(rng.choice([1, 2]))),
    lambda rng: nn.Conv2d(4, 4, 2, stride=int(rng.integers(1, 3)), padding=1, bias=False),
    lambda rng: nn.ReLU(), lambda rng: nn.ReLU(), lambda rng: nn.Tanh(), lambda rng: nn.BatchNorm2d(4),
    lambda rng: nn.MaxPool2d(2, 1, padding=1), lambda rng: nn.AvgPool2d(2, padding=1),
    lambda rng: nn.Upsample(scale_factor=int(rng.integers(1, 3))),
]


@pytest.mark.parametrize("seed", range(60))
def test_random_models(seed):
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1),
                          *(LAYERS[rng.integers(len(LAYERS))](rng) for _ in range(int(rng.integers(2, 9))))).double()
    fused = fuse(model).eval()
    model.eval()
    assert list(fused.state_dict()) == list(model.state_dict())
    assert_same(model, fused, rng.normal(size=(2, 1, 6, 7)), 1e-10)


# -- one model in two forms --------------------------------------------------------------------------------------------

def test_small_cnn():
    model = small_cnn()
    before = repr(model)
    fused = fuse(model)
    x = images(8, 1, 28, 28)
    assert_same(model, fused, x, 1e-5)
    assert ops_of(fused, minidl.tensor(x)) == ["FusedConv2d", "FusedConv2d", "Reshape", "Linear", "ReLU", "Linear"]
    assert list(fused.state_dict()) == list(model.state_dict()) == [
        f"{i}.{name}" for i in (0, 3, 7, 9) for name in ("weight", "bias")]
    assert repr(model) == before
    assert repr(fused).split("\n")[:4] == [
        "Sequential(",
        "  (0): FusedConv2d(1, 32, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1) → ReLU() → "
        "AvgPool2d(kernel_size=2, stride=2, padding=0))",
        "  (1): Absorbed(ReLU())",
        "  (2): Absorbed(AvgPool2d(kernel_size=2, stride=2, padding=0))"]


def test_training_either_trains_both():
    """Twenty steps of a fused model equal twenty of an unfused one, and the original has gone along."""
    def train(model, parameters):
        optimizer, losses = optim.Adam(parameters, lr=3e-3), []
        rng = np.random.default_rng(0)
        for _ in range(20):
            x, labels = rng.normal(size=(16, 1, 12, 12)).astype("f4"), rng.integers(0, 10, 16)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(minidl.tensor(x)), minidl.tensor(labels))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    model = small_cnn((1, 12, 12))
    alone, original = copy.deepcopy(model), copy.deepcopy(model)
    fused = fuse(original)
    np.testing.assert_allclose(train(fused, fused.parameters()), train(alone, alone.parameters()), rtol=1e-4)
    for ours, expected, first in zip(original.parameters(), alone.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(ours.tolist(), expected.tolist(), rtol=1e-4, atol=1e-4)
        assert ours.tolist() != first.tolist()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.ReLU(),
                                  nn.Conv2d(4, 4, 3, padding=1), nn.Upsample(scale_factor=2), nn.ReLU())
        self.skip = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU()
        self.path = self._added
        self.calls = []
        self.register_buffer("scale", minidl.tensor(0.5), persistent=False)

    def _added(self, x):
        self.calls.append(x.shape)
        return self.body(x) * self.scale + self.skip(x).repeat_interleave(2, 2).repeat_interleave(2, 3)

    def forward(self, x):
        return self.relu(self.path(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential({"conv": nn.Conv2d(1, 4, 3), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2)})
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.ModuleDict({"a": nn.Sequential(nn.Sequential(nn.Conv2d(4, 2, 3), nn.ReLU()), nn.Dropout())})

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head["a"](x)


def test_sequentials_at_any_depth_are_fused_and_other_modules_kept():
    model = Net().eval()
    before, parts = repr(model), set(model.modules())
    fused = fuse(model)
    assert_same(model, fused, images(2, 1, 9, 11), 1e-5)
    assert ops_of(fused, minidl.tensor(images(2, 1, 9, 11))).count("FusedConv2d") == 1 + 2 * 2 + 1
    assert repr(model) == before
    assert not parts & set(fused.modules())
    assert [name for name, _ in fused.named_modules()] == [name for name, _ in model.named_modules()]
    assert type(fused.blocks[0].skip) is nn.Conv2d
    assert type(fused.blocks[0].relu) is nn.ReLU
    assert all(mine is other for mine, other in zip(fused.parameters(), model.parameters(), strict=True))
    assert all(mine is other for mine, other in zip(fused.buffers(), model.buffers(), strict=True))
    assert [name for name, _ in fused.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert [name for name, _ in fused.named_buffers()] == [name for name, _ in model.named_buffers()]
    assert list(fused.state_dict()) == list(model.state_dict())


def test_the_copy_has_its_own_modes_lists_and_methods():
    model = Net()
    fused = fuse(model).eval()
    assert model.training
    assert model.first.conv.training
    assert not fused.first.pool.training
    fused(minidl.tensor(images(2, 1, 9, 11)))
    assert len(fused.blocks[0].calls) == 1                      # the method that path is bound to is the copy's
    assert model.blocks[0].calls == []
    fused.train()
    assert fused.first.conv.training
    model.eval()
    assert fused.blocks[0].training
    assert not any(module.training for module in fuse(model).modules())
    fused.extra = nn.Linear(1, 1)
    fused.register_forward_hook(lambda *_: None)
    assert "extra" not in vars(model)
    fuse(model)                                                 # and its own hooks


def test_batch_norm_statistics_are_shared():
    model = Net()
    fused = fuse(model)
    fused(minidl.tensor(images(2, 1, 9, 11)))
    statistics = model.blocks[0].body[1]
    assert statistics.num_batches_tracked == 1
    assert statistics.running_mean.any()


def test_states_load_into_either():
    model, other = Net(), Net()
    fused, weight = fuse(model), model.first.conv.weight
    fused.load_state_dict(other.state_dict())
    assert weight.tolist() == other.first.conv.weight.tolist()
    model.load_state_dict(fuse(Net()).state_dict())
    assert fused.first.conv.weight is weight
    assert fused.state_dict()["first.conv.weight"].array is weight.array
    assert weight.tolist() != other.first.conv.weight.tolist()


def test_to_moves_both():
    model = Net().eval()
    fused = fuse(model).double()
    assert model.first.conv.weight.dtype == np.float64
    assert fused(minidl.tensor(images(1, 1, 9, 9, dtype="f8"))).dtype == np.float64
    fused.to("fake")
    assert model.blocks[0].scale.device.type == "fake"


def test_deepcopy_is_independent():
    model = small_cnn((1, 8, 8))
    twin = copy.deepcopy(fuse(model))
    x = minidl.tensor(images(2, 1, 8, 8))
    assert ops_of(twin, x).count("FusedConv2d") == 2
    expected = twin(x).detach().numpy()
    np.testing.assert_array_equal(model(x).detach().numpy(), expected)
    model[0].weight.data.zero_()
    np.testing.assert_array_equal(twin(x).detach().numpy(), expected)
    assert (model(x).detach().numpy() != expected).any()


def test_fusing_twice_changes_nothing():
    once = fuse(small_cnn((1, 8, 8)))
    twice = fuse(once)
    assert repr(twice) == repr(once)
    assert twice[0] is not once[0]
    assert ops_of(twice, minidl.zeros(1, 1, 8, 8)).count("FusedConv2d") == 2


def test_shared_layers():
    relu, conv = nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
    block = nn.Sequential(conv, relu)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), relu, nn.MaxPool2d(2), block, conv, nn.AvgPool2d(2), relu, block, relu)
    fused = fuse(model)
    assert_same(model, fused, images(2, 1, 13, 11), 1e-5)
    assert ops_of(fused, minidl.zeros(1, 1, 13, 11)) == ["FusedConv2d"] * 4 + ["ReLU"]
    assert list(fused.state_dict()) == list(model.state_dict())
    assert len(list(fused.parameters())) == len(list(model.parameters())) == 4
    assert fused[3] is fused[7]


def test_a_lightning_module():
    class Model(LightningModule):
        def __init__(self, width):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU())

        def forward(self, x):
            return self.net(x)

    model = Model(3)
    fused = fuse(model)
    assert fused.hparams == model.hparams
    assert ops_of(fused, minidl.zeros(1, 1, 5, 5)) == ["FusedConv2d"]
    assert_same(model, fused, images(2, 1, 5, 5), 1e-5)


def test_summary_counts_the_same():
    model = small_cnn((1, 8, 8))
    ours, expected = (minidl.summary(m, (1, 8, 8), verbose=False) for m in (fuse(model), model))
    assert ours.multiply_adds == expected.multiply_adds > 0
    assert [row.output_shape for row in ours.rows] == [row.output_shape for row in expected.rows]


# -- what stays as it is -----------------------------------------------------------------------------------------------

class Doubled(nn.ReLU):
    def forward(self, input):
        return super().forward(input) * 2


class Scaled(nn.Conv2d):
    def forward(self, input):
        return super().forward(input) * 2


class Backwards(nn.Sequential):
    def forward(self, x):
        for layer in reversed(self._all()):
            x = layer(x)
        return x


def with_forward(layer):
    layer.forward = lambda x: x * 3
    return layer


def with_parameter(layer):
    layer.slope = nn.Parameter(minidl.ones(1))
    return layer


def with_computed_weight(conv):
    weight = conv.weight.detach()
    del conv.weight
    conv.weight = weight
    return conv


class Pooled(nn.Module):
    def forward(self, pair):
        return pair[0]


@pytest.mark.parametrize("build", [
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), Doubled()),
    lambda: nn.Sequential(Scaled(1, 2, 3), nn.ReLU()),
    lambda: Backwards(nn.ReLU(), nn.Conv2d(1, 2, 3)),
    lambda: Backwards(nn.Conv2d(1, 1, 3), nn.ReLU()),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2, return_indices=True), Pooled()),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2, mode="bilinear")),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=1.5)),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=0.5)),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(size=(10, 14))),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2, recompute_scale_factor=True)),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), with_forward(nn.ReLU())),
    lambda: nn.Sequential(with_forward(nn.Conv2d(1, 2, 3)), nn.ReLU()),
    lambda: with_forward(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), with_parameter(nn.ReLU())),
    lambda: nn.Sequential(with_computed_weight(nn.Conv2d(1, 2, 3)), nn.ReLU()),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.ReLU()),
    lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3)),
    lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 3), nn.ReLU()),
    lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), lambda: nn.Conv2d(1, 2, 3), lambda: nn.Sequential(),
])
def test_what_the_op_does_not_know_is_left_alone(build):
    model = build()
    fused = fuse(model)
    x = minidl.tensor(images(1, 1, 7, 9))
    assert repr(fused) == repr(model)
    assert fused is not model
    assert list(fused.state_dict()) == list(model.state_dict())
    assert "FusedConv2d" not in ops_of(fused, x)
    np.testing.assert_array_equal(fused(x).detach().numpy(), model(x).detach().numpy())


def test_one_relu_and_one_change_of_size_at_most():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.MaxPool2d(2), nn.AvgPool2d(2),
                          nn.ReLU(), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.ReLU(), nn.MaxPool2d(1), nn.ReLU())
    fused = fuse(model)
    assert ops_of(fused, minidl.zeros(1, 1, 9, 9)) == ["FusedConv2d", "ReLU", "FusedConv2d", "AvgPool2d", "ReLU",
                                                        "Conv2d", "FusedConv2d", "ReLU"]
    assert_same(model, fused, images(2, 1, 11, 12), 1e-5)


# -- a fused layer by itself -------------------------------------------------------------------------------------------

@pytest.fixture
def pair():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    return model, fuse(model), minidl.tensor(images(2, 1, 8, 8))


def test_layers_called_one_by_one_are_themselves(pair):
    model, fused, x = pair

    def one_by_one(layers, x):
        return [x := layer(x) for layer in layers]

    class Loop(nn.Module):
        def __init__(self, layers):
            super().__init__()
            self.layers = layers

        def forward(self, x):
            return one_by_one(self.layers, x)

    expected = one_by_one(model, x)
    for outputs in (one_by_one(fused, x), fuse(Loop(model))(x)):
        for output, other in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(output.detach().numpy(), other.detach().numpy())
    np.testing.assert_array_equal(fused.forward(x).detach().numpy(), model(x).detach().numpy())


def test_parts_of_a_run(pair):
    model, fused, x = pair
    for part in (slice(1), slice(2), slice(1, 3)):
        given = model[:part.start or 0](x)
        np.testing.assert_array_equal(fused[part](given).detach().numpy(), model[part](given).detach().numpy())
    assert ops_of(fused[:3], x) == ["FusedConv2d"]


def test_layers_put_in_and_replaced(pair):
    for change in (lambda m: m.insert(1, nn.Tanh()), lambda m: m.__setitem__(1, nn.Tanh()), lambda m: m.pop(1),
                   lambda m: m.insert(0, m.pop(2)), lambda m: m.append(m[2] if len(m) < 4 else nn.Tanh())):
        model, fused = (copy.deepcopy(m) for m in pair[:2])
        change(model)
        change(fused)
        np.testing.assert_array_equal(fused(pair[2]).detach().numpy(), model(pair[2]).detach().numpy())


def test_the_same_run_twice_in_one_sequential():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.AvgPool2d(2))
    fused = fuse(model)
    x = minidl.tensor(images(1, 1, 8, 8))
    twice = nn.Sequential(*fused, *fused)
    np.testing.assert_array_equal(twice(x).detach().numpy(), model(model(x)).detach().numpy())


def test_a_hook_that_comes_later_sees_its_layer(pair):
    model, fused, x = pair
    seen = []
    expected = model[1](model[0](x)).detach().numpy()
    with fused[1].register_forward_hook(lambda module, args, output: seen.append(output.detach().numpy())):
        y = fused(x)
    np.testing.assert_array_equal(seen[0], expected)
    np.testing.assert_array_equal(y.detach().numpy(), model(x).detach().numpy())
    with fused[0].register_full_backward_hook(lambda module, g_in, g_out: seen.append(g_out[0].shape)):
        fused(x).sum().backward()
    assert seen[1] == expected.shape
    assert ops_of(fused, x)[0] == "FusedConv2d"


def test_one_image_without_a_batch(pair):
    model, fused, x = pair
    np.testing.assert_array_equal(fused[:3](x[0]).detach().numpy(), model[:3](x[0]).detach().numpy())
    assert_same(model[:3], fused[:3], x[0].numpy(), 1e-5)


# -- refusals ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook"])
@pytest.mark.parametrize(("path", "named"), [("blocks.1.body.3", "got hooks on blocks.1.body.3 ReLU, expected"),
                                             ("first.conv", "got hooks on first.conv Conv2d"),
                                             ("", "got hooks on the model itself, Net")])
def test_hooks_are_refused(register, path, named):
    model = Net()
    handle = getattr(model.get_submodule(path), register)(lambda *_: None)
    with pytest.raises(ModuleError, match=named):
        fuse(model)
    handle.remove()
    fuse(model)


def test_parametrizations_are_refused():
    model = Net()
    model.first.conv.add_module("parametrizations", nn.ModuleDict())
    with pytest.raises(ModuleError, match=r"fuse: got parametrizations on first.conv Conv2d\(1→4\), expected"):
        fuse(model)


def test_other_things_are_refused():
    with pytest.raises(DtypeError, match="fuse: got function, expected a module"):
        fuse(images)
    model = nn.Sequential(nn.ReLU())
    model.layers = []
    model.layers.append(nn.ReLU())
    with pytest.raises(ModuleError, match="plain list"):
        fuse(model)


def test_a_second_derivative_is_refused():
    fused = fuse(small_cnn((1, 8, 8)))
    x = minidl.tensor(images(1, 1, 8, 8), requires_grad=True)
    (g,) = minidl.autograd.grad(fused(x).sum(), x, create_graph=True)
    assert np.isfinite(g.detach().numpy()).all()
    with pytest.raises(GraphError, match=r"FusedConv2d can be differentiated only once.*use the unfused layers"):
        (g * g).sum().backward()


@pytest.mark.parametrize(("x", "error", "sentence"), [
    (minidl.zeros(1, 2, 8, 8), ShapeError, r"0 FusedConv2d\(1→3\): got \(1, 2, 8, 8\), expected \(N, 1, H, W\)"),
    (minidl.zeros(1, 1, 2, 9), ShapeError, r"0 FusedConv2d\(1→3\): kernel 3×3 is larger than the 2×9 input"),
    (minidl.zeros(1, 1, 3, 9), ShapeError, r"0 FusedConv2d\(1→3\): kernel 2×2 is larger than the 1×7 input"),
    (minidl.zeros(1, 1, 8, 8).long(), DtypeError, r"0 FusedConv2d\(1→3\): got int64 for x and float32 for w"),
    (np.zeros((1, 1, 8, 8), "f4"), DtypeError, "got ndarray, expected a tensor"),
    (minidl.zeros(8, 8), ShapeError, r"got \(8, 8\), expected \(N, 1, H, W\)"),
])
def test_errors_name_the_layer(pair, x, error, sentence):
    with pytest.raises(error, match=sentence):
        pair[1](x)


# -- what backward computes and holds ----------------------------------------------------------------------------------

@pytest.fixture
def computed(monkeypatch):
    """Weak references to every G that was computed as a whole."""
    seen, original = [], fused_kernels.gradient_of_z

    def watched(*args):
        result = original(*args)
        seen.append(weakref.ref(result))
        return result

    monkeypatch.setattr(fused_kernels, "gradient_of_z", watched)
    return seen


@pytest.mark.parametrize("channels", [(1, 3), (32, 64)])
def test_the_gradient_at_the_convolution_is_never_there_as_a_whole(computed, channels):
    fused = fuse(nn.Sequential(nn.Conv2d(*channels, 3), nn.ReLU(), nn.AvgPool2d(2)))
    x, before = minidl.tensor(images(4, channels[0], 8, 8), requires_grad=True), threads.ran.copy()
    fused(x).sum().backward()
    new = {name: count for name, count in (threads.ran - before).items() if name.startswith("fused")}
    assert new == {"fused_simd.forward": 1, "fused_simd.input_grad": 1, "fused_simd.weight_grad": 1}
    assert computed == []


@pytest.mark.parametrize("retain_graph", [False, True])
def test_by_other_kernels_it_is_gone_when_it_was_used(computed, retain_graph):
    fused = fuse(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AvgPool2d(2)))
    x = minidl.tensor(images(2, 1, 8, 8), requires_grad=True)
    gc.disable()
    try:
        with minidl.use_kernels("im2col"):
            y = fused(x)
            y.sum().backward(retain_graph=retain_graph)
        assert len(computed) == 2                               # for x, and for w and b together
        assert [ref() for ref in computed] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("kernel_set", ["im2col", "simd"])
def test_a_gradient_changed_between_two_walks_counts_anew(kernel_set):
    fused = fuse(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()))
    g, (weight, bias) = minidl.ones(2, 3, 6, 6), fused.parameters()
    with minidl.use_kernels(kernel_set):
        y = fused(minidl.tensor(images(2, 1, 8, 8)))
        _, first = minidl.autograd.grad(y, [weight, bias], g, retain_graph=True)
        minidl.autograd.grad(y, weight, g, retain_graph=True)   # has the gradient of b too, for which nobody asks
        g.mul_(2)
        (second,) = minidl.autograd.grad(y, bias, g, retain_graph=True)
        np.testing.assert_allclose(second.numpy(), 2 * first.numpy(), rtol=1e-6)
        minidl.autograd.grad(y, weight, g, retain_graph=True)
        (third,) = minidl.autograd.grad(y, bias, minidl.ones(2, 3, 6, 6))
        np.testing.assert_allclose(third.numpy(), first.numpy(), rtol=1e-6)


def test_only_the_gradients_that_are_needed_are_computed():
    fused = fuse(small_cnn((1, 8, 8)))
    step = list(fused(minidl.tensor(images(1, 1, 8, 8))).sum().backward_steps())[-1]
    assert str(step.op) == "FusedConv2d"
    assert set(step.outgoing) == {"w", "b"}
    fused.requires_grad_(False)
    x = minidl.tensor(images(1, 1, 8, 8), requires_grad=True)
    step = list(fused(x).sum().backward_steps())[-1]
    assert set(step.outgoing) == {"x"}
    assert set(fused[0](x).node.kept) == {"w"}


@pytest.mark.parametrize(("after", "shape"), [
    ("relu", (2, 3, 8, 8)), ("relu, avg", (2, 3, 8, 8)), ("relu, max", (2, 3, 4, 4)), ("max, relu", (2, 3, 4, 4)),
    ("relu, up", (2, 3, 8, 8)), ("up, relu", (2, 3, 8, 8))])
def test_masks_and_indices_are_kept_and_no_numbers_of_the_convolution(after, shape):
    fused = fuse(nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), *AFTER[after]()))
    x = minidl.tensor(images(2, 1, 8, 8))
    node = fused(x).node
    assert set(node.kept) == {"x", "way_back"}
    assert node.kept["x"].array is x.array
    kept = node.kept["way_back"].kept
    assert kept.blocked.dtype == np.bool_
    assert kept.blocked.shape == shape
    assert kept.indices is None or kept.indices.dtype.kind == "i"
    with minidl.no_grad():
        assert fused(x).node is None


@every_run
def test_images_stay_channels_last(after):
    fused = fuse(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), *AFTER[after](), nn.Conv2d(3, 2, 1), *AFTER[after]()))
    y = fused(minidl.tensor(images(2, 2, 9, 9)))
    assert y.array.transpose(0, 2, 3, 1).flags.c_contiguous
    steps = list(y.sum().backward_steps())
    assert steps[1].outgoing["x"].array.transpose(0, 2, 3, 1).flags.c_contiguous


def test_the_names_of_what_stands_in_the_model(pair):
    assert isinstance(pair[1][0], FusedConv2d)
    assert isinstance(pair[1][0], nn.Conv2d)
    assert isinstance(pair[1][2], Absorbed)
    assert issubclass(ModuleError, MinidlError)
