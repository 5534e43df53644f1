"""Autoencoders: networks that have to make an image again from few numbers. Hinton & Salakhutdinov 2006,
https://doi.org/10.1126/science.1127647.
"""

from __future__ import annotations

import math

from minidl import nn
from minidl.errors import SettingError, ShapeError
from minidl.tensors import Tensor


class Autoencoder(nn.Module):
    """z = encoder(x),  x̂ = decoder(z): an image, its code, and what can be made of the code alone.

    Made by `dense_autoencoder` or `conv_autoencoder`. Both parts are models of their own: `network.encoder(images)`.
    """

    def __init__(self, encoder: nn.Sequential, decoder: nn.Sequential) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> reconstructions (N, C, H, W)."""
        code = self.encoder(images)
        reconstruction: Tensor = self.decoder(code)
        return reconstruction


def dense_autoencoder(image_shape: tuple[int, int, int] = (1, 28, 28), hidden: int = 256,
                      code: int = 128) -> Autoencoder:
    """Every pixel through `code` numbers, with a hidden layer before and after them.

    image_shape: (C, H, W). Codes are (N, code), not below 0. For 28×28 in grey it has 468,368 parameters. Raises
    `ShapeError` for what is no shape of images, `SettingError` for layers without units.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ShapeError(f"got image_shape={tuple(image_shape)}, expected (C, H, W)", where="dense_autoencoder")
    if hidden < 1 or code < 1:
        raise SettingError(f"got hidden={hidden} and code={code}, expected at least one unit in each",
                           where="dense_autoencoder")
    pixels = math.prod(image_shape)
    encoder = nn.Sequential(                            # for 28×28:
        nn.Flatten(),                                   # (N, 1, 28, 28) -> (N, 784)
        nn.Linear(pixels, hidden), nn.ReLU(),           # -> (N, 256)
        nn.Linear(hidden, code), nn.ReLU(),             # -> (N, 128), the code
    )
    decoder = nn.Sequential(
        nn.Linear(code, hidden), nn.ReLU(),             # -> (N, 256)
        nn.Linear(hidden, pixels),                      # -> (N, 784): no activation, normalised pixels may be negative
        nn.Unflatten(1, image_shape),                   # -> (N, 1, 28, 28)
    )
    return Autoencoder(encoder, decoder)


def conv_autoencoder(image_shape: tuple[int, int, int] = (1, 28, 28)) -> Autoencoder:
    """Three convolutions with average pooling between them; back again with nearest-neighbour upsampling.

    image_shape: (C, H, W), H and W multiples of 4. Codes are (N, 4, H/4, W/4), not below 0, so a quarter of the pixels
    of a grey image. It has 3,221 parameters for grey images of any size. Raises `ShapeError` for other sizes.
    """
    if len(image_shape) != 3 or min(image_shape) < 1 or image_shape[1] % 4 or image_shape[2] % 4:
        raise ShapeError(f"got image_shape={tuple(image_shape)}, expected (C, H, W) with H and W multiples of 4, which "
                         f"two poolings halve and two upsamplings double", where="conv_autoencoder")
    channels = image_shape[0]
    encoder = nn.Sequential(                                                # for 28×28: (N, 1, 28, 28)
        nn.Conv2d(channels, 16, kernel_size=3, padding=1),                  # -> (N, 16, 28, 28)
        nn.AvgPool2d(2), nn.ReLU(),                                         # -> (N, 16, 14, 14)
        nn.Conv2d(16, 8, kernel_size=3, padding=1),                         # -> (N, 8, 14, 14)
        nn.AvgPool2d(2), nn.ReLU(),                                         # -> (N, 8, 7, 7)
        nn.Conv2d(8, 4, kernel_size=3, padding=1), nn.ReLU(),               # -> (N, 4, 7, 7), the code
    )
    decoder = nn.Sequential(
        nn.Conv2d(4, 8, kernel_size=3, padding=1),                          # -> (N, 8, 7, 7)
        nn.Upsample(scale_factor=2), nn.ReLU(),                             # -> (N, 8, 14, 14), each number four times
        nn.Conv2d(8, 16, kernel_size=3, padding=1),                         # -> (N, 16, 14, 14)
        nn.Upsample(scale_factor=2), nn.ReLU(),                             # -> (N, 16, 28, 28)
        nn.Conv2d(16, channels, kernel_size=3, padding=1),                  # -> (N, 1, 28, 28)
    )
    return Autoencoder(encoder, decoder)
