"""What the datasets that fit into memory share: byte images, labels, and whole batches at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minidl.data.collate import default_collate
from minidl.data.dataset import Dataset, as_indices
from minidl.errors import SettingError
from minidl.tensors import Tensor
from minidl.transforms.basic import for_batches

Transform = Callable[[Any], Any]


class ImageDataset(Dataset[tuple[Any, Any]]):
    """Samples (image, label), each changed by a transform if there is one. `print` shows where they come from."""

    def __init__(self, root: Path | None, transform: Transform | None, target_transform: Transform | None) -> None:
        for name, value in (("transform", transform), ("target_transform", target_transform)):
            if value is not None and not callable(value):
                raise SettingError(f"got {name}={value!r}, expected a function, or None", where=type(self).__name__)
        self.root, self.transform, self.target_transform = root, transform, target_transform

    def changed(self, image: Any, label: Any) -> tuple[Any, Any]:
        """The sample after the transforms."""
        return (image if self.transform is None else self.transform(image),
                label if self.target_transform is None else self.target_transform(label))

    def extra_repr(self) -> str:
        """One more line for `print`."""
        return ""

    def __repr__(self) -> str:
        lines = [f"Number of datapoints: {len(self)}", f"Root location: {self.root}", self.extra_repr()]
        if self.transform is not None or self.target_transform is not None:
            lines.append("StandardTransform")
        lines = [f"Dataset {type(self).__name__}", *(f"    {line}" for line in lines if line)]
        for head, transform in (("Transform: ", self.transform), ("Target transform: ", self.target_transform)):
            if transform is not None:
                lines.append(head + repr(transform).replace("\n", "\n" + " " * len(head)))
        return "\n".join(lines)

    def __len__(self) -> int:
        raise NotImplementedError


class ImagesInMemory(ImageDataset):
    """Byte images `data`, (N, H, W) or (N, H, W, 3), with labels `targets`; a transform is given PIL images.

    Where the transform can take a whole stack (see `transforms.basic.for_batches`), a DataLoader gets its batches from
    one indexing, without a PIL image in between: the numbers are the same. `data` and `targets` may be replaced, for
    instance by a part of them.
    """

    classes: ClassVar[list[str]] = []
    data: Any
    targets: Any

    def __init__(self, root: Path | None, train: bool, transform: Transform | None,
                 target_transform: Transform | None) -> None:
        super().__init__(root, transform, target_transform)
        if train not in (True, False):
            raise SettingError(f"got train={train!r}, expected True or False; is it meant for another place?",
                               where=type(self).__name__)
        self.train = bool(train)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Name of a class -> its label."""
        return {name: label for label, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(_host(self.data)[index]))
        return self.changed(image, int(_host(self.targets)[index]))

    def whole_batch(self, indices: Sequence[int]) -> list[Any] | None:
        """Images and labels of a batch; None if the transform wants the images one by one."""
        transform = for_batches(self.transform)
        data, targets = _host(self.data), _host(self.targets)
        if transform is None or data.dtype != np.uint8:
            return None
        index = as_indices(indices)
        labels = [int(targets[i]) for i in index]
        if self.target_transform is not None:
            labels = [self.target_transform(label) for label in labels]
        return [transform(data[index]), default_collate(labels)]

    def extra_repr(self) -> str:
        """Which part of the data it is."""
        return f"Split: {'Train' if self.train else 'Test'}"


def _host(values: Any) -> Any:
    """An array in place of a tensor, because single elements of it are there faster; a list stays a list."""
    return values.numpy() if isinstance(values, Tensor) else values
