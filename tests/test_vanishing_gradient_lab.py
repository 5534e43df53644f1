"""The lab on vanishing gradients: its gradients by hand, its means, who learns, and what its figures show."""

from __future__ import annotations

import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest

from labs import _vanishing
from minidl import tensor
from minidl.errors import SettingError
from tests.figures import run_here, run_once


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run in this process: its names, figures and folder. Every figure has been checked."""
    return run_once(tmp_path_factory, "vanishing_gradient")


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


FUNCTIONS = {"sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
             "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
             "relu": (lambda z: np.maximum(z, 0), lambda z: np.asarray(z > 0, float))}


def norms_by_hand(model, activation, x, labels):
    """‖dL/dW‖ of each layer of a plain network, by the chain rule in NumPy."""
    f, slope = FUNCTIONS[activation]
    *layers, last = model
    inputs, sums = [x], []
    for layer in layers:
        sums.append(inputs[-1] @ layer.linear.weight.detach().numpy().T)
        inputs.append(f(sums[-1]))
    scores = inputs[-1] @ last.weight.detach().numpy().T
    g = np.exp(scores - scores.max(1, keepdims=True))
    g /= g.sum(1, keepdims=True)
    g[np.arange(len(x)), labels] -= 1
    g = g / len(x) @ last.weight.detach().numpy()
    norms = []
    for layer, z, h in zip(reversed(layers), reversed(sums), reversed(inputs[:-1]), strict=True):
        g = g * slope(z)
        norms.append(np.linalg.norm(g.T @ h))
        g = g @ layer.linear.weight.detach().numpy()
    return np.array(norms[::-1])


def test_the_chain_of_five(metrics):
    sigmoids, relus = metrics["chains"]["sigmoid, weights A"], metrics["chains"]["relu, weights B"]
    assert sigmoids["output"] == pytest.approx(0.6033, abs=5e-5)
    assert sigmoids["dy_dw"][0] == pytest.approx(-3.0186e-05, abs=5e-10)
    assert relus["output"] == pytest.approx(0.5300, abs=5e-5)
    assert relus["dy_dw"][0] == pytest.approx(0.0299, abs=5e-5)
    for name, chain in metrics["chains"].items():
        w = metrics["chain_weights"][name[-1]]
        functions = [FUNCTIONS["sigmoid"]] * 5 if "sigmoid" in name else [FUNCTIONS["relu"]] * 4 + [FUNCTIONS["sigmoid"]]
        out, gradient = metrics["chain_input"], 1.0
        for weight, z, (f, _) in zip(w, chain["z"], functions, strict=True):
            assert z == pytest.approx(weight * out)
            out = f(z)
        assert chain["output"] == pytest.approx(out)
        for i in reversed(range(5)):
            gradient *= functions[i][1](chain["z"][i])
            assert chain["dy_dz"][i] == pytest.approx(gradient)
            below = metrics["chain_input"] if i == 0 else functions[i - 1][0](chain["z"][i - 1])
            assert chain["dy_dw"][i] == pytest.approx(gradient * below)
            gradient *= w[i]
    assert metrics["chains"]["relu, weights A"]["dy_dw"][0] == 0
    assert abs(metrics["chains"]["sigmoid, weights B"]["dy_dw"][0]) < 1e-4


@pytest.mark.parametrize(("activation", "scheme", "depth"), [
    ("sigmoid", "Xavier", 50), ("tanh", "Kaiming", 20), ("relu", "Kaiming", 50), ("relu", "N(0, 0.01²)", 50)])
def test_gradients_are_those_of_the_chain_rule(run, activation, scheme, depth):
    names, _, _ = run
    x, labels = names["batch_x"].numpy(), names["batch_y"].numpy()
    assert x.dtype == np.float64
    for draw in range(3):
        model = _vanishing.network(64, depth, activation, scheme, "plain", draw).double()
        expected = norms_by_hand(model, activation, x, labels)
        np.testing.assert_allclose(names["norms"][scheme, activation, depth][draw], expected, rtol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["BatchNorm", "LayerNorm", "residual"])
@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_gradients_with_remedies_are_those_of_pytorch(kind, activation):
    torch = pytest.importorskip("torch")
    rng, depth = np.random.default_rng(1), 12
    x, labels = rng.random((40, 64)), rng.integers(0, 10, 40)
    model = _vanishing.network(64, depth, activation, "Kaiming", kind, 5).double()
    *layers, last = model
    weights = [torch.tensor(layer.linear.weight.detach().numpy(), requires_grad=True) for layer in layers]
    h = torch.tensor(x)
    for i, weight in enumerate(weights):
        z = h @ weight.T
        if kind == "BatchNorm":
            z = torch.nn.functional.batch_norm(z, None, None, training=True)
        elif kind == "LayerNorm":
            z = torch.nn.functional.layer_norm(z, (32,))
        y = getattr(torch, activation)(z)
        h = h + y / math.sqrt(depth) if kind == "residual" and i else y
    torch.nn.functional.cross_entropy(h @ torch.tensor(last.weight.detach().numpy()).T, torch.tensor(labels)).backward()
    expected = [weight.grad.norm().item() for weight in weights]
    np.testing.assert_allclose(_vanishing.gradient_norms(model, tensor(x), tensor(labels)), expected, rtol=1e-8)


def test_one_seed_draws_the_same_numbers_for_all():
    def weights(scheme, kind):
        *layers, last = _vanishing.network(64, 3, "relu", scheme, kind, 7)
        return [layer.linear.weight.detach().numpy() for layer in layers] + [last.weight.detach().numpy()]

    plain = weights("Kaiming", "plain")
    for kind in ("BatchNorm", "LayerNorm", "residual"):
        for ours, theirs in zip(plain, weights("Kaiming", kind), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for scheme, spread in (("Xavier", lambda o, i: math.sqrt(2 / (o + i))), ("N(0, 0.01²)", lambda o, i: 0.01)):
        for ours, theirs in zip(plain, weights(scheme, "plain"), strict=True):
            factor = spread(*ours.shape) / math.sqrt(2 / ours.shape[1])
            np.testing.assert_allclose(theirs, ours * factor, rtol=1e-5, atol=1e-9)


def test_the_gradient_shrinks_as_theory_says(metrics):
    of = metrics["summary"]
    assert 0.2 < of["Xavier"]["sigmoid"]["per_layer"] < 0.25                    # at most 1/4
    assert of["Xavier"]["relu"]["per_layer"] == pytest.approx(math.sqrt(1 / 2), rel=0.08)
    assert of["Kaiming"]["relu"]["per_layer"] == pytest.approx(1, rel=0.08)
    assert of["N(0, 0.01²)"]["tanh"]["per_layer"] == pytest.approx(0.01 * math.sqrt(32), rel=0.03)
    assert of["Xavier"]["sigmoid"]["first_to_last"] < 1e-28
    assert 0.01 < of["Kaiming"]["relu"]["first_to_last"] < 100
    assert len(metrics["below_float32"]) == 3
    assert all("N(0, 0.01²)" in name for name in metrics["below_float32"])
    sigmoids, relus = metrics["remedies"]["sigmoid"], metrics["remedies"]["relu"]
    assert sigmoids["plain"]["norms"][0] == pytest.approx(of["Xavier"]["sigmoid"]["first_norm"]["50"])
    for kind in ("BatchNorm", "residual"):
        assert 0.1 < sigmoids[kind]["first_to_last"] < 100
    assert relus["BatchNorm"]["first_to_last"] > 1000                           # (π / (π - 1))^(49/2) is 9,700


def test_who_learns(metrics):
    accuracy = {name: np.mean(curves, 0)[-1] for name, curves in metrics["val_accuracy"].items()}
    assert accuracy["sigmoid"] < metrics["val_most_frequent"] + 0.05 < 0.2
    assert accuracy["sigmoid, BatchNorm"] > 0.8
    assert accuracy["sigmoid, residual"] > accuracy["sigmoid"] + 0.15
    assert accuracy["relu"] > accuracy["sigmoid"] + 0.2
    assert accuracy["relu, 2 layers"] > 0.8
    assert all(np.shape(curves) == (metrics["starts"], metrics["epochs"]) for curves in metrics["val_accuracy"].values())
    assert (metrics["train_count"], metrics["val_count"], metrics["batch_count"]) == (1078, 269, 256)


def test_a_norm_of_zero_is_left_out_and_not_drawn():
    norms = np.array([[1e-3, 0.0, 1e-9], [1e-5, 0.0, 0.0], [1e-4, 0.0, 1e-7]])
    mean, spread = _vanishing.mean_log(norms)
    assert mean[0] == pytest.approx(-4)
    assert spread[0] == pytest.approx(1)
    assert mean[2] == pytest.approx(-8)
    assert spread[2] == pytest.approx(math.sqrt(2))
    assert list(np.ma.getmaskarray(mean)) == [False, True, False]
    figure, axes = plt.subplots()
    _vanishing.draw(axes, [1, 2, 3], norms, "C0")
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 3])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1e-4, 1e-8])
    plt.close(figure)


def test_its_figures_and_its_report(run, metrics):
    names, figures, folder = run
    assert list(figures) == ["layers", "depth", "remedies", "training"]
    panels = figures["layers"].axes
    assert len(panels) == 9
    for axes in panels:
        activation, _, scheme = axes.get_title().partition(", ")
        lines = [line for line in axes.lines if "layers" in line.get_label()]
        assert [len(line.get_xdata()) for line in lines] == metrics["depths"] == [2, 5, 10, 20, 50]
        for line in lines:
            norms = names["norms"][scheme, activation, len(line.get_xdata())]
            np.testing.assert_allclose(line.get_ydata(), np.exp(np.log(norms).mean(0)), rtol=1e-9)
    for axes in figures["depth"].axes[:3]:
        for line in axes.lines:
            expected = metrics["summary"][axes.get_title()][line.get_label()]["first_norm"]
            np.testing.assert_allclose(line.get_ydata(), list(expected.values()), rtol=1e-9)
    for axes, kinds in zip(figures["remedies"].axes, metrics["remedies"].values(), strict=True):
        for line in axes.lines:
            np.testing.assert_allclose(line.get_ydata(), kinds[line.get_label()]["norms"], rtol=1e-9)
    curves = {line.get_label(): line.get_ydata() for line in figures["training"].axes[0].lines}
    for name, values in metrics["val_accuracy"].items():
        np.testing.assert_allclose(curves[name], np.mean(values, 0))
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png;base64") == 4
    assert f"{metrics['summary']['Xavier']['sigmoid']['per_layer']:.3f}" in report
    assert "-3.0186e-05" in report
    assert (metrics["zero_norms"], metrics["norm_count"]) == (0, 3 * 9 * 87)


@pytest.mark.parametrize(("arguments", "message"), [
    (("--draws=1",), "--draws: got 1, expected at least 2"),
    (("--batch-size=1",), "--batch-size: got 1, expected at least 2")])
def test_settings_that_make_no_sense(monkeypatch, tmp_path, arguments, message):
    with pytest.raises(SettingError, match=message):
        run_here(monkeypatch, "vanishing_gradient", *arguments, "--out", tmp_path)


def test_another_device_gives_the_same_gradients(run, monkeypatch, tmp_path):
    # 1,078 images to train on: a batch of 1,077, and one image that is left over
    names, _ = run_here(monkeypatch, "vanishing_gradient", "--device=fake", "--draws=2", "--starts=1", "--epochs=1",
                        "--batch-size=1077", "--depth=2", "--out", tmp_path)
    for key, norms in names["norms"].items():
        np.testing.assert_allclose(norms, run[0]["norms"][key][:2], rtol=1e-6, err_msg=str(key))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["device"] == "fake"
    assert all(np.shape(curves) == (1, 1) for curves in metrics["val_accuracy"].values())
