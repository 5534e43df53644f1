"""Larger images in colour, augmented; how loading and training are timed; and what the lab about them draws."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn, optim
from minidl.data import DataLoader, Dataset
from minidl.transforms import Resize
from minidl.transforms.functional import to_tensor


class Images(Dataset[Any]):
    """Byte images in memory; `change` changes each of them anew, whenever it is fetched.

    pixels: uint8 (N, H, W) if they are grey, (N, H, W, 3) in colour. labels: int64 (N,). change: a PIL image -> one in
    colour. normalise: float32 images (N, 3, H, W), or one (3, H, W) -> the same shape.
    """

    def __init__(self, pixels: np.ndarray, labels: Tensor, change: Callable[[Any], Any],
                 normalise: Callable[[Tensor], Tensor]) -> None:
        self.pixels, self.labels, self.change, self.normalise = pixels, labels, change, normalise

    def __len__(self) -> int:
        return len(self.pixels)

    def changed(self, i: int) -> np.ndarray:
        """Image i as bytes (H, W, 3)."""
        return np.asarray(self.change(Image.fromarray(self.pixels[i])))

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) and label: all transforms for one image, as it is often done."""
        return self.normalise(to_tensor(self.changed(i))), self.labels[i]

    def whole_batch(self, indices: Sequence[int]) -> list[Tensor]:
        """What a DataLoader asks for: the same numbers, but all images become floats and are normalised at once."""
        pixels = np.stack([self.changed(i) for i in indices])                       # (N, H, W, 3)
        images = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)  # -> (N, 3, H, W)
        return [self.normalise(minidl.from_numpy(images)), self.labels[minidl.tensor(list(indices))]]


def enlarged(images: Tensor, size: int) -> np.ndarray:
    """Numbers 0…1 (N, C, h, w) -> bytes (N, size, size) if they are grey, (N, size, size, 3) in colour."""
    pixels = np.rint(images.numpy() * 255).astype(np.uint8).transpose(0, 2, 3, 1)       # (N, C, h, w) -> (N, h, w, C)
    if pixels.shape[3] == 1:
        pixels = pixels[..., 0]                                                         # -> (N, h, w)
    resize = Resize((size, size))
    return np.stack([np.asarray(resize(Image.fromarray(np.ascontiguousarray(image)))) for image in pixels])


def mean_and_std(pixels: np.ndarray) -> tuple[list[float], list[float]]:
    """Of bytes (N, H, W) or (N, H, W, 3), as numbers 0…1: one of each a channel, three alike for grey."""
    x = pixels.reshape(-1, pixels.shape[3] if pixels.ndim == 4 else 1) / 255.0          # -> (N·H·W, channels)
    return np.broadcast_to(x.mean(0), 3).tolist(), np.broadcast_to(x.std(0), 3).tolist()


# -- training and timing -----------------------------------------------------------------------------------------------

def step(network: nn.Module, optimizer: optim.Optimizer, batch: Sequence[Tensor], device: str) -> float:
    """One step of training; returns the loss, and so waits until the device has computed it."""
    images, labels = (part.to(device) for part in batch)
    loss = F.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def log_probabilities(network: nn.Module, dataset: Dataset[Any], device: str, dropout: bool = False) -> np.ndarray:
    """(N, classes), for a whole dataset. dropout: as in training, though nothing is learned."""
    network.train(dropout)
    with minidl.no_grad():
        return minidl.cat([F.log_softmax(network(images.to(device)), dim=1).cpu()
                           for images, _ in DataLoader(dataset, 128)]).numpy()


def loss_and_accuracy(answers: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean cross-entropy and share of right answers, from log-probabilities (N, classes) and labels (N,)."""
    return float(-answers[np.arange(len(truth)), truth].mean()), float((answers.argmax(1) == truth).mean())


def images_per_second(dataset: Dataset[Any], batch_size: int, work: Callable[[Sequence[Tensor]], object],
                      workers: int | None, count: int) -> float:
    """How many images a second go through `work`, in `count` batches.

    workers: how many threads load the images; None for one batch that is ready, again and again.
    """
    order = np.random.default_rng(0).integers(len(dataset), size=(count + 1) * batch_size).tolist()
    batches: Iterator[Any] = iter(DataLoader(dataset, batch_size, sampler=order, num_workers=workers or 0))
    first = next(batches)                                   # not timed: it starts the threads
    if workers is None:
        batches = itertools.repeat(first, count)
    start = time.perf_counter()
    for batch in batches:
        work(batch)
    return count * batch_size / (time.perf_counter() - start)


def fastest(work: Callable[[], object], times: int = 3) -> float:
    """Milliseconds of the fastest of some calls: what else the computer does only ever makes one slower."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)


# -- figures -----------------------------------------------------------------------------------------------------------

def draw_augmentation(images: Images, plain: Images, names: Sequence[str]) -> Figure:
    """Five images as they are, and seven draws of each."""
    figure, grid = plt.subplots(5, 8, figsize=(9, 6), layout="constrained")
    for i, row in enumerate(grid):
        row[0].set_ylabel(names[int(images.labels[i])], rotation=0, ha="right", va="center")
        for k, axes in enumerate(row):
            axes.imshow(images.changed(i) if k else plain.changed(i))
            axes.set(xticks=[], yticks=[], title="" if i else f"draw {k}" if k else "as it is")
    return figure


def draw_normalisation(after: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Figure:
    """Histograms of normalised pixels (channels, count), and of what they were before.

    One channel is black, three are red, green and blue.
    """
    channels = len(after)
    before = after * np.reshape(std[:channels], (-1, 1)) + np.reshape(mean[:channels], (-1, 1))
    figure, panels = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
    for axes, values, title in ((panels[0], before, "x, before"), (panels[1], after, "(x − mean) / deviation, after")):
        for channel, colour in zip(values, ("C3", "C2", "C0") if channels == 3 else ("black",), strict=True):
            axes.hist(channel, bins=50, histtype="step", log=True, color=colour)
        axes.axvline(values.mean(), color="C1", linestyle="--", label="mean")
        axes.set(title=title, xlabel=f"value of a pixel (mean {values.mean():.2f}, deviation {values.std():.2f})")
    panels[0].set_ylabel("pixels (log scale)")
    return figure


def draw_curves(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Loss and accuracy by epoch: train_loss, val_loss, train_accuracy, val_accuracy."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axes, what in zip(panels, ("loss", "accuracy"), strict=True):
        for kind, style, label in (("train", "C0o--", "training: dropout, augmented"),
                                   ("val", "C1o-", "validation: neither")):
            values = curves[f"{kind}_{what}"]
            axes.plot(range(1, len(values) + 1), values, style, label=label)
        axes.set(xlabel="epoch", ylabel="mean cross-entropy" if what == "loss" else what)
        axes.set_xticks(range(1, len(values) + 1, len(values) // 12 + 1))
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    return figure


def draw_confusion(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """Counts (truth, answer); colours are shares of the true class."""
    shares = confusion / confusion.sum(1, keepdims=True).clip(1)
    figure, axes = plt.subplots(figsize=(6.5, 5.4), layout="constrained")
    figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), label="share of the true class")
    for i, k in zip(*np.nonzero(confusion), strict=True):
        axes.text(k, i, f"{confusion[i, k]:,}", ha="center", va="center", size=8,
                  color="white" if shares[i, k] > 0.5 else "black")
    axes.set(xlabel="the network says", ylabel="it is")
    axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) <= 2 else 90)
    axes.set_yticks(range(len(names)), names)
    return figure


def draw_modes(in_train: np.ndarray, in_eval: float, pictures: Sequence[np.ndarray], names: Sequence[str],
               of_one: np.ndarray, of_one_in_eval: Sequence[float]) -> Figure:
    """Left: accuracies (draws,) of train() and the one of eval(). Right, for each picture: its answers (draws,)."""
    figure = plt.figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 2.2])
    axes = left.subplots()
    axes.plot(np.arange(1, len(in_train) + 1), in_train, "C0o", label="train()")
    axes.axhline(in_eval, color="C1", label="eval()")
    axes.set(xlabel="pass over the images", ylabel="accuracy", xticks=range(1, len(in_train) + 1, 2))
    axes.margins(y=0.15)
    axes.legend(fontsize=8)
    for column, grid in enumerate(zip(*right.subplots(2, len(pictures), height_ratios=[1, 1.1]), strict=True)):
        picture, bars = grid
        picture.imshow(pictures[column])
        picture.set(xticks=[], yticks=[])
        picture.set_title(f"{names[column]}, ±{of_one[column].std(ddof=1):.3f}", fontsize=10)
        bars.hist(of_one[column], bins=np.linspace(0, 1, 26), color="C0")
        bars.axvline(of_one_in_eval[column], color="C1")
        bars.set(xlim=(-0.03, 1.03), ylabel="" if column else "answers of train()")
        bars.set_xlabel("probability of the right class", fontsize=8)
        bars.yaxis.get_major_locator().set_params(integer=True)
    return figure
