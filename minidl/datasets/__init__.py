"""Datasets of images, with the names of `torchvision.datasets`."""

from typing import Any as _Any

from minidl.datasets.cifar import CIFAR10
from minidl.datasets.digits import Digits
from minidl.datasets.folder import ImageFolder
from minidl.datasets.images import ImageDataset
from minidl.datasets.mnist import MNIST, MNISTCSV, FashionMNIST
from minidl.errors import no_such_name as _no_such_name

__all__ = ["CIFAR10", "MNIST", "MNISTCSV", "Digits", "FashionMNIST", "ImageDataset", "ImageFolder"]

_HAVE = "MNIST, FashionMNIST, CIFAR10, Digits, MNISTCSV and ImageFolder are there"
_HINTS = {
    **dict.fromkeys(["STL10", "CIFAR100", "SVHN", "CelebA", "Caltech101", "Flowers102", "Food101", "OxfordIIITPet",
                     "ImageNet", "EuroSAT"], f"{_HAVE}; pictures in folders are read by ImageFolder"),
    **dict.fromkeys(["EMNIST", "KMNIST", "QMNIST"],
                    f"{_HAVE}; for other files in MNIST's format derive from MNIST, with sha256, mirrors, folders"),
    "FakeData": "use TensorDataset(minidl.randn(100, 3, 32, 32), minidl.randint(0, 10, (100,)))",
    "DatasetFolder": "use ImageFolder, whose loader= may read any kind of file",
    "VisionDataset": "derive from minidl.data.Dataset",
}


def __getattr__(name: str) -> _Any:
    raise _no_such_name("minidl.datasets", name, __all__, _HINTS)
