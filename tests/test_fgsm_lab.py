"""The lab of attacks, in small: what it claims follows from what it measured, and it finds a network or trains one."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import minidl
from labs import _fgsm, _trained
from minidl import nn
from minidl.models import small_cnn
from tests.figures import run_lab, run_once

REAL = os.environ.get("MINIDL_DATA")
SMALL = ("--epochs", 8, "--test-size", 150, "--harden-epochs", 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small run in this process: its names, figures and folder."""
    return run_once(tmp_path_factory, "fgsm", *SMALL, "--retrain")


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


def test_its_figures(run):
    assert set(run[1]) == {"gradients", "accuracy", "one", "rows", "confusion", "smallest", "sign", "hardened"}


def test_the_metrics(run, metrics):
    names = run[0]
    assert metrics["epsilons"] == [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    for name in ("fgsm_accuracy", "pgd_accuracy", "noise_accuracy"):
        assert len(metrics[name]) == 7
        assert metrics[name][0] == metrics["clean_accuracy"], "ε = 0 is no attack"
    assert set(metrics["adversarially_trained"]) >= {"clean_accuracy", "fgsm_accuracy_at_0.1", "pgd_accuracy_at_0.1"}
    assert metrics["test_count"] == 150
    with minidl.no_grad():
        said = names["network"](names["test_images"]).argmax(dim=1)
    assert metrics["clean_accuracy"] == pytest.approx(float((said == names["test_labels"]).float().mean()))


def test_attacks_do_more_than_noise_and_training_helps(metrics):
    at = metrics["epsilons"].index(0.1)
    assert metrics["clean_accuracy"] > 0.9
    assert metrics["noise_accuracy"][at] > 0.85
    assert metrics["fgsm_accuracy"][at] < metrics["noise_accuracy"][at] - 0.2
    assert metrics["pgd_accuracy"][at] < metrics["fgsm_accuracy"][at]
    assert metrics["pgd_accuracy"][-1] < 0.05
    trained = metrics["adversarially_trained"]
    assert trained["clean_accuracy"] > metrics["clean_accuracy"] - 0.05
    assert trained["fgsm_accuracy_at_0.1"] > metrics["fgsm_accuracy"][at] + 0.03
    assert trained["fgsm_accuracy_at_0.1"] > metrics["trained_on_without"]["fgsm_accuracy"][at] + 0.03
    assert trained["pgd_accuracy_at_0.1"] > metrics["pgd_accuracy"][at] + 0.03


def test_all_attacks_get_the_same_images(run):
    results = list(run[0]["results"].values())
    for result in results:
        np.testing.assert_array_equal(result.labels.numpy(), run[0]["truth"])
        np.testing.assert_array_equal(result.clean.numpy(), results[0].clean.numpy())


def test_the_trained_network_is_not_the_hardened_one(run):
    """Adversarial training begins from the trained network, and leaves that one as it is."""
    names = run[0]
    pairs = zip(names["network"].parameters(), names["hardened"].parameters(), strict=True)
    assert all((a != b).any() for a, b in pairs)
    saved = minidl.load(run[2] / "small_cnn.safetensors")["state_dict"]
    for name, parameter in names["network"].state_dict().items():
        np.testing.assert_array_equal(parameter.numpy(), saved[name].numpy())


def test_changes_of_a_given_length():
    random = np.random.default_rng(0)
    images = minidl.tensor(random.random((6, 1, 5, 5)))
    direction = minidl.tensor(random.normal(size=(6, 1, 5, 5)))
    length = minidl.tensor([0.0, 0.1, 0.5, 1.0, 1.5, 100.0])
    changed = _fgsm.of_length(images, direction, length)
    measured = (changed - images).flatten(1).norm(dim=1).numpy()
    np.testing.assert_allclose(measured[:5], length.numpy()[:5], atol=1e-6)
    assert measured[5] == pytest.approx(float((images + 1e4 * direction).clamp(0, 1).sub(images)[5].norm())), "as far as it goes"
    assert ((changed - images) * direction >= -1e-12).all()


def test_half_of_the_loss_is_that_of_adversarial_images():
    minidl.manual_seed(0)
    network = small_cnn((1, 8, 8))
    model = _fgsm.Hardened(network, 1e-3, eps=0.2)
    images, labels = minidl.rand(6, 1, 8, 8), minidl.randint(0, 10, (6,))
    model.log_dict = lambda values, prog_bar: None                          # no Trainer here
    loss = model.training_step((images, labels), 0)
    apart = [nn.functional.cross_entropy(network(x), labels) for x in (images, model.attack(images, labels))]
    assert float(loss) == pytest.approx(float(apart[0] + apart[1]) / 2, rel=1e-6)
    assert apart[1] > apart[0]
    model.share = 0.0
    assert float(model.training_step((images, labels), 0)) == pytest.approx(float(apart[0]), rel=1e-6)


# -- the network that several labs look into ---------------------------------------------------------------------------

class FakeLab:
    """As much of a Lab as `trained_cnn` asks for."""

    def __init__(self, folder, **settings):
        from types import SimpleNamespace

        self.args = SimpleNamespace(**{"dataset": "digits", "retrain": False, "epochs": 1, "batch_size": 32, "seed": 0,
                                       **settings})
        self.out, self.device, self.said, self.metrics = folder, "cpu", [], {}
        self.pictures = minidl.rand(60, 1, 8, 8), minidl.randint(0, 10, (60,))

    def say(self, text):
        self.said.append(text)

    def images(self, train):
        return self.pictures


def test_a_saved_network_is_found_and_a_foreign_one_left_alone(tmp_path, monkeypatch):
    saved = tmp_path / "cnn" / "cnn.safetensors"
    saved.parent.mkdir()
    monkeypatch.setattr(_trained, "OF_LABS_CNN", saved)
    lab = FakeLab(tmp_path)
    trained = _trained.trained_cnn(lab, *lab.pictures)                      # nothing is there: it trains
    assert lab.said[0].startswith("A network is trained first, for 1 epoch on 60 images")
    assert lab.metrics["network"]["file"] == str(tmp_path / "small_cnn.safetensors")
    assert _trained.was_trained_on_this_split(lab, 60)
    again = FakeLab(tmp_path)
    loaded = _trained.trained_cnn(again, *lab.pictures)                     # and finds that one the next time
    assert "The network is the one in" in again.said[0]
    np.testing.assert_array_equal(loaded[0].weight.detach().numpy(), trained[0].weight.detach().numpy())
    assert not loaded.training
    minidl.manual_seed(5)
    other = small_cnn((1, 8, 8))
    minidl.save({"dataset": "digits", "image_shape": (1, 8, 8), "seed": 5, "test_accuracy": 0.5,
                 "state_dict": other.state_dict()}, saved)
    third = FakeLab(tmp_path)
    preferred = _trained.trained_cnn(third, *lab.pictures)                  # that of labs.cnn comes first
    assert (third.metrics["network"]["file"], third.metrics["network"]["seed"]) == (str(saved), 5)
    assert not _trained.was_trained_on_this_split(third, 60)
    np.testing.assert_array_equal(preferred[0].weight.detach().numpy(), other[0].weight.detach().numpy())
    foreign = FakeLab(tmp_path, dataset="mnist")
    _trained.trained_cnn(foreign, *lab.pictures)
    assert foreign.said[0].startswith(f"The network in {saved} was trained on other images")
    assert foreign.said[0].endswith("is left alone.")
    assert foreign.said[1].endswith("is replaced.")
    assert foreign.said[2].startswith("A network is trained first")
    assert minidl.load(saved)["dataset"] == "digits"
    assert minidl.load(tmp_path / "small_cnn.safetensors")["dataset"] == "mnist"
    retrained = FakeLab(tmp_path, retrain=True)
    _trained.trained_cnn(retrained, *lab.pictures)
    assert retrained.said[0].startswith("A network is trained first")


@pytest.mark.parametrize("other", [{"epochs": 2}, {"seed": 1}, {"dataset": "mnist"}])
def test_a_network_of_an_earlier_run_is_only_taken_if_it_would_be_the_same(other, tmp_path, monkeypatch):
    monkeypatch.setattr(_trained, "OF_LABS_CNN", tmp_path / "none")
    lab, later = FakeLab(tmp_path), FakeLab(tmp_path, **other)
    _trained.trained_cnn(lab, *lab.pictures)
    _trained.trained_cnn(later, *lab.pictures)
    assert later.said[0].endswith("is replaced.")
    assert later.metrics["network"].items() >= other.items()
    assert minidl.load(tmp_path / "small_cnn.safetensors").items() >= other.items()
    smaller = FakeLab(tmp_path, **other)
    _trained.trained_cnn(smaller, lab.pictures[0][:50], lab.pictures[1][:50])
    assert smaller.said[0].endswith("is replaced.")
    assert smaller.metrics["network"]["train_size"] == 50


def test_a_saved_network_of_another_form_is_one_sentence(tmp_path, monkeypatch):
    saved = tmp_path / "cnn.safetensors"
    monkeypatch.setattr(_trained, "OF_LABS_CNN", saved)
    minidl.save({"dataset": "digits", "image_shape": (1, 8, 8), "seed": 0, "test_accuracy": 0.5,
                 "state_dict": nn.Sequential(nn.Linear(3, 3)).state_dict()}, saved)
    lab = FakeLab(tmp_path)
    with pytest.raises(minidl.MinidlError) as caught:
        _trained.trained_cnn(lab, *lab.pictures)
    assert "does not hold such a network" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(saved) in str(caught.value)


# -- the command line, and the real thing ------------------------------------------------------------------------------

@pytest.mark.parametrize("argument", ["--test-size", "--harden-epochs", "--harden-size"])
def test_bad_input_is_one_sentence(argument, tmp_path):
    result = run_lab("fgsm", argument, 0, "--out", tmp_path / "out", check=False)
    assert (result.returncode, result.stderr) == (
        2, f"error: argument {argument}: got '0', expected a whole number above 0; --help shows all arguments\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_mnist_falls_as_it_does_with_pytorch(tmp_path):
    """Where PyTorch's figures lie, for the CNN of 16,000 images; ten minutes and more."""
    if not REAL:
        pytest.skip("set MINIDL_DATA to a folder with mnist/ to run this")
    run_lab("fgsm", "--dataset", "mnist", "--preset", "full", "--retrain", "--out", tmp_path, data=REAL)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    at = {eps: e for e, eps in enumerate(metrics["epsilons"])}
    fgsm, pgd, noise = (metrics[f"{name}_accuracy"] for name in ("fgsm", "pgd", "noise"))
    assert noise[at[0.1]] >= 0.97
    assert 0.60 <= fgsm[at[0.1]] <= 0.90
    assert pgd[at[0.1]] <= fgsm[at[0.1]] - 0.05
    assert fgsm[at[0.2]] <= 0.35
    assert pgd[at[0.2]] <= 0.05
    assert noise[at[0.2]] >= 0.96
    trained = metrics["adversarially_trained"]
    assert trained["clean_accuracy"] >= 0.98
    assert trained["fgsm_accuracy_at_0.1"] >= 0.92
    assert trained["pgd_accuracy_at_0.1"] >= 0.87


def test_one_image_and_figures_without_a_fooled_one(tmp_path):
    """The smallest run that there is: ten images to train on, one to attack, which may be wrong anyway."""
    output = run_lab("fgsm", "--train-size", 10, "--epochs", 1, "--test-size", 1, "--harden-epochs", 1,
                     "--harden-size", 8, "--retrain", "--out", tmp_path).stdout
    assert "trained first, for 1 epoch on 10 images" in output
