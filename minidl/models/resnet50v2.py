"""ResNet50V2 as Keras builds it: He, Zhang, Ren, Sun 2016, "Identity mappings in deep residual networks",
arXiv:1603.05027.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from minidl import nn
from minidl.errors import MinidlError, SettingError, ShapeError
from minidl.io.keras_file import hdf5, load_keras_weights
from minidl.models.imagenet import published_file, verify_published
from minidl.nn.init import xavier_uniform_, zeros_
from minidl.nn.module import positive
from minidl.tensors import Tensor

# The files that Keras publishes, and their MD5 (no SHA-256 is published)
FROM = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
FILES = {True: ("resnet50v2_weights_tf_dim_ordering_tf_kernels.h5", "3ef43a0b657b3be2300d5770ece849e0"),
         False: ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "fac2f116257151a9d068a22e544a4917")}
OLD_NAMES = {"probs": "predictions"}                        # when these files were made, the top was called otherwise
EPS, MOMENTUM = 1.001e-5, 0.01                              # Keras's epsilon here; its momentum of 0.99 is 0.01 here
# stage: the width of its bottleneck, how many blocks, and the stride of the last of them
STAGES = {"conv2": (64, 3, 2), "conv3": (128, 4, 2), "conv4": (256, 6, 2), "conv5": (512, 3, 1)}


class Block(NamedTuple):
    """A residual block: its name, channels in, width of the bottleneck, stride, and whether it is its stage's first."""

    name: str
    channels: int
    width: int
    stride: int
    is_first: bool


def blocks() -> list[Block]:
    """All sixteen, in order."""
    found, channels = [], 64
    for stage, (width, count, last_stride) in STAGES.items():
        for i in range(1, count + 1):
            found.append(Block(f"{stage}_block{i}", channels, width, last_stride if i == count else 1, i == 1))
            channels = 4 * width
    return found


class ResNet50V2(nn.Module):
    """A stem, sixteen blocks that add to what they are given, and (with `include_top`) the probability of each class.

    Each layer is an attribute with the name that Keras gives it, so that its weights and its activations are found by
    it. `conv1_pad` and the blocks' `_2_pad` are not there, as a convolution pads by itself here. The pooling in
    shortcuts, which Keras counts through (max_pooling2d_1), is called `_0_pool`. Made by `resnet50v2`.
    """

    def __init__(self, include_top: bool, classes: int) -> None:
        super().__init__()
        self.include_top = include_top
        self.conv1_conv = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3)
        self.pool1_pad = nn.ZeroPad2d(1)                    # zeros take part in the maximum, other than in MaxPool2d's
        self.pool1_pool = nn.MaxPool2d(3, stride=2)
        for block in blocks():
            self._add(block)
        self.post_bn = nn.BatchNorm2d(2048, EPS, MOMENTUM)
        self.post_relu = nn.ReLU()
        if include_top:
            self.avg_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.predictions = nn.Sequential(nn.Linear(2048, classes), nn.Softmax(dim=1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):    # Keras's start
                xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    zeros_(layer.bias)

    def _add(self, block: Block) -> None:
        """The layers of a block, in the order of forward."""
        name, channels, width, stride, is_first = block
        layers: dict[str, nn.Module] = {
            "preact_bn": nn.BatchNorm2d(channels, EPS, MOMENTUM), "preact_relu": nn.ReLU(),
            "1_conv": nn.Conv2d(channels, width, kernel_size=1, bias=False),
            "1_bn": nn.BatchNorm2d(width, EPS, MOMENTUM), "1_relu": nn.ReLU(),
            "2_conv": nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False),
            "2_bn": nn.BatchNorm2d(width, EPS, MOMENTUM), "2_relu": nn.ReLU(),
        }
        if is_first:
            layers["0_conv"] = nn.Conv2d(channels, 4 * width, kernel_size=1, stride=stride)
        elif stride > 1:
            layers["0_pool"] = nn.MaxPool2d(1, stride=stride)                   # every second pixel
        layers |= {"3_conv": nn.Conv2d(width, 4 * width, kernel_size=1), "out": nn.Identity()}
        for part, layer in layers.items():
            self.add_module(f"{name}_{part}", layer)

    def _through(self, block: Block, x: Tensor) -> Tensor:
        """y = shortcut + F(a),   a = relu(bn(x)),   F(a) = conv3(relu(bn2(conv2(relu(bn1(conv1(a)))))))

        The shortcut hands x on as it is: nothing stands in the way of a gradient through all blocks of a stage. In the
        first block of a stage, which has more channels, it is a convolution of a. x (N, C, H, W) -> (N, 4·width, …).
        """
        def layer(part: str) -> nn.Module:
            found: nn.Module = getattr(self, f"{block.name}_{part}")
            return found

        a = layer("preact_relu")(layer("preact_bn")(x))
        f = layer("1_relu")(layer("1_bn")(layer("1_conv")(a)))                  # (N, C, H, W) -> (N, width, H, W)
        f = layer("2_relu")(layer("2_bn")(layer("2_conv")(f)))                  # -> (N, width, H / stride, W / stride)
        shortcut = x
        if block.is_first:
            shortcut = layer("0_conv")(a)
        elif block.stride > 1:
            shortcut = layer("0_pool")(x)
        f = layer("3_conv")(f)                                                  # -> (N, 4·width, …)
        y: Tensor = layer("out")(shortcut + f)
        return y

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images (N, 3, H, W) -> probabilities (N, classes), or features (N, 2048, H / 32, W / 32)."""
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 32:
            raise ShapeError(f"got {tuple(images.shape)}, expected images (N, 3, H, W) of 32×32 and more",
                             where="ResNet50V2")
        x = self.conv1_conv(images)                         # for 224×224: (N, 3, 224, 224) -> (N, 64, 112, 112)
        x = self.pool1_pool(self.pool1_pad(x))              # -> (N, 64, 56, 56)
        for block in blocks():                              # -> (N, 256, 28, 28), (N, 512, 14, 14), (N, 1024, 7, 7),
            x = self._through(block, x)                     # (N, 2048, 7, 7) after the last block of each stage
        features: Tensor = self.post_relu(self.post_bn(x))
        if not self.include_top:
            return features
        means = self.avg_pool(features)                     # -> (N, 2048), over all places
        probabilities: Tensor = self.predictions(means)     # -> (N, 1000)
        return probabilities


def resnet50v2(include_top: bool = True, weights: str | Path | None = None, classes: int = 1000) -> ResNet50V2:
    """The network of `keras.applications.ResNet50V2`, with 25,568,360 parameters (23,519,360 without the top).

    include_top: with the dense layer and its softmax, else it ends with the last ReLU. weights: None for random ones;
    the path of a file that Keras saved; or "imagenet" for those that Keras publishes, which are looked for below the
    folder of the datasets and where Keras keeps them, and else downloaded (103 MB, without the top 95). classes: of the
    top.

    Images are (N, 3, H, W) of 32×32 and more, in RGB, made ready by `imagenet.preprocess_input`. Call `eval()` before
    use; `predictions.0` are the scores before the softmax. Raises `SettingError` for settings that are none,
    `ShapeError` for weights that do not fit, `MinidlError` for a file that is damaged, or published with another MD5.
    """
    if not isinstance(include_top, bool):
        raise SettingError(f"got include_top={include_top!r}, expected True or False", where="resnet50v2")
    if weights is not None and (not isinstance(weights, str | Path) or not str(weights)):
        raise SettingError(f'got weights={weights!r}, expected None, "imagenet" or the path of a file',
                           where="resnet50v2")
    positive(classes, "classes", "resnet50v2")
    is_imagenet = weights == "imagenet"
    if is_imagenet and include_top and classes != 1000:
        raise SettingError(f'got classes={classes}, expected 1000, which weights="imagenet" have; load them with '
                           f"include_top=False, or without classes", where="resnet50v2")
    if weights is None:
        return ResNet50V2(include_top, classes)
    file, md5 = FILES[include_top]
    hdf5()                                                  # if it is missing, that is said before anything is loaded
    if is_imagenet:
        path = published_file(f"{FROM}{file}", md5, "resnet50v2")
    else:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise MinidlError(f'got {path}, where there is no file, expected one that Keras saved, or '
                              f'weights="imagenet"', where="resnet50v2")
        if path.name == file:                               # it says that it is the published one
            verify_published(path, md5, "resnet50v2")
    model = ResNet50V2(include_top, classes)
    try:
        load_keras_weights(model, path, renamed=OLD_NAMES)
    except ShapeError as error:
        raise ShapeError(f"{error.message}; include_top={include_top} and classes={classes} have to be those of the "
                         f"file", where="resnet50v2") from None
    return model
