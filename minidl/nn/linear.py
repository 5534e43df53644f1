"""Dense layers, and the reshaping in front of them."""

from __future__ import annotations

from minidl import creation
from minidl.errors import SettingError
from minidl.nn import functional as F
from minidl.nn.init import default_uniform_
from minidl.nn.module import Module, Parameter
from minidl.tensors import Tensor


class Linear(Module):
    """y = x wᵀ + b: every output is a weighted sum of all inputs.

    x (…, in_features) -> (…, out_features); weight (out_features, in_features), bias (out_features,) or None,
    both starting uniform within ±1/√in_features.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: object = None) -> None:
        super().__init__()
        for name, value in (("in_features", in_features), ("out_features", out_features)):
            if not hasattr(value, "__index__") or value < 1:
                raise SettingError(f"got {name}={value!r}, expected a positive integer", where="Linear")
        self.in_features = in_features
        self.out_features = out_features
        weight = creation.empty(out_features, in_features, dtype=dtype)
        self.weight = Parameter(default_uniform_(weight, fan_in=in_features))
        self.bias = None
        if bias:
            self.bias = Parameter(default_uniform_(creation.empty(out_features, dtype=dtype), fan_in=in_features))

    def forward(self, x: Tensor) -> Tensor:
        """x (…, in_features) -> (…, out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def short_name(self) -> str:
        """In an error message."""
        return "Linear"


class Flatten(Module):
    """All axes from `start_dim` on as one: (N, C, H, W) -> (N, C·H·W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Tensor) -> Tensor:
        """x -> x with the axes from start_dim to end_dim as one."""
        return x.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """y = x, for a place where a layer may or may not stand. Takes any arguments and ignores them."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x -> x."""
        return x
