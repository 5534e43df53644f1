"""What several suites use."""

import numpy as np

import minidl
from minidl.graph import Op
from minidl.tensors import Tensor


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
