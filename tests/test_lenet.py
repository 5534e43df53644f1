"""The LeNet lab: the network, its training in two variants, what it reports, and what its figures show."""

from __future__ import annotations

import json
import os
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from labs import _lenet
from minidl import models, nn
from minidl.data import DataLoader, TensorDataset
from minidl.datasets import CIFAR10, MNIST, Digits
from minidl.errors import MinidlError
from minidl.models import lenet
from tests.figures import run_here, run_lab

VARIANTS = {"tanh + average": "tanh_average", "ReLU + max": "relu_max"}
FIGURES = ["curves", "mistakes", "classes", "confusion", "kernels", "maps_tanh_average", "maps_relu_max"]
EPOCHS = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run in this process: its names, figures and folder, the first weights of its networks, its batches of labels."""
    folder, first_weights, batches = tmp_path_factory.mktemp("lenet"), [], []

    def make(*arguments, **settings):
        network = lenet(*arguments, **settings)
        first_weights.append({name: value.numpy().copy() for name, value in network.state_dict().items()})
        return network

    def loss(scores, labels, cross_entropy=F.cross_entropy):
        batches.append(labels.numpy().copy())
        return cross_entropy(scores, labels)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(models, "lenet", make)
        monkeypatch.setattr(F, "cross_entropy", loss)
        monkeypatch.setattr("labs._lab.Lab.code", lambda lab, thing: None)          # it cannot find the source of `make`
        names, figures = run_here(monkeypatch, "lenet", "--out", folder, "--epochs", EPOCHS)
    return names, figures, folder, first_weights, batches


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


# -- the network -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("image_shape", "count"), [
    ((1, 28, 28), 156 + 2416 + 30_840 + 10_164 + 850), ((3, 32, 32), 456 + 2416 + 48_120 + 10_164 + 850), ((1, 16, 17), None)])
@pytest.mark.parametrize(("activation", "pooling"), [(nn.Tanh, nn.AvgPool2d), (nn.ReLU, nn.MaxPool2d)])
def test_the_network_has_these_parameters_and_layers(image_shape, count, activation, pooling):
    network = lenet(image_shape, 7, activation, pooling)
    assert tuple(network(minidl.zeros(2, *image_shape)).shape) == (2, 7)
    kinds = [type(layer) for layer in network]
    assert (kinds.count(activation), kinds.count(pooling), kinds.count(nn.Conv2d), kinds.count(nn.Linear)) == (4, 2, 2, 3)
    if count is not None:
        assert sum(p.numel() for p in network.parameters()) == count - 3 * 85           # 7 classes instead of 10


def test_it_is_the_textbook_network_by_default():
    network = lenet()
    assert sum(p.numel() for p in network.parameters()) == 44_426
    assert [type(layer).__name__ for layer in network] == [
        "Conv2d", "Tanh", "AvgPool2d", "Conv2d", "Tanh", "AvgPool2d", "Flatten", "Linear", "Tanh", "Linear", "Tanh", "Linear"]


@pytest.mark.parametrize("image_shape", [(1, 15, 28), (3, 28, 15)])
def test_images_that_are_too_small(image_shape):
    _, height, width = image_shape
    with pytest.raises(MinidlError, match=f"^lenet: got images of {height}×{width}, expected at least 16×16"):
        lenet(image_shape)


@pytest.mark.torch
@pytest.mark.parametrize(("activation", "pooling"), [("Tanh", "AvgPool2d"), ("ReLU", "MaxPool2d")])
def test_its_scores_and_gradients_are_those_of_pytorch(torch, rng, activation, pooling):
    ours = lenet((3, 32, 32), 10, getattr(nn, activation), getattr(nn, pooling))
    kinds = torch.nn
    active, pool = getattr(kinds, activation), getattr(kinds, pooling)
    theirs = kinds.Sequential(kinds.Conv2d(3, 6, 5), active(), pool(2), kinds.Conv2d(6, 16, 5), active(), pool(2), kinds.Flatten(),
                              kinds.Linear(400, 120), active(), kinds.Linear(120, 84), active(), kinds.Linear(84, 10))
    theirs.load_state_dict({name: torch.from_numpy(value.numpy().copy()) for name, value in ours.state_dict().items()})
    images, labels = rng.random((5, 3, 32, 32), np.float32), rng.integers(0, 10, 5)
    scores, expected = ours(minidl.from_numpy(images)), theirs(torch.from_numpy(images))
    np.testing.assert_allclose(scores.detach().numpy(), expected.detach().numpy(), atol=1e-6)
    F.cross_entropy(scores, minidl.from_numpy(labels)).backward()
    torch.nn.functional.cross_entropy(expected, torch.from_numpy(labels)).backward()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(own.grad.numpy(), other.grad.numpy(), atol=1e-6)


# -- the lab -----------------------------------------------------------------------------------------------------------

def test_both_variants_start_alike_and_see_the_same_batches(run):
    _, _, _, first_weights, batches = run
    assert len(first_weights) == 3                          # the one in the table, then the two that are trained
    for weights in first_weights[1:]:
        for name, value in first_weights[0].items():
            np.testing.assert_array_equal(weights[name], value, err_msg=name)
    steps = -(-1347 // 32)
    assert len(batches) == 2 * EPOCHS * steps
    for a, b in zip(batches[:EPOCHS * steps], batches[EPOCHS * steps:], strict=True):
        np.testing.assert_array_equal(a, b)
    epochs = [np.concatenate(batches[i * steps:(i + 1) * steps]) for i in range(EPOCHS)]
    for labels in epochs:
        np.testing.assert_array_equal(np.bincount(labels), np.bincount(Digits().targets))
    assert not np.array_equal(epochs[0], epochs[1])


def test_the_numbers_that_it_saves(run, metrics):
    assert (metrics["lab"], metrics["dataset"], metrics["device"], metrics["epochs"]) == ("lenet", "digits", "cpu", EPOCHS)
    assert (metrics["param_count"], metrics["image_shape"], metrics["test_count"]) == (44_426, [1, 28, 28], 450)
    assert [row["parameters"] for row in metrics["layers"].values() if row["parameters"]] == [156, 2416, 30_840, 10_164, 850]
    assert sum(row["multiply_adds"] for row in metrics["layers"].values()) == metrics["multiply_adds"] == (
        24 * 24 * 6 * 25 + 8 * 8 * 16 * 150 + 256 * 120 + 120 * 84 + 84 * 10)
    truth = np.array(Digits(train=False).targets)
    right = {}
    for name, key in VARIANTS.items():
        numbers, said = metrics[key], run[0]["predicted"][name]
        assert len(numbers["train_loss"]) == len(numbers["test_accuracy"]) == len(numbers["seconds_of_epochs"]) == EPOCHS
        assert numbers["seconds_per_epoch"] == np.median(numbers["seconds_of_epochs"]) > 0
        assert numbers["train_loss"][-1] < 0.2 * numbers["train_loss"][0]
        assert numbers["test_accuracy"][-1] > 0.87, name
        right[key] = said == truth
        assert numbers["test_accuracy"][-1] == right[key].mean()
        for k in range(10):
            share = right[key][truth == k].mean()
            assert numbers["per_class_accuracy"][k] == pytest.approx(share)
            assert numbers["per_class_deviation"][k] == pytest.approx(np.sqrt(share * (1 - share) / (truth == k).sum()))
            assert numbers["confusion"][k] == np.bincount(said[truth == k], minlength=10).tolist()
    assert metrics["test_count_of_class"] == np.bincount(truth).tolist()
    assert metrics["right_only_with_tanh_average"] == (right["tanh_average"] & ~right["relu_max"]).sum()
    assert metrics["right_only_with_relu_max"] == (right["relu_max"] & ~right["tanh_average"]).sum()


def test_the_saved_networks_are_those_that_were_tested(run, metrics):
    images, labels = run[0]["test_images"], run[0]["test_labels"]
    np.testing.assert_array_equal(labels.numpy(), Digits(train=False).targets)
    for name, activation, pooling in (("lenet", nn.Tanh, nn.AvgPool2d), ("lenet_relu_max", nn.ReLU, nn.MaxPool2d)):
        saved = minidl.load(run[2] / f"{name}.safetensors")
        assert (saved["activation"], saved["pooling"], saved["dataset"]) == (activation.__name__, pooling.__name__, "digits")
        network = lenet(saved["image_shape"], activation=activation, pooling=pooling)
        network.load_state_dict(saved["state_dict"])
        with minidl.no_grad():
            accuracy = (network(images).argmax(1) == labels).double().mean().item()
        key = "tanh_average" if name == "lenet" else "relu_max"
        assert accuracy == saved["test_accuracy"] == metrics[key]["test_accuracy"][-1]


def test_digits_are_enlarged_between_their_own_pixels(run):
    """Bilinear, pixel centres at (i + ½) · 8/28 − ½: by NumPy along the rows, then along the columns."""
    small = Digits(train=False).data.numpy()[:5] / 255
    places = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    wide = np.apply_along_axis(lambda row: np.interp(places, np.arange(8), row), 2, small)
    large = np.apply_along_axis(lambda column: np.interp(places, np.arange(8), column), 1, wide)
    np.testing.assert_allclose(run[0]["test_images"].numpy()[:5, 0], large, atol=1e-6)
    assert (tuple(run[0]["images"].shape), tuple(run[0]["test_images"].shape)) == ((1347, 1, 28, 28), (450, 1, 28, 28))


def blocks_by_hand(network, images, activation, pooling):
    """The six outputs of the two blocks, by the definitions, in float64."""
    found, x = [], images.numpy().astype(float)
    for i in (0, 3):
        weight, bias = (p.detach().numpy().astype(float) for p in (network[i].weight, network[i].bias))
        windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(2, 3))                  # (N, C, H', W', 5, 5)
        conv = np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]
        active = activation(conv)
        n, c, h, w = active.shape
        x = pooling(active.reshape(n, c, h // 2, 2, w // 2, 2), axis=(3, 5))
        found += [conv, active, x]
    return found


def test_the_maps_are_what_the_layers_put_out_for_six_classes(run, metrics):
    names, figures, *_ = run
    six = names["six"]
    truth = np.array(Digits(train=False).targets)
    assert [int(truth[i]) for i in six] == [0, 1, 2, 3, 4, 5]
    assert all((truth[:i] != truth[i]).all() for i in six), "the first of its class"
    for (name, key), activation, pooling in zip(VARIANTS.items(), (np.tanh, lambda x: np.maximum(x, 0)), (np.mean, np.max),
                                                strict=True):
        expected = blocks_by_hand(names["networks"][name], names["test_images"][six], activation, pooling)
        scales = metrics[key]["map_scales"]
        first, second = name.split(" + ")
        assert list(scales) == [f"{part} {block}" for block in (1, 2) for part in ("convolution", first, second)]
        np.testing.assert_allclose(list(scales.values()), [abs(maps).max() for maps in expected], rtol=1e-5)
        panels = figures[f"maps_{key}"].axes
        assert len(panels) == 7 * 6
        for column, i in enumerate(six):
            assert panels[column].get_title() == f"is {truth[i]}\nsays {names['predicted'][name][i]}"
            np.testing.assert_array_equal(panels[column].images[0].get_array(), names["test_images"][i, 0].numpy())
            for row, maps in enumerate(expected, 1):
                per_row = 3 if maps.shape[1] == 6 else 4
                for number, one in enumerate(maps[column]):
                    shown = cell(panels[6 * row + column], number, per_row, one.shape)
                    np.testing.assert_allclose(shown, colours(one, abs(maps).max()), atol=0.02)


def colours(values, largest):
    """What red for above 0 and blue for below means: (H, W) -> (H, W, 3)."""
    return plt.get_cmap("RdBu_r")((np.asarray(values) / largest + 1) / 2)[..., :3]


def cell(axes, number, per_row, shape):
    """One picture of a sheet, (H, W, 3), at its own size: pixels are 4×4 there, the gaps 2."""
    height, width = shape
    top, left = number // per_row * (4 * height + 2) + 2, number % per_row * (4 * width + 2) + 2
    picture = np.asarray(axes.images[0].get_array())[top:top + 4 * height, left:left + 4 * width]
    assert (picture == picture[::4, ::4].repeat(4, 0).repeat(4, 1)).all()
    return picture[::4, ::4]


def test_the_kernels_are_where_the_caption_says(run, metrics):
    names, figures, _, first_weights, _ = run
    panels = figures["kernels"].axes
    assert len(panels) == 6
    states = [first_weights[0], *({name: value.numpy() for name, value in names["networks"][name].state_dict().items()}
                                  for name in VARIANTS)]
    largest = [max(abs(state[name]).max() for state in states) for name in ("0.weight", "3.weight")]
    np.testing.assert_allclose(metrics["largest_weights"], largest, rtol=1e-6)
    for row, state in enumerate(states):
        for number, kernel in enumerate(state["0.weight"]):
            np.testing.assert_allclose(cell(panels[2 * row], number, 3, (5, 5)), colours(kernel[0], largest[0]), atol=0.02)
        for map_number, of_map in enumerate(state["3.weight"]):
            for source, kernel in enumerate(of_map):
                shown = cell(panels[2 * row + 1], 16 * source + map_number, 16, (5, 5))
                np.testing.assert_allclose(shown, colours(kernel, largest[1]), atol=0.02)


def test_kernels_for_three_channels_are_colours_around_grey(rng):
    weights = [rng.uniform(-0.3, 0.3, shape).astype(np.float32) for shape in ((6, 3, 5, 5), (16, 6, 5, 5))]
    one, two = map(minidl.from_numpy, weights)
    figure, largest = _lenet.draw_kernels({"as it is": (one, two), "less of it": (one / 2, two / 2)})
    np.testing.assert_allclose(largest, [abs(weight).max() for weight in weights])
    for number, kernel in enumerate(weights[0]):
        expected = 0.5 + kernel.transpose(1, 2, 0) / (2 * largest[0])
        np.testing.assert_allclose(cell(figure.axes[0], number, 3, (5, 5)), expected, atol=1e-6)
        np.testing.assert_allclose(cell(figure.axes[2], number, 3, (5, 5)), (expected + 0.5) / 2, atol=1e-6)
    plt.close(figure)


def test_its_figures(run, metrics):
    _, figures, folder, *_ = run
    assert list(figures) == FIGURES
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png;base64") == len(FIGURES)
    for name in figures:
        assert (folder / f"{name}.png").stat().st_size > 10_000
    loss, accuracy = figures["curves"].axes
    for name, key in VARIANTS.items():
        drawn = {line.get_label(): line for line in accuracy.lines}[name]
        np.testing.assert_array_equal(drawn.get_xdata(), range(1, EPOCHS + 1))
        np.testing.assert_array_equal(drawn.get_ydata(), metrics[key]["test_accuracy"])
        drawn = {line.get_label(): line for line in loss.lines}[name]
        steps = np.diff([0, *drawn.get_xdata()]) / EPOCHS                   # the first parts have a step more
        assert (drawn.get_xdata()[-1], len(steps), sum(steps)) == (EPOCHS, 60, pytest.approx(1))
        np.testing.assert_allclose(drawn.get_ydata() @ steps, np.mean(metrics[key]["train_loss"]), rtol=1e-4)
    bars = figures["classes"].axes[0].containers
    heights = [[bar.get_height() for bar in container] for container in bars if hasattr(container, "patches")]
    np.testing.assert_allclose(heights, [metrics[key]["per_class_accuracy"] for key in VARIANTS.values()])
    for axes, key in zip(figures["confusion"].axes[:2], VARIANTS.values(), strict=True):
        counts = np.array(metrics[key]["confusion"])
        assert {text.get_position(): int(text.get_text()) for text in axes.texts} == {
            (column, row): counts[row, column] for row in range(10) for column in range(10)}
        np.testing.assert_array_equal(axes.images[0].get_array(), counts - np.diag(np.diag(counts)))
        assert f"{450 - np.trace(counts)} mistakes" in axes.get_title()


def test_the_mistakes_that_it_shows(run):
    names, figures, *_ = run
    truth, (a, b) = names["truth"], names["predicted"].values()
    groups = ((a != truth) & (b != truth), (a != truth) & (b == truth), (a == truth) & (b != truth))
    shown = [axes for axes in figures["mistakes"].axes if axes.get_visible()]
    expected = [i for is_in in groups for i in np.flatnonzero(is_in)[:8]]
    assert [axes.get_title() for axes in shown] == [f"is {truth[i]}\ntanh: {a[i]}\nReLU: {b[i]}" for i in expected]
    for axes, i in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), names["test_images"][i, 0].numpy())
    assert [part.get_suptitle().split(": ")[1].split(",")[0] for part in figures["mistakes"].subfigs] == [
        str(is_in.sum()) for is_in in groups]


@pytest.mark.parametrize(("accuracies", "start"), [((0.2, 0.7), 0.0), ((0.97, 0.995), 0.95), ((0.85, 1.0), 0.8)])
def test_where_the_axis_of_the_classes_starts(accuracies, start):
    """At 0 if a class is below a half; else so that no bar or whisker is cut, which the label then says."""
    accuracy = {name: np.linspace(*accuracies, 10) for name in VARIANTS}
    deviation = {name: np.sqrt(p * (1 - p) / 1000) for name, p in accuracy.items()}
    figure, chosen = _lenet.draw_classes([str(k) for k in range(10)], accuracy, deviation)
    axes = figure.axes[0]
    assert chosen == pytest.approx(start)
    assert axes.get_ylim()[0] == chosen < min((accuracy[name] - deviation[name]).min() for name in VARIANTS)
    assert ("axis from" in axes.get_ylabel()) == (chosen > 0)
    assert len(axes.get_yticks()) >= 4
    plt.close(figure)


def colour_files(folder, rng):
    """CIFAR-10 in small: 60 training and 40 test images of noise, every class equally often."""
    (folder / "cifar-10-batches-bin").mkdir()
    for name, count in (("data_batch_1.bin", 60), ("test_batch.bin", 40)):
        records = rng.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] = np.arange(count) % 10
        (folder / "cifar-10-batches-bin" / name).write_bytes(records.tobytes())


def test_photographs_in_colour_and_every_printed_number_is_saved(monkeypatch, tmp_path, rng, capsys):
    colour_files(tmp_path, rng)
    names, figures = run_here(monkeypatch, "lenet", "--dataset=cifar10", f"--data-dir={tmp_path}", f"--out={tmp_path / 'out'}",
                              "--epochs=2")
    output = capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["image_shape"], metrics["param_count"], metrics["lr"], metrics["batch_size"]) == ([3, 32, 32], 62_006, 1e-3, 64)
    assert list(figures) == FIGURES
    assert figures["maps_relu_max"].axes[0].images[0].get_array().shape == (32, 32, 3)
    assert "interpolation" not in output
    pixels = names["images"].numpy()
    np.testing.assert_allclose(names["inputs"].numpy(), (pixels - pixels.mean((0, 2, 3), keepdims=True)) / pixels.std((0, 2, 3), keepdims=True), atol=2e-4)
    assert metrics["mean"] == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-5)
    lines = re.findall(r"^(.+), epoch (\d): training loss ([\d.]+), test accuracy ([\d.]+)%, ([\d.]+) s$", output, re.M)
    assert len(lines) == 4
    for name, epoch, loss, accuracy, seconds in lines:
        numbers = metrics[VARIANTS[name]]
        saved = [numbers[key][int(epoch) - 1] for key in ("train_loss", "test_accuracy", "seconds_of_epochs")]
        assert [f"{saved[0]:.4f}", f"{saved[1]:.2%}", f"{saved[2]:.1f}"] == [loss, f"{accuracy}%", seconds]
    for k, name in enumerate(CIFAR10.classes):
        cells = [f"{metrics[key]['per_class_accuracy'][k]:.1%} ± {metrics[key]['per_class_deviation'][k]:.1%}" for key in VARIANTS.values()]
        assert re.search(rf"{name} +│ +4 │ +{cells[0]} │ +{cells[1]} ", output), name
    for row, layer in zip((row for row in metrics["layers"].values() if row["parameters"]), names["learning"], strict=True):
        formula = re.search(rf"{layer.name} {layer.kind} .*│ \((.+) \+ 1\) · (\d+) ", output)
        assert (np.prod([int(n) for n in formula[1].split("·")]) + 1) * int(formula[2]) == row["parameters"]


def test_on_the_strict_device_its_numbers_are_those_of_the_cpu(monkeypatch, tmp_path):
    saved = []
    for device in ("fake", "cpu"):
        run_here(monkeypatch, "lenet", f"--device={device}", f"--out={tmp_path / device}", "--epochs=1", "--train-size=64")
        saved.append(json.loads((tmp_path / device / "metrics.json").read_text()))
    on_fake, on_cpu = saved
    assert (on_fake["device"], on_cpu["device"]) == ("fake", "cpu")
    for key in VARIANTS.values():
        assert on_fake[key]["train_loss"] == pytest.approx(on_cpu[key]["train_loss"], abs=1e-5)
        assert on_fake[key]["test_accuracy"] == pytest.approx(on_cpu[key]["test_accuracy"], abs=0.01)
        assert list(on_fake[key]["map_scales"].values()) == pytest.approx(list(on_cpu[key]["map_scales"].values()), rel=1e-3)


def test_bad_input_is_one_sentence(tmp_path):
    for arguments, said in ((["--dataset=mnist", f"--data-dir={tmp_path / 'none'}"], "--download"), (["--lr=0"], "argument --lr: got '0'")):
        result = run_lab("lenet", *arguments, "--out", tmp_path / "out", check=False)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert said in result.stderr
        assert not (tmp_path / "out").exists()


# -- on the real data, beside PyTorch ----------------------------------------------------------------------------------

def three_runs(folder, dataset, *arguments):
    """Test accuracies in % of seeds 0, 1, 2, by variant: (3, epochs); or a skip, if the data are not there."""
    data = os.environ.get("MINIDL_DATA")
    kind = {"mnist": MNIST, "cifar10": CIFAR10}[dataset]
    try:
        counts = [len(kind(data, train)) for train in (True, False)]
    except MinidlError as error:
        pytest.skip(f"{dataset} is not here: {error}")
    found = {key: [] for key in VARIANTS.values()}
    for seed in range(3):
        run_lab("lenet", "--dataset", dataset, "--seed", seed, "--out", folder / str(seed), *arguments, data=data or "")
        metrics = json.loads((folder / str(seed) / "metrics.json").read_text())
        for key in found:
            found[key].append([100 * share for share in metrics[key]["test_accuracy"]])
    for key, of_seeds in found.items():
        print(f"\n{dataset}, {counts[0]:,} + {counts[1]:,} images, {key}:", *np.round(of_seeds, 2).tolist(),
              "mean", np.round(np.mean(of_seeds, axis=0), 2).tolist())
    return {key: np.array(of_seeds) for key, of_seeds in found.items()}


# PyTorch 2.13, test accuracy in % after some of the three epochs: the mean of eight seeds with tanh, of six with ReLU.
# Not here: tanh after epoch 2, 96.98, where three seeds say too little: 0 to 5 reach 96.52, 96.12, 96.96, 97.05, 96.69 and
# 97.13. That is compared with PyTorch from the same weights on the same batches instead, which reaches the same.
PYTORCH = {"tanh_average": ({1: 94.79, 3: 97.70}, 0.4), "relu_max": ({1: 95.94, 2: 97.66, 3: 98.13}, 0.8)}


@pytest.mark.slow
def test_on_mnist_it_learns_as_in_pytorch(tmp_path):
    found = three_runs(tmp_path, "mnist", "--preset=full")
    for key, (expected, tolerance) in PYTORCH.items():
        means = found[key].mean(axis=0)
        assert means.shape == (3,)
        for epoch, accuracy in expected.items():
            assert means[epoch - 1] == pytest.approx(accuracy, abs=tolerance), (key, epoch)
    assert (found["relu_max"].mean(axis=0) > found["tanh_average"].mean(axis=0)).all()


@pytest.mark.slow
def test_on_photographs_it_learns_as_in_pytorch(tmp_path):
    """PyTorch, ten epochs on 10,000 normalised images: 47.1 % with tanh and 52.9 % with ReLU."""
    found = three_runs(tmp_path, "cifar10", "--train-size=10000")
    assert found["tanh_average"].shape == (3, 10)
    assert found["tanh_average"][:, -1].mean() >= 42
    assert found["relu_max"][:, -1].mean() >= 48.5
    assert found["relu_max"][:, -1].mean() > found["tanh_average"][:, -1].mean()


def in_pytorch(torch, kind, seed, epochs, metrics, activation, pooling):
    """Training losses and test accuracies, (epochs,) each, with the weights and the order of the images of this seed."""
    training, test = (kind(train=train) for train in (True, False))
    (images, labels), (test_images, truth) = (
        (torch.from_numpy(np.array(data.data).reshape(len(data), *data.data.shape[1:3], -1).transpose(0, 3, 1, 2)
                          / np.float32(255)), torch.from_numpy(np.array(data.targets))) for data in (training, test))
    images, test_images = ((x - torch.tensor(metrics["mean"])[:, None, None]) / torch.tensor(metrics["std"])[:, None, None]
                           for x in (images, test_images))
    features = {28: 256, 32: 400}[images.shape[2]]
    active, pool, kinds = getattr(torch.nn, activation), getattr(torch.nn, pooling), torch.nn
    network = kinds.Sequential(kinds.Conv2d(images.shape[1], 6, 5), active(), pool(2), kinds.Conv2d(6, 16, 5), active(), pool(2),
                               kinds.Flatten(), kinds.Linear(features, 120), active(), kinds.Linear(120, 84), active(),
                               kinds.Linear(84, 10))
    minidl.manual_seed(seed)
    start = lenet(tuple(images.shape[1:])).state_dict()
    network.load_state_dict({name: torch.from_numpy(value.numpy().copy()) for name, value in start.items()})
    order = DataLoader(TensorDataset(minidl.arange(len(images))), 64, shuffle=True)
    optimizer, losses, accuracies = torch.optim.Adam(network.parameters(), lr=metrics["lr"]), [], []
    for _ in range(epochs):
        of_steps = []
        for (batch,) in order:
            chosen = torch.from_numpy(batch.numpy())
            loss = torch.nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            of_steps.append(loss.item())
        losses.append(np.mean(of_steps))
        with torch.no_grad():
            accuracies.append((network(test_images).argmax(1) == truth).double().mean().item())
    return losses, accuracies


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize(("dataset", "seed", "epochs", "key", "layers", "loss_tolerance", "points"), [
    ("mnist", 0, 2, "tanh_average", ("Tanh", "AvgPool2d"), 1e-3, 0.1),      # of 10,000 images
    ("cifar10", 2, 10, "relu_max", ("ReLU", "MaxPool2d"), 0.02, 3),         # of 2,000; roundings grow for 1,570 steps
])
def test_from_the_same_start_on_the_same_batches_pytorch_gets_as_far(torch, tmp_path, dataset, seed, epochs, key, layers,
                                                                     loss_tolerance, points):
    kind = {"mnist": MNIST, "cifar10": CIFAR10}[dataset]
    try:
        size = len(kind())
    except MinidlError as error:
        pytest.skip(f"{dataset} is not here: {error}")
    run_lab("lenet", f"--dataset={dataset}", f"--train-size={size}", f"--epochs={epochs}", f"--seed={seed}", "--out", tmp_path,
            data=os.environ.get("MINIDL_DATA", ""))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    losses, accuracies = in_pytorch(torch, kind, seed, epochs, metrics, *layers)
    ours = metrics[key]
    print(f"\n{dataset} {key}, losses and accuracies:", *np.round([ours["train_loss"], losses, ours["test_accuracy"], accuracies], 4))
    assert ours["train_loss"][0] == pytest.approx(losses[0], rel=1e-3)
    assert ours["train_loss"] == pytest.approx(losses, rel=loss_tolerance)
    assert ours["test_accuracy"] == pytest.approx(accuracies, abs=points / 100)
