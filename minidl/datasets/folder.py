"""Pictures in folders, a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidl.datasets.images import ImageDataset, Transform
from minidl.errors import MinidlError

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def default_loader(path: str) -> Any:
    """The picture in a file, as a PIL image in RGB."""
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")


class ImageFolder(ImageDataset):
    """root/dog/one.png, root/cat/2/other.jpg, …: a sample is (picture, number of its class), then the transforms.

    classes: the names of the folders, sorted; class_to_idx: name -> number; samples (and imgs): (path, number);
    targets: the numbers. loader: reads a file (as RGB if not given). is_valid_file: says which files are pictures, by
    their path (those with a usual ending if not given). allow_empty: whether a class may be without pictures.
    """

    def __init__(self, root: Any, transform: Transform | None = None, target_transform: Transform | None = None,
                 loader: Callable[[str], Any] = default_loader, is_valid_file: Callable[[str], bool] | None = None,
                 allow_empty: bool = False) -> None:
        folder = Path(root).expanduser()
        super().__init__(folder, transform, target_transform)
        if not folder.is_dir():
            raise MinidlError(f"got {folder}, which is no folder, expected one with a folder for each class",
                              where="ImageFolder")
        self.loader = loader
        self.classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
        if not self.classes:
            raise MinidlError(f"got {folder}, which has no folders in it, expected one for each class",
                              where="ImageFolder")
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        is_picture = is_valid_file or (lambda path: path.lower().endswith(IMG_EXTENSIONS))
        self.samples: list[tuple[str, int]] = []
        for name, number in self.class_to_idx.items():
            paths = [os.path.join(place, file) for place, _, files in sorted(os.walk(folder / name, followlinks=True))
                     for file in sorted(files)]
            pictures = [path for path in paths if is_picture(path)]
            if not pictures and not allow_empty:
                raise MinidlError(f"got {folder / name} with {len(paths)} files and no picture among them, expected "
                                  f"{', '.join(IMG_EXTENSIONS)}; or set allow_empty=True", where="ImageFolder")
            self.samples += [(path, number) for path in pictures]
        self.imgs = self.samples
        self.targets = [number for _, number in self.samples]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, number = self.samples[index]
        try:
            image = self.loader(path)
        except Exception as error:
            error.add_note(f"while ImageFolder read {path}")
            raise
        return self.changed(image, number)

    def __len__(self) -> int:
        return len(self.samples)
