"""Transforms that convert images, and those that put others together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl import creation
from minidl.data.worker import current_generator
from minidl.errors import SettingError
from minidl.nn.containers import ModuleList
from minidl.nn.module import Module
from minidl.tensors import Tensor
from minidl.transforms.checks import probability
from minidl.transforms.images import (
    channels_first,
    check_mean_and_std,
    convert_image_dtype,
    image_dtype,
    normalize,
    pil_to_tensor,
    scaled,
    to_pil_image,
    to_tensor,
)


def draw() -> float:
    """A random number between 0 and 1, from the generator of the batch in a DataLoader, else the global one."""
    return current_generator().numpy.random()


class Transform(Module):
    """A transform with settings, which are shown when it is printed. It may be a layer of a model, too."""

    shown: tuple[str, ...] = ()

    def __repr__(self) -> str:
        settings = ((name, getattr(self, name)) for name in self.shown)
        shown = [f"{name}={getattr(value, 'value', value)}" for name, value in settings]
        return f"{type(self).__name__}({', '.join(shown)})"


class Compose:
    """Transforms one after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = check_transforms(transforms, "Compose")

    def __call__(self, img: Any) -> Any:
        """The image after the last transform."""
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        return "\n".join([f"{type(self).__name__}(", *(f"    {transform}" for transform in self.transforms), ")"])


class RandomApply:
    """All of the given transforms, with probability p; else none of them."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5) -> None:
        self.transforms = check_transforms(transforms, "RandomApply")
        self.p = probability(p, "RandomApply")

    def __call__(self, img: Any) -> Any:
        """The image, transformed or as it is."""
        if draw() < self.p:
            for transform in self.transforms:
                img = transform(img)
        return img

    def __repr__(self) -> str:
        return "\n".join([f"{type(self).__name__}(", f"    p={self.p}",
                          *(f"    {transform}" for transform in self.transforms), ")"])


def check_transforms(transforms: Any, where: str) -> Any:
    """The list of transforms, if it is one."""
    if not isinstance(transforms, Sequence | ModuleList) or isinstance(transforms, str) \
            or not all(callable(step) for step in transforms):
        raise SettingError(f"got {transforms!r}, expected a list of transforms: {where}([ToTensor(), …])", where=where)
    return transforms


class Lambda(Transform):
    """A function as a transform."""

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        super().__init__()
        if not callable(lambd):
            raise SettingError(f"got {lambd!r}, expected a function", where="Lambda")
        self.lambd = lambd

    def forward(self, img: Any) -> Any:
        """What the function returns."""
        return self.lambd(img)


class ToTensor(Transform):
    """A PIL image or an array (H, W[, C]) becomes a tensor (C, H, W); bytes become float32 between 0 and 1."""

    def forward(self, pic: Any) -> Tensor:
        """(H, W) or (H, W, C) -> (C, H, W)."""
        return to_tensor(pic)


class PILToTensor(Transform):
    """A PIL image becomes a tensor (C, H, W) of the same numbers: bytes stay bytes."""

    def forward(self, pic: Any) -> Tensor:
        """(H, W) or (H, W, C) -> (C, H, W)."""
        return pil_to_tensor(pic)


class ToPILImage(Transform):
    """A tensor (C, H, W) or an array (H, W[, C]) becomes a PIL image; floats of a tensor count from 0 to 1."""

    def __init__(self, mode: str | None = None) -> None:
        super().__init__()
        self.mode = mode
        self.shown = () if mode is None else ("mode",)

    def forward(self, pic: Any) -> Any:
        """(C, H, W) -> a PIL image."""
        return to_pil_image(pic, self.mode)


class ConvertImageDtype(Transform):
    """A tensor in another number type: floats count from 0 to 1, integers from 0 to their largest."""

    def __init__(self, dtype: Any) -> None:
        super().__init__()
        self.dtype = image_dtype(dtype)

    def forward(self, image: Tensor) -> Tensor:
        """(…) -> (…) of the new type."""
        return convert_image_dtype(image, self.dtype)


class Normalize(Transform):
    """y[c] = (x[c] - mean[c]) / std[c], for one image (C, H, W) or many (…, C, H, W) of floats.

    It can be the first layer of a model, and gradients flow through it.
    """

    shown = ("mean", "std")

    def __init__(self, mean: Any, std: Any, inplace: bool = False) -> None:
        super().__init__()
        mean, std = (values.tolist() if hasattr(values, "tolist") else values for values in (mean, std))
        check_mean_and_std(mean, std)
        self.mean, self.std, self.inplace = mean, std, inplace

    def forward(self, tensor: Tensor) -> Tensor:
        """(…, C, H, W) -> (…, C, H, W)."""
        return normalize(tensor, self.mean, self.std, self.inplace)


# -- many images at once -------------------------------------------------------------------------------------------

def for_batches(transform: Any) -> Callable[[np.ndarray], Tensor] | None:
    """The transform as a function of a whole stack of byte images (N, H, W[, C]), or None if there is no such thing.

    There is if it begins with ToTensor or PILToTensor and goes on with Normalize and ConvertImageDtype: those compute
    every number from one number, so the batch holds exactly what the images would one by one. A subclass may do
    something else, so it does not count.
    """
    steps = _steps(transform)
    if not steps or type(steps[0]) not in (ToTensor, PILToTensor) \
            or any(type(step) not in (Normalize, ConvertImageDtype) for step in steps[1:]):
        return None

    def apply(images: np.ndarray) -> Tensor:
        array = channels_first(images if images.ndim == 4 else images[..., None])          # -> (N, C, H, W)
        batch = creation.from_numpy(scaled(array) if type(steps[0]) is ToTensor else array)
        for step in steps[1:]:
            batch = step(batch)
        return batch
    return apply


def _steps(transform: Any) -> list[Any]:
    if type(transform) is Compose:
        return [step for part in transform.transforms for step in _steps(part)]
    return [transform]
