"""Images in other colours: grey, brighter, with more contrast, more or less colourful, or of another hue.

All but the hue are one formula, `mix`: between the image and what it would be without the quality that is adjusted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import creation
from minidl.errors import SettingError, ShapeError
from minidl.tensors import Tensor
from minidl.transforms.images import Image, get_dimensions, is_pil, on_images

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

_LUMA = (0.2989, 0.587, 0.114)                                    # how bright red, green and blue appear


def _grey(x: np.ndarray) -> np.ndarray:
    """(…, 3, H, W) -> (…, 1, H, W)."""
    if x.shape[-3] == 1:
        return x
    if x.shape[-3] != 3:
        raise ShapeError(f"got {x.shape[-3]} channels, expected 1 or 3", where="grayscale")
    red, green, blue = (np.take(x, [channel], axis=-3) for channel in range(3))
    return np.asarray(_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue).astype(x.dtype)


def _mixed(image: Tensor, other: np.ndarray, factor: float) -> Tensor:
    """factor · image + (1 - factor) · other, kept between black and white."""
    x = image.numpy()
    white = 1.0 if x.dtype.kind == "f" else np.iinfo(x.dtype).max
    mix = factor * x.astype(np.result_type(x, np.float32)) + (1 - factor) * other
    return creation.from_numpy(mix.clip(0, white).astype(x.dtype))


def _enhanced(image: PILImage, quality: str, factor: float) -> PILImage:
    from PIL import ImageEnhance

    enhance: Callable[[Any], Any] = getattr(ImageEnhance, quality)
    changed: PILImage = enhance(image).enhance(factor)
    return changed


def _check_factor(factor: float, where: str) -> None:
    if not factor >= 0:
        raise SettingError(f"got the factor {factor}, expected 0 or more", where=where)


@on_images
def rgb_to_grayscale(img: Image, num_output_channels: int = 1) -> Image:
    """In shades of grey, 0.299 R + 0.587 G + 0.114 B, in one channel or in three equal ones."""
    if num_output_channels not in (1, 3):
        raise SettingError(f"got num_output_channels={num_output_channels}, expected 1 or 3", where="grayscale")
    if isinstance(img, Tensor):
        return creation.from_numpy(np.repeat(_grey(img.numpy()), num_output_channels, axis=-3))
    grey = img.convert("L")
    return grey if num_output_channels == 1 else grey.convert("RGB")


to_grayscale = rgb_to_grayscale


@on_images
def adjust_brightness(img: Image, brightness_factor: float) -> Image:
    """0 is black, 1 the image itself, 2 twice as bright."""
    _check_factor(brightness_factor, "adjust_brightness")
    if is_pil(img):
        return _enhanced(img, "Brightness", brightness_factor)
    return _mixed(img, np.zeros((), np.float32), brightness_factor)


@on_images
def adjust_contrast(img: Image, contrast_factor: float) -> Image:
    """0 is all grey, 1 the image itself, 2 twice the contrast."""
    _check_factor(contrast_factor, "adjust_contrast")
    if is_pil(img):
        return _enhanced(img, "Contrast", contrast_factor)
    mean = _grey(img.numpy()).mean(axis=(-3, -2, -1), keepdims=True, dtype=np.float32)
    return _mixed(img, mean, contrast_factor)


@on_images
def adjust_saturation(img: Image, saturation_factor: float) -> Image:
    """0 is black and white, 1 the image itself, 2 twice as colourful."""
    _check_factor(saturation_factor, "adjust_saturation")
    if is_pil(img):
        return _enhanced(img, "Color", saturation_factor)
    return _mixed(img, _grey(img.numpy()), saturation_factor)


@on_images
def adjust_hue(img: Image, hue_factor: float) -> Image:
    """Colours turned around the colour circle: 0 not at all, ±0.5 to their opposites. Grey images stay as they are."""
    if not -0.5 <= hue_factor <= 0.5:
        raise SettingError(f"got hue_factor={hue_factor}, expected -0.5 to 0.5", where="adjust_hue")
    if get_dimensions(img)[0] == 1:
        return img
    if is_pil(img):
        from PIL import Image

        hsv = np.array(img.convert("HSV"))
        hsv[..., 0] += np.uint8(int(hue_factor * 255) % 256)                # a circle: bytes wrap around
        return Image.frombytes("HSV", img.size, hsv.tobytes()).convert(img.mode)
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    x = img.numpy()
    white = 1.0 if x.dtype.kind == "f" else np.iinfo(x.dtype).max
    hsv = rgb_to_hsv(np.moveaxis(x, -3, -1) / white)                        # -> (…, H, W, 3)
    hsv[..., 0] = (hsv[..., 0] + hue_factor) % 1
    rgb = np.moveaxis(hsv_to_rgb(hsv), -1, -3) * white
    return creation.from_numpy((rgb if x.dtype.kind == "f" else np.rint(rgb)).astype(x.dtype))
