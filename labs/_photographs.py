"""The sample photographs that come with libraries: a few real images in colour, for networks that are not trained here.

scikit-learn, which is always here, brings two. scikit-image, which need not be here, brings more; of those that lie in
its package the photographs of things are taken. SciPy downloads its own, so it has none to bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import minidl
from minidl import Tensor
from minidl.transforms import InterpolationMode
from minidl.transforms.functional import crop, pil_to_tensor, resize

# name in skimage.data -> its file, and the classes of ImageNet that are right for it, by their index; none where what
# it shows has no class of its own. They are a tabby to an Egyptian cat; a coffee mug, espresso and a cup; a missile and
# a projectile.
OF_SKIMAGE: dict[str, tuple[str, tuple[int, ...]]] = {
    "astronaut": ("astronaut.png", ()), "chelsea": ("chelsea.png", (281, 282, 283, 284, 285)),
    "coffee": ("coffee.png", (504, 967, 968)), "rocket": ("rocket.jpg", (657, 744)),
}


@dataclass(frozen=True)
class Photograph:
    """A photograph (H, W, 3) of bytes, in RGB; where it is from; and the classes of ImageNet that are right for it."""

    name: str
    library: str
    pixels: np.ndarray
    expected: tuple[int, ...] = ()


def photographs() -> list[Photograph]:
    """All that are on this machine: nothing is downloaded."""
    samples = load_sample_images()
    found = [Photograph(Path(name).stem, "scikit-learn", pixels)
             for name, pixels in zip(samples.filenames, samples.images, strict=True)]
    try:
        from skimage import data
    except ImportError:
        return found
    folder = Path(data.__file__).parent                         # what is not in it, skimage.data would download
    return found + [Photograph(name, "scikit-image", getattr(data, name)(), expected)
                    for name, (file, expected) in OF_SKIMAGE.items() if (folder / file).is_file()]


def squares(of: Sequence[Photograph], side: int) -> Tensor:
    """The square in the middle of each, resized (bicubic): bytes (N, 3, side, side), as the networks take them."""
    parts = []
    for photograph in of:
        height, width = photograph.pixels.shape[:2]
        edge = min(height, width)
        top, left = (height - edge) // 2, (width - edge) // 2
        square = crop(Image.fromarray(photograph.pixels), top, left, edge, edge)
        resized = resize(square, [side, side], InterpolationMode.BICUBIC)
        parts.append(pil_to_tensor(resized))                    # (side, side, 3) -> (3, side, side)
    return minidl.stack(parts)
