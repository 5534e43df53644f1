"""Activation maximisation: the recipe beside PyTorch, the moves and penalties, what it leaves alone, and its sentences."""

from __future__ import annotations

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.errors import MinidlError, OutOfRangeError, SettingError, ShapeError
from minidl.models import small_resnet
from minidl.visualize.ascent import as_picture, channel_scores, maximize, resample, total_variation, without_border

SHAPE = (1, 20, 18)


def seeded(seed=0):
    return minidl.Generator().manual_seed(seed)


def noise(seed=0, shape=SHAPE):
    """The start of the recipe, in float64."""
    return (minidl.rand(*shape, dtype=minidl.float64, generator=seeded(seed)) - 0.5) * 0.25


@pytest.fixture
def model():
    """Two convolutions and a dense layer, in float64 and in training mode; noise passes through every ReLU somewhere."""
    minidl.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
                            nn.Flatten(), nn.Linear(8 * 8 * 7, 5))
    nn.init.constant_(network[0].bias, 0.1)
    nn.init.constant_(network[3].bias, 0.1)
    return network.double()


def in_torch(torch, model):
    """The same network there."""
    layers = torch.nn
    network = layers.Sequential(layers.Conv2d(1, 6, 3, padding=1), layers.ReLU(), layers.AvgPool2d(2), layers.Conv2d(6, 8, 3),
                                layers.ReLU(), layers.Flatten(), layers.Linear(8 * 8 * 7, 5)).double()
    network.load_state_dict({name: torch.from_numpy(value.numpy().copy()) for name, value in model.state_dict().items()})
    return network


# -- beside PyTorch ----------------------------------------------------------------------------------------------------

@pytest.mark.torch
@pytest.mark.parametrize(("layer", "channel"), [("1", 2), ("3", 5), ("4", 1), ("6", 3)])
def test_plain_is_the_recipe_as_a_loop_in_pytorch(torch, model, layer, channel):
    found = maximize(model, layer, channel, image_shape=SHAPE, generator=seeded())

    network, start = in_torch(torch, model).eval(), noise().numpy()
    x, scores = torch.from_numpy(start.copy())[None], []

    def score_of(x):
        y = network[:int(layer) + 1](x)
        return y[0, channel, 2:-2, 2:-2].mean() if y.ndim == 4 else y[0, channel]

    for _ in range(30):
        x = x.detach().requires_grad_()
        score = score_of(x)
        score.backward()
        scores.append(score.item())
        x = x + 10 * x.grad / x.grad.norm()
    scores.append(score_of(x).item())
    image = x.detach()[0].numpy()
    assert abs(image - start).max() > 1                                 # it has gone somewhere
    np.testing.assert_allclose(found.image.numpy(), image, rtol=1e-6, atol=1e-6 * abs(image).max())
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)
    y = 0.15 * (image - image.mean()) / image.std() + 0.5
    np.testing.assert_allclose(found.picture.numpy(), y[:, 2:-2, 2:-2].clip(0, 1), atol=1e-4)      # std + 1e-5
    assert not found.dead


@pytest.mark.torch
def test_sharp_is_that_loop_on_moved_images_with_total_variation(torch, model):
    found = maximize(model, "4", 1, "sharp", image_shape=SHAPE, generator=seeded(), lr=2.0, jitter=2)
    draws = seeded()
    minidl.rand(*SHAPE, dtype=minidl.float64, generator=draws)          # the start comes first

    network, x = in_torch(torch, model)[:5].eval(), torch.from_numpy(noise().numpy().copy())[None]
    height, width = SHAPE[1:]
    rows, columns = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    for _ in range(30):
        u = minidl.rand(4, generator=draws).tolist()
        angle, zoom = np.radians((2 * u[0] - 1) * 10), 0.9 + 0.2 * u[1]
        i, j = rows - (height - 1) / 2 - (int(u[2] * 5) - 2), columns - (width - 1) / 2 - (int(u[3] * 5) - 2)
        r, c = (np.cos(angle) * i + np.sin(angle) * j) / zoom, (np.cos(angle) * j - np.sin(angle) * i) / zoom
        grid = torch.stack([2 * c / (width - 1), 2 * r / (height - 1)], dim=-1)[None]
        x = x.detach().requires_grad_()
        seen = torch.nn.functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=True)
        (g,) = torch.autograd.grad(network(seen)[0, 1, 2:-2, 2:-2].mean(), x)
        variation = ((x[:, :, 1:] - x[:, :, :-1]) ** 2).sum() + ((x[..., 1:] - x[..., :-1]) ** 2).sum()
        (rough,) = torch.autograd.grad(variation, x)
        g = g / g.norm() - 0.5 * rough / rough.norm()
        x = x + 2.0 * g / g.norm()
    image = x.detach()[0].numpy()
    np.testing.assert_allclose(found.image.numpy(), image, rtol=1e-6, atol=1e-6 * abs(image).max())


# -- moving and smoothing ----------------------------------------------------------------------------------------------

def test_resample_turns_moves_and_enlarges(rng):
    x = rng.standard_normal((2, 3, 7, 7))
    images = minidl.from_numpy(x)
    np.testing.assert_array_equal(resample(images).numpy(), x)
    for quarter in (1, 2, 3):                                           # counter-clockwise, as numpy.rot90
        np.testing.assert_allclose(resample(images, 90 * quarter).numpy(), np.rot90(x, quarter, axes=(2, 3)), atol=1e-12)
    moved = resample(images, shift=(1, -2)).numpy()
    np.testing.assert_array_equal(moved[:, :, 1:, :-2], x[:, :, :-1, 2:])
    np.testing.assert_array_equal(moved[:, :, 0], moved[:, :, 1])       # the edge goes on
    np.testing.assert_array_equal(moved[..., -1], moved[..., -3])
    larger = resample(images, zoom=2.0).numpy()
    np.testing.assert_allclose(larger[:, :, 3, 3], x[:, :, 3, 3])       # the centre stays
    np.testing.assert_allclose(larger[:, :, 3, 5], x[:, :, 3, 4])       # and what was one pixel away is two
    np.testing.assert_allclose(larger[:, :, 3, 4], (x[:, :, 3, 3] + x[:, :, 3, 4]) / 2)


def test_resample_is_bilinear_interpolation_as_in_scipy(rng):
    from scipy.ndimage import affine_transform

    x = rng.standard_normal((9, 12))
    angle, zoom, shift = np.radians(17), 1.2, np.array([1.0, -2.0])
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / zoom
    centre = np.array([4.0, 5.5])
    expected = affine_transform(x, matrix, centre - matrix @ (centre + shift), order=1, mode="nearest")
    found = resample(minidl.from_numpy(x[None, None]), 17, zoom, (1, -2))[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gradients_of_what_sharp_adds(rng):
    x = minidl.from_numpy(rng.standard_normal((2, 2, 5, 4))).requires_grad_()
    assert minidl.gradcheck(lambda x: resample(x, 12.0, 1.1, (1, 0)), (x,))
    assert minidl.gradcheck(lambda x: resample(x, -5.0, 0.9, (-1, 2)), (x,))
    assert minidl.gradcheck(total_variation, (x,))


def test_total_variation_counts_differences_of_neighbours():
    images = minidl.tensor([[[[0.0, 1.0], [3.0, 3.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])
    assert total_variation(images).tolist() == [9 + 4 + 1 + 0, 0]


def test_each_thing_of_sharp_makes_pictures_smoother(model):
    def roughness(**settings):
        image = maximize(model, "4", 1, image_shape=SHAPE, generator=seeded(), **settings).image
        return (total_variation(image[None]) / ((image - image.mean()) ** 2).sum()).item()

    still = {"degrees": 0.0, "zoom": (1.0, 1.0)}
    jitter, both = roughness(mode="sharp", tv=0.0, **still), roughness(mode="sharp", **still)
    assert both < jitter < roughness()
    assert roughness(mode="sharp", jitter=0, tv=0.0, **still) == roughness()        # with nothing left, it is plain


# -- scores and pictures -----------------------------------------------------------------------------------------------

def test_the_score_is_the_mean_without_the_border(rng):
    y = rng.standard_normal((2, 3, 9, 4))
    maps = minidl.from_numpy(y)
    np.testing.assert_allclose(channel_scores(maps, [2, 0]).numpy(), [y[0, 2, 2:-2].mean(), y[1, 0, 2:-2].mean()])
    assert [tuple(without_border(maps[..., :n, :n]).shape[2:]) for n in (1, 4)] == [(1, 1), (4, 4)]
    assert tuple(without_border(minidl.zeros(1, 1, 5, 6)).shape) == (1, 1, 1, 2)
    assert channel_scores(minidl.from_numpy(y[:, :, 0, 0]), [1, 1]).tolist() == y[:, 1, 0, 0].tolist()


@pytest.mark.parametrize("mode", ["plain", "sharp"])
def test_scores_are_of_the_image_itself(model, mode):
    found = maximize(model, "4", 1, mode, image_shape=SHAPE, steps=7, generator=seeded())
    model.eval()
    with minidl.no_grad():
        for image, score in ((noise(), found.scores[0]), (found.image, found.scores[-1])):
            assert model[:5](image[None])[0, 1, 2:-2, 2:-2].mean().item() == pytest.approx(score)
    assert len(found.scores) == 8
    assert found.scores[-1] > found.scores[0]


def test_a_picture_has_mean_spread_and_range(rng):
    x = minidl.from_numpy(rng.standard_normal((3, 36, 72)) * 40 + 7)
    picture = as_picture(x)
    assert tuple(picture.shape) == (3, 26, 52)                          # 25 of 180 at each edge
    assert (picture.min().item(), picture.max().item()) >= (0, 0)
    assert picture.max().item() <= 1
    inside = (x.numpy() - x.numpy().mean()) / x.numpy().std() * 0.15 + 0.5
    np.testing.assert_allclose(picture.numpy(), inside[:, 5:-5, 10:-10].clip(0, 1), atol=1e-6)
    assert (as_picture(minidl.full((1, 8, 8), 3.0)) == 0.5).all()


# -- several at once, and the same again -------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["plain", "sharp"])
def test_channels_do_not_influence_each_other(model, mode):
    together = maximize(model, "4", [1, 0, 5], mode, image_shape=SHAPE, generator=seeded())
    for channel, of_one in zip([1, 0, 5], together, strict=True):
        alone = maximize(model, "4", channel, mode, image_shape=SHAPE, generator=seeded())
        np.testing.assert_allclose(of_one.image.numpy(), alone.image.numpy(), atol=1e-9 * float(alone.image.abs().max()))
        np.testing.assert_allclose(of_one.scores, alone.scores, rtol=1e-9)
        assert of_one.dead == alone.dead


@pytest.mark.parametrize("mode", ["plain", "sharp"])
def test_a_seed_says_what_comes_out(model, mode):
    def image(seed):
        return maximize(model, "4", 1, mode, image_shape=SHAPE, generator=seeded(seed), steps=5).image.numpy()

    np.testing.assert_array_equal(image(1), image(1))
    assert not np.allclose(image(1), image(2))
    minidl.manual_seed(1)                                               # without one, the global generator
    np.testing.assert_array_equal(maximize(model, "4", 1, mode, image_shape=SHAPE, steps=5).image.numpy(), image(1))


def test_a_start_is_taken_and_left_alone(model, rng):
    start = minidl.from_numpy(rng.random((3, *SHAPE)))
    before = start.numpy().copy()
    several = maximize(model, "4", [1, 1, 5], start=start, steps=3)
    for image, channel, found in zip(start, [1, 1, 5], several, strict=True):
        assert found.scores[0] == pytest.approx(maximize(model, "4", channel, start=image, steps=1).scores[0])
    one = maximize(model, "4", [1, 5], start=start[0], steps=3)
    np.testing.assert_allclose(one[0].image.numpy(), several[0].image.numpy())
    np.testing.assert_array_equal(start.numpy(), before)
    assert not start.requires_grad


def test_pixels_stay_within_their_bounds(model):
    found = maximize(model, "4", 1, image_shape=SHAPE, clip=(0, 1), lr=1.0, generator=seeded())
    assert (found.image.min().item(), found.image.max().item()) == (0, 1)
    assert maximize(model, "4", 1, image_shape=SHAPE, lr=1.0, generator=seeded()).image.min().item() < 0


# -- dead filters ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mode", ["plain", "sharp"])
@pytest.mark.filterwarnings("error")
def test_a_dead_filter_is_reported_and_gets_no_picture(model, mode):
    with minidl.no_grad():
        model[3].bias[2] = -1000.0
    dead, alive = maximize(model, "4", [2, 1], mode, image_shape=SHAPE, generator=seeded())
    assert dead.dead
    assert dead.scores == [0.0] * 31
    np.testing.assert_array_equal(dead.image.numpy(), noise().numpy())
    assert not alive.dead
    assert alive.scores[-1] > 1


def test_a_step_into_the_dark_is_reported():
    """y = relu(1 - |x|): the first step leaves the only region that answers."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1), nn.ReLU())
    with minidl.no_grad():
        network[0].weight.copy_(minidl.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))         # |x| in two parts
        network[0].bias.zero_()
        network[2].weight.fill_(-1.0)
        network[2].bias.fill_(1.0)                                      # y = relu(1 - |x|)
    found = maximize(network, "3", 0, start=minidl.full((1, 5, 5), 0.5), lr=100.0, steps=4)
    assert found.scores == [0.5, 0, 0, 0, 0]
    assert found.dead
    assert not maximize(network, "3", 0, start=minidl.full((1, 5, 5), 0.5), lr=0.1, steps=4).dead


def test_gradients_that_are_not_numbers(model):
    with minidl.no_grad():
        model[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(MinidlError, match=r"^maximize: got a score or a gradient that is not finite after 0 steps; use a smaller lr than 10, or look"):
        maximize(model, "4", 1, image_shape=SHAPE)


def test_steps_too_large_for_numbers(model):
    with pytest.raises(MinidlError, match=r"not finite after \d+ steps?; use a smaller lr than 1e\+38"):
        maximize(model.float(), "4", 1, image_shape=SHAPE, lr=1e38, steps=30)


class Hill(nn.Module):
    """relu(1 - |x|): a hill of width 2, and flat beyond."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(1 - x.abs())


def test_a_last_step_too_far_is_noticed():
    start = minidl.full((1, 6, 6), 0.5)
    found = maximize(Hill(), "relu", 0, start=start, lr=100.0, steps=1)
    assert (found.scores, found.dead) == ([0.5, 0.0], True)
    assert not maximize(Hill(), "relu", 0, start=start, lr=0.1, steps=1).dead


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_a_step_has_its_length_for_any_gradient(size):
    """In float32 the squares of small numbers are 0, and those of large ones infinite."""
    layer = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    with minidl.no_grad():
        layer[0].weight.fill_(size)
    found = maximize(layer, "0", 0, image_shape=(1, 8, 8), lr=2.0, steps=1, generator=seeded())
    start = maximize(layer, "0", 0, image_shape=(1, 8, 8), lr=1e-9, steps=1, generator=seeded())
    assert float((found.image - start.image).norm()) == pytest.approx(2.0, rel=1e-5)
    assert not found.dead


# -- what it leaves alone ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("channel", [1, 99])
def test_the_model_is_left_as_it_was(model, channel):
    model[3].eval()                                                     # a part that was in evaluation mode before
    model[0].weight.grad = minidl.ones_like(model[0].weight)
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    try:
        maximize(model, "4", channel, "sharp", image_shape=SHAPE, steps=2)
    except OutOfRangeError:
        assert channel == 99
    assert [module.training for module in model] == [True, True, True, False, True, True, True]
    assert all(not any(module._hooks.values()) for module in model.modules())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), weights[name])
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        if name == "0.weight":
            assert (parameter.grad == 1).all()
        else:
            assert parameter.grad is None


def test_it_works_where_nothing_is_recorded(model):
    with minidl.no_grad():
        inside = maximize(model, "4", 1, image_shape=SHAPE, generator=seeded(), steps=3)
        assert not minidl.is_grad_enabled()
    outside = maximize(model, "4", 1, image_shape=SHAPE, generator=seeded(), steps=3)
    np.testing.assert_array_equal(inside.image.numpy(), outside.image.numpy())
    assert not outside.image.requires_grad


def test_evaluation_mode_counts():
    minidl.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.9))
    before = network[1].running_mean.numpy().copy()
    first, second = (maximize(network, "3", 1, image_shape=SHAPE, generator=seeded(), steps=3) for _ in range(2))
    assert first.scores == second.scores                                # dropout draws nothing
    np.testing.assert_array_equal(network[1].running_mean.numpy(), before)
    assert network.training


# -- sentences ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("settings", "error", "sentence"), [
    ({"layer": "44"}, SettingError, r"maximize: got the layer '44', expected a part of the model; the nearest is '4' ReLU"),
    ({"channel": 8}, OutOfRangeError, r"maximize: got channel 8, expected 0 to 7: the layer '4' has 8 channels"),
    ({"channel": -1}, OutOfRangeError, r"maximize: got channel -1, expected 0 to 7"),
    ({"channel": [0, 9]}, OutOfRangeError, r"maximize: got channel 9, expected 0 to 7"),
    ({"channel": []}, SettingError, r"maximize: got channel=\[\], expected a whole number"),
    ({"channel": 1.5}, SettingError, r"maximize: got channel=1.5, expected a whole number"),
    ({"channel": True}, SettingError, r"maximize: got channel=True, expected a whole number"),
    ({"mode": "blunt"}, SettingError, r"maximize: got mode='blunt', expected \"plain\" or \"sharp\""),
    ({"steps": 0}, SettingError, r"maximize: got steps=0, expected a whole number above 0"),
    ({"lr": 0}, SettingError, r"maximize: got lr=0, expected a number above 0"),
    ({"lr": float("nan")}, SettingError, r"maximize: got lr=nan, expected a number above 0"),
    ({"lr": -1.0}, SettingError, r"maximize: got lr=-1.0, expected a number above 0"),
    ({"clip": (1, 0)}, SettingError, r"maximize: got clip=\(1, 0\), expected None or \(smallest, largest\)"),
    ({"jitter": -1}, SettingError, r"maximize: got jitter=-1, expected whole pixels"),
    ({"degrees": -1}, SettingError, r"maximize: got degrees=-1, expected a number of 0 or more"),
    ({"zoom": (0, 1)}, SettingError, r"maximize: got zoom=\(0, 1\), expected \(smallest, largest\) above 0"),
    ({"tv": -0.1}, SettingError, r"maximize: got tv=-0.1, expected a number of 0 or more"),
    ({"image_shape": (20, 18)}, ShapeError, r"maximize: got image_shape=\(20, 18\), expected \(C, H, W\), such as"),
    ({"image_shape": (3, 20, 18)}, ShapeError, r"0 Conv2d.*got \(1, 3, 20, 18\), expected"),
    ({"image_shape": None}, SettingError, r"maximize: expected image_shape=\(C, H, W\) of the model's images, or a start"),
    ({"start": minidl.zeros(20, 18)}, ShapeError, r"maximize: got a start of \(20, 18\), expected one image \(1, 20, 18\)"),
    ({"start": minidl.zeros(3, 1, 20, 18)}, ShapeError, r"maximize: got a start of \(3, 1, 20, 18\), expected one image .* or 1 of them"),
    ({"start": minidl.zeros(1, 20, 20)}, ShapeError, r"maximize: got a start of \(1, 20, 20\), expected one image \(1, 20, 18\)"),
])
def test_bad_input_is_a_sentence(model, settings, error, sentence):
    settings = {"layer": "4", "channel": 1, "image_shape": SHAPE} | settings
    with pytest.raises(error, match=f"^{sentence}"):
        maximize(model, **settings)
    assert all(not any(module._hooks.values()) for module in model.modules())
    assert model.training


def test_a_layer_whose_output_has_another_form():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2))
    with pytest.raises(ShapeError, match=r"^maximize: the layer '1' returns \(1, 2, 36\), expected \(N, O, H, W\) or \(N, O\); name"):
        maximize(network, "1", 0, image_shape=(1, 8, 8))


# -- the residual network ----------------------------------------------------------------------------------------------

def test_the_residual_network_has_these_sizes_and_names():
    network = small_resnet()
    assert sum(p.numel() for p in network.parameters()) == 78_042
    assert tuple(network(minidl.zeros(2, 3, 32, 32)).shape) == (2, 10)
    names = dict(network.named_modules())
    for name in ("stem", "stage1.0.relu2", "stage2.0.conv1", "stage2.0.shortcut", "stage3.0.bn2", "classifier"):
        assert name in names
    assert isinstance(names["stage1.0.shortcut"], nn.Identity)
    deeper = small_resnet((1, 28, 28), classes=7, widths=(4, 8, 12), blocks=2)
    assert tuple(deeper(minidl.zeros(2, 1, 28, 28)).shape) == (2, 7)
    assert "stage3.1.conv2" in dict(deeper.named_modules())
    deeper(minidl.rand(4, 1, 28, 28)).sum().backward()
    assert all(p.grad is not None for p in deeper.parameters())


@pytest.mark.parametrize(("settings", "error", "sentence"), [
    ({"image_shape": (3, 3, 32)}, ShapeError, "small_resnet: got images of 3×32, expected at least 4×4"),
    ({"widths": (4, 8)}, SettingError, r"small_resnet: got widths=\(4, 8\) and blocks=1, expected three widths"),
    ({"image_shape": (3, 32)}, ShapeError, r"small_resnet: got image_shape=\(3, 32\), expected \(C, H, W\)"),
    ({"widths": 16}, SettingError, "small_resnet: got widths=16 and blocks=1, expected three widths"),
    ({"blocks": 1.5}, SettingError, r"small_resnet: got widths=\(16, 32, 64\) and blocks=1.5, expected three widths"),
    ({"blocks": 0}, SettingError, r"small_resnet: got widths=\(16, 32, 64\) and blocks=0, expected three widths"),
])
def test_a_residual_network_that_is_none(settings, error, sentence):
    with pytest.raises(error, match=f"^{sentence}"):
        small_resnet(**settings)


@pytest.mark.torch
def test_the_residual_network_computes_what_pytorch_does(torch, rng):
    minidl.manual_seed(0)
    network = small_resnet((3, 12, 10), classes=4, widths=(4, 6, 8)).double()
    x = rng.random((3, 3, 12, 10))
    weights = {name: torch.from_numpy(value.numpy().copy()) for name, value in network.state_dict().items()}
    F = torch.nn.functional

    def convolved(x, name, stride, padding=1):
        return F.conv2d(x, weights[f"{name}.weight"], None, stride, padding)

    def normed(x, name):                                                # in training mode: by the batch's own values
        return F.batch_norm(x, None, None, weights[f"{name}.weight"], weights[f"{name}.bias"], training=True)

    y = F.relu(normed(convolved(torch.from_numpy(x), "stem.0", 2), "stem.1"))
    for stage, stride in (("stage1", 1), ("stage2", 2), ("stage3", 2)):
        residual = F.relu(normed(convolved(y, f"{stage}.0.conv1", stride), f"{stage}.0.bn1"))
        residual = normed(convolved(residual, f"{stage}.0.conv2", 1), f"{stage}.0.bn2")
        way = y if stage == "stage1" else normed(convolved(y, f"{stage}.0.shortcut.0", stride, 0), f"{stage}.0.shortcut.1")
        y = F.relu(residual + way)
    expected = y.mean((2, 3)) @ weights["classifier.weight"].T + weights["classifier.bias"]
    np.testing.assert_allclose(network(minidl.from_numpy(x)).detach().numpy(), expected.numpy(), atol=1e-10)
