"""Compiled passes over memory give what the formulas give, and run where they should; memory that is kept and reused."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl
import minidl.nn.functional as F
from minidl import kernels, nn, optim
from minidl.errors import ShapeError
from minidl.kernels import compiling, memory
from minidl.kernels.layout import in_a_row, in_the_same_order, rows_of_channels
from minidl.kernels.threads import ran
from minidl.models import small_cnn

MANY = 20_000                                                               # numbers: enough for compiled code


def by_formula():
    """Kernels that have no compiled passes."""
    return minidl.use_kernels("im2col")


def images(dtype, channels_last: bool, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(6, 17, 15, 14)).astype(dtype)
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if channels_last else x


both_types = pytest.mark.parametrize("dtype", [np.float32, np.float64])
both_orders = pytest.mark.parametrize("channels_last", [True, False])


@both_types
@both_orders
def test_relu_and_its_gradient(dtype, channels_last):
    x = images(dtype, channels_last)
    x[0, 0, 0, :4] = [0.0, -0.0, np.nan, np.inf]
    g = images(dtype, channels_last, seed=1)

    def run():
        t = minidl.tensor(0.0)
        t.array = x
        t = t.detach().requires_grad_()
        y = t.relu()
        upstream = minidl.tensor(0.0)
        upstream.array = g
        (gradient,) = minidl.autograd.grad(y, t, upstream)
        return y.array, gradient.array

    before = ran.copy()
    fast = run()
    assert ran["passes.relu"] == before["passes.relu"] + 1
    assert ran["passes.relu_grad"] == before["passes.relu_grad"] + 1
    with by_formula():
        slow = run()
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == dtype
        assert a.strides == x.strides


@both_types
@pytest.mark.parametrize("with_shift", [True, False])
@pytest.mark.parametrize("layout", ["channels-last", "in C order", "rows"])
def test_scale_and_shift_of_channels(dtype, layout, with_shift):
    x = minidl.tensor(0.0)
    x.array = images(dtype, layout == "channels-last") if layout != "rows" else images(dtype, False).reshape(-1, 17)
    s, t = (minidl.from_numpy(np.random.default_rng(seed).normal(size=17).astype(dtype)) for seed in (1, 2))

    def run():
        return minidl.ops.ScaleShift()(x, s, *([t] * with_shift)).array

    before = ran["passes.scale_shift"]
    fast = run()
    assert ran["passes.scale_shift"] == before + (layout != "in C order")
    with by_formula():
        slow = run()
    np.testing.assert_allclose(fast, slow, rtol=1e-5 if dtype == np.float32 else 1e-12, atol=1e-6 if dtype == np.float32 else 1e-13)
    assert fast.dtype == dtype
    assert fast.strides == x.array.strides


@both_orders
@pytest.mark.parametrize("count", [1, 16, 18, 34])
@pytest.mark.parametrize("which", ["running_mean", "running_var", "weight", "bias"])
def test_batch_norm_of_another_number_of_channels_is_refused(channels_last, count, which):
    """And does not read memory that is not its own."""
    x = minidl.tensor(0.0)
    x.array = images(np.float32, channels_last)
    given = {name: minidl.ones(count if name == which else 17) for name in ("running_mean", "running_var", "weight", "bias")}
    for training in (False, True):
        with pytest.raises(ShapeError, match=rf"^batch_norm: got {which} \({count},\) for \(6, 17, 15, 14\), expected \(17,\), a number for each channel"):
            F.batch_norm(x, *given.values(), training=training)
    s, t = (given["weight"], given["bias"])
    if which in ("weight", "bias"):
        with pytest.raises(ShapeError, match=r"ScaleShift: got x \(6, 17, 15, 14\) with .* expected \(N, C, …\)"):
            minidl.ops.ScaleShift()(x, s, t)


def test_padding_stays_channels_last():
    x = minidl.tensor(0.0)
    x.array = images(np.float32, True)
    y = F.pad(x, (1, 2, 0, 1))
    assert y.array.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(y.array, np.pad(x.array, ((0, 0), (0, 0), (0, 1), (1, 2))))


@both_types
@both_orders
def test_sums_of_channels(dtype, channels_last):
    x = minidl.tensor(0.0)
    x.array = images(dtype, channels_last)
    before = ran["passes.channel_sums"]
    sums = x.sum((0, 2, 3))
    assert ran["passes.channel_sums"] == before + channels_last
    np.testing.assert_allclose(sums.array, x.array.astype(np.float64).sum((0, 2, 3)), rtol=1e-5 if dtype == np.float32 else 1e-11)
    assert sums.dtype == x.dtype
    rows = x.array.reshape(-1, 17)
    before = ran["passes.channel_sums"]
    np.testing.assert_allclose(minidl.tensor(rows).sum(0).array, rows.astype(np.float64).sum(0), rtol=1e-4 if dtype == np.float32 else 1e-10)
    assert ran["passes.channel_sums"] == before + 1


@given(rows=st.integers(1, 300), channels=st.integers(1, 70))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_sums_of_any_number_of_rows(rows, channels):
    from minidl.kernels import passes

    x = np.random.default_rng(rows).normal(size=(rows, channels)).astype(np.float32)
    np.testing.assert_allclose(passes.channel_sums(x), x.astype(np.float64).sum(0), rtol=1e-5, atol=1e-5)


@both_types
@both_orders
def test_mean_squared_error(dtype, channels_last):
    x, t = (minidl.tensor(0.0) for _ in range(2))
    x.array, t.array = images(dtype, channels_last), images(dtype, channels_last, seed=1)
    before = ran["passes.mean_squared_error"]
    loss = F.mse_loss(x, t)
    assert ran["passes.mean_squared_error"] == before + 1
    expected = ((x.array.astype(np.float64) - t.array) ** 2).mean()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-6 if dtype == np.float32 else 1e-12)
    assert loss.dtype == x.dtype
    assert loss.shape == ()


SETTINGS = [
    (optim.Adam, {}), (optim.Adam, {"weight_decay": 0.1}), (optim.Adam, {"betas": (0.5, 0.7), "eps": 1e-3, "maximize": True}),
    (optim.AdamW, {}), (optim.AdamW, {"weight_decay": 0.3, "lr": 0.1}),
    (optim.SGD, {"momentum": 0.9}), (optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True}), (optim.SGD, {"momentum": 0.5, "dampening": 0.3}),
    (optim.SGD, {"momentum": 0.5, "maximize": True, "weight_decay": 0.1}),
]


@both_types
@pytest.mark.parametrize(("kind", "options"), SETTINGS, ids=str)
def test_optimizers_in_one_pass(kind, options, dtype):
    start = np.random.default_rng(0).normal(size=(200, 101)).astype(dtype)
    name = "passes.adam" if issubclass(kind, optim.Adam) else "passes.sgd"

    def run():
        p = nn.Parameter(minidl.tensor(start.copy()))
        optimizer = kind([p], **{"lr": 0.01, **options})
        for step in range(5):
            p.grad = minidl.tensor(np.random.default_rng(step).normal(size=start.shape).astype(dtype))
            optimizer.step()
        return p.array, dict(optimizer.state[p].items())

    before = ran[name]
    fast, fast_state = run()
    assert ran[name] == before + 5
    with by_formula():
        slow, slow_state = run()
    assert ran[name] == before + 5
    tolerance = 2e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(fast, slow, rtol=0, atol=tolerance)
    assert abs(fast - start).max() > 1e-3
    assert fast_state.keys() == slow_state.keys()
    for key, value in fast_state.items():
        np.testing.assert_allclose(np.asarray(value), np.asarray(slow_state[key]), rtol=0, atol=tolerance, err_msg=key)


def test_what_is_computed_by_the_formula():
    few, many = minidl.randn(10, 10), minidl.randn(MANY)
    p, amsgrad, plain = (nn.Parameter(minidl.randn(MANY)) for _ in range(3))
    before = ran.copy()
    few.relu(), many.half().relu(), many[::2].relu(), many.reshape(200, 100).T.relu()
    (many * 100).to(minidl.int32).relu()
    minidl.randn(MANY, device="fake").relu()
    with by_formula():
        many.relu()
    for optimizer in (optim.Adam([amsgrad], amsgrad=True), optim.SGD([plain])):
        amsgrad.grad = plain.grad = minidl.ones(MANY)
        optimizer.step()
    p.grad = minidl.ones(MANY, dtype=minidl.float32)
    assert ran == before
    optim.Adam([p]).step()
    assert ran["passes.adam"] == before["passes.adam"] + 1


def test_an_optimizer_that_starts_by_formula_and_goes_on_compiled():
    def run(switch):
        p = nn.Parameter(minidl.tensor(np.linspace(-1, 1, MANY, dtype=np.float32)))
        optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
        for step in range(4):
            p.grad = minidl.full((MANY,), float(step + 1))
            with minidl.use_kernels("im2col" if step in switch else None):
                optimizer.step()
        return p.array

    for switch in ([0], [1, 2], [3]):
        np.testing.assert_allclose(run(switch), run([]), rtol=0, atol=1e-6)


def test_arrays_whose_elements_lie_in_different_orders_are_not_passed_over_together():
    plain, pixels = images(np.float32, False), images(np.float32, True, seed=1)
    assert kernels.passes_for(plain, pixels) is None
    x, t = minidl.tensor(plain), minidl.tensor(0.0)
    t.array = pixels
    np.testing.assert_allclose(F.mse_loss(x, t).item(), ((plain - pixels) ** 2).mean(dtype=np.float64), rtol=1e-6)
    y = t.detach().requires_grad_()
    (gradient,) = minidl.autograd.grad(y.relu(), y, x)                      # the output channels-last, its gradient not
    np.testing.assert_array_equal(gradient.array, np.where(pixels > 0, plain, 0))


def test_the_order_of_axes_of_size_1_does_not_matter():
    """Images with one channel may have either pair of strides there, as a convolution with one output leaves them."""
    plain = np.random.default_rng(0).normal(size=(30, 1, 28, 28)).astype(np.float32)
    pixels = plain.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    assert pixels.strides != plain.strides
    assert in_the_same_order(plain, pixels)
    assert kernels.passes_for(plain, pixels) is not None
    assert not in_the_same_order(plain, plain[:, :, :, :27])
    assert not in_the_same_order(plain, plain.transpose(0, 1, 3, 2))


def test_layout():
    x = np.zeros((2, 3, 4, 5), np.float32)
    pixels = np.zeros((2, 4, 5, 3), np.float32).transpose(0, 3, 1, 2)
    assert in_a_row(x).base is x
    assert np.shares_memory(in_a_row(pixels), pixels)
    assert in_a_row(x[:, ::2]) is None
    assert in_a_row(x[:, :, ::-1]) is None
    assert rows_of_channels(pixels, (0, 2, 3)).shape == (40, 3)
    assert rows_of_channels(x, (0, 2, 3)) is None
    assert rows_of_channels(x.reshape(24, 5), (0,)).shape == (24, 5)
    assert rows_of_channels(x, (0, 1, 2)).shape == (24, 5)
    for axes in ((0,), (1,), (0, 1), (0, 1, 2, 3), None):
        assert rows_of_channels(pixels, axes) is None


# -- a training step of the labs' CNN ----------------------------------------------------------------------------------

def test_a_step_of_the_cnn_runs_on_the_fast_kernels_in_channels_last_memory():
    minidl.manual_seed(0)
    model, x, labels = small_cnn(), minidl.rand(64, 1, 28, 28), minidl.randint(0, 10, (64,))
    optimizer = optim.Adam(model.parameters())
    before = ran.copy()
    loss = F.cross_entropy(model(x), labels)
    seen = []
    for step in loss.backward_steps():
        for name, gradient in {**step.outgoing, "incoming": step.incoming}.items():
            if gradient.ndim == 4 and name in ("x", "incoming"):
                array = gradient.array
                assert array.transpose(0, 2, 3, 1).flags.c_contiguous, (step, name, array.strides)
                seen.append(f"{step.op}.{name}")
        step.node.release()
    optimizer.step()
    assert len(seen) >= 10, seen
    new = {name: count for name, count in (ran - before).items() if not name.startswith("winograd")}
    assert new == {
        "simd.conv2d": 2, "simd.conv2d_input_grad": 1, "simd.conv2d_weight_grad": 2, "loops.avg_pool2d": 2,
        "loops.avg_pool2d_input_grad": 2, "passes.relu": 3, "passes.relu_grad": 3, "passes.channel_sums": 3,
        "dense.matmul": 3, "passes.adam": 8,
    }


def test_a_step_of_the_cnn_is_the_same_with_every_kernel_set():
    def step(name):
        minidl.manual_seed(0)
        model, x, labels = small_cnn(), minidl.rand(4, 1, 28, 28), minidl.randint(0, 10, (4,))
        optimizer, losses = optim.SGD(model.parameters(), lr=0.1, momentum=0.9), []
        with minidl.use_kernels(name):
            for _ in range(3):
                loss = F.cross_entropy(model(x), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return losses, [p.array for p in model.parameters()]

    losses, weights = step("im2col")
    for name in ("loops", "simd", None):
        other_losses, other_weights = step(name)
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        for a, b in zip(weights, other_weights, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


# -- who owns a gradient -----------------------------------------------------------------------------------------------

def test_a_gradient_that_somebody_holds_is_copied():
    w = minidl.randn(3, 4, requires_grad=True)
    held = []
    handle = w.register_hook(lambda g: held.append(g))
    (w * 2).sum().backward()
    handle.remove()
    w.grad.add_(1)
    assert held[0].array.max() == 2

    w.grad = None
    steps = list((minidl.ones(2, 3) @ w).sum().backward_steps())
    w.grad.zero_()
    assert steps[-1].outgoing["b"].array.min() == 2

    w.grad = None
    a, b = minidl.randn(3, requires_grad=True), minidl.randn(3, requires_grad=True)
    (a + b).sum().backward()                                                # one array for both
    a.grad.zero_()
    assert b.grad.tolist() == [1, 1, 1]


def test_a_gradient_never_shares_memory_with_what_the_graph_keeps():
    x, w = minidl.randn(5, 4), minidl.randn(4, 3, requires_grad=True)
    y = x @ w
    y.backward(minidl.ones(5, 3), retain_graph=True)
    first = w.grad.clone()
    w.grad.zero_()
    y.backward(minidl.ones(5, 3))
    assert w.grad.equal(first)
    z = minidl.randn(3, requires_grad=True)
    upstream = minidl.ones(3)
    z.clone().backward(upstream)
    z.grad.zero_()
    assert upstream.tolist() == [1, 1, 1]


def test_a_spare_gradient_is_not_copied(monkeypatch):
    w, arrays = minidl.randn(30, 40, requires_grad=True), []
    original = minidl.ops.MatMul.forward

    def spy(self, a, b):
        y = original(self, a, b)
        arrays.append(y.__array_interface__["data"][0])
        return y

    monkeypatch.setattr(minidl.ops.MatMul, "forward", spy)
    (minidl.randn(20, 30) @ w).sum().backward()
    assert w.grad.array.__array_interface__["data"][0] == arrays[-1]
    assert w.grad.array.flags.owndata


# -- memory ------------------------------------------------------------------------------------------------------------

PAGES = """
import numpy as np, resource, sys, minidl
def step():
    return [np.ones(2_000_000, np.float32) for _ in range(3)]
step(); step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> int:
    result = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True,
                            env={**os.environ, **environment})
    return int(result.stdout)


@pytest.mark.skipif(not memory.keep_freed_memory(), reason="only glibc keeps freed memory on request")
def test_freed_memory_is_used_again():
    kept, returned = faults(), faults(MINIDL_KEEP_MEMORY="0", MALLOC_MMAP_THRESHOLD_="131072")
    assert kept < returned / 10, (kept, returned)


def test_memory_is_left_alone_if_the_environment_says_so(monkeypatch):
    monkeypatch.setenv("MINIDL_KEEP_MEMORY", "0")
    assert memory.keep_freed_memory() is False


def test_importing_minidl_compiles_nothing_and_loads_no_compiler():
    code = ("import sys, minidl; x = minidl.randn(4, 3, requires_grad=True); (x.relu() @ x.T).sum().backward()\n"
            "print('numba' in sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
    assert compiling.seconds() >= 0
    assert kernels.chosen() is None
    assert copy.copy(ran) == ran
