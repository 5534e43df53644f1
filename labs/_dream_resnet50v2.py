"""What labs.dream_resnet50v2 computes besides, and its pictures."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

from labs import _dream
from labs._arguments import folder, index, positive
from labs._photographs import Photograph
from minidl import Tensor, nn
from minidl.errors import MinidlError, OutOfRangeError, SettingError
from minidl.models import imagenet, resnet50v2
from minidl.models.resnet50v2 import STAGES, ResNet50V2, blocks
from minidl.visualize import Maximized, layer_named

T = TypeVar("T")
SHEETS = ("conv2_block1_1_conv", "conv5_block3_3_conv")         # a shallow and a deep layer, all of their first filters
OF_STAGES = (SHEETS[0], "conv3_block4_3_conv", "conv4_block6_3_conv", SHEETS[1])        # one of each stage
FEW = 8                                                         # channels of a layer that has no sheet
BATCH = 8                                                       # channels at a time: a graph of 64 takes gigabytes
LEAST_SIZE = 64                                                 # the deepest maps are 2×2 then
LABEL = "RANDOM WEIGHTS (never trained: nothing in it was learned)"
# milliseconds for an image of 180×180 and a step, as far as these layers
COSTS = dict(zip(OF_STAGES, (6, 24, 38, 50), strict=True))
# part: what the names of its parameters begin with, and its last layer
PARTS: dict[str, tuple[tuple[str, ...], str]] = {
    "stem": (("conv1_",), "pool1_pool"),
    **{stage: ((f"{stage}_",), f"{stage}_block{count}_out") for stage, (_, count, _) in STAGES.items()},
    "top": (("post_", "predictions"), "predictions"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this lab's command line takes besides."""
    add = parser.add_argument
    add("--weights", type=folder, metavar="PATH", help="a file that Keras saved (default: the weights that Keras "
        "publishes, found or downloaded, 103 MB)")
    add("--random-weights", action="store_true", help="no weights: to see the mechanics, on pictures that show nothing")
    add("--layer", action="append", metavar="NAME", help="a layer whose first filters are looked at; may be given "
        f"several times (default {' and '.join(SHEETS)})")
    add("--filters", type=positive, default=_dream.COUNT, metavar="N",
        help=f"how many of a layer's first filters (default {_dream.COUNT})")
    add("--filter", action="append", type=index, metavar="N", help="one of these filters, counted from 0; may be given "
        "several times, in place of the first --filters")
    add("--size", type=positive, default=180, metavar="N",
        help=f"height and width of the image, from {LEAST_SIZE} up (default 180)")


def seconds(args: argparse.Namespace) -> float:
    """How long a run takes, roughly."""
    sheets, few, chosen = args.layer or SHEETS, min(args.filters, FEW), len(args.filter or range(args.filters))
    images = sum(chosen * COSTS.get(name, max(COSTS.values())) for name in sheets)
    images += sum(few * cost * (2 if name in sheets else 3) for name, cost in COSTS.items())    # 2 of them for sharp
    return 20 + 31 * images / 1000 * (args.size / 180) ** 2


def network_for(args: argparse.Namespace) -> ResNet50V2:
    """ResNet50V2 with the weights that the arguments name, in evaluation mode and frozen.

    What is wrong with the arguments is said first, before 103 MB are read or downloaded.
    """
    if args.random_weights and args.weights is not None:
        raise SettingError(f"got --weights {args.weights}, too; expected one of the two", where="--random-weights")
    if args.size < LEAST_SIZE:
        raise SettingError(f"got {args.size}, expected at least {LEAST_SIZE}: the deepest maps are 32 times smaller",
                           where="--size")
    network = resnet50v2()
    for name in args.layer or ():
        layer_named(network, name, "--layer")
    if not args.random_weights:
        try:
            network = resnet50v2(weights="imagenet" if args.weights is None else args.weights)
        except MinidlError as error:
            raise MinidlError(f"only weights trained on ImageNet give meaningful pictures; {error.message}; or see the "
                              f"mechanics with --random-weights", where="--weights") from error
    return network.eval().requires_grad_(False)


def channels_of(args: argparse.Namespace, layer: str, has_sheet: bool, available: int) -> list[int]:
    """Which channels of a layer are looked at: the first ones, or in a layer with a sheet those that were chosen.

    Raises for one that is not there.
    """
    if not has_sheet:
        return list(range(min(FEW, args.filters, available)))
    for channel in args.filter or ():
        if channel >= available:
            raise OutOfRangeError(f"got {channel}, expected 0 to {available - 1}: the layer {layer} has {available} "
                                  f"filters", where="--filter")
    return list(dict.fromkeys(args.filter)) if args.filter else list(range(min(args.filters, available)))


def layers_of(network: nn.Module, asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The layers to look at, from shallow to deep, and those of them that have a sheet, in the same order."""
    sheets = set(asked or SHEETS)
    found = [name for name, _ in network.named_modules() if name in sheets.union(OF_STAGES)]
    return found, [name for name in found if name in sheets]


def seen_pixels() -> dict[str, int]:
    """How many pixels across the outputs of the blocks' convolutions depend on, {layer: r}, whatever the image's size.

        r <- r + (k - 1) · j,   j <- j · s        for kernel k and stride s, beginning with r = j = 1

    It is that of `minidl.visualize.receptive_field`, which measures it, but would need minutes for this network.
    """
    r, j, found = 7 + (3 - 1) * 2, 4, {}                        # after the convolution and the pooling of the stem
    for block in blocks():
        for part, kernel, stride in (("1_conv", 1, 1), ("2_conv", 3, block.stride), ("3_conv", 1, 1)):
            r, j = r + (kernel - 1) * j, j * stride
            found[f"{block.name}_{part}"] = r
    return found


def in_batches(channels: Sequence[T]) -> list[Sequence[T]]:
    """The channels, or what belongs to them, a few at a time."""
    return [channels[first:first + BATCH] for first in range(0, len(channels), BATCH)]


def excite(network: nn.Module, layer: str, channels: Sequence[int], real: np.ndarray, examples: Tensor, seed: int,
           **settings: Any) -> tuple[list[Maximized], np.ndarray]:
    """`_dream.excite` for any number of channels, a few at a time. All begin with the same noise, that of the seed."""
    parts = [_dream.excite(network, layer, some, real, examples, seed, **settings) for some in in_batches(channels)]
    return [result for found, _ in parts for result in found], np.concatenate([stars for _, stars in parts])


def summary(network: nn.Module, layer: str, channels: Sequence[int], real: np.ndarray,
            plain: tuple[list[Maximized], np.ndarray], seed: int) -> dict[str, Any]:
    """How the scores of the pictures of K channels of a layer compare with those of the photographs, real (N, K).

    Shares and medians are of live channels.
    """
    found, from_image = plain
    live = _dream.is_live(real)
    start, final = (np.array([result.scores[i] for result in found]) for i in (0, -1))
    of_noise = np.concatenate([
        _dream.scores_of_noise(network, layer, some, pictures, seed)
        for some, pictures in zip(in_batches(channels), in_batches(found), strict=True)])

    def median(scores: np.ndarray) -> float:
        return float(np.median(scores[live])) if live.any() else math.nan

    return {"channels": len(found), "live": int(live.sum()), "from_image": int((from_image & live).sum()),
            "share_above_start": _dream.share_of(final > start, live),
            "share_above_best_photograph": _dream.share_of(final > real.max(0), live),
            "share_above_noise_of_equal_length": _dream.share_of(final > of_noise, live),
            "median_start": median(start), "median_final": median(final),
            "median_noise_of_equal_length": median(of_noise),
            "median_mean_photograph": median(real.mean(0)), "median_best_photograph": median(real.max(0))}


def names_of_classes() -> list[str] | None:
    """The names of ImageNet's classes, with spaces; None if their file is not here and cannot be had."""
    try:
        return [name.replace("_", " ") for _, name in imagenet.class_names()]
    except MinidlError:
        return None


def most_probable(probabilities: np.ndarray, count: int = 5) -> np.ndarray:
    """The indices of the most probable classes, (N, classes) -> (N, count), the most probable first."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :count]


def effective_classes(probabilities: np.ndarray) -> np.ndarray:
    """exp(-sum over o of p · log p), (N, classes) -> (N,): as many classes of equal probability are as undecided."""
    p = probabilities.astype(np.float64)
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(1)
    return np.exp(entropy)


# -- pictures ----------------------------------------------------------------------------------------------------------

def labelled(figure: Figure) -> Figure:
    """The figure with `LABEL` above its title, in red."""
    title = figure.get_suptitle()
    for text in figure.texts:
        if text.get_text() == title:
            text.set(text=f"{LABEL}\n{title}", color="crimson")
            return figure
    figure.suptitle(LABEL, color="crimson")
    return figure


def draw_photographs(of: Sequence[Photograph], pictures: Tensor, answers: Sequence[str]) -> Figure:
    """The photographs (N, 3, H, W) from 0 to 1, three in a row, each below what the network says."""
    lines = 1 + max(words.count("\n") + 1 for words in answers)
    figure, grid = _dream.panels(-(-len(of) // 3), 3, 2.7 + 0.15 * lines, 8.6,
                                 "The photographs, as the network gets them", margin=0.6 + 0.15 * lines)
    for axes in grid.flat[len(of):]:
        axes.remove()
    for axes, photograph, picture, words in zip(grid.flat, of, pictures, answers, strict=False):
        _dream.show(axes, picture, f"{photograph.name} ({photograph.library})\n{words}")
        axes.title.set_fontsize(9)
    return figure
