"""Windows as columns: what a convolution multiplies, taken out of the image, and put back by adding.

Each is the other's transpose, so each is the other's derivative.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidl.backend import Array
from minidl.graph import Op
from minidl.kernels import im2col
from minidl.kernels.geometry import Window2d

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Unfold(Op):
    """x (N, C, H, W) -> y (N, C·KH·KW, OH·OW): each column holds one window;   dL/dx = Fold(g)."""

    def __init__(self, window: Window2d) -> None:
        self.window = window

    def forward(self, x: Array) -> Array:
        windows = im2col.windows_of(x, self.window, fill=0)                  # (N, OH, OW, KH, KW, C)
        n, out_h, out_w, kh, kw, c = windows.shape
        return windows.transpose(0, 5, 3, 4, 1, 2).reshape(n, c * kh * kw, out_h * out_w)

    def backward(self, g: Tensor) -> Tensor:
        return Fold(self.window)(g)


class Fold(Op):
    """x (N, C·KH·KW, OH·OW) -> y (N, C, H, W): the windows put back, adding where they overlap;   dL/dx = Unfold(g)."""

    def __init__(self, window: Window2d) -> None:
        self.window = window

    def forward(self, x: Array) -> Array:
        (kh, kw), (out_h, out_w) = self.window.kernel_size, self.window.output_size
        windows = x.reshape(x.shape[0], -1, kh, kw, out_h, out_w)            # (N, C, KH, KW, OH, OW)
        return im2col.add_windows(windows.transpose(2, 3, 0, 4, 5, 1), self.window)

    def backward(self, g: Tensor) -> Tensor:
        return Unfold(self.window)(g)
