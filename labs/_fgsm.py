"""What the lab of attacks needs beside the attacks: training on adversarial images, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

import minidl
from labs._classifier import Classifier
from labs._lenet import show
from minidl import Tensor, nn
from minidl.attacks import FGSM
from minidl.nn.utils.directions import lengths, unit


class Hardened(Classifier):
    """A classifier trained on every image twice: as it is, and as FGSM changes it for the weights of the moment.

    loss = (J(θ, x, y) + J(θ, x + eps · sign(dJ/dx), y)) / 2      Ref: Goodfellow et al. 2015, arXiv:1412.6572, part 6
    """

    def __init__(self, network: nn.Module, lr: float, eps: float, share: float = 0.5) -> None:
        super().__init__(network, lr)
        self.attack, self.share = FGSM(network, eps), share

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch; share = 0 trains on the images as they are only."""
        images, labels = batch
        if self.share:
            images, labels = minidl.cat([images, self.attack(images, labels)]), minidl.cat([labels, labels])
        return self._measure((images, labels), "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """The accuracy on images as they are, and on what FGSM makes of them now."""
        images, labels = batch
        super().validation_step(batch, batch_idx)
        answers = self(self.attack(images, labels)).argmax(dim=1)
        self.log("val_fgsm", (answers == labels).float().mean(), prog_bar=True)


def of_length(images: Tensor, direction: Tensor, length: Tensor) -> Tensor:
    """clip(x + s·d), where the number s of each image is such that the change, after clipping, has a given L2 norm.

    images, direction (N, C, H, W); length (N,). The change grows with s, so s is found by halving an interval. Where
    clipping or a direction of 0 allows no such length, it is the largest with s up to 1000.
    """
    d = unit(direction)
    low, high = minidl.zeros(len(images), 1, 1, 1), minidl.full((len(images), 1, 1, 1), 1e3)
    for _ in range(40):
        middle = (low + high) / 2
        changed = (images + middle * d).clamp(0, 1)
        too_far = lengths(changed - images) > length.reshape(-1, 1, 1, 1)
        low, high = minidl.where(too_far, low, middle), minidl.where(too_far, middle, high)
    return (images + low * d).clamp(0, 1)


# -- the pictures ------------------------------------------------------------------------------------------------------

def show_change(axes: Axes, change: Tensor, largest: float) -> object:
    """A change (1, H, W): red is brighter, blue is darker, white is 0."""
    axes.set(xticks=[], yticks=[])
    return axes.imshow(change[0].numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)


def draw_gradients(images: Tensor, gradients: Tensor, names: Sequence[str]) -> Figure:
    """Under each image the gradient of its loss, each in its own scale, and the sign of the gradient."""
    figure, rows = plt.subplots(3, len(images), figsize=(11, 4), layout="constrained", squeeze=False)
    for i in range(len(images)):
        largest = float(gradients[i].abs().max())
        show(rows[0, i], images[i])
        rows[0, i].set_title(names[i], fontsize=9)
        show_change(rows[1, i], gradients[i], largest or 1.0)
        rows[1, i].set_title(f"±{largest:.0e}", fontsize=8)
        show_change(rows[2, i], gradients[i].sign(), 1.0)
    for axes, label in zip(rows[:, 0], ("image x", "dJ/dx", "sign(dJ/dx)"), strict=True):
        axes.set_ylabel(label)
    return figure


def draw_one(image: Tensor, adversarial: Tensor, probabilities: np.ndarray, truth: int, eps: float,
             names: Sequence[str]) -> Figure:
    """An image, its change, the changed image, and the probabilities (2, classes) before and after."""
    figure = plt.figure(figsize=(10, 5.6), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=[3, 2])
    first, middle, last = (figure.add_subplot(grid[0, k]) for k in range(3))
    show(first, image)
    show(last, adversarial)
    before, after = probabilities.argmax(1)
    first.set_title(f"image: is {names[truth]}, says {names[before]} ({probabilities[0, before]:.1%})", fontsize=10)
    last.set_title(f"adversarial: says {names[after]} ({probabilities[1, after]:.1%})", fontsize=10, color="crimson")
    shown = show_change(middle, adversarial - image, eps)
    middle.set_title(f"the change, at most {eps:g} in a pixel", fontsize=10)
    figure.colorbar(shown, ax=middle, shrink=0.8, ticks=[-eps, 0, eps])             # type: ignore[arg-type]
    bars, places = figure.add_subplot(grid[1, :]), np.arange(len(names))
    bars.bar(places - 0.2, probabilities[0], 0.4, color="C0", label="image")
    bars.bar(places + 0.2, probabilities[1], 0.4, color="crimson", label="adversarial")
    bars.set_xticks(places, names)
    bars.set(ylim=(0, 1.02), ylabel="probability")
    bars.legend()
    return figure


def draw_rows(rows: Sequence[Tensor], answers: np.ndarray, truth: np.ndarray, epsilons: Sequence[float],
              names: Sequence[str]) -> Figure:
    """A row for each eps with the same images, changed; above each what it is and what the model says: 6 → 0."""
    columns = len(truth)
    arrow = " → " if max(map(len, names)) <= 2 else "\n→ "                  # two lines for Pullover → Coat
    height = 1.35 if arrow == " → " else 1.5
    figure, grid = plt.subplots(len(rows), columns, figsize=(max(1.15 * columns, 4), height * len(rows)),
                                layout="constrained", squeeze=False)
    for axes_row, images, said, eps in zip(grid, rows, answers, epsilons, strict=True):
        axes_row[0].set_ylabel(f"ε = {eps:g}")
        for i, axes in enumerate(axes_row):
            show(axes, images[i])
            axes.set_title(f"{names[truth[i]]}{arrow}{names[said[i]]}", fontsize=8,
                           color="black" if said[i] == truth[i] else "crimson")
    return figure


def draw_accuracy(axes: Axes, epsilons: Sequence[float], curves: Mapping[str, Sequence[float]], count: int,
                  styles: Mapping[str, str]) -> None:
    """Accuracy against eps, one line for each attack, with a band of one standard deviation of chance."""
    for name, accuracy in curves.items():
        a = np.asarray(accuracy)
        deviation = np.sqrt(a * (1 - a) / count)
        line, = axes.plot(epsilons[:len(a)], a, styles[name], marker="o", markersize=4, label=name)
        axes.fill_between(epsilons[:len(a)], a - deviation, a + deviation, color=line.get_color(), alpha=0.15)
    axes.set(xlabel="ε, the largest change of a pixel", ylabel="accuracy", ylim=(-0.02, 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def draw_epochs(axes: Axes, histories: Mapping[str, Sequence[Mapping[str, float]]], eps: float) -> None:
    """The accuracy on validation images after each epoch, as they are and after FGSM, for each way of training."""
    for (name, history), colour in zip(histories.items(), ("C0", "C7"), strict=True):
        epochs = range(1, len(history) + 1)
        axes.plot(epochs, [h["val_accuracy"] for h in history], colour, label=f"{name}: as they are")
        axes.plot(epochs, [h["val_fgsm"] for h in history], f"{colour}--", marker="o",
                  label=f"{name}: after FGSM, ε = {eps:g}")
    axes.set(title="Validation images, epoch by epoch", xlabel="epoch of training on", ylabel="accuracy",
             ylim=(-0.02, 1.03))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def draw_smallest(smallest: Mapping[str, np.ndarray], step: float, largest: float) -> Figure:
    """How many images are fooled first at which eps; those that never are stand in a bar of their own at the right."""
    figure, panels = plt.subplots(len(smallest), 1, figsize=(8, 2.1 * len(smallest)), layout="constrained", sharex=True,
                                  sharey=True)
    for axes, (name, values) in zip(panels, smallest.items(), strict=True):
        reached = values[np.isfinite(values)]
        axes.hist(reached, bins=np.arange(0, largest + 5 * step, 4 * step), color="C3" if name == "FGSM" else "C7")
        never = len(values) - len(reached)
        axes.bar(largest + 0.06, never, width=0.04, color="black")
        axes.annotate(f"{never} never", (largest + 0.06, never), ha="center", va="bottom", fontsize=8)
        median = np.median(values)
        if np.isfinite(median):
            axes.axvline(median, color="black", linewidth=1, linestyle="--")
        axes.set_title(f"{name}: the median is {median:.3f}" if np.isfinite(median) else
                       f"{name}: half or more are never fooled", fontsize=10)
        axes.set_ylabel("images")
        axes.margins(y=0.15)
    panels[-1].set_xlabel("the smallest ε that fools the model")
    return figure


def draw_signs(image: Tensor, changed: Mapping[str, Tensor], said: Mapping[str, str]) -> Figure:
    """One image and what each way to change it makes of it; changes in one scale."""
    figure, grid = plt.subplots(2, 1 + len(changed), figsize=(10.5, 5), layout="constrained")
    show(grid[0, 0], image)
    grid[0, 0].set_title("image", fontsize=9)
    grid[1, 0].remove()
    largest = max(float((other - image).abs().max()) for other in changed.values())
    for column, (name, other) in enumerate(changed.items(), start=1):
        show(grid[0, column], other)
        grid[0, column].set_title(f"{name}\nsays {said[name]}", fontsize=9)
        change = other - image
        shown = show_change(grid[1, column], change, largest)
        grid[1, column].set_title(f"L2 {float(change.norm()):.2f}, L∞ {float(change.abs().max()):.2f}", fontsize=9)
    figure.colorbar(shown, ax=grid[1, 1:], shrink=0.9, label="change of a pixel")     # type: ignore[arg-type]
    return figure
