"""ResNet50V2 against Keras's own, with weights that Keras drew at random and saved; skipped where Keras is missing.

    pip install keras h5py torch==2.13.0
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minidl.models import resnet50v2
from minidl.models.resnet50v2 import EPS, MOMENTUM


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What tests/against_keras.py prints."""
    missing = [name for name in ("keras", "h5py", "torch") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; pip install keras h5py torch==2.13.0")
    folder = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder)}
    root = Path(__file__).parent.parent
    run = subprocess.run([sys.executable, root / "tests" / "against_keras.py", folder], cwd=root, env=environment | {
        "PYTHONPATH": str(root)}, capture_output=True, text=True)
    for file in folder.glob("*.h5"):                            # a hundred megabytes each
        file.unlink()
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("side", ["224", "180"])
def test_every_activation_is_keras_s(found, side):
    own = [name for name, layer in resnet50v2(include_top=side == "224").named_modules()
           if name and "." not in name]
    assert sorted(found[side]) == sorted(own)                   # all of them have been compared
    assert max(found[side].values()) < 1e-4, found[side]


def test_the_gradients_of_filters_are_keras_s(found):
    assert list(found["gradients"]) == ["conv2_block1_1_conv", "conv3_block4_2_conv", "conv5_block3_3_conv"]
    assert max(found["gradients"].values()) < 1e-3, found["gradients"]


def test_both_layouts_say_the_same(found):
    assert found["both_files_say_the_same"]


def test_settings_and_sizes(found):
    model = resnet50v2()
    assert found["eps"] == [EPS]
    assert found["momentum"] == [1 - MOMENTUM]
    assert found["parameters"] == sum(tensor.numel() for name, tensor in model.state_dict().items()
                                      if not name.endswith("num_batches_tracked"))
    assert found["preprocess_input"] == 0
