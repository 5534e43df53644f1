"""The autoencoder lab, in small: its numbers are those of its networks, and a run that goes on is as good as a long one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import minidl
from labs import _autoencoders, _reconstructions
from minidl import nn
from minidl.models import Autoencoder, conv_autoencoder, dense_autoencoder
from tests.figures import run_here, run_lab, run_once
from tests.test_tensorboard import read

REAL = os.environ.get("MINIDL_DATA")
FIGURES = {"curves", "reconstructions", "epochs", "denoising", "codes", "decoder_weights", "interpolation", "embedding"}
NAMES = ["dense", "dense_denoising", "dense_dropout", "dense_sparse", "conv"]
SMALL = ("--models", ",".join(NAMES), "--epochs", 8, "--test-size", 150)              # before further arguments
SMALLEST = ("--train-size", 200, "--test-size", 50)


@pytest.fixture(autouse=True, scope="module")
def _only_its_own_networks(tmp_path_factory):
    """What somebody has trained in runs/ is not looked at."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(_autoencoders, "OF_LABS_AUTOENCODERS", tmp_path_factory.mktemp("runs") / "none")
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small run in this process: its names, figures and folder."""
    return run_once(tmp_path_factory, "autoencoders", *SMALL)


@pytest.fixture(scope="module")
def metrics(run):
    return metrics_in(run[2])


def metrics_in(folder):
    return json.loads((folder / "metrics.json").read_text())


def without_times(metrics):
    models = {name: {key: value for key, value in model.items() if key != "seconds_per_epoch"}
              for name, model in metrics["models"].items()}
    return {key: value for key, value in metrics.items() if key != "seconds"} | {"models": models}


# -- one run -----------------------------------------------------------------------------------------------------------

def test_its_figures(run):
    assert set(run[1]) == FIGURES
    page = (run[2] / "report.html").read_text()
    assert "class Reconstruction" in page
    assert "Why is the code smaller than the input?" in page


def test_the_metrics_are_those_of_its_networks(run, metrics):
    names = run[0]
    mean, std, test = names["mean"], names["std"], names["test"]
    assert list(metrics["models"]) == NAMES
    assert (metrics["optimizer"], metrics["test_size"]) == ("adam", 150)
    np.testing.assert_allclose(test.numpy() * std + mean, names["test_pixels"], atol=1e-6)
    for name, model in metrics["models"].items():
        network = names["networks"][name]
        with minidl.no_grad():
            code, of_validation = network.encoder(test).numpy(), network(names["validation"]).numpy()
            made = np.clip(network(test).numpy() * std + mean, 0, 1).astype(np.float64)
        assert model["param_count"] == {"dense": 5264, "conv": 3221}[name.partition("_")[0]]
        assert model["code_size"] == 16
        assert model["lr"] == (0.001 if name == "dense_sparse" else 0.002)
        assert len(model["train_loss"]) == len(model["val_loss"]) == 8
        assert model["psnr"] == pytest.approx(10 * np.log10(1 / np.mean((made - names["test_pixels"]) ** 2)), abs=1e-4)
        assert model["val_loss"][-1] == pytest.approx(np.mean((of_validation - names["validation"].numpy()) ** 2), rel=1e-4)
        about = metrics["sparsity"][name]
        assert about["zero"] == pytest.approx(np.mean(code == 0))
        assert about["mean"] == pytest.approx(code.mean(), rel=1e-5)
        assert about["distance"] == pytest.approx(abs(code - 0.05).mean(), rel=1e-5)
        assert about["dead"] == sum((code.reshape(150, -1)[:, k] == 0).all() for k in range(16))
        for noise, images in names["noisy"].items():
            with minidl.no_grad():
                error = np.mean((network(images).numpy() - test.numpy()) ** 2)
            assert metrics["denoising"][noise][name] == pytest.approx(error, rel=1e-4)
    for noise, images in names["noisy"].items():
        assert metrics["denoising"][noise]["noisy"] == pytest.approx(np.mean((images.numpy() - test.numpy()) ** 2), rel=1e-4)


def test_the_principal_components(run, metrics):
    names = run[0]
    training, test = (names[kind].numpy().reshape(len(names[kind]), -1).astype(np.float64) for kind in ("training", "test"))
    directions = np.linalg.svd(training - training.mean(0), full_matrices=False)[2][:16]
    noisy = names["noisy"]["gaussian"].numpy().reshape(150, -1)
    made = (noisy - training.mean(0)) @ directions.T @ directions + training.mean(0)
    assert metrics["denoising"]["gaussian"]["pca_16"] == pytest.approx(np.mean((made - test) ** 2), rel=1e-3)
    made = (test - training.mean(0)) @ directions.T @ directions + training.mean(0)
    made, clean = (np.clip(x * names["std"] + names["mean"], 0, 1) for x in (made, test))
    assert metrics["pca_psnr"] == {"16": pytest.approx(-10 * np.log10(np.mean((made - clean) ** 2)), abs=1e-2)}


def test_the_maps(run, metrics):
    """How well classes group is what a count over all distances says."""
    names = run[0]
    assert list(names["maps"]) == ["pixels", "dense", "conv"]
    labels = names["truth"]
    for name, maps in names["maps"].items():
        for method, points in {"all numbers": names["points"][name], **maps}.items():
            distances = ((points[:, None].astype(np.float64) - points[None]) ** 2).sum(2)
            np.fill_diagonal(distances, np.inf)
            nearest = np.argsort(distances, axis=1)[:, :10]
            agreement = np.mean(labels[nearest] == labels[:, None])
            assert metrics["embedding"][name][method] == pytest.approx(agreement, abs=2e-3)
    share = np.mean([[a == b for b in np.delete(labels, i)] for i, a in enumerate(labels)])
    assert metrics["embedding"]["chance"] == pytest.approx(share)
    assert all(metrics["embedding"][name]["t-SNE"] > 3 * share for name in names["maps"])


def test_what_must_come_out(metrics):
    """Bars with room: training helps, against what needs none."""
    assert metrics["models"]["dense"]["psnr"] > metrics["mean_image_psnr"] + 3
    assert metrics["models"]["conv"]["psnr"] > metrics["mean_image_psnr"] + 1
    for model in metrics["models"].values():
        assert model["val_loss"][-1] < 0.8 * model["val_loss"][0]
    gaussian, dropout = metrics["denoising"]["gaussian"], metrics["denoising"]["dropout"]
    assert gaussian["noisy"] == pytest.approx(0.25, abs=0.01)
    assert gaussian["dense_denoising"] < gaussian["noisy"] - 0.02
    assert dropout["dense_dropout"] < min(dropout["noisy"], dropout["blur"], dropout["pca_16"], dropout["dense"]) - 0.03
    assert metrics["sparsity"]["dense_sparse"]["distance"] < 0.3 * metrics["sparsity"]["dense"]["distance"]
    assert metrics["sparsity"]["dense_denoising"]["moved"] < metrics["sparsity"]["dense"]["moved"]
    smooth = metrics["decoder_smoothness"]["dense"]
    assert smooth["trained"] > smooth["untrained"] + 0.05


def test_noise_is_in_training_only(run):
    """What is kept of each epoch is what the network makes of clean images, also if it was trained with noise."""
    originals = run[0]["validation"][:8]
    for name, trained in run[0]["trained"].items():
        assert sorted(trained.snapshots) == [1, 5, 8]
        assert not trained.network.training
        with minidl.no_grad():
            np.testing.assert_allclose(trained.snapshots[8].numpy(), trained.network(originals).numpy(), atol=1e-5, err_msg=name)


# -- runs that go on ---------------------------------------------------------------------------------------------------

def test_a_second_run_takes_the_checkpoints(run, metrics, monkeypatch):
    """All that it says about the networks which it asks for is what the first run said."""
    run_here(monkeypatch, "autoencoders", *SMALL, "--models", "dense,conv", "--out", run[2])
    again = metrics_in(run[2])
    assert list(again["models"]) == ["dense", "conv"]
    for name, model in again["models"].items():
        assert model == metrics["models"][name], "the times of the epochs too, so nothing was trained"
        for kind in ("sparsity", "embedding"):
            assert again[kind][name] == metrics[kind][name]
        for noise, errors in again["denoising"].items():
            assert errors[name] == metrics["denoising"][noise][name]
    assert again["embedding"]["pixels"] == metrics["embedding"]["pixels"]


def test_going_on_and_beginning_anew_end_with_the_same_network(tmp_path, monkeypatch):
    """Two epochs, then two more; then four at once. And what TensorBoard sees."""
    def run_for(epochs, *more):
        names = run_here(monkeypatch, "autoencoders", "--models", "conv_denoising", "--epochs", epochs, *SMALLEST, "--out",
                         tmp_path, *more)[0]
        network = names["networks"]["conv_denoising"]
        assert not network.training
        return network.state_dict(), metrics_in(tmp_path), sorted(names["trained"]["conv_denoising"].snapshots)

    run_for(2, "--tensorboard")
    events = read(next(path.parent for path in tmp_path.rglob("events.out.tfevents.*")))
    images = events.Images("original and reconstruction")
    assert [image.step for image in images] == [1, 2]
    assert (images[0].width, images[0].height) == (8 * 10 + 2, 2 * 10 + 2), "eight originals, eight reconstructions"
    assert len(events.Scalars("train_loss")) == len(events.Scalars("train_sparsity")) == 2
    parts, of_parts, epochs = run_for(4)
    assert [event.value for event in events.Scalars("val_loss")] == pytest.approx(of_parts["models"]["conv_denoising"]["val_loss"][:2])
    whole, of_whole, _ = run_for(4, "--retrain")
    assert epochs == [1, 4]
    for name in whole:
        np.testing.assert_array_equal(parts[name].numpy(), whole[name].numpy(), err_msg=name)
    assert without_times(of_parts) == without_times(of_whole)
    assert of_parts["models"] != of_whole["models"], "its epochs took another time: it was trained"


# -- few and failing networks, and the command line --------------------------------------------------------------------

@pytest.mark.parametrize("name", ["conv", "dense_dropout"])
def test_one_network_alone(name, tmp_path, monkeypatch):
    names, figures = run_here(monkeypatch, "autoencoders", "--models", name, "--epochs", 1, *SMALLEST, "--out", tmp_path)
    assert set(figures) == FIGURES
    assert list(names["maps"]) == ["pixels", name]
    assert list(metrics_in(tmp_path)["models"]) == [name]


def test_codes_that_are_all_equal_have_no_map(tmp_path, monkeypatch):
    """A learning rate that silences ReLU for good."""
    run_here(monkeypatch, "autoencoders", "--models", "dense", "--lr", 0.5, "--epochs", 2, *SMALLEST, "--out", tmp_path)
    found = metrics_in(tmp_path)
    assert found["sparsity"]["dense"]["dead"] == 16
    assert found["not_finite"] == {"sparsity.dense.moved": "nan"}
    assert set(found["embedding"]) == {"pixels", "chance"}
    assert "All codes are equal, and have no map, in: dense." in (tmp_path / "report.html").read_text()


def test_a_model_that_is_none_is_one_sentence(tmp_path):
    result = run_lab("autoencoders", "--models", "dense,vae", "--out", tmp_path / "out", check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: argument --models: got 'vae', expected all, or one or more of dense, dense_denoising, ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("--test-size", 49), "error: --test-size: got 49, expected at least 50: nearest neighbours are sought among them\n"),
    (("--models", "dense", "--optimizer", "sgd", "--lr", 1e20, "--epochs", 1, "--train-size", 20),
     "error: --lr: the training of dense ended with an error of nan; choose a smaller one than 1e+20\n"),
])
def test_what_cannot_work_is_one_sentence(arguments, sentence, tmp_path):
    result = run_lab("autoencoders", *arguments, "--out", tmp_path, check=False)
    assert (result.returncode, result.stderr) == (2, sentence)
    assert not (tmp_path / "metrics.json").exists()


# -- what is measured --------------------------------------------------------------------------------------------------

def test_noise_is_as_in_training_and_always_the_same():
    images = minidl.rand(400, 1, 8, 8) + 1
    gaussian = (_reconstructions.noisy(images, "gaussian", 0) - images).numpy()
    assert gaussian.std() == pytest.approx(0.5, abs=0.01)
    assert gaussian.mean() == pytest.approx(0, abs=0.01)
    ratio = (_reconstructions.noisy(images, "dropout", 0) / images).numpy()
    assert set(np.unique(ratio.round(5))) == {0, 2}
    assert np.mean(ratio == 0) == pytest.approx(0.5, abs=0.01)
    for noise in ("gaussian", "dropout"):
        first, again, other = (_reconstructions.noisy(images, noise, seed).numpy() for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_blurred_is_the_mean_of_nine():
    images = minidl.rand(2, 1, 5, 6)
    blurred = _autoencoders.blurred(images).numpy()
    padded = np.pad(images.numpy()[1, 0], 1, mode="edge")
    for row, column in ((0, 0), (2, 3), (4, 5)):
        assert blurred[1, 0, row, column] == pytest.approx(padded[row:row + 3, column:column + 3].mean(), rel=1e-5)


def test_about_codes():
    clean = np.array([[0, 0, 1], [0, 2, 3], [0, 0, 0]], np.float32)
    about = _reconstructions.about_codes(clean, clean + np.array([0, 1, 0]))
    apart = np.mean([((a - b) ** 2).sum() for i, a in enumerate(clean) for j, b in enumerate(clean) if i != j])
    assert about == {"zero": pytest.approx(6 / 9), "mean": pytest.approx(6 / 9), "dead": 1,
                     "distance": pytest.approx(np.mean(abs(clean - 0.05))), "moved": pytest.approx(1 / apart)}


def test_gains_are_paired():
    found = {"gaussian": {"dense": np.array([1.0, 2, 3]), "dense_denoising": np.array([0.0, 1, 1]), "dense_denoising_sparse": np.ones(3)},
             "dropout": {"dense": np.ones(3), "dense_denoising": np.ones(3)}}
    mean, error = _reconstructions.gains(found)["dense_denoising"]
    assert mean == pytest.approx(4 / 3)
    assert error == pytest.approx(np.std([1, 1, 2], ddof=1) / 3 ** 0.5)
    assert list(_reconstructions.gains(found)) == ["dense_denoising"], "the sparse one has no partner here"


def test_a_picture_of_weights_is_what_a_unit_adds():
    network = dense_autoencoder((1, 8, 8), 6, 3)
    last = network.decoder[2]
    with minidl.no_grad():
        last.weight *= minidl.tensor([1.0, 5, 2, 6, 3, 4])
        units = minidl.zeros(2, 6)
        units[1, 3] = 1                                                     # the one of the largest norm
        without, with_one = network.decoder[3](last(units))
    pictures = _reconstructions.weight_pictures(network)
    np.testing.assert_allclose((with_one - without)[0].numpy(), pictures[0].numpy(), atol=1e-6)
    norms = pictures.flatten(1).norm(dim=1).numpy()
    assert (np.diff(norms) <= 0).all()
    assert _reconstructions.weight_pictures(conv_autoencoder((1, 8, 8))).shape == (16, 3, 3)


def test_smoothness():
    ramp = minidl.arange(8.0).reshape(1, 1, 8).expand(3, 8, 8)
    assert _reconstructions.smoothness(ramp) == pytest.approx(1)
    assert abs(_reconstructions.smoothness(minidl.randn(64, 28, 28))) < 0.02


def test_the_way_between_codes():
    linear = Autoencoder(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), nn.Sequential(nn.Linear(3, 16), nn.Unflatten(1, (1, 4, 4)))).eval()
    bent = Autoencoder(linear.encoder, nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Unflatten(1, (1, 4, 4)))).eval()
    firsts, others = minidl.randn(5, 1, 4, 4), minidl.randn(5, 1, 4, 4)
    assert _reconstructions.departure(linear, firsts, others, "cpu") < 1e-10, "no other way than the blend"
    assert _reconstructions.departure(bent, firsts, others, "cpu") > 1e-3
    pair = minidl.stack([firsts[0], others[0]])
    blends = _reconstructions.blends(pair, 5).numpy()
    np.testing.assert_allclose(blends[1], 0.75 * pair[0].numpy() + 0.25 * pair[1].numpy(), atol=1e-6)
    with minidl.no_grad():
        ends = bent(pair).numpy()
    path = _reconstructions.path(bent, pair, 5, "cpu").numpy()
    assert path.shape == (5, 1, 4, 4)
    np.testing.assert_allclose(path[[0, -1]], ends, atol=1e-6)


def test_neighbours_that_agree():
    points = np.array([[0.0], [1], [2], [10], [11], [12]])
    assert _reconstructions.agreement(points, np.array([0, 0, 0, 1, 1, 1]), count=2) == 1
    assert _reconstructions.agreement(points, np.array([0, 1, 0, 1, 0, 1]), count=2) == pytest.approx(2 / 6)
    assert _reconstructions.agreement_by_chance(np.array([0, 0, 1])) == pytest.approx(2 / 6)


# -- the real thing ----------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_mnist(tmp_path):
    """All ten networks, a few minutes."""
    if not REAL:
        pytest.skip("set MINIDL_DATA to a folder with mnist/ to run this")
    run_lab("autoencoders", "--dataset", "mnist", "--models", "all", "--retrain", "--out", tmp_path, data=REAL)
    found = metrics_in(tmp_path)
    models = found["models"]
    assert [models[name]["param_count"] for name in ("dense", "conv")] == [468_368, 3_221]
    assert [models[name]["code_size"] for name in ("dense", "conv")] == [128, 196]
    assert set(found["pca_psnr"]) == {"128", "196"}
    assert all(model["psnr"] > found["mean_image_psnr"] + 2 for model in models.values())
    assert found["denoising"]["gaussian"]["conv_denoising"] < found["denoising"]["gaussian"]["conv"]
    assert found["denoising"]["dropout"]["conv_dropout"] < found["denoising"]["dropout"]["conv"] - 0.02
    assert found["embedding"]["conv"]["t-SNE"] > found["embedding"]["conv"]["PCA"] + 0.2
    assert found["embedding"]["conv"]["t-SNE"] > 0.7
