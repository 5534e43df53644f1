"""The activations lab: its derivatives, its means and its prediction for deep networks, each by another way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import integrate, special

from minidl import ops
from tests.figures import run_here, run_once

NAMES = ["sigmoid", "tanh", "tanhshrink", "softplus", "relu", "relu6", "leaky_relu", "prelu", "elu", "celu", "selu",
         "silu", "gelu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run in this process: its names, figures and folder. Every figure has been checked."""
    return run_once(tmp_path_factory, "activations")


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


def test_autograd_agrees_with_the_formulas_and_the_formulas_with_differences(run, metrics):
    assert list(metrics["functions"]) == NAMES
    for name in NAMES:
        assert metrics["value_error"][name] < 1e-14, name
        assert metrics["slope_error"][name] < 1e-14, name
    assert metrics["prelu_weight_error"] == 0
    x, h = np.linspace(-4, 7, 1112) + math.pi / 1000, 1e-5             # no kink within h of any
    for name, (_, value, slope, _) in run[0]["FUNCTIONS"].items():
        np.testing.assert_allclose(slope(x), (value(x + h) - value(x - h)) / (2 * h), atol=1e-8, err_msg=name)


@pytest.mark.parametrize("op", ["Sigmoid", "ELU"])
def test_a_wrong_derivative_is_found(monkeypatch, tmp_path, op):
    right = getattr(ops, op).backward
    monkeypatch.setattr(getattr(ops, op), "backward", lambda self, g, *saved: right(self, g, *saved) * 1.001)
    with pytest.raises(AssertionError, match=r"(sigmoid|elu): engine and formula differ by"):
        run_here(monkeypatch, "activations", "--out", tmp_path)


@pytest.mark.torch
def test_values_and_derivatives_are_those_of_pytorch(run):
    torch = pytest.importorskip("torch")
    x = run[0]["x"]
    theirs = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "celu": lambda x: torch.nn.functional.celu(x, 2.0),
              "prelu": lambda x: torch.nn.functional.prelu(x, torch.tensor([0.25], dtype=torch.float64))}
    for name in NAMES:
        function = theirs.get(name) or getattr(torch.nn.functional, name)
        numbers = torch.tensor(x, requires_grad=True)
        y = function(numbers)
        y.sum().backward()
        f, slope = run[0]["measured"][name]
        np.testing.assert_allclose(f, y.detach().numpy(), rtol=1e-6, atol=1e-8, err_msg=name)   # softplus: a threshold
        np.testing.assert_allclose(slope, numbers.grad.numpy(), rtol=1e-6, atol=1e-8, err_msg=name)


def test_the_means_are_integrals_over_the_normal_distribution(metrics):
    facts = metrics["functions"]

    def mean(function):
        return integrate.quad(lambda z: function(z) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi), -12, 12)[0]

    def bump(z):
        return special.expit(z) * special.expit(-z)

    for name, key, expected in (
            ("relu", "mean", 1 / math.sqrt(2 * math.pi)), ("relu", "mean_square", 0.5), ("relu", "mean_square_slope", 0.5),
            ("gelu", "mean", 1 / (2 * math.sqrt(math.pi))), ("sigmoid", "mean", 0.5), ("selu", "mean", 0),
            ("selu", "mean_square", 1), ("sigmoid", "mean_square", mean(lambda z: special.expit(z) ** 2)),
            ("sigmoid", "mean_square_slope", mean(lambda z: bump(z) ** 2)),
            ("tanh", "mean_square_slope", mean(lambda z: math.cosh(z) ** -4)),
            ("leaky_relu", "mean_square_slope", (1 + 0.01 ** 2) / 2), ("prelu", "mean_square", (1 + 0.25 ** 2) / 2)):
        assert facts[name][key] == pytest.approx(expected, abs=2e-6), (name, key)
    # |s (1 - s)| < 0.05 where |x| > log of the larger root; relu: half of all inputs
    root = (1 + math.sqrt(1 - 4 * 0.05)) / 2
    edge = math.log(root / (1 - root))
    assert facts["sigmoid"]["saturated_share"] == pytest.approx(2 * special.ndtr(-edge), abs=1e-3)
    assert facts["relu"]["saturated_share"] == pytest.approx(0.5)


def test_limits_and_kinks(metrics):
    facts = metrics["functions"]
    assert (facts["sigmoid"]["slope_at_0"], facts["sigmoid"]["largest_slope"]) == (0.25, 0.25)
    assert (facts["sigmoid"]["lowest"], facts["sigmoid"]["highest"]) == (0, 1)
    assert facts["relu6"]["highest"] == 6
    assert facts["gelu"]["lowest"] == pytest.approx(-0.16997, abs=1e-4)
    assert facts["silu"]["lowest"] == pytest.approx(-0.27846, abs=1e-4)
    assert {name for name in NAMES if facts[name]["slope_left"] > 0} == {"tanhshrink", "leaky_relu", "prelu"}
    kinks = {(row["function"], row["at"]): row for row in metrics["kinks"]}
    assert kinks["relu", 0]["autograd"] == 0
    assert kinks["relu6", 6]["autograd"] == 0
    assert {key for key, row in kinks.items() if row["smooth"]} == {("elu", 0), ("celu", 0)}
    for row in kinks.values():
        assert row["autograd"] in (pytest.approx(row["left"], abs=1e-6), pytest.approx(row["right"], abs=1e-6))
    assert metrics["elu_alpha_2_slope_at_0"] == 2


def test_real_wide_networks_do_what_is_predicted(metrics):
    """Forwards and backwards through ten layers of a thousand units, in NumPy."""
    rng, width, depth = np.random.default_rng(0), 1000, 10
    functions = {"sigmoid": (special.expit, lambda z: special.expit(z) * special.expit(-z)),
                 "tanh": (np.tanh, lambda z: np.cosh(z) ** -2.0),
                 "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float))}
    for name, (f, slope) in functions.items():
        z, slopes, weights = rng.standard_normal((width, 20)), [], []
        for layer in range(depth):
            slopes.append(slope(z))
            weights.append(rng.standard_normal((width, width)) / math.sqrt(width))
            z = weights[-1] @ f(z)
            assert np.mean(z ** 2) == pytest.approx(metrics["signal_mean_square"][name][layer + 1], rel=0.25), name
        gradient = rng.standard_normal((width, 20))
        for w, factor in zip(reversed(weights), reversed(slopes), strict=True):
            gradient = factor * (w.T @ gradient)
        rms = math.sqrt(np.mean(gradient ** 2))
        assert rms == pytest.approx(metrics["gradient_rms"][name][depth], rel=0.25), name


def test_its_figures(run, metrics):
    names, figures, folder = run
    assert list(figures) == ["functions", "depth"]
    panels = figures["functions"].axes
    assert len(panels) == 15
    for axes, name in zip(panels, NAMES, strict=False):
        assert axes.get_title().startswith(name)
        lines = {line.get_label(): line for line in axes.lines}
        f, slope = names["measured"][name]
        np.testing.assert_array_equal(lines["value, by the engine"].get_ydata(), f)
        np.testing.assert_array_equal(lines["derivative, by autograd"].get_ydata(), slope)
        dots = lines["derivative, by its formula"]
        on_line = np.interp(dots.get_xdata(), names["x"], slope)
        np.testing.assert_allclose(dots.get_ydata(), on_line, atol=1e-12)
        shaded = np.concatenate([path.vertices[:, 0] for path in axes.collections[0].get_paths()] or [np.empty(0)])
        small = names["x"][abs(slope) < 0.05]
        assert len(shaded) == len(small) == 0 or (shaded.min(), shaded.max()) == (small.min(), small.max()), name
    weight_panel, enlarged = panels[13:]
    line = next(line for line in weight_panel.lines if line.get_label() == "derivative, by autograd")
    np.testing.assert_array_equal(line.get_ydata(), np.minimum(names["x"], 0))
    assert any(list(line.get_ydata()) == [0.25, 0.25] for line in enlarged.lines)
    signal, gradient = figures["depth"].axes
    for axes, values in ((signal, {k: np.sqrt(v) for k, v in metrics["signal_mean_square"].items()}),
                         (gradient, metrics["gradient_rms"])):
        for line in axes.lines:
            np.testing.assert_allclose(line.get_ydata(), values[line.get_label()], rtol=1e-12)
    report = (folder / "report.html").read_text()
    assert report.count("data:image/png;base64") == 2
    assert report.count("<details>") >= 5
    assert f"{metrics['gradient_rms']['sigmoid'][10]:.0e} is left" in report


def test_another_device_gives_the_same_numbers(monkeypatch, tmp_path, metrics):
    run_here(monkeypatch, "activations", "--device=fake", "--out", tmp_path)
    other = json.loads((tmp_path / "metrics.json").read_text())
    assert other["device"] == "fake"
    for name in NAMES:
        assert other["functions"][name] == pytest.approx(metrics["functions"][name], abs=1e-9)
