"""Bad input gets one sentence, at once: where, what came, what was expected, the fix. And nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import nn, optim
from minidl.backend import backend_of
from minidl.errors import (
    DeviceError,
    DtypeError,
    GraphError,
    LabelError,
    MinidlError,
    ModuleError,
    SettingError,
    ShapeError,
)
from minidl.tensors import Tensor


class Lenet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
                                      nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2))
        self.fc = nn.Sequential(nn.Linear(256, 10))

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


LENET = Lenet()
IMAGES = minidl.randn(2, 1, 28, 28)
SCORES = minidl.randn(3, 4, requires_grad=True)
X = minidl.tensor([1.0, 2.0], requires_grad=True)
CONSTANT = minidl.tensor([1.0, 2.0])
USED = (X * X).sum()
USED.backward()
ON_FAKE = minidl.ones(2, device="fake")
VIEWED = X * 1
VIEW = VIEWED.reshape(2, 1)
KEPT_CHANGED = minidl.tensor([1.0, 2.0])
CHANGED = (KEPT_CHANGED * X).sum()
KEPT_CHANGED += 1


class PlainList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(2, 2), nn.Linear(2, 2)]


class GrownList(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = []
        for _ in range(2):
            self.layers.append(nn.Linear(2, 2))

    def forward(self, x):
        return self.layers[0](x)


class PlainDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = {"a": nn.Linear(2, 2)}


class Forgetful(nn.Module):
    def __init__(self):
        self.layer = nn.Linear(2, 2)


class ForgetfulWithoutLayers(nn.Module):
    def __init__(self):
        self.scale = 2

    def forward(self, x):
        return x * self.scale


class NoForward(nn.Module):
    pass


@dataclass
class Row:
    name: str
    call: Callable[[], Any]
    error: type[MinidlError]
    message: str


ROWS = [
    # -- images and features --
    Row("channels-last images", lambda: LENET(IMAGES.permute(0, 2, 3, 1)), ShapeError,
        "features.0 Conv2d(1→6): got (2, 28, 28, 1), expected (N, 1, H, W); looks channels-last, "
        "use x.permute(0, 3, 1, 2)"),
    Row("an image without a batch", lambda: LENET(IMAGES[0]), ShapeError,
        "fc.0 Linear: expects 256 features, got 16 (input (16, 16)); looks like one sample without a batch: give the model "
        "x.unsqueeze(0)"),
    Row("images without channels", lambda: LENET(IMAGES[:, 0]), ShapeError, "use x.unsqueeze(1)"),
    Row("colour images", lambda: LENET(minidl.randn(2, 3, 28, 28)), ShapeError,
        "features.0 Conv2d(1→6): got (2, 3, 28, 28), expected (N, 1, H, W); set in_channels=3 or feed images with "
        "1 channels"),
    Row("flat images", lambda: F.conv2d(IMAGES.flatten(1), minidl.ones(1, 1, 2, 2)), ShapeError,
        "conv2d: got (2, 784), expected (N, 1, H, W); a convolution takes a batch of images"),
    Row("uint8 images", lambda: LENET((IMAGES * 0).to(minidl.uint8)), DtypeError,
        "features.0 Conv2d(1→6): got uint8 for x and float32 for w and float32 for b, expected one dtype; cast with "
        "x.to(minidl.float32) / 255 for images"),
    Row("float64 images", lambda: LENET(IMAGES.double()), DtypeError,
        "features.0 Conv2d(1→6): got float64 for x and float32 for w and float32 for b, expected one dtype; cast with "
        "x.to(minidl.float32)"),
    Row("images of another size", lambda: LENET(minidl.randn(2, 1, 32, 32)), ShapeError,
        "fc.0 Linear: expects 256 features, got 400 = 16×5×5 (input (2, 400)); set in_features=400 or feed inputs of "
        "the size that the layer was made for"),
    Row("images not flattened", lambda: nn.Linear(784, 2)(IMAGES), ShapeError,
        "Linear: expects 784 features, got 28 (input (2, 1, 28, 28)); flatten first, x.flatten(1)"),
    Row("a kernel larger than the image", lambda: LENET(minidl.randn(2, 1, 10, 10)), ShapeError,
        "features.3 Conv2d(6→16): kernel 5×5 is larger than the 3×3 input with its padding: output height = "
        "floor((height + padding - dilation·(kernel - 1) - 1) / stride) + 1 = floor((3 + 0 - 1·(5 - 1) - 1) / 1) + 1 "
        "< 1; use a smaller kernel, more padding, or fewer poolings before it"),
    Row("pooling vectors", lambda: F.max_pool2d(CONSTANT, 2), ShapeError,
        "max_pool2d: got (2,), expected (N, C, H, W)"),
    Row("matrices that do not fit", lambda: minidl.ones(64, 400) @ minidl.ones(256, 120), ShapeError,
        "matmul: got (64, 400) @ (256, 120), expected the last size of the first (400) to equal the last but one of "
        "the second (256)"),
    Row("matrices of mixed types", lambda: minidl.ones(2, 2) @ minidl.ones(2, 2).double(), DtypeError,
        "matmul: got float32 for a and float64 for b, expected one dtype; cast with a.to(minidl.float64)"),
    Row("shapes that do not broadcast", lambda: minidl.ones(2, 3) + minidl.ones(2), ShapeError,
        "add: got shapes (2, 3) and (2,), which do not broadcast: from the last axis on, sizes must be equal or 1"),
    Row("a shape that holds something else", lambda: CONSTANT.reshape(3, -1), ShapeError,
        "reshape: got 2 elements for the shape (3, -1), which holds 3 times a whole number"),
    # -- labels --
    Row("a label out of range", lambda: F.cross_entropy(SCORES, minidl.tensor([0, 4, 1])), LabelError,
        "cross_entropy: got the label 4 at index 1, expected 0 to 3 for 4 classes; check the labels or the size of the "
        "last layer"),
    Row("a negative label", lambda: F.cross_entropy(SCORES, minidl.tensor([0, 1, -1], dtype=minidl.int8)), LabelError,
        "got the label -1 at index 2, expected 0 to 3"),
    Row("labels in a column", lambda: F.cross_entropy(SCORES, minidl.tensor([[0], [1], [2]])), LabelError,
        "cross_entropy: got labels of shape (3, 1) for scores of shape (3, 4), expected class indices (3,) or "
        "probabilities (3, 4); use labels.squeeze(1)"),
    Row("float labels", lambda: F.cross_entropy(SCORES, minidl.tensor([0.0, 1.0, 2.0])), LabelError,
        "cross_entropy: got labels of float32, expected integer class indices; use labels.long()"),
    Row("boolean labels", lambda: F.cross_entropy(SCORES, minidl.tensor([True, False, True])), LabelError,
        "got labels of bool, expected integer class indices"),
    Row("scores without a batch", lambda: F.cross_entropy(SCORES[0], minidl.tensor([1, 2])), ShapeError,
        "cross_entropy: got scores of shape (4,), expected (N, classes)"),
    Row("an unknown reduction", lambda: nn.CrossEntropyLoss(reduction="avg")(SCORES, minidl.tensor([0, 1, 2])), SettingError,
        'got reduction=\'avg\', expected "mean", "sum" or "none"'),
    Row("float labels for one_hot", lambda: F.one_hot(CONSTANT), LabelError, "one_hot: got labels of float32"),
    # -- backward --
    Row("backward from several numbers", lambda: (X * 2).backward(), GraphError,
        "backward: got a tensor of shape (2,), expected a single number; reduce it first (loss.mean()) or pass its "
        "gradient, of the same shape"),
    Row("backward twice", lambda: USED.backward(), GraphError,
        "backward went through Mul before and freed what it had kept; call backward(retain_graph=True) the first time"),
    Row("backward without a graph", lambda: CONSTANT.sum().backward(), GraphError,
        "backward: this tensor has no graph: nothing it was computed from requires grad, or it was computed under "
        "no_grad() or detached; call requires_grad_() on an input first"),
    Row("a gradient of another shape", lambda: (X * 2).backward(minidl.ones(3)), ShapeError,
        "backward: got a gradient of shape (3,) for an output of shape (2,); they must be equal"),
    Row("grad of a constant", lambda: minidl.autograd.grad(X.sum(), CONSTANT), GraphError,
        "grad: input 0 does not require grad; call x.requires_grad_() on it before using it"),
    Row("an integer tensor asked for grad", lambda: minidl.tensor([1, 2], requires_grad=True), DtypeError,
        "requires_grad_: got a tensor of int64, expected floats: only they have a gradient; use "
        "x.float().requires_grad_()"),
    Row("a kept value changed", lambda: CHANGED.backward(), GraphError,
        "Mul kept its input 'a' for the backward pass, but it was changed in place afterwards; write x = x + 1 instead "
        "of x += 1, or change a clone()"),
    Row("a leaf changed while recording", lambda: X.add_(1), GraphError,
        "add_: got a leaf that requires grad, whose changes would be lost to its gradient; do it under minidl.no_grad(), "
        "or out of place: x = x + 1"),
    Row("an element of a leaf changed while recording", lambda: X.__setitem__(0, 5.0), GraphError,
        "x[...] = value: got a leaf that requires grad"),
    Row("a viewed tensor changed while recording", lambda: VIEWED.mul_(2), GraphError,
        "*=: got a tensor that shares its memory with a view"),
    Row("numpy of a tensor with gradient", lambda: X.numpy(), GraphError,
        "numpy: got a tensor that requires grad, expected one without; use x.detach().numpy()"),
    Row("NumPy's own functions on one", lambda: np.asarray(X), GraphError, "use x.detach().numpy()"),
    Row("no gradient to retain", lambda: CONSTANT.retain_grad(), GraphError, "it will have no gradient"),
    Row("no gradient to hook", lambda: CONSTANT.register_hook(print), GraphError, "no gradient will reach the hook"),
    Row("requires_grad_(False) on a result", lambda: (X * 2).requires_grad_(False), GraphError, "use detach()"),
    Row("a copy of a result", lambda: __import__("copy").deepcopy(X * 2), GraphError, "use detach() first"),
    # -- in place --
    Row("in place, but larger", lambda: CONSTANT.add_(minidl.ones(3, 2)), ShapeError,
        "add_: got a result of shape (3, 2) for a tensor of shape (2,), which it cannot hold"),
    Row("in place, floats into integers", lambda: minidl.tensor([1, 2]).mul_(0.5), DtypeError,
        "*=: got a result of float32 for a tensor of int64, which cannot hold it; convert the tensor first, "
        "x = x.to(minidl.float32)"),
    Row("in place, expanded", lambda: minidl.ones(2, 1).expand(2, 3).zero_(), GraphError,
        "got an expanded tensor, in which one number stands in several places; clone() it first"),
    # -- devices --
    Row("mixed devices", lambda: CONSTANT + ON_FAKE, DeviceError,
        "add: got a on 'cpu' and b on 'fake', expected all on one device; move one with .to(device)"),
    Row("images on another device", lambda: LENET(IMAGES.to("fake")), DeviceError,
        "features.0 Conv2d(1→6): got x on 'fake' and w on 'cpu' and b on 'cpu', expected all on one device"),
    Row("a host array on a device", lambda: ON_FAKE * np.ones(2), DeviceError, "mul: got a on 'fake' and b on 'cpu'"),
    Row("no such device", lambda: minidl.ones(2, device="tpu"), DeviceError,
        'device: got \'tpu\', expected "cpu", "cuda", "cuda:0" or "auto"'),
    Row("no GPU", lambda: CONSTANT.to("cuda"), DeviceError, 'got device "cuda"'),
    Row("numpy of a device tensor", lambda: ON_FAKE.numpy(), DeviceError, "use x.cpu().numpy()"),
    # -- modules --
    Row("a plain list of modules", PlainList, ModuleError,
        "PlainList: got a plain list of modules as attribute 'layers', whose parameters would never train; use "
        "self.layers = nn.ModuleList(...)"),
    Row("a list that grew, asked for parameters", lambda: list(GrownList().parameters()), ModuleError,
        "GrownList: got a plain list of modules as attribute 'layers'"),
    Row("a list that grew, called", lambda: GrownList()(minidl.ones(1, 2)), ModuleError, "GrownList: got a plain list"),
    Row("a plain dict of modules", PlainDict, ModuleError, "use self.heads = nn.ModuleDict(...)"),
    Row("super().__init__() forgotten", Forgetful, ModuleError,
        "Forgetful: got no call of super().__init__(); make it the first line of __init__"),
    Row("super().__init__() forgotten, no layers", lambda: ForgetfulWithoutLayers()(CONSTANT), ModuleError,
        "ForgetfulWithoutLayers: got no call of super().__init__()"),
    Row("no forward", lambda: NoForward()(CONSTANT), ModuleError, "has no forward; define forward(self, x)"),
    Row("a tensor in a parameter's place", lambda: setattr(LENET.fc[0], "weight", CONSTANT), ModuleError,
        "Linear: got a Tensor for the parameter 'weight', expected an nn.Parameter or None"),
    Row("a function in Sequential", lambda: nn.Sequential(nn.Linear(2, 2), F.relu), ModuleError,
        "Sequential: got a function, expected a module; functions have modules of their own, such as nn.ReLU()"),
    Row("a state that does not fit", lambda: LENET.load_state_dict({"fc.0.weight": minidl.ones(3, 3)}), ShapeError,
        "Lenet.load_state_dict: the state does not fit, nothing was loaded (wrong shapes: fc.0.weight is (3, 3), expected "
        "(10, 256); missing: features.0.weight"),
    Row("one-hot labels of integers", lambda: F.cross_entropy(minidl.randn(4, 3), F.one_hot(minidl.tensor([0, 1, 2, 0]), 3)), LabelError,
        "cross_entropy: got labels of shape (4, 3) for scores of shape (4, 3), expected class indices (4,) or "
        "probabilities (4, 3), which are floats, and got int64; use labels.argmax(dim=1)"),
    Row("a misspelled key", lambda: LENET.load_state_dict({name.replace("weight", "wieght"): t for name, t in LENET.state_dict().items()}),
        ShapeError, "(missing: features.0.weight (it has features.0.wieght), "),
    Row("a state of the model inside", lambda: LENET.load_state_dict({f"net.{name}": t for name, t in LENET.state_dict().items()}),
        ShapeError, "; its names begin with 'net.': {name.removeprefix('net.'): t for name, t in state.items()}"),
    Row("a state for the model inside", lambda: nn.Sequential(LENET).load_state_dict(LENET.state_dict()),
        ShapeError, "; its names lack '0.': call load_state_dict of its '0'"),
    Row("an unexpected key", lambda: LENET.load_state_dict({**LENET.state_dict(), "extra": CONSTANT}), ShapeError,
        "(unexpected: extra)"),
    Row("no features", lambda: nn.Linear(0, 2), SettingError, "Linear: got in_features=0, expected a positive integer"),
    Row("groups that do not divide", lambda: nn.Conv2d(3, 4, 3, groups=2), SettingError,
        "Conv2d: got groups=2, expected a divisor of in_channels=3 and out_channels=4"),
    # -- settings --
    Row("a learning rate of 0", lambda: optim.Adam(LENET.parameters(), lr=0), SettingError,
        "Adam: got lr=0, expected a positive number"),
    Row("a learning rate that is nan", lambda: optim.SGD(LENET.parameters(), lr=float("nan")), SettingError,
        "SGD: got lr=nan, expected a positive number"),
    Row("nothing to optimize", lambda: optim.SGD(nn.ReLU().parameters(), lr=0.1), SettingError,
        "SGD: got no parameters; does the model have layers as attributes?"),
    Row("a result to optimize", lambda: optim.SGD([X * 2], lr=0.1), SettingError, "that is no leaf"),
    Row("a parameter twice", lambda: optim.SGD([X, X]), SettingError, "SGD: got the same parameter twice in one group"),
    Row("a bad beta", lambda: optim.Adam([X], betas=(0.9, 1.0)), SettingError, "Adam: got betas=(0.9, 1.0)"),
    Row("a negative momentum", lambda: optim.SGD([X], momentum=-1), SettingError, "SGD: got momentum=-1"),
    Row("an axis that is not there", lambda: CONSTANT.sum(2), ShapeError,
        "got dim=2 for a tensor with 1 dimensions, expected -1 to 0"),
    Row("a mean of integers", lambda: minidl.tensor([1, 2]).mean(), DtypeError,
        "mean: got a tensor of int64, expected floats; use x.float().mean()"),
    Row("a ragged list", lambda: minidl.tensor([[1, 2], [3]]), ShapeError,
        "tensor: got a nested list whose rows differ in length"),
    Row("words", lambda: minidl.tensor(["a"]), DtypeError, "tensor: got data of type <U1, expected numbers"),
    Row("truth of several", lambda: bool(CONSTANT == CONSTANT), ShapeError, "where a single truth value is needed"),
    Row("item of several", lambda: CONSTANT.item(), ShapeError, "item: got a tensor of shape (2,), expected one element"),
]

WATCHED = [*LENET.parameters(), IMAGES, SCORES, X, CONSTANT, ON_FAKE, VIEWED, VIEW, KEPT_CHANGED]


def snapshot():
    def numbers(tensor):
        return None if tensor is None else backend_of(tensor.array).to_host(tensor.array).copy()
    return [(numbers(t), t.version.count, numbers(t.grad), t.node) for t in WATCHED]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_one_sentence_and_nothing_changed(row):
    before = snapshot()
    with pytest.raises(row.error) as caught:
        row.call()
    message = str(caught.value)
    assert row.message in message
    assert "\n" not in message
    for (array, version, grad, node), now in zip(before, snapshot(), strict=True):
        np.testing.assert_array_equal(array, now[0])
        np.testing.assert_array_equal(grad, now[2])
        assert (version, node) == (now[1], now[3])
    assert minidl.is_grad_enabled()
    assert minidl.recording.module_stack() == []


def test_errors_are_runtime_errors_as_in_pytorch():
    for row in ROWS:
        assert issubclass(row.error, RuntimeError)


def test_the_line_of_the_recorded_call_is_named():
    x = minidl.ones(2, requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GraphError, match=r"^test_bad_input.py:\d+: backward went through"):
        y.backward()


def test_forward_forward_style_lists_are_left_alone():
    """A list that each layer trains for itself, never asked for its parameters: no mistake, no error."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = []
            for _ in range(2):
                self.layers = [*self.layers, nn.Linear(2, 2)]

        def predict(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    assert Net().predict(minidl.ones(1, 2)).shape == (1, 2)


def test_tensor_class_is_pytorchs():
    assert Tensor(3, 4).shape == (3, 4)
    assert Tensor([1, 2]).dtype == minidl.float32
    assert minidl.tensor(np.float32(3)).shape == ()
