"""Images in other colours: grey, brighter, with more contrast, more or less colourful, or of another hue.

All but the hue are one formula, `mix`: between the image and what it would be without the quality that is adjusted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import creation
from minidl.errors import DtypeError, MinidlError, SettingError, ShapeError
from minidl.tensors import Tensor
from minidl.transforms.checks import numbers
from minidl.transforms.images import Image, get_dimensions, on_images

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

_LUMA = (0.2989, 0.587, 0.114)                                    # how bright red, green and blue appear


def _colours(image: Tensor) -> np.ndarray:
    """The numbers (…, C, H, W) of an image in shades of grey or in red, green and blue."""
    channels = get_dimensions(image)[0]
    if channels not in (1, 3):
        raise ShapeError(f"got {channels} channels, expected 1 or 3: (…, 1 or 3, H, W), or (H, W, 1 or 3) in an array",
                         where="colours")
    if image.dtype == bool:
        raise DtypeError("got an image of booleans, expected bytes or floats; use x.float()", where="colours")
    return image.numpy()


def _white(x: np.ndarray) -> float:
    return 1.0 if x.dtype.kind == "f" else float(np.iinfo(x.dtype).max)


def _grey(x: np.ndarray) -> np.ndarray:
    """(…, 3, H, W) -> (…, 1, H, W)."""
    if x.shape[-3] == 1:
        return x
    red, green, blue = (np.take(x, [channel], axis=-3) for channel in range(3))
    return np.asarray(_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).astype(x.dtype)


def _mixed(x: np.ndarray, other: Any, factor: float) -> Tensor:
    """factor · x + (1 - factor) · other, kept between black and white."""
    mix = factor * x.astype(np.result_type(x, np.float32)) + (1 - factor) * other
    return creation.from_numpy(mix.clip(0, _white(x)).astype(x.dtype))


def _by_pillow(image: PILImage, change: Callable[[PILImage], PILImage]) -> PILImage:
    try:
        return change(image)
    except ValueError:
        raise DtypeError(f'got a PIL image of mode "{image.mode}", expected "L" or "RGB"; use image.convert("RGB")',
                         where="colours") from None


def _check_factor(factor: Any, name: str, where: str) -> None:
    numbers(factor, name, where, "a number, 0 or more", (1,), low=0)


def check_output_channels(count: Any, where: str) -> None:
    """Raise unless it is 1 or 3."""
    if count not in (1, 3):
        raise SettingError(f"got num_output_channels={count!r}, expected 1 or 3", where=where)


@on_images
def rgb_to_grayscale(img: Image, num_output_channels: int = 1) -> Image:
    """In shades of grey, 0.299 R + 0.587 G + 0.114 B, in one channel or in three equal ones."""
    check_output_channels(num_output_channels, "rgb_to_grayscale")
    if isinstance(img, Tensor):
        return creation.from_numpy(np.repeat(_grey(_colours(img)), num_output_channels, axis=-3))
    grey = _by_pillow(img, lambda image: image.convert("L"))
    return grey if num_output_channels == 1 else grey.convert("RGB")


to_grayscale = rgb_to_grayscale


@on_images
def adjust_brightness(img: Image, brightness_factor: float) -> Image:
    """0 is black, 1 the image itself, 2 twice as bright."""
    _check_factor(brightness_factor, "brightness_factor", "adjust_brightness")
    if isinstance(img, Tensor):
        return _mixed(_colours(img), np.zeros((), np.float32), brightness_factor)
    from PIL import ImageEnhance

    return _by_pillow(img, lambda image: ImageEnhance.Brightness(image).enhance(brightness_factor))


@on_images
def adjust_contrast(img: Image, contrast_factor: float) -> Image:
    """0 is all grey, 1 the image itself, 2 twice the contrast."""
    _check_factor(contrast_factor, "contrast_factor", "adjust_contrast")
    if isinstance(img, Tensor):
        x = _colours(img)
        return _mixed(x, _grey(x).mean(axis=(-3, -2, -1), keepdims=True, dtype=np.float32), contrast_factor)
    from PIL import ImageEnhance

    return _by_pillow(img, lambda image: ImageEnhance.Contrast(image).enhance(contrast_factor))


@on_images
def adjust_saturation(img: Image, saturation_factor: float) -> Image:
    """0 is black and white, 1 the image itself, 2 twice as colourful."""
    _check_factor(saturation_factor, "saturation_factor", "adjust_saturation")
    if isinstance(img, Tensor):
        x = _colours(img)
        return _mixed(x, _grey(x), saturation_factor)
    from PIL import ImageEnhance

    return _by_pillow(img, lambda image: ImageEnhance.Color(image).enhance(saturation_factor))


@on_images
def adjust_hue(img: Image, hue_factor: float) -> Image:
    """Colours turned around the colour circle: 0 not at all, ±0.5 to their opposites. Grey images stay as they are."""
    numbers(hue_factor, "hue_factor", "adjust_hue", "-0.5 to 0.5", (1,), -0.5, 0.5)
    if not isinstance(img, Tensor):
        return _by_pillow(img, lambda image: _turned(image, hue_factor))
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    x = _colours(img)
    if x.shape[-3] == 1:
        return img
    white = _white(x)
    if x.min() < 0 or x.max() > white:
        raise MinidlError(f"got an image with numbers from {x.min():g} to {x.max():g}, expected 0 to {white:g}; does "
                          f"it come after Normalize? put it before", where="adjust_hue")
    hsv = rgb_to_hsv(np.moveaxis(x, -3, -1) / white)                        # -> (…, H, W, 3)
    hsv[..., 0] = (hsv[..., 0] + hue_factor) % 1
    rgb = np.moveaxis(hsv_to_rgb(hsv), -1, -3) * white
    return creation.from_numpy((rgb if x.dtype.kind == "f" else np.rint(rgb)).astype(x.dtype))


def _turned(image: PILImage, hue_factor: float) -> PILImage:
    from PIL import Image

    if Image.getmodebase(image.mode) == "L":                                # nothing but shades of grey
        return image
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] += np.uint8(int(hue_factor * 255) % 256)                    # a circle: bytes wrap around
    turned = Image.frombytes("HSV", image.size, hsv.tobytes()).convert(image.mode)
    if "A" in image.getbands():                                             # HSV has no place for it
        turned.putalpha(image.getchannel("A"))
    return turned
