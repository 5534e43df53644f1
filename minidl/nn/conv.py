"""Convolutional layers, their transposes, and the windows that they look through."""

from __future__ import annotations

from typing import Any

from minidl import creation
from minidl.errors import SettingError
from minidl.kernels.geometry import IntOrPair, pair
from minidl.nn import functional as F
from minidl.nn.functional.convolution import single
from minidl.nn.init import default_uniform_, fan_in_of
from minidl.nn.module import Module, Parameter, positive
from minidl.tensors import Tensor


class _Conv(Module):
    """What all convolutions share: their settings, their weights, how they print."""

    is_transposed = False

    def _make(self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], stride: tuple[int, ...],
              padding: tuple[int, ...] | str, dilation: tuple[int, ...], groups: int, bias: bool, padding_mode: str,
              device: Any, dtype: Any) -> None:
        name = type(self).__name__
        self.in_channels = positive(in_channels, "in_channels", name)
        self.out_channels = positive(out_channels, "out_channels", name)
        self.groups = positive(groups, "groups", name)
        if in_channels % groups or out_channels % groups:
            raise SettingError(f"got groups={groups}, expected a divisor of in_channels={in_channels} and "
                               f"out_channels={out_channels}", where=name)
        modes = ("zeros",) if self.is_transposed else ("zeros", "reflect", "replicate", "circular")
        if padding_mode not in modes:
            raise SettingError(f"got padding_mode={padding_mode!r}, expected {' or '.join(map(repr, modes))}",
                               where=name)
        if isinstance(padding, str) and (padding not in ("same", "valid") or self.is_transposed):
            raise SettingError(f'got padding={padding!r}, expected "same", "valid" or numbers', where=name)
        if padding == "same" and set(stride) != {1}:
            raise SettingError(f'got padding="same" with stride={stride}, expected stride 1; give the padding in cells',
                               where=name)
        self.kernel_size, self.stride, self.padding, self.dilation = kernel_size, stride, padding, dilation
        self.padding_mode = padding_mode
        first, second = (in_channels, out_channels) if self.is_transposed else (out_channels, in_channels)
        self.weight = Parameter(creation.empty(first, second // groups, *kernel_size, dtype=dtype, device=device))
        self.bias = Parameter(creation.empty(out_channels, dtype=dtype, device=device)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fan_in = fan_in_of(self.weight)
        default_uniform_(self.weight, fan_in)
        if self.bias is not None:
            default_uniform_(self.bias, fan_in)

    def _padded(self, input: Tensor) -> tuple[Tensor, Any]:
        """The input with its padding unless that is zeros, and the padding that is left to do."""
        if self.padding_mode == "zeros":
            return input, self.padding
        if self.padding == "valid":
            return input, 0
        if self.padding == "same":
            total = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            sides = [side for t in reversed(total) for side in (t // 2, t - t // 2)]
        else:
            sides = [p for p in reversed(self.padding) for _ in range(2)]  # type: ignore[misc]
        return F.pad(input, sides, self.padding_mode), 0

    def _extra(self, x: Tensor, output_size: Any) -> tuple[int, ...]:
        """The output padding of a transposed convolution that gives the size (OH, OW) that was asked for."""
        axes, name = len(self.kernel_size), type(self).__name__
        wanted = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * axes
        if len(wanted) not in (axes, x.ndim) or not all(isinstance(n, int) for n in wanted):
            raise SettingError(f"got output_size={output_size!r}, expected {axes} integers", where=name)
        least = [(n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in zip(  # type: ignore[operator]
            x.shape[-axes:], self.stride, self.padding, self.dilation, self.kernel_size, strict=True)]
        extra = tuple(w - n for w, n in zip(wanted[-axes:], least, strict=True))
        if any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            sizes = " by ".join(f"{n} to {n + s - 1}" for n, s in zip(least, self.stride, strict=True))
            raise SettingError(f"got output_size={output_size}, expected {sizes}", where=name)
        return extra

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        ones, zeros = (1,) * len(self.kernel_size), (0,) * len(self.kernel_size)
        if self.padding != zeros:
            text += f", padding={self.padding}"
        if self.dilation != ones:
            text += f", dilation={self.dilation}"
        if getattr(self, "output_padding", zeros) != zeros:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text

    def short_name(self) -> str:
        """In an error message."""
        return f"{type(self).__name__}({self.in_channels}→{self.out_channels})"


class Conv2d(_Conv):
    """Slides `out_channels` small filters over an image: (N, C, H, W) -> (N, O, OH, OW).

    weight (O, C/groups, KH, KW) and bias (O,) start uniform within ±1/√fan_in, fan_in = C/groups · KH · KW.
    padding: cells on each side, "same" or "valid". Out size: floor((H + 2p - d(k-1) - 1) / s) + 1.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: IntOrPair, stride: IntOrPair = 1,
                 padding: IntOrPair | str = 0, dilation: IntOrPair = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._make(in_channels, out_channels, pair(kernel_size, "kernel_size", 1), pair(stride, "stride", 1),
                   padding if isinstance(padding, str) else pair(padding, "padding", 0), pair(dilation, "dilation", 1),
                   groups, bias, padding_mode, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, O, OH, OW)."""
        x, padding = self._padded(input)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding,  # type: ignore[arg-type]
                        self.dilation, self.groups)  # type: ignore[arg-type]


class Conv1d(_Conv):
    """Slides `out_channels` small filters along a sequence: (N, C, L) -> (N, O, OL)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
                 padding: int | str = 0, dilation: int = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._make(in_channels, out_channels, (single(kernel_size, "kernel_size"),), (single(stride, "stride"),),
                   padding if isinstance(padding, str) else (single(padding, "padding"),),
                   (single(dilation, "dilation"),), groups, bias, padding_mode, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, L) -> (N, O, OL)."""
        x, padding = self._padded(input)
        padding = padding[0] if isinstance(padding, tuple) else padding
        return F.conv1d(x, self.weight, self.bias, self.stride[0], padding, self.dilation[0], self.groups)


class ConvTranspose2d(_Conv):
    """A convolution the other way round, which makes images larger: (N, C, H, W) -> (N, O, OH, OW).

    It is the input gradient of a convolution with the same weight, (C, O/groups, KH, KW).
    Out size: (H - 1)·s - 2p + d·(k - 1) + output_padding + 1.
    """

    is_transposed = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: IntOrPair, stride: IntOrPair = 1,
                 padding: IntOrPair = 0, output_padding: IntOrPair = 0, groups: int = 1, bias: bool = True,
                 dilation: IntOrPair = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._make(in_channels, out_channels, pair(kernel_size, "kernel_size", 1), pair(stride, "stride", 1),
                   pair(padding, "padding", 0), pair(dilation, "dilation", 1), groups, bias, padding_mode, device,
                   dtype)
        self.output_padding = pair(output_padding, "output_padding", 0)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """x (N, C, H, W) -> (N, O, OH, OW); output_size (OH, OW) chooses the output padding."""
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        return F.conv_transpose2d(input, self.weight, self.bias, self.stride, self.padding, extra, self.groups,  # type: ignore[arg-type]
                                  self.dilation)  # type: ignore[arg-type]


class ConvTranspose1d(_Conv):
    """A convolution of sequences the other way round: (N, C, L) -> (N, O, OL)."""

    is_transposed = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0,
                 output_padding: int = 0, groups: int = 1, bias: bool = True, dilation: int = 1,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._make(in_channels, out_channels, (single(kernel_size, "kernel_size"),), (single(stride, "stride"),),
                   (single(padding, "padding"),), (single(dilation, "dilation"),), groups, bias, padding_mode, device,
                   dtype)
        self.output_padding = (single(output_padding, "output_padding"),)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """x (N, C, L) -> (N, O, OL); output_size (OL,) chooses the output padding."""
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        return F.conv_transpose1d(input, self.weight, self.bias, self.stride[0], self.padding[0],  # type: ignore[arg-type]
                                  extra[0], self.groups, self.dilation[0])


class Unfold(Module):
    """Every window as a column: (N, C, H, W) -> (N, C·KH·KW, number of windows)."""

    def __init__(self, kernel_size: IntOrPair, dilation: IntOrPair = 1, padding: IntOrPair = 0,
                 stride: IntOrPair = 1) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C·KH·KW, windows)."""
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"kernel_size={self.kernel_size}, dilation={self.dilation}, padding={self.padding}, "
                f"stride={self.stride}")


class Fold(Module):
    """The columns put back as windows, adding where they overlap: (N, C·KH·KW, windows) -> (N, C, H, W)."""

    def __init__(self, output_size: IntOrPair, kernel_size: IntOrPair, dilation: IntOrPair = 1, padding: IntOrPair = 0,
                 stride: IntOrPair = 1) -> None:
        super().__init__()
        self.output_size = output_size
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C·KH·KW, windows) -> (N, C, H, W)."""
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"output_size={self.output_size}, kernel_size={self.kernel_size}, dilation={self.dilation}, "
                f"padding={self.padding}, stride={self.stride}")
