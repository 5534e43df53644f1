"""The lab of activation maximisation on ResNet50V2: its weights, its label, what it counts and what its figures show."""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
import urllib.error
import urllib.request

import matplotlib.pyplot as plt
import numpy as np
import pytest

import minidl
from labs import _dream, _dream_resnet50v2, _photographs
from labs._dream_resnet50v2 import LABEL, OF_STAGES
from labs._lab import Lab
from minidl import nn
from minidl.errors import MinidlError
from minidl.models import imagenet, resnet50v2
from minidl.visualize import Maximized, capture, maximize, receptive_field
from tests.figures import run_here, run_lab, run_once
from tests.keras_files import weights_of, write_legacy

SHALLOW, DEEP = _dream_resnet50v2.SHEETS
FIGURES = ["photographs", f"sheet_{SHALLOW}", f"sheet_{DEEP}", "curves", "layers"]
FILE = "resnet50v2_weights_tf_dim_ordering_tf_kernels.h5"
SIZE = 64


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """Nothing of the user's is found and nothing can be downloaded, here or in a process that a test starts."""
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("there is no network in this test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("MINIDL_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(urllib.request, "urlopen", refuse)
        for name in ("no_proxy", "NO_PROXY"):
            patch.delenv(name, raising=False)
        for name in ("https_proxy", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")            # nobody listens there, so a connection fails at once
        yield


@pytest.fixture(autouse=True)
def _offline(offline):
    pass


@pytest.fixture(scope="module")
def run(offline, tmp_path_factory):
    """One run with random weights in this process: its names, figures and folder. Every figure has been checked."""
    return run_once(tmp_path_factory, "dream_resnet50v2", "--random-weights", "--size", SIZE, "--filters", 4)


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


@pytest.fixture(scope="module")
def network():
    """The one of the run, made anew from its seed."""
    minidl.manual_seed(0)
    return resnet50v2().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def photographs():
    """In bytes, and made ready by hand."""
    squares = _photographs.squares(_photographs.photographs(), SIZE)
    return squares, squares.float() / 127.5 - 1


@pytest.fixture(scope="module")
def of_seed_5(tmp_path_factory):
    """Another random network, whose normalisation does something and which is for class 281, and its weights in a file."""
    pytest.importorskip("h5py")
    minidl.manual_seed(5)
    network = resnet50v2().eval().requires_grad_(False)
    rng = np.random.default_rng(5)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
                values += minidl.tensor(rng.uniform(0, 0.1, values.shape).astype(np.float32))
    network.predictions[0].bias[281] += 3
    path = tmp_path_factory.mktemp("weights") / "mine.h5"
    write_legacy(path, weights_of(network), ending=":0")
    return network, path


def scores_by_hand(network, images, layer):
    """(N, O): the mean of each map, without two cells at each edge where the map has more than four."""
    with minidl.no_grad():
        if layer == SHALLOW:                                            # step by step
            x = network.pool1_pool(network.pool1_pad(network.conv1_conv(images)))
            y = network.conv2_block1_1_conv(network.conv2_block1_preact_relu(network.conv2_block1_preact_bn(x)))
        else:
            y = capture(network, images, [layer])[layer]
    y = y.numpy()
    return (y[:, :, 2:-2, 2:-2] if y.shape[2] > 4 else y).mean((2, 3))


# -- with random weights -----------------------------------------------------------------------------------------------

def test_its_figures_are_there_and_each_says_that_the_weights_are_random(run):
    names, figures, folder = run
    assert list(figures) == FIGURES
    for name, figure in figures.items():
        assert (folder / f"{name}.png").stat().st_size > 10_000
        first, _, rest = figure.get_suptitle().partition("\n")
        assert first == LABEL
        assert len(rest) > 10
        drawn = [text for text in figure.texts if text.get_text().startswith(LABEL)]
        assert len(drawn) == 1
        assert drawn[0].get_color() == "crimson"
    page = (folder / "report.html").read_text()
    assert -1 < page.index(LABEL) < page.index("<img")
    assert "There is nothing to check: random weights know no classes." in page
    assert names["lab"].metrics["weights"] == "random"


def test_what_its_figures_show(run):
    names, figures, _ = run
    for layer in (SHALLOW, DEEP):
        axes = figures[f"sheet_{layer}"].axes
        assert [a.get_title() for a in axes] == [f"{k}: {_dream.number(result.scores[-1])}" for k, result in enumerate(names["plain"][layer][0])]
        for a, result in zip(axes, names["plain"][layer][0], strict=True):
            np.testing.assert_allclose(a.images[0].get_array(), result.picture.permute(1, 2, 0).numpy(), atol=0.5 / 255 + 1e-6)
    assert [a.get_title().partition("\n")[0] for a in figures["photographs"].axes] == [
        f"{photograph.name} ({photograph.library})" for photograph in _photographs.photographs()]
    for axes, layer in zip(figures["curves"].axes, OF_STAGES, strict=True):
        assert axes.get_title().startswith(f"{layer}: ")
        assert len(axes.lines) == 4 + 2                                 # a line for each filter, the median, the best photograph
        assert len(axes.lines[0].get_xdata()) == 31                     # the start and 30 steps
    words = [a.texts[0].get_text() for a in figures["layers"].axes if a.texts]
    assert words == [f"{layer}\nsees {seen} pixels\n{kind}" for layer, seen in zip(OF_STAGES, (11, 99, 291, 483), strict=True)
                     for kind in ("plain", "sharp")]


def test_its_numbers_are_those_of_its_network_and_pictures(run, metrics, network, photographs):
    names = run[0]
    assert (metrics["size"], metrics["filters"], metrics["seed"]) == (SIZE, 4, 0)
    assert list(metrics["layers"]) == list(OF_STAGES)
    assert metrics["sheets"] == [SHALLOW, DEEP]
    for layer, row in metrics["layers"].items():
        real = scores_by_hand(network, photographs[1], layer)[:, :4]
        found = names["plain"][layer][0]
        images = minidl.stack([result.image for result in found])
        assert images.shape == (4, 3, SIZE, SIZE)
        final = scores_by_hand(network, images, layer)[range(4), range(4)]
        noise = (minidl.rand(3, SIZE, SIZE, generator=minidl.Generator().manual_seed(0)) - 0.5).numpy()
        start = scores_by_hand(network, minidl.tensor(noise * 0.25)[None], layer)[0, :4]
        lengths = np.linalg.norm(images.numpy().reshape(4, -1), axis=1)
        scaled = noise / np.linalg.norm(noise) * lengths[:, None, None, None]
        of_noise = scores_by_hand(network, minidl.tensor(scaled.astype(np.float32)), layer)[range(4), range(4)]
        close = {"rtol": 1e-3, "atol": 1e-5}
        np.testing.assert_allclose(metrics["scores"][layer], final, **close)
        np.testing.assert_allclose([result.scores[0] for result in found], start, **close)
        assert (row["channels"], row["live"], row["from_image"]) == (4, 4, 0)
        for key, value in (("start", start), ("final", final), ("noise_of_equal_length", of_noise),
                           ("mean_photograph", real.mean(0)), ("best_photograph", real.max(0))):
            np.testing.assert_allclose(row[f"median_{key}"], np.median(value), **close)
        assert row["share_above_start"] == np.mean(final > start) == 1
        assert row["share_above_best_photograph"] == np.mean(final > real.max(0))
        assert row["share_above_noise_of_equal_length"] == np.mean(final > of_noise)
        assert row["seconds"] > 0
        rough = [_dream.roughness(result.image) for result in found]
        assert metrics["roughness"]["layers"][layer]["plain"] == pytest.approx(np.median(rough))
        assert metrics["roughness"]["layers"][layer]["sharp"] < metrics["roughness"]["layers"][layer]["plain"]
    everything = np.concatenate([result.image.numpy().ravel() for layer in OF_STAGES for result in names["plain"][layer][0]])
    assert metrics["pixel_range"] == [everything.min(), everything.max()]
    assert metrics["roughness"]["photographs"] < metrics["roughness"]["noise"] == pytest.approx(4, rel=0.05)    # each difference has twice the variance


def test_the_photographs_are_classified_at_the_size_that_the_network_was_made_for(metrics, network):
    squares = _photographs.squares(_photographs.photographs(), 224)
    with minidl.no_grad():
        p = network(squares.float() / 127.5 - 1).numpy().astype(np.float64)
    for row, of_photograph in zip(metrics["classification"]["photographs"], p, strict=True):
        assert sorted(row["classes"]) == sorted(np.argsort(-of_photograph)[:5])
        np.testing.assert_allclose(row["probabilities"], np.sort(of_photograph)[::-1][:5], rtol=1e-3)
        assert row["effective_classes"] == pytest.approx(np.exp(-(of_photograph * np.log(of_photograph)).sum()), rel=1e-3)
    assert metrics["classification"]["expectation_met"] is None


def test_what_is_counted_is_counted_among_live_filters():
    one_by_one = nn.Sequential(nn.Conv2d(1, 4, kernel_size=1, bias=False))
    one_by_one[0].weight.data[:] = minidl.tensor([0.0, 1, 1, -1]).reshape(4, 1, 1, 1)
    real = np.array([[5.0, 1, 1, 1], [5.0, 3, 3, 3]])                   # the first says the same to both photographs
    image = minidl.ones(1, 6, 6)
    found = [Maximized(image, image, [start, final], False) for start, final in ((0.0, 9.0), (0.0, 4.0), (0.0, 2.5), (2.5, 2.0))]
    row = _dream_resnet50v2.summary(one_by_one, "0", range(4), real, (found, np.array([True, False, True, False])), 0)
    noise = (minidl.rand(1, 6, 6, generator=minidl.Generator().manual_seed(0)) - 0.5).numpy()
    noise *= 6 / np.linalg.norm(noise)                                  # as long as the image
    of_noise = noise[0, 2:-2, 2:-2].mean()
    assert row.pop("median_noise_of_equal_length") == pytest.approx(np.median([of_noise, of_noise, -of_noise]), rel=1e-4)
    assert row == {"channels": 4, "live": 3, "from_image": 1, "share_above_start": 2 / 3, "share_above_best_photograph": 1 / 3,
                   "share_above_noise_of_equal_length": 1.0, "median_start": 0.0, "median_final": 2.5,
                   "median_mean_photograph": 2.0, "median_best_photograph": 3.0}
    none = _dream_resnet50v2.summary(one_by_one, "0", range(4), real[:1], (found, np.zeros(4, bool)), 0)
    assert none["live"] == 0
    assert np.isnan([none["share_above_start"], none["median_final"]]).all()


def test_filters_begin_with_the_same_noise_and_do_not_depend_on_their_batch(network, photographs):
    real = scores_by_hand(network, photographs[1], SHALLOW)
    found, stars = _dream_resnet50v2.excite(network, SHALLOW, range(10), real, photographs[1], 3, steps=3)
    assert len(found) == len(stars) == 10 > _dream_resnet50v2.BATCH
    for o in (0, 7, 8, 9):
        alone = maximize(network, SHALLOW, o, image_shape=(3, SIZE, SIZE), steps=3, generator=minidl.Generator().manual_seed(3))
        np.testing.assert_allclose(found[o].scores, alone.scores, rtol=1e-3, atol=1e-6)


def test_the_seen_pixels_are_those_that_can_be_measured(network):
    seen = _dream_resnet50v2.seen_pixels()
    assert len(seen) == 3 * 16
    for layer in (SHALLOW, "conv2_block1_2_conv"):
        assert receptive_field(network, layer, (3, SIZE, SIZE)).size == (seen[layer], seen[layer])


def test_other_layers_take_the_place_of_the_sheets_in_the_order_of_the_network(network):
    assert _dream_resnet50v2.layers_of(network, None) == (list(OF_STAGES), [SHALLOW, DEEP])
    layers, sheets = _dream_resnet50v2.layers_of(network, ["predictions.0", "conv3_block1_out", "predictions.0"])
    assert sheets == ["conv3_block1_out", "predictions.0"]
    assert layers == [SHALLOW, "conv3_block1_out", *OF_STAGES[1:], "predictions.0"]


def test_chosen_filters_take_the_place_of_the_first_ones(monkeypatch, tmp_path, network, photographs):
    chosen = ["--filter", 42, "--filter", 7, "--filter", 42]
    names, figures = run_here(monkeypatch, "dream_resnet50v2", "--random-weights", "--size", SIZE, "--filters", 2, "--layer", SHALLOW,
                              *chosen, "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["channels"] == {SHALLOW: [42, 7], **{name: [0, 1] for name in OF_STAGES[1:]}}
    titles = [axes.get_title() for axes in figures[f"sheet_{SHALLOW}"].axes]
    assert [title.partition(":")[0] for title in titles] == ["42", "7"]
    images = minidl.stack([result.image for result in names["plain"][SHALLOW][0]])
    by_hand = scores_by_hand(network, images, SHALLOW)[range(2), [42, 7]]
    np.testing.assert_allclose(metrics["scores"][SHALLOW], by_hand, rtol=1e-3)
    real = scores_by_hand(network, photographs[1], SHALLOW)[:, [42, 7]]
    assert metrics["layers"][SHALLOW]["median_best_photograph"] == pytest.approx(np.median(real.max(0)), rel=1e-3)


# -- with weights ------------------------------------------------------------------------------------------------------

def test_a_file_of_weights_gives_what_its_network_gives_and_labs_dream_hands_over(monkeypatch, tmp_path, of_seed_5, photographs):
    network, path = of_seed_5
    figures, save = {}, Lab.figure

    def keep(lab, figure, name, caption):
        figures[name] = figure
        save(lab, figure, name, caption)

    monkeypatch.setattr(Lab, "figure", keep)
    with pytest.raises(SystemExit) as end:
        run_here(monkeypatch, "dream", "--model", "resnet50v2", "--weights", path, "--size", SIZE, "--filters", 2, "--layer", SHALLOW,
                 "--out", tmp_path)
    assert not end.value.code
    assert list(figures) == [name for name in FIGURES if name != f"sheet_{DEEP}"]
    for figure in figures.values():
        assert figure.get_suptitle()
        assert "RANDOM" not in figure.get_suptitle()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (metrics["lab"], metrics["weights"]) == ("dream_resnet50v2", str(path))
    assert manifest["command"].startswith(f"python -m labs.dream_resnet50v2 --weights {path}")
    for layer in OF_STAGES:
        real = scores_by_hand(network, photographs[1], layer)
        expected = _dream_resnet50v2.excite(network, layer, range(2), real, photographs[1], 0)[0]
        np.testing.assert_allclose(metrics["scores"][layer], [result.scores[-1] for result in expected], rtol=1e-3, atol=1e-5)
        assert metrics["layers"][layer]["median_best_photograph"] == pytest.approx(np.median(real[:, :2].max(0)), rel=1e-3, abs=1e-5)
    with minidl.no_grad():
        p = network(_photographs.squares(_photographs.photographs(), 224).float() / 127.5 - 1).numpy()
    rows = metrics["classification"]["photographs"]
    for row, of_photograph in zip(rows, p, strict=True):
        assert row["classes"][0] == 281 == of_photograph.argmax()
        np.testing.assert_allclose(row["probabilities"], np.sort(of_photograph)[::-1][:5], rtol=1e-3)
    met = [row["name"] for row in rows if set(row["classes"]) & set(row["expected"])]
    assert metrics["classification"]["expectation_met"] == len(met)
    assert metrics["classification"]["with_expectation"] == sum(bool(row["expected"]) for row in rows)
    assert ("chelsea" in met) == (len(rows) > 2)                        # 281 is a cat
    assert "RANDOM" not in re.sub(r"<pre>.*?</pre>", "", (tmp_path / "report.html").read_text(), flags=re.DOTALL)
    assert "class 281 " in figures["photographs"].axes[0].get_title()   # the names are not here, so the number


def test_weights_that_say_the_same_to_every_photograph(tmp_path):
    pytest.importorskip("h5py")
    network = resnet50v2()
    with minidl.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    write_legacy(tmp_path / "zeros.h5", weights_of(network))
    out = tmp_path / "out"
    run_lab("dream_resnet50v2", "--weights", tmp_path / "zeros.h5", "--size", SIZE, "--filters", 1, "--out", out)
    assert not (out / "curves.png").exists()
    assert "No filter is live" in (out / "report.html").read_text()
    assert {row["live"] for row in json.loads((out / "metrics.json").read_text())["layers"].values()} == {0}


def one_sentence(result, said):
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "\r" not in result.stderr                                    # nor a bar of progress
    assert said in result.stderr


def test_without_weights_it_says_that_only_real_ones_give_pictures(tmp_path):
    result = run_lab("dream", "--model=resnet50v2", "--out", tmp_path / "out", check=False, data=os.environ["MINIDL_DATA"])
    one_sentence(result, "error: --weights: only weights trained on ImageNet give meaningful pictures; ")
    for words in (FILE, f"put the file into {os.environ['MINIDL_DATA']}/keras by hand", "--random-weights"):
        assert words in result.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("arguments", "said"), [
    (["--random-weights", "--layer=conv2_block1_1"], "--layer: got the layer 'conv2_block1_1', expected a part of the model; the nearest are 'conv2_block1_1_"),
    (["--layer=conv5_block3_3_conf"], "the nearest are 'conv5_block3_3_conv'"),         # and not that there are no weights
    (["--random-weights", "--weights=x.h5"], "--random-weights: got --weights x.h5, too; expected one of the two"),
    (["--random-weights", "--size=63"], "--size: got 63, expected at least 64"),
    (["--random-weights", "--filter=1", "--filter=64"], "--filter: got 64, expected 0 to 63: the layer conv2_block1_1_conv has 64 filters"),
    (["--weights=none.h5"], "got none.h5, where there is no file"),
])
def test_bad_input_is_an_error_before_anything_is_there(monkeypatch, tmp_path, arguments, said):
    with pytest.raises(MinidlError) as error:
        run_here(monkeypatch, "dream_resnet50v2", *arguments, "--out", tmp_path / "out")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_file_of_weights_is_one_sentence(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    one_sentence(run_lab("dream_resnet50v2", "--weights", tmp_path / "damaged.h5", "--out", tmp_path / "out", check=False),
                 "damaged.h5 of 20 bytes, which is no whole HDF5 file")
    assert not list((tmp_path / "out").iterdir())


# -- the command line of labs.dream ------------------------------------------------------------------------------------

@pytest.mark.parametrize(("argv", "model", "rest"), [
    (["--model", "resnet50v2", "--size", "64"], "resnet50v2", ["--size", "64"]), (["--seed=1", "--model=small"], "small", ["--seed=1"]),
    (["--mod", "resnet50v2", "--help"], "resnet50v2", ["--help"]), (["--layer", "8"], None, ["--layer", "8"]), (["--model"], None, []),
])
def test_which_model_is_asked_for(argv, model, rest):
    assert _dream.asked_model(argv) == (model, rest)


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (["--help"], 0, "--model small|resnet50v2"), (["--model", "resnet50v2", "--help"], 0, "usage: python -m labs.dream_resnet50v2"),
    (["--model", "small", "--help"], 0, "usage: python -m labs.dream "), (["--model", "vgg"], 2, "--model: got 'vgg', expected small or resnet50v2"),
    (["--model"], 2, "expected one argument"), (["--model", "resnet50v2", "--dataset", "digits"], 2, "unrecognized arguments: --dataset digits"),
])
def test_the_command_line_of_labs_dream(monkeypatch, capsys, arguments, code, said):
    monkeypatch.setattr(sys, "argv", ["dream", *arguments])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("labs.dream", run_name="__main__")
    assert end.value.code == code
    printed = capsys.readouterr()
    assert said in (printed.err if code else printed.out)


def test_a_notebook_does_not_look_at_the_command_line(monkeypatch):
    monkeypatch.setattr("labs._lab.in_notebook", lambda: True)
    monkeypatch.setattr(sys, "argv", ["kernel", "--model", "resnet50v2"])
    handed_over, run_module = [], runpy.run_module
    monkeypatch.setattr(runpy, "run_module", lambda name, **settings: handed_over.append(name))

    class Made(Exception):
        pass

    def stop(self, name, *args, **settings):
        raise Made(name)

    monkeypatch.setattr(Lab, "__init__", stop)
    with pytest.raises(Made, match=r"^dream$"):                          # its own lab, and not the other
        run_module("labs.dream", run_name="__main__")
    assert handed_over == []


# -- the photographs, and what is made of probabilities ----------------------------------------------------------------

def test_the_photographs_of_scikit_learn_are_always_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    found = _photographs.photographs()
    assert [(photograph.name, photograph.library, photograph.expected) for photograph in found] == [
        ("china", "scikit-learn", ()), ("flower", "scikit-learn", ())]
    assert all(photograph.pixels.shape == (427, 640, 3) and photograph.pixels.dtype == np.uint8 for photograph in found)


def test_the_photographs_of_scikit_image_are_those_that_lie_in_its_package(monkeypatch):
    pytest.importorskip("skimage")
    found = {photograph.name: photograph for photograph in _photographs.photographs()}
    assert {"china", "flower", *_photographs.OF_SKIMAGE} == set(found)
    assert all(photograph.pixels.ndim == 3 and photograph.pixels.dtype == np.uint8 for photograph in found.values())
    assert found["chelsea"].expected == (281, 282, 283, 284, 285)
    monkeypatch.setitem(_photographs.OF_SKIMAGE, "rocket", ("far_away.jpg", (657, 744)))
    assert {photograph.name for photograph in _photographs.photographs()} == set(found) - {"rocket"}


def test_squares_are_the_middle_and_keep_colours_in_their_places(rng):
    wide = rng.integers(0, 256, (6, 10, 3), dtype=np.uint8)
    tall = rng.integers(0, 256, (9, 6, 3), dtype=np.uint8)
    same = _photographs.squares([_photographs.Photograph("wide", "", wide), _photographs.Photograph("tall", "", tall)], 6)
    np.testing.assert_array_equal(same[0].numpy(), wide[:, 2:8].transpose(2, 0, 1))
    np.testing.assert_array_equal(same[1].numpy(), tall[1:7].transpose(2, 0, 1))
    halves = np.zeros((40, 40, 3), np.uint8)
    halves[:, 20:, 1] = 200
    small = _photographs.squares([_photographs.Photograph("halves", "", halves)], 8).numpy()[0]
    assert small.shape == (3, 8, 8)
    assert (small[1, :, :3] < 10).all()
    assert (small[1, :, 5:] > 190).all()
    assert not small[[0, 2]].any()


def test_without_scikit_image_the_lab_says_so(monkeypatch, tmp_path, capsys):
    class Seen(Exception):
        pass

    def stop(lab, figure, name, caption):
        assert (name, len(figure.axes)) == ("photographs", 2)
        raise Seen

    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(Lab, "figure", stop)
    monkeypatch.setattr(sys, "argv", ["dream_resnet50v2", "--random-weights", f"--size={SIZE}", f"--out={tmp_path}"])
    with pytest.raises(Seen):
        runpy.run_module("labs.dream_resnet50v2", run_name="__main__")
    plt.close("all")
    assert "scikit-image is not installed" in capsys.readouterr().out


def test_names_of_classes_or_none(monkeypatch):
    assert _dream_resnet50v2.names_of_classes() is None
    monkeypatch.setattr(imagenet, "class_names", lambda: [("n1", "coffee_mug"), ("n2", "cup")])
    assert _dream_resnet50v2.names_of_classes() == ["coffee mug", "cup"]


def test_what_is_made_of_probabilities():
    p = np.array([[0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]], np.float32)
    np.testing.assert_allclose(_dream_resnet50v2.effective_classes(p)[:2], [4, 1])
    np.testing.assert_array_equal(_dream_resnet50v2.most_probable(p, 2), [[0, 1], [1, 0], [3, 2]])


def test_a_figure_without_a_title_gets_the_label_too():
    figure = plt.figure()
    assert _dream_resnet50v2.labelled(figure).get_suptitle() == LABEL
    plt.close(figure)
