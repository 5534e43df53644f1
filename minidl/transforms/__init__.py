"""Transforms of images, with the names of `torchvision.transforms`."""

from typing import Any as _Any

from minidl.errors import no_such_name as _no_such_name
from minidl.transforms import functional as functional
from minidl.transforms.augment import (
    CenterCrop,
    ColorJitter,
    Grayscale,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
)
from minidl.transforms.basic import (
    Compose,
    ConvertImageDtype,
    Lambda,
    Normalize,
    PILToTensor,
    RandomApply,
    ToPILImage,
    ToTensor,
)
from minidl.transforms.checks import InterpolationMode

__all__ = [
    "CenterCrop", "ColorJitter", "Compose", "ConvertImageDtype", "Grayscale", "InterpolationMode", "Lambda",
    "Normalize", "PILToTensor", "Pad", "RandomApply", "RandomCrop", "RandomHorizontalFlip", "RandomResizedCrop",
    "RandomRotation", "RandomVerticalFlip", "Resize", "ToPILImage", "ToTensor",
]

_HINTS = {
    "Scale": "use Resize",
    "RandomSizedCrop": "use RandomResizedCrop",
    "ToDtype": "use ConvertImageDtype",
    "ToImage": "use PILToTensor",
    "v2": "the transforms here have the names and the meaning of torchvision.transforms, without v2",
    "RandomGrayscale": "use RandomApply([Grayscale(3)], p)",
}


def __getattr__(name: str) -> _Any:
    raise _no_such_name("minidl.transforms", name, __all__, _HINTS)
