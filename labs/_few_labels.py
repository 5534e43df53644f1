"""Classes from few labels: neighbours of codes beside those of pixels, and classifiers that begin with an encoder."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.linear_model import RidgeClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import minidl
from labs import _autoencoders, _classifier
from labs._arguments import positive, several
from labs._autoencoders import FORMS, VARIANTS, blurred, codes_of, in_words
from labs._components import Components
from labs._statistics import mean_and_error
from minidl import Tensor, nn
from minidl.data import DataLoader, TensorDataset
from minidl.models import Autoencoder
from minidl.train import Trainer

LABELS = (10, 30, 100, 300, 1000)       # how many labelled images the nearest neighbour is sought among
Accuracy = np.ndarray                   # (draws, numbers of labels)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the lab takes besides."""
    _autoencoders.add_arguments(parser)
    parser.add_argument("--draws", type=several, metavar="N", help="how many sets of labelled images are drawn")
    parser.add_argument("--tune-epochs", type=positive, metavar="N", help="epochs of fine-tuning")
    parser.add_argument("--tune-draws", type=several, metavar="N", help="how many of the sets are fine-tuned on")


# -- neighbours --------------------------------------------------------------------------------------------------------

def flat(images: Tensor) -> np.ndarray:
    """(N, C, H, W) -> (N, C·H·W)."""
    return images.flatten(1).numpy()


Encode = Callable[[Tensor], np.ndarray]         # images (N, C, H, W) -> codes (N, numbers)


def representations(networks: Mapping[str, Autoencoder], untrained: Mapping[str, Sequence[Autoencoder]],
                    components: Components, counts: Sequence[int], device: str) -> dict[str, list[Encode]]:
    """What an image is represented by: pixels, their blur, PCA, codes. Several where the mean of several counts."""
    def of(network: Autoencoder) -> Encode:
        return lambda images: codes_of(network, images, device)

    def by_pca(count: int) -> Encode:
        return lambda images: components.codes(images, count)

    return {"pixels": [flat], "blur": [lambda images: flat(blurred(images))],
            **{f"pca{count}": [by_pca(count)] for count in counts},
            **{name: [of(network) for network in several] for name, several in untrained.items()},
            **{name: [of(network)] for name, network in networks.items()}}


def draws_of(count: int, draws: int, seed: int) -> np.ndarray:
    """So many random orders of `count` images, (draws, at most 1,000): the first k of one are its k labelled images."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(count)[:max(LABELS)] for _ in range(draws)])


def label_counts(count: int) -> list[int]:
    """Those of LABELS that can be had from so many images."""
    return [k for k in LABELS if k <= count]


def by_neighbour(codes: np.ndarray, labels: np.ndarray, test_codes: np.ndarray, truth: np.ndarray,
                 draws: np.ndarray) -> Accuracy:
    """The share of test images whose nearest labelled image is of their class, (draws, numbers of labels)."""
    return np.array([[KNeighborsClassifier(1, algorithm="brute").fit(codes[draw[:k]], labels[draw[:k]])
                      .score(test_codes, truth) for k in label_counts(draws.shape[1])] for draw in draws])


def by_line(codes: np.ndarray, labels: np.ndarray, test_codes: np.ndarray, truth: np.ndarray,
            draws: np.ndarray) -> np.ndarray:
    """The share that a linear classifier gets right, (draws,), given all labelled images of a draw.

    It is ridge regression of the classes on standardised codes; its penalty is chosen by leaving out each image once.
    """
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(np.logspace(-1, 5, 13)))
    return np.array([probe.fit(codes[draw], labels[draw]).score(test_codes, truth) for draw in draws])


def facts_of(accuracy: Accuracy, pixels: Accuracy) -> dict[str, Any]:
    """For metrics.json: accuracies, and differences to those of the pixels for the same draws."""
    difference, error = mean_and_error(accuracy - pixels)
    return {"labels": list(LABELS[:accuracy.shape[1]]), "mean": accuracy.mean(0).tolist(),
            "sd": accuracy.std(0, ddof=1).tolist(),
            "paired_difference": difference.tolist(), "paired_error": error.tolist(),
            "wins": (accuracy > pixels).sum(0).tolist(), "draws": len(accuracy)}


def in_points(difference: float, error: float | None = None) -> str:
    """A difference of shares as "+1.3 points"."""
    return f"{100 * difference:+.1f} points" if error is None else f"{100 * difference:+.1f} ± {100 * error:.1f} points"


def on_ranking(ranked: Sequence[tuple[str, float, float]], labels: int) -> str:
    """What the figure shows, in sentences: (name, difference to pixels, its standard error), the best first."""
    gains, text = {name: gain for name, gain, _ in ranked}, ""
    for form in FORMS:
        of_form = [row for row in ranked if row[0] in VARIANTS and VARIANTS[row[0]].form == form]
        better = [in_words(name) for name, gain, error in of_form if gain > 2 * error]
        if of_form:
            text += (f"Of the {form} autoencoders ({len(of_form)}), those with codes that beat pixels with {labels} "
                     f"labels by more than two standard errors: {', '.join(better) or 'none'}. ")
    best, blur = next(name for name in gains if name in VARIANTS), gains["blur"]
    text += (f"The best of the codes, those of {in_words(best)}, have {in_points(gains[best])}, and may owe some of it "
             f"to being the best for these test images. A 3×3 blur, which learns nothing, has {in_points(blur)}")
    if gains[best] > blur > 0:
        text += f": as much as {blur / gains[best]:.0%} of it can be had by smoothing"
    elif blur > gains[best]:
        text += ": more than any code here"
    text += ". "
    for form in FORMS:
        names = [form, f"{form}_denoising", f"{form}_sparse", f"{form}_denoising_sparse"]
        if all(name in gains for name in names):
            text += (f"Noise and sparse codes together ({form}): {in_points(gains[names[3]])}; noise alone "
                     f"{in_points(gains[names[1]])}, sparse codes alone {in_points(gains[names[2]])}, neither "
                     f"{in_points(gains[names[0]])}. ")
    return text.rstrip()


def draw_neighbours(found: Mapping[str, Accuracy], baselines: set[str]) -> Figure:
    """Accuracy against the number of labels, and the paired difference to the pixels with its standard error."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.6), layout="constrained")
    counts = LABELS[:found["pixels"].shape[1]]
    for number, (name, accuracy) in enumerate(found.items()):
        style = f"C{number}--" if name in baselines else f"C{number}-"
        left.plot(counts, accuracy.mean(0), style, marker=".", label=in_words(name))
        if name != "pixels":
            difference, error = mean_and_error(accuracy - found["pixels"])
            apart = np.array(counts) * 1.015 ** (number - len(found) / 2)       # beside each other, to be told apart
            right.errorbar(apart, 100 * difference, 100 * error, fmt=style, marker=".", capsize=2)
    right.axhline(0, color="C0", linestyle="--")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="labelled training images", xticks=counts, xticklabels=[f"{k:,}" for k in counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    left.yaxis.set_major_formatter(PercentFormatter(1))
    left.set_ylabel("right by the nearest neighbour")
    right.set_ylabel("against pixels, in points")
    figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside right center")
    return figure


def draw_ranking(ranked: Sequence[tuple[str, float, float]], labels: int) -> Figure:
    """(name, difference, its standard error), the best first, as bars."""
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(ranked) + 1.3), layout="constrained")
    names, differences, errors = (np.array(column) for column in zip(*ranked, strict=True))
    colours = [FORMS[VARIANTS[name].form] if name in VARIANTS else "C7" for name in names]
    axes.barh(range(len(names)), 100 * differences, xerr=100 * errors, color=colours, capsize=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(yticks=range(len(names)), yticklabels=[in_words(name) for name in names],
             xlabel=f"against pixels, with {labels} labels, in points")
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    for what, colour in (*FORMS.items(), ("no trained network", "C7")):
        axes.plot([], [], "s", color=colour, label=what)
    axes.legend(fontsize=8)
    return figure


def why_codes(ranked: Sequence[tuple[str, float, float]], image_shape: tuple[int, ...], known: str) -> tuple[str, str]:
    """A question about what was ranked, and its answer."""
    gains = {name: gain for name, gain, _ in ranked}
    measured = "Measured here: " + ", ".join(f"{in_words(name)} {in_points(gain)}" for name, gain in gains.items()
                                             if name in VARIANTS or name == "blur") + "."
    why_dense = ("A dense code may put any two images far apart, as long as its decoder finds them again: nothing in "
                 "the loss asks for classes, nor that images which look alike have codes that are near. ")
    if gains.get("conv", -1) > 0:
        return ("Why do the codes of a convolutional autoencoder beat pixels?",
                "A pixel that moves by one place is another pixel, and the distance to the same digit becomes large. "
                "Convolution and pooling add up neighbours first, so that small shifts change little; a blur does that "
                "alone. " + (why_dense if "dense" in gains else "") + measured)
    if "conv" in gains:
        return ("Why do the codes of the convolutional autoencoder not beat pixels here?",
                "What it gains elsewhere is mostly that it adds up neighbours, so that small shifts change little. " + (
                    f"In images of {image_shape[1]}×{image_shape[2]} a stroke is a pixel or two wide and there is "
                    "nothing to smooth away; compare with MNIST. " if image_shape[1] < 28 else
                    f"For {known}, with this training, that is not worth more than what the code loses. ") + measured)
    return "Why need codes not be better than pixels at finding neighbours of the same class?", why_dense + measured


# -- fine-tuning -------------------------------------------------------------------------------------------------------

def tuned(encoder: nn.Module, images: Tensor, labels: Tensor, validation: TensorDataset, *, lr: float, rows: int,
          epochs: int, device: str, seed: int) -> tuple[nn.Module, list[float]]:
    """A classifier that begins with a copy of the encoder, and its validation accuracy after each epoch.

    images (N, C, H, W), labels (N,): repeated to `rows` images an epoch, so that few labels get as many steps as many.
    Nothing is chosen: the weights are those of the last epoch.
    """
    minidl.manual_seed(seed)
    encoder = copy.deepcopy(encoder)
    code_size = _classifier.outputs(encoder, images[:1], device).numel()
    network = nn.Sequential(encoder, nn.Flatten(), nn.Linear(code_size, 10))
    repeated = minidl.tensor(np.resize(np.arange(len(images)), rows))
    trainer = Trainer(max_epochs=epochs, accelerator=device, logger=False, enable_checkpointing=False,
                      enable_model_summary=False, enable_progress_bar=False)
    trainer.fit(_classifier.Classifier(network, lr),
                DataLoader(TensorDataset(images[repeated], labels[repeated]), 32, shuffle=True),
                DataLoader(validation, 500))
    return network, [epoch["val_accuracy"] for epoch in trainer.history]


def draw_tuning(curves: Mapping[tuple[str, int], np.ndarray], test: Mapping[tuple[str, int], np.ndarray]) -> Figure:
    """(way, labels) -> validation accuracies (draws, epochs), and test accuracies (draws,)."""
    counts, ways = sorted({labels for _, labels in curves}), list(dict.fromkeys(way for way, _ in curves))
    figure, panels = plt.subplots(1, len(counts) + 1, figsize=(3.4 * len(counts) + 3.4, 3.9), layout="constrained")
    for axes, labels in zip(panels, counts, strict=False):
        for way, style in zip(ways, ("C0-", "C7--"), strict=True):
            mean, error = mean_and_error(curves[way, labels])
            epochs = np.arange(1, len(mean) + 1)
            axes.plot(epochs, mean, style, marker=".", label=way)
            axes.fill_between(epochs, mean - error, mean + error, color=style[:2], alpha=0.2, linewidth=0)
        axes.set(title=f"{labels:,} labels", xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[0].set_ylabel("validation accuracy")
    differences = [mean_and_error(100 * (test[ways[0], labels] - test[ways[1], labels])) for labels in counts]
    panels[-1].errorbar(counts, *zip(*differences, strict=True), fmt="C0", marker=".", capsize=3)
    panels[-1].axhline(0, color="C7", linestyle="--")
    panels[-1].set(title="paired difference", xlabel="labels", ylabel="test accuracy, in points", xscale="log",
                   xticks=counts, xticklabels=[f"{k:,}" for k in counts])
    panels[-1].minorticks_off()
    for axes in panels:
        axes.grid(alpha=0.3)
    for axes in panels[:-1]:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].legend(fontsize=8)
    return figure


def on_tuning(ahead: Mapping[int, tuple[Any, Any]]) -> str:
    """Labels -> difference of the pretrained one and its standard error, in a sentence."""
    said = {"better": [k for k, (mean, error) in ahead.items() if mean > 2 * error],
            "worse": [k for k, (mean, error) in ahead.items() if mean < -2 * error]}
    found = "; ".join(f"{what} with {', '.join(f'{k:,}' for k in labels)} labels"
                      for what, labels in said.items() if labels)
    return (f"By more than two standard errors, the pretrained network is {found}." if found else
            "The pretrained network is neither better nor worse by more than two standard errors.")
