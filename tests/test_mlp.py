"""The MLP lab: the loop by hand and Trainer, five optimizers against formulas written here, and what its figures show."""

from __future__ import annotations

import json

import numpy as np
import pytest

import minidl
from labs import _optimizers
from minidl.datasets import MNIST, Digits
from minidl.errors import MinidlError
from tests.figures import run_here, run_lab, run_once

NAMES = ["SGD", "momentum", "RMSprop", "Adagrad", "Adam"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run in this process: its names, figures and folder. Every figure has been checked."""
    return run_once(tmp_path_factory, "mlp")


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


def test_it_learns_and_each_optimizer_learns_more_with_its_rate(metrics):
    assert (metrics["lab"], metrics["dataset"], metrics["seed"], metrics["device"]) == ("mlp", "digits", 0, "cpu")
    assert metrics["param_count"] == 64 * 512 + 512 + 512 * 10 + 10
    assert (metrics["train_count"], metrics["test_count"]) == (1347, 450)
    assert metrics["steps"] == 6 * 22
    assert len(metrics["train_loss"]) == len(metrics["test_accuracy_by_hand"]) == 6
    assert 2.1 < metrics["train_loss"][0] < 2.4                     # it starts near ln 10
    assert np.all(np.diff(metrics["train_loss"]) < 0)
    assert metrics["test_accuracy_by_hand"][-1] > 0.5
    compared = metrics["compared"]
    assert (compared["train_count"], compared["val_count"]) == (1078, 269)
    assert list(compared["test_accuracy"]) == NAMES
    for name in NAMES:
        assert len(compared["test_accuracy"][name]) == compared["seeds"] == 3
        assert min(compared["test_accuracy"][name]) > 0.92, name
        assert np.mean(compared["val_loss"][name]) < 0.3, name


def test_the_loop_by_hand_and_trainer_agree_to_the_last_bit(run, metrics):
    names, _, _ = run
    np.testing.assert_array_equal(names["hand_losses"], names["trainer_losses"])
    assert names["hand_losses"].shape == (132,)
    assert metrics["test_accuracy_by_hand"] == metrics["test_accuracy_by_trainer"]
    assert metrics["difference"] == {"losses": 0, "accuracies": 0, "parameters": 0}
    for ours, theirs in zip(names["hand"].parameters(), names["module"].net.parameters(), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())


def test_accuracies_are_those_of_the_networks_on_the_right_images(run, metrics):
    names, _, _ = run
    pixels, truth = Digits(train=False).data.numpy() / 255, Digits(train=False).targets.numpy()
    train_pixels = Digits().data.numpy() / 255
    assert (metrics["mean"], metrics["std"]) == (round(train_pixels.mean(), 4), round(train_pixels.std(), 4))

    def accuracy(net):
        """By NumPy alone, in float64."""
        w1, b1, w2, b2 = (p.detach().numpy().astype(float) for p in net.parameters())
        x = ((pixels - metrics["mean"]) / metrics["std"]).reshape(450, 64)
        return ((np.tanh(x @ w1.T + b1) @ w2.T + b2).argmax(1) == truth).mean()

    assert accuracy(names["hand"]) == pytest.approx(metrics["test_accuracy_by_hand"][-1])
    for name in NAMES:
        assert [accuracy(net) for net, _, _ in names["kept"][name]] == pytest.approx(
            metrics["compared"]["test_accuracy"][name])
    together = np.concatenate([names["part"].tensors[0].numpy(), names["validation"].tensors[0].numpy()])
    np.testing.assert_array_equal(np.sort(together.reshape(1347, 64), axis=0),
                                  np.sort(names["training"].tensors[0].numpy().reshape(1347, 64), axis=0))


def test_all_start_the_same_with_the_same_batches_and_keep_the_best_rate(run, metrics):
    names, _, _ = run
    runs, compared = names["runs"], metrics["compared"]
    assert len({float(losses[0]) for _, losses, _ in runs.values()}) == 1, "another start, or another first batch"
    assert len({losses.tobytes() for _, losses, _ in runs.values()}) == len(NAMES) * len(compared["rates"])
    for name in NAMES:
        losses = compared["val_loss_of_rates"][name]
        assert losses == [runs[name, lr][2][-1, 0] for lr in compared["rates"]]
        assert compared["rate"][name] == compared["rates"][int(np.argmin(losses))]
        assert compared["val_loss"][name][0] == min(losses)
        assert compared["better_than_sgd"].get(name, 0) == sum(
            ours > sgd for ours, sgd in zip(*(compared["test_accuracy"][key] for key in (name, "SGD")), strict=True))
        first_losses = [float(losses[0]) for _, losses, _ in names["kept"][name]]
        assert len(set(first_losses)) == 3, "three seeds, three starts"
        assert first_losses == [float(losses[0]) for _, losses, _ in names["kept"]["SGD"]]


def steps_of(name, lr, gradients):
    """Where a parameter that starts at 0 is after each step, given its gradients: the lab's table, with the ε that it leaves out."""
    p, v, m, places = 0.0, 0.0, 0.0, []
    for t, g in enumerate(gradients, 1):
        if name == "SGD":
            p -= lr * g
        elif name == "momentum":
            v = 0.9 * v + g
            p -= lr * v
        elif name == "RMSprop":
            v = 0.99 * v + 0.01 * g ** 2
            p -= lr * g / (v ** 0.5 + 1e-8)
        elif name == "Adagrad":
            v += g ** 2
            p -= lr * g / (v ** 0.5 + 1e-10)
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g ** 2
            p -= lr * (m / (1 - 0.9 ** t)) / ((v / (1 - 0.999 ** t)) ** 0.5 + 1e-8)
        places.append(p)
    return places


@pytest.mark.parametrize("name", NAMES)
def test_the_rules_in_the_table_are_what_the_optimizers_do(name):
    gradients = [1.0, -3.0, 0.5, 0.25, -0.125]
    p = minidl.zeros(1, dtype=minidl.float64, requires_grad=True)
    optimizer, places = _optimizers.OPTIMIZERS[name].make([p], 0.1), []
    for g in gradients:
        p.grad = minidl.tensor([g], dtype=minidl.float64)
        optimizer.step()
        places.append(p.item())
    assert places == pytest.approx(steps_of(name, 0.1, gradients), rel=1e-9)


def test_gradient_descent_goes_down_the_valley_as_its_formula_says(metrics):
    places, heights = _optimizers.descend(_optimizers.OPTIMIZERS["SGD"], 0.05, 0.7)
    t = np.arange(_optimizers.STEPS + 1)
    np.testing.assert_allclose(places[:, 0], _optimizers.START[0] * (1 - 0.05) ** t, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(places[:, 1], _optimizers.START[1] * (1 - 30 * 0.05) ** t, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(heights, (places[:, 0] ** 2 + 30 * places[:, 1] ** 2) / 2, rtol=1e-12)
    valley = metrics["valley"]
    for name in NAMES:
        rates = [[_optimizers.descend(_optimizers.OPTIMIZERS[name], lr, angle)[1].mean() for lr in _optimizers.RATES]
                 for angle in _optimizers.ANGLES.values()]
        assert valley[name]["rates"] == [_optimizers.RATES[int(np.argmin(means))] for means in rates]
    # what the lab says of it
    assert max(valley[name]["apart"] for name in ("SGD", "momentum")) < 1e-12
    assert min(valley[name]["apart"] for name in ("RMSprop", "Adagrad", "Adam")) > 0.1
    for name in ("RMSprop", "Adagrad"):
        upper, lower = valley[name]["heights"]
        assert upper < 0.1 * valley["SGD"]["heights"][0]
        assert lower > valley["SGD"]["heights"][1]


def test_what_the_questions_say_of_the_first_step(run, metrics):
    names, _, _ = run
    first = metrics["first_step"]
    assert first["spread_of_adam"] == pytest.approx(1, abs=1e-3)    # every parameter moves by the rate
    assert first["spread_of_gradient"] > 5
    w1, b1, w2, b2 = (p.detach().numpy().astype(float) for p in names["network"](0).parameters())
    x, y = (tensor[:64].numpy() for tensor in names["part"].tensors)
    hidden = np.tanh(x.reshape(64, 64) @ w1.T + b1)
    scores = hidden @ w2.T + b2
    by_score = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    by_score[np.arange(64), y] -= 1                                 # dL/dscores of cross-entropy, softmax - one-hot
    by_score /= 64
    by_hidden = by_score @ w2 * (1 - hidden ** 2)                   # tanh' = 1 - tanh²
    gradients = (by_hidden.T @ x.reshape(64, 64), by_hidden.sum(0), by_score.T @ hidden, by_score.sum(0))
    length = sum((g ** 2).sum() for g in gradients) ** 0.5
    assert first["length"] == pytest.approx(1e-3 * length, rel=1e-4)
    assert first["of_parameters"] == pytest.approx(sum((p ** 2).sum() for p in (w1, b1, w2, b2)) ** 0.5, rel=1e-5)


def test_its_figures(run, metrics):
    names, figures, folder = run
    assert list(figures) == ["rates", "optimizers", "weights", "valley"]
    assert (folder / "report.html").read_text().count("data:image/png;base64") == 4
    for name in figures:
        assert (folder / f"{name}.png").stat().st_size > 10_000
    compared = metrics["compared"]
    lines = {line.get_label(): line for line in figures["rates"].axes[0].lines}
    loss, accuracy = figures["optimizers"].axes
    raw, smooth = loss.lines[::2], loss.lines[1::2]
    for i, name in enumerate(NAMES):
        assert list(lines[name].get_ydata()) == compared["val_loss_of_rates"][name]
        losses = names["runs"][name, compared["rate"][name]][1]
        np.testing.assert_array_equal(raw[i].get_ydata(), losses)
        window = len(losses) // 20
        assert smooth[i].get_ydata()[0] == pytest.approx(losses[:window].mean(), rel=1e-5)
        assert smooth[i].get_xdata()[0] == np.arange(1, window + 1).mean()
        assert accuracy.lines[i].get_ydata()[-1] == compared["val_accuracy"][name][0]
        assert accuracy.lines[i].get_label() == f"{name}, {compared['rate'][name]:g}"
    pictures = [axes.images[0] for axes in figures["weights"].axes]
    assert len(pictures) == 3 * 32
    assert len({picture.get_clim() for picture in pictures}) == 1, "one scale of colours"
    start = names["network"](0)[1].weight.detach().numpy()
    adam = names["kept"]["Adam"][0][0][1].weight.detach().numpy()
    np.testing.assert_array_equal(pictures[5].get_array(), start[5].reshape(8, 8))
    np.testing.assert_array_equal(pictures[64 + 5].get_array(), (adam - start)[5].reshape(8, 8))
    valley = figures["valley"].axes
    assert len(valley) == 4
    for axes, paths in zip(valley[::2], names["paths"].values(), strict=True):
        for line, (_, places, _) in zip(axes.lines[1:], paths.values(), strict=True):
            np.testing.assert_array_equal(line.get_xydata(), places)


def test_it_says_what_it_saves_also_on_another_device(tmp_path):
    """With as few images as there may be: one step, and nothing to smooth."""
    arguments = ("--train-size", 10, "--epochs", 1, "--seed", 1)
    output = run_lab("mlp", *arguments, "--out", tmp_path / "cpu").stdout
    metrics = json.loads((tmp_path / "cpu" / "metrics.json").read_text())
    assert metrics["steps"] == 1
    assert f"{metrics['param_count']:,} parameters" in output
    for loss, accuracy in zip(metrics["train_loss"], metrics["test_accuracy_by_hand"], strict=True):
        assert f"{loss:.4f}" in output
        assert output.count(f"{accuracy:.4f}") >= 2                 # by hand and by Trainer
    for name, values in metrics["compared"]["test_accuracy"].items():
        assert f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" in output, name
    assert "PyTorch" not in output                                  # whose numbers are of MNIST
    run_lab("mlp", *arguments, "--device", "fake", "--out", tmp_path / "fake")
    on_fake = json.loads((tmp_path / "fake" / "metrics.json").read_text())
    assert on_fake["device"].startswith("fake")
    assert on_fake["train_loss"] == pytest.approx(metrics["train_loss"], rel=1e-4)
    assert on_fake["difference"]["losses"] < 1e-5


def test_without_data_it_says_how_to_get_it(tmp_path):
    result = run_lab("mlp", "--dataset", "mnist", "--data-dir", tmp_path / "none", "--out", tmp_path / "out", check=False)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "--download" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_on_mnist_it_reports_what_pytorch_reaches_beside_its_own(tmp_path, monkeypatch, capsys):
    """Two epochs of the protocol on all 60,000 images, and two of the five optimizers."""
    try:
        MNIST()
    except MinidlError as error:
        pytest.skip(f"MNIST is not here: {error}")
    two = {name: _optimizers.OPTIMIZERS[name] for name in ("SGD", "Adam")}
    monkeypatch.setattr(_optimizers, "OPTIMIZERS", two)
    run_here(monkeypatch, "mlp", "--dataset", "mnist", "--preset", "full", "--epochs", 2, "--out", tmp_path)
    metrics, output = json.loads((tmp_path / "metrics.json").read_text()), capsys.readouterr().out
    assert metrics["param_count"] == 407_050
    assert (metrics["mean"], metrics["std"]) == (0.1307, 0.3081)
    assert (metrics["train_count"], metrics["compared"]["train_count"]) == (60_000, 16_000)
    # PyTorch's mean, and three times its standard deviation over seeds: this is one seed
    assert metrics["test_accuracy_by_hand"][0] == pytest.approx(0.704, abs=3 * 0.014)
    assert metrics["test_accuracy_by_hand"][1] == pytest.approx(0.783, abs=3 * 0.005)
    assert metrics["difference"] == {"losses": 0, "accuracies": 0, "parameters": 0}
    assert "0.704 ± 0.014" in output
    assert "0.816 ± 0.004" not in output                            # of an epoch that was not run
    assert min(metrics["compared"]["test_accuracy"]["Adam"]) > 0.9
