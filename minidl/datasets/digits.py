"""The handwritten digits that come with scikit-learn: a dataset without a download."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from minidl import creation
from minidl.datasets.images import ImagesInMemory, Transform


class Digits(ImagesInMemory):
    """1,797 handwritten digits of 8×8 pixels, labels 0 to 9: 1,347 to train on and 450 to test with.

    data: uint8 tensor (N, 8, 8); targets: int64 tensor (N,). The pixels, 0 to 16 in scikit-learn, are 0 to 255 here
    (rounded, and none of the 17 values is lost), so that ToTensor() makes them 0 to 1. A quarter of each digit is for
    the test; which ones is fixed, by scikit-learn's train_test_split with random_state=0. root and download change
    nothing.

    Ref: Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits" (UCI)
    """

    classes: ClassVar[list[str]] = list("0123456789")

    def __init__(self, root: Any = None, train: bool = True, transform: Transform | None = None,
                 target_transform: Transform | None = None, download: bool = False) -> None:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
        from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

        super().__init__(None, train, transform, target_transform)
        digits = load_digits()
        images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
        train_x, test_x, train_y, test_y = train_test_split(images, digits.target, test_size=0.25,
                                                            stratify=digits.target, random_state=0)
        self.data = creation.from_numpy(train_x if train else test_x)
        self.targets = creation.from_numpy((train_y if train else test_y).astype(np.int64))
