"""ResNet50V2 against the same network in PyTorch, files of weights in Keras's layouts, and what is wrong with them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import re
import sys
import threading
import urllib.error

import numpy as np
import pytest

import minidl
from minidl import nn
from minidl.errors import MinidlError, OutOfRangeError, SettingError, ShapeError
from minidl.io import load_keras_weights
from minidl.models import decode_predictions, imagenet, preprocess_input, resnet50v2
from minidl.models.resnet50v2 import FILES, blocks
from minidl.visualize import capture, feature_extractor, layer_named
from tests.keras_files import weights_of, write_legacy, write_numbered

h5py = pytest.importorskip("h5py", reason="h5py is not installed; pip install h5py")


@pytest.fixture(autouse=True)
def _no_data_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MINIDL_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(imagenet, "OF_KERAS", tmp_path / "keras")


# -- the architecture --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def network():
    """Random weights, and random numbers in batch-norm too, which begins with 0 and 1."""
    minidl.manual_seed(0)
    model = resnet50v2(classes=7).eval()
    with minidl.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(0, 0.1)
    return model


@pytest.mark.torch
@pytest.mark.parametrize("size", [(96, 96), (75, 101)])
def test_activations_are_pytorch_s(network, torch, size):
    from tests.resnet50v2_in_pytorch import activations, weights_for_pytorch

    x = minidl.randn(2, 3, *size)
    expected = dict(activations(weights_for_pytorch(network), torch.from_numpy(x.numpy())))
    assert len(expected) == 2 + 16 * 4 + 2                      # three convolutions and a sum in each block
    with minidl.no_grad():
        found = feature_extractor(network, list(expected))(x)
    for name, y in expected.items():
        np.testing.assert_allclose(found[name].numpy(), y.numpy(), rtol=0, atol=1e-4 * float(y.abs().max()), err_msg=name)


@pytest.mark.torch
@pytest.mark.parametrize("name", ["conv2_block1_1_conv", "conv4_block2_2_conv", "conv5_block3_3_conv"])
def test_the_gradient_of_a_filter_is_pytorch_s(network, torch, name):
    from tests.resnet50v2_in_pytorch import activation, weights_for_pytorch

    x = minidl.randn(1, 3, 96, 96, requires_grad=True)
    twin = torch.from_numpy(x.detach().numpy()).requires_grad_()
    expected, = torch.autograd.grad(activation(weights_for_pytorch(network), twin, name)[:, 5].mean(), twin)
    found, = minidl.autograd.grad(feature_extractor(network, [name])(x)[name][:, 5].mean(), x)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_names_and_sizes_are_keras_s():
    model = resnet50v2()
    names = [name for name, _ in model.named_children()]
    assert names[:3] == ["conv1_conv", "pool1_pad", "pool1_pool"]
    assert names[-4:] == ["post_bn", "post_relu", "avg_pool", "predictions"]
    assert [name for name in names if name.startswith("conv2_block1")] == [
        f"conv2_block1_{part}" for part in ("preact_bn", "preact_relu", "1_conv", "1_bn", "1_relu", "2_conv", "2_bn",
                                            "2_relu", "0_conv", "3_conv", "out")]
    assert [block.name for block in blocks()] == [f"conv{stage}_block{i}" for stage, count in ((2, 3), (3, 4), (4, 6), (5, 3))
                                                  for i in range(1, count + 1)]
    assert sum(p.numel() for p in model.parameters()) == 25_568_360
    assert sum(p.numel() for p in resnet50v2(include_top=False).parameters()) == 23_519_360
    assert {layer.momentum for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.01}    # Keras's 0.99
    assert {layer.eps for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)} == {1.001e-5}


def test_shapes(network):
    with minidl.no_grad():
        found = capture(network, minidl.zeros(1, 3, 64, 64), ["pool1_pool", "conv2_block3_out", "conv3_block4_out",
                                                              "conv4_block6_out", "post_relu", "avg_pool", "predictions"])
    assert [tuple(y.shape) for y in found.values()] == [(1, 64, 16, 16), (1, 256, 8, 8), (1, 512, 4, 4), (1, 1024, 2, 2),
                                                        (1, 2048, 2, 2), (1, 2048), (1, 7)]
    np.testing.assert_allclose(found["predictions"].sum().item(), 1, rtol=1e-5)
    assert resnet50v2(include_top=False)(minidl.zeros(1, 3, 64, 64)).shape == (1, 2048, 2, 2)


def test_zeros_take_part_in_the_first_pooling():
    """Where all of a corner's window is negative, Keras's padding of zeros wins."""
    model = resnet50v2(include_top=False).eval()
    with minidl.no_grad():
        model.conv1_conv.weight.zero_()
        model.conv1_conv.bias.fill_(-1)
        pooled = capture(model, minidl.zeros(1, 3, 32, 32), ["pool1_pool"])["pool1_pool"][0, 0]
    expected = -np.ones((8, 8))
    expected[0] = expected[:, 0] = 0
    np.testing.assert_array_equal(pooled.numpy(), expected)


def test_the_same_seed_gives_the_same_network():
    first, second = (minidl.manual_seed(3) and resnet50v2(include_top=False).state_dict() for _ in range(2))
    assert all(a.equal(second[name]) for name, a in first.items())


# -- the feature extractor -----------------------------------------------------------------------------------------------

def test_the_extractor_ends_forward_where_it_has_all_it_needs(network):
    x, seen = minidl.randn(1, 3, 32, 32), []
    handle = network.post_bn.register_forward_hook(lambda *_: seen.append("post_bn"))
    names = ["conv2_block1_1_conv", "pool1_pool"]
    with minidl.no_grad():
        extractor = feature_extractor(network, names)
        first, second, captured = extractor(x), extractor(x), capture(network, x, names)
    handle.remove()
    assert seen == ["post_bn", "post_bn"]                       # the extractor's first call, and capture
    for name in names:
        assert first[name].equal(second[name])
        assert first[name].equal(captured[name])
    assert list(first) == list(second) == names
    assert repr(extractor) == "FeatureExtractor(ResNet50V2, ['conv2_block1_1_conv', 'pool1_pool'])"
    assert not any(module._hooks["post"] for module in network.modules())


def test_the_extractor_waits_for_the_last_use_of_a_layer():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.add, self.last = nn.Linear(2, 2), nn.Identity()

        def forward(self, x):
            return self.last(self.add(self.add(x)))

    model, x, ends = Shared(), minidl.randn(1, 2), []
    model.last.register_forward_hook(lambda *_: ends.append(1))
    extractor = feature_extractor(model, "add")
    for calls in range(3):
        assert extractor(x)["add"].equal(model.add(model.add(x)))
        assert len(ends) == 1, calls                            # only the first call goes to the end
    assert model.training


def test_a_forward_that_handles_exceptions_and_extracts_itself():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
            self.extract = {"": feature_extractor(self.inner, ["0"])}
            self.ends = 0

        def forward(self, x):
            try:
                y = self.extract[""](x)["0"]
            except Exception:
                y = x
            self.ends += 1
            return y

    model, x = Nested(), minidl.randn(1, 2)
    extractor = feature_extractor(model, ["inner.0"])
    for _ in range(3):
        assert extractor(x)["inner.0"].equal(model.inner[0](x))
    assert model.ends == 1                                      # the first call; later ones end within the inner run
    assert not any(module._hooks["post"] for module in model.modules())


def test_what_is_no_name_of_a_layer():
    for names in (None, 5, ["0", ["0"]], [nn.ReLU()]):
        with pytest.raises(SettingError, match=r"^feature_extractor: got the layers .* expected their names, such as"):
            feature_extractor(nn.Sequential(nn.ReLU()), names)
    with pytest.raises(SettingError, match=r"^layer_named: got the layer 'x', .*; it has 'conv1_conv' Conv2d, .* and 16\d more$"):
        layer_named(resnet50v2(), "x")


def test_the_extractor_leaves_errors_and_modes_as_they_are():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(3, 2))
    extractor = feature_extractor(model, ["1"])
    with pytest.raises(ShapeError, match=r"^2 Linear: expects 3 features, got 2"):
        extractor(minidl.randn(1, 2))
    assert all(module.training and not module._hooks["post"] for module in model.modules())
    with pytest.raises(SettingError, match=r"^feature_extractor: got the layer '11', .* nearest"):
        feature_extractor(model, ["11"])


# -- files of weights ----------------------------------------------------------------------------------------------------

class Small(nn.Module):
    """A network with one layer of each kind, and Keras's names."""

    def __init__(self, channels=4):
        super().__init__()
        self.first_conv = nn.Conv2d(3, channels, (2, 3))
        self.first_bn = nn.BatchNorm2d(channels)
        self.bare_conv = nn.Conv2d(channels, 2, 1, bias=False)
        self.predictions = nn.Sequential(nn.Linear(2, 5), nn.Softmax(1))


@pytest.fixture
def source():
    minidl.manual_seed(1)
    model = Small()
    with minidl.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1)
    return model


LAYOUTS = {
    "legacy": write_legacy,
    "below model_weights": lambda path, weights: write_legacy(path, weights, group="model_weights"),
    "keras 2": lambda path, weights: write_legacy(path, weights, ending=":0"),
    "cut lists": lambda path, weights: write_legacy(path, weights, cut=2),
    "numbered": write_numbered,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read(source, tmp_path, layout):
    LAYOUTS[layout](tmp_path / "weights.h5", weights_of(source))
    model = Small()
    load_keras_weights(model, tmp_path / "weights.h5")
    expected = source.state_dict()
    for name, tensor in model.state_dict().items():
        assert tensor.equal(expected[name]) or name.endswith("num_batches_tracked"), name


def test_a_kernel_is_turned(tmp_path):
    """(KH, KW, C, O) -> (O, C, KH, KW): each number knows where it belongs."""
    weights = weights_of(Small())
    weights["first_conv"]["kernel"] = np.arange(2 * 3 * 3 * 4, dtype=np.float32).reshape(2, 3, 3, 4)
    write_legacy(tmp_path / "w.h5", weights)
    model = Small()
    load_keras_weights(model, tmp_path / "w.h5")
    for o, c, u, v in ((0, 0, 0, 0), (3, 2, 1, 2), (1, 0, 1, 0), (2, 1, 0, 2)):
        assert model.first_conv.weight[o, c, u, v].item() == ((u * 3 + v) * 3 + c) * 4 + o


def without(weights, layer, weight=None):
    if weight is None:
        del weights[layer]
    else:
        del weights[layer][weight]


def renamed(weights, layer, name):
    weights[name] = weights.pop(layer)


def changed(weights, layer, weight, function):
    weights[layer][weight] = function(weights[layer][weight])


WRONG = {
    "a layer is missing": (lambda w: without(w, "first_bn"), r"it lacks the layer first_bn\)"),
    "a layer too many": (lambda w: w.update(more={"kernel": np.ones((1, 1), np.float32)}), r"it has the unknown layer more\)"),
    "another name": (lambda w: renamed(w, "first_conv", "first_conv2d"),
                     r"it lacks the layer first_conv \(it has first_conv2d\); it has the unknown layer first_conv2d\)"),
    "a weight is missing": (lambda w: without(w, "first_conv", "bias"), r"first_conv has kernel, expected bias, kernel\)"),
    "a weight too many": (lambda w: w["bare_conv"].update(bias=np.ones(2, np.float32)), r"bare_conv has bias, kernel, expected kernel\)"),
    "an unknown weight too many": (lambda w: w["first_conv"].update({"array 2": np.ones(2, np.float32)}),
                                   "first_conv has array 2, bias, kernel, expected bias, kernel"),
    "another shape": (lambda w: changed(w, "first_conv", "kernel", lambda k: k[:1]),
                      r"wrong shapes: first_conv\.weight is \(4, 3, 1, 3\), expected \(4, 3, 2, 3\)"),
    "another number of axes": (lambda w: changed(w, "predictions", "kernel", lambda k: k[None]), r"wrong shapes: predictions\.0\.weight is "),
    "nan": (lambda w: changed(w, "first_bn", "gamma", lambda g: g * np.nan), r"whose first_bn/gamma is with nan or infinity, expected finite floats"),
    "too large a number": (lambda w: changed(w, "first_bn", "beta", lambda b: np.full_like(b, 1e300, np.float64)),
                           "whose first_bn/beta is with nan or infinity"),
    "integers": (lambda w: changed(w, "first_bn", "beta", lambda g: g.astype(np.int32)), r"whose first_bn/beta is of int32, expected finite floats"),
}


@pytest.mark.parametrize("layout", ["legacy", "numbered"])
@pytest.mark.parametrize("what", WRONG)
def test_a_file_that_does_not_fit_changes_nothing(source, tmp_path, what, layout):
    change, message = WRONG[what]
    weights = weights_of(Small())
    change(weights)
    LAYOUTS[layout](tmp_path / "weights.h5", weights)
    assert_refused(source, tmp_path / "weights.h5", message)


def assert_refused(model, path, message):
    """One sentence, and the model is as it was."""
    before = {name: np.array(tensor.numpy()) for name, tensor in model.state_dict().items()}
    with pytest.raises(MinidlError, match=message) as caught:
        load_keras_weights(model, path)
    assert str(caught.value).startswith("load_keras_weights: got ")
    assert "\n" not in str(caught.value)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name], err_msg=name)


def test_a_truncated_file_changes_nothing(source, tmp_path):
    path = tmp_path / "weights.h5"
    write_legacy(path, weights_of(Small()))
    content = path.read_bytes()
    for length in (0, 1, 7, 100, len(content) // 3, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert_refused(source, path, rf"of {length:,} bytes, which is no whole HDF5 file of Keras's \(.*\); save the model with model.save\(\"x.h5\"\), or copy the file again")


def test_a_file_that_promises_more_than_it_holds(source, tmp_path):
    weights = weights_of(Small())
    write_legacy(tmp_path / "w.h5", {**weights, "bare_conv": {}})
    with h5py.File(tmp_path / "w.h5", "a") as file:             # chunks that were never written take no room
        file["bare_conv"].create_dataset("bare_conv/kernel", (1 << 20, 1 << 20), np.float32, chunks=(1, 1024))
        file["bare_conv"].attrs["weight_names"] = ["bare_conv/kernel"]
    assert_refused(source, tmp_path / "w.h5", r"\(/bare_conv/bare_conv/kernel promises 4,398,046,511,104 bytes\); save the model")


@pytest.mark.parametrize("what", ["text", "empty", "no names", "a folder", "nothing"])
def test_files_that_are_not_keras_s(source, tmp_path, what):
    path = tmp_path / "weights.h5"
    if what == "text":
        path.write_text("no weights")
    elif what == "a folder":
        path.mkdir()
    elif what in ("empty", "no names"):
        with h5py.File(path, "w") as file:
            if what == "no names":
                file["layers/conv2d/vars/0"] = np.ones((1, 1, 1, 1), np.float32)
    message = {"text": "no whole HDF5 file of Keras's", "empty": "an HDF5 file without layers, expected one that Keras saved",
               "no names": r'whose layers have no names .* save the model with model.save\("x.h5"\)'}.get(what, "where there is no file")
    assert_refused(source, path, message)


def test_arrays_that_would_take_each_other_s_place(source, tmp_path):
    """A model inside of a model, and layers listed twice."""
    weights = weights_of(Small())
    write_legacy(tmp_path / "a.h5", weights)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        group = file["first_bn"]
        group["inner/gamma"] = np.ones(4, np.float32)
        group.attrs["weight_names"] = [b"first_bn/gamma", b"first_bn/beta", b"inner/gamma"]
    assert_refused(source, tmp_path / "a.h5", "a.h5 with more than one weight of first_bn named 'gamma', expected a model whose names differ")
    write_legacy(tmp_path / "b.h5", weights)
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file.attrs["layer_names"] = [b"first_conv", b"first_bn", b"bare_conv", b"first_bn"]
    assert_refused(source, tmp_path / "b.h5", "b.h5 with more than one layer named 'first_bn'")
    write_numbered(tmp_path / "c.h5", weights)
    with h5py.File(tmp_path / "c.h5", "a") as file:
        file["layers/layer_0/layers/dense/vars/0"] = np.ones((2, 2), np.float32)
    assert_refused(source, tmp_path / "c.h5", "c.h5, which has weights in /layers/layer_0/layers/dense/vars/0, expected a model without models")
    write_numbered(tmp_path / "d.h5", weights)
    with h5py.File(tmp_path / "d.h5", "a") as file:
        file["layers/layer_1/vars"].attrs["name"] = "first_bn"
    assert_refused(source, tmp_path / "d.h5", "d.h5 with more than one layer named 'first_bn'")


def test_arrays_that_are_no_numbers_and_a_dropout_s_seed(source, tmp_path):
    write_numbered(tmp_path / "w.h5", weights_of(source))
    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["layers/layer_0/seed_generator/vars/0"] = np.arange(2, dtype=np.uint32)
        file["layers/layer_1/vars"].attrs["name"] = np.bytes_(b"first_conv")
    load_keras_weights(Small(), tmp_path / "w.h5")
    write_legacy(tmp_path / "w.h5", weights_of(source))
    with h5py.File(tmp_path / "w.h5", "a") as file:
        del file["bare_conv/bare_conv/kernel"]
        file["bare_conv/bare_conv/kernel"] = "text"
    assert_refused(source, tmp_path / "w.h5", r"whose bare_conv/kernel is of \S+, expected finite floats")


def test_other_names_in_the_file(source, tmp_path):
    weights = weights_of(source)
    renamed(weights, "predictions", "probs")
    write_legacy(tmp_path / "w.h5", weights)
    model = Small()
    load_keras_weights(model, tmp_path / "w.h5", renamed={"probs": "predictions"})
    assert model.predictions[0].weight.equal(source.predictions[0].weight)
    assert_refused(source, tmp_path / "w.h5", "it lacks the layer predictions; it has the unknown layer probs")


@pytest.mark.parametrize(("model", "path"), [(3, "w.h5"), (nn.ReLU(), None), (nn.ReLU(), 5)])
def test_what_is_no_model_or_path(model, path):
    with pytest.raises(SettingError, match=r"^load_keras_weights: got a \w+ and a \w+, expected a model and the path of a file"):
        load_keras_weights(model, path)


def test_without_h5py(source, tmp_path, monkeypatch):
    write_legacy(tmp_path / "w.h5", weights_of(Small()))
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert_refused(source, tmp_path / "w.h5", "got no h5py, expected it to read Keras's files; install it with pip install h5py")


def test_a_layer_that_keras_has_not(tmp_path):
    write_legacy(tmp_path / "w.h5", {})
    with pytest.raises(SettingError, match=r"^load_keras_weights: got a LayerNorm at '0', expected a model whose weights are all in Conv2d, Linear"):
        load_keras_weights(nn.Sequential(nn.LayerNorm(3)), tmp_path / "w.h5")


# -- the files that Keras publishes ----------------------------------------------------------------------------------------

def offline(*_, **__):
    raise urllib.error.URLError("no network")


def test_weights_of_another_architecture(tmp_path):
    write_legacy(tmp_path / "w.h5", weights_of(Small()))
    with pytest.raises(ShapeError, match=r"^resnet50v2: got .*does not fit a ResNet50V2, nothing was loaded \(it lacks the layers conv1_conv.*"
                                         r"include_top=True and classes=1000 have to be those of the file"):
        resnet50v2(weights=tmp_path / "w.h5")


@pytest.mark.parametrize("include_top", [True, False])
def test_a_published_file_with_other_bytes_is_refused(tmp_path, monkeypatch, include_top):
    name, md5 = FILES[include_top]
    for folder, weights in ((tmp_path / "data" / "keras", "imagenet"), (tmp_path / "keras", "imagenet"), (tmp_path, tmp_path / name)):
        folder.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(b"something else")
        with pytest.raises(MinidlError, match=rf"^resnet50v2: got {re.escape(str(folder / name))} with 14 bytes of MD5 [0-9a-f]{{32}}, expected MD5 {md5}"):
            resnet50v2(include_top=include_top, weights=weights)
        (folder / name).unlink()


def test_without_a_network_it_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(MinidlError, match=rf"^resnet50v2: got no {FILES[True][0]} from https.*put the file into {re.escape(str(tmp_path / 'data' / 'keras'))} by hand"):
        resnet50v2(weights="imagenet")


def test_a_published_file_is_found_and_loaded(tmp_path, monkeypatch):
    """A file of our own in the place of the published one, with its MD5; in that the top is called "probs"."""
    source = resnet50v2()
    path = tmp_path / "data" / "keras" / FILES[True][0]
    path.parent.mkdir(parents=True)
    weights = weights_of(source)
    renamed(weights, "predictions", "probs")
    write_legacy(path, weights, ending=":0")
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setitem(FILES, True, (path.name, md5))
    for given in ("imagenet", path, str(path)):
        model = resnet50v2(weights=given)
        assert all(tensor.equal(source.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_h5py_is_missed_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("a download was tried"))
    with pytest.raises(MinidlError, match="got no h5py, expected it to read Keras's files"):
        resnet50v2(weights="imagenet")


@pytest.mark.parametrize(("settings", "message"), [
    ({"include_top": 3}, "got include_top=3, expected True or False"),
    ({"include_top": "no", "weights": "x.h5"}, "got include_top='no', expected True or False"),
    ({"weights": 5}, 'got weights=5, expected None, "imagenet" or the path of a file'),
    ({"weights": ""}, "got weights='', expected None"), ({"weights": False}, "got weights=False, expected None"),
    ({"classes": 0}, "got classes=0, expected a positive integer"),
    ({"classes": 0, "include_top": False}, "got classes=0, expected a positive integer"),
    ({"weights": "ImageNet"}, 'got ImageNet, where there is no file, expected one that Keras saved, or weights="imagenet"'),
])
def test_settings_that_are_none(settings, message):
    with pytest.raises(MinidlError, match=f"^resnet50v2: {re.escape(message)}"):
        resnet50v2(**settings)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 31, 64), (1, 64, 64, 3)])
def test_images_that_are_none(network, shape):
    with pytest.raises(ShapeError, match=rf"ResNet50V2.*got {re.escape(str(shape))}, expected images \(N, 3, H, W\) of 32×32 and more"):
        network(minidl.zeros(*shape))


def test_classes_that_imagenet_has_not():
    with pytest.raises(SettingError, match=r'^resnet50v2: got classes=10, expected 1000, which weights="imagenet" have'):
        resnet50v2(weights="imagenet", classes=10)


# -- images and classes --------------------------------------------------------------------------------------------------

def test_preprocess_input():
    pixels = minidl.tensor([0, 51, 255], dtype=minidl.uint8).reshape(3, 1, 1)
    np.testing.assert_allclose(preprocess_input(pixels).numpy().ravel(), [-1, -0.6, 1], rtol=1e-6)
    assert preprocess_input(pixels).dtype == minidl.float32
    assert preprocess_input(pixels.double()[None]).dtype == minidl.float64
    assert (preprocess_input(minidl.zeros(3, 2, 2)) == -1).all()


@pytest.mark.parametrize(("images", "error", "message"), [
    (minidl.rand(1, 3, 2, 2), OutOfRangeError, "got floats from .* expected pixels from 0 to 255; multiply them by 255"),
    (minidl.arange(12.0).reshape(1, 3, 2, 2) - 3, OutOfRangeError, "got numbers from -3 to 8,.* expected pixels from 0 to 255"),
    (minidl.full((1, 3, 2, 2), float("nan")), OutOfRangeError, "got numbers from nan to nan"),
    (minidl.zeros(1, 2, 2, 3), ShapeError, r"got \(1, 2, 2, 3\), expected \(N, 3, H, W\) in RGB"),
])
def test_what_cannot_be_preprocessed(images, error, message):
    with pytest.raises(error, match=f"^preprocess_input: {message}"):
        preprocess_input(images)


def test_decode_predictions(tmp_path, monkeypatch):
    index = json.dumps({str(o): [f"n{o:08}", f"name_{o}"] for o in range(1000)}).encode()
    probabilities = minidl.zeros(2, 1000)
    probabilities[0, 3], probabilities[0, 999], probabilities[1, 42] = 0.7, 0.2, 1.0
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(MinidlError, match=r"^decode_predictions: got no imagenet_class_index.json from .* by hand"):
        decode_predictions(probabilities)
    monkeypatch.setattr(imagenet, "MD5_OF_NAMES", hashlib.md5(index).hexdigest())
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "imagenet_class_index.json").write_bytes(index)
    found = decode_predictions(probabilities, top=2)
    assert [(number, name) for number, name, _ in found[0]] == [("n00000003", "name_3"), ("n00000999", "name_999")]
    np.testing.assert_allclose([p for _, _, p in found[0]], [0.7, 0.2], rtol=1e-6)
    assert found[1][0] == ("n00000042", "name_42", 1.0)
    for wrong, message in ((minidl.zeros(2, 10), r"got \(2, 10\), expected \(N, 1000\)"), (minidl.zeros(1000), r"got \(1000,\)")):
        with pytest.raises(ShapeError, match=f"^decode_predictions: {message}"):
            decode_predictions(wrong)
    with pytest.raises(SettingError, match=r"^decode_predictions: got top=0, expected 1 to 1000"):
        decode_predictions(probabilities, top=0)


def test_what_is_missing_is_downloaded_and_checked(tmp_path, monkeypatch):
    """The list of classes from a server on this machine; the weights take the same way."""
    index = json.dumps({str(o): [f"n{o:08}", f"name_{o}"] for o in range(1000)}).encode()
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "index.json").write_bytes(index)
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "server"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(imagenet, "MD5_OF_NAMES", hashlib.md5(index).hexdigest())
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.setattr(imagenet, "NAMES", f"http://127.0.0.1:{server.server_port}/index.json")
        try:
            assert imagenet.class_names()[999] == ("n00000999", "name_999")
        finally:
            server.shutdown()
    assert (tmp_path / "data" / "keras" / "index.json").read_bytes() == index
    assert imagenet.class_names()[0] == ("n00000000", "name_0")             # without the server


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
