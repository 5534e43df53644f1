"""MNIST and Fashion-MNIST, from the original files, and MNIST from the CSV files that notebook services carry."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minidl import creation
from minidl.datasets.files import data_root, find_together, not_found, parse_idx, read_payload, verify
from minidl.datasets.images import ImagesInMemory, Transform
from minidl.errors import MinidlError

_DIGITS = ["0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight",
           "9 - nine"]
_FILES = {True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
          False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}


class MNIST(ImagesInMemory):
    """Handwritten digits: 60,000 images of 28×28 bytes to train on and 10,000 to test with, labels 0 to 9.

    data: uint8 tensor (N, 28, 28); targets: int64 tensor (N,). A sample is (PIL image, int), then the transforms.
    root: the folder of the datasets (else the environment's MINIDL_DATA, else data/); the four files, gzipped or not,
    may be in root/mnist, root/MNIST/raw, root/MNIST or root itself; if they are not there, but in the same places below
    MINIDL_DATA, they are taken from there. download=True fetches them into root/MNIST/raw if
    they are not there. They are compared with the SHA-256 of the original data.

    Ref: LeCun et al. 1998, "Gradient-based learning applied to document recognition"
    """

    classes: ClassVar[list[str]] = _DIGITS
    # Mirrors of the original files, which https://yann.lecun.com/exdb/mnist no longer gives to everybody
    mirrors: ClassVar[Sequence[str]] = ("https://ossci-datasets.s3.amazonaws.com/mnist/",
                                        "https://storage.googleapis.com/cvdf-datasets/mnist/")
    folders: ClassVar[Sequence[str]] = ("mnist", "MNIST/raw", "MNIST", "")
    home: ClassVar[str] = "MNIST/raw"               # where downloads go, which is where torchvision looks
    sha256: ClassVar[dict[str, str]] = {            # of the decompressed bytes
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }

    def __init__(self, root: Any = None, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        folder, name = data_root(root), type(self).__name__
        super().__init__(folder, train, transform, target_transform)
        names = _FILES[bool(train)]
        paths = find_together(folder, self.folders, names)
        if paths is None and os.environ.get("MINIDL_DATA"):
            # A lesson names a root of its own; the same files, byte for byte, may be where all datasets are.
            paths = find_together(data_root(), self.folders, names)
        if paths is None and download:
            from minidl.datasets.download import download as fetch

            for file in self.sha256:
                target = folder / self.home / f"{file}.gz"
                fetch([f"{mirror}{file}.gz" for mirror in self.mirrors], target, self.sha256[file], name)
            paths = find_together(folder, self.folders, names)
        if paths is None:
            raise not_found(name, folder, self.folders, names, "use download=True, set root, or set MINIDL_DATA")
        arrays = []
        for path, file in zip(paths, names, strict=True):
            payload = read_payload(path, name)
            array = parse_idx(payload, path, name)
            verify(path, payload, self.sha256[file], name, _WHOSE)
            arrays.append(array)
        self.data = creation.from_numpy(arrays[0])
        self.targets = creation.from_numpy(arrays[1].astype(np.int64))


class FashionMNIST(MNIST):
    """Pictures of clothes, in the format and the numbers of MNIST: 60,000 + 10,000 images of 28×28 bytes, ten classes.

    The files may be in root/fashion-mnist, root/FashionMNIST/raw, root/FashionMNIST or root itself.

    Ref: Xiao et al. 2017, arXiv:1708.07747
    """

    classes: ClassVar[list[str]] = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
                                    "Bag", "Ankle boot"]
    # The address that the authors give (https://github.com/zalandoresearch/fashion-mnist), and a mirror
    mirrors = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
               "https://storage.googleapis.com/tensorflow/tf-keras-datasets/")
    folders = ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST", "")
    home = "FashionMNIST/raw"
    sha256: ClassVar[dict[str, str]] = {            # of the decompressed bytes
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    }


# the files of both have the same names; a SHA-256 tells whose one is
_WHOSE = {sha256: f"{dataset.__name__} ({file})" for dataset in (MNIST, FashionMNIST)
          for file, sha256 in dataset.sha256.items()}


class MNISTCSV(ImagesInMemory):
    """MNIST as text: mnist_train_small.csv (the first 20,000 training images) and mnist_test.csv, as Colab has them.

    A line is an image: its label, then 784 numbers between 0 and 255; no header. Otherwise as `MNIST`. The files may be
    in root/sample_data, root/mnist, root/MNIST or root itself, and of any number of lines: there is no original to
    compare them with, so lines that are missing at the end go unnoticed.
    """

    classes: ClassVar[list[str]] = _DIGITS
    folders: ClassVar[Sequence[str]] = ("sample_data", "mnist", "MNIST", "")

    def __init__(self, root: Any = None, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None) -> None:
        folder = data_root(root)
        super().__init__(folder, train, transform, target_transform)
        names = ["mnist_train_small.csv" if train else "mnist_test.csv"]
        paths = find_together(folder, self.folders, names)
        if paths is None:
            raise not_found("MNISTCSV", folder, self.folders, names, "set root or MINIDL_DATA")
        path = paths[0]
        lines = read_payload(path, "MNISTCSV").decode("ascii", "replace").splitlines()
        rows = _table(lines)
        if rows is None or rows.shape[1] != 785 or rows[:, 0].max() > 9:
            raise MinidlError(f"got {path}, {_first_wrong(lines)}, expected lines of 785 whole numbers, no header: a "
                              f"label from 0 to 9, then 28×28 pixels from 0 to 255", where="MNISTCSV")
        self.data = creation.from_numpy(rows[:, 1:].reshape(-1, 28, 28))            # (N, 784) -> (N, 28, 28)
        self.targets = creation.from_numpy(rows[:, 0].astype(np.int64))


def _table(lines: list[str]) -> np.ndarray | None:
    """Lines of numbers between 0 and 255 as an array (lines, numbers), or None if they are anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")              # older NumPy reads 2.7 as 2 and 300 as 44, with a warning
        try:
            return np.loadtxt(lines, np.uint8, delimiter=",", ndmin=2, comments=None)
        except (ValueError, UserWarning):           # the warning: there is nothing in it
            return None


def _first_wrong(lines: list[str]) -> str:
    """What is wrong with a table, for an error."""
    for number, line in enumerate(lines, 1):
        values = line.split(",")
        if line.strip() and len(values) != 785:
            return f"whose line {number} has {len(values)} numbers"
        for column, value in enumerate(values if line.strip() else [], 1):
            if not value.strip().isdecimal() or int(value) > (9 if column == 1 else 255):
                return f"whose line {number} has {value[:20]!r} in column {column}"
    return "which has no lines"
