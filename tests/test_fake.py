"""The strict device refuses what a GPU would refuse, and counts what a GPU would wait for."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import minidl
from minidl import fake
from minidl.backend import Backend, backend_for, xp_of
from minidl.errors import DeviceError


@pytest.fixture
def x():
    fake.syncs.reset()
    return backend_for("fake").from_host(np.arange(6.0).reshape(2, 3))


def test_it_is_no_numpy_array(x):
    assert not isinstance(x, np.ndarray)
    assert isinstance(backend_for("fake"), Backend)


@pytest.mark.parametrize("use", [
    lambda x: x + np.ones(3), lambda x: np.ones(3) + x, lambda x: np.exp(x), lambda x: np.sum(x), lambda x: np.asarray(x),
    lambda x: xp_of(x).maximum(x, np.ones(3)), lambda x: x.__setitem__(0, np.ones(3)), lambda x: np.concatenate([x, x]),
    lambda x: xp_of(x).stack([x, np.ones((2, 3))]), lambda x: x.dot(np.ones(3)),
])
def test_host_arrays_and_numpy_functions_are_refused(use, x):
    with pytest.raises((DeviceError, TypeError)):
        use(x)
    assert fake.syncs.count == 0


@pytest.mark.parametrize(("use", "error"), [
    (lambda x: xp_of(x).sum(x, where=x > 0), TypeError), (lambda x: x.sum(initial=0), TypeError),
    (lambda x: xp_of(x).maximum.reduce(x), AttributeError), (lambda x: xp_of(x).exp.at(x, 0), AttributeError),
    (lambda x: xp_of(x).ascontiguousarray2(x), AttributeError), (lambda x: x.tofile2, AttributeError),
    (lambda x: xp_of(x).emath, AttributeError), (lambda x: x.ctypes, AttributeError),
])
def test_what_cupy_lacks_is_refused(use, error, x):
    with pytest.raises(error):
        use(x)


def test_reads_are_counted(x):
    total = x.sum()
    assert fake.syncs.count == 0
    float(total)
    bool(total > 3)
    total.item()
    x.get()
    int(total)
    _ = x[x > 2]
    x.tolist()
    _ = [10, 11, 12, 13, 14, 15][xp_of(x).asarray(5)]
    assert fake.syncs.calls == ["float", "bool", "item", "get", "int", "mask", "tolist", "index"]


def test_it_computes(x):
    xp = xp_of(x)
    y = xp.exp(x * 2 - 1) @ xp.ones((3, 1))
    np.testing.assert_allclose(y.get(), np.exp(np.arange(6.0).reshape(2, 3) * 2 - 1) @ np.ones((3, 1)))
    x[0] += 1
    x[1, xp.asarray([0, 2])] = 9
    np.testing.assert_array_equal(x.get(), [[1, 2, 3], [9, 4, 9]])
    xp.add.at(x, (xp.asarray([0, 0]), xp.asarray([1, 1])), 10.0)
    assert x.get()[0, 1] == 22


def test_memory_sharing_is_seen_through_the_wrapper():
    t = minidl.ones(2, 3, device="fake")
    view = t.reshape(6)
    view.add_(1)
    assert t.version is view.version
    assert t.sum().item() == 12


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_the_list_of_names_is_that_of_the_installed_cupy():
    import cupy

    missing = [name for name in (*fake._CUPY["functions"], *fake._CUPY["ufuncs"]) if not hasattr(cupy, name)]
    assert not missing
