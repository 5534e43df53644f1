"""LeNet-5 in its textbook form: LeCun, Bottou, Bengio, Haffner 1998, doi:10.1109/5.726791."""

from __future__ import annotations

from collections.abc import Callable

from minidl import nn
from minidl.errors import ShapeError


def lenet(image_shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10,
          activation: Callable[[], nn.Module] = nn.Tanh,
          pooling: Callable[[int], nn.Module] = nn.AvgPool2d) -> nn.Sequential:
    """Two blocks of convolution, activation and pooling, then three dense layers.

    image_shape: (C, H, W), H and W at least 16. activation, pooling: classes of layers, such as nn.ReLU and
    nn.MaxPool2d. Returns a model (N, C, H, W) -> (N, classes), a score for each class; for 28×28 in grey it has 44,426
    parameters. (The paper's own network also learned a weight for each pooling, connected the second convolution to
    a part of the maps only, and ended with distances instead of scores.) Raises `ShapeError` for smaller images.
    """
    channels, height, width = image_shape
    if height < 16 or width < 16:
        raise ShapeError(f"got images of {height}×{width}, expected at least 16×16, of which two blocks leave 1×1",
                         where="lenet")
    rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, width))
    return nn.Sequential(                                                   # for 28×28:
        nn.Conv2d(channels, 6, kernel_size=5), activation(), pooling(2),    # (N, C, 28, 28) -> (N, 6, 12, 12)
        nn.Conv2d(6, 16, kernel_size=5), activation(), pooling(2),          # -> (N, 16, 4, 4)
        nn.Flatten(),                                                       # -> (N, 256)
        nn.Linear(16 * rows * columns, 120), activation(),                  # -> (N, 120)
        nn.Linear(120, 84), activation(),                                   # -> (N, 84)
        nn.Linear(84, classes),                                             # -> (N, 10)
    )
