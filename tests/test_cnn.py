"""The CNN lab: what it trains on, what it chooses by, what it says, and what its figures show."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import minidl
from labs import _classifier
from minidl.datasets import Digits
from minidl.models import small_cnn
from tests.figures import run_lab, run_once
from tests.helpers import kept_cnn


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run in this process: its names, figures and folder. Every figure has been checked."""
    # the first test images stand among all and, if they are mistakes, among the mistakes too
    return run_once(tmp_path_factory, "cnn", "--epochs", 5, equal_panels={"predictions"})


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


def test_the_numbers_that_it_saves(metrics):
    assert metrics["lab"] == "cnn"
    assert metrics["dataset"] == "digits"
    assert (metrics["seed"], metrics["device"]) == (0, "cpu")
    assert metrics["param_count"] == 10 * 32 + (32 * 9 + 1) * 64 + (4 * 64 + 1) * 256 + 257 * 10
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert len(metrics[name]) == 5, name
    assert metrics["train_loss"][-1] < 0.5 * metrics["train_loss"][0]
    assert metrics["val_accuracy"][-1] > 0.75
    assert metrics["best_epoch"] == 1 + int(np.argmin(metrics["val_loss"]))
    assert metrics["dense"]["best_epoch"] == 1 + int(np.argmin(metrics["dense"]["val_loss"]))
    assert metrics["seconds_per_epoch"] == np.median(metrics["seconds_of_epochs"]) > 0
    assert (metrics["train_count"], metrics["val_count"], metrics["test_count"]) == (1078, 269, 450)
    difference = metrics["right_only_with_cnn"] - metrics["right_only_with_dense"]
    assert difference == round((metrics["test_accuracy"] - metrics["dense"]["test_accuracy"]) * 450)
    assert abs(metrics["dense"]["param_count"] / metrics["param_count"] - 1) < 0.01
    assert 0.8 < metrics["dense"]["test_accuracy"] < 1


def test_training_validation_and_test_images_do_not_overlap(run):
    names, _, _ = run
    training, validation = names["training"].tensors[0], names["validation"].tensors[0]
    assert (len(training), len(validation)) == (1078, 269)
    of_digits = Digits().data.numpy().astype(np.float32)[:, None] / 255
    together = np.concatenate([training.numpy(), validation.numpy()])
    np.testing.assert_array_equal(np.sort(together.reshape(1347, -1), axis=0), np.sort(of_digits.reshape(1347, -1), axis=0))
    order = np.concatenate([names["for_training"].numpy(), names["for_validation"].numpy()])
    assert sorted(order) == list(range(1347))
    assert not np.array_equal(order, np.arange(1347))
    np.testing.assert_array_equal(names["test_images"].numpy()[:, 0] * 255, Digits(train=False).data.numpy())


def test_a_fifth_is_set_aside_and_at_most_6000():
    for count, validation in ((100, 20), (20_000, 4000), (60_000, 6000)):
        first, second = _classifier.split(count, seed=3)
        assert (len(first), len(second)) == (count - validation, validation)
        assert len({*first.tolist(), *second.tolist()}) == count
    assert _classifier.split(100, 3)[1].tolist() == _classifier.split(100, 3)[1].tolist()
    assert _classifier.split(100, 3)[1].tolist() != _classifier.split(100, 4)[1].tolist()


def test_the_weights_are_those_of_the_best_epoch_and_the_accuracy_is_theirs(run, metrics):
    names, _, folder = run
    network, saved = kept_cnn(folder / "cnn.safetensors")
    with minidl.no_grad():
        def accuracy(images, labels):
            return (network(images).argmax(1) == labels).double().mean().item()

        assert accuracy(names["test_images"], names["test_labels"]) == metrics["test_accuracy"]
        validated = accuracy(*names["validation"].tensors)
    assert validated == pytest.approx(metrics["val_accuracy"][metrics["best_epoch"] - 1])
    assert saved["dataset"] == "digits"


def test_its_figures(run):
    _, figures, folder = run
    assert list(figures) == ["samples", "curves", "predictions", "softmax", "features"]
    report = (folder / "report.html").read_text()
    for name in figures:
        assert (folder / f"{name}.png").stat().st_size > 10_000
    assert report.count("data:image/png;base64") == 5
    samples = figures["samples"].axes
    assert len(samples) == 120
    curves = {line.get_label(): line for line in figures["curves"].axes[0].lines}
    for name, best in (("CNN", run[0]["best"]), ("dense", run[0]["dense_best"])):
        assert curves[f"{name}, validation"].get_ydata()[best] == curves[f"{name}, kept: epoch {best + 1}"].get_ydata()[0]
        assert curves[f"{name}, kept: epoch {best + 1}"].get_xdata() == [best + 1]
    titles = [axes.get_title() for axes in figures["predictions"].axes]
    assert len(titles) == 36 + min(24, len(run[0]["wrong"]))
    predicted, truth = run[0]["predicted"], run[0]["truth"]
    for i, title in enumerate(titles[:36]):
        assert title == (str(truth[i]) if predicted[i] == truth[i] else f"says {predicted[i]}, is {truth[i]}")
    for i, title in zip(run[0]["wrong"], titles[36:], strict=False):
        assert title == f"says {predicted[i]}, is {truth[i]}"
    bars = figures["softmax"].axes[6:]
    assert len(bars) == 6
    chosen = run[0]["chosen"]
    assert [predicted[i] == truth[i] for i in chosen[:4]] == [True, True, False, False]
    sure = run[0]["probabilities"].max(1)
    assert sure[chosen[0]] == sure.max()
    assert sure[chosen[4]] == sure.min()
    assert sure[chosen[2]] == sure[predicted != truth].max()
    for axes in bars:
        assert sum(patch.get_height() for patch in axes.patches) == pytest.approx(1, abs=1e-5)
    assert len(figures["features"].axes) == 96


def test_it_says_what_it_saves_one_aligned_line_an_epoch(tmp_path):
    output = run_lab("cnn", "--epochs", 2, "--out", tmp_path, "--seed", 1).stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    lines = output.splitlines()
    start = next(i for i, line in enumerate(lines) if line.split()[:2] == ["epoch", "train_loss"])
    assert len({len(line) for line in lines[start:start + 3]}) == 1
    for epoch in range(2):
        cells = lines[start + 1 + epoch].split()
        assert cells[0] == str(epoch + 1)
        assert [float(cell) for cell in cells[1:5]] == pytest.approx(
            [metrics[name][epoch] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")], abs=6e-5)
    assert f"{metrics['test_accuracy']:.2%}" in output
    assert f"{metrics['dense']['test_accuracy']:.2%}" in output
    assert f"{metrics['param_count']:,}" in output
    assert re.search(r"sums to 1", output)
    again = tmp_path / "again"
    run_lab("cnn", "--epochs", 2, "--out", again, "--seed", 1)
    repeated = json.loads((again / "metrics.json").read_text())
    for name in ("train_loss", "val_loss", "test_accuracy"):
        assert repeated[name] == metrics[name], "the same seed gives the same run"


def test_without_data_it_says_how_to_get_it(tmp_path):
    result = run_lab("cnn", "--dataset", "mnist", "--data-dir", tmp_path / "none", "--out", tmp_path / "out", check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "--download" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "fast"])
def test_a_learning_rate_that_is_none(rate, tmp_path):
    result = run_lab("cnn", f"--lr={rate}", "--out", tmp_path / "out", check=False)
    assert result.returncode == 2
    assert result.stderr == f"error: argument --lr: got '{rate}', expected a number above 0; --help shows all arguments\n"
    assert not (tmp_path / "out").exists()


def test_images_that_are_too_small():
    with pytest.raises(minidl.MinidlError, match=r"small_cnn: got images of 3×8, expected at least 4×4"):
        small_cnn((1, 3, 8))


def test_parameters_of_the_cnn_for_mnist():
    assert sum(p.numel() for p in small_cnn().parameters()) == 824_458
    assert tuple(small_cnn((3, 32, 32), 5)(minidl.zeros(2, 3, 32, 32)).shape) == (2, 5)
