"""The convolutional network of the first labs."""

from __future__ import annotations

from minidl import nn
from minidl.errors import ShapeError


def small_cnn(image_shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10) -> nn.Sequential:
    """Two convolutions that see ever larger parts of the image, then two dense layers that decide.

    image_shape: (C, H, W), H and W at least 4. Returns a model (N, C, H, W) -> (N, classes), a score for each class.
    For 28×28 in grey it has 824,458 parameters, of which the first dense layer has 803,072.
    """
    channels, height, width = image_shape
    if height < 4 or width < 4:
        raise ShapeError(f"got images of {height}×{width}, expected at least 4×4, which two poolings halve to 1×1",
                         where="small_cnn")
    return nn.Sequential(                                               # for 28×28:
        nn.Conv2d(channels, 32, kernel_size=3, padding=1), nn.ReLU(),   # (N, C, 28, 28) -> (N, 32, 28, 28)
        nn.AvgPool2d(2),                                                # -> (N, 32, 14, 14)
        nn.Conv2d(32, 64, kernel_size=3, padding=1), nn.ReLU(),         # -> (N, 64, 14, 14)
        nn.AvgPool2d(2),                                                # -> (N, 64, 7, 7)
        nn.Flatten(),                                                   # -> (N, 3136)
        nn.Linear(64 * (height // 4) * (width // 4), 256), nn.ReLU(),   # -> (N, 256)
        nn.Linear(256, classes),                                        # -> (N, 10)
    )
