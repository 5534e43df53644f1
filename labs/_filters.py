"""What the lab on filters measures, and its pictures: kernels, feature maps, patches that excite a filter most."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import PercentFormatter
from scipy.spatial.distance import pdist
from sklearn.metrics import roc_auc_score

import minidl
import minidl.nn.functional as F
from labs import _trained
from labs._arguments import positive
from labs._lenet import coloured, show
from minidl import Tensor, nn
from minidl.utils import make_grid
from minidl.visualize import capture
from minidl.visualize.patches import Patches

BEYOND = (0.62, 0.77, 0.94)             # light blue: beyond the border of the image
BETWEEN = (0.95, 0.55, 0.15)            # orange: between two patches
MOST_SHOWN = 64                         # filters of a layer in one picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the lab takes besides."""
    _trained.add_arguments(parser)
    parser.add_argument("--patch-images", type=positive, metavar="N",
                        help="training images among which patches are sought (quick 6000, full 60000)")
    parser.add_argument("--layer", default="8", metavar="NAME",
                        help="a layer to look into besides the two convolutions (default 8, the hidden dense one)")
    parser.add_argument("--image", type=image_number, default=0, metavar="INDEX",
                        help="the test image whose feature maps are shown (default 0)")


def image_number(text: str) -> int:
    """A whole number from 0 up; how many images there are is known later."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 0 up")
    return int(text)


# -- what is measured --------------------------------------------------------------------------------------------------

def is_rectified(network: nn.Sequential, layer: str) -> bool:
    """Whether a layer is a ReLU, or the next one is: only there does an answer of 0 or less mean silence."""
    names = [name for name, _ in network.named_children()]
    here = names.index(layer)
    return any(isinstance(part, nn.ReLU) for part in list(network)[here:here + 2])


def dead_filters(found: Patches, rectified: bool = True) -> list[int]:
    """The filters whose highest answer for any image is not above 0: ReLU lets nothing through, whatever comes."""
    if not rectified:
        return []
    return [channel for channel, score in zip(found.channels, found.scores[:, 0].tolist(), strict=True) if score <= 0]


def shares_of_commonest_class(found: Patches, labels: Tensor, dead: Collection[int] = ()) -> np.ndarray:
    """For each filter that is not dead, the share of its patches that are from the class which has most of them."""
    is_live = ~np.isin(found.channels, list(dead))
    classes = labels.numpy()[found.indices.numpy()[is_live]]                                # (live, count)
    return np.array([np.bincount(row).max() / len(row) for row in classes])


def shares_by_chance(labels: Tensor, count: int, seed: int, draws: int = 4000) -> np.ndarray:
    """The same for so many sets of `count` images that are drawn at random, without looking at them."""
    rng, classes = np.random.default_rng(seed), labels.numpy()
    return np.array([np.bincount(rng.choice(classes, count, replace=False)).max() / count for _ in range(draws)])


def distances_of_classes(answers: np.ndarray, truth: np.ndarray, count: int = 1000) -> tuple[float, float]:
    """The mean distance of two images of the same class and of different ones, over all pairs of the first images.

    answers: (N, O). A distance is the sum over the filters of |answer for one image - answer for the other|.
    """
    distances, is_other = pdist(answers[:count], "cityblock"), pdist(truth[:count, None], "hamming") > 0
    return float(distances[~is_other].mean()), float(distances[is_other].mean())


def mean_answers(network: nn.Module, layer: str, images: Tensor, device: str) -> np.ndarray:
    """For each image the mean of each map of a layer: (N, C, H, W) -> (N, O)."""
    with minidl.no_grad():
        return np.concatenate([capture(network, batch.to(device), [layer])[layer].mean(dim=(2, 3)).cpu().numpy()
                               for batch in images.split(500)])


def tell_apart(answers: np.ndarray, truth: np.ndarray, pair: tuple[int, int],
               filters: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """How well filters tell the classes of two images apart: their difference for this pair, and for all others.

    answers: (N, O). Returns, for each filter, its answer for the first image less that for the second; and for the
    other images of these two classes the probability that the class which wins in the pair wins again, for two images
    drawn at random (the area under the ROC curve): 1 always, 0.5 chance, 0 never.
    """
    first, second = pair
    difference = answers[first] - answers[second]
    others = [i for i in np.flatnonzero(np.isin(truth, truth[[first, second]])) if i not in pair]
    is_first = truth[others] == truth[first]
    return difference[list(filters)], np.array([
        roc_auc_score(is_first if difference[k] > 0 else ~is_first, answers[others, k]) for k in filters])


# -- how it is drawn ---------------------------------------------------------------------------------------------------

def enlarged(pictures: Tensor, size: int) -> Tensor:
    """(N, 3, h, w) -> (N, 3, size, size) or somewhat less: whole numbers of equal pixels."""
    return F.interpolate(pictures, scale_factor=max(1, size // max(pictures.shape[2:])), mode="nearest")


def draw_sheet(axes: Axes, cells: Tensor, numbers: Sequence[int], dead: Collection[int], columns: int,
               gap: int) -> None:
    """Cells (N, 3, h, w) in rows of so many, the number of the filter above each; "dead" instead of a dead one."""
    cells = cells.clone()
    for n, number in enumerate(numbers):
        if number in dead:
            cells[n] = 0.93
    show(axes, make_grid(cells, nrow=columns, padding=gap, pad_value=1.0))
    axes.axis("off")
    height, width = cells.shape[2:]
    for n, number in enumerate(numbers):
        left, top = n % columns * (width + gap) + gap, n // columns * (height + gap) + gap
        axes.text(left, top - 0.1 * gap, str(number), size=5 if columns > 16 else 5.5, color="dimgray", va="bottom")
        if number in dead:
            axes.text(left + width / 2, top + height / 2, "dead", size=5 if columns > 16 else 6, color="crimson",
                      ha="center", va="center")


def add_scale(figure: Figure | SubFigure, axes: Axes | Sequence[Axes], largest: float, label: str) -> None:
    """The colours of `coloured` as a bar."""
    figure.colorbar(ScalarMappable(Normalize(-largest, largest), "RdBu_r"), ax=axes, shrink=0.7, label=label)


def draw_kernels(kernels: Mapping[str, Tensor], dead: Mapping[str, Collection[int]]) -> tuple[Figure, float]:
    """The kernels (O, k, k) of some networks, 8 in a row, all in one scale. Returns the end of the scale too."""
    largest = max(float(weights.abs().max()) for weights in kernels.values())
    figure, panels = plt.subplots(1, len(kernels), figsize=(11, 3.1), layout="constrained")
    for axes, (name, weights) in zip(panels, kernels.items(), strict=True):
        cells = enlarged(coloured(weights, largest), 24)
        draw_sheet(axes, cells, range(len(weights)), dead[name], columns=8, gap=6)
        axes.set_title(f"{name}: {len(weights)} kernels, {len(dead[name])} dead", fontsize=11)
    add_scale(figure, list(panels), largest, "weight")
    return figure, largest


def draw_maps(image: Tensor, title: str, maps: Mapping[str, Tensor],
              dead: Mapping[str, Collection[int]]) -> tuple[Figure, dict[str, float]]:
    """An image (C, H, W) and what layers make of it, (O, OH, OW) or (O,), each layer in a scale of its own.

    At most 256 filters of a layer are drawn. Returns the ends of the scales: the largest absolute answer of each layer.
    """
    columns = {name: 16 if len(values) <= 64 else 32 for name, values in maps.items()}
    rows = {name: -(-min(256, len(values)) // columns[name]) for name, values in maps.items()}
    heights = {name: max(1.2, 11.5 * rows[name] / columns[name] + 0.5) for name in maps}    # inches
    figure = plt.figure(figsize=(12, 1.9 + sum(heights.values())), layout="constrained")
    head, *parts = figure.subfigures(1 + len(maps), 1, height_ratios=[1.9, *heights.values()])
    show(head.subplots(), image)
    head.suptitle(title, fontsize=11)
    scales = {}
    for part, (name, values) in zip(parts, maps.items(), strict=True):
        scales[name], axes = float(values.abs().max()) or 1.0, part.subplots()
        squares = values[:256] if values.ndim == 3 else values[:256, None, None]            # (O,) -> (O, 1, 1)
        cells = enlarged(coloured(squares, scales[name]), 24)
        silent = [k for k in dead[name] if float(values[k].max()) <= 0]                     # for this image, too
        draw_sheet(axes, cells, range(len(cells)), silent, columns[name], gap=cells.shape[3] // 3)
        which = "" if len(cells) == len(values) else f", the first {len(cells)} of {len(values):,}"
        part.suptitle(f"{name}{which}", fontsize=11)
        add_scale(part, axes, scales[name], "answer")
    return figure, scales


def draw_pair(images: Tensor, titles: Sequence[str], maps: Tensor, filters: Sequence[int],
              areas: np.ndarray) -> tuple[Figure, float]:
    """Three images, a row each, and their maps (3, F, OH, OW) by F filters, all in one scale. Returns its end too."""
    largest = float(maps.max()) or 1.0
    figure, grid = plt.subplots(3, 1 + len(filters), figsize=(12, 4.8), layout="constrained")
    for row, (image, title, of_image) in enumerate(zip(images, titles, maps, strict=True)):
        show(grid[row, 0], image)
        grid[row, 0].set_ylabel(title, fontsize=9)
        for axes, number, area, values in zip(grid[row, 1:], filters, areas, of_image, strict=True):
            axes.set(xticks=[], yticks=[], box_aspect=1)
            if (values > 0).any():
                axes.imshow(values.numpy(), cmap="magma", vmin=0, vmax=largest)
            else:
                axes.set_facecolor("black")
                axes.text(0.5, 0.5, "silent", color="gray", ha="center", va="center", size=8, transform=axes.transAxes)
            if row == 0:
                axes.set_title(f"filter {number}\narea {area:.2f}", fontsize=9)
    figure.colorbar(ScalarMappable(Normalize(0, largest), "magma"), ax=grid, shrink=0.7, label="answer after ReLU")
    return figure, largest


def as_colours(patches: Tensor) -> Tensor:
    """(N, 1, h, w) in grey, nan beyond the border -> (N, 3, h, w), where that is light blue."""
    grey = patches.expand(-1, 3, -1, -1)
    coloured_patches: Tensor = minidl.where(grey.isnan(), minidl.tensor(BEYOND).reshape(1, 3, 1, 1), grey)
    return coloured_patches


def draw_patches(found: Mapping[str, Patches], all_dead: Mapping[str, Collection[int]],
                 kernels: Mapping[str, Tensor] | None) -> Figure:
    """For the first filters of a layer the patches that excite them most, a sheet for each network.

    kernels: (O, k, k) for each network, to be shown at the left of the patches, all in one scale.
    """
    shown = min(MOST_SHOWN, len(next(iter(found.values())).channels))
    columns = 4 if kernels else 8
    figure, panels = plt.subplots(1, len(found), figsize=(14, 7.6 if shown > 32 else 8), layout="constrained")
    largest = max(float(weights.abs().max()) for weights in kernels.values()) if kernels else 1.0
    for axes, (name, patches) in zip(panels, found.items(), strict=True):
        cells = []
        for k in range(shown):
            nine = make_grid(enlarged(as_colours(patches.patches[k]), 24), nrow=3, padding=2, pad_value=2.0)
            nine = minidl.where(nine > 1, minidl.tensor(BETWEEN).reshape(3, 1, 1), nine)
            if kernels:
                height = nine.shape[1]                                                      # (3, height, height)
                kernel = enlarged(coloured(kernels[name][k:k + 1], largest), height // 2)[0]
                top = (height - kernel.shape[1]) // 2
                frame = minidl.ones(3, height, kernel.shape[2] + 6)                     # white, kernel in the middle
                frame[:, top:top + kernel.shape[1], :-6] = kernel
                nine = minidl.cat([frame, nine], dim=2)
            cells.append(nine)
        dead = all_dead[name]
        draw_sheet(axes, minidl.stack(cells), patches.channels[:shown], dead, columns, gap=18)
        which = "" if shown == len(patches.channels) else f"the first {shown} of "
        axes.set_title(f"{name}: {which}{len(patches.channels):,} filters, "
                       f"{sum(k in dead for k in patches.channels[:shown])} of them dead", fontsize=11)
    if kernels:
        add_scale(figure, list(panels), largest, "weight of the kernel")
    return figure


def draw_selectivity(shares: Mapping[str, Mapping[str, np.ndarray]], chance: np.ndarray, count: int) -> Figure:
    """For each layer, how many of the filters have how many patches of one class: trained, untrained, and by chance."""
    figure, panels = plt.subplots(1, len(shares), figsize=(12, 3.8), layout="constrained", sharey=True, squeeze=False)
    places = np.arange(1, count + 1)
    for axes, (layer, of_network) in zip(panels[0], shares.items(), strict=True):
        for shift, (name, values) in zip((-0.2, 0.2), of_network.items(), strict=True):
            often = np.bincount(np.rint(values * count).astype(int), minlength=count + 1)[1:] / max(1, len(values))
            axes.bar(places + shift, often, 0.4, label=f"{name} ({len(values)} live filters)")
        often = np.bincount(np.rint(chance * count).astype(int), minlength=count + 1)[1:] / len(chance)
        axes.plot(places, often, "k.:", label="images drawn at random")
        axes.set(title=layer, xlabel=f"of {count} patches, from the commonest class", xticks=places)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.legend(fontsize=7)
    panels[0, 0].set_ylabel("share of the filters")
    return figure
