"""Indexing and assignment: PyTorch's shapes, values and gradients, also where NumPy's rules differ."""

from __future__ import annotations

import numpy as np
import pytest

import minidl
from minidl.errors import DeviceError, DtypeError, LabelError, ShapeError

KEYS = [
    "0", "-1", "(1, 2)", "(1, 2, 3)", "slice(None)", "(slice(1, None), 0)", "(..., 1)", "(0, ..., slice(1, 3))", "None",
    "(None, 0, None)", "[0, 1]", "([0, 1], [2, 0])", "(slice(None), [0, 2, 2])", "(0, slice(None), [0, 2])",
    "(slice(None), 1, [0, 1])", "(0, [0, 2], slice(None))", "(1, ..., [0, 1, 1])", "(None, 0, slice(None), [1, 2])",
    "([0, 1], slice(None), [1, 2])", "([[0], [1]], [0, 2])", "(..., [0, 1], 2)", "t.tensor(1)", "(0, t.tensor(2))",
    "(t.tensor(1), slice(None), t.tensor([0, 3]))", "t.tensor([[1, 0], [0, 1]])", "t.arange(24).reshape(2, 3, 4) > 10",
    "(slice(None), t.tensor([True, False, True]))", "(0, t.tensor([True, False, True]))",
    "(0, t.arange(12).reshape(3, 4) <= 5)", "[]", "(slice(None), [])", "slice(0, t.tensor(1))", "(slice(-2, None), 2)",
    "t.tensor([1, 0], dtype=t.int32)", "((0, 1),)", "()", "(0, 0, slice(2, 2))",
]


def both(torch):
    numbers = np.arange(24.0).reshape(2, 3, 4)
    return minidl.tensor(numbers, requires_grad=True), torch.tensor(numbers, requires_grad=True)


@pytest.mark.torch
@pytest.mark.parametrize("key", KEYS)
def test_picking_equals_pytorch(key, torch):
    x, y = both(torch)
    ours, theirs = x[eval(key, {"t": minidl})], y[eval(key, {"t": torch})]
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())
    (ours * ours).sum().backward()
    (theirs * theirs).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())


@pytest.mark.torch
@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("key", [key for key in KEYS if "[0, 2, 2]" not in key and "[0, 1, 1]" not in key
                                 and "[1, 0], [0, 1]" not in key])
def test_assigning_equals_pytorch(key, recorded, torch):
    x, y = both(torch)
    target, expected = x * 1, y * 1
    if not recorded:
        target, expected = target.detach().clone(), expected.detach().clone()
    shape = tuple(expected[eval(key, {"t": torch})].shape)
    value = np.random.default_rng(0).normal(size=shape)
    v, w = minidl.tensor(value, requires_grad=recorded), torch.tensor(value, requires_grad=recorded)
    target[eval(key, {"t": minidl})] = v
    expected[eval(key, {"t": torch})] = w
    np.testing.assert_array_equal(target.detach().numpy(), expected.detach().numpy())
    target[eval(key, {"t": minidl})] = 7
    expected[eval(key, {"t": torch})] = 7
    np.testing.assert_array_equal(target.detach().numpy(), expected.detach().numpy())
    if recorded:
        (target * target).sum().backward()
        (expected * expected).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())
        np.testing.assert_array_equal(v.grad.numpy(), w.grad.numpy())


def test_a_single_element_is_a_view():
    x = minidl.zeros(2, 3)
    x[0, 1].fill_(5)
    x[1][2].add_(2)
    for row in x:
        row[0] = 9
    assert x.tolist() == [[9, 5, 0], [9, 0, 2]]
    scalar = minidl.tensor(1.0)
    scalar[()].fill_(4)
    assert scalar.item() == 4


def test_a_stale_element_is_noticed():
    x, w = minidl.tensor([3.0, 4.0]), minidl.tensor(2.0, requires_grad=True)
    y = w * x[0]
    x[0] = 100
    with pytest.raises(minidl.MinidlError, match="changed in place"):
        y.backward()


def test_values_with_leading_ones_and_other_types_fit():
    x, v = minidl.zeros(3, requires_grad=True) * 1, minidl.tensor([[2.0]], dtype=minidl.float64, requires_grad=True)
    x[0] = v
    x[1] = minidl.tensor([3.0])
    x.sum().backward()
    assert x.tolist() == [2, 3, 0]
    assert v.grad.tolist() == [[1]]
    assert v.grad.dtype == minidl.float64
    y = minidl.zeros(3)
    y[0] = minidl.tensor([4.0])
    y[1] = np.float32(5)
    y[2] = True
    assert y.tolist() == [4, 5, 1]


def test_a_bound_that_is_a_tensor_is_read_once():
    x, i = minidl.ones(4, requires_grad=True), minidl.tensor(0)
    y = x[i:i + 1] * 2
    i += 2
    y.sum().backward()
    assert x.grad.tolist() == [2, 0, 0, 0]


@pytest.mark.parametrize(("use", "error", "message"), [
    (lambda x: x.__setitem__(0, minidl.ones(2)), ShapeError, "got a value of shape (2,) for a part of a tensor of shape"),
    (lambda x: x.copy_(minidl.ones(5)), ShapeError, "got a value of shape (5,)"),
    (lambda x: x.__setitem__(0, minidl.ones(2, requires_grad=True)), ShapeError, "x[...] = value: got a value of shape (2,)"),
    (lambda x: x.__setitem__(0, None), DtypeError, "got None, expected a number, a tensor or an array"),
    (lambda x: x.__setitem__(0, "5"), DtypeError, "got '5', expected a number"),
    (lambda x: x.__setitem__(0, minidl.ones(4, device="fake")), DeviceError, "got a value on 'fake'"),
    (lambda x: x[[0.5]], ShapeError, "got an index of float32, expected integers or booleans"),
    (lambda x: x.gather(1, minidl.tensor([[0, -1]])), LabelError, "gather: got the index -1, expected 0 to 3 along dim 1"),
    (lambda x: x.gather(1, minidl.tensor([[4]])), LabelError, "gather: got the index 4"),
    (lambda x: x.gather(1, minidl.tensor([0])), ShapeError, "expected integers with 2 dimensions"),
    (lambda x: x.gather(1, minidl.tensor([[True]])), ShapeError, "got an index of bool"),
    (lambda x: x.gather(1, minidl.zeros(9, 1).long()), ShapeError, "no size larger than the tensor's, except along dim 1"),
])
def test_bad_keys_and_values(use, error, message):
    x = minidl.zeros(3, 4)
    with pytest.raises(error) as caught:
        use(x)
    assert message in str(caught.value)
    assert x.sum().item() == 0
