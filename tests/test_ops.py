"""Every op, from the table in tests/cases.py."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

import minidl
from minidl import fake
from minidl.backend import backend_of
from minidl.debug.gradcheck import GradcheckError, gradcheck
from minidl.graph import Op
from minidl.tensors import Tensor
from tests.cases import CASES, Case

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
with_gradient = pytest.mark.parametrize("case", [c for c in CASES if c.orders], ids=lambda case: case.name)


def tensors(case: Case, rng, device="cpu", dtype=np.float64, requires_grad=True):
    made = []
    for array in case.inputs(rng):
        is_data = array.dtype.kind != "f"
        x = minidl.tensor(array if is_data else array.astype(dtype), device=device)
        made.append(x if is_data or not requires_grad else x.requires_grad_())
    return made


def host(tensor):
    return backend_of(tensor.array).to_host(tensor.array)


NOT_CALLED = {"_NoSecondDerivative"}                            # has no forward: it stands in a graph to refuse


def ops_of_minidl() -> set[type[Op]]:
    for module in pkgutil.walk_packages(minidl.ops.__path__, "minidl.ops."):
        importlib.import_module(module.name)                    # also those that nothing imports yet
    return {op for op in Op.registry if op.__module__.startswith("minidl.") and op.__name__ not in NOT_CALLED}


def test_every_op_has_a_row():
    in_minidl = ops_of_minidl()
    without = in_minidl - {case.op for case in CASES}
    assert not without, f"ops without a row in tests/cases.py: {sorted(op.__name__ for op in without)}"
    differentiable = {op for op in in_minidl if op.contract.asks}
    unchecked = differentiable - {case.op for case in CASES if case.orders}
    assert not unchecked, f"ops whose gradient no row checks: {sorted(op.__name__ for op in unchecked)}"
    trusting = differentiable - {case.op for case in CASES if case.wrong}
    assert not trusting, f"ops without a wrong gradient to catch: {sorted(op.__name__ for op in trusting)}"


def test_every_gradient_of_every_op_is_needed_by_some_row(rng):
    needed = {(case.op, method) for case in CASES if case.orders for method, _ in gradient_methods(case)
              if runs_method(case, method, rng)}
    for case in CASES:
        for method, _ in gradient_methods(case):
            assert (case.op, method) in needed, f"no row needs {case.op.__name__}.{method}"


@every_case
def test_the_row_is_about_its_op(case, rng):
    called = []

    class Watch(minidl.autograd.Observer):
        def op_called(self, op, inputs, output):
            called.append(type(op))

    watch = Watch()
    minidl.autograd.observers.append(watch)
    try:
        case.run(*tensors(case, rng))
    finally:
        minidl.autograd.observers.remove(watch)
    assert case.op in called


@every_case
def test_forward_equals_the_definition(case, rng):
    result = case.run(*tensors(case, rng))
    np.testing.assert_allclose(result.detach().numpy(), case.expected(*case.inputs(np.random.default_rng(0))),
                               rtol=1e-12, atol=1e-12)


@with_gradient
@pytest.mark.parametrize("order", [1, 2])
def test_gradient_equals_finite_differences(case, order, rng):
    if order not in case.orders:
        pytest.skip(f"{case.op.__name__} cannot be differentiated {order} times")
    assert gradcheck(case.run, tensors(case, rng), rtol=case.rtol, atol=case.atol, order=order)


def gradient_methods(case: Case):
    """(method name, position in the returned tuple or None) of every gradient that the op has."""
    for key in case.op.contract.asks:
        if key is not None:
            yield f"backward_{key}", None
        else:
            n = len(case.inputs(np.random.default_rng(0))) if case.op.contract.variadic else len(case.op.contract.inputs)
            yield from [("backward", i) for i in range(n)] if n > 1 else [("backward", None)]


def runs_method(case: Case, method: str, rng) -> bool:
    """Whether this row needs that gradient at all (a row without bias does not need the bias's)."""
    seen = []
    original = getattr(case.op, method)

    def watched(self, *args):
        seen.append(method)
        return original(self, *args)

    setattr(case.op, method, watched)
    try:
        case.run(*tensors(case, rng)).sum().backward()
    finally:
        setattr(case.op, method, original)
    return bool(seen)


@with_gradient
def test_a_gradient_wrong_by_a_thousandth_is_caught(case, rng, monkeypatch):
    """Each returned gradient times 1.001, in turn; and with one single element off by a thousandth."""
    spoiled_any = False
    for method, position in gradient_methods(case):
        if not runs_method(case, method, rng):
            continue
        original = getattr(case.op, method)
        for spoil in (lambda g: g * 1.001, one_element_off):
            def spoiled(self, g, *kept, original=original, position=position, spoil=spoil):
                result = original(self, g, *kept)
                if position is None:
                    return spoil(result) if isinstance(result, Tensor) else tuple(map(spoil, result))
                return tuple(spoil(r) if i == position else r for i, r in enumerate(result))

            with monkeypatch.context() as patch:
                patch.setattr(case.op, method, spoiled)
                with pytest.raises(GradcheckError, match="backward says"):
                    gradcheck(case.run, tensors(case, rng), rtol=case.rtol, atol=case.atol)
            spoiled_any = True
    assert spoiled_any, "no gradient of this op was tried"


def one_element_off(gradient):
    """A thousandth too much in the one element that is largest, for every gradient that comes by."""
    factor = np.ones(gradient.shape)
    flat = factor.reshape(-1)
    flat[int(np.abs(host(gradient)).argmax())] = 1.001
    return gradient * minidl.tensor(factor, device=gradient.device)


WRONG = [(case, method) for case in CASES for method in case.wrong]


@pytest.mark.parametrize(("case", "method"), WRONG, ids=lambda v: v.name if isinstance(v, Case) else v)
def test_the_classic_mistake_is_caught(case, method, rng, monkeypatch):
    monkeypatch.setattr(case.op, method, case.wrong[method])
    with pytest.raises(GradcheckError, match="backward says"):
        gradcheck(case.run, tensors(case, rng), rtol=case.rtol, atol=case.atol)


@pytest.mark.torch
@pytest.mark.parametrize("case", [c for c in CASES if c.torch], ids=lambda case: case.name)
def test_forward_and_gradients_equal_pytorch(case, rng, torch):
    ours = tensors(case, rng)
    theirs = [torch.tensor(x.detach().numpy(), requires_grad=x.requires_grad) for x in ours]
    result, expected = case.run(*ours), case.torch(torch, *theirs)
    np.testing.assert_allclose(result.detach().numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-12)
    assert str(result.dtype) == str(expected.dtype).removeprefix("torch.")
    if case.orders:
        weights = rng.normal(size=result.shape)
        (result * minidl.tensor(weights)).sum().backward()
        (expected * torch.tensor(weights)).sum().backward()
        for mine, other in zip(ours, theirs, strict=True):
            if mine.requires_grad:
                np.testing.assert_allclose(mine.grad.numpy(), other.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c.on_fake], ids=lambda case: case.name)
def test_the_strict_device_gives_the_same(case, rng):
    """Forward and backward on `fake`: no host array, no name that CuPy lacks, no hidden read."""
    ours = tensors(case, rng)
    on_fake = tensors(case, np.random.default_rng(0), device="fake")
    weights = rng.normal(size=case.run(*ours).shape)
    weights_on_fake = minidl.tensor(weights, device="fake")
    fake.syncs.reset()
    result = case.run(*on_fake)
    if case.orders:
        result.backward(weights_on_fake)
    assert fake.syncs.count == case.syncs, fake.syncs.calls
    expected = case.run(*ours)
    np.testing.assert_allclose(host(result), host(expected), rtol=1e-12, atol=1e-12)
    if case.orders:
        expected.backward(minidl.tensor(weights))
        for mine, other in zip(ours, on_fake, strict=True):
            if mine.requires_grad:
                np.testing.assert_allclose(host(other.grad), host(mine.grad), rtol=1e-12, atol=1e-12)


@every_case
def test_float32_stays_float32(case, rng):
    precise, result = (case.run(*tensors(case, np.random.default_rng(0), dtype=dtype)) for dtype in ("f8", "f4"))
    if case.op.__name__ == "Cast":
        return
    assert result.dtype == (np.float32 if precise.dtype == np.float64 else precise.dtype)
    np.testing.assert_allclose(result.detach().numpy(), precise.detach().numpy(), rtol=1e-5, atol=1e-5)
    if case.orders:
        inputs = tensors(case, np.random.default_rng(0), dtype="f4")
        case.run(*inputs).sum().backward()
        for x in inputs:
            assert not x.requires_grad or x.grad.dtype == np.float32


@with_gradient
def test_forward_changes_none_of_its_inputs(case, rng):
    inputs = tensors(case, rng)
    before = [host(x).copy() for x in inputs]
    case.run(*inputs).sum().backward()
    for x, array in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(host(x), array)
        if x.requires_grad:
            assert x.grad.shape == x.shape
            assert x.grad.array.flags.writeable
            assert all(x.grad.array.base is not y.array and x.grad.array is not y.array for y in inputs)
