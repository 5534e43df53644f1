"""The lab of the computation graph: its gradients against numbers derived here again, its text, its drawings."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

import minidl
from minidl import ops
from tests.figures import run_here

SVG = "{http://www.w3.org/2000/svg}"
WAYS = {"autograd", "by hand", "finite differences"}
TANH = 1 - math.tanh(0.25) ** 2
SIGMOID = 1 / (1 + math.exp(0.25))
NEURON = SIGMOID * (1 - SIGMOID)

# what comes out, worked out with a pencil: value, and gradient of each input
EXPECTED = {
    "sum_times": (-12, {"x": -4, "y": -4, "z": 3}),
    "through_tanh": (math.tanh(0.25), {"x": -0.5 * TANH, "y": 1.5 * TANH, "z": TANH}),
    "fork": (-3, {"x": -1, "y": 3}),
    "matmul": (35, {"A": [[3, 1, 4], [-6, 8, 17]], "B": [[1, -7], [5, 10], [3, 24]]}),
    "neuron": (SIGMOID, {"w": [NEURON, 2 * NEURON, 0.5 * NEURON], "b": NEURON}),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, what it printed, its metrics."""
    folder, printed = tmp_path_factory.mktemp("autograd"), io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.redirect_stdout(printed):
        run_here(monkeypatch, "autograd", "--out", folder)
    return folder, printed.getvalue(), json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("key", EXPECTED)
def test_gradients_are_those_of_the_pencil(run, key):
    found, (value, gradients) = run[2][key], EXPECTED[key]
    assert found["value"] == pytest.approx(value, abs=1e-12)
    assert list(found["gradients"]) == list(gradients)
    for name, ways in found["gradients"].items():
        assert set(ways) == WAYS
        for way, numbers in ways.items():
            tolerance = 1e-7 if way == "finite differences" else 1e-12
            np.testing.assert_allclose(numbers, gradients[name], rtol=0, atol=tolerance, err_msg=f"{name} {way}")
        assert ways["finite differences"] != ways["by hand"], "they are the same numbers, not another computation"
    assert found["gradcheck"] is True


def test_the_largest_differences_are_those_of_the_numbers(run):
    metrics, largest = run[2], []
    for key in EXPECTED:
        spreads = [np.ptp([np.asarray(numbers) for numbers in ways.values()], axis=0).max()
                   for ways in metrics[key]["gradients"].values()]
        assert metrics[key]["largest_difference"] == pytest.approx(max(spreads), abs=1e-15)
        largest.append(max(spreads))
    assert 0 < metrics["largest_difference"] == pytest.approx(max(largest), abs=1e-15)
    assert metrics["largest_difference"] < 1e-6


def test_the_walk_one_op_at_a_time(run):
    steps = run[2]["steps"]
    assert [step["op"] for step in steps] == ["Tanh", "Add", "Mul"]
    np.testing.assert_allclose([step["incoming"] for step in steps], [1, TANH, TANH])
    assert steps[0]["outgoing"] == pytest.approx({"x": TANH})
    assert steps[1]["outgoing"] == pytest.approx({"a": TANH, "b": TANH})
    assert steps[2]["outgoing"] == pytest.approx({"a": -0.5 * TANH, "b": 1.5 * TANH})


def test_who_keeps_a_gradient_and_what_a_fork_adds(run):
    metrics = run[2]
    before, after = metrics["retain_grad"].values()
    assert (before, after) == ({"x.grad": -4, "q.grad": None}, {"x.grad": -4, "q.grad": -4})
    assert metrics["fork_parts"] == {"Mul": -2, "Add": 1}
    assert metrics["fork_grad_after_calls"] == [-1, -2]


def lines_of(folder, name):
    root = ElementTree.parse(folder / f"{name}.svg").getroot()
    return [[text.text for text in group.iter(f"{SVG}text")] for group in root.iter(f"{SVG}g")]


@pytest.mark.parametrize(("name", "expected"), [
    ("sum_times", [["x", "leaf"], ["Add"], ["Mul"], ["f", "output"], ["q () = 3", "grad = -4"], ["() = -4", "grad = 3"],
                   ["() = -2", "grad = -4"], ["() = 5", "grad = -4"], ["() = -12", "grad = 1"]]),
    ("through_tanh", [["Tanh"], ["p () = -0.75", f"grad = {TANH:.4g}"], ["() = 1.5", f"grad = {-0.5 * TANH:.4g}"],
                      ["u () = 0.25", f"grad = {TANH:.4g}"], [f"() = {math.tanh(0.25):.4g}", "grad = 1"]]),
    ("fork", [["x", "leaf", "sum of 2: grad = -1"], ["() = 3", "grad = -2"], ["() = 3", "grad = 1"]]),
    ("matmul", [["A", "leaf"], ["MatMul"], ["C (2, 2) =", "[[2, 1], ", " [1, 8]] ", "grad =", "[[2, 1], ", " [1, 8]] "],
                ["(2, 3) =", "[[ 1,  2,  0], ", " [-1,  1,  3]] ", "grad =", "[[ 3,  1,  4], ", " [-6,  8, 17]] "]]),
    ("neuron", [["x", "data"], ["(3,) = [1, 2, 0.5]"], ["b", "leaf"], ["Sigmoid"],
                ["(3,) = [0.5, -1, 2]", f"grad = [{NEURON:.4g}, {2 * NEURON:.4g}, {0.5 * NEURON:.4g}]"],
                ["w⊙x (3,) = [0.5, -2, 1]", f"grad = [{NEURON:.4g}, {NEURON:.4g}, {NEURON:.4g}]"]]),
])
def test_the_drawings_show_shapes_values_and_gradients(run, name, expected):
    found = lines_of(run[0], name)
    for lines in expected:
        assert lines in found
    assert (run[0] / f"{name}.svg").read_text(encoding="utf-8") in (run[0] / "report.html").read_text(encoding="utf-8")


def test_what_it_prints_is_what_it_saves(run):
    folder, printed, metrics = run
    assert len(printed.splitlines()) > 60
    assert f"largest difference is {metrics['largest_difference']:.1e}" in printed
    rows = [[cell.strip() for cell in row.strip("│").split("│")] for row in printed.splitlines() if row.startswith("│ d")]
    saved = [[f"d{name}", *(f"{np.asarray(ways[way])[index]:.4g}" for way in ("autograd", "by hand", "finite differences"))]
             for key in EXPECTED for name, ways in metrics[key]["gradients"].items()
             for index in np.ndindex(np.shape(ways["autograd"]))]
    assert [[re.sub(r"^d\w/|\[.*\]", "", row[0]), *row[1:4]] for row in rows] == saved
    assert ["dL/dB[2, 1]", "24", "24", "24"] in [row[:4] for row in rows]
    assert metrics["sum_times"]["intermediates"] == {"q": 3}
    assert "q = x + y = 3 and f = q·z = -12" in printed
    assert all(f"{name}.svg" in printed.splitlines()[-1] for name in EXPECTED)
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert report.count("<details><summary>Why ") == 3
    assert "(-2)" in report
    assert metrics["seconds"] < 20


def test_a_wrong_derivative_stops_the_lab(monkeypatch, tmp_path):
    monkeypatch.setattr(ops.Mul, "backward_b", lambda self, g, a: g * a * 1.00001)
    with pytest.raises((AssertionError, minidl.MinidlError), match=r"gradcheck|differ"):
        run_here(monkeypatch, "autograd", "--out", tmp_path)


def test_on_the_strict_device(monkeypatch, tmp_path, run):
    run_here(monkeypatch, "autograd", "--device=fake", "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["device"] == "fake"
    assert metrics["matmul"]["gradients"] == run[2]["matmul"]["gradients"]
