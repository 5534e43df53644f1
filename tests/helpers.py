"""What several suites use."""

from pathlib import Path
from types import ModuleType

import numpy as np

import minidl
import minidl.nn.functional as F
from minidl.graph import Op
from minidl.models import small_cnn
from minidl.tensors import Tensor
from minidl.train import LightningModule


class Classifier(LightningModule):
    """A module whose `net` tells classes apart; a test adds the net and the optimizer."""

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))


def kept_cnn(path):
    """The network that a lab has trained and kept in a file, in evaluation mode, and what the file says about it."""
    saved = minidl.load(path)
    network = small_cnn(saved["image_shape"])
    network.load_state_dict(saved["state_dict"])
    return network.eval(), saved


def f64(data, requires_grad=True) -> Tensor:
    """A float64 tensor that gradients are asked of, unless told otherwise."""
    return minidl.tensor(data, dtype=minidl.float64, requires_grad=requires_grad)


def assert_equals_pytorchs(mine, theirs) -> None:
    """Shape, type and values of a tensor are those of PyTorch's."""
    assert mine.shape == tuple(theirs.shape)
    assert str(mine.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-6, equal_nan=True)


def square_once() -> Op:
    """x², by an op that can be differentiated only once."""
    class Once(Op):
        once_differentiable = True

        def forward(self, x):
            self.keep(doubled=2 * x)
            return x * x

        def backward(self, g, doubled):
            return g * doubled

    return Once()


def changed_module(file: str, old: str, new: str) -> ModuleType:
    """minidl/FILE with OLD replaced by NEW, as a module beside the real one."""
    path = Path(minidl.__file__).parent / file
    source = path.read_text(encoding="utf-8")
    assert old in source, f"{old!r} is not in {file}"
    module = ModuleType(f"minidl.{file.removesuffix('.py').replace('/', '.')}")
    exec(compile(source.replace(old, new), str(path), "exec"), module.__dict__)
    return module
