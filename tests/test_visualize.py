"""Looking into a model: outputs of its layers, what an output depends on, and the patches that excite a filter most."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.errors import DtypeError, MinidlError, OutOfRangeError, SettingError, ShapeError
from minidl.models import small_cnn
from minidl.nn.utils.modes import evaluating
from minidl.visualize import capture, layer_named, patches
from minidl.visualize.patches import ReceptiveField, receptive_field, strongest_patches


class Block(nn.Module):
    """relu(conv(relu(norm(conv x))) + shortcut x), with one ReLU that is used twice."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs)
        self.conv2, self.shortcut = nn.Conv2d(outputs, outputs, 5, padding=2), nn.Conv2d(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv2(self.relu(self.norm(self.conv1(x)))) + self.shortcut(x))


def residual_network():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Block(4, 4, 1), Block(4, 6, 2), Block(6, 6, 2),
                            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += 0.1
    return network


# -- parts by name -----------------------------------------------------------------------------------------------------

def test_a_part_is_found_by_its_path():
    network = residual_network()
    assert layer_named(network, "2.conv1") is network[2].conv1
    assert layer_named(network, "4") is network[4]
    with pytest.raises(SettingError, match=r"^layer_named: got the layer '2.conf1', expected a part of the model; the nearest are "
                                           r"'2.conv1' Conv2d"):
        layer_named(network, "2.conf1")
    with pytest.raises(SettingError, match=r"^here: got the layer 'xyz', expected a part of the model; it has '0' Linear$"):
        layer_named(nn.Sequential(nn.Linear(2, 2)), "xyz", where="here")
    with pytest.raises(SettingError, match="it has none"):
        layer_named(nn.ReLU(), "")


def test_evaluating_gives_each_part_its_mode_back():
    network = residual_network().train()
    network[2].eval()
    before = [module.training for module in network.modules()]
    assert len(set(before)) == 2
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == before
    with pytest.raises(RuntimeError), evaluating(network):
        raise RuntimeError
    assert [module.training for module in network.modules()] == before


# -- outputs of layers -------------------------------------------------------------------------------------------------

def test_captured_outputs_are_those_of_the_layers_one_after_the_other():
    network, x = residual_network().train(), minidl.randn(2, 3, 8, 8)
    found = capture(network, x, ["3", "0", "5"])
    assert set(found) == {"0", "3", "5"}
    assert all(module.training for module in network.modules())
    assert not network[1].norm.num_batches_tracked
    y = x
    network.eval()
    for i, layer in enumerate(network):
        y = layer(y)
        if str(i) in found:
            np.testing.assert_array_equal(found[str(i)].detach().numpy(), y.detach().numpy())
    assert list(capture(network, x, "0")) == ["0"]


def test_captured_outputs_can_be_differentiated_with_respect_to_the_images():
    network, x = small_cnn((1, 8, 8)), minidl.randn(1, 1, 8, 8, dtype=minidl.float32).requires_grad_()
    score = capture(network, x, ["3"])["3"][0, 5, 2, 2]
    (gradient,) = minidl.autograd.grad(score, [x])
    eps, direction = 1e-2, minidl.randn(1, 1, 8, 8)
    with minidl.no_grad():
        up, down = (capture(network, x + s * eps * direction, ["3"])["3"][0, 5, 2, 2].item() for s in (1, -1))
        assert not capture(network, x, ["3"])["3"].requires_grad
    assert (up - down) / (2 * eps) == pytest.approx((gradient * direction).sum().item(), rel=0.05, abs=1e-3)
    assert all(p.grad is None for p in network.parameters())


def test_the_next_layer_changes_nothing_in_what_was_captured():
    class InPlace(nn.Module):
        def forward(self, x):
            x *= 0
            return x

    network, x = nn.Sequential(nn.Conv2d(1, 4, 3), InPlace()), minidl.randn(2, 1, 6, 6)
    with minidl.no_grad():
        found = capture(network, x, ["0", "1"])
        np.testing.assert_array_equal(found["0"].numpy(), network[0](x).numpy())
    assert not found["1"].any()
    field = receptive_field(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True)), "0", (1, 9, 9))
    assert field.size == (3, 3)


def test_a_layer_that_is_used_twice_gives_its_last_output():
    network, x = residual_network(), minidl.randn(1, 3, 8, 8)
    found = capture(network, x, ["1.relu", "1"])
    np.testing.assert_array_equal(found["1.relu"].detach().numpy(), found["1"].detach().numpy())


def hooks_of(network):
    return sum(len(module._hooks["post"]) for module in network.modules())


def test_what_cannot_be_captured():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.ReLU(), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x), x

    network, x = nn.Sequential(Twice()).train(), minidl.zeros(1, 2)
    for layers, message in ((["0.used", "0.uzed"], r"^capture: got the layer '0.uzed', .* the nearest (is|are) '0.used' ReLU"),
                            (["0.unused"], r"^capture: the model's forward never calls the layer '0.unused'"),
                            (["0"], r"the layer '0' returns a tuple, expected one tensor; name a layer inside it")):
        with pytest.raises(SettingError, match=message):
            capture(network, x, layers)
        assert hooks_of(network) == 0
        assert all(module.training for module in network.modules())


# -- what an output depends on -----------------------------------------------------------------------------------------

def by_recursion(layers):
    """r <- r + (k - 1) · d · j, o <- o - p · j, j <- j · s, for layers one after the other (k, s, p, d)."""
    r, j, o = 1, 1, 0
    for k, s, p, d in layers:
        r, o, j = r + (k - 1) * d * j, o - p * j, j * s
    return r, j, o


def random_chain(rng):
    """Layers one after the other, and for rows and for columns what the recursion needs."""
    layers, along, channels = [], ([], []), 2
    for _ in range(int(rng.integers(1, 5))):
        kind = rng.choice(["conv", "max", "average", "point"])
        k, s, p, d = ([int(rng.integers(low, high)) for _ in range(2)] for low, high in ((1, 5), (1, 3), (0, 2), (1, 3)))
        if kind == "conv":
            layers.append(nn.Conv2d(channels, 3, k, s, p, d))
            channels = 3
        elif kind == "point":
            layers.append(nn.ReLU() if rng.random() < 0.5 else nn.BatchNorm2d(channels))
            continue
        else:
            p, d = [0, 0], [1, 1]
            layers.append((nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(k, s))
        for axis in range(2):
            along[axis].append((k[axis], s[axis], p[axis], d[axis]))
    return nn.Sequential(*layers), along


@pytest.mark.parametrize("seed", range(12))
def test_the_measured_field_is_that_of_the_recursion(seed):
    network, (rows, columns) = random_chain(np.random.default_rng(seed))
    expected = tuple(zip(by_recursion(rows), by_recursion(columns), strict=True))
    for size in ((40, 44), (57, 43)):                               # some are too small for three outputs away from the border
        field = receptive_field(network, str(len(network) - 1), (2, *size))
        assert (field.size, field.stride, field.offset) == expected


def support(network, layer, shape, place):
    """(top, left, bottom, right) of the pixels that the output at this place has a gradient with respect to.

    With positive weights and images nothing cancels and no ReLU is closed.
    """
    with minidl.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.abs() + 0.01)
    x = minidl.rand(1, *shape, dtype=minidl.float64).requires_grad_()
    y = capture(network.double(), x, [layer])[layer]
    (gradient,) = minidl.autograd.grad(y[0, :, place[0], place[1]].sum(), [x])
    rows, columns = (np.flatnonzero(gradient[0].numpy().any(axis=axes)) for axes in ((0, 2), (0, 1)))
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


@pytest.mark.parametrize(("layer", "places"), [
    ("0", [(5, 6)]), ("1.conv1", [(0, 0), (9, 4)]), ("1", [(8, 8), (15, 0)]), ("2.norm", [(4, 4)]), ("2", [(4, 5), (0, 7)]),
    ("3.conv1", [(2, 2)]), ("3", [(1, 1), (3, 2)])])
def test_it_is_where_the_gradient_is_in_a_residual_network_too(layer, places):
    network, shape = residual_network(), (3, 16, 16)
    field = receptive_field(network, layer, shape)
    for place in places:
        top, left, bottom, right = field.rectangle(*place)
        assert support(network, layer, shape, place) == (max(top, 0), max(left, 0), min(bottom, 16), min(right, 16))


@pytest.mark.parametrize("side", [8, 28])
def test_the_fields_of_the_network_of_the_labs(side):
    network = small_cnn((1, side, side)).train()
    expected = {"0": (3, 1, -1), "1": (3, 1, -1), "2": (4, 2, -1), "3": (8, 2, -3), "4": (8, 2, -3), "5": (10, 4, -3),
                "6": (side, 0, 0), "7": (side, 0, 0), "9": (side, 0, 0)}
    for layer, (size, stride, offset) in expected.items():
        field = receptive_field(network, layer, (1, side, side))
        assert field == ReceptiveField((size, size), (stride, stride), (offset, offset)), layer
    assert network.training
    assert hooks_of(network) == 0


def test_a_layer_that_is_used_twice_has_the_field_of_its_last_output():
    assert receptive_field(residual_network(), "1.relu", (3, 16, 16)) == receptive_field(residual_network(), "1", (3, 16, 16))


def test_a_field_that_is_larger_than_the_image():
    def field(kernel):
        return receptive_field(nn.Sequential(nn.Conv2d(1, 1, kernel, padding=kernel // 2)), "0", (1, 8, 8))

    assert field(17) == ReceptiveField((17, 17), (1, 1), (-8, -8))
    assert field(33) == ReceptiveField((8, 8), (0, 0), (0, 0))         # even in 16 rows all depends on all


def test_weights_do_not_matter():
    network = small_cnn((1, 12, 12))
    with minidl.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0)
    assert receptive_field(network, "5", (1, 12, 12)).size == (10, 10)


class OnlyOneSize(nn.Module):
    """Refuses all images but those of 8×8, as a network with one position embedding for each place does."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(1, 2, 7, padding=3), nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        assert x.shape[2:] == (8, 8)
        return self.conv(x) + self.other(x)


@pytest.mark.parametrize(("network", "layer"), [
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1)), "1"),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2)), "1"),
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Upsample(scale_factor=2)), "1"),
    (nn.Sequential(OnlyOneSize()), "0.conv"), (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "1")])
def test_the_whole_image_where_there_is_no_one_size(network, layer):
    assert receptive_field(network, layer, (1, 8, 8)) == ReceptiveField((8, 8), (0, 0), (0, 0))


def test_one_size_is_enough_where_the_border_is_far():
    assert receptive_field(nn.Sequential(OnlyOneSize()), "0.other", (1, 8, 8)).size == (3, 3)


def test_fields_that_cannot_be_measured():
    network = small_cnn((1, 8, 8))
    with pytest.raises(SettingError, match=r"^receptive_field: got the layer '99'"):
        receptive_field(network, "99", (1, 8, 8))
    with pytest.raises(ShapeError, match=r"^receptive_field: got image_shape=\(8, 8\), expected \(C, H, W\)"):
        receptive_field(network, "0", (8, 8))
    with pytest.raises(ShapeError):                                 # the model takes images of one channel
        receptive_field(network, "0", (3, 8, 8))
    with minidl.no_grad():
        network[0].weight[3, 0, 1, 1] = float("nan")
    with pytest.raises(SettingError, match=r"^receptive_field: the layer '3' answers nan for an image of zeros"):
        receptive_field(network, "3", (1, 8, 8))


# -- the patches that excite a filter most -----------------------------------------------------------------------------

def patches_by_hand(network, layer, images, channel, count, fill, field):
    """Loops: all outputs, sorted by hand; the patch is cut from an image with a wide frame."""
    with minidl.no_grad():
        maps = capture(network, images, [layer])[layer][:, channel].numpy()
    best = sorted(range(len(images)), key=lambda i: (-maps[i].max(), i))[:count]
    frame, found = 50, []
    for i in best:
        row, column = divmod(int(maps[i].argmax()), maps.shape[-1])
        wide = np.pad(images[i].numpy(), ((0, 0), (frame, frame), (frame, frame)), constant_values=fill)
        top, left = field.offset[0] + row * field.stride[0] + frame, field.offset[1] + column * field.stride[1] + frame
        found.append((maps[i].max(), i, [row, column], wide[:, top:top + field.size[0], left:left + field.size[1]]))
    return found


@pytest.mark.parametrize("layer", ["0", "1", "3", "5"])
def test_the_patches_are_those_that_loops_find(layer, monkeypatch):
    monkeypatch.setattr(patches, "BATCH", 7)
    network, images = small_cnn((2, 9, 12)).train(), minidl.rand(40, 2, 9, 12)
    found = strongest_patches(network, layer, images, count=5, fill=0.3)
    channels = 32 if layer in "01" else 64
    assert (found.layer, found.channels) == (layer, tuple(range(channels)))
    assert found.field == receptive_field(network, layer, (2, 9, 12))
    assert network.training
    for channel in (0, 7, channels - 1):
        for n, (score, index, place, patch) in enumerate(
                patches_by_hand(network, layer, images, channel, 5, np.float32(0.3), found.field)):
            assert found.scores[channel, n].item() == pytest.approx(score, rel=1e-6)
            assert found.indices[channel, n].item() == index
            assert found.positions[channel, n].tolist() == place
            np.testing.assert_array_equal(found.patches[channel, n].numpy(), patch)


def test_the_output_depends_on_the_patch_alone():
    """The image with everything else replaced gives the same output at this place."""
    network, images = residual_network(), minidl.rand(12, 3, 16, 16)
    found = strongest_patches(network, "2", images, channels=[1, 4], count=3)
    for k, channel in enumerate(found.channels):
        for n in range(3):
            top, left, bottom, right = (max(edge, 0) for edge in found.field.rectangle(*found.positions[k, n].tolist()))
            other, image = minidl.rand(3, 16, 16), images[int(found.indices[k, n])]
            other[:, top:bottom, left:right] = image[:, top:bottom, left:right]
            row, column = found.positions[k, n].tolist()
            with minidl.no_grad():
                score = capture(network, other[None], ["2"])["2"][0, channel, row, column].item()
            assert score == pytest.approx(found.scores[k, n].item(), rel=1e-5, abs=1e-6)


def test_a_dense_layer_sees_whole_images():
    network, images = small_cnn((1, 8, 8)), minidl.rand(30, 1, 8, 8)
    found = strongest_patches(network, "9", images, channels=[8, 2], count=4)
    with minidl.no_grad():
        scores = network.eval()(images).numpy()
    for k, channel in enumerate((8, 2)):
        order = np.argsort(-scores[:, channel], kind="stable")[:4]
        np.testing.assert_array_equal(found.indices[k].numpy(), order)
        np.testing.assert_allclose(found.scores[k].numpy(), scores[order, channel], rtol=1e-5)
        np.testing.assert_array_equal(found.patches[k].numpy(), images.numpy()[order])
    assert not found.positions.any()


def test_among_equals_the_first_image_and_the_first_place_count(monkeypatch):
    monkeypatch.setattr(patches, "BATCH", 4)
    images = minidl.zeros(11, 1, 5, 5)
    for i, row, column in ((9, 3, 1), (9, 1, 3), (2, 4, 4), (6, 0, 0)):
        images[i, 0, row, column] = 1.0
    found = strongest_patches(nn.Sequential(nn.Identity()), "0", images, count=6)
    assert found.indices.tolist() == [[2, 6, 9, 0, 1, 3]]
    assert found.positions.tolist() == [[[4, 4], [0, 0], [1, 3], [0, 0], [0, 0], [0, 0]]]
    assert found.patches.flatten().tolist() == found.scores.flatten().tolist() == [1, 1, 1, 0, 0, 0]


def test_patches_of_nan_beyond_the_border_and_of_float64():
    network, images = small_cnn((1, 8, 8)).double(), minidl.rand(20, 1, 8, 8, dtype=minidl.float64)
    found = strongest_patches(network, "3", images, count=9, fill=float("nan"))
    assert found.patches.dtype == found.scores.dtype == minidl.float64
    beyond = np.isnan(found.patches.numpy())
    assert beyond.any()
    for k in range(0, 64, 9):
        top, left, bottom, right = found.field.rectangle(*found.positions[k, 0].tolist())
        inside = (min(bottom, 8) - max(top, 0)) * (min(right, 8) - max(left, 0))
        assert (~beyond[k, 0]).sum() == inside


@pytest.mark.parametrize(("settings", "error", "message"), [
    ({"layer": "44"}, SettingError, "got the layer '44', expected a part of the model"),
    ({"channels": [3, 32]}, OutOfRangeError, "got the channel 32, expected 0 to 31: the layer '0' has 32"),
    ({"channels": [-1]}, OutOfRangeError, "got the channel -1, expected 0 to 31"),
    ({"channels": []}, SettingError, "got no channels, expected at least one; None means all"),
    ({"count": 11}, SettingError, "got count=11, expected 1 to 10, the number of images: each gives at most one"),
    ({"count": 0}, SettingError, "got count=0, expected 1 to 10"),
    ({"images": minidl.zeros(1, 8, 8)}, ShapeError, "got images of shape (1, 8, 8), expected (N, C, H, W); one image is images[None]"),
    ({"images": minidl.zeros(10, 1, 8, 8, dtype=minidl.uint8)}, DtypeError, "got images of uint8, expected floats")])
def test_wrong_questions_about_patches(settings, error, message):
    settings = {"layer": "0", "images": minidl.rand(10, 1, 8, 8), **settings}
    with pytest.raises(error, match=f"^strongest_patches: {re.escape(message)}"):
        strongest_patches(small_cnn((1, 8, 8)), **settings)


def test_an_output_that_has_no_channels_at_places():
    network = nn.Sequential(nn.Flatten(2))                          # (N, C, H·W)
    with pytest.raises(MinidlError, match=r"^strongest_patches: got the shape \(3, 2, 16\) from the layer '0', expected"):
        strongest_patches(network, "0", minidl.rand(3, 2, 4, 4), count=1)


@pytest.mark.parametrize(("call", "kind", "message"), [
    (lambda model, x: patches.strongest_patches(model, "0", x.numpy()), DtypeError, "strongest_patches: got a ndarray as images, expected a tensor (N, C, H, W)"),
    (lambda model, x: patches.strongest_patches(model, "0", x, channels=3), SettingError, "strongest_patches: got channels=3, expected several such as [3] or range(8)"),
    (lambda model, x: patches.receptive_field(model, "0", 8), ShapeError, "receptive_field: got image_shape=8, expected (C, H, W)"),
])
def test_something_else_than_asked_for_is_one_sentence(call, kind, message):
    with pytest.raises(kind) as caught:
        call(nn.Sequential(nn.Conv2d(1, 8, 3)), minidl.rand(9, 1, 8, 8))
    assert message in str(caught.value)
