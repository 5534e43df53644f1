"""A small residual network for photographs of 32×32: He, Zhang, Ren, Sun 2015, arXiv:1512.03385, section 4.2."""

from __future__ import annotations

from collections.abc import Sequence

from minidl import nn
from minidl.errors import SettingError, ShapeError
from minidl.tensors import Tensor


class BasicBlock(nn.Module):
    """Two convolutions that learn what to add to their input.

    y = relu(F(x) + shortcut(x)),   F(x) = bn2(conv2(relu(bn1(conv1(x)))))

    The shortcut hands x on as it is; where the block halves the image or has other channels, it is a 1×1 convolution.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)                 # has a bias of its own, so the convolution needs none
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False),
                                          nn.BatchNorm2d(channels))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, channels, H / stride, W / stride)."""
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        y: Tensor = self.relu2(residual + self.shortcut(x))
        return y


class SmallResNet(nn.Module):
    """A stem, three stages of residual blocks, the mean over all places, and a dense layer. Made by `small_resnet`."""

    def __init__(self, channels: int, classes: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        first, second, third = widths
        self.stem = nn.Sequential(nn.Conv2d(channels, first, kernel_size=3, stride=2, padding=1, bias=False),
                                  nn.BatchNorm2d(first), nn.ReLU())
        self.stage1 = _stage(first, first, blocks, stride=1)
        self.stage2 = _stage(first, second, blocks, stride=2)
        self.stage3 = _stage(second, third, blocks, stride=2)
        self.classifier = nn.Linear(third, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> scores (N, classes)."""
        x = self.stem(images)                               # for 32×32: (N, C, 32, 32) -> (N, 16, 16, 16)
        x = self.stage1(x)                                  # -> (N, 16, 16, 16)
        x = self.stage2(x)                                  # -> (N, 32, 8, 8)
        x = self.stage3(x)                                  # -> (N, 64, 4, 4)
        x = x.mean((2, 3))                                  # -> (N, 64), global average pooling
        scores: Tensor = self.classifier(x)                 # -> (N, classes)
        return scores


def _stage(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    """So many blocks, of which the first may halve the image."""
    return nn.Sequential(BasicBlock(in_channels, channels, stride),
                         *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


def small_resnet(image_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10,
                 widths: Sequence[int] = (16, 32, 64), blocks: int = 1) -> SmallResNet:
    """A residual network with 3 · blocks · 2 + 2 layers of weights beside its shortcuts.

    image_shape: (C, H, W), H and W at least 4. widths: the channels of the three stages. blocks: how many a stage has;
    the paper has 3 or more. Returns a model (N, C, H, W) -> (N, classes), a score for each class; for 32×32 in colour
    it has 78,042 parameters. Its parts have names: "stem", "stage2.0.conv1", "stage3.0.relu2".

    Raises `ShapeError` for smaller images, `SettingError` for widths or blocks that are none.
    """
    if len(image_shape) != 3:
        raise ShapeError(f"got image_shape={tuple(image_shape)}, expected (C, H, W)", where="small_resnet")
    channels, height, width = image_shape
    if height < 4 or width < 4:
        raise ShapeError(f"got images of {height}×{width}, expected at least 4×4, which two stages halve to 1×1",
                         where="small_resnet")
    is_whole = isinstance(blocks, int) and isinstance(widths, Sequence) and all(isinstance(n, int) for n in widths)
    if not is_whole or len(widths) != 3 or min(widths) < 1 or blocks < 1:
        raise SettingError(f"got widths={widths} and blocks={blocks}, expected three widths and at least one "
                           f"block, all whole numbers above 0", where="small_resnet")
    return SmallResNet(channels, classes, widths, blocks)
