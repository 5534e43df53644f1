"""Pictures in folders, a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minidl.datasets.images import ImageDataset, Transform
from minidl.errors import MinidlError, SettingError

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def default_loader(path: str) -> Any:
    """The picture in a file, as a PIL image in RGB."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            mode = picture.mode
            if not mode.startswith(("I", "F")):             # the wider types, of which RGB would keep white and black
                return picture.convert("RGB")
    except Exception as error:                              # Pillow has a dozen kinds of them for damaged files
        why = "of no kind that is known" if isinstance(error, UnidentifiedImageError) else f"{error}"
        raise MinidlError(f"got {path}, which cannot be read as a picture ({why}), expected a whole one; delete it or "
                          f"save it again", where="ImageFolder") from error
    raise MinidlError(f'got {path}, whose pixels are wider than bytes (mode "{mode}"), expected a picture that RGB can '
                      f"hold; convert it, or give ImageFolder a loader", where="ImageFolder")


def _files_below(folder: Path) -> list[str]:
    """The paths of all files below a folder, sorted, subfolder by subfolder."""
    def refuse(error: OSError) -> None:
        raise MinidlError(f"got {error.filename}, which cannot be looked into ({error.strerror}), expected a folder "
                          f"that can; move it away, or change who may", where="ImageFolder") from None

    return [os.path.join(place, file) for place, _, files in sorted(os.walk(folder, onerror=refuse, followlinks=True))
            for file in sorted(files)]


class ImageFolder(ImageDataset):
    """root/dog/one.png, root/cat/2/other.jpg, …: a sample is (picture, number of its class), then the transforms.

    classes: the names of the folders, sorted; class_to_idx: name -> number; samples (and imgs): (path, number);
    targets: the numbers. loader: reads a file (as RGB if not given). is_valid_file: says which files are pictures, by
    their path (those with a usual ending if not given). allow_empty: whether a class may be without pictures.
    """

    def __init__(self, root: Any, transform: Transform | None = None, target_transform: Transform | None = None,
                 loader: Callable[[str], Any] = default_loader, is_valid_file: Callable[[str], bool] | None = None,
                 allow_empty: bool = False) -> None:
        if not isinstance(root, str | os.PathLike):
            raise SettingError(f"got root={root!r}, expected the path of a folder", where="ImageFolder")
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
            paths = _files_below(folder / name)
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
            if self.loader is not default_loader:           # whose errors say it themselves
                error.add_note(f"while ImageFolder read {path}")
            raise
        return self.changed(image, number)

    def __len__(self) -> int:
        return len(self.samples)
