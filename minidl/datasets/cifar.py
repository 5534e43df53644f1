"""CIFAR-10, in its binary format."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minidl.datasets.files import data_root, not_found, read_bytes
from minidl.datasets.images import ImagesInMemory, Transform
from minidl.errors import MinidlError

_RECORD = 1 + 3 * 32 * 32                   # a label, then red, green and blue, each 32×32


class CIFAR10(ImagesInMemory):
    """Small photographs of ten kinds of things: 50,000 to train on and 10,000 to test with, 32×32 pixels in colour.

    data: uint8 array (N, 32, 32, 3); targets: list of N ints. A sample is (PIL image, int), then the transforms.
    root: the folder of the datasets (else the environment's MINIDL_DATA, else data/); data_batch_*.bin and
    test_batch.bin may be in root/cifar-10-batches-bin, below a folder root/cifar10* or in root itself, and may have any
    number of records. download=True fetches them (170 MB) into root/cifar-10-batches-bin if they are not there.

    Ref: Krizhevsky 2009, "Learning multiple layers of features from tiny images"
    """

    classes: ClassVar[list[str]] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                                    "truck"]
    mirrors: ClassVar[Sequence[str]] = ("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",)
    sha256: ClassVar[str] = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"      # of the archive
    members: ClassVar[Sequence[str]] = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin",
                                        "batches.meta.txt")

    def __init__(self, root: Any = None, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        folder = data_root(root)
        super().__init__(folder, train, transform, target_transform)
        paths = self._find(folder, train)
        if not paths and download:
            self._fetch(folder)
            paths = self._find(folder, train)
        if not paths:
            raise not_found("CIFAR10", folder, ["cifar-10-batches-bin", "cifar10*", ""],
                            ["data_batch_1.bin" if train else "test_batch.bin"],
                            "use download=True, set root or MINIDL_DATA; the pickled version of CIFAR-10 is not read")
        records = np.concatenate([_read(path) for path in paths])
        # (N, 3072) -> (N, 3, 32, 32) -> (N, 32, 32, 3)
        self.data = np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        self.targets = records[:, 0].tolist()

    @staticmethod
    def _find(root: Path, train: bool) -> list[Path]:
        below = [place for near in sorted(root.glob("cifar10*")) for place in (near / "cifar-10-batches-bin", near)]
        for folder in (root / "cifar-10-batches-bin", *below, root):
            paths = sorted(folder.glob("data_batch_*.bin")) if train else [folder / "test_batch.bin"]
            if paths and all(path.is_file() for path in paths):
                return paths
        return []

    def _fetch(self, root: Path) -> None:
        from minidl.datasets.download import download, writing

        archive, home = root / "cifar-10-binary.tar.gz", root / "cifar-10-batches-bin"
        download(self.mirrors, archive, self.sha256, "CIFAR10", unpacked=False)
        part = root / "cifar-10-batches-bin.part"           # not `home`: there, a part of the batches counts as a set
        try:
            with writing(home, "CIFAR10"), tarfile.open(archive) as tar:
                part.mkdir(exist_ok=True)
                for member in self.members:                 # by name: nothing else in an archive is written anywhere
                    content = tar.extractfile(f"cifar-10-batches-bin/{member}")
                    assert content is not None, f"{member} is no file"
                    (part / member).write_bytes(content.read())
                if home.is_dir():
                    for member in self.members:
                        os.replace(part / member, home / member)
                else:
                    os.replace(part, home)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _read(path: Path) -> np.ndarray:
    """Records (N, 3073) of a file."""
    content = read_bytes(path, "CIFAR10")
    if len(content) == 0 or len(content) % _RECORD:
        raise MinidlError(f"got {path} with {len(content):,} bytes, expected a multiple of {_RECORD:,}, the size of an "
                          f"image and its label; delete it and load it again", where="CIFAR10")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    wrong = np.flatnonzero(records[:, 0] > 9)
    if wrong.size:
        raise MinidlError(f"got {path}, whose record {wrong[0]} has the label {records[wrong[0], 0]}, expected 0 to 9; "
                          f"delete it and load it again", where="CIFAR10")
    return records
