"""Many images as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl import creation
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.tensors import Tensor


def make_grid(tensor: Tensor | Sequence[Tensor], nrow: int = 8, padding: int = 2, normalize: bool = False,
              value_range: tuple[float, float] | None = None, scale_each: bool = False,
              pad_value: float = 0.0) -> Tensor:
    """Images side by side, `nrow` of them in a row, with `padding` pixels of `pad_value` around each of them.

    tensor: (N, C, H, W), a list of (C, H, W), one image (C, H, W) or (H, W). Grey images get three equal channels; one
    image alone is returned without a border. normalize: shift and scale to 0…1, from `value_range` (smallest, largest),
    or the numbers' own, of each image by itself if `scale_each`.
    """
    images = _stack(tensor)
    if nrow < 1 or padding < 0:
        raise SettingError(f"got nrow={nrow} and padding={padding}, expected 1 or more and 0 or more",
                           where="make_grid")
    if images.shape[1] == 1:
        images = np.repeat(images, 3, axis=1)
    if normalize:
        if images.dtype.kind != "f":
            raise DtypeError(f"got images of {images.dtype} and normalize=True, expected floats; use x.float()",
                             where="make_grid")
        if value_range is not None and not (isinstance(value_range, tuple) and len(value_range) == 2):
            raise SettingError(f"got value_range={value_range}, expected (smallest, largest)", where="make_grid")
        groups = images if scale_each else [images]
        images = np.stack([_normalized(x, value_range) for x in groups]).reshape(images.shape)
    if len(images) == 1:
        return creation.from_numpy(images[0].copy())

    count, channels, height, width = images.shape
    columns = min(nrow, count)
    rows = math.ceil(count / columns)
    cell_h, cell_w = height + padding, width + padding
    grid = np.full((channels, rows * cell_h + padding, columns * cell_w + padding), pad_value, images.dtype)
    for i, image in enumerate(images):
        top, left = i // columns * cell_h + padding, i % columns * cell_w + padding
        grid[:, top:top + height, left:left + width] = image
    return creation.from_numpy(grid)


def _stack(tensor: Any) -> np.ndarray:
    """(N, C, H, W) from anything that `make_grid` takes."""
    parts = list(tensor) if isinstance(tensor, list | tuple) else [tensor]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise DtypeError(f"got {type(parts[0] if parts else tensor).__name__}, expected a tensor or a list of tensors",
                         where="make_grid")
    if any(part.shape != parts[0].shape for part in parts):
        raise ShapeError(f"got images of the shapes {sorted({part.shape for part in parts})}, expected one shape",
                         where="make_grid")
    arrays = [part.detach().cpu().numpy() for part in parts]
    images = np.stack(arrays) if isinstance(tensor, list | tuple) else arrays[0]
    if not 2 <= images.ndim <= 4 or images.size == 0:
        raise ShapeError(f"got shape {images.shape}, expected images (N, C, H, W)", where="make_grid")
    return images.reshape((1,) * (4 - images.ndim) + images.shape)          # (H, W), (C, H, W) -> (1, C, H, W)


def _normalized(x: np.ndarray, value_range: tuple[float, float] | None) -> np.ndarray:
    low, high = (float(x.min()), float(x.max())) if value_range is None else value_range
    return (x.clip(low, high) - low) / max(high - low, 1e-5)


def save_image(tensor: Tensor | Sequence[Tensor], fp: Any, format: str | None = None, **kwargs: Any) -> None:
    """Write images whose numbers go from 0 to 1 to a file, as one picture.

    fp: a path (its ending decides about the format) or an open file with `format` ("PNG"). kwargs: as in `make_grid`.
    """
    from PIL import Image

    grid = make_grid(tensor, **kwargs).numpy()
    pixels = (grid * 255.0 + 0.5).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)        # -> (H, W, C)
    Image.fromarray(np.ascontiguousarray(pixels)).save(fp, format=format)
