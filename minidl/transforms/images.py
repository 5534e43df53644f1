"""The three kinds of images, PIL's, tensors (…, C, H, W) and arrays (H, W[, C]), and the ways between them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minidl import creation, dtypes
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.tensors import Tensor
from minidl.transforms.checks import numbers

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Image: TypeAlias = Any                      # a PIL image, a tensor or an array


def is_pil(image: Any) -> bool:
    """Whether this is a PIL image."""
    from PIL import Image

    return isinstance(image, Image.Image)


def check_image(image: Image, where: str) -> None:
    """Raise unless this is a PIL image, a tensor (…, C, H, W) or (H, W), or an array (H, W) or (H, W, C)."""
    is_array = isinstance(image, np.ndarray)
    if not (is_array and image.ndim in (2, 3)) and not (isinstance(image, Tensor) and image.ndim >= 2) \
            and not is_pil(image):
        got = type(image).__name__ + (f" of shape {image.shape}" if is_array or isinstance(image, Tensor) else "")
        raise DtypeError(f"got a {got}, expected a PIL image, a tensor (…, C, H, W) or an array (H, W) or (H, W, C)",
                         where=where)
    if 0 in (image.size if is_pil(image) else image.shape):
        got = f"a PIL image of the size {image.size}" if is_pil(image) else f"an image of shape {image.shape}"
        raise ShapeError(f"got {got}, expected at least one pixel", where=where)


def get_dimensions(image: Image) -> list[int]:
    """[channels, height, width]."""
    check_image(image, "get_dimensions")
    if isinstance(image, Tensor):
        return [image.shape[-3] if image.ndim > 2 else 1, *image.shape[-2:]]
    if isinstance(image, np.ndarray):
        return [image.shape[2] if image.ndim > 2 else 1, *image.shape[:2]]
    return [len(image.getbands()), image.height, image.width]


def on_images(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of PIL images and tensors (…, C, H, W) take arrays and tensors (H, W), and nothing else."""
    @functools.wraps(function)
    def checked(image: Image, *args: Any, **kwargs: Any) -> Image:
        check_image(image, function.__name__)
        if isinstance(image, np.ndarray):
            channels_first = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)       # -> (C, H, W)
            changed = function(creation.from_numpy(channels_first), *args, **kwargs).numpy()
            return changed[0] if image.ndim == 2 and len(changed) == 1 else changed.transpose(1, 2, 0)
        if isinstance(image, Tensor) and image.ndim == 2:
            changed = function(image[None], *args, **kwargs)
            return changed[0] if len(changed) == 1 else changed
        return function(image, *args, **kwargs)
    return checked


def channels_first(images: np.ndarray) -> np.ndarray:
    """(…, H, W, C) -> (…, C, H, W), in C order."""
    return np.ascontiguousarray(np.moveaxis(images, -1, -3))


def scaled(images: np.ndarray) -> np.ndarray:
    """Bytes 0…255 as float32 0…1; other types as they are."""
    return np.divide(images, np.float32(255), dtype=np.float32) if images.dtype == np.uint8 else images


def to_tensor(pic: Any) -> Tensor:
    """A PIL image or an array (H, W[, C]) as a tensor (C, H, W); bytes become float32 between 0 and 1."""
    if isinstance(pic, Tensor):
        raise DtypeError("got a tensor already, expected a PIL image or an array; leave out ToTensor(), or use "
                         "ConvertImageDtype(minidl.float32) if it holds bytes", where="to_tensor")
    if is_pil(pic):
        return creation.from_numpy(scaled(pil_to_tensor(pic).numpy()))
    if not isinstance(pic, np.ndarray):
        raise DtypeError(f"got a {type(pic).__name__}, expected a PIL image or an array (H, W) or (H, W, C)",
                         where="to_tensor")
    if pic.ndim not in (2, 3):
        raise ShapeError(f"got an array of shape {pic.shape}, expected (H, W) or (H, W, C)", where="to_tensor")
    return creation.from_numpy(scaled(channels_first(pic if pic.ndim == 3 else pic[:, :, None])))


def pil_to_tensor(pic: PILImage) -> Tensor:
    """A PIL image as a tensor (C, H, W) of the same numbers: bytes stay bytes."""
    if not is_pil(pic):
        raise DtypeError(f"got a {type(pic).__name__}, expected a PIL image", where="pil_to_tensor")
    array = np.array(pic)
    if pic.mode == "1":                                     # black and white: 0 and 255, as in the other modes
        array = array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.itemsize == 2:     # a type that tensors do not have
        array = array.astype(np.int32)
    return creation.from_numpy(channels_first(array if array.ndim == 3 else array[:, :, None]))


def to_pil_image(pic: Any, mode: str | None = None) -> PILImage:
    """A tensor (H, W) or (C, H, W), or an array (H, W[, C]), as a PIL image; floats of a tensor count from 0 to 1."""
    from PIL import Image

    if not isinstance(pic, Tensor | np.ndarray) or pic.ndim not in (2, 3):
        got = f"shape {pic.shape}" if isinstance(pic, Tensor | np.ndarray) else type(pic).__name__
        raise ShapeError(f"got {got}, expected one image: a tensor (C, H, W) or an array (H, W, C)",
                         where="to_pil_image")
    if isinstance(pic, Tensor):
        array = pic.numpy()
        if pic.is_floating_point() and mode != "F":
            array = (array * 255).clip(0, 255).astype(np.uint8)
        array = array if array.ndim == 2 else array.transpose(1, 2, 0)      # -> (H, W, C)
    else:
        array = pic
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    channels = 1 if array.ndim == 2 else array.shape[2]
    known = {(1, "uint8"): ("L",), (1, "int16"): ("I;16",), (1, "int32"): ("I",), (1, "float32"): ("F",),
             (2, "uint8"): ("LA",), (3, "uint8"): ("RGB", "YCbCr", "HSV"), (4, "uint8"): ("RGBA", "CMYK", "RGBX")}
    modes = known.get((channels, array.dtype.name), ())
    if mode not in (None, *modes) or not modes:
        raise DtypeError(f"got {channels} channels of {array.dtype} and mode={mode!r}, expected "
                         f"{' or '.join(modes) or 'bytes'}" + ("" if modes else "; convert to uint8 first"),
                         where="to_pil_image")
    if (mode or modes[0]) == modes[0] and modes[0] != "I;16":
        return Image.fromarray(np.ascontiguousarray(array))
    size = (array.shape[1], array.shape[0])
    return Image.frombytes(mode or modes[0], size, np.ascontiguousarray(array).tobytes())


def image_dtype(dtype: Any) -> Any:
    """A number type for images: any but booleans."""
    found = None if dtype is None else dtypes.known(dtype)
    if found is None or found.kind == "b":
        raise DtypeError(f"got {dtype}, expected a type of floats or whole numbers, such as minidl.float32",
                         where="convert_image_dtype")
    return found


def convert_image_dtype(image: Tensor, dtype: Any = dtypes.float32) -> Tensor:
    """The same picture in another number type: floats count from 0 to 1, integers from 0 to their largest."""
    dtype = image_dtype(dtype)
    if not isinstance(image, Tensor) or image.dtype.kind == "b":
        got = f"a tensor of {image.dtype}" if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise DtypeError(f"got {got}, expected a tensor of floats or whole numbers; put ToTensor() or PILToTensor() "
                         f"before it", where="convert_image_dtype")
    if image.dtype == dtype:
        return image
    to_float, from_float = dtypes.is_floating(dtype), image.is_floating_point()
    if to_float:
        return image.to(dtype) if from_float else image.to(dtype) / _largest(image.dtype)
    largest = _largest(dtype)
    if from_float:
        if dtype.itemsize >= image.dtype.itemsize:
            raise DtypeError(f"got {image.dtype} to be made {dtype}, which has more whole numbers than the floats can "
                             f"tell apart; use a smaller integer type or larger floats", where="convert_image_dtype")
        return (image * (largest + 1 - 1e-3)).to(dtype)
    ratio = (largest + 1) / (_largest(image.dtype) + 1)
    array = image.numpy()
    if ratio < 1:
        return creation.from_numpy((array // int(1 / ratio)).astype(dtype))
    return creation.from_numpy(array.astype(dtype) * dtype.type(int(ratio)))


def _largest(dtype: Any) -> int:
    return int(np.iinfo(dtype).max)


def check_mean_and_std(mean: Any, std: Any) -> tuple[list[float], list[float]]:
    """Both as lists, of one number or of one a channel."""
    m, s = (numbers(values, name, "Normalize", "a number, or one for each channel")
            for name, values in (("mean", mean), ("std", std)))
    if not m or not s or (len(m) != len(s) and 1 not in (len(m), len(s))):
        raise SettingError(f"got {len(m)} means and {len(s)} standard deviations, expected one of each a channel",
                           where="Normalize")
    if 0 in s:
        raise SettingError(f"got std={std}, expected no 0: it is divided by", where="Normalize")
    return m, s


def normalize(tensor: Tensor, mean: Any, std: Any, inplace: bool = False) -> Tensor:
    """y[c] = (x[c] - mean[c]) / std[c], for one image (C, H, W) or many (…, C, H, W) of floats."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = f"a tensor of {tensor.dtype}" if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise DtypeError(f"got {got}, expected a tensor of floats; put ToTensor() or ConvertImageDtype(minidl.float32) "
                         f"before Normalize", where="Normalize")
    m, s = (np.asarray(values, tensor.dtype) for values in check_mean_and_std(mean, std))
    channels = tensor.shape[-3] if tensor.ndim >= 3 else 0
    if not channels or m.size not in (1, channels) or s.size not in (1, channels):
        raise ShapeError(f"got shape {tensor.shape} with {m.size} means and {s.size} standard deviations, expected "
                         f"(…, C, H, W) with one or C of each", where="Normalize")
    if not s.all():
        raise SettingError(f"got std={std}, expected no 0: it is divided by", where="Normalize")
    centre, spread = (creation.from_numpy(values.reshape(-1, 1, 1)).to(tensor.device) for values in (m, s))
    if inplace:
        tensor -= centre
        tensor /= spread
        return tensor
    return (tensor - centre) / spread
