"""Kernel sets against `reference`, on geometries that hypothesis draws; and the sizes that geometry.py computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import minidl
from minidl import kernels
from minidl.errors import DeviceError, SettingError, ShapeError
from minidl.kernels import im2col, reference, simd, threads
from minidl.kernels.geometry import Conv2dGeometry, Pool2dGeometry

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 3))
    channels, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    size = tuple(n + draw(st.integers(0, 4)) for n in least)
    shapes = (draw(st.integers(1, 2)), channels, *size), (outputs, channels // groups, *kernel)
    return shapes, Conv2dGeometry.of(*shapes, stride, padding, dilation, groups)


@st.composite
def poolings(draw):
    kernel, stride, dilation = draw(pairs), draw(pairs), draw(pairs)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *(n + draw(st.integers(0, 5)) for n in least))
    settings_drawn = (kernel, stride, padding, dilation, draw(st.booleans()), draw(st.booleans()))
    try:
        Pool2dGeometry.of(shape, kernel, stride, padding, dilation, settings_drawn[4])
    except ShapeError as error:
        assert "padding alone" in str(error)
        reject()
    return shape, settings_drawn


def draw_array(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("batch", "groups", "stride"), [(1, 1, (1, 1)), (1, 2, (2, 1)), (2, 1, (2, 2)), (1, 3, (1, 1))])
def test_im2col_with_fewer_pixels_than_output_channels(batch, groups, stride):
    """Then the windows are put into the order of the weights, and not the other way round."""
    x_shape, w_shape = (batch, 2 * groups, 4, 3), (20 * groups, 2, 3, 2)
    geometry = Conv2dGeometry.of(x_shape, w_shape, stride, (1, 0), (1, 1), groups)
    assert batch * np.prod(geometry.output_size) < 20
    x, w, bias = draw_array(x_shape), draw_array(w_shape, 1), draw_array(w_shape[0], 2)
    g = draw_array((batch, w_shape[0], *geometry.output_size), 3)
    same(im2col.conv2d(x, w, geometry, bias), reference.conv2d(x, w, geometry, bias))
    same(im2col.conv2d_input_grad(g, w, geometry), reference.conv2d_input_grad(g, w, geometry))
    same(im2col.conv2d_weight_grad(x, g, geometry), reference.conv2d_weight_grad(x, g, geometry))


@pytest.mark.parametrize(("channels", "outputs", "kernel", "side", "is_few"), [
    (256, 512, 1, 11, True), (256, 512, 1, 12, False), (64, 256, 3, 11, True), (64, 256, 3, 12, False), (64, 256, 1, 4, False)])
def test_many_weights_for_few_pixels_are_multiplied_as_they_lie(channels, outputs, kernel, side, is_few, monkeypatch):
    x_shape, w_shape = (1, channels, side, side), (outputs, channels, kernel, kernel)
    geometry = Conv2dGeometry.of(x_shape, w_shape, padding=(kernel // 2, kernel // 2))
    x, w, bias = (draw_array(shape, i).astype(np.float32) for i, shape in enumerate((x_shape, w_shape, outputs)))
    g = draw_array((1, outputs, side, side), 3).astype(np.float32)

    def run():
        before = [threads.ran[f"simd.{name}"] for name in ("conv2d", "conv2d_input_grad")]
        results = simd.conv2d(x, w, geometry, bias), simd.conv2d_input_grad(g, w, geometry)
        return results, [threads.ran[f"simd.{name}"] - n for name, n in zip(("conv2d", "conv2d_input_grad"), before, strict=True)]

    found, of_tiles = run()
    assert of_tiles == [not is_few] * 2
    monkeypatch.setattr(simd, "MANY_WEIGHTS", w.size + 1)
    expected, of_tiles = run()
    assert of_tiles == [True, True]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@given(convolutions())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_im2col_convolution_equals_reference(drawn):
    (x_shape, w_shape), geometry = drawn
    x, w = draw_array(x_shape), draw_array(w_shape, 1)
    bias, g = draw_array(w_shape[0], 2), draw_array((x_shape[0], w_shape[0], *geometry.output_size), 3)
    same(im2col.conv2d(x, w, geometry, bias), reference.conv2d(x, w, geometry, bias))
    same(im2col.conv2d_input_grad(g, w, geometry), reference.conv2d_input_grad(g, w, geometry))
    same(im2col.conv2d_weight_grad(x, g, geometry), reference.conv2d_weight_grad(x, g, geometry))


@given(poolings(), st.sampled_from(["distinct", "ties", "minus infinity", "nan"]))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_im2col_pooling_equals_reference(drawn, values):
    shape, (kernel, stride, padding, dilation, ceil_mode, count_include_pad) = drawn
    x = draw_array(shape)
    if values == "ties":
        x = np.round(x)
    elif values == "minus infinity":
        x = np.where(x < 0.5, -np.inf, x)
    elif values == "nan":
        x = np.where(x > 1, np.nan, x)
    geometry = Pool2dGeometry.of(shape, kernel, stride, padding, dilation, ceil_mode)
    (y, indices), (y_expected, indices_expected) = im2col.max_pool2d(x, geometry), reference.max_pool2d(x, geometry)
    np.testing.assert_array_equal(indices, indices_expected)
    np.testing.assert_array_equal(y, y_expected)
    g = draw_array(y.shape, 1)
    same(im2col.max_pool2d_input_grad(g, indices, geometry), reference.max_pool2d_input_grad(g, indices, geometry))
    geometry = Pool2dGeometry.of(shape, kernel, stride, padding, 1, ceil_mode, count_include_pad)
    x, g = draw_array(shape), draw_array((*shape[:2], *geometry.output_size), 1)
    same(im2col.avg_pool2d(x, geometry), reference.avg_pool2d(x, geometry))
    same(im2col.avg_pool2d_input_grad(g, geometry), reference.avg_pool2d_input_grad(g, geometry))


@pytest.mark.torch
@given(convolutions())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_convolution_equals_pytorch(drawn):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    (x_shape, w_shape), geometry = drawn
    x, w = draw_array(x_shape), draw_array(w_shape, 1)
    padding = tuple(start for start, _ in geometry.padding)
    expected = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), None, geometry.stride, padding,
                                          geometry.dilation, geometry.groups)
    same(reference.conv2d(x, w, geometry), expected.numpy())


@pytest.mark.torch
@given(poolings())
@settings(max_examples=120, deadline=None, derandomize=True)
def test_pooling_equals_pytorch(drawn):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    shape, (kernel, stride, padding, dilation, ceil_mode, count_include_pad) = drawn
    x = draw_array(shape)
    y, indices = torch.nn.functional.max_pool2d(torch.tensor(x), kernel, stride, padding, dilation, ceil_mode, True)
    ours = reference.max_pool2d(x, Pool2dGeometry.of(shape, kernel, stride, padding, dilation, ceil_mode))
    np.testing.assert_array_equal(ours[0], y.numpy())
    np.testing.assert_array_equal(ours[1], indices.numpy())
    y = torch.nn.functional.avg_pool2d(torch.tensor(x), kernel, stride, padding, ceil_mode, count_include_pad)
    same(reference.avg_pool2d(x, Pool2dGeometry.of(shape, kernel, stride, padding, 1, ceil_mode, count_include_pad)),
         y.numpy())


def test_first_of_equals_wins():
    x = np.zeros((1, 1, 4, 4))
    _, indices = reference.max_pool2d(x, Pool2dGeometry.of(x.shape, 2))
    assert indices.ravel().tolist() == [0, 2, 8, 10]


def test_integer_images_can_be_pooled():
    x = minidl.tensor(np.arange(16).reshape(1, 1, 4, 4))
    assert minidl.nn.functional.max_pool2d(x, 2).tolist() == [[[[5, 7], [13, 15]]]]


def test_results_are_channels_last_in_memory():
    """The layout that the next layer reads fastest; a C-order result would mean a hidden copy."""
    x = minidl.randn(2, 3, 8, 8)
    y = minidl.nn.Conv2d(3, 4, 3, padding=1)(x)
    for layer in (minidl.nn.ReLU(), minidl.nn.AvgPool2d(2), minidl.nn.MaxPool2d(2)):
        y = layer(y)
        assert y.array.transpose(0, 2, 3, 1).flags.c_contiguous, layer


@pytest.mark.parametrize("pool", [minidl.nn.MaxPool2d(2), minidl.nn.AvgPool2d(2), minidl.nn.MaxPool2d(3, 2, padding=1)])
def test_gradients_between_layers_are_channels_last_too(pool):
    nn = minidl.nn
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), pool, nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(),
                          nn.AvgPool2d(2))
    seen = []
    for step in model(minidl.randn(2, 3, 8, 8)).sum().backward_steps():
        if step.module and "x" in step.outgoing:
            gradient = step.outgoing["x"].array
            assert gradient.transpose(0, 2, 3, 1).flags.c_contiguous, (step, gradient.strides)
            seen.append(str(step.op))
    assert seen == ["AvgPool2d", "ReLU", "Conv2d", type(pool).__name__, "ReLU"]


def test_choosing_a_kernel_set():
    x = np.ones((1, 1, 3, 3))
    assert kernels.active(x) is simd
    assert kernels.active(minidl.ones(1, device="fake").array) is im2col
    with kernels.use_kernels("reference"):
        assert kernels.active(x) is reference
        with kernels.use_kernels(None):
            assert kernels.active(x) is simd
        assert kernels.active(x) is reference
    assert kernels.chosen() is None
    with pytest.raises(SettingError, match="got 'fast', expected one of 'reference', 'im2col'"), \
            kernels.use_kernels("fast"):
        pass
    assert kernels.chosen() is None


def test_reference_kernels_refuse_a_device():
    with kernels.use_kernels("reference"), pytest.raises(DeviceError, match='run on the CPU, the array is on "fake"'):
        minidl.nn.functional.max_pool2d(minidl.ones(1, 1, 4, 4, device="fake"), 2)


def test_every_set_offers_the_same_functions():
    names = ["conv2d", "conv2d_input_grad", "conv2d_weight_grad", "max_pool2d", "max_pool2d_input_grad", "avg_pool2d",
             "avg_pool2d_input_grad", "repeat2d", "repeat2d_input_grad"]
    for name in kernels.ON_CPU:
        with kernels.use_kernels(name):
            module = kernels.active(np.ones(1))
            assert all(callable(getattr(module, function)) for function in names)


def test_geometry_says_why_nothing_fits():
    with pytest.raises(ShapeError, match=r"kernel 5×5 .* 4×4 .*floor\(\(4 \+ 0 - 1·\(5 - 1\) - 1\) / 1\) \+ 1 < 1"):
        Conv2dGeometry.of((1, 1, 4, 4), (1, 1, 5, 5))


def test_a_pooling_window_on_padding_alone_is_refused():
    """PyTorch gives -inf and an index outside of the image here."""
    with pytest.raises(ShapeError, match="a window lies on padding alone: width 1, kernel 2, dilation 2, padding 1"):
        Pool2dGeometry.of((1, 1, 1, 1), (1, 2), 1, (0, 1), (1, 2))


@pytest.mark.parametrize(("arguments", "message"), [
    ({"stride": 0}, r"got stride=0, expected an integer ≥ 1"),
    ({"stride": (1, 2, 3)}, "expected an integer ≥ 1 or a pair"),
    ({"padding": -1}, "got padding=-1"),
    ({"padding": "full"}, 'expected "same", "valid", an int or a pair'),
    ({"padding": "same", "stride": 2}, "expected stride 1"),
    ({"groups": 2}, "expected a divisor of the 3 output channels"),
    ({"dilation": 1.5}, "got dilation=1.5"),
])
def test_bad_settings_of_a_convolution(arguments, message):
    with pytest.raises(SettingError, match=message):
        Conv2dGeometry.of((1, 2, 5, 5), (3, 2, 2, 2), **arguments)
