"""The fast kernel sets against `reference`: odd sizes, every layout of memory, and memory that nobody wrote.

What a fast set may differ by: it adds the same terms in another order, and in its own precision. Each term then
rounds by at most eps/2 of a partial sum, and no partial sum exceeds the sum of the absolute values; over random signs
the errors cancel down to about one eps of that sum, whatever its length. So the bound for every number of a result is

    |result - exact| <= 8 eps · sum of |terms|          8 eps = 1e-6 in float32, 2e-15 in float64

with the exact sum and the sum of absolute values computed in float64. A forgotten term is seen up to a million terms.

Winograd's way computes neighbours from the same sums and takes apart afterwards what belongs to whom. What cancels there
leaves an error of the neighbours' size: the bound then takes the largest |terms| of the neighbours.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

import minidl
from minidl import kernels
from minidl.errors import DeviceError, ShapeError
from minidl.kernels import im2col, reference, simd, threads, winograd
from minidl.kernels.geometry import Conv2dGeometry, Pool2dGeometry

FAST = [name for name in kernels.ON_CPU if name != "reference"]
DTYPES = ["float32", "float64"]
CHANNELS = [1, 2, 3, 8, 15, 16, 17, 31, 32, 33, 64]         # around the widths of vectors and tiles
CONV = ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"]

some = settings(max_examples=150, deadline=None, derandomize=True)


# -- what is drawn -----------------------------------------------------------------------------------------------------

@st.composite
def convolutions(draw, channels=CHANNELS):
    """(shape of x, shape of w, geometry); the padding may differ on all four sides."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs, outputs = (groups * draw(st.sampled_from(channels if groups == 1 else channels[:7])) for _ in "CO")
    kernel, stride, dilation = ((draw(st.integers(1, most)), draw(st.integers(1, most))) for most in (4, 3, 3))
    if draw(st.booleans()):                                 # what most networks have; some sets have a shorter way
        kernel, stride, dilation = (3, 3), (1, 1), (1, 1)
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in "HW")
    least = [max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(n + draw(st.integers(0, 7)) for n in least)
    geometry = Conv2dGeometry(size, kernel, stride, padding, dilation, groups=groups)
    return (draw(st.integers(1, 3)), inputs, *size), (outputs, inputs // groups, *kernel), geometry


@st.composite
def poolings(draw):
    """(shape of x, geometry for max, geometry for avg)."""
    kernel, stride, dilation = ((draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(3))
    padding = tuple((p, p) for p in (draw(st.integers(0, k // 2)) for k in kernel))
    least = [max(1, d * (k - 1) + 1 - sum(p)) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(n + draw(st.integers(0, 5)) for n in least)
    ceil_mode, count_include_pad = draw(st.booleans()), draw(st.booleans())
    try:
        both = [Pool2dGeometry(size, kernel, stride, padding, d, ceil_mode, count_include_pad)
                for d in (dilation, (1, 1))]
    except ShapeError as error:
        assert "padding alone" in str(error)
        reject()
    return (draw(st.integers(1, 3)), draw(st.sampled_from(CHANNELS)), *size), *both


def as_channels_last(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def with_gaps(a):
    """The same numbers, every second one of a larger array and with the rows upside down in memory."""
    larger = np.full((a.shape[0], a.shape[1] * 2, a.shape[2], a.shape[3] * 2), np.nan, a.dtype)
    view = larger[:, ::2, ::-1, 1::2]
    view[:] = a
    return view


LAYOUTS = {"channels last": as_channels_last, "plain": np.ascontiguousarray, "gaps": with_gaps}
layouts = st.sampled_from(sorted(LAYOUTS))


def numbers(shape, dtype, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# -- how it is checked -------------------------------------------------------------------------------------------------

@contextmanager
def poisoned_memory():
    """What `np.empty` and `np.empty_like` give is full of NaN (or of a number that is no index): it must be written."""
    def poison(array):
        array[...] = np.nan if array.dtype.kind == "f" else -987_654_321
        return array

    empty, empty_like = np.empty, np.empty_like
    with mock.patch.object(np, "empty", lambda *a, **k: poison(empty(*a, **k))), \
            mock.patch.object(np, "empty_like", lambda *a, **k: poison(empty_like(*a, **k))):
        yield


def counter_of(name, function, *arrays):
    """The counter that has to go up when this set is asked for this; None where it hands the work on.

    Only convolutions multiply, so `simd` takes the rest from `loops`; `im2col` does all that it is asked for, uncounted.
    """
    owner = name if function in CONV or name != "simd" else "loops"
    module = import_module(f"minidl.kernels.{owner}")
    return f"{owner}.{function}" if hasattr(module, "fits") and module.fits(*arrays) else None


def call(name, function, arrays, *rest):
    """Call a kernel, and check all that is no number: who did the work, types, memory, and that inputs stay."""
    kernel = getattr(import_module(f"minidl.kernels.{name}"), function)
    kernel(*arrays, *rest)                                  # compiles; Numba would not know the poisonous `np.empty`
    before, counts = [a.copy() for a in arrays], threads.ran.copy()
    counter = counter_of(name, function, *(arrays if function in CONV else arrays[:1]))       # not the indices
    with poisoned_memory():
        results = kernel(*arrays, *rest)
    new = {key: count for key, count in (threads.ran - counts).items() if key.split(".")[0] in kernels.ON_CPU}
    assert new == ({counter: 1} if counter else {}), f"asked {name}.{function}, and there worked {new}"
    for a, copied in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, copied, err_msg="an input was written to")
    if function != "conv2d_weight_grad":
        for result in results if isinstance(results, tuple) else (results,):
            assert result.transpose(0, 2, 3, 1).flags.c_contiguous, f"{function}: strides {result.strides}"
    return results


def takes_winograds_way(name, function, arrays, geometry):
    """Whether results of this convolution hang together with their neighbours."""
    (a, b), groups = (array.shape for array in arrays), geometry.groups
    channels, outputs = {"conv2d": (a[1], b[0]), "conv2d_input_grad": (b[1] * groups, a[1]),
                         "conv2d_weight_grad": (a[1], b[1])}[function]
    return name == "simd" and simd.fits(*arrays) and winograd.fits(geometry, channels, outputs)


def largest_around(values, function):
    """For each value the largest of those that it hangs together with: all taps, or the eight pixels around."""
    if function == "conv2d_weight_grad":
        return np.broadcast_to(values.max(axis=(2, 3), keepdims=True), values.shape)
    height, width = values.shape[2:]
    framed = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return np.max([framed[:, :, i:i + height, j:j + width] for i in range(3) for j in range(3)], axis=0)


def check_sum(name, function, arrays, *rest, oracle=im2col, bias=None):
    """The bound at the top of this file, with `oracle` in float64."""
    extra = () if bias is None else (bias,)
    result = call(name, function, arrays, *rest, *extra)
    exact_arrays = [a if a.dtype == np.int64 else a.astype(np.float64) for a in arrays]
    exact = getattr(oracle, function)(*exact_arrays, *rest, *(b.astype(np.float64) for b in extra))
    scale = getattr(oracle, function)(*map(abs, exact_arrays), *rest, *(abs(b.astype(np.float64)) for b in extra))
    if function in CONV and takes_winograds_way(name, function, arrays, *rest):
        scale = largest_around(scale, function)
    assert result.shape == exact.shape
    assert result.dtype == arrays[0].dtype
    error, bound = abs(result - exact), 8 * np.finfo(result.dtype).eps * scale
    bad = ~(error <= bound)                                 # NaN is bad too
    assert not bad.any(), f"{name}.{function}: {bad.sum()} of {bad.size} are wrong, by up to " \
                          f"{(error[bad] / (bound[bad] + 1e-99)).max():.3g} times the bound, first at {np.argwhere(bad)[0]}"
    return result


def check_convolution(name, drawn, dtype, layout, oracle, with_bias=True):
    x_shape, w_shape, geometry = drawn
    lay = LAYOUTS[layout]
    x, w = lay(numbers(x_shape, dtype, 0)), lay(numbers(w_shape, dtype, 1))
    g = lay(numbers((x_shape[0], w_shape[0], *geometry.output_size), dtype, 2))
    bias = numbers(2 * w_shape[0], dtype, 3)[::2] if with_bias else None        # with gaps
    check_sum(name, "conv2d", [x, w], geometry, oracle=oracle, bias=bias)
    check_sum(name, "conv2d_input_grad", [g, w], geometry, oracle=oracle)
    check_sum(name, "conv2d_weight_grad", [x, g], geometry, oracle=oracle)


# -- convolution -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAST)
def test_convolution_of_few_channels_equals_reference(name, dtype):
    @given(convolutions(channels=[1, 2, 3]), layouts, st.booleans())
    @settings(some, max_examples=40)
    def check(drawn, layout, with_bias):
        check_convolution(name, drawn, dtype, layout, reference, with_bias)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAST)
def test_convolution_of_many_channels_equals_im2col(name, dtype):
    @given(convolutions(), layouts, st.booleans())
    @some
    @example(((1, 16, 1, 1), (16, 16, 1, 1), Conv2dGeometry((1, 1), (1, 1))), "plain", True)
    @example(((3, 33, 5, 4), (31, 33, 3, 3), Conv2dGeometry((5, 4), (3, 3), padding=((1, 1), (1, 1)))), "gaps", True)
    @example(((2, 48, 4, 4), (48, 1, 3, 3), Conv2dGeometry((4, 4), (3, 3), padding=((0, 2), (3, 0)), groups=48)),
             "channels last", False)                                            # one channel a group
    @example(((2, 64, 7, 9), (64, 64, 3, 3), Conv2dGeometry((7, 9), (3, 3), padding=((1, 0), (2, 1)))), "plain", True)
    @example(((2, 32, 6, 5), (96, 32, 3, 3), Conv2dGeometry((6, 5), (3, 3), padding=((1, 1), (1, 1)))), "gaps", False)
    @example(((2, 8, 3, 3), (17, 8, 1, 2), Conv2dGeometry((3, 3), (1, 2), (3, 2), ((0, 3), (2, 0)), (1, 3))),
             "plain", False)
    def check(drawn, layout, with_bias):
        check_convolution(name, drawn, dtype, layout, im2col, with_bias)

    check()


@pytest.mark.parametrize("name", FAST)
def test_not_a_number_stays_where_it_belongs(name):
    """A NaN reaches every sum that it is a term of, and stays near it: it comes through no number that fills up a tile.

    Between these: NaN · 0 on padding, which some sets add and others leave out; and what Winograd's way has in common.
    """
    @given(convolutions(), st.integers(0, 1 << 16))
    @some
    def check(drawn, spot):
        x_shape, w_shape, geometry = drawn
        x, w, g = (numbers(shape, np.float32, 0) for shape in
                   (x_shape, w_shape, (x_shape[0], w_shape[0], *geometry.output_size)))
        x.flat[spot % x.size] = g.flat[spot % g.size] = np.nan
        for function, arrays in zip(CONV, ([x, w], [g, w], [x, g]), strict=True):
            is_nan = np.isnan(getattr(import_module(f"minidl.kernels.{name}"), function)(*arrays, geometry))
            oracle = getattr(im2col, function)
            may_be = np.isnan(oracle(*arrays, geometry))
            # in a weight gradient all taps meet a pixel, or the padding instead of it
            if function == "conv2d_weight_grad" or takes_winograds_way(name, function, arrays, geometry):
                may_be = largest_around(may_be, function)
            (a, b), (nan_a, nan_b) = map(np.ones_like, arrays), (np.isnan(array).astype(np.float32) for array in arrays)
            must_be = oracle(nan_a, b, geometry) + oracle(a, nan_b, geometry) > 0
            assert (must_be <= is_nan).all(), f"{function} loses NaN"
            assert (is_nan <= may_be).all(), f"{function} spreads NaN"

    check()


@pytest.mark.parametrize("number", [1, 2, 3, 5])
@pytest.mark.parametrize("name", FAST)
def test_any_number_of_threads(name, number, monkeypatch):
    """Also more threads than images or cores; and the same number gives the same bits."""
    monkeypatch.setattr(threads, "_threads", number)
    drawn = ((4, 17, 7, 6), (33, 17, 3, 2), Conv2dGeometry((7, 6), (3, 2), padding=((1, 1), (0, 1))))
    check_convolution(name, drawn, "float32", "channels last", im2col)
    x, g = numbers(drawn[0], np.float32, 0), numbers((4, 33, *drawn[2].output_size), np.float32, 2)
    module = import_module(f"minidl.kernels.{name}")
    first, second = (module.conv2d_weight_grad(x, g, drawn[2]) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("name", FAST)
def test_no_images_give_no_results(name):
    module, geometry = import_module(f"minidl.kernels.{name}"), Conv2dGeometry((4, 4), (3, 3))
    x, w, g = (np.zeros(shape, np.float32) for shape in ((0, 3, 4, 4), (5, 3, 3, 3), (0, 5, 2, 2)))
    assert module.conv2d(x, w, geometry).shape == g.shape
    assert module.conv2d_input_grad(g, w, geometry).shape == x.shape
    dw = module.conv2d_weight_grad(x, g, geometry)
    assert dw.shape == w.shape
    assert not dw.any()
    y, indices = module.max_pool2d(x, Pool2dGeometry((4, 4), (2, 2), (2, 2)))
    assert y.shape == indices.shape == (0, 3, 2, 2)


# -- pooling -----------------------------------------------------------------------------------------------------------

VALUES = {
    "distinct": lambda x: x,
    "ties": np.round,
    "minus infinity": lambda x: np.where(x < 0.5, -np.inf, x).astype(x.dtype),
    "nan": lambda x: np.where(x > 1, np.nan, x).astype(x.dtype),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAST)
def test_pooling_equals_reference(name, dtype):
    @given(poolings(), layouts, st.sampled_from(sorted(VALUES)))
    @some
    @example(((2, 17, 6, 4), *[Pool2dGeometry((6, 4), (3, 2), (3, 2))] * 2), "plain", "ties")       # side by side
    @example(((1, 3, 4, 4), *[Pool2dGeometry((4, 4), (2, 2), (2, 2))] * 2), "gaps", "nan")
    @example(((1, 3, 5, 4), *[Pool2dGeometry((5, 4), (2, 2), (2, 2))] * 2), "gaps", "distinct")     # a row is left over
    def check(drawn, layout, values):
        shape, geometry, undilated = drawn
        oracle = reference if shape[1] < 4 else im2col      # the loops of reference take their time
        lay = LAYOUTS[layout]
        x = lay(VALUES[values](numbers(shape, dtype, 0)))
        y, indices = call(name, "max_pool2d", [x], geometry)
        expected, expected_indices = oracle.max_pool2d(x, geometry)
        np.testing.assert_array_equal(indices, expected_indices)
        np.testing.assert_array_equal(y, expected)
        assert (y.dtype, indices.dtype) == (x.dtype, np.int64)
        g = lay(numbers(y.shape, dtype, 1))
        check_sum(name, "max_pool2d_input_grad", [g, expected_indices], geometry, oracle=oracle)
        x, g = lay(numbers(shape, dtype, 0)), lay(numbers((*shape[:2], *undilated.output_size), dtype, 1))
        check_sum(name, "avg_pool2d", [x], undilated, oracle=oracle)
        check_sum(name, "avg_pool2d_input_grad", [g], undilated, oracle=oracle)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAST)
def test_repeating_equals_reference(name, dtype):
    @given(st.tuples(st.integers(1, 3), st.sampled_from(CHANNELS), st.integers(1, 5), st.integers(1, 5)),
           st.tuples(st.integers(1, 3), st.integers(1, 3)), layouts)
    @some
    def check(shape, factors, layout):
        x = LAYOUTS[layout](numbers(shape, dtype, 0))
        y = call(name, "repeat2d", [x], factors)
        np.testing.assert_array_equal(y, reference.repeat2d(x, factors))
        assert y.dtype == x.dtype
        g = LAYOUTS[layout](numbers(y.shape, dtype, 1))
        check_sum(name, "repeat2d_input_grad", [g], factors, oracle=reference)

    check()


# -- what a set does not do itself -------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", FAST)
def test_other_types_are_handed_on(name):
    """Whole numbers, half precision, and two types at once are the business of im2col; the counters say so."""
    image = np.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    geometry, window = Conv2dGeometry((4, 4), (2, 2)), Pool2dGeometry((4, 4), (2, 2), (2, 2))
    for x, w in [(image, np.ones((5, 3, 2, 2), np.int64)), (image.astype(np.float16), np.ones((5, 3, 2, 2), np.float16)),
                 (image.astype(np.float32), np.ones((5, 3, 2, 2)))]:
        y = call(name, "conv2d", [x, w], geometry)
        np.testing.assert_array_equal(y, im2col.conv2d(x, w, geometry))
        assert y.dtype == np.result_type(x, w)
    for x in (image, image.astype(np.float16)):
        y, indices = call(name, "max_pool2d", [x], window)
        np.testing.assert_array_equal(y, reference.max_pool2d(x.astype(float), window)[0])
        np.testing.assert_array_equal(indices, reference.max_pool2d(x.astype(float), window)[1])


def test_the_counters_tell_who_did_the_work():
    """The check in `call` can fail: an expected counter that stays, and one that nobody expects."""
    x, w = np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 2, 2), np.float32)
    geometry = Conv2dGeometry((3, 3), (2, 2))
    assert counter_of("loops", "conv2d", x, w) == "loops.conv2d"
    assert counter_of("loops", "conv2d", x.astype(int), w) is None
    assert counter_of("simd", "max_pool2d", x) == "loops.max_pool2d"
    assert counter_of("im2col", "conv2d", x, w) is None
    loops = import_module("minidl.kernels.loops")
    with mock.patch.object(loops, "conv2d", im2col.conv2d), pytest.raises(AssertionError, match=r"there worked \{\}"):
        call("loops", "conv2d", [x, w], geometry)
    with mock.patch.object(im2col, "conv2d", loops.conv2d), pytest.raises(AssertionError, match=r"'loops\.conv2d': 1"):
        call("im2col", "conv2d", [x, w], geometry)


@pytest.mark.parametrize("name", [name for name in FAST if name != "im2col"])
def test_compiled_sets_refuse_a_device(name):
    with kernels.use_kernels(name), pytest.raises(DeviceError, match=f'"{name}" kernels run on the CPU'):
        minidl.nn.functional.max_pool2d(minidl.ones(1, 1, 4, 4, device="fake"), 2)


# -- the same functions, not compiled ----------------------------------------------------------------------------------

def test_kernels_run_as_plain_python():
    """For a debugger: NUMBA_DISABLE_JIT=1. The memory that kernels take for themselves is poisoned too, here."""
    subprocess.run([sys.executable, "-c", f"from {__name__} import _plain_python; _plain_python()"], check=True,
                   env=_environment(NUMBA_DISABLE_JIT="1"))


def _environment(**more):
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **more}


def _plain_python():
    for name in ("loops", "simd"):
        for drawn in [
            ((2, 3, 4, 3), (2, 3, 2, 3), Conv2dGeometry((4, 3), (2, 3), (2, 1), ((1, 0), (0, 2)), (1, 2))),
            ((1, 4, 5, 3), (34, 2, 2, 2), Conv2dGeometry((5, 3), (2, 2), padding=((1, 1), (0, 0)), groups=2)),
        ]:
            check_convolution(name, drawn, "float32", "plain", im2col)
        x, geometry = numbers((2, 3, 5, 5), np.float32, 0), Pool2dGeometry((5, 5), (3, 2), (2, 2), ((1, 1), (0, 0)))
        y, indices = call(name, "max_pool2d", [x], geometry)
        np.testing.assert_array_equal(indices, reference.max_pool2d(x, geometry)[1])
        check_sum(name, "max_pool2d_input_grad", [y, indices], geometry, oracle=reference)
        check_sum(name, "avg_pool2d", [x], geometry, oracle=reference)
        check_sum(name, "avg_pool2d_input_grad", [y], geometry, oracle=reference)


@pytest.mark.parametrize(("channels", "outputs", "number"), [(32, 32, 7), (64, 32, 5), (32, 64, 11)])
def test_a_weight_gradient_over_more_squares_than_one_round_takes(channels, outputs, number):
    """Winograd's tables exist for some squares at a time, in rounds that are not all of one length."""
    x, g = (as_channels_last(numbers((number, c, 13, 15), "float32", seed)) for seed, c in enumerate((channels, outputs)))
    geometry = Conv2dGeometry.of(x.shape, (outputs, channels, 3, 3), padding=1)
    assert winograd.fits(geometry, channels, outputs)
    truth, terms = (im2col.conv2d_weight_grad(*arrays, geometry) for arrays in (
        (x.astype("f8"), g.astype("f8")), (abs(x).astype("f8"), abs(g).astype("f8"))))
    for threads_used in (1, 3):
        before = minidl.get_num_threads()
        minidl.set_num_threads(threads_used)
        try:
            result = simd.conv2d_weight_grad(x, g, geometry)
        finally:
            minidl.set_num_threads(before)
        assert (abs(result - truth) <= 8 * np.finfo("f4").eps * largest_around(terms, "conv2d_weight_grad")).all()
