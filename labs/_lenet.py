"""The pictures of the LeNet lab: images, kernels, feature maps, answers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

import minidl
import minidl.nn.functional as F
from minidl import Tensor
from minidl.utils import make_grid


def show(axes: Axes, image: Tensor) -> None:
    """An image (C, H, W) from 0 to 1, in grey or in colour."""
    axes.imshow(image.permute(1, 2, 0).squeeze(2).numpy(), cmap="gray", vmin=0, vmax=1)     # (H, W) or (H, W, 3)
    axes.set(xticks=[], yticks=[])


def coloured(values: Tensor, largest: float) -> Tensor:
    """(N, H, W) -> (N, 3, H, W): white is 0, red is above it, blue below it, darkest at ± largest."""
    colours = plt.get_cmap("RdBu_r")((values.numpy() / largest + 1) / 2)[..., :3]           # (N, H, W, 3)
    return minidl.from_numpy(colours.transpose(0, 3, 1, 2).astype(np.float32))


def sheet(pictures: Tensor, columns: int) -> Tensor:
    """(N, 3, H, W) -> (3, H', W'): so many pictures in a row, each pixel 4×4 as large, black lines between."""
    return make_grid(F.interpolate(pictures, scale_factor=4, mode="nearest"), nrow=columns, padding=2)


def draw_curves(step_losses: Mapping[str, np.ndarray], test_accuracy: Mapping[str, Sequence[float]]) -> Figure:
    """For each network the loss of every step, in the mean over 60 parts, and the accuracy after every epoch."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for name, losses in step_losses.items():
        epochs, parts = len(test_accuracy[name]), np.array_split(losses, min(60, len(losses)))
        ends = np.cumsum([len(part) for part in parts]) / len(losses) * epochs
        left.plot(ends, [part.mean() for part in parts], label=name)
        right.plot(range(1, epochs + 1), test_accuracy[name], "o-", label=name)
    left.set(title="Training loss", xlabel="epochs", ylabel="mean cross-entropy (log scale)", yscale="log")
    left.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter(plt.NullFormatter())
    right.set(title="Test accuracy after each epoch", xlabel="epoch", ylabel="accuracy")
    right.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    right.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


def draw_classes(names: Sequence[str], accuracy: Mapping[str, np.ndarray],
                 deviation: Mapping[str, np.ndarray]) -> tuple[Figure, float]:
    """A bar for each class and network, (10,) numbers each, with ± as whiskers. Returns where the axis starts, too."""
    figure, axes = plt.subplots(figsize=(10, 3.8), layout="constrained")
    for name, shift in zip(accuracy, (-0.2, 0.2), strict=True):
        axes.bar(np.arange(len(names)) + shift, accuracy[name], 0.4, yerr=deviation[name], capsize=3, label=name)
    worst = min(float((accuracy[name] - deviation[name]).min()) for name in accuracy)
    start = np.floor(20 * (1 - 1.2 * (1 - worst))) / 20 if worst > 0.5 else 0.0         # in steps of 5 %
    axes.set(title="Accuracy of each class", ylim=(start, 1 + 0.2 * (1 - start)),
             ylabel="accuracy" + (f" (axis from {start:.0%})" if start else ""))
    ticks = MaxNLocator(steps=[1, 2, 5, 10]).tick_values(start, 1)
    axes.set_yticks([tick for tick in ticks if start <= tick < 1.001])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_axisbelow(True)
    axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) <= 10 else 20)
    axes.legend(ncols=2, loc="upper left")                                      # there is room above 100 %
    axes.grid(axis="y", alpha=0.3)
    return figure, start


def draw_confusion(names: Sequence[str], confusion: Mapping[str, np.ndarray]) -> Figure:
    """For each network how many images of a class (row) got which answer (column); mistakes are coloured."""
    mistakes = {name: counts - np.diag(counts.diagonal()) for name, counts in confusion.items()}
    most = max(1, *(int(counts.max()) for counts in mistakes.values()))
    is_short = max(map(len, names)) <= 2
    figure, panels = plt.subplots(1, 2, figsize=(11, 5.4 if is_short else 6), layout="constrained", sharey=True)
    for axes, name in zip(panels, confusion, strict=True):
        picture = axes.imshow(mistakes[name], cmap="Reds", vmin=0, vmax=most)
        for (row, column), number in np.ndenumerate(confusion[name]):
            is_pale = row == column or number == 0
            colour = "gray" if is_pale else "white" if number > 0.6 * most else "black"
            axes.text(column, row, f"{number}", ha="center", va="center", fontsize=8, color=colour)
        axes.set(title=f"{name}: {mistakes[name].sum():,} mistakes", xlabel="answer")
        axes.set_xticks(range(len(names)), names, rotation=0 if is_short else 90)
    panels[0].set(ylabel="true class", yticks=range(len(names)), yticklabels=names)
    figure.colorbar(picture, ax=panels, label="mistakes", shrink=0.7, ticks=MaxNLocator(integer=True))
    return figure


def draw_mistakes(images: Tensor, truth: np.ndarray, predicted: Mapping[str, np.ndarray],
                  names: Sequence[str]) -> Figure:
    """Test images that both networks get wrong, and those that only one of them does: the first eight of each."""
    (first, second), (a, b) = predicted, predicted.values()
    groups = {"Wrong with both": (a != truth) & (b != truth), f"Wrong with {first} only": (a != truth) & (b == truth),
              f"Wrong with {second} only": (a == truth) & (b != truth)}
    figure = plt.figure(figsize=(10, 7), layout="constrained")
    short = [name.split()[0] for name in predicted]             # tanh, ReLU
    for part, (title, is_in) in zip(figure.subfigures(3, 1), groups.items(), strict=True):
        chosen = np.flatnonzero(is_in)[:8]
        part.suptitle(f"{title}: {is_in.sum():,}" + (", the first eight" if is_in.sum() > 8 else ""), fontsize=11)
        for axes, i in itertools.zip_longest(part.subplots(1, 8), chosen):
            if i is None:
                axes.set_visible(False)                         # keeps its place
                continue
            show(axes, images[int(i)])
            axes.set_title(f"is {names[truth[i]]}\n{short[0]}: {names[a[i]]}\n{short[1]}: {names[b[i]]}", fontsize=8)
    return figure


def draw_kernels(weights: Mapping[str, tuple[Tensor, Tensor]]) -> tuple[Figure, list[float]]:
    """The kernels of both convolutions, (6, C, 5, 5) and (16, 6, 5, 5), a row for each network.

    With one channel red is above 0 and blue below it; with three a kernel is a colour picture around grey, which is 0.
    All networks have the same scales. Returns them too: the largest absolute weight of each convolution.
    """
    largest = [max(float(pair[i].abs().max()) for pair in weights.values()) for i in (0, 1)]
    figure = plt.figure(figsize=(10, 8.4), layout="constrained")
    for part, (name, (one, two)) in zip(figure.subfigures(len(weights), 1), weights.items(), strict=True):
        part.suptitle(name, fontsize=11)
        left, right = part.subplots(1, 2, width_ratios=[3 / 2, 16 / 6])
        of_first = coloured(one[:, 0], largest[0]) if one.shape[1] == 1 else (one / largest[0] + 1) / 2
        show(left, sheet(of_first, 3))
        pairs = two.permute(1, 0, 2, 3).flatten(0, 1)           # (16, 6, 5, 5) -> (6, 16, 5, 5) -> (96, 5, 5)
        show(right, sheet(coloured(pairs, largest[1]), 16))
        left.set_xlabel(f"convolution 1: {len(one)} kernels, ±{largest[0]:.2f}")
        right.set(xlabel=f"convolution 2: {two.shape[0]} maps (columns) from {two.shape[1]} (rows), ±{largest[1]:.2f}")
    return figure, largest


def draw_maps(images: Tensor, titles: Sequence[str], stages: Mapping[str, Tensor]) -> tuple[Figure, dict[str, float]]:
    """A column for each image (C, H, W): the image, and below it its maps (N, C, H, W) after each stage.

    All panels of a row have the same scale. Returns them too: the largest absolute number of each stage.
    """
    scales = {name: float(maps.abs().max()) or 1.0 for name, maps in stages.items()}
    columns = {name: 3 if maps.shape[1] == 6 else 4 for name, maps in stages.items()}       # 2×3, or 4×4 maps
    figure, grid = plt.subplots(1 + len(stages), len(images), figsize=(10, 10.4), layout="constrained",
                                height_ratios=[1, *(2 / 3 if n == 3 else 1 for n in columns.values())])
    for image, title, axes in zip(images, titles, grid[0], strict=True):
        show(axes, image)
        axes.set_title(title, fontsize=9)
    for (name, maps), row in zip(stages.items(), grid[1:], strict=True):
        count, height, width = maps.shape[1:]
        row[0].set_ylabel(f"{name}\n{count} of {height}×{width}\n±{scales[name]:.2f}", fontsize=9)
        for axes, of_image in zip(row, maps, strict=True):
            show(axes, sheet(coloured(of_image, scales[name]), columns[name]))
    return figure, scales
