"""The pool of threads, products of matrices on it, and that it and the matrix library do not starve each other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController

import minidl
from minidl.errors import SettingError
from minidl.kernels import dense, simd, threads
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.threads import LONG, WORTH_A_THREAD, one_blas_thread, parallel, parallel_parts, parts, ran

MUCH = 1e12                                                                 # numbers: worth any number of threads


@pytest.fixture
def four_threads():
    before = minidl.get_num_threads()
    minidl.set_num_threads(4)
    yield
    minidl.set_num_threads(before)


@given(count=st.integers(0, 50) | st.integers(0, 2000), number_of_threads=st.integers(1, 9), whole=st.booleans(),
       numbers=st.integers(0, 10 * WORTH_A_THREAD) | st.integers(0, 4 * LONG))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_parts_cover_the_range_once(count, numbers, number_of_threads, whole):
    before = minidl.get_num_threads()
    minidl.set_num_threads(number_of_threads)
    try:
        ranges = parts(count, numbers, whole=whole)
    finally:
        minidl.set_num_threads(before)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(count))
    most = max(1, min(number_of_threads, count, numbers // WORTH_A_THREAD))
    sizes = [stop - start for start, stop in ranges]
    assert count == 0 or min(sizes) > 0
    if most > 1 and not whole and numbers >= LONG and count >= 64 * most:       # long work: small parts at the end
        assert len(ranges) == 5 * most
        assert max(sizes[:most]) - min(sizes[:most]) <= 1
        assert 4 * max(sizes[most:]) <= min(sizes[:most]) // 3 + 8
        return
    assert 1 <= len(ranges) <= most
    assert max(sizes[1:], default=0) <= sizes[0]                            # the calling thread begins first
    assert max(sizes[1:], default=0) - min(sizes[1:], default=0) <= 1


def test_parts_run_at_the_same_time(four_threads):
    meet = threading.Barrier(4, timeout=20)                                 # passes only if all four are there
    seen = []

    def kernel(start, stop, name):
        meet.wait()
        seen.append((start, stop, name, threading.get_ident()))

    parallel(kernel, parts(8, MUCH), "a")
    assert sorted(s[:3] for s in seen) == [(0, 2, "a"), (2, 4, "a"), (4, 6, "a"), (6, 8, "a")]
    assert len({s[3] for s in seen}) == 4
    assert threading.get_ident() in {s[3] for s in seen}                    # the calling thread works too
    numbers = []
    parallel_parts(lambda part, start, stop: numbers.append((part, start, stop)), parts(3, MUCH))
    assert sorted(numbers) == [(0, 0, 1), (1, 1, 2), (2, 2, 3)]


def test_whoever_is_free_takes_the_next_task():
    """One task is slow: the others are done meanwhile, also if there are more of them than threads."""
    before, finished = minidl.get_num_threads(), []
    minidl.set_num_threads(2)

    def task(number):
        if number == 0:
            time.sleep(0.5)
        finished.append((number, threading.get_ident()))

    try:
        threads.run([partial(task, number) for number in range(9)])
    finally:
        minidl.set_num_threads(before)
    assert [number for number, _ in finished] == [1, 2, 3, 4, 5, 6, 7, 8, 0]
    assert len({thread for number, thread in finished if number}) == 1
    assert threading.get_ident() in {thread for _, thread in finished}


def test_what_is_asked_for_together_is_done_at_the_end_of_the_block(four_threads):
    done = []
    with threads.together():
        parallel(lambda start, stop: done.append((start, stop)), [(0, 1), (1, 2)])
        with threads.together():
            parallel(lambda start, stop: done.append((start, stop)), [(2, 3)])
            elsewhere = threading.Thread(target=parallel, args=(lambda start, stop: done.append("other"), [(0, 1)]))
            elsewhere.start()
            elsewhere.join(20)
            assert done == ["other"]                                        # another thread does not gather
        assert done == ["other", (2, 3)]
    assert sorted(done[2:]) == [(0, 1), (1, 2)]

    def broken():
        with threads.together():
            parallel(lambda start, stop: done.append("before"), [(0, 1)])
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert done[-1] == "before"                                             # what was asked for is done all the same
    parallel(lambda start, stop: done.append("after"), [(0, 1)])
    assert done[-1] == "after"


def test_the_first_error_in_the_order_of_the_tasks_is_raised(four_threads):
    def task(number):
        time.sleep(0.2 if number == 1 else 0)
        raise ValueError(f"task {number}")

    with pytest.raises(ValueError, match="task 0"):
        threads.run([partial(task, number) for number in range(4)])


@pytest.mark.parametrize("where", [0, 1, 3])
def test_an_error_in_a_part_is_raised_after_all_parts_are_done(four_threads, where):
    done = []

    def kernel(start, stop):
        if start == where:
            raise ValueError("broken")
        time.sleep(0.05)
        done.append(start)

    with pytest.raises(ValueError, match="broken"):
        parallel(kernel, parts(4, MUCH))
    assert sorted(done) == [i for i in range(4) if i != where]
    parallel(lambda start, stop: done.append(-1), parts(4, MUCH))           # and the pool still works
    assert done.count(-1) == 4


def test_a_part_may_use_the_pool_itself(four_threads):
    seen = []
    parallel(lambda start, stop: parallel(lambda a, b: seen.append((start, a)), parts(4, MUCH)), parts(4, MUCH))
    assert sorted(seen) == [(i, j) for i in range(4) for j in range(4)]


def test_kernels_in_several_threads_of_the_program(four_threads):
    x = np.random.default_rng(0).normal(size=(8, 4, 12, 12)).astype(np.float32)
    w = np.random.default_rng(1).normal(size=(32, 4, 3, 3)).astype(np.float32)
    geometry = Conv2dGeometry.of(x.shape, w.shape)
    expected, results = simd.conv2d(x, w, geometry), []
    callers = [threading.Thread(target=lambda: results.extend(simd.conv2d(x, w, geometry) for _ in range(10)))
               for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(results) == 40
    assert all((y == expected).all() for y in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_threads_of_its_own():
    code = ("import os, threading, warnings; warnings.simplefilter('ignore'); import minidl\n"
            "from minidl.kernels.threads import parallel, parts\n"
            "minidl.set_num_threads(3); import time\n"
            "def kernel(start, stop): seen.add(threading.get_ident()); time.sleep(0.2)\n"
            "run = lambda: parallel(kernel, parts(3, 1e12))\n"
            "seen = set(); run(); child = os.fork()\n"
            "if child == 0:\n    seen.clear(); run(); os._exit(0 if len(seen) > 1 else 9)\n"
            "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout == "0\n", result.stderr


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_a_wrong_number_of_threads(number):
    before = minidl.get_num_threads()
    with pytest.raises(SettingError, match=r"set_num_threads: got .*, expected an integer ≥ 1"):
        minidl.set_num_threads(number)
    assert minidl.get_num_threads() == before


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("", None), ("many", None), ("0", None)])
def test_the_number_of_threads_at_first(value, expected):
    code = "import minidl; print(minidl.get_num_threads())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                            env={**os.environ, "OMP_NUM_THREADS": value})
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert int(result.stdout) == (expected or cores)


def test_the_same_threads_give_the_same_bits():
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=(16, channels, 12, 12)).astype(np.float32) for channels in (16, 48))
    geometry = Conv2dGeometry.of(x.shape, (48, 16, 3, 3), padding=1)
    first = simd.conv2d_weight_grad(x, g, geometry)
    assert all((simd.conv2d_weight_grad(x, g, geometry) == first).all() for _ in range(5))


# -- the matrix library ------------------------------------------------------------------------------------------------

def blas_threads() -> list[int]:
    return [library.num_threads for library in ThreadpoolController().select(user_api="blas").lib_controllers]


def test_the_matrix_library_is_limited_inside_the_block_only(monkeypatch):
    monkeypatch.setattr(threads, "_blas", None)         # earlier tests may have loaded another one since it was looked up
    before = blas_threads()
    assert before
    with one_blas_thread():
        assert blas_threads() == [1] * len(before)
        with one_blas_thread():
            assert blas_threads() == [1] * len(before)
        assert blas_threads() == [1] * len(before)
    assert blas_threads() == before
    with pytest.raises(ValueError, match="broken"), one_blas_thread():
        raise ValueError("broken")
    assert blas_threads() == before


@pytest.mark.parametrize("shapes", [((300, 200), (200, 500)), ((500, 300), (300, 100)), ((3, 200, 200), (3, 200, 200)),
                                    ((2, 3), (3, 4)), ((1, 5), (5, 1)), ((0, 3), (3, 4)), ((4, 2, 3), (3, 5))])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products(shapes, dtype, four_threads):
    a, b = (np.random.default_rng(0).normal(size=shape).astype(dtype) for shape in shapes)
    before = ran["dense.matmul"]
    y = dense.matmul(a, b)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, a.astype(np.float64) @ b, rtol=0, atol=1e-4 if dtype == np.float32 else 1e-12)
    assert (ran["dense.matmul"] > before) == (a.size * b.shape[-1] // 16 >= 2 * WORTH_A_THREAD)
    turned = dense.matmul(b.swapaxes(-1, -2), a.swapaxes(-1, -2)) if a.ndim == b.ndim else y.swapaxes(-1, -2)
    np.testing.assert_allclose(turned, y.swapaxes(-1, -2), rtol=0, atol=1e-4)


def test_integers_have_products_too():
    assert dense.matmul(np.arange(4).reshape(2, 2), np.arange(4).reshape(2, 2)).tolist() == [[2, 3], [6, 11]]


def test_kernels_and_products_in_turn_take_no_longer_than_each_by_itself():
    """The threads of a matrix library that spin after a product have cost the next kernel three times its time."""
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=shape).astype(np.float32) for shape in ((64, 32, 14, 14), (64, 32, 3, 3)))
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    a, b = (rng.normal(size=(256, 256)).astype(np.float32) for _ in range(2))         # short beside the convolution
    geometry = Conv2dGeometry.of(x.shape, w.shape, padding=1)

    def milliseconds(*actions) -> float:
        times = []
        for _ in range(25):
            start = time.perf_counter()
            for action in actions:
                action()
            times.append(time.perf_counter() - start)
        return 1000 * float(np.median(times))

    def convolve():
        return simd.conv2d(x, w, geometry)

    def multiply():
        return dense.matmul(a, b)

    ratios = []
    for _ in range(8):                                  # machines are noisy: the best of eight
        time.sleep(0.3)                                 # threads that spin have gone to sleep
        alone = milliseconds(convolve) + milliseconds(multiply)
        ratios.append(milliseconds(convolve, multiply) / alone)
        if ratios[-1] < 1.3:
            break
    assert min(ratios) < 1.3, ratios
