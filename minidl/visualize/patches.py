"""Which part of the image a filter looks at, and the parts of real images that excite it most."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from minidl import creation
from minidl.autograd import no_grad
from minidl.errors import DtypeError, OutOfRangeError, SettingError, ShapeError
from minidl.functions import cat, stack
from minidl.kernels import use_kernels
from minidl.nn.module import Module
from minidl.tensors import Tensor
from minidl.visualize.layers import FeatureExtractor, layer_named

BATCH = 128             # images in one forward pass


@dataclass(frozen=True)
class ReceptiveField:
    """The rectangle of the image that the output at row i, column j of a layer depends on. A pair is (rows, columns).

        rows     offset[0] + i · stride[0]  <=  row     <  offset[0] + i · stride[0] + size[0]
        columns  offset[1] + j · stride[1]  <=  column  <  offset[1] + j · stride[1] + size[1]

    Parts of it may lie outside of the image, where a convolution with padding sees zeros. With stride 0 all places see
    the same part; for a dense layer it is the whole image.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    offset: tuple[int, int]

    def rectangle(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of what the output at this place depends on; bottom and right are not in it."""
        top, left = self.offset[0] + row * self.stride[0], self.offset[1] + column * self.stride[1]
        return top, left, top + self.size[0], left + self.size[1]


def receptive_field(model: Module, layer: str, image_shape: tuple[int, int, int]) -> ReceptiveField:
    """What one output of a layer depends on, for a model of any kind and whatever its weights are.

    layer: a path as in `model.named_modules()`. image_shape: (C, H, W).

    It is measured with nan as a dye. Whatever is computed from nan is nan, even 0 · nan, so one row of nan in the image
    makes nan of exactly those rows of the output that depend on it. For layers one after the other the result is that
    of the recursion (Araujo, Norris & Sim 2019, doi:10.23915/distill.00021), with kernel k, stride s, padding p,
    dilation d, beginning with r = j = 1 and o = 0:

        r <- r + (k - 1) · d · j,   o <- o - p · j,   j <- j · s        for size r, stride j, offset o

    Where the border cuts everything off, larger images are tried, up to eight times as high or wide. The whole image
    with stride 0 is the answer for a layer without places (N, K); if all depends on all in an image twice as large, or
    even eight times as large is too small; if the model takes no other size; and if the parts are not equally large and
    equally far from each other, as after an upsampling.

    Raises `SettingError` for an unknown layer, one that forward does not reach or one that answers nan for zeros.
    """
    if not isinstance(image_shape, Sequence) or len(image_shape) != 3 or min(image_shape) < 1:
        raise ShapeError(f"got image_shape={image_shape}, expected (C, H, W)", where="receptive_field")
    answers = FeatureExtractor(model, [layer], "receptive_field")
    with no_grad():
        clean = answers(_zeros(model, (1, *image_shape)))[layer]
        if clean.isnan().any():
            raise SettingError(f"the layer {layer!r} answers nan for an image of zeros, expected numbers; look for nan "
                               f"in the weights", where="receptive_field")
        height, width = image_shape[1:]
        if clean.ndim != 4:
            return ReceptiveField((height, width), (0, 0), (0, 0))
        (r, j, o), (r2, j2, o2) = (_along(answers, image_shape, axis) for axis in (1, 2))
    return ReceptiveField((r, r2), (j, j2), (o, o2))


def _along(answers: FeatureExtractor, image_shape: tuple[int, int, int], axis: int) -> tuple[int, int, int]:
    """Size, stride and offset along rows (axis 1) or columns (axis 2) of the image, by three outputs in the middle."""
    for times in (1, 2, 4, 8):
        shape = [side * times if i == axis else side for i, side in enumerate(image_shape)]
        touched = _touched(answers, shape, axis)                                        # (rows, outputs)
        if touched is None or (times > 1 and touched.all()):                            # all depends on all
            break
        if touched.shape[1] < 3:
            continue
        first = touched.long().argmax(dim=0).tolist()                                   # argmax: the first of the ones
        last = (shape[axis] - 1 - touched.flip(0).long().argmax(dim=0)).tolist()
        i = touched.shape[1] // 2
        sizes = {last[n] - first[n] + 1 for n in (i - 1, i, i + 1)}
        strides = {first[i] - first[i - 1], first[i + 1] - first[i]}
        is_inside = first[i - 1] > 0 and last[i + 1] < shape[axis] - 1
        if is_inside and len(sizes) == len(strides) == 1:
            (size,), (stride,) = sizes, strides
            return size, stride, first[i] - i * stride
    return image_shape[axis], 0, 0


def _touched(answers: FeatureExtractor, shape: Sequence[int], axis: int) -> Tensor | None:
    """(rows of the image, rows of the output), bool: does that output depend on that row? Columns for axis 2.

    None if the model does not take images of this shape (C, H, W).
    """
    parts = []
    for start in range(0, shape[axis], BATCH):
        images = _zeros(answers.model, (min(BATCH, shape[axis] - start), *shape))
        for n, image in enumerate(images):
            image.select(axis, start + n).fill_(float("nan"))
        output = _output(answers, images)
        if output is None or output.ndim != 4:
            return None
        parts.append(output.isnan().any(dim=1).any(dim=3 - axis))                       # (n, O, OH, OW) -> (n, OH)
    return cat(parts)


def _output(answers: FeatureExtractor, images: Tensor) -> Tensor | None:
    """What the layer answers; None if the model refuses these images before it.

    A layer behind it may refuse them, and is not asked: a dense one after convolutions takes no size but its own.
    """
    with use_kernels("im2col"), contextlib.suppress(ValueError, AssertionError):        # im2col: plain sums, Winograd's
        output, = answers(images).values()                                              # could mix neighbours
        return output
    return None


def _zeros(model: Module, shape: Sequence[int]) -> Tensor:
    """Black images, on the device and of the type of the model."""
    weight = next(model.parameters(), None)
    if weight is None:
        return creation.zeros(*shape)
    return creation.zeros(*shape, dtype=weight.dtype, device=weight.device)


@dataclass(frozen=True)
class Patches:
    """What `strongest_patches` found, for K channels and the n strongest images of each, the strongest first."""

    layer: str
    channels: tuple[int, ...]
    scores: Tensor                  # (K, n) the largest output of the channel in that image
    indices: Tensor                 # (K, n) int64: which image
    positions: Tensor               # (K, n, 2) int64: row and column of that output; 0, 0 in a dense layer
    patches: Tensor                 # (K, n, C, h, w) the part of the image that it depends on
    field: ReceptiveField


def strongest_patches(model: Module, layer: str, images: Tensor, channels: Sequence[int] | None = None, count: int = 9,
                      fill: float = 0.0) -> Patches:
    """The parts of the images that excite each channel of a layer most, at most one of each image.

    images: (N, C, H, W), floats, as the model takes them. layer: one whose output is (N, O, OH, OW), or a dense one
    (N, O), for which the part is the whole image. channels: all if None. count: how many for each. fill: what is drawn
    beyond the border of the image. Among equals the first image counts, and the first place in it, row by row. The
    result is on the CPU; the model is left as it was.

    Raises `SettingError` for an unknown layer or a count that the images do not allow, `OutOfRangeError` for a channel
    that is not there, `ShapeError` and `DtypeError` for something else than images.
    """
    where = "strongest_patches"
    layer_named(model, layer, where)
    if not isinstance(images, Tensor):
        raise DtypeError(f"got a {type(images).__name__} as images, expected a tensor (N, C, H, W); use "
                         f"minidl.from_numpy", where=where)
    if channels is not None and not isinstance(channels, Sequence):
        raise SettingError(f"got channels={channels!r}, expected several such as [3] or range(8)", where=where)
    if images.ndim != 4:
        raise ShapeError(f"got images of shape {tuple(images.shape)}, expected (N, C, H, W); one image is images[None]",
                         where=where)
    if not images.is_floating_point():
        raise DtypeError(f"got images of {images.dtype}, expected floats as the model takes them; divide bytes by 255",
                         where=where)
    if not 1 <= count <= len(images):
        raise SettingError(f"got count={count}, expected 1 to {len(images):,}, the number of images: each gives at "
                           f"most one", where=where)
    field = receptive_field(model, layer, tuple(images.shape[1:]))
    with no_grad():
        channels, scores, indices, positions = _strongest(model, layer, images, channels, count)
        patches = stack([
            stack([_cut(images[i], field.rectangle(*place), fill) for i, place in zip(*of_channel, strict=True)])
            for of_channel in zip(indices.tolist(), positions.tolist(), strict=True)])  # (K, n, C, h, w)
    return Patches(layer, channels, scores, indices, positions, patches, field)


def _strongest(model: Module, layer: str, images: Tensor, channels: Sequence[int] | None,
               count: int) -> tuple[tuple[int, ...], Tensor, Tensor, Tensor]:
    """The channels, and for each the highest scores (K, n), in which images (K, n) and where in them (K, n, 2)."""
    device = next((weight.device for weight in model.parameters()), images.device)
    answers = FeatureExtractor(model, [layer], "strongest_patches")
    best: list[Tensor] = []                                     # scores, indices, places: (at most count, K) each
    for start in range(0, len(images), BATCH):
        output = answers(images[start:start + BATCH].to(device))[layer].cpu()
        if output.ndim not in (2, 4):
            raise ShapeError(f"got the shape {tuple(output.shape)} from the layer {layer!r}, expected (N, O, OH, OW) "
                             f"or (N, O); name another layer", where="strongest_patches")
        columns = output.shape[3] if output.ndim == 4 else 1
        chosen = _checked(channels, output.shape[1], layer)
        maps = output.reshape(*output.shape[:2], -1)                                    # -> (n, O, OH·OW)
        scores, places = (values[:, list(chosen)] for values in maps.max(dim=2))        # (n, K) each
        indices = creation.arange(start, start + len(output))[:, None].expand(-1, len(chosen))
        new = [scores, indices, places]
        best = [cat(pair) for pair in zip(best, new, strict=True)] if best else new     # (count + n, K) each
        order = best[0].argsort(dim=0, descending=True)[:count]                         # equal ones keep their order
        best = [values.gather(0, order) for values in best]
    scores, indices, places = (values.T.contiguous() for values in best)                # (count, K) -> (K, count)
    return chosen, scores, indices, stack([places // columns, places % columns], dim=2)


def _checked(channels: Sequence[int] | None, available: int, layer: str) -> tuple[int, ...]:
    """The channels that are asked for, all of which are there."""
    chosen = tuple(range(available) if channels is None else channels)
    for channel in chosen:
        if not 0 <= channel < available:
            raise OutOfRangeError(f"got the channel {channel}, expected 0 to {available - 1}: the layer {layer!r} has "
                                  f"{available}", where="strongest_patches")
    if not chosen:
        raise SettingError("got no channels, expected at least one; None means all", where="strongest_patches")
    return chosen


def _cut(image: Tensor, rectangle: tuple[int, int, int, int], fill: float) -> Tensor:
    """(C, H, W) -> (C, h, w): the rectangle of the image, and `fill` where it is beyond the border."""
    top, left, bottom, right = rectangle
    channels, height, width = image.shape
    patch = creation.full((channels, bottom - top, right - left), fill, dtype=image.dtype)
    first_row, end_row = max(top, 0), min(bottom, height)                               # what of it is in the image
    first_column, end_column = max(left, 0), min(right, width)
    if first_row < end_row and first_column < end_column:
        patch[:, first_row - top:end_row - top, first_column - left:end_column - left] = (
            image[:, first_row:end_row, first_column:end_column].cpu())
    return patch
