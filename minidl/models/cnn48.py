"""A network for larger images in colour, with dropout."""

from __future__ import annotations

from minidl import nn
from minidl.errors import ShapeError


def cnn48(image_shape: tuple[int, int, int] = (3, 48, 48), classes: int = 10) -> nn.Sequential:
    """Three convolutions, then two dense layers with dropout before each.

    image_shape: (C, H, W), H and W at least 4. Returns a model (N, C, H, W) -> (N, classes), a score for each class.
    For 48×48 in colour it has 9,536,074 parameters, of which the first dense layer has 9,437,696. Raises `ShapeError`
    for smaller images.
    """
    channels, height, width = image_shape
    if height < 4 or width < 4:
        raise ShapeError(f"got images of {height}×{width}, expected at least 4×4, which two poolings halve to 1×1",
                         where="cnn48")
    return nn.Sequential(                                               # for 48×48:
        nn.Conv2d(channels, 32, kernel_size=3, padding=1), nn.ReLU(),   # (N, C, 48, 48) -> (N, 32, 48, 48)
        nn.Conv2d(32, 64, kernel_size=3, padding=1), nn.ReLU(),         # -> (N, 64, 48, 48)
        nn.MaxPool2d(2),                                                # -> (N, 64, 24, 24)
        nn.Conv2d(64, 128, kernel_size=3, padding=1), nn.ReLU(),        # -> (N, 128, 24, 24)
        nn.MaxPool2d(2),                                                # -> (N, 128, 12, 12)
        nn.Flatten(), nn.Dropout(0.5),                                  # -> (N, 18432)
        nn.Linear(128 * (height // 4) * (width // 4), 512), nn.ReLU(),  # -> (N, 512)
        nn.Dropout(0.5),
        nn.Linear(512, classes),                                        # -> (N, 10)
    )
