"""Images in another size, place or direction.

Pillow resizes and rotates; a tensor is given to it plane by plane, so that tensors and PIL images get the same numbers
up to rounding. Numbers other than bytes are resampled in float32, Pillow's type for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import creation
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.tensors import Tensor
from minidl.transforms.checks import InterpolationMode, fills, interpolation_mode, numbers, whole_numbers
from minidl.transforms.images import Image, get_dimensions, is_pil, on_images

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


def _by_planes(image: Tensor, change: Callable[[PILImage, int], PILImage]) -> Tensor:
    """Each plane (H, W) of a tensor changed as a PIL image; `change` also gets the number of the channel."""
    from PIL import Image

    array = image.numpy()
    planes = array.reshape(-1, *array.shape[-2:])                           # (…, C, H, W) -> (planes, H, W)
    if array.dtype.kind in "iu" and max(-int(array.min()), int(array.max())) > 2**24:
        raise DtypeError(f"got whole numbers from {array.min()} to {array.max()}, expected none beyond 2**24: they are "
                         f"resampled in float32, which holds no larger ones exactly", where="resample")
    if array.dtype != np.uint8:
        planes = planes.astype(np.float32)
    channels = get_dimensions(image)[0]
    changed = np.stack([np.asarray(change(Image.fromarray(np.ascontiguousarray(plane)), i % channels))
                        for i, plane in enumerate(planes)])
    if array.dtype.kind in "iub":
        changed = np.rint(changed)
    return creation.from_numpy(changed.reshape(*array.shape[:-2], *changed.shape[-2:]).astype(array.dtype))


def _resample(mode: InterpolationMode) -> Any:
    from PIL import Image

    return Image.Resampling[mode.name.removesuffix("_EXACT")]


def check_size(size: int | Sequence[int], max_size: int | None, where: str) -> list[int]:
    """[height, width] or [shorter side]; with one number, max_size may be the most for the longer side."""
    sizes = whole_numbers(size, "size", where, 1, (1, 2))
    if max_size is not None:
        whole_numbers(max_size, "max_size", where, 1, (1,))
        if len(sizes) == 2 or max_size <= sizes[0]:
            raise SettingError(f"got size={size} and max_size={max_size}, expected max_size only with one size, and a "
                               f"larger one", where=where)
    return sizes


@on_images
def resize(img: Image, size: int | Sequence[int], interpolation: Any = InterpolationMode.BILINEAR,
           max_size: int | None = None, antialias: bool | None = True) -> Image:
    """To `size`: (height, width), or the length of the shorter side, and then `max_size` is the most for the longer."""
    _, height, width = get_dimensions(img)
    sizes, mode = check_size(size, max_size, "resize"), interpolation_mode(interpolation, "resize")
    if len(sizes) == 1:
        short, long = sizes[0], int(sizes[0] * max(height, width) / min(height, width))
        if max_size is not None and long > max_size:
            short, long = int(max_size * short / long), max_size
        if short == 0:
            raise ShapeError(f"got an image of {height}×{width}, of which nothing would be left with "
                             f"max_size={max_size}", where="resize")
        sizes = [short, long] if height <= width else [long, short]
    resample, target = _resample(mode), (sizes[1], sizes[0])
    if not isinstance(img, Tensor):
        return img.resize(target, resample)
    if antialias is False and mode not in (InterpolationMode.NEAREST, InterpolationMode.NEAREST_EXACT):
        raise SettingError("got antialias=False, expected True: Pillow always smooths what it makes smaller; leave it "
                           "out, or use interpolation=InterpolationMode.NEAREST", where="resize")
    return _by_planes(img, lambda plane, channel: plane.resize(target, resample))


def check_padding(padding: int | Sequence[int], padding_mode: str, where: str) -> tuple[int, int, int, int]:
    """left, top, right, bottom from one number, (left and right, top and bottom), or all four."""
    values = whole_numbers(padding, "padding", where, 0, (1, 2, 4))
    if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise SettingError(f"got padding_mode={padding_mode!r}, expected constant, edge, reflect or symmetric",
                           where=where)
    left, top, right, bottom = values * (4 // len(values))
    return left, top, right, bottom


def _channel_fills(fill: Any, channels: int, dtype: np.dtype[Any]) -> list[float]:
    """A number for each channel of an image of this type."""
    values = fills(fill, "fill")
    if len(values) not in (1, channels):
        raise SettingError(f"got fill={fill} for {channels} channels, expected 1 or {channels} numbers", where="fill")
    if dtype.kind in "iu":
        values, ends = [int(value) for value in values], np.iinfo(dtype)
        if min(values) < ends.min or max(values) > ends.max:
            raise SettingError(f"got fill={fill} for an image of {dtype}, expected {ends.min} to {ends.max}",
                               where="fill")
    return values * (channels // len(values))


def _pil_fill(img: PILImage, fill: Any) -> Any:
    """What a PIL image is filled with: a number, or a tuple of one for each band."""
    kind = {"F": "float32", "I": "int32"}.get(img.mode, "uint16" if img.mode.startswith("I;16") else "uint8")
    values = _channel_fills(fill, len(img.getbands()), np.dtype(kind))
    return values[0] if len(values) == 1 else tuple(values)


@on_images
def pad(img: Image, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant") -> Image:
    """Wider on every side: by `fill`, or by the image's own "edge", "reflect" (without the edge) or "symmetric"."""
    left, top, right, bottom = check_padding(padding, padding_mode, "pad")
    if is_pil(img):
        return _pad_pil(img, (left, top, right, bottom), fill, padding_mode)
    array = img.numpy()
    if padding_mode != "constant":
        widths = [(0, 0)] * (array.ndim - 2) + [(top, bottom), (left, right)]
        return creation.from_numpy(np.pad(array, widths, padding_mode))  # type: ignore[call-overload]
    *leading, channels, height, width = array.shape
    padded = np.empty((*leading, channels, top + height + bottom, left + width + right), array.dtype)
    padded[...] = np.reshape(_channel_fills(fill, channels, array.dtype), (-1, 1, 1))
    padded[..., top:top + height, left:left + width] = array
    return creation.from_numpy(padded)


def _pad_pil(img: PILImage, border: tuple[int, int, int, int], fill: Any, padding_mode: str) -> PILImage:
    from PIL import Image, ImageOps

    if padding_mode == "constant":
        return ImageOps.expand(img, border, _pil_fill(img, fill))
    left, top, right, bottom = border
    array = np.asarray(img)
    widths = [(top, bottom), (left, right), (0, 0)][:array.ndim]
    padded = np.pad(array, widths, padding_mode)  # type: ignore[call-overload]
    result = Image.fromarray(padded)
    if result.mode != img.mode:                             # the shape alone does not tell what the bands mean
        result = Image.frombytes(img.mode, result.size, padded.tobytes())
    if img.mode in ("P", "PA"):
        result.putpalette(img.getpalette())  # type: ignore[arg-type]
    return result


@on_images
def crop(img: Image, top: int, left: int, height: int, width: int) -> Image:
    """The part that begins at (top, left); zeros where it reaches beyond the image."""
    if not isinstance(img, Tensor):
        return img.crop((left, top, left + width, top + height))
    _, h, w = get_dimensions(img)
    beyond = [max(0, n) for n in (-left, -top, left + width - w, top + height - h)]
    if any(beyond):
        img, left, top = pad(img, beyond), left + beyond[0], top + beyond[1]
    return img[..., top:top + height, left:left + width]


def center_crop(img: Image, output_size: int | Sequence[int]) -> Image:
    """The middle, (height, width); with zeros around it where the image is smaller."""
    height, width = pair(output_size, "center_crop")
    _, h, w = get_dimensions(img)
    # an odd rest: cut away half of it, rounded to even; or pad less at the top and left. Both as torchvision does.
    top, left = (round((have - want) / 2) if have > want else -((want - have) // 2)
                 for have, want in ((h, height), (w, width)))
    return crop(img, top, left, height, width)


def pair(size: int | Sequence[int], where: str) -> tuple[int, int]:
    """(height, width), where one number stands for both."""
    values = whole_numbers(size, "size", where, 1, (1, 2))
    return values[0], values[-1]


@on_images
def hflip(img: Image) -> Image:
    """Left and right exchanged."""
    if isinstance(img, Tensor):
        return img[..., ::-1]
    from PIL import Image

    return img.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@on_images
def vflip(img: Image) -> Image:
    """Top and bottom exchanged."""
    if isinstance(img, Tensor):
        return img[..., ::-1, :]
    from PIL import Image

    return img.transpose(Image.Transpose.FLIP_TOP_BOTTOM)


def check_rotation(interpolation: Any, center: Sequence[float] | None, where: str) \
        -> tuple[InterpolationMode, tuple[float, float] | None]:
    """The mode, one of three that Pillow rotates with, and (x, y) or None for the middle."""
    mode = interpolation_mode(interpolation, where)
    if mode.name not in ("NEAREST", "NEAREST_EXACT", "BILINEAR", "BICUBIC"):
        raise SettingError(f"got interpolation={mode.value}, expected nearest, bilinear or bicubic", where=where)
    if center is None:
        return mode, None
    x, y = numbers(center, "center", where, "two numbers (x, y), or None for the middle", (2,))
    return mode, (x, y)


@on_images
def rotate(img: Image, angle: float, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False,
           center: Sequence[float] | None = None, fill: Any = 0) -> Image:
    """Counter-clockwise by `angle` degrees about `center` (x, y) or the middle; `expand` makes room for the corners."""
    mode, middle = check_rotation(interpolation, center, "rotate")
    numbers(angle, "angle", "rotate", "a number of degrees", (1,))
    resample = _resample(mode)
    if not isinstance(img, Tensor):
        return img.rotate(angle, resample, expand, middle, fillcolor=_pil_fill(img, fill))
    filled = _channel_fills(fill, get_dimensions(img)[0], img.dtype)
    return _by_planes(img, lambda plane, channel: plane.rotate(angle, resample, expand, middle,
                                                               fillcolor=filled[channel]))
