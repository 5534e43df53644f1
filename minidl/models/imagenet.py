"""What goes into and comes out of a network that Keras trained on ImageNet, and the files that Keras publishes."""

from __future__ import annotations

import json
from pathlib import Path

from minidl.datasets.download import download
from minidl.datasets.files import data_root, read_bytes, verify
from minidl.errors import OutOfRangeError, SettingError, ShapeError
from minidl.nn.functional.checks import check_tensors
from minidl.tensors import Tensor

FOLDER = "keras"                                            # below the folder of the datasets
OF_KERAS = Path("~/.keras/models")                          # where Keras keeps what it downloaded
NAMES = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
MD5_OF_NAMES = "c2c37ea517e94d9795004a39431a14cb"


def preprocess_input(images: Tensor) -> Tensor:
    """x / 127.5 - 1: pixels from 0 to 255 -> from -1 to 1, as `keras.applications.resnet_v2.preprocess_input` does.

    images: (…, 3, H, W) in RGB, bytes or floats. Raises `OutOfRangeError` for numbers outside of 0…255, and for floats
    that are all within 0…1, which are pixels divided by 255 already.
    """
    check_tensors("preprocess_input", images)
    if images.ndim < 3 or images.shape[-3] != 3:
        raise ShapeError(f"got {tuple(images.shape)}, expected (N, 3, H, W) in RGB", where="preprocess_input")
    x = images if images.is_floating_point() else images.float()
    smallest, largest = (float(x.min()), float(x.max())) if x.numel() else (0.0, 255.0)
    if not (smallest >= 0 and largest <= 255):
        raise OutOfRangeError(f"got numbers from {smallest:g} to {largest:g}, expected pixels from 0 to 255",
                              where="preprocess_input")
    if images.is_floating_point() and 0 < largest <= 1:
        raise OutOfRangeError(f"got floats from {smallest:g} to {largest:g}, expected pixels from 0 to 255; multiply "
                              f"them by 255, or write 2 * images - 1 instead", where="preprocess_input")
    y: Tensor = x / 127.5 - 1
    return y


def decode_predictions(probabilities: Tensor, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """The most probable classes of each image, (WordNet's number, name, probability), the most probable first.

    probabilities: (N, 1000), as `resnet50v2` returns them. The names are in Keras's imagenet_class_index.json (35 kB),
    found and downloaded like its weights.
    """
    check_tensors("decode_predictions", probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] != 1000:
        raise ShapeError(f"got {tuple(probabilities.shape)}, expected (N, 1000): a probability for each class of "
                         f"ImageNet", where="decode_predictions")
    if isinstance(top, bool) or not isinstance(top, int) or not 1 <= top <= 1000:
        raise SettingError(f"got top={top!r}, expected 1 to 1000", where="decode_predictions")
    names = class_names()
    best = probabilities.argsort(dim=1, descending=True)[:, :top].tolist()
    return [[(*names[o], float(of_image[o])) for o in order]
            for order, of_image in zip(best, probabilities.tolist(), strict=True)]


def class_names() -> list[tuple[str, str]]:
    """(WordNet's number, name) of the 1,000 classes, in the order of the network's outputs."""
    path = published_file(NAMES, MD5_OF_NAMES, "decode_predictions")
    index = json.loads(read_bytes(path, "decode_predictions"))
    return [(index[str(o)][0], index[str(o)][1]) for o in range(1000)]


def published_file(url: str, md5: str, where: str) -> Path:
    """The path of a file that Keras publishes at this address, whole: found, or downloaded.

    It is looked for in the folder `keras` of the datasets' folder (MINIDL_DATA, else data/), then where Keras keeps its
    own, and else downloaded into the former. Raises `MinidlError` for another MD5, and, where it cannot be downloaded,
    saying where to put it.
    """
    name = url.rpartition("/")[2]
    own = data_root() / FOLDER / name
    for path in (own, OF_KERAS.expanduser() / name):
        if path.is_file():
            verify_published(path, md5, where)
            return path
    download([url], own, md5, where, unpacked=False)
    return own


def verify_published(path: Path, md5: str, where: str) -> None:
    """Refuse a file that is named like a published one but is another, or damaged."""
    verify(path, None, md5, where, fix="delete it and load it again, or give your own file another name")
