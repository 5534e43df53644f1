"""The lab of activation maximisation: what it counts, what it compares with, and what its figures show."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import minidl
from labs import _dream
from minidl.datasets import CIFAR10, MNIST
from minidl.errors import MinidlError
from minidl.visualize.ascent import Maximized, as_picture, maximize
from tests.figures import run_lab, run_once
from tests.helpers import kept_cnn

FIGURES = ["curves", "sheet", "sheet_sharp", "sheet_nearest", "layers", "strip", "neighbours", "classes"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run in this process: its names, figures and folder. Every figure has been checked."""
    # the same real image can be near to several pictures; two shallow filters can like the same
    return run_once(tmp_path_factory, "dream", "--epochs", 3, "--retrain",
                    equal_panels={"sheet", "sheet_sharp", "sheet_nearest", "layers", "neighbours", "classes"})


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


@pytest.fixture(scope="module")
def network(run):
    """The one that the lab has trained and kept, and the real images that it was asked about."""
    return kept_cnn(run[2] / "small_cnn.safetensors")[0], run[0]["examples"]


def scores_by_hand(model, images, layer):
    """(N, O): each layer in turn, then the mean without the border where there is one."""
    y = images
    with minidl.no_grad():
        for part in list(model)[:int(layer) + 1]:
            y = part(y)
    y = y.numpy()
    return y if y.ndim == 2 else (y[:, :, 2:-2, 2:-2] if y.shape[2] > 4 else y).mean((2, 3))


def test_the_claim_and_how_it_is_counted(metrics, network):
    model, examples = network
    assert len(examples) == metrics["real_count"] == 1000
    assert list(metrics["layers"]) == ["1", "4", "8", "9"]
    for name, row in metrics["layers"].items():
        real = scores_by_hand(model, examples, name)[:, :64]
        scores = metrics["scores"][name]
        live = real.max(0) > real.min(0)
        assert (row["channels"], row["live"], row["dead"]) == (len(live), live.sum(), (~live).sum())
        np.testing.assert_allclose([score["real_mean"] for score in scores], real.mean(0), atol=1e-5)
        np.testing.assert_allclose([score["real_max"] for score in scores], real.max(0), rtol=1e-4, atol=1e-5)
        above = [score["final"] > max(score["start"], score["real_mean"]) for score in scores]
        assert row["above_start_and_mean"] == np.sum(np.array(above) & live)
        assert row["share"] == row["above_start_and_mean"] / row["live"] >= 0.9
        assert row["share_within_0_1_above_mean"] == np.mean(
            [score["within_0_1"] > score["real_mean"] for score, is_live in zip(scores, live, strict=True) if is_live])
        assert row["from_image"] == sum(score["began_with_image"] for score in scores)
        assert all(not score["dead"] for score, is_live in zip(scores, live, strict=True) if is_live)
    assert metrics["layers"]["9"]["dead"] == 0


def test_its_scores_are_those_of_its_pictures(run, network):
    names, model = run[0], network[0]
    for layer in ("1", "4", "8", "9"):
        for found, _ in (names["plain"][layer], names["in_range"][layer]):
            images = minidl.stack([result.image for result in found])
            own = scores_by_hand(model, images, layer)[np.arange(len(found)), np.arange(len(found))]
            np.testing.assert_allclose([result.scores[-1] for result in found], own, rtol=1e-4, atol=1e-4)
        pixels = np.concatenate([result.image.numpy().ravel() for result in names["in_range"][layer][0]])
        assert 0 <= pixels.min() < pixels.max() <= 1
    start, after = names["plain"]["9"][0][0].scores[0], names["plain"]["9"][0][0].scores[-1]
    assert after > 10 * abs(start)


def test_the_same_seed_gives_the_same_pictures(run, network):
    names, (model, examples) = run[0], network
    found, from_image = names["plain"]["4"]
    again, from_image_again = _dream.excite(model, "4", range(64), names["real"]["4"], examples, 0)
    np.testing.assert_array_equal(from_image, from_image_again)
    for one, other in zip(found, again, strict=True):
        assert one.scores == pytest.approx(other.scores, rel=1e-4)
    other_seed, _ = _dream.excite(model, "9", [3], names["real"]["9"], examples, 1)
    assert other_seed[0].scores != names["plain"]["9"][0][3].scores


def test_a_filter_that_noise_does_not_reach_begins_with_the_image_that_excites_it_most(run, network):
    names, (model, examples) = run[0], network
    found, from_image = names["plain"]["4"]
    assert from_image.any()
    real = scores_by_hand(model, examples, "4")
    for o in np.flatnonzero(from_image):
        assert found[o].scores[0] == pytest.approx(real[:, o].max(), rel=1e-4)
        alone = maximize(model, "4", int(o), image_shape=(1, 8, 8), generator=minidl.Generator().manual_seed(0))
        assert alone.dead


def test_nearest_images_are_those_at_the_smallest_angle(rng):
    real = rng.standard_normal((30, 6))
    found = _dream.nearest(5 * real[7] + 1e-3, real, 4)
    assert found[0] == 7
    cosines = real @ (5 * real[7] + 1e-3) / np.linalg.norm(real, axis=1)
    assert set(found) == set(np.argsort(-cosines)[:4])


def test_real_images_beside_the_pictures(run):
    names = run[0]
    for row, label in zip(names["rows_of_classes"], names["names"], strict=True):
        assert row.name == label
        scores = names["real"]["9"][:, int(label)]
        np.testing.assert_array_equal(row.scores, np.sort(scores)[::-1][:9])
        np.testing.assert_array_equal(row.exciting[0].numpy(), names["examples"][int(scores.argmax())].numpy())
        assert len(row.near) == len(row.classes) == 4
    np.testing.assert_array_equal(names["examples"].numpy(), names["images"].numpy()[:1000])      # of the training set


def test_its_figures(run):
    names, figures, folder = run
    assert list(figures) == FIGURES
    for name in FIGURES:
        assert (folder / f"{name}.png").stat().st_size > 10_000
    found, from_image = names["plain"]["4"]
    for k, axes in enumerate(figures["sheet"].axes):
        if found[k].dead:
            assert not axes.images
            assert axes.texts[0].get_text() == "dead"
            assert axes.get_title() == str(k)
        else:
            assert axes.get_title() == f"{k}{'*' if from_image[k] else ''}: {_dream.number(found[k].scores[-1])}"
            np.testing.assert_allclose(axes.images[0].get_array(), found[k].picture[0].numpy(), atol=0.5 / 255 + 1e-6)
    assert len(figures["sheet"].axes) == len(figures["sheet_sharp"].axes) == 64
    for axes, name in zip(figures["curves"].axes, ("1", "4", "8", "9"), strict=True):
        assert len(axes.lines) == names["layer_metrics"][name]["live"] + 2      # and the median, and the best real image
    assert [axes.get_title().split("\n")[0] for axes in figures["strip"].axes[:4]] == list(names["variants"])
    saved = json.loads((folder / "metrics.json").read_text())
    rough, metrics_of_sharp = saved["roughness"], saved["sharp"]
    assert rough["+ total variation"] < rough["+ jitter"]
    assert metrics_of_sharp["share_above_start_and_mean"] >= 0.9


def test_what_is_drawn_where_there_is_no_picture():
    import matplotlib.pyplot as plt

    def drawn(image, dead, is_live):
        figure, axes = plt.subplots()
        _dream.show_result(axes, Maximized(image, as_picture(image), [0.0, 0.0], dead), "title", is_live)
        plt.close(figure)
        return len(axes.images), [text.get_text() for text in axes.texts]

    noise, flat = minidl.rand(1, 8, 8), minidl.ones(3, 8, 8)
    assert drawn(noise, True, False) == (0, ["dead"])
    assert drawn(noise, True, True) == (0, ["lost"])
    assert drawn(flat, False, True) == (0, ["even"])
    assert drawn(noise, False, True) == (1, [])


def test_another_layer_takes_its_place_among_the_others():
    assert _dream.layers_of("digits", (1, 8, 8), None)[1] == "4"
    assert _dream.layers_of("digits", (1, 8, 8), "8") == (_dream.OF_CNN, "8")
    layers, main = _dream.layers_of("cifar10", (3, 32, 32), "stage2.0.conv1")
    assert main == "stage2.0.conv1"
    assert list(layers) == ["stem.2", "stage1.0.relu2", "stage2.0.conv1", "stage2.0.relu2", "stage3.0.relu2", "classifier"]
    assert layers[main] == "Conv2d"


@pytest.mark.parametrize(("arguments", "said"), [
    (["--layer=44"], "--layer: got the layer '44', expected a part of the model; the nearest"),
    (["--layer=stage9", "--dataset=cifar10"], "CIFAR10"),
    (["--dataset=mnist"], "--download"),
])
def test_bad_input_is_one_sentence(tmp_path, arguments, said):
    result = run_lab("dream", *arguments, f"--data-dir={tmp_path / 'none'}", "--out", tmp_path / "out", check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert said in result.stderr


# -- on the real data --------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "kind", "layer", "accuracy"), [("mnist", MNIST, "4", 0.93), ("cifar10", CIFAR10, "stage3.0.relu2", 0.35)])
def test_pictures_of_live_filters_excite_them(tmp_path, dataset, kind, layer, accuracy):
    data = os.environ.get("MINIDL_DATA")
    try:
        kind(data, True)
        kind(data, False)
    except MinidlError as error:
        pytest.skip(f"{dataset} is not here: {error}")
    run_lab("dream", "--dataset", dataset, "--retrain", "--out", tmp_path, data=data or "")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    saved = minidl.load(tmp_path / ("small_cnn.safetensors" if dataset == "mnist" else "small_resnet.safetensors"))
    print(f"\n{dataset}: accuracy {saved['test_accuracy']:.2%}", json.dumps(metrics["layers"], indent=1))
    assert saved["test_accuracy"] > accuracy
    assert metrics["main_layer"] == layer
    for name, row in metrics["layers"].items():
        assert row["share"] >= 0.9, name
        assert row["share_from_noise"] >= 0.9, name
        assert row["share_above_noise_of_equal_length"] >= 0.9, name
    again = tmp_path / "again"
    if dataset == "cifar10":                                            # the network is kept, and found again
        again.mkdir()
        (tmp_path / "small_resnet.safetensors").rename(again / "small_resnet.safetensors")
        said = run_lab("dream", "--dataset", dataset, "--out", again, data=data or "").stdout
        assert "The network is the one in" in said
        assert json.loads((again / "metrics.json").read_text())["layers"] == metrics["layers"]
