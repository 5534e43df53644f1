"""Transforms of size, place and colour. The random ones draw once a call, for all images of a tensor alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minidl.data.worker import current_generator
from minidl.errors import SettingError, ShapeError
from minidl.transforms import color, geometry
from minidl.transforms.basic import Transform, draw
from minidl.transforms.checks import InterpolationMode, fills, interpolation_mode, limits, numbers, probability
from minidl.transforms.geometry import pair
from minidl.transforms.images import Image, get_dimensions

Range = tuple[float, float]


def _between(low: float, high: float) -> float:
    return low + (high - low) * draw()


def _start(have: int, want: int) -> int:
    """Where a part of length `want` begins, at random."""
    return int(current_generator().numpy.integers(have - want + 1))


class Resize(Transform):
    """To `size`: (height, width), or the length of the shorter side; then `max_size` is the most for the longer one."""

    shown = ("size", "interpolation", "max_size", "antialias")

    def __init__(self, size: int | Sequence[int], interpolation: Any = InterpolationMode.BILINEAR,
                 max_size: int | None = None, antialias: bool | None = True) -> None:
        super().__init__()
        geometry.check_size(size, max_size, "Resize")
        self.size, self.max_size, self.antialias = size, max_size, antialias
        self.interpolation = interpolation_mode(interpolation, "Resize")

    def forward(self, img: Image) -> Image:
        """An image of the new size."""
        return geometry.resize(img, self.size, self.interpolation, self.max_size, self.antialias)


class CenterCrop(Transform):
    """The middle, (height, width); with zeros around it where the image is smaller."""

    shown = ("size",)

    def __init__(self, size: int | Sequence[int]) -> None:
        super().__init__()
        self.size = pair(size, "CenterCrop")

    def forward(self, img: Image) -> Image:
        """An image of that size."""
        return geometry.center_crop(img, self.size)


class Pad(Transform):
    """Wider on every side: by `fill`, or by the image's own "edge", "reflect" (without the edge) or "symmetric"."""

    shown = ("padding", "fill", "padding_mode")

    def __init__(self, padding: int | Sequence[int], fill: Any = 0, padding_mode: str = "constant") -> None:
        super().__init__()
        geometry.check_padding(padding, padding_mode, "Pad")
        fills(fill, "Pad")
        self.padding, self.fill, self.padding_mode = padding, fill, padding_mode

    def forward(self, img: Image) -> Image:
        """A larger image."""
        return geometry.pad(img, self.padding, self.fill, self.padding_mode)


class RandomCrop(Transform):
    """A part of this size from anywhere in the image, which is padded first if `padding` says so."""

    shown = ("size", "padding")

    def __init__(self, size: int | Sequence[int], padding: int | Sequence[int] | None = None,
                 pad_if_needed: bool = False, fill: Any = 0, padding_mode: str = "constant") -> None:
        super().__init__()
        geometry.check_padding(0 if padding is None else padding, padding_mode, "RandomCrop")
        fills(fill, "RandomCrop")
        self.size, self.padding, self.pad_if_needed = pair(size, "RandomCrop"), padding, pad_if_needed
        self.fill, self.padding_mode = fill, padding_mode

    def forward(self, img: Image) -> Image:
        """An image of that size."""
        if self.padding is not None:
            img = geometry.pad(img, self.padding, self.fill, self.padding_mode)
        height, width = self.size
        if self.pad_if_needed:
            _, h, w = get_dimensions(img)
            img = geometry.pad(img, [max(0, width - w), max(0, height - h)], self.fill, self.padding_mode)
        _, h, w = get_dimensions(img)
        if h < height or w < width:
            raise ShapeError(f"got an image of {h}×{w}, expected {height}×{width} or more; use pad_if_needed=True",
                             where="RandomCrop")
        return geometry.crop(img, _start(h, height), _start(w, width), height, width)


class RandomResizedCrop(Transform):
    """A part with a random share of the area (`scale`) and a random width / height (`ratio`), resized to `size`.

    Ref: Szegedy et al. 2014, arXiv:1409.4842
    """

    shown = ("size", "scale", "ratio", "interpolation", "antialias")

    def __init__(self, size: int | Sequence[int], scale: Range = (0.08, 1.0), ratio: Range = (3 / 4, 4 / 3),
                 interpolation: Any = InterpolationMode.BILINEAR, antialias: bool | None = True) -> None:
        super().__init__()
        where, expected = "RandomResizedCrop", "(smallest, largest) above 0"
        least = math.ulp(0.0)                               # the smallest number above 0
        self.size, self.antialias = pair(size, where), antialias
        self.scale = limits(scale, "scale", where, expected, least)
        self.ratio = limits(ratio, "ratio", where, expected, least)
        self.interpolation = interpolation_mode(interpolation, where)

    def forward(self, img: Image) -> Image:
        """An image of that size."""
        top, left, height, width = self._part(*get_dimensions(img)[1:])
        part = geometry.crop(img, top, left, height, width)
        return geometry.resize(part, self.size, self.interpolation, None, self.antialias)

    def _part(self, h: int, w: int) -> tuple[int, int, int, int]:
        """top, left, height, width; after ten parts that do not fit, the largest in the middle with a ratio allowed."""
        for _ in range(10):
            area = h * w * _between(*self.scale)
            ratio = math.exp(_between(math.log(self.ratio[0]), math.log(self.ratio[1])))
            height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < height <= h and 0 < width <= w:
                return _start(h, height), _start(w, width), height, width
        height, width = min(h, round(w / self.ratio[0])), min(w, round(h * self.ratio[1]))
        return (h - height) // 2, (w - width) // 2, height, width

    def __repr__(self) -> str:
        rounded = [tuple(round(value, 4) for value in values) for values in (self.scale, self.ratio)]
        return (f"{type(self).__name__}(size={self.size}, scale={rounded[0]}, ratio={rounded[1]}, "
                f"interpolation={self.interpolation.value}, antialias={self.antialias})")


class RandomHorizontalFlip(Transform):
    """Left and right exchanged, with probability p."""

    shown = ("p",)

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = probability(p, type(self).__name__)

    def forward(self, img: Image) -> Image:
        """The image or its mirror image."""
        return geometry.hflip(img) if draw() < self.p else img


class RandomVerticalFlip(RandomHorizontalFlip):
    """Top and bottom exchanged, with probability p."""

    def forward(self, img: Image) -> Image:
        """The image or its mirror image."""
        return geometry.vflip(img) if draw() < self.p else img


class RandomRotation(Transform):
    """Turned by an angle between -degrees and degrees, or between the two that `degrees` gives; see `rotate`."""

    def __init__(self, degrees: float | Sequence[float], interpolation: Any = InterpolationMode.NEAREST,
                 expand: bool = False, center: Sequence[float] | None = None, fill: Any = 0) -> None:
        super().__init__()
        expected = "a number that is not negative, or (smallest, largest)"
        ends = numbers(degrees, "degrees", "RandomRotation", expected, (1, 2))
        low, high = (-ends[0], ends[0]) if len(ends) == 1 else ends
        if low > high:
            raise SettingError(f"got degrees={degrees}, expected {expected}", where="RandomRotation")
        fills(fill, "RandomRotation")
        self.degrees, self.expand, self.fill = [float(low), float(high)], expand, 0 if fill is None else fill
        self.interpolation, self.center = geometry.check_rotation(interpolation, center, "RandomRotation")
        self.shown = ("degrees", "interpolation", "expand", *(["center"] if center is not None else []), "fill")

    def forward(self, img: Image) -> Image:
        """The image, turned."""
        return geometry.rotate(img, _between(*self.degrees), self.interpolation, self.expand, self.center, self.fill)


class Grayscale(Transform):
    """In shades of grey, in one channel or in three equal ones."""

    shown = ("num_output_channels",)

    def __init__(self, num_output_channels: int = 1) -> None:
        super().__init__()
        color.check_output_channels(num_output_channels, "Grayscale")
        self.num_output_channels = num_output_channels

    def forward(self, img: Image) -> Image:
        """The image without its colours."""
        return color.rgb_to_grayscale(img, self.num_output_channels)


class ColorJitter(Transform):
    """Brightness, contrast, saturation and hue changed at random, in random order.

    A number b stands for factors between max(0, 1 - b) and 1 + b, for the hue for shifts between -b and b; two numbers
    are the limits themselves.
    """

    shown = ("brightness", "contrast", "saturation", "hue")

    def __init__(self, brightness: float | Range = 0, contrast: float | Range = 0, saturation: float | Range = 0,
                 hue: float | Range = 0) -> None:
        super().__init__()
        self.brightness = self._limits("brightness", brightness)
        self.contrast = self._limits("contrast", contrast)
        self.saturation = self._limits("saturation", saturation)
        self.hue = self._limits("hue", hue, centre=0.0, least=-0.5, most=0.5)

    @staticmethod
    def _limits(name: str, value: Any, centre: float = 1.0, least: float = 0.0, most: float = math.inf) -> Range | None:
        expected = f"a number that is not negative, or (smallest, largest), between {least} and {most}"
        ends = numbers(value, name, "ColorJitter", expected, (1, 2))
        if len(ends) == 1:
            low, high = centre - ends[0], centre + ends[0]
            low = max(low, least) if name != "hue" else low
        else:
            low, high = ends
        if not least <= low <= high <= most:
            raise SettingError(f"got {name}={value!r}, expected {expected}", where="ColorJitter")
        return None if low == high == centre else (low, high)

    def forward(self, img: Image) -> Image:
        """The image in other colours."""
        changes = [(color.adjust_brightness, self.brightness), (color.adjust_contrast, self.contrast),
                   (color.adjust_saturation, self.saturation), (color.adjust_hue, self.hue)]
        for which in current_generator().numpy.permutation(len(changes)):
            change, limits = changes[which]
            if limits is not None:
                img = change(img, _between(*limits))
        return img
