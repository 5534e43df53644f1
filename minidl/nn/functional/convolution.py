"""Convolutions in one and two dimensions, their transposes, and the windows that they look through."""

from __future__ import annotations

from minidl import ops
from minidl.errors import SettingError, ShapeError
from minidl.kernels.geometry import Conv2dGeometry, IntOrPair, Window2d, pair
from minidl.nn.functional.checks import check_bias, check_tensors, located
from minidl.tensors import Tensor


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: IntOrPair = 1,
           padding: IntOrPair | str = 0, dilation: IntOrPair = 1, groups: int = 1) -> Tensor:
    """Convolution: x (N, C, H, W), weight (O, C/groups, KH, KW), bias (O,) -> (N, O, OH, OW).

    padding: cells on each side, "same" (stride 1 only) or "valid".
    """
    check_tensors("conv2d", input, weight, bias)
    if input.ndim == 3 and weight.ndim == 4 and input.shape[0] == weight.shape[1] * groups:      # one image (C, H, W)
        return conv2d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    geometry = located("conv2d", Conv2dGeometry.of, tuple(input.shape), tuple(weight.shape), stride, padding, dilation,
                       groups)
    check_bias(bias, weight.shape[0], "conv2d")
    return ops.Conv2d(geometry)(input, weight, bias)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: IntOrPair = 1,
                     padding: IntOrPair = 0, output_padding: IntOrPair = 0, groups: int = 1,
                     dilation: IntOrPair = 1) -> Tensor:
    """The gradient of a convolution as a layer: x (N, C, H, W), weight (C, O/groups, KH, KW) -> (N, O, OH, OW).

    OH = (H - 1)·s - 2p + d·(KH - 1) + output_padding + 1: the size of an image that a convolution with these settings
    makes H high. Several sizes do; output_padding says which is meant.
    """
    check_tensors("conv_transpose2d", input, weight, bias)
    if input.ndim == 3 and weight.ndim == 4 and input.shape[0] == weight.shape[0]:               # one image (C, H, W)
        return conv_transpose2d(input.unsqueeze(0), weight, bias, stride, padding, output_padding, groups,
                                dilation).squeeze(0)
    if input.ndim != 4 or weight.ndim != 4 or input.shape[1] != weight.shape[0]:
        raise ShapeError(f"got an input of shape {input.shape} and a weight of shape {weight.shape}, expected "
                         f"(N, C, H, W) and (C, O/groups, KH, KW)", where="conv_transpose2d")
    s, p, d = pair(stride, "stride", 1), pair(padding, "padding", 0), pair(dilation, "dilation", 1)
    extra = pair(output_padding, "output_padding", 0)
    if any(e >= s[axis] for axis, e in enumerate(extra)):
        raise SettingError(f"got output_padding={output_padding!r}, expected less than stride={stride!r}: a larger "
                           f"image would have another window", where="conv_transpose2d")
    size = [(n - 1) * s[k] - 2 * p[k] + d[k] * (weight.shape[2 + k] - 1) + extra[k] + 1
            for k, n in enumerate(input.shape[2:])]
    if min(size) < 1:
        raise ShapeError(f"got padding={padding!r}, which leaves an output of {size[0]}×{size[1]}; use less padding",
                         where="conv_transpose2d")
    if not isinstance(groups, int) or groups < 1 or input.shape[1] % groups:
        raise SettingError(f"got groups={groups}, expected a divisor of the {input.shape[1]} input channels",
                           where="conv_transpose2d")
    # the convolution whose input gradient this is has x for its output and our output for its images
    image = (input.shape[0], weight.shape[1] * groups, *size)
    geometry = located("conv_transpose2d", Conv2dGeometry.of, image, tuple(weight.shape), s, p, d, groups)
    check_bias(bias, weight.shape[1] * groups, "conv_transpose2d")
    y = ops.Conv2dInputGrad(geometry)(input, weight)
    return y if bias is None else y + bias.reshape(-1, 1, 1)                 # (O,) -> (O, 1, 1)


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int | str = 0,
           dilation: int = 1, groups: int = 1) -> Tensor:
    """Convolution of sequences: x (N, C, L), weight (O, C/groups, K), bias (O,) -> (N, O, OL). An image of height 1."""
    check_tensors("conv1d", input, weight, bias)
    if input.ndim == 2 and weight.ndim == 3:                                                     # one sequence (C, L)
        return conv1d(input.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    _check_sequences(input, weight, "conv1d")
    sides = padding if isinstance(padding, str) else (0, single(padding, "padding"))
    y = conv2d(input.unsqueeze(2), weight.unsqueeze(2), bias, (1, single(stride, "stride")), sides,
               (1, single(dilation, "dilation")), groups)
    return y.squeeze(2)                                                      # (N, O, 1, OL) -> (N, O, OL)


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0,
                     output_padding: int = 0, groups: int = 1, dilation: int = 1) -> Tensor:
    """The transpose of conv1d: x (N, C, L), weight (C, O/groups, K) -> (N, O, OL)."""
    _check_sequences(input, weight, "conv_transpose1d")
    y = conv_transpose2d(input.unsqueeze(2), weight.unsqueeze(2), bias, (1, single(stride, "stride")),
                         (0, single(padding, "padding")), (0, single(output_padding, "output_padding")), groups,
                         (1, single(dilation, "dilation")))
    return y.squeeze(2)


def _check_sequences(x: Tensor, weight: Tensor, where: str) -> None:
    check_tensors(where, x, weight)
    if x.ndim != 3 or weight.ndim != 3:
        raise ShapeError(f"got an input of shape {x.shape} and a weight of shape {weight.shape}, expected (N, C, L) "
                         f"and three axes too", where=where)


def single(value: object, name: str) -> int:
    """`3` and `(3,)` -> 3."""
    one = value[0] if isinstance(value, tuple | list) and len(value) == 1 else value
    if not isinstance(one, int):
        raise SettingError(f"got {name}={value!r}, expected an integer")
    return one


def unfold(input: Tensor, kernel_size: IntOrPair, dilation: IntOrPair = 1, padding: IntOrPair = 0,
           stride: IntOrPair = 1) -> Tensor:
    """Every window as a column: (N, C, H, W) -> (N, C·KH·KW, number of windows)."""
    check_tensors("unfold", input)
    if input.ndim == 3:                                                      # one image without a batch
        return unfold(input.unsqueeze(0), kernel_size, dilation, padding, stride).squeeze(0)
    if input.ndim != 4:
        raise ShapeError(f"got {input.shape}, expected (N, C, H, W)", where="unfold")
    window = _window((input.shape[2], input.shape[3]), kernel_size, dilation, padding, stride, "unfold")
    return ops.Unfold(window)(input)


def fold(input: Tensor, output_size: IntOrPair, kernel_size: IntOrPair, dilation: IntOrPair = 1,
         padding: IntOrPair = 0, stride: IntOrPair = 1) -> Tensor:
    """The columns put back as windows, adding where they overlap: (N, C·KH·KW, windows) -> (N, C, H, W)."""
    check_tensors("fold", input)
    if input.ndim == 2:                                                      # one image without a batch
        return fold(input.unsqueeze(0), output_size, kernel_size, dilation, padding, stride).squeeze(0)
    window = _window(pair(output_size, "output_size", 1), kernel_size, dilation, padding, stride, "fold")
    (kh, kw), (rows, columns) = window.kernel_size, window.output_size
    if input.ndim != 3 or input.shape[1] % (kh * kw) or input.shape[2] != rows * columns:
        raise ShapeError(f"got {input.shape}, expected (N, a multiple of {kh}·{kw}, {rows}·{columns} windows)",
                         where="fold")
    return ops.Fold(window)(input)


def _window(size: tuple[int, int], kernel_size: IntOrPair, dilation: IntOrPair, padding: IntOrPair,
            stride: IntOrPair, where: str) -> Window2d:
    p, q = pair(padding, "padding", 0)
    return located(where, Window2d, size, pair(kernel_size, "kernel_size", 1), pair(stride, "stride", 1),
                   ((p, p), (q, q)), pair(dilation, "dilation", 1))
