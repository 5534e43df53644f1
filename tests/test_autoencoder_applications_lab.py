"""The lab on what codes are good for: neighbours, fine-tuning, bytes, anomalies; what it measures, and what it reaches."""

from __future__ import annotations

import gzip
import json
import os
import zlib

import numpy as np
import pytest

import minidl
from labs import _anomalies, _autoencoders, _compression, _few_labels
from minidl.data import TensorDataset
from minidl.datasets import MNIST
from minidl.models import conv_autoencoder
from tests.figures import run_lab, run_once
from tests.test_lab import write_mnist

REAL = os.environ.get("MINIDL_DATA")
NAMES = ("conv", "conv_denoising", "dense")
SMALL = ("--models", ",".join(NAMES), "--epochs", 5, "--draws", 6, "--tune-epochs", 2, "--tune-draws", 2, "--retrain")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small run in this process: its names, figures and folder. Every figure has been checked."""
    return run_once(tmp_path_factory, "autoencoder_applications", *SMALL)


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


def test_its_figures(run):
    assert list(run[1]) == ["neighbours", "ranking", "fine_tuning", "compression", "anomalies", "cases"]


def test_the_metrics(metrics):
    assert set(metrics["models"]) == set(NAMES)
    assert set(metrics["knn_baselines"]) == {"pixels", "blur", "pca4", "pca16", "untrained", "untrained_dense"}
    for facts in (*metrics["models"].values(), *metrics["knn_baselines"].values()):
        knn = facts.get("knn", facts)
        assert knn["labels"] == [10, 30, 100, 300, 1000]
        assert len(knn["mean"]) == len(knn["sd"]) == len(knn["paired_difference"]) == 5
        pixels = metrics["knn_baselines"]["pixels"]["mean"]
        np.testing.assert_allclose(knn["paired_difference"], np.subtract(knn["mean"], pixels), atol=1e-12)
    assert metrics["models"]["conv"]["param_count"] == 3221
    assert metrics["models"]["conv"]["code_shape"] == [4, 2, 2]
    assert metrics["models"]["dense"]["code_shape"] == [16]
    assert len(metrics["models"]["dense"]["val_loss"]) == 5
    for name in NAMES:
        if name != "conv_denoising":
            assert metrics["compression"][name]["float32"]["psnr"] == pytest.approx(metrics["models"][name]["psnr"], abs=1e-3)
    assert set(metrics["anomaly"]) >= {"digits_mean_l2", "photographs_mean_l2", "digits_correct", "photographs_correct", "auroc",
                                       "threshold", "baselines"}
    assert metrics["other_dataset"] == "photographs"
    assert metrics["ranking"][0] in metrics["knn_baselines"] or metrics["ranking"][0] in NAMES


def test_labelled_images_are_training_images_and_the_same_for_all(run):
    names = run[0]
    training = names["training"].numpy().reshape(1078, -1)
    np.testing.assert_array_equal(names["labelled"].numpy().reshape(1078, -1), training)
    assert names["draws"].shape == (6, 1000)
    assert all(len(set(draw)) == 1000 and draw.max() < 1078 for draw in names["draws"])
    for k, counted in zip((10, 30, 100), names["knn"]["pixels"].T, strict=False):
        for draw, accuracy in zip(names["draws"], counted, strict=True):
            distance = ((names["test"].numpy().reshape(450, 1, -1) - training[draw[:k]]) ** 2).sum(2)       # (450, k)
            said = names["data"].labels[draw[:k]][distance.argmin(1)]
            assert accuracy == pytest.approx((said == names["truth"]).mean(), abs=1 / 450), "ties may fall otherwise"


def test_what_it_ranks_and_reports(run, metrics):
    names = run[0]
    differences = [difference for _, difference, _ in names["ranked"]]
    assert differences == sorted(differences, reverse=True)
    for name, difference, error in names["ranked"]:
        paired = (names["knn"][name] - names["knn"]["pixels"])[:, 2]
        assert difference == pytest.approx(paired.mean())
        assert error == pytest.approx(paired.std(ddof=1) / 6 ** 0.5)
    assert metrics["ranking"] == [name for name, _, _ in names["ranked"]]
    assert metrics["models"]["dense"]["knn"]["mean"][-1] > 0.7
    assert metrics["knn_baselines"]["pixels"]["mean"][2] > metrics["knn_baselines"]["untrained"]["mean"][2] + 0.1


def test_the_error_of_an_anomaly_detector_is_that_of_its_network(run, metrics):
    names = run[0]
    network = names["trained"]["conv"].network
    with minidl.no_grad():
        for images, key in ((names["test"], "digits_mean_l2"), (names["other_test"], "photographs_mean_l2")):
            error = (network(images) - images).flatten(1).norm(dim=1).mean()
            assert metrics["anomaly"][key] == pytest.approx(float(error), rel=1e-5)
    assert metrics["anomaly"]["threshold"]["digits_correct"] == pytest.approx(0.95, abs=0.05)
    facts = names["facts"]
    assert metrics["anomaly"]["baselines"]["pca16"]["auroc"] == facts["pca16"]["auroc"]
    assert metrics["anomaly"]["others"]["dense"]["auroc"] == facts["dense"]["auroc"]


# -- what it measures with ---------------------------------------------------------------------------------------------

def test_draws_begin_alike_for_all_numbers_of_labels():
    draws = _few_labels.draws_of(500, 4, seed=3)
    assert draws.shape == (4, 500)
    assert all(sorted(draw) == list(range(500)) for draw in draws)
    np.testing.assert_array_equal(draws, _few_labels.draws_of(500, 4, seed=3))
    assert (draws != _few_labels.draws_of(500, 4, seed=4)).any()
    assert _few_labels.label_counts(500) == [10, 30, 100, 300]


def test_neighbour_and_line_on_points_that_are_easy_or_have_no_classes():
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(4), 100)
    easy = rng.normal(np.eye(4)[labels] * 10, 0.1)
    draws = _few_labels.draws_of(200, 3, seed=0)
    both = easy[:200], labels[:200], easy[200:], labels[200:]
    assert _few_labels.by_neighbour(*both, draws).shape == (3, 3)
    assert _few_labels.by_neighbour(*both, draws)[:, 1:].min() > 0.99
    assert _few_labels.by_line(*both, draws).min() == 1
    noise = rng.normal(size=easy.shape)
    none = noise[:200], labels[:200], noise[200:], labels[200:]
    assert _few_labels.by_neighbour(*none, draws).mean() == pytest.approx(0.25, abs=0.06)
    assert _few_labels.by_line(*none, draws).mean() == pytest.approx(0.25, abs=0.1)


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    pixels = np.column_stack([rng.random(5), np.full(5, 0.5)])
    accuracy = pixels + [[0.1, 0.0]] * 5
    facts = _few_labels.facts_of(accuracy, pixels)
    assert facts["paired_difference"] == pytest.approx([0.1, 0])
    assert facts["paired_error"] == pytest.approx([0, 0], abs=1e-12), "the spread of the draws is not in it"
    assert facts["sd"] == pytest.approx([pixels[:, 0].std(ddof=1), 0])
    assert (facts["wins"], facts["draws"]) == ([5, 0], 5)


def test_what_is_said_follows_from_the_numbers():
    ranked = [("conv", 0.04, 0.01), ("blur", 0.02, 0.001), ("pixels", 0.0, 0.0), ("dense", -0.1, 0.01)]
    text = _few_labels.on_ranking(ranked, 100)
    assert "Of the conv autoencoders (1), those with codes that beat pixels with 100 labels by more than two standard errors: conv." in text
    assert "two standard errors: none." in text
    assert "has +2.0 points: as much as 50% of it can be had by smoothing." in text
    assert _few_labels.why_codes(ranked, (1, 28, 28), "mnist")[0].startswith("Why do the codes of a convolutional autoencoder beat")
    turned = [(name, -gain, error) for name, gain, error in reversed(ranked)]
    assert _few_labels.why_codes(turned, (1, 8, 8), "digits")[0].startswith("Why do the codes of the convolutional autoencoder not")
    assert "two standard errors: conv" not in _few_labels.on_ranking(turned, 100)
    assert "more than any code here" in _few_labels.on_ranking([("blur", 0.02, 0.0), ("dense", 0.01, 0.01)], 10)
    assert _few_labels.on_tuning({10: (0.1, 0.01), 100: (-0.1, 0.01), 1000: (0.1, 0.06)}) == (
        "By more than two standard errors, the pretrained network is better with 10 labels; worse with 100 labels.")
    assert "neither" in _few_labels.on_tuning({10: (0.1, 0.06)})


def test_what_is_said_of_detectors():
    facts = {"conv": {"auroc": 0.4}, "pca16": {"auroc": 0.9}, "intensity": {"auroc": 0.6}}
    assert "best score for these test images is pca16 0.9000: linear PCA is ahead of conv 0.4000" in _anomalies.on_detectors(facts, "pca16", "x")
    assert "as for conv, images of x have the lower scores" in _anomalies.on_detectors(facts, "pca16", "x")
    text = _anomalies.on_detectors({**facts, "conv": {"auroc": 0.95}}, "pca16", "x")
    assert "is conv 0.9500; PCA is a step without training: pca16 0.9000." in text
    assert "lower scores" not in text


def test_a_classifier_begins_with_a_copy_of_the_encoder():
    minidl.manual_seed(0)
    encoder = conv_autoencoder((1, 8, 8)).encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    images, labels = minidl.rand(20, 1, 8, 8), minidl.randint(0, 10, (20,))
    network, curve = _few_labels.tuned(encoder, images, labels, TensorDataset(images, labels), lr=1e-3, rows=64, epochs=3, device="cpu", seed=1)
    assert len(curve) == 3
    for name, value in encoder.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name].numpy())
    changes = [np.abs(value.numpy() - before[name].numpy()).max() for name, value in network[0].state_dict().items()]
    assert 0.0035 < max(changes) < 0.01, "six steps of Adam with a rate of 1e-3, from those weights on"
    assert network(images).shape == (20, 10)
    again, same = _few_labels.tuned(encoder, images, labels, TensorDataset(images, labels), lr=1e-3, rows=64, epochs=3, device="cpu", seed=1)
    assert same == curve
    np.testing.assert_array_equal(again[2].weight.detach().numpy(), network[2].weight.detach().numpy())


def test_a_classifier_goes_where_its_encoder_is():
    minidl.manual_seed(0)
    encoder = conv_autoencoder((1, 8, 8)).encoder.to("fake")
    images, labels = minidl.rand(20, 1, 8, 8), minidl.randint(0, 10, (20,))
    network, _ = _few_labels.tuned(encoder, images, labels, TensorDataset(images, labels), lr=1e-3, rows=32, epochs=1, device="fake", seed=1)
    assert {str(parameter.device) for parameter in network.parameters()} == {"fake"}


@pytest.mark.parametrize("kind", ["float32", "float16", "uint8"])
def test_stored_codes_come_back(kind):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(50, 7)).astype(np.float32) * np.arange(7, dtype=np.float32)         # one number is always 0
    lowest, highest = codes.min(0), codes.max(0)
    stored = _compression.as_bytes(codes, kind, lowest, highest)
    assert (stored.dtype, stored.nbytes) == (kind, 350 * np.dtype(kind).itemsize)
    back = _compression.from_bytes(stored, lowest, highest)
    assert back.dtype == np.float32
    allowed = {"float32": 0, "float16": 2 ** -10 * np.abs(codes), "uint8": (highest - lowest) / 255 * 0.501}[kind]
    assert (np.abs(back - codes) <= allowed).all()
    outside = _compression.from_bytes(_compression.as_bytes(codes * 2, "uint8", lowest, highest), lowest, highest)
    error = np.abs(outside - (codes * 2).clip(lowest, highest))
    assert (error <= (highest - lowest) / 255 * 0.501).all(), "codes beyond those of training are cut off"


def test_bytes_and_what_is_saved():
    pixels = np.random.default_rng(0).random((100, 1, 28, 28))
    images = minidl.from_numpy(pixels)
    found = _compression.compressed(lambda images: np.zeros((len(images), 128), np.float32), images, images[:50], pixels,
                                    lambda codes: np.zeros_like(pixels))
    assert [found[kind]["bytes"] for kind in ("float32", "float16", "uint8")] == [51_200, 25_600, 12_800]
    assert found["float32"]["saved"] == pytest.approx(0.3469, abs=5e-5)
    assert found["uint8 by zlib"]["bytes"] == len(zlib.compress(bytes(12_800), 9))
    assert found["uint8 by zlib"]["saved"] == 1 - found["uint8 by zlib"]["bytes"] / 78_400
    assert found["uint8"]["psnr"] == pytest.approx(-10 * np.log10((pixels ** 2).mean()))
    exact = np.rint(pixels * 255).astype(np.uint8)
    assert _compression.lossless(pixels) == len(zlib.compress(exact.tobytes(), 9))


def scores(training, validation, test, other_training, other_test):
    return _anomalies.Scores(*map(np.asarray, (training, validation, test, other_training, other_test)))


def test_judging_scores():
    rng = np.random.default_rng(0)
    known, strange = rng.normal(5, 1, (3, 2000)), rng.normal(9, 1, (2, 2000))
    found = _anomalies.judged(scores(*known, *strange))
    assert found["threshold"] == pytest.approx(5 + 1.645, abs=0.12)
    assert found["threshold_correct"] == pytest.approx((known[2] <= found["threshold"]).mean())
    assert found["threshold_other_correct"] == pytest.approx((strange[1] > found["threshold"]).mean())
    assert found["boundary"] == pytest.approx(7, abs=0.1)
    assert found["correct"] == pytest.approx((known[2] < found["boundary"]).mean(), abs=1e-3)
    pairs = (strange[1][:, None] > known[2]).mean()
    assert found["auroc"] == pytest.approx(pairs, abs=1e-6)
    limit = np.quantile(strange[1], 0.05)
    assert found["fpr_at_95"] == pytest.approx((known[2] >= limit).mean(), abs=2e-3)
    assert (found["mean"], found["other_mean"]) == pytest.approx((known[2].mean(), strange[1].mean()))


def test_the_threshold_has_seen_no_anomaly():
    rng = np.random.default_rng(0)
    known, strange = rng.normal(5, 1, (3, 500)), rng.normal(9, 1, (2, 500))
    found = _anomalies.judged(scores(*known, *strange))
    other = _anomalies.judged(scores(*known, strange[0] * 3, strange[1]))
    assert found["threshold"] == other["threshold"]
    assert found["boundary"] != other["boundary"]
    assert _anomalies.judged(scores(known[0], known[1], known[2] + 50, *strange))["threshold"] == found["threshold"]


def test_a_score_that_is_lower_for_the_other_kind():
    """The classifier may use it all the same; the area under the ROC curve says that it points the wrong way."""
    rng = np.random.default_rng(0)
    found = _anomalies.judged(scores(*rng.normal(9, 1, (3, 500)), *rng.normal(5, 1, (2, 500))))
    assert found["auroc"] < 0.02
    assert min(found["correct"], found["other_correct"]) > 0.9


def test_patches_of_photographs():
    from sklearn.datasets import load_sample_image

    first, second = _anomalies.photographs(8)
    assert first.shape == second.shape == (260, 1, 8, 8)
    for patches, name in ((first, "china.jpg"), (second, "flower.jpg")):
        grey = load_sample_image(name).mean(axis=2) / 255
        np.testing.assert_allclose(patches[23, 0, 2, 5].item(), grey[32 + 8:32 + 12, 96 + 20:96 + 24].mean(), rtol=1e-5)
        assert (float(patches.min()) >= 0, float(patches.max()) <= 1) == (True, True)


# -- the command line, and the real thing ------------------------------------------------------------------------------

def test_dense_alone(tmp_path):
    output = run_lab("autoencoder_applications", "--models", "dense_sparse", "--epochs", 1, "--draws", 2, "--tune-epochs", 1,
                     "--tune-draws", 2, "--train-size", 40, "--test-size", 10, "--out", tmp_path).stdout
    assert "Of the dense autoencoders (1), those with codes that beat pixels" in output
    assert "conv" not in output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["models"]["dense_sparse"]["knn"]["labels"] == [10, 30]
    assert metrics["anomaly"]["model"] == "dense_sparse"


@pytest.mark.parametrize(("argument", "value", "expected"), [
    ("--draws", "1", "a whole number from 2 up"), ("--tune-draws", "x", "a whole number from 2 up"),
    ("--tune-epochs", "0", "a whole number above 0"), ("--test-size", "0", "a whole number above 0")])
def test_bad_numbers_are_one_sentence(argument, value, expected, tmp_path):
    result = run_lab("autoencoder_applications", argument, value, "--out", tmp_path / "out", check=False)
    assert (result.returncode, result.stderr) == (
        2, f"error: argument {argument}: got '{value}', expected {expected}; --help shows all arguments\n")
    assert not (tmp_path / "out").exists()


def test_too_few_images_for_pca(tmp_path):
    result = run_lab("autoencoder_applications", "--train-size", 15, "--out", tmp_path, check=False)
    assert result.returncode == 2
    assert result.stderr == ("error: --train-size: got 15, of which 12 are trained on, expected enough for 16: PCA is fitted with as many "
                             "components as a code has numbers\n")


def test_codes_that_died_end_the_lab(tmp_path):
    result = run_lab("autoencoder_applications", "--models", "dense", "--optimizer", "sgd", "--lr", 3, "--epochs", 3, "--out", tmp_path,
                     check=False)
    assert result.returncode == 2
    assert result.stderr == "error: --lr: the codes of dense have become 0 for all images; choose a smaller rate than 3\n"


def test_without_the_other_dataset_it_says_so_before_it_trains(tmp_path, monkeypatch):
    """MNIST is there, in the form in which it is published, Fashion-MNIST is not."""
    import runpy
    import sys

    monkeypatch.delenv("MINIDL_DATA", raising=False)
    write_mnist(tmp_path / "data" / "mnist", MNIST, monkeypatch)
    assert gzip.decompress((tmp_path / "data" / "mnist" / "t10k-labels-idx1-ubyte.gz").read_bytes())
    trained = []
    monkeypatch.setattr(_autoencoders, "fitted", lambda *arguments: trained.append(arguments))
    monkeypatch.setattr(sys, "argv", ["lab", "--dataset", "mnist", "--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(minidl.MinidlError, match="FashionMNIST") as caught:
        runpy.run_module("labs.autoencoder_applications", run_name="__main__", alter_sys=True)
    assert "--download" in str(caught.value)
    assert trained == []


def run_on_mnist(folder, *arguments):
    if not REAL:
        pytest.skip("set MINIDL_DATA to a folder with mnist/ and fashion-mnist/ to run this")
    run_lab("autoencoder_applications", "--dataset", "mnist", "--preset", "full", "--optimizer", "adam", "--batch-size", 128,
            "--tune-epochs", 1, "--tune-draws", 2, "--out", folder, *arguments, data=REAL)
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.slow
def test_codes_of_mnist_beat_pixels_as_with_pytorch(tmp_path):
    """Five epochs of both; several minutes."""
    metrics = run_on_mnist(tmp_path, "--models", "conv,dense", "--epochs", 5, "--draws", 10)
    knn, blur = metrics["models"]["conv"]["knn"], metrics["knn_baselines"]["blur"]
    assert metrics["models"]["dense"]["knn"]["paired_difference"][2] < 0, "dense codes do not"
    assert (knn["labels"][2], knn["draws"]) == (100, 10)
    assert knn["paired_difference"][2] >= 0.015
    assert blur["paired_difference"][2] > 0.01
    assert metrics["compression"]["pixels"]["bytes"] == 7_840_000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "epochs", "mnist", "fashion", "auroc"), [("conv", 10, 0.955, 0.92, 0.98), ("dense", 40, 0.97, 0.94, 0.985)])
def test_clothes_are_found_among_digits_as_with_pytorch(name, epochs, mnist, fashion, auroc, tmp_path):
    """Several minutes each."""
    found = run_on_mnist(tmp_path, "--models", name, "--epochs", epochs, "--draws", 2)["anomaly"]
    assert found["mnist_correct"] >= mnist
    assert found["fashion_correct"] >= fashion
    assert found["auroc"] >= auroc
    if name == "conv":
        assert found["mnist_mean_l2"] <= 7.0
        assert found["fashion_mean_l2"] / found["mnist_mean_l2"] >= 1.6
    assert found["baselines"]["pca128"]["auroc"] > found["auroc"], "linear PCA wins, and the lab says so"
