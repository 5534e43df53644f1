"""Convolutional layers."""

from __future__ import annotations

from minidl import creation
from minidl.errors import SettingError
from minidl.kernels.geometry import IntOrPair, pair
from minidl.nn import functional as F
from minidl.nn.init import default_uniform_
from minidl.nn.module import Module, Parameter
from minidl.tensors import Tensor


class Conv2d(Module):
    """Slides `out_channels` small filters over an image: (N, C, H, W) -> (N, O, OH, OW).

    weight (O, C/groups, KH, KW) and bias (O,) start uniform within ±1/√fan_in, fan_in = C/groups · KH · KW.
    padding: cells on each side, "same" or "valid". Out size: floor((H + 2p - d(k-1) - 1) / s) + 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: IntOrPair, stride: IntOrPair = 1,
                 padding: IntOrPair | str = 0, dilation: IntOrPair = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", dtype: object = None) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            if not isinstance(value, int) or value < 1:
                raise SettingError(f"got {name}={value!r}, expected a positive integer", where="Conv2d")
        if in_channels % groups or out_channels % groups:
            raise SettingError(f"got groups={groups}, expected a divisor of in_channels={in_channels} and "
                               f"out_channels={out_channels}", where="Conv2d")
        if padding_mode != "zeros":
            raise SettingError(f'got padding_mode={padding_mode!r}, expected "zeros"; pad the images first',
                               where="Conv2d")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair(kernel_size, "kernel_size", 1)
        self.stride = pair(stride, "stride", 1)
        self.padding = padding if isinstance(padding, str) else pair(padding, "padding", 0)
        self.dilation = pair(dilation, "dilation", 1)
        self.groups = groups
        kh, kw = self.kernel_size
        fan_in = in_channels // groups * kh * kw
        weight = creation.empty(out_channels, in_channels // groups, kh, kw, dtype=dtype)
        self.weight = Parameter(default_uniform_(weight, fan_in))
        self.bias = None
        if bias:
            self.bias = Parameter(default_uniform_(creation.empty(out_channels, dtype=dtype), fan_in))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, O, OH, OW)."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if self.padding != (0, 0):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text

    def short_name(self) -> str:
        """In an error message."""
        return f"Conv2d({self.in_channels}→{self.out_channels})"
