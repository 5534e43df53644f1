"""Shared by all tests: a fixed seed before each one, and PyTorch where it is installed."""

import importlib.util
import os

import numpy as np
import pytest

import minidl
from minidl.backend import why_no_cuda
from minidl.graph import Op


def pytest_addoption(parser):
    parser.addoption("--models", type=int, default=100, help="how many random models test_random_models.py trains")


@pytest.fixture(autouse=True)
def _same_start():
    minidl.manual_seed(0)
    yield
    Op.registry[:] = [op for op in Op.registry if op.__module__.startswith("minidl.")]     # without those of a test
    assert minidl.is_grad_enabled(), "a test left recording switched off"
    assert minidl.get_default_dtype() == minidl.float32, "a test left another default dtype behind"
    assert minidl.autograd.observers == [], "a test left an observer behind"


@pytest.fixture
def torch():
    """PyTorch on one thread, or a skip with the reason."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed; pip install torch==2.13.0")
    import torch

    torch.set_num_threads(1)
    return torch


@pytest.fixture
def gpu():
    """The device "cuda", or a skip with the reason; with MINIDL_REQUIRE_GPU=1 a failure."""
    reason = why_no_cuda()
    if reason is not None and os.environ.get("MINIDL_REQUIRE_GPU") == "1":
        pytest.fail(f"MINIDL_REQUIRE_GPU is set, but {reason}")
    if reason is not None:
        pytest.skip(f"no GPU: {reason}")
    return "cuda"


@pytest.fixture
def rng():
    return np.random.default_rng(0)
