"""Images in another size, place or direction.

Pillow resizes and rotates; a tensor is given to it plane by plane, so that tensors and PIL images get the same numbers
up to rounding.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import creation
from minidl.errors import SettingError
from minidl.tensors import Tensor
from minidl.transforms.images import Image, get_dimensions, is_pil, on_images

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


class InterpolationMode(enum.Enum):
    """Where the value between pixels comes from."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


def _by_planes(image: Tensor, change: Callable[[PILImage, int], PILImage]) -> Tensor:
    """Each plane (H, W) of a tensor changed as a PIL image; `change` also gets the number of the channel."""
    from PIL import Image

    array = image.numpy()
    planes = array.reshape(-1, *array.shape[-2:])                           # (…, C, H, W) -> (planes, H, W)
    if array.dtype != np.uint8:
        planes = planes.astype(np.float32)
    channels = get_dimensions(image)[0]
    changed = np.stack([np.asarray(change(Image.fromarray(np.ascontiguousarray(plane)), i % channels))
                        for i, plane in enumerate(planes)])
    if array.dtype.kind in "iu":
        changed = np.rint(changed)
    return creation.from_numpy(changed.reshape(*array.shape[:-2], *changed.shape[-2:]).astype(array.dtype))


def _resample(interpolation: Any) -> Any:
    from PIL import Image

    if isinstance(interpolation, int):
        return Image.Resampling(interpolation)
    return Image.Resampling[InterpolationMode(interpolation).name.removesuffix("_EXACT")]


@on_images
def resize(img: Image, size: int | Sequence[int], interpolation: Any = InterpolationMode.BILINEAR,
           max_size: int | None = None, antialias: bool | None = True) -> Image:
    """To `size`: (height, width), or the length of the shorter side, and then `max_size` is the most for the longer."""
    _, height, width = get_dimensions(img)
    sizes = [size] if isinstance(size, int) else list(size)
    if len(sizes) == 1:
        short, long = sizes[0], int(sizes[0] * max(height, width) / min(height, width))
        if max_size is not None and long > max_size:
            short, long = int(max_size * short / long), max_size
        sizes = [short, long] if height <= width else [long, short]
    elif max_size is not None:
        raise SettingError(f"got size={size} and max_size={max_size}, expected max_size only with one size",
                           where="resize")
    resample, target = _resample(interpolation), (sizes[1], sizes[0])
    if not isinstance(img, Tensor):
        return img.resize(target, resample)
    if antialias is False:
        raise SettingError("got antialias=False, expected True: Pillow always smooths what it makes smaller; leave it "
                           "out, or use interpolation=InterpolationMode.NEAREST", where="resize")
    return _by_planes(img, lambda plane, channel: plane.resize(target, resample))


def check_padding(padding: int | Sequence[int], padding_mode: str) -> tuple[int, int, int, int]:
    """left, top, right, bottom from one number, (left and right, top and bottom), or all four."""
    values = [padding] if isinstance(padding, int) else list(padding)
    if len(values) not in (1, 2, 4) or min(values) < 0:
        raise SettingError(f"got padding={padding}, expected 1, 2 or 4 numbers, none of them negative", where="pad")
    if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
        raise SettingError(f"got padding_mode={padding_mode!r}, expected constant, edge, reflect or symmetric",
                           where="pad")
    left, top, right, bottom = values * (4 // len(values))
    return left, top, right, bottom


def _filling(img: PILImage, fill: Any) -> Any:
    """A number for each band of the image."""
    bands = len(img.getbands())
    values = list(fill) if isinstance(fill, Sequence) else [fill]
    if len(values) not in (1, bands):
        raise SettingError(f"got fill={fill} for {bands} channels, expected 1 or {bands} numbers", where="fill")
    values = values * bands if len(values) == 1 else values
    values = values if img.mode == "F" else [int(value) for value in values]
    return values[0] if bands == 1 else tuple(values)


@on_images
def pad(img: Image, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant") -> Image:
    """Wider on every side: by `fill`, or by the image's own "edge", "reflect" (without the edge) or "symmetric"."""
    from PIL import Image, ImageOps

    left, top, right, bottom = check_padding(padding, padding_mode)
    if is_pil(img) and padding_mode == "constant":
        return ImageOps.expand(img, (left, top, right, bottom), _filling(img, fill))
    array = img.numpy() if isinstance(img, Tensor) else np.asarray(img)
    widths = [(0, 0)] * array.ndim
    first = array.ndim - 2 if isinstance(img, Tensor) else 0                # the axis of H
    widths[first:first + 2] = [(top, bottom), (left, right)]
    settings = {"constant_values": fill} if padding_mode == "constant" else {}
    padded = np.pad(array, widths, padding_mode, **settings)  # type: ignore[call-overload]
    if isinstance(img, Tensor):
        return creation.from_numpy(padded)
    result = Image.fromarray(padded)
    if img.mode == "P":
        result.putpalette(img.getpalette())
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
    height, width = pair(output_size)
    _, h, w = get_dimensions(img)
    # an odd rest: cut away half of it, rounded to even; or pad less at the top and left. Both as torchvision does.
    top, left = (round((have - want) / 2) if have > want else -((want - have) // 2)
                 for have, want in ((h, height), (w, width)))
    return crop(img, top, left, height, width)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width), where one number stands for both."""
    values = (size,) if isinstance(size, int) else tuple(size)
    if len(values) not in (1, 2) or min(values) < 1:
        raise SettingError(f"got size={size}, expected one or two whole numbers above 0", where="size")
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


@on_images
def rotate(img: Image, angle: float, interpolation: Any = InterpolationMode.NEAREST, expand: bool = False,
           center: Sequence[float] | None = None, fill: Any = 0) -> Image:
    """Counter-clockwise by `angle` degrees about `center` (x, y) or the middle; `expand` makes room for the corners."""
    resample = _resample(interpolation)
    middle = None if center is None else (center[0], center[1])
    if not isinstance(img, Tensor):
        return img.rotate(angle, resample, expand, middle, fillcolor=_filling(img, fill))
    fills = list(fill) if isinstance(fill, Sequence) else [fill]
    return _by_planes(img, lambda plane, channel: plane.rotate(
        angle, resample, expand, middle, fillcolor=_filling(plane, fills[channel % len(fills)])))
