"""Tensor: an array that remembers how it was computed. Each method is a line or two onto an op.

The methods are spread over the files of this folder by kind: `base`, `arithmetic`, `shaping`, `reductions`, `changing`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minidl import graph
from minidl.backend import Array
from minidl.graph import Node
from minidl.recording import Version
from minidl.tensors.arguments import Size, ValuesAndIndices, as_tuple, host_array
from minidl.tensors.changing import Changing

__all__ = ["Size", "Tensor", "ValuesAndIndices", "as_tuple", "forget_gradients", "host_array"]


class Tensor(Changing):
    """A multi-dimensional array with a gradient. Make one with `minidl.tensor(data)`.

    Called directly it is PyTorch's `torch.Tensor`: `Tensor(3, 4)` is an uninitialised (3, 4) tensor and
    `Tensor([1, 2])` holds the data, both in the default float type.
    """

    __slots__ = ()

    @classmethod
    def _of(cls, array: Array, node: Node | None = None, version: Version | None = None) -> Tensor:
        """Wrap an array, without looking at it."""
        tensor = Tensor.__new__(Tensor)
        tensor.array, tensor.node, tensor._grad = array, node, None
        tensor.version = Version() if version is None else version
        return tensor

    @classmethod
    def _from(cls, data: Any) -> Tensor:
        """Anything that an expression may hold beside a tensor: an array, a list."""
        return data if isinstance(data, Tensor) else cls._of(host_array(data))


def forget_gradients(tensors: Iterable[Tensor], set_to_none: bool) -> None:
    """What `zero_grad` of a module and of an optimizer does: `.grad` becomes None, or zeros where it was there."""
    for x in tensors:
        if set_to_none:
            x.grad = None
        elif x.grad is not None:
            x.grad = x.grad.detach().zero_()


graph.set_tensor_class(Tensor)
