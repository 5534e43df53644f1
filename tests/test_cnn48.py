"""The lab of larger images with dropout: its images, its network, what it measures, and what it says about modes."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

import minidl
from labs import _classifier, _cnn48
from labs._cnn48 import Images
from minidl import nn
from minidl.data import DataLoader, TensorDataset
from minidl.datasets import Digits
from minidl.errors import ShapeError
from minidl.models import cnn48
from minidl.transforms import ColorJitter, Compose, Grayscale, Normalize, RandomRotation
from tests.figures import run_lab, run_once

REAL = os.environ.get("MINIDL_DATA")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small run in this process: its names, figures and folder. Every figure has been checked."""
    return run_once(tmp_path_factory, "cnn48", "--train-size", 300, "--epochs", 2, "--batch-size", 16)


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


def augmentation():
    return Compose([RandomRotation(10), Grayscale(3), ColorJitter(0.2, 0.2)])


def small_images(change=None, count=40, size=8):
    """The first digits, not enlarged, normalised with numbers that are easily told from others."""
    digits = Digits()
    pixels = _cnn48.enlarged(minidl.from_numpy(digits.data.numpy()[:count, None].astype(np.float32) / 255), size)
    return Images(pixels, minidl.from_numpy(np.array(digits.targets[:count], np.int64)), change or Grayscale(3),
                  Normalize([0.3, 0.4, 0.5], [0.5, 0.25, 2.0]))


# -- the run -----------------------------------------------------------------------------------------------------------

def test_it_learns_and_keeps_the_best_epoch(metrics):
    assert (metrics["lab"], metrics["dataset"], metrics["seed"], metrics["device"]) == ("cnn48", "digits", 0, "cpu")
    assert (metrics["train_count"], metrics["val_count"], metrics["test_count"]) == (240, 60, 450)
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds_of_epochs"):
        assert len(metrics[name]) == 2, name
    assert metrics["best_epoch"] == 1 + int(np.argmin(metrics["val_loss"]))
    assert metrics["train_loss"][1] < 0.75 * metrics["train_loss"][0]
    assert metrics["test_accuracy"] > 0.6


def test_parameters_are_those_of_the_arithmetic(metrics):
    expected = {"0 Conv2d": 896, "2 Conv2d": 18_496, "5 Conv2d": 73_856, "10 Linear": 9_437_696, "13 Linear": 5_130}
    assert metrics["param_counts"] == expected
    assert metrics["param_counts_by_formula"] == list(expected.values())
    assert metrics["param_count"] == sum(expected.values()) == 9_536_074
    places = 48 * 48                                    # each kernel is used at every place: work = weights · places
    work = [9 * 3 * 32 * places, 9 * 32 * 64 * places, 9 * 64 * 128 * places / 4, 18_432 * 512, 512 * 10]
    assert metrics["convolution_work"] == pytest.approx(sum(work[:3]) / sum(work), rel=1e-3)
    assert metrics["convolution_parameters"] == pytest.approx((896 + 18_496 + 73_856) / 9_536_074)


@pytest.mark.torch
def test_the_model_is_pytorchs(torch):
    layers = torch.nn
    theirs = layers.Sequential(
        layers.Conv2d(3, 32, 3, padding=1), layers.ReLU(), layers.Conv2d(32, 64, 3, padding=1), layers.ReLU(),
        layers.MaxPool2d(2), layers.Conv2d(64, 128, 3, padding=1), layers.ReLU(), layers.MaxPool2d(2), layers.Flatten(),
        layers.Dropout(0.5), layers.Linear(128 * 3 * 2, 512), layers.ReLU(), layers.Dropout(0.5), layers.Linear(512, 7))
    ours = cnn48((3, 12, 8), 7)
    ours.load_state_dict({name: minidl.tensor(value.numpy()) for name, value in theirs.state_dict().items()})
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 8), dtype=np.float32)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(ours.eval()(minidl.tensor(images)).detach().numpy(), expected, atol=1e-5)
    assert [layer.p for layer in ours if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_images_that_two_poolings_would_leave_nothing_of():
    with pytest.raises(ShapeError, match="cnn48: got images of 3×48, expected at least 4×4"):
        cnn48((3, 3, 48))


def test_what_is_saved_gives_the_accuracy_that_is_reported(run, metrics):
    names, _, folder = run
    saved = minidl.load(folder / "cnn48.safetensors")
    network = cnn48(saved["image_shape"])
    network.load_state_dict(saved["state_dict"])
    digits = Digits(train=False)
    images = np.stack([np.asarray(Image.fromarray(image).resize((48, 48), Image.Resampling.BILINEAR))
                       for image in digits.data.numpy()])                                   # (450, 48, 48)
    x = np.repeat((images[:, None] / 255 - saved["mean"][0]) / saved["std"][0], 3, axis=1)  # (450, 3, 48, 48)
    with minidl.no_grad():
        predicted = network.eval()(minidl.tensor(x.astype(np.float32))).argmax(1).numpy()
    truth = np.array(digits.targets)
    # rounding may tip an image that lies between two classes
    assert np.mean(predicted == truth) == pytest.approx(metrics["test_accuracy"], abs=1.5 / 450)
    assert saved["test_accuracy"] == metrics["test_accuracy"]
    used = names["training"].pixels / 255
    assert saved["mean"] == pytest.approx([used.mean()] * 3)
    assert saved["std"] == pytest.approx([used.std()] * 3)


def test_the_parts_do_not_overlap_and_the_test_images_are_not_augmented(run):
    names, _, _ = run
    parts = [names[part].pixels.reshape(-1, 48 * 48) for part in ("training", "validation")]
    assert [len(part) for part in parts] == [240, 60]
    together = {image.tobytes() for part in parts for image in part}
    assert len(together) == len({image.tobytes() for image in Digits().data.numpy()[:300]})
    for part in ("validation", "test", "not_augmented"):
        first, second = (names[part].whole_batch(range(5))[0].numpy() for _ in range(2))
        np.testing.assert_array_equal(first, second)
    first, second = (names["training"].whole_batch(range(5))[0].numpy() for _ in range(2))
    assert (first != second).any(axis=(1, 2, 3)).all()


def test_confusion_and_report_belong_together(metrics):
    confusion, report = np.array(metrics["confusion"]), metrics["report"]
    assert confusion.sum() == 450
    assert np.trace(confusion) / 450 == metrics["test_accuracy"]
    np.testing.assert_array_equal(confusion.sum(1), np.bincount(Digits(train=False).targets))
    for k in range(10):
        hits = confusion[k, k]
        assert report[str(k)]["recall"] == pytest.approx(hits / confusion[k].sum())
        assert report[str(k)]["precision"] == pytest.approx(hits / max(1, confusion[:, k].sum()))
        assert report[str(k)]["support"] == confusion[k].sum()


def test_the_modes(run, metrics):
    names, _, _ = run
    of_train = metrics["train_mode_accuracy"]
    assert len(of_train["passes"]) == metrics["mode_counts"]["passes"] == 12
    assert of_train["mean"] == pytest.approx(np.mean(of_train["passes"]))
    assert of_train["sd"] == pytest.approx(np.std(of_train["passes"], ddof=1))
    assert len(set(of_train["passes"])) > 3
    assert metrics["eval_accuracy"] == metrics["test_accuracy"], "both on all 450 images"
    assert metrics["eval_accuracy"] > of_train["mean"] + of_train["sd"]
    surest, _, least = names["in_eval"].max(1)[metrics["one_image"]["test_image"]]
    assert (surest, least) == (names["in_eval"].max(), names["in_eval"].max(1).min())
    assert min(metrics["one_image"]["train_sd"]) > 0
    assert max(metrics["one_image"]["train_sd"]) > 0.05
    # the split network is the whole network: what the table says is what train() and eval() of the whole would say
    network, test = names["model"].network, names["test"]
    whole = _cnn48.log_probabilities(network, test, "cpu")
    np.testing.assert_allclose(np.exp(whole), names["in_eval"], atol=1e-5)
    minidl.manual_seed(0)
    with_dropout = _cnn48.loss_and_accuracy(_cnn48.log_probabilities(network, test, "cpu", True), names["truth"])[1]
    assert abs(with_dropout - of_train["mean"]) < 5 * of_train["sd"]


def test_dropout_and_augmentation_make_the_training_loss_larger(metrics):
    (learned, _), (off, _), (bare, _), _ = metrics["losses"].values()
    assert learned > off > bare > 0


def test_going_on_in_eval_trains_without_dropout(run, metrics):
    names, _, _ = run
    network = cnn48((3, 48, 48))
    network.load_state_dict(names["kept"])
    network.eval()
    optimizer = minidl.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    minidl.manual_seed(1)
    losses = []
    for (images, labels), _ in zip(names["loader"], range(metrics["mode_counts"]["steps"]), strict=False):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses) == pytest.approx(metrics["continued"]["eval()"][0], rel=1e-4)
    assert metrics["continued"]["train()"][0] != pytest.approx(metrics["continued"]["eval()"][0], rel=1e-3)
    validated = _cnn48.log_probabilities(network, names["val_part"], "cpu")
    assert _cnn48.loss_and_accuracy(validated, names["val_truth"]) == pytest.approx(
        metrics["continued"]["eval()"][1:], rel=1e-3)


def test_continuing_leaves_the_kept_weights(run):
    names, _, _ = run
    now = names["model"].network.state_dict()
    for name, value in names["kept"].items():
        np.testing.assert_array_equal(now[name].numpy(), value.numpy())


def test_the_speeds(metrics):
    rates = metrics["images_per_second"]
    assert min(rates.values()) > 0
    for name, key in (("loader alone, threads: 1", "loader_images_per_second"),
                      ("step alone, on a ready batch", "step_images_per_second"),
                      ("both, threads: 1", "together_images_per_second")):
        assert rates[name] == metrics[key]
    assert metrics["expected_in_turn"] == pytest.approx(
        1 / (1 / rates["loader alone, no thread"] + 1 / metrics["step_images_per_second"]))
    assert metrics["limit"] == "the step", "9.5 million parameters take longer than turning an image"
    assert metrics["loader_images_per_second"] > 1.5 * metrics["step_images_per_second"]


def test_its_figures(run, metrics):
    names, figures, folder = run
    assert list(figures) == ["augmentation", "normalisation", "curves", "confusion", "modes"]
    assert (folder / "report.html").read_text().count("data:image/png;base64") == 5
    draws = figures["augmentation"].axes
    assert len(draws) == 40
    for i, row in enumerate(np.reshape(draws, (5, 8))):
        assert row[0].get_ylabel() == str(names["training"].labels[i].item())
        np.testing.assert_array_equal(row[0].images[0].get_array(), np.repeat(names["training"].pixels[i][..., None], 3, 2))
    curves = {line.get_label(): line.get_ydata() for line in figures["curves"].axes[1].lines}
    assert list(curves["validation: neither"]) == metrics["val_accuracy"]
    assert list(curves["training: dropout, augmented"]) == metrics["train_accuracy"]
    shown = {text.get_position(): int(text.get_text()) for text in figures["confusion"].axes[0].texts}
    assert shown == {(k, i): count for i, row in enumerate(metrics["confusion"]) for k, count in enumerate(row) if count}
    accuracies, *of_one = figures["modes"].axes
    assert list(accuracies.lines[0].get_ydata()) == metrics["train_mode_accuracy"]["passes"]
    assert set(accuracies.lines[1].get_ydata()) == {metrics["eval_accuracy"]}
    for column, bars in enumerate(of_one[3:]):
        assert sum(bar.get_height() for bar in bars.patches) == metrics["mode_counts"]["answers"]
        assert set(bars.lines[0].get_xdata()) == {metrics["one_image"]["eval"][column]}


# -- images and loading ------------------------------------------------------------------------------------------------

def test_a_whole_batch_has_the_numbers_of_single_images():
    images = small_images()
    batch, labels = images.whole_batch([3, 0, 7])
    for k, i in enumerate((3, 0, 7)):
        image, label = images[i]
        np.testing.assert_array_equal(batch[k].numpy(), image.numpy())
        assert labels[k].item() == label.item() == Digits().targets[i]
    grey = images.pixels[3] / 255
    expected = np.stack([(grey - mean) / std for mean, std in ((0.3, 0.5), (0.4, 0.25), (0.5, 2.0))])
    np.testing.assert_allclose(batch[0].numpy(), expected, atol=1e-6)


def test_enlarged_images_are_bytes_of_the_same_picture():
    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (2, 1, 48, 48)), rng.integers(0, 256, (2, 3, 48, 48))
    for pixels in (grey, colour):
        same = _cnn48.enlarged(minidl.tensor((pixels / 255).astype(np.float32)), 48)
        assert same.dtype == np.uint8
        np.testing.assert_array_equal(same, pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1))
    assert _cnn48.enlarged(minidl.full((2, 3, 5, 7), 0.2), 48).shape == (2, 48, 48, 3)
    assert (_cnn48.enlarged(minidl.full((2, 1, 5, 5), 0.2), 48) == 51).all()


def test_mean_and_deviation_are_those_of_each_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    mean, std = _cnn48.mean_and_std(pixels)
    for channel in range(3):
        assert mean[channel] == pytest.approx(pixels[..., channel].mean() / 255)
        assert std[channel] == pytest.approx(pixels[..., channel].std() / 255)
    mean, std = _cnn48.mean_and_std(pixels[..., 0])
    assert mean == pytest.approx([pixels[..., 0].mean() / 255] * 3)
    assert std == pytest.approx([pixels[..., 0].std() / 255] * 3)


def epochs_of(workers, seed, count=2):
    """All images of some epochs (epochs, N, 3, 8, 8), as a loader gives them."""
    minidl.manual_seed(seed)
    loader = DataLoader(small_images(augmentation()), 16, shuffle=True, num_workers=workers)
    return np.stack([np.concatenate([images.numpy() for images, _ in loader]) for _ in range(count)])


def test_every_epoch_draws_anew_and_the_seed_decides_not_the_threads():
    alone = epochs_of(0, seed=3)
    for workers in (1, 2):
        np.testing.assert_array_equal(epochs_of(workers, seed=3), alone)
    assert {image.tobytes() for image in alone[0]}.isdisjoint({image.tobytes() for image in alone[1]})
    assert (epochs_of(0, seed=4) != alone).any()


def test_images_per_second_counts_images():
    def work(batch):
        assert len(batch[1]) == 10
        time.sleep(0.02)

    for workers in (None, 0):
        start = time.perf_counter()
        rate = _cnn48.images_per_second(small_images(), 10, work, workers, count=4)
        assert 40 / (time.perf_counter() - start) < rate <= 10 / 0.02


def test_loss_and_accuracy_are_the_definitions():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.5, 0.25, 0.25]])
    loss, accuracy = _cnn48.loss_and_accuracy(np.log(probabilities), np.array([0, 1, 0]))
    assert loss == pytest.approx(-np.log(0.7 * 0.3 * 0.5) / 3)
    assert accuracy == pytest.approx(2 / 3)


# -- dropout and training ----------------------------------------------------------------------------------------------

def trained(seed, workers=0, **settings):
    """A small network trained for two epochs: its parameters, as one vector."""
    minidl.manual_seed(seed)
    network = cnn48((3, 8, 8))
    loader = DataLoader(small_images(augmentation()), 16, shuffle=True, num_workers=workers)
    _classifier.train(network, loader, small_images(count=20), epochs=2, batch_size=16, device="cpu", **settings)
    return np.concatenate([value.detach().numpy().ravel() for value in network.parameters()])


def test_training_with_dropout_and_augmentation_is_decided_by_the_seed():
    first = trained(5)
    np.testing.assert_array_equal(trained(5), first)
    np.testing.assert_array_equal(trained(5, workers=2), first)
    assert (trained(6) != first).any()
    minidl.manual_seed(0)
    network, images = cnn48((3, 8, 8)).train(), minidl.rand(4, 3, 8, 8)
    minidl.manual_seed(1)
    once, again = network(images).detach().numpy(), network(images).detach().numpy()
    minidl.manual_seed(1)
    np.testing.assert_array_equal(network(images).detach().numpy(), once)
    assert (once != again).any(), "another draw"
    network.eval()
    np.testing.assert_array_equal(network(images).detach().numpy(), network(images).detach().numpy())


def test_weight_decay_reaches_the_optimizer_and_is_none_by_default():
    network = cnn48((3, 8, 8))
    (group,) = _classifier.Classifier(network, 1e-3, weight_decay=0.25).configure_optimizers().param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0.25)
    (group,) = _classifier.Classifier(network, 1e-3).configure_optimizers().param_groups
    assert group["weight_decay"] == 0
    np.testing.assert_array_equal(trained(5, weight_decay=0.0), trained(5))
    assert np.abs(trained(5, weight_decay=1.0)).sum() < np.abs(trained(5)).sum()


def test_train_takes_datasets_and_loaders():
    images = TensorDataset(minidl.rand(20, 3, 8, 8), minidl.zeros(20, dtype=minidl.int64))
    _, of_dataset = _classifier.train(cnn48((3, 8, 8)), images, images, epochs=1, batch_size=10, device="cpu")
    assert of_dataset.global_step == 2
    loader = DataLoader(images, 4)
    _, of_loader = _classifier.train(cnn48((3, 8, 8)), loader, loader, epochs=1, batch_size=10, device="cpu")
    assert of_loader.global_step == 5


# -- the command line --------------------------------------------------------------------------------------------------

def test_bad_input_is_one_sentence(tmp_path):
    result = run_lab("cnn48", "--workers", -1, "--out", tmp_path / "out", check=False)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "--workers" in result.stderr
    result = run_lab("cnn48", "--dataset", "cifar10", "--data-dir", tmp_path / "none", "--out", tmp_path / "out", check=False)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "--download" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_mnist_reaches_what_pytorch_reaches(tmp_path):
    """One epoch of 12,800 images: PyTorch gets 96.3 % without augmentation."""
    if not REAL:
        pytest.skip("set MINIDL_DATA to a folder with mnist/ to run this")
    run_lab("cnn48", "--dataset", "mnist", "--train-size", 16_000, "--out", tmp_path, data=REAL)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["train_count"] == 12_800
    assert metrics["test_accuracy"] > 0.95


@pytest.mark.slow
def test_photographs_in_colour(tmp_path):
    if not REAL:
        pytest.skip("set MINIDL_DATA to a folder with cifar10*/ to run this")
    run_lab("cnn48", "--dataset", "cifar10", "--train-size", 500, "--epochs", 3, "--batch-size", 32, "--out", tmp_path, data=REAL)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert len(set(metrics["mean"])) == 3, "each channel has its own"
    assert metrics["test_accuracy"] > 0.18, "chance is 0.1, its deviation 0.007 for 2,000 test images"
