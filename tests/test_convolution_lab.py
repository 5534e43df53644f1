"""The convolution lab: it compares before it times, its numbers fit together, and its figures show something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minidl
from labs import _convolution
from minidl.kernels import addresses, simd, winograd
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.threads import ran
from tests.figures import run_here

ROOT = Path(__file__).parent.parent
TINY = ("--channels-in", 32, "--channels-out", 32, "--size", 6, "--batch-size", 2, "--rounds", 2)
FAST = ["im2col", "loops", "simd, tiles", "simd, Winograd"]


def start_lab(folder, *arguments, **environment):
    return subprocess.run([sys.executable, "-m", "labs.convolution", f"--out={folder}", *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, check=False, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One small run in this process: its names, figures and folder. Every figure has been checked."""
    folder, threads = tmp_path_factory.mktemp("convolution"), minidl.get_num_threads()
    minidl.set_num_threads(2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        names, figures = run_here(monkeypatch, "convolution", "--out", folder, *TINY)
    assert minidl.get_num_threads() == 2, "the lab has left another number of threads"
    minidl.set_num_threads(threads)
    return names, figures, folder


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run[2] / "metrics.json").read_text())


def test_the_numbers_fit_together(metrics):
    assert metrics["dataset"] is None
    assert (metrics["channels_in"], metrics["channels_out"], metrics["size"], metrics["kernel"]) == (32, 32, 6, 3)
    assert metrics["gflop"] == 2 * 2 * 32 * 32 * 9 * 6 * 6 / 1e9
    assert list(metrics["gflops"]) == ["reference", *FAST]
    for name in FAST:
        for threads in ("1", "2"):
            times, fastest = metrics["milliseconds"][name][threads], metrics["fastest_milliseconds"][name][threads]
            assert list(times) == list(_convolution.FUNCTIONS)
            assert all(0 < fastest[label] <= times[label] for label in times)
            assert metrics["gflops"][name][threads] == pytest.approx(3 * metrics["gflop"] / sum(times.values()) * 1000)
    assert metrics["gflops"]["reference"]["1"] < 0.1 < min(metrics["gflops"][name]["1"] for name in FAST)
    assert metrics["reference_scaled_by"] == (2 * 32 * 32 * 6 * 6) / (8 * 8 * 6 * 6)
    assert set(metrics["peak_gflops"]) == set(metrics["copy_gigabytes_per_second"]) == {"1", "2"}
    assert metrics["peak_gflops"]["1"] > metrics["gflops"]["simd, tiles"]["1"] / 2
    traffic = 4 * (2 * 32 * 6 * 6 + 2 * 32 * 6 * 6 + 32 * 32 * 9)
    assert metrics["operations_per_byte"] == metrics["gflop"] * 1e9 / traffic


def test_results_are_compared(metrics):
    for name in FAST:
        assert len(metrics["largest_difference"][name]) == 3
        assert all(0 < difference < 1e-5 for difference in metrics["largest_difference"][name].values())


def test_a_wrong_kernel_is_found_before_it_is_timed(monkeypatch, tmp_path):
    right = simd.conv2d_weight_grad
    monkeypatch.setattr(simd, "conv2d_weight_grad", lambda x, g, geometry: right(x, g, geometry) * np.float32(1.001))
    with pytest.raises(AssertionError, match=r"the kernel sets differ by 1\.0e-03"):
        run_here(monkeypatch, "convolution", "--out", tmp_path, *TINY)


def test_the_report_shows_the_code_and_this_runs_numbers(run, metrics):
    page = (run[2] / "report.html").read_text()
    for name in ("conv2d (minidl/kernels/reference.py:", "windows_of (minidl/kernels/im2col.py:", "add_product (minidl/k",
                 "_make_correlate (", "_stepwise.&lt;locals&gt;.outer (minidl/kernels/vectors.py:", "correlate_blocks (min"):
        assert name in page, name
    assert f"{metrics['peak_gflops']['1']:,.0f} GFLOP/s with 1 thread" in page
    assert "tile + np.outer(array[starts + k]" in page
    assert page.count("<details>") >= 15
    assert "-44%" not in page
    assert " 44% of the multiplications" in page                   # 16 for 4 outputs instead of 36


def test_the_figures_show_the_metrics(run, metrics):
    _, figures, _ = run
    assert set(figures) == {"gflops", "times", "tile"}
    bars = sorted(bar.get_height() for bar in figures["gflops"].axes[0].patches)
    gflops = metrics["gflops"]
    assert bars == sorted([gflops["reference"]["1"], *(gflops[name][threads] for name in FAST for threads in "12")])
    heights = [bar.get_height() for bar in figures["times"].axes[0].patches]
    assert heights == [value for name in FAST for value in metrics["milliseconds"][name]["1"].values()]


def test_ways_are_what_their_names_say():
    case = _convolution.Case.of(np.random.default_rng(0), (1, 32, 4, 4), (32, 32, 3, 3), padding=1)
    ways = _convolution.ways_to_compute(case)
    for name, by_winograd in (("simd, tiles", 0), ("simd, Winograd", 3)):
        before, before_simd = ran["winograd.correlate"] + ran["winograd.weight_grad"], ran["simd.conv2d"]
        for label, function in ways[name].items():
            function(*case.operands[label], case.geometry)
        assert ran["winograd.correlate"] + ran["winograd.weight_grad"] - before == by_winograd
        assert ran["simd.conv2d"] == before_simd + 1
    assert winograd.fits(case.geometry, 32, 32)                    # switched on again
    narrow = _convolution.Case.of(np.random.default_rng(0), (1, 3, 4, 4), (5, 3, 3, 3))
    assert list(_convolution.ways_to_compute(narrow)) == ["reference", "im2col", "loops", "simd"]


def test_the_drawing_reads_the_pixels_that_the_kernel_reads():
    figure = _convolution.draw_step(Conv2dGeometry.of((1, 3, 14, 14), (5, 3, 3, 3), padding=1), 3, 5)
    squares = [patch for patch in figure.axes[0].patches if patch.get_facecolor()[:3] == (1.0, 0x7f / 255, 0x0e / 255)]
    assert len(squares) == simd.ROWS
    first = len(addresses.forward_tables(Conv2dGeometry.of((1, 3, 14, 14), (5, 3, 3, 3), padding=1), 3, 5)[1].pixels)
    pixel = first // simd.ROWS // 2 * simd.ROWS                    # its number in the result; the centre is one further in
    assert squares[0].get_xy() == (pixel % 14 + 1, pixel // 14 + 1)


def test_other_sizes_run_too(tmp_path):
    result = start_lab(tmp_path, "--channels-in=3", "--channels-out=2", "--size=5", "--kernel=4", "--batch-size=1",
                       "--rounds=1", OMP_NUM_THREADS="1")
    assert result.returncode == 0, result.stderr
    assert "Winograd's way" not in result.stdout
    assert "2 threads" not in result.stdout
    assert list(json.loads((tmp_path / "metrics.json").read_text())["peak_gflops"]) == ["1"]


@pytest.mark.parametrize(("arguments", "environment", "sentence"), [
    (["--kernel=0"], {}, "got '0', expected a whole number above 0"),
    (["--channels-in=many"], {}, "got 'many', expected a whole number above 0"),
    (["--dataset=mnist"], {}, "unrecognized arguments: --dataset=mnist"),
    (["--size=5000"], {}, "im2col would copy 1,843.2 GB of windows, expected at most 2 GB; take a smaller --batch-size"),
    ([], {"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT is set, and times of kernels that are not compiled mean nothing"),
])
def test_what_it_cannot_do_is_one_line_and_exit_code_2(tmp_path, arguments, environment, sentence):
    result = start_lab(tmp_path / "new", *arguments, **environment)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
