"""The same ops and kernels on a real GPU. Skipped where there is none; with MINIDL_REQUIRE_GPU=1 that is a failure.

    MINIDL_REQUIRE_GPU=1 python -m pytest -m gpu
"""

from __future__ import annotations

import numpy as np
import pytest

import minidl
from minidl import kernels, nn, optim
from minidl.debug.gradcheck import gradcheck
from minidl.kernels import threads
from tests.cases import CASES
from tests.test_ops import host, tensors

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", [c for c in CASES if c.on_fake], ids=lambda case: case.name)
def test_an_op_gives_the_same(gpu, case, rng):
    ours, there = tensors(case, rng), tensors(case, np.random.default_rng(0), device=gpu)
    np.testing.assert_allclose(host(case.run(*there)), host(case.run(*ours)), rtol=1e-9, atol=1e-12)
    for order in case.orders:
        assert gradcheck(case.run, there, rtol=case.rtol, atol=case.atol, order=order)


def test_a_network_trains_as_on_the_cpu(gpu):
    def trained(device):
        minidl.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 40, 3, stride=2, groups=2), nn.ReLU(),
                              nn.AvgPool2d(2), nn.Flatten(), nn.Linear(360, 10)).to(device)
        optimizer = optim.Adam(model.parameters(), 1e-3)
        for _ in range(5):
            x, y = minidl.randn(8, 3, 28, 28).to(device), minidl.randint(0, 10, (8,)).to(device)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return [p.detach().cpu().numpy() for p in model.parameters()]

    before = threads.ran.copy()
    first, again, expected = trained(gpu), trained(gpu), trained("cpu")
    assert {"cuda.conv2d", "cuda.conv2d_input_grad", "cuda.conv2d_weight_grad", "cuda.adam"} <= set(threads.ran - before)
    for one, other, exact in zip(first, again, expected, strict=True):
        np.testing.assert_array_equal(one, other)                   # two runs, equal bits
        np.testing.assert_allclose(one, exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernel_set", ["cuda", "im2col"])
def test_either_kernel_set_works_there(gpu, kernel_set):
    x, w = minidl.randn(2, 3, 7, 5), minidl.randn(6, 3, 3, 3)
    with kernels.use_kernels(kernel_set):
        y = nn.functional.conv2d(x.to(gpu), w.to(gpu), padding=1)
    np.testing.assert_allclose(host(y), nn.functional.conv2d(x, w, padding=1).numpy(), rtol=1e-5, atol=1e-5)
