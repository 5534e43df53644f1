"""The sizes of a sliding window, and all checks of them.

A window of k taps, d apart, moves over an image of size H in steps of s, after p cells of padding at the start and
q at the end. Along one axis it fits

    out = floor((H + p + q - d*(k - 1) - 1) / s) + 1

times, and tap u of window i lies on cell  i*s + u*d - p.  Every kernel is this index formula plus one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from minidl.errors import SettingError, ShapeError

Pair: TypeAlias = tuple[int, int]
IntOrPair: TypeAlias = int | Pair


def pair(value: Any, name: str, least: int) -> Pair:
    """`3` -> `(3, 3)`; checks that both are integers of at least `least`."""
    both = value if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in both):
        raise SettingError(f"got {name}={value!r}, expected an integer ≥ {least} or a pair (height, width) of them")
    return both[0], both[1]


@dataclass(frozen=True)
class Window2d:
    """Where a two-dimensional window goes. Sizes are (height, width) in cells."""

    input_size: Pair
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))         # ((top, bottom), (left, right))
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        for axis, name in enumerate(("height", "width")):
            if self._output(axis) < 1:
                raise ShapeError(self._why_nothing_fits(axis, name))

    @cached_property
    def output_size(self) -> Pair:
        """How many windows there are: (rows, columns)."""
        return self._output(0), self._output(1)

    @property
    def padded_size(self) -> Pair:
        """The size of the image with all cells that any window touches, padding included."""
        return self._reach(0), self._reach(1)

    @property
    def before(self) -> Pair:
        """The padding above and to the left of an image."""
        (top, _), (left, _) = self.padding
        return top, left

    def extent(self, axis: int) -> int:
        """The cells from the first to the last tap of one window."""
        return self.dilation[axis] * (self.kernel_size[axis] - 1) + 1

    def _output(self, axis: int) -> int:
        size, stride = self.input_size[axis], self.stride[axis]
        start, end = self.padding[axis]
        free = size + start + end - self.extent(axis)
        if not self.ceil_mode:
            return free // stride + 1
        # ceil_mode adds the window that hangs over the end, if it still starts on the image or its front padding
        out = -(-free // stride) + 1
        return out - 1 if (out - 1) * stride >= size + start else out

    def _reach(self, axis: int) -> int:
        last_start = (self._output(axis) - 1) * self.stride[axis]
        return max(self.input_size[axis] + sum(self.padding[axis]), last_start + self.extent(axis))

    def _why_nothing_fits(self, axis: int, name: str) -> str:
        h, w = self.input_size
        size, k, s, d = self.input_size[axis], self.kernel_size[axis], self.stride[axis], self.dilation[axis]
        p = sum(self.padding[axis])
        kernel = f"{self.kernel_size[0]}×{self.kernel_size[1]}"
        return (f"kernel {kernel} is larger than the {h}×{w} input with its padding: "
                f"output {name} = floor(({name} + padding - dilation·(kernel - 1) - 1) / stride) + 1 "
                f"= floor(({size} + {p} - {d}·({k} - 1) - 1) / {s}) + 1 < 1; "
                f"use a smaller kernel, more padding, or fewer poolings before it")

    def taps(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """All (i, j, u, v, row, column): tap (u, v) of window (i, j) lies on that cell of the image."""
        (height, width), (rows, columns) = self.input_size, self.output_size
        (s, t), (d, e), ((top, _), (left, _)) = self.stride, self.dilation, self.padding
        for i in range(rows):
            for j in range(columns):
                for u in range(self.kernel_size[0]):
                    for v in range(self.kernel_size[1]):
                        row, column = i * s + u * d - top, j * t + v * e - left
                        if 0 <= row < height and 0 <= column < width:        # else it lies on padding
                            yield i, j, u, v, row, column


@dataclass(frozen=True)
class Conv2dGeometry(Window2d):
    """The window of a convolution; `groups` splits the channels into that many independent convolutions."""

    groups: int = 1

    @classmethod
    def of(cls, x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: IntOrPair = 1,
           padding: IntOrPair | str = 0, dilation: IntOrPair = 1, groups: int = 1) -> Conv2dGeometry:
        """Check the shapes of x (N, C, H, W) and w (O, C/groups, KH, KW) and make the geometry.

        Raises `ShapeError` for sizes that do not fit and `SettingError` for values out of range.
        """
        if len(w_shape) != 4:
            raise ShapeError(f"got a weight of shape {w_shape}, expected (O, C/groups, KH, KW)")
        outputs, group_channels, *kernel = w_shape
        if not isinstance(groups, int) or groups < 1 or outputs % groups:
            raise SettingError(f"got groups={groups!r}, expected a divisor of the {outputs} output channels")
        channels = group_channels * groups
        if len(x_shape) != 4 or x_shape[1] != channels:
            raise ShapeError(_why_not_images(x_shape, channels))
        stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
        geometry: Conv2dGeometry = _made(
            cls, input_size=(x_shape[2], x_shape[3]), kernel_size=(kernel[0], kernel[1]), stride=stride,
            padding=_conv_padding(padding, (kernel[0], kernel[1]), stride, dilation), dilation=dilation, groups=groups,
        )
        return geometry


@dataclass(frozen=True)
class Pool2dGeometry(Window2d):
    """The window of a pooling; `count_include_pad` decides whether an average counts the padding as zeros."""

    count_include_pad: bool = True

    @classmethod
    def of(cls, x_shape: tuple[int, ...], kernel_size: IntOrPair, stride: IntOrPair | None = None,
           padding: IntOrPair = 0, dilation: IntOrPair = 1, ceil_mode: bool = False,
           count_include_pad: bool = True) -> Pool2dGeometry:
        """Check the shape of x (N, C, H, W) and make the geometry; stride None means the kernel size."""
        if len(x_shape) != 4:
            raise ShapeError(f"got {x_shape}, expected (N, C, H, W)")
        kernel = pair(kernel_size, "kernel_size", 1)
        p, q = pair(padding, "padding", 0)
        if 2 * p > kernel[0] or 2 * q > kernel[1]:
            raise SettingError(f"got padding={padding!r}, expected at most half of the kernel {kernel}")
        geometry: Pool2dGeometry = _made(
            cls, input_size=(x_shape[2], x_shape[3]), kernel_size=kernel,
            stride=kernel if stride is None else pair(stride, "stride", 1), padding=((p, p), (q, q)),
            dilation=pair(dilation, "dilation", 1), ceil_mode=ceil_mode, count_include_pad=count_include_pad,
        )
        return geometry

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis, name in enumerate(("height", "width")):
            if 0 in self._cells_within(axis, 0, self.input_size[axis]):
                raise ShapeError(f"a window lies on padding alone: {name} {self.input_size[axis]}, kernel "
                                 f"{self.kernel_size[axis]}, dilation {self.dilation[axis]}, padding "
                                 f"{self.padding[axis][0]}; use less padding or less dilation")

    def divisors(self, axis: int) -> list[int]:
        """How many cells an average divides by, for each window along one axis (height times width gives all)."""
        size, (start, end) = self.input_size[axis], self.padding[axis]
        first, last = (-start, size + end) if self.count_include_pad else (0, size)
        return self._cells_within(axis, first, last)

    def _cells_within(self, axis: int, first: int, last: int) -> list[int]:
        """For each window along one axis: how many of its taps lie on the cells from `first` to before `last`."""
        counts = []
        for i in range(self._output(axis)):
            window = i * self.stride[axis] - self.padding[axis][0]
            cells = (window + u * self.dilation[axis] for u in range(self.kernel_size[axis]))
            counts.append(sum(first <= cell < last for cell in cells))
        return counts


def _new(kind: type[Window2d], **fields: Any) -> Window2d:
    return kind(**fields)


_made: Callable[..., Any] = lru_cache(maxsize=256)(_new)     # a training step asks for the same few again and again


def _conv_padding(padding: IntOrPair | str, kernel: Pair, stride: Pair, dilation: Pair) -> tuple[Pair, Pair]:
    """An int, a pair, "valid" (none) or "same" (output as large as the input) -> ((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise SettingError(f'got padding="same" with stride={stride}, expected stride 1; give the padding in cells')
        total_h, total_w = dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)
        # an odd total leaves one cell over; as in PyTorch it goes to the end
        return (total_h // 2, total_h - total_h // 2), (total_w // 2, total_w - total_w // 2)
    if isinstance(padding, str):
        raise SettingError(f'got padding={padding!r}, expected "same", "valid", an int or a pair')
    p, q = pair(padding, "padding", 0)
    return (p, p), (q, q)


def _why_not_images(shape: tuple[int, ...], channels: int) -> str:
    message = f"got {shape}, expected (N, {channels}, H, W)"
    if len(shape) == 4 and shape[3] == channels:
        return f"{message}; looks channels-last, use x.permute(0, 3, 1, 2)"
    if len(shape) == 3 and shape[0] == channels:
        return f"{message}; looks like one image without a batch, use x.unsqueeze(0)"
    if len(shape) == 3 and channels == 1:
        return f"{message}; looks like grey images without a channel axis, use x.unsqueeze(1)"
    if len(shape) == 4:
        return f"{message}; set in_channels={shape[1]} or feed images with {channels} channels"
    return f"{message}; a convolution takes a batch of images"
