"""The filters lab: what it measures, whether its numbers are those of its network, and what its figures show."""

from __future__ import annotations

import json
import os

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import minidl
from labs import _filters
from labs._lenet import coloured
from labs._statistics import mean_and_error
from minidl.datasets import MNIST, Digits
from minidl.errors import MinidlError
from minidl.models import small_cnn
from minidl.visualize import capture
from minidl.visualize.patches import strongest_patches
from tests.figures import run_here, run_lab, run_once
from tests.helpers import kept_cnn

FIGURES = ["kernels", "maps", "pair", "patches_1", "patches_4", "patches_8", "selectivity"]
LAYERS = {"1": 32, "4": 64, "8": 256}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_once(tmp_path_factory, "filters", "--epochs", 6, "--retrain")


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


@pytest.fixture(scope="module")
def by_hand(run):
    """{network: {layer: the strongest answer of each image and filter (1347, O)}}, of networks that are made anew."""
    trained, saved = kept_cnn(run[2] / "small_cnn.safetensors")
    assert (saved["dataset"], tuple(saved["image_shape"])) == ("digits", (1, 8, 8))
    minidl.manual_seed(0)
    networks = {"trained": trained, "untrained": small_cnn((1, 8, 8)).eval()}
    images = minidl.from_numpy(Digits().data.numpy().astype(np.float32)[:, None] / 255)
    found = {}
    with minidl.no_grad():
        for name, network in networks.items():
            answers = capture(network, images, list(LAYERS))
            found[name] = {layer: answers[layer].numpy().reshape(1347, count, -1).max(2) for layer, count in LAYERS.items()}
    return networks, found


# -- its numbers -------------------------------------------------------------------------------------------------------

def test_it_looks_at_the_training_images(run):
    np.testing.assert_array_equal(run[0]["images"].numpy()[:, 0] * 255, Digits().data.numpy())
    np.testing.assert_array_equal(run[0]["labels"].numpy(), Digits().targets)
    np.testing.assert_array_equal(run[0]["test_labels"].numpy(), Digits(train=False).targets)


def test_receptive_fields_and_counts(metrics):
    assert metrics["receptive_field"] == {"0": [3, 1], "1": [3, 1], "2": [4, 2], "3": [8, 2], "4": [8, 2], "5": [10, 4],
                                          "6": [8, 0], "7": [8, 0], "8": [8, 0], "9": [8, 0]}
    assert metrics["filters"] == LAYERS
    assert (metrics["patches_of_a_filter"], metrics["patch_images"], metrics["image"], metrics["layer"]) == (9, 1347, 0, "8")


def test_a_negative_score_is_not_a_dead_filter(run):
    """Where no ReLU follows, an answer below 0 is an answer."""
    network = run[0]["trained"]
    assert [_filters.is_rectified(network, layer) for layer in ("0", "1", "3", "4", "7", "8")] == [True] * 6
    assert [_filters.is_rectified(network, layer) for layer in ("2", "5", "6", "9")] == [False] * 4
    found = strongest_patches(network, "9", run[0]["images"][:9], count=9)
    assert _filters.dead_filters(found, rectified=False) == []


def test_dead_filters_are_those_that_answer_no_image(run, metrics, by_hand):
    for layer in LAYERS:
        for name, key in (("trained", "dead"), ("untrained", "dead_untrained")):
            is_dead = (by_hand[1][name][layer] <= 0).all(0)
            assert metrics[key][layer] == is_dead.sum()
            assert run[0]["dead"][layer][name] == np.flatnonzero(is_dead).tolist()
    assert metrics["dead_untrained"]["8"] > 0, "the figures below need some"


def test_selectivity_is_the_share_of_the_commonest_class(metrics, by_hand):
    labels = np.array(Digits().targets)
    for layer in LAYERS:
        mean, error = {}, {}
        for name in ("trained", "untrained"):
            answers = by_hand[1][name][layer]
            shares = []
            for column in answers.T[(answers > 0).any(0)]:
                nine = labels[np.argsort(-column, kind="stable")[:9]]
                shares.append(max((nine == k).mean() for k in range(10)))
            mean[name], error[name] = np.mean(shares), np.std(shares, ddof=1) / np.sqrt(len(shares))
            assert metrics["selectivity"][layer][name] == pytest.approx(mean[name])
            assert metrics["selectivity"][layer][f"{name}_error"] == pytest.approx(error[name])
        assert metrics["selectivity"][layer]["difference"] == pytest.approx(mean["trained"] - mean["untrained"])
        assert metrics["selectivity"][layer]["difference_error"] == pytest.approx(np.hypot(*error.values()))


def test_by_chance(metrics):
    """Ten equal classes, nine images: exactly, by counting; the digits are nearly that."""
    rng = np.random.default_rng(5)
    expected = np.mean([np.bincount(rng.integers(0, 10, 9)).max() / 9 for _ in range(20_000)])
    assert metrics["selectivity_by_chance"] == pytest.approx(expected, abs=0.01)
    assert _filters.shares_by_chance(minidl.zeros(20, dtype=minidl.int64), 9, 0, draws=3).tolist() == [1, 1, 1]


def test_two_images_and_their_control(run, metrics, by_hand):
    truth = np.array(Digits(train=False).targets)
    pair = metrics["pair"]
    first, control, second = pair["images"]
    assert first == 0
    assert truth[control] == truth[first] != truth[second]
    assert second == np.flatnonzero(truth != truth[0])[0]
    assert control == np.flatnonzero(truth == truth[0])[1]
    for name, network in by_hand[0].items():
        with minidl.no_grad():
            mean = capture(network, run[0]["test_images"], ["4"])["4"].numpy().mean((2, 3))
        between = {other: abs(mean[first] - mean[other]) for other in (control, second)}
        assert pair["distances"][name]["control"] == pytest.approx(between[control].sum(), rel=1e-4)
        assert pair["distances"][name]["second"] == pytest.approx(between[second].sum(), rel=1e-4)
        all_pairs = abs(mean[:, None] - mean[None]).sum(2)
        is_same = truth[:, None] == truth
        assert pair["distances"][name]["other_class"] == pytest.approx(all_pairs[~is_same].mean(), rel=1e-4)
        assert pair["distances"][name]["same_class"] == pytest.approx(
            all_pairs[is_same].sum() / (is_same.sum() - len(truth)), rel=1e-4)       # without an image and itself
        filters = run[0]["apart"][name][0]
        smallest = between[second][filters].min()
        assert len(set(filters)) == 8
        assert (np.delete(between[second], filters) <= smallest + 1e-6).all()
        others = [i for i in range(len(truth)) if truth[i] in (truth[first], truth[second]) and i not in (first, second)]
        for k, area in zip(filters, pair["areas"][name], strict=True):
            sign = 1 if mean[first, k] > mean[second, k] else -1
            assert area == pytest.approx(roc_auc_score(truth[others] == truth[first], sign * mean[others, k]), abs=2e-3)
    assert pair["filters"] == run[0]["apart"]["trained"][0]


def test_how_well_a_filter_tells_apart():
    truth = np.array([4, 7, 4, 4, 7, 7, 1])
    answers = np.array([[2., 0], [1., 5], [3., 6], [4., 7], [0., 1], [0.5, 0], [9., 9]])
    difference, area = _filters.tell_apart(answers, truth, (0, 1), [0, 1])
    assert difference.tolist() == [1, -5]
    assert area.tolist() == [1, 0]                                 # the second is wrong about all the others


# -- its figures -------------------------------------------------------------------------------------------------------

def words(axes):
    return [text.get_text() for text in axes.texts]


def cell(axes, n, columns, size, gap):
    """The pixels of a cell (height, width) of a sheet."""
    height, width = size
    top, left = n // columns * (height + gap) + gap, n % columns * (width + gap) + gap
    return np.asarray(axes.images[0].get_array())[top:top + height, left:left + width]


def test_its_figures(run):
    _, figures, folder = run
    assert list(figures) == FIGURES
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png;base64") == len(FIGURES)
    for name in FIGURES:
        assert (folder / f"{name}.png").stat().st_size > 10_000
    assert "Why does it see 8×8 pixels?" in report


def test_the_kernels_of_both_networks_have_one_scale(run, metrics, by_hand):
    kernels = {name: network[0].weight.detach().numpy()[:, 0] for name, network in by_hand[0].items()}
    largest = max(abs(weights).max() for weights in kernels.values())
    assert metrics["largest_weight"] == pytest.approx(largest)
    panels = run[1]["kernels"].axes
    for axes, (name, weights) in zip(panels[:2], kernels.items(), strict=True):
        assert axes.get_title() == f"{name}: 32 kernels, {len(run[0]['dead']['1'][name])} dead"
        for n in (0, 9, 31):
            if n not in run[0]["dead"]["1"][name]:
                expected = plt.get_cmap("RdBu_r")((weights[n] / largest + 1) / 2)[..., :3]
                np.testing.assert_allclose(cell(axes, n, 8, (24, 24), 6)[4::8, 4::8], expected, atol=0.02)


@pytest.mark.parametrize("layer", ["4", "8"])
def test_patches_are_drawn_where_they_belong_and_dead_filters_are_a_word(run, layer):
    for axes, (name, found) in zip(run[1][f"patches_{layer}"].axes, run[0]["found"][layer].items(), strict=True):
        dead = [k for k in range(64) if k in run[0]["dead"][layer][name]]
        assert words(axes).count("dead") == len(dead)
        assert f"{len(dead)} of them dead" in axes.get_title()
        for k in range(64):
            drawn = cell(axes, k, 8, (80, 80), 18)                 # 3 patches of 24 pixels, 4 gaps of 2
            if k in dead:
                assert (drawn == drawn[0, 0]).all()
                continue
            for n in range(9):
                top, left = n // 3 * 26 + 2, n % 3 * 26 + 2
                patch = found.patches[k, n, 0].numpy()
                expected = np.where(np.isnan(patch)[..., None], _filters.BEYOND, patch[..., None])
                np.testing.assert_allclose(drawn[top:top + 24:3, left:left + 24:3], expected, atol=1e-6)


def test_the_maps_are_those_of_the_chosen_image(run, metrics, by_hand):
    trained, image = by_hand[0]["trained"], run[0]["test_images"][:1]
    with minidl.no_grad():
        maps = {name: values[0] for name, values in capture(trained, image, ["0", "3", "8"]).items()}
    assert list(metrics["map_scales"]) == ["layer 0, Conv2d", "layer 3, Conv2d", "layer 8, ReLU"]
    panels = [axes for axes in run[1]["maps"].axes if axes.images]      # the image, and one for each layer
    np.testing.assert_array_equal(panels[0].images[0].get_array(), image[0, 0].numpy())
    for axes, name, scale, side, columns, dead in zip(
            panels[1:], maps, metrics["map_scales"].values(), (24, 24, 24), (16, 16, 32), ("1", "4", "8"), strict=True):
        values = maps[name] if maps[name].ndim == 3 else maps[name][:, None, None]
        assert scale == pytest.approx(abs(values.numpy()).max(), rel=1e-4)
        dead_ones = run[0]["dead"][dead]["trained"]
        assert words(axes).count("dead") == len(dead_ones)
        for k in range(0, len(values), 5):
            if k not in dead_ones:
                step = side // values.shape[2]
                drawn = cell(axes, k, columns, (side, side), side // 3)[step // 2::step, step // 2::step]
                expected = coloured(values[k:k + 1], scale)[0].permute(1, 2, 0).numpy()
                np.testing.assert_allclose(drawn, expected, atol=0.02)


def test_the_three_rows_of_the_pair_have_one_scale(run, metrics):
    panels = run[1]["pair"].axes
    largest = metrics["pair"]["scale"]
    assert [axes.get_title() for axes in panels[1:9]] == [
        f"filter {k}\narea {area:.2f}" for k, area in zip(metrics["pair"]["filters"], metrics["pair"]["areas"]["trained"],
                                                         strict=True)]
    with minidl.no_grad():
        maps = capture(run[0]["trained"], run[0]["test_images"][metrics["pair"]["images"]], ["4"])["4"].numpy()
    for row in range(3):
        for column, k in enumerate(metrics["pair"]["filters"]):
            axes = panels[9 * row + 1 + column]
            if not (maps[row, k] > 0).any():
                assert words(axes) == ["silent"]
                continue
            np.testing.assert_allclose(axes.images[0].get_array(), maps[row, k], atol=1e-5)
            assert axes.images[0].get_clim() == (0, largest)


def test_a_filter_that_is_made_dead_is_a_word_everywhere():
    network, images = small_cnn((1, 8, 8)).eval(), minidl.rand(30, 1, 8, 8)
    with minidl.no_grad():
        network[0].bias[5], network[0].bias[30] = -100.0, -100.0
        network[0].bias[4] = 100.0
    found = strongest_patches(network, "1", images, fill=float("nan"))
    dead = _filters.dead_filters(found)
    assert {5, 30} <= set(dead)
    assert 4 not in dead
    kernels = {"a": network[0].weight.detach()[:, 0], "b": 2 * network[0].weight.detach()[:, 0]}
    for figure in (_filters.draw_kernels(kernels, {"a": dead, "b": []})[0],
                   _filters.draw_patches({"a": found, "b": found}, {"a": dead, "b": dead}, kernels)):
        assert words(figure.axes[0]).count("dead") == len(dead)
        plt.close(figure)
    shares = _filters.shares_of_commonest_class(found, minidl.arange(30) // 3, dead)
    assert len(shares) == 32 - len(dead)


# -- its arguments -----------------------------------------------------------------------------------------------------

def test_another_layer_and_another_image(tmp_path, monkeypatch):
    names, figures = run_here(monkeypatch, "filters", "--out", tmp_path, "--epochs", 1, "--train-size", 500, "--retrain",
                              "--layer", 5, "--image", 17, "--patch-images", 100)
    assert list(figures) == ["kernels", "maps", "pair", "patches_1", "patches_4", "patches_5", "selectivity"]
    assert names["found"]["5"]["trained"].indices.max() < 100
    assert names["found"]["5"]["trained"].patches.shape == (64, 9, 1, 10, 10)
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert (numbers["image"], numbers["pair"]["images"][0], numbers["patch_images"]) == (17, 17, 100)


def test_what_cannot_be_shown_is_said_before_the_training(tmp_path):
    result = run_lab("filters", "--layer", 88, "--retrain", "--out", tmp_path / "out", check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: --layer: got the layer '88', expected a part of the model; the nearest is '8' ReLU")
    assert result.stderr.count("\n") == 1
    assert "train_loss" not in result.stdout
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(("arguments", "message"), [
    (["--image", 450], "^--image: got 450, expected 0 to 449, the test images of digits"),
    (["--patch-images", 8], "^--patch-images: got 8, expected at least 9: each filter is shown with nine")])
def test_what_is_out_of_range_too(arguments, message, tmp_path, monkeypatch, capsys):
    with pytest.raises(MinidlError, match=message):
        run_here(monkeypatch, "filters", *arguments, "--retrain", "--out", tmp_path)
    assert "train_loss" not in capsys.readouterr().out


@pytest.mark.parametrize("index", ["-1", "1.5", "first"])
def test_an_index_that_is_none(index, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_here(monkeypatch, "filters", f"--image={index}", "--out", tmp_path / "out")
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        f"error: argument --image: got '{index}', expected a whole number from 0 up; --help shows all arguments\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_on_mnist_the_dense_layer_becomes_selective(tmp_path, monkeypatch):
    folder = os.environ.get("MINIDL_DATA", "")
    try:
        MNIST(folder or "data")
    except MinidlError:
        pytest.skip("MNIST is not there; set MINIDL_DATA to its folder")
    names, figures = run_here(monkeypatch, "filters", "--dataset", "mnist", "--retrain", "--out", tmp_path)
    assert list(figures) == FIGURES
    numbers = json.loads((tmp_path / "metrics.json").read_text())
    assert numbers["receptive_field"]["5"] == [10, 4]
    dense = numbers["selectivity"]["8"]
    assert dense["trained"] > dense["untrained"] > numbers["selectivity_by_chance"]
    assert dense["difference"] > 3 * dense["difference_error"]
    assert numbers["dead"]["4"] < 32
    assert np.mean(names["apart"]["trained"][1]) > 0.6


def test_mean_and_standard_error():
    rows = np.array([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    mean, error = mean_and_error(rows)
    np.testing.assert_allclose(mean, [3, 5])
    np.testing.assert_allclose(error, [2 / 3 ** 0.5, 0])
    assert mean_and_error(rows[:, 0]) == (pytest.approx(3), pytest.approx(2 / 3 ** 0.5))
    assert np.isnan(mean_and_error(rows[:1])[1]).tolist() == [True, True], "nobody knows the spread of one"
    assert np.isnan(mean_and_error(np.empty(0))).all()
