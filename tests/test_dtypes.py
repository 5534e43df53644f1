"""Number types: PyTorch's promotion table, held against PyTorch itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import minidl
from minidl.errors import DtypeError

NAMES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


@pytest.mark.torch
@pytest.mark.parametrize(("a_shape", "b_shape"), [((2,), (2,)), ((2,), ()), ((), (2,)), ((), ())])
def test_promotion_equals_pytorch(a_shape, b_shape, torch):
    for a, b in itertools.product(NAMES, NAMES):
        for operation in (lambda x, y: x * y, lambda x, y: x / y, lambda x, y: x > y, lambda x, y: x + y):
            ours = operation(minidl.ones(a_shape, dtype=a), minidl.ones(b_shape, dtype=b))
            theirs = operation(torch.ones(a_shape, dtype=getattr(torch, a)),
                               torch.ones(b_shape, dtype=getattr(torch, b)))
            assert name_of(ours.dtype) == name_of(theirs.dtype), (a, b)
            assert ours.shape == tuple(theirs.shape)


@pytest.mark.torch
@pytest.mark.parametrize("number", [True, 2, 2.5])
@pytest.mark.parametrize("shape", [(), (2,)])
def test_python_numbers_are_weak_as_in_pytorch(number, shape, torch):
    for name in NAMES:
        for operation in (lambda x: x * number, lambda x: number + x, lambda x: x / number, lambda x: number / x):
            ours = operation(minidl.ones(shape, dtype=name))
            theirs = operation(torch.ones(shape, dtype=getattr(torch, name)))
            assert name_of(ours.dtype) == name_of(theirs.dtype), name


@pytest.mark.torch
def test_results_of_functions_have_pytorchs_types(torch):
    for name in NAMES:
        ours, theirs = minidl.ones(3, dtype=name), torch.ones(3, dtype=getattr(torch, name))
        for method in ("exp", "log", "sigmoid", "tanh", "sum"):
            assert name_of(getattr(ours, method)().dtype) == name_of(getattr(theirs, method)().dtype), (name, method)


def test_the_traps_of_numpys_own_rules():
    x = minidl.ones(3)
    assert (x * minidl.tensor([1, 2, 3])).dtype == minidl.float32       # NumPy: float64
    assert (minidl.ones(3, dtype=minidl.uint8) / 255).dtype == minidl.float32
    assert (x * np.sqrt(64)).dtype == minidl.float32                    # a NumPy float64 scalar counts as a number
    assert (np.float64(2) * x).dtype == minidl.float32
    assert (x * minidl.tensor(2.0, dtype=minidl.float64)).dtype == minidl.float32      # no dimensions: weak
    assert isinstance((x.sum() * x.sum()).array, np.ndarray)            # NumPy would give a scalar


def test_creation_follows_the_default_type():
    assert minidl.tensor([1.0, 2.0]).dtype == minidl.float32
    assert minidl.tensor([1, 2]).dtype == minidl.int64
    assert minidl.tensor([True]).dtype == minidl.bool
    assert minidl.tensor(np.ones(2)).dtype == minidl.float64
    minidl.set_default_dtype(minidl.float64)
    try:
        assert minidl.tensor([1.0]).dtype == minidl.float64
        assert minidl.randn(2).dtype == minidl.float64
        assert (minidl.tensor([1]) * 2.5).dtype == minidl.float64
    finally:
        minidl.set_default_dtype(minidl.float32)
    with pytest.raises(DtypeError, match="expected a floating type"):
        minidl.set_default_dtype(minidl.int64)


def test_short_names():
    assert minidl.float is minidl.float32
    assert minidl.long is minidl.int64
    assert minidl.ones(2).double().dtype == minidl.double
    assert minidl.ones(2).long().dtype == minidl.long
    assert minidl.ones(2).bool().dtype == minidl.bool


def test_a_cast_sends_the_gradient_back_in_the_inputs_type():
    x = minidl.ones(3, requires_grad=True)
    (x.double() * 2).sum().backward()
    assert x.grad.dtype == minidl.float32
