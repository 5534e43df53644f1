"""Images made larger: padding, interpolation, pixel shuffle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import ops
from minidl.errors import SettingError, ShapeError
from minidl.nn.functional.checks import check_floats, check_tensors
from minidl.nn.functional.pooling import adaptive_avg_pool1d, adaptive_avg_pool2d
from minidl.ops.index import Key
from minidl.tensors import Tensor
from minidl.tensors.arithmetic import as_operand


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Cells added around the edges: `pad` is (left, right, top, bottom, …), the last axis first; negative ones cut.

    mode: "constant" (the number `value`, 0 unless given), "reflect" (mirrored without the edge), "replicate" (the
    edge again), "circular" (the other side).
    """
    check_tensors("pad", input)
    if not isinstance(pad, tuple | list) or not all(isinstance(n, int) for n in pad):
        raise SettingError(f"got pad={pad!r}, expected a list of integers (left, right, top, bottom, …)", where="pad")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ShapeError(f"got pad={tuple(pad)} for a tensor with {input.ndim} dimensions, expected a pair for each of "
                         f"the last axes", where="pad")
    sides = [(0, 0)] * (input.ndim - len(pad) // 2)
    sides += [(pad[2 * k], pad[2 * k + 1]) for k in reversed(range(len(pad) // 2))]        # in the order of the axes
    for axis, (before, after) in enumerate(sides):                          # negative: cut first
        if before < 0 or after < 0:
            cut, length = max(0, -before), input.shape[axis] - max(0, -before) - max(0, -after)
            if length < 0:
                raise ShapeError(f"got pad={tuple(pad)}, which cuts more than the {input.shape[axis]} cells along dim "
                                 f"{axis}", where="pad")
            input = input.narrow(axis, cut, length)
    sides = [(max(0, before), max(0, after)) for before, after in sides]
    if mode == "constant":
        inside = Key(tuple(slice(before, before + n) for n, (before, _) in zip(input.shape, sides, strict=True)))
        shape = tuple(before + n + after for n, (before, after) in zip(input.shape, sides, strict=True))
        if not value:
            return ops.IndexAdd(inside, shape)(input)                        # y = 0, then y[inside] = x
        return ops.IndexPut(inside)(as_operand(np.full(shape, value)).to(input), input)
    padded = input
    for axis, (before, after) in enumerate(sides):
        if before or after:
            cells = as_operand(_source_cells(input.shape[axis], before, after, mode)).to(input.device)
            padded = padded.index_select(axis, cells)
    return input._unshared(padded)


def _source_cells(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """For each cell of a padded axis, which cell it repeats."""
    i = np.arange(-before, n + after)
    if mode == "replicate":
        return i.clip(0, n - 1)
    if mode not in ("reflect", "circular"):
        raise SettingError(f'got mode={mode!r}, expected "constant", "reflect", "replicate" or "circular"', where="pad")
    most = n - 1 if mode == "reflect" else n
    if max(before, after) > most:
        raise ShapeError(f"got {max(before, after)} cells of {mode} padding, expected at most {most} for {n} cells",
                         where="pad")
    return n - 1 - abs(n - 1 - abs(i)) if mode == "reflect" else i % n


def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Images or sequences of another size: (N, C, H, W) or (N, C, L), to `size` or by `scale_factor`.

    mode "nearest" repeats cells; "bilinear" ("linear" for sequences) mixes the two nearest along each axis, which is
    a product with a matrix; "area" takes means. align_corners: the centres of the corner cells stay in place, instead
    of the corners of the image.
    """
    check_tensors("interpolate", input)
    if input.ndim not in (3, 4):
        raise ShapeError(f"got {input.shape}, expected (N, C, H, W) or (N, C, L)", where="interpolate")
    axes = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise SettingError("expected either size or scale_factor", where="interpolate")
    given = size if scale_factor is None else scale_factor
    each = tuple(given) if isinstance(given, tuple | list) else (given,) * axes
    if len(each) != axes or not all(isinstance(n, int | float) and n > 0 for n in each):
        raise SettingError(f"got {given!r}, expected {axes} positive numbers", where="interpolate")
    sizes = [int(n) if scale_factor is None else math.floor(n * old)
             for n, old in zip(each, input.shape[2:], strict=True)]
    if min(sizes) < 1:
        raise ShapeError(f"got {given!r} for {input.shape}, which leaves nothing", where="interpolate")
    use_scale = scale_factor is not None and not recompute_scale_factor
    scales = [1 / n if use_scale else old / new
              for n, old, new in zip(each, input.shape[2:], sizes, strict=True)]
    if mode in ("nearest", "nearest-exact"):
        return input._unshared(_nearest(input, sizes, scales, 0.5 if mode == "nearest-exact" else 0.0))
    if mode == "area":
        return adaptive_avg_pool2d(input, tuple(sizes)) if axes == 2 else adaptive_avg_pool1d(input, sizes[0])
    if (mode, axes) not in (("bilinear", 2), ("linear", 1)):
        raise SettingError(f'got mode={mode!r} for {input.shape}, expected "nearest", "nearest-exact", "area" or '
                           f'"{"bi" if axes == 2 else ""}linear"', where="interpolate")
    check_floats("interpolate", input)
    mixing = [as_operand(_mixing(old, new, scale, bool(align_corners))).to(input)
              for old, new, scale in zip(input.shape[2:], sizes, scales, strict=True)]
    across = input @ mixing[-1].mT                                           # (N, C, H, W) -> (N, C, H, OW)
    return mixing[0] @ across if axes == 2 else across                       # (N, C, H, OW) -> (N, C, OH, OW)


def _nearest(x: Tensor, sizes: Sequence[int], scales: Sequence[float], shift: float) -> Tensor:
    whole = [new // old if new % old == 0 and not shift and abs(scale * new - old) < 1e-6 else 0
             for old, new, scale in zip(x.shape[2:], sizes, scales, strict=True)]
    if x.ndim == 4 and all(whole) and x.is_floating_point():                 # a whole number of times
        return x if whole == [1, 1] else ops.Repeat2d((whole[0], whole[1]))(x)
    for axis, (new, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        old = x.shape[axis]
        if new == old:
            continue
        if new % old == 0 and not shift and abs(scale * new - old) < 1e-6:   # a whole number of times: repeat
            x = x.repeat_interleave(new // old, axis)
        else:                                                                # single precision, as PyTorch rounds
            cells = np.floor((np.arange(new, dtype=np.float32) + np.float32(shift)) * np.float32(scale))
            index = np.minimum(cells.astype(np.int64), old - 1)
            x = x.index_select(axis, as_operand(index).to(x.device))
    return x


def _mixing(old: int, new: int, scale: float, align_corners: bool) -> np.ndarray:
    """The matrix (new, old) whose row i holds the shares of the two old cells that new cell i lies between."""
    i = np.arange(new)
    if align_corners:
        place = i * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        place = np.maximum((i + 0.5) * scale - 0.5, 0)                       # cell centres at 0.5, 1.5, …
    left = np.minimum(place.astype(np.int64), old - 1)
    right = np.minimum(left + 1, old - 1)
    share = place - left
    matrix = np.zeros((new, old))
    np.add.at(matrix, (i, left), 1 - share)
    np.add.at(matrix, (i, right), share)
    return matrix


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """The older name of `interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels become pixels: (N, C·r², H, W) -> (N, C, H·r, W·r). Ref: Shi et al. 2016, arXiv:1609.05158."""
    check_tensors("pixel_shuffle", input)
    r = upscale_factor
    if input.ndim != 4 or not isinstance(r, int) or r < 1 or input.shape[1] % (r * r):
        raise ShapeError(f"got {input.shape}, expected (N, a multiple of {r}², H, W)", where="pixel_shuffle")
    n, c, h, w = input.shape
    split = input.reshape(n, c // (r * r), r, r, h, w)                       # (N, C, r, r, H, W)
    side_by_side = split.permute(0, 1, 4, 2, 5, 3)                           # (N, C, H, r, W, r)
    return input._unshared(side_by_side.reshape(n, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Pixels become channels: (N, C, H·r, W·r) -> (N, C·r², H, W)."""
    check_tensors("pixel_unshuffle", input)
    r = downscale_factor
    if input.ndim != 4 or not isinstance(r, int) or r < 1 or input.shape[2] % r or input.shape[3] % r:
        raise ShapeError(f"got {input.shape}, expected (N, C, H, W) with multiples of {r}", where="pixel_unshuffle")
    n, c, h, w = input.shape
    split = input.reshape(n, c, h // r, r, w // r, r)                        # (N, C, H, r, W, r)
    apart = split.permute(0, 1, 3, 5, 2, 4)                                  # (N, C, r, r, H, W)
    return input._unshared(apart.reshape(n, c * r * r, h // r, w // r))
