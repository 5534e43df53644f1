"""The five optimizers of `labs.mlp`, its figures, and a valley of two dimensions that shows their paths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import minidl
from minidl import optim


class Choice(NamedTuple):
    """An optimizer: how to make it of parameters and a rate, its step, who published it, and its colour in figures."""

    make: Callable[[Iterable[minidl.Tensor], float], optim.Optimizer]
    rule: str
    source: str
    colour: str


OPTIMIZERS = {
    "SGD": Choice(lambda parameters, lr: optim.SGD(parameters, lr),
                  "p ← p - lr · g", "Robbins and Monro 1951, Ann. Math. Statist. 22", "black"),
    "momentum": Choice(lambda parameters, lr: optim.SGD(parameters, lr, momentum=0.9),
                       "v ← 0.9 v + g,  p ← p - lr · v", "Polyak 1964, USSR Comput. Math. 4(5)", "C0"),
    "RMSprop": Choice(lambda parameters, lr: optim.RMSprop(parameters, lr),
                      "v ← 0.99 v + 0.01 g²,  p ← p - lr · g / √v", "Tieleman and Hinton 2012, lecture 6.5", "C1"),
    "Adagrad": Choice(lambda parameters, lr: optim.Adagrad(parameters, lr),
                      "s ← s + g²,  p ← p - lr · g / √s", "Duchi, Hazan and Singer 2011, JMLR 12", "C2"),
    "Adam": Choice(lambda parameters, lr: optim.Adam(parameters, lr),
                   "m ← 0.9 m + 0.1 g,  v ← 0.999 v + 0.001 g²,  p ← p - lr · m̂ / √v̂",
                   "Kingma and Ba 2015, arXiv:1412.6980", "C3")}

START, STEPS = (-9.0, 1.5), 30                              # a and b of the first place
STEEP = 30.0                                                # the curvature across the valley; along it, 1
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
ANGLES = {"the parameters are a and b": 0.0, "the parameters are turned by 45°": math.pi / 4}

Path = tuple[float, np.ndarray, np.ndarray]                 # rate, places (steps + 1, 2), heights (steps + 1,)


def descend(choice: Choice, lr: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Go down h(a, b) = ½ (a² + 30 b²), float64: places (a, b), (steps + 1, 2), and their heights, (steps + 1,).

    angle: how far the two parameters, which the optimizer sees, are turned against a and b.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    turn = minidl.tensor([[cos, sin], [-sin, cos]], dtype=minidl.float64)
    curvature = minidl.tensor([1.0, STEEP], dtype=minidl.float64)
    p = (turn.T @ minidl.tensor(START, dtype=minidl.float64)).requires_grad_()
    optimizer = choice.make([p], lr)
    places, heights = [], []
    for _ in range(STEPS + 1):
        place = turn @ p                                    # (2, 2) @ (2,) -> (2,): a and b of these parameters
        height = (curvature * place * place).sum() / 2
        places.append(place.detach().numpy().copy())
        heights.append(height.item())
        optimizer.zero_grad()
        height.backward()
        optimizer.step()
    return np.array(places), np.array(heights)


def best_paths(angle: float) -> dict[str, Path]:
    """For each optimizer, of all rates the one whose path is lowest on average, and that path."""
    best = {}
    for name, choice in OPTIMIZERS.items():
        paths = [(lr, *descend(choice, lr, angle)) for lr in RATES]
        best[name] = min(paths, key=lambda path: path[2].mean() if np.isfinite(path[2]).all() else math.inf)
    return best


def draw_valleys(paths: Mapping[str, Mapping[str, Path]]) -> Figure:
    """A row for each valley, by its title: the paths of all optimizers from above, and their heights."""
    figure, panels = plt.subplots(len(paths), 2, figsize=(11, 3.2 * len(paths)), layout="constrained",
                                  width_ratios=[2, 1])
    a, b = np.meshgrid(np.linspace(-10, 4, 200), np.linspace(-2.5, 2.5, 100))
    for (above, beside), (title, of_optimizers) in zip(panels, paths.items(), strict=True):
        above.contour(a, b, (a * a + STEEP * b * b) / 2, levels=np.geomspace(0.3, 150, 12), colors="lightgray",
                      linewidths=0.8)
        above.plot(0, 0, "k*", markersize=10)
        for name, (lr, places, heights) in of_optimizers.items():
            colour, width = OPTIMIZERS[name].colour, 3.5 if name == "RMSprop" else 1.3     # Adagrad runs upon it
            above.plot(*places.T, color=colour, marker=".", markersize=3.5 + width, linewidth=width)
            beside.semilogy(heights, color=colour, linewidth=width, label=f"{name}, {lr:.2g}")
        above.set(title=f"From above: {title}", xlabel="a, along the valley", ylabel="b, across it", xlim=(-10, 4),
                  ylim=(-2.5, 2.5))
        beside.set(title="Height", xlabel="step", ylabel="h (log scale)", ylim=(1e-3, 300))
        beside.grid(alpha=0.3)
        beside.legend(title="optimizer, rate", fontsize=8, title_fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_rates(rates: Sequence[float], losses: Mapping[str, Sequence[float]], title: str) -> Figure:
    """For each optimizer its loss with each rate; a large dot on the best."""
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for name, of_rates in losses.items():
        best = int(np.argmin(of_rates))
        axes.plot(rates, of_rates, color=OPTIMIZERS[name].colour, marker=".", label=name)
        axes.plot(rates[best], of_rates[best], "o", color=OPTIMIZERS[name].colour, markersize=9)
    axes.axhline(math.log(10), color="gray", linestyle=":", label="guessing: ln 10")
    axes.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="mean cross-entropy (log scale)", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_curves(runs: Mapping[str, tuple[np.ndarray, np.ndarray]], rates: Mapping[str, float], window: int) -> Figure:
    """Left, the loss of every step, faint, and means of `window` steps; right, the accuracy after each epoch.

    runs: for each optimizer the losses, (steps,), and loss and accuracy after each epoch, (epochs, 2).
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, (of_steps, of_epochs) in runs.items():
        colour, smooth = OPTIMIZERS[name].colour, np.convolve(of_steps, np.full(window, 1 / window), "valid")
        left.plot(np.arange(1, len(of_steps) + 1), of_steps, color=colour, alpha=0.2, linewidth=0.7)
        left.plot(np.arange(len(smooth)) + (window + 1) / 2, smooth, color=colour)
        right.plot(np.arange(1, len(of_epochs) + 1), of_epochs[:, 1], color=colour, marker=".",
                   label=f"{name}, {rates[name]:g}")
    left.set(yscale="log", xlabel="step", ylabel="cross-entropy of the batch (log scale)", title="Training loss")
    right.set(xlabel="epoch", ylabel="accuracy", title="Validation accuracy")
    right.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    right.legend(title="optimizer, rate", fontsize=9)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def draw_weights(blocks: Mapping[str, np.ndarray]) -> tuple[Figure, float]:
    """32 pictures, (32, H, W), for each title, all with one scale of colours; returns the end of the scale too."""
    figure = plt.figure(figsize=(10, 1.6 * len(blocks)))
    places = {"left": 0.005, "right": 0.995, "bottom": 0.02, "top": 0.84, "wspace": 0.06, "hspace": 0.06}
    largest = float(np.quantile(np.abs(list(blocks.values())), 0.95))
    for block, (title, units) in zip(figure.subfigures(len(blocks), 1), blocks.items(), strict=True):
        block.suptitle(title, fontsize=11, y=0.97)
        for axes, unit in zip(block.subplots(2, 16, gridspec_kw=places).flat, units, strict=True):
            axes.imshow(unit, cmap="RdBu_r", vmin=-largest, vmax=largest)
            axes.set(xticks=[], yticks=[])
    return figure, largest
