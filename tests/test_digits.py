"""The first lab: it learns, it is honest about how well, and its figure shows something."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


def run_lab(*arguments):
    return subprocess.run([sys.executable, "-m", "labs.digits", *map(str, arguments)], cwd=ROOT, capture_output=True,
                          text=True, check=True).stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(f"seed{seed}") for seed in range(3)]
    outputs = [run_lab("--seed", seed, "--out", folder) for seed, folder in enumerate(folders)]
    return [(folder, output, json.loads((folder / "metrics.json").read_text()))
            for folder, output in zip(folders, outputs, strict=True)]


def test_it_reads_97_percent_of_unseen_digits(runs):
    accuracies = [metrics["test_accuracy"] for _, _, metrics in runs]
    assert np.mean(accuracies) >= 0.97, accuracies
    assert accuracies[0] >= 0.97                                # what the README's command shows
    assert all(metrics["train_seconds"] < 30 for _, _, metrics in runs)


def test_what_it_prints_is_what_it_saves(runs):
    _, output, metrics = runs[0]
    assert f"test accuracy {metrics['test_accuracy']:.1%}" in output
    assert f"{metrics['linear_test_accuracy']:.1%}" in output
    assert f"{metrics['param_count']:,} parameters" in output
    assert metrics["param_count"] == (1 * 9 + 1) * 16 + (16 * 9 + 1) * 32 + 129 * 10
    assert metrics["test_count"] == 450
    assert len(metrics["train_loss"]) == metrics["epochs"]
    assert metrics["train_loss"][-1] < 0.1 * metrics["train_loss"][0]


def test_the_same_seed_gives_the_same_run(runs, tmp_path):
    run_lab("--seed", 0, "--epochs", 2, "--out", tmp_path)
    again = json.loads((tmp_path / "metrics.json").read_text())
    assert again["train_loss"] == runs[0][2]["train_loss"][:2]
    assert runs[1][2]["train_loss"][:2] != again["train_loss"]


def test_the_figure_shows_something(runs):
    pixels = np.asarray(Image.open(runs[0][0] / "digits.png").convert("L"))
    left, right = pixels[:, :int(pixels.shape[1] * 0.43)], pixels[:, int(pixels.shape[1] * 0.43):]
    assert pixels.shape[0] > 400
    for panel in (left, right):
        assert (panel < 128).mean() > 0.005
        assert (panel > 250).mean() > 0.3
