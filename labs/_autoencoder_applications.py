"""What the lab on applications of autoencoders measures and draws: neighbours, fine-tuning, bytes, anomalies."""

from __future__ import annotations

import argparse
import copy
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.datasets import load_sample_image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import minidl
from labs import _autoencoders, _classifier
from labs._arguments import positive
from labs._autoencoders import as_pixels, in_words, mean_and_error, psnr
from labs._lab import Lab
from labs._lenet import show
from minidl import Tensor, nn
from minidl.data import DataLoader, TensorDataset
from minidl.models import Autoencoder
from minidl.train import Trainer

LABELS = (10, 30, 100, 300, 1000)       # how many labelled images the nearest neighbour is sought among
Accuracy = np.ndarray                   # (draws, numbers of labels)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the lab takes besides."""
    _autoencoders.add_arguments(parser)
    parser.add_argument("--draws", type=positive, metavar="N", help="how many sets of labelled images are drawn")
    parser.add_argument("--tune-epochs", type=positive, metavar="N", help="epochs of fine-tuning")
    parser.add_argument("--tune-draws", type=positive, metavar="N", help="how many of the sets are fine-tuned on")


def photographs(size: int) -> tuple[Tensor, Tensor]:
    """Real images for those who have digits only: patches of the two photographs that come with scikit-learn.

    Each is (260, 1, size, size) between 0 and 1, grey, from 32×32 pixels of one photograph. Of the first an anomaly
    detector may see the errors, the second is for the test.
    """
    found = []
    for name in ("china.jpg", "flower.jpg"):
        grey = load_sample_image(name)[:416].mean(axis=2, dtype=np.float32) / 255       # (416, 640)
        step = 32 // size
        small = grey.reshape(416 // step, step, 640 // step, step).mean((1, 3))         # (13 · size, 20 · size)
        patches = small.reshape(13, size, 20, size).swapaxes(1, 2)                      # -> (13, 20, size, size)
        patches = patches.reshape(-1, 1, size, size)                                    # -> (260, 1, size, size)
        found.append(minidl.from_numpy(np.ascontiguousarray(patches)))
    return found[0], found[1]


# -- classes from few labels -------------------------------------------------------------------------------------------

def flat(images: Tensor) -> np.ndarray:
    """(N, C, H, W) -> (N, C·H·W)."""
    return images.flatten(1).numpy()


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
    return {"labels": label_counts(max(LABELS))[:accuracy.shape[1]], "mean": accuracy.mean(0).tolist(),
            "sd": (mean_and_error(accuracy)[1] * len(accuracy) ** 0.5).tolist(),
            "paired_difference": difference.tolist(), "paired_error": error.tolist(),
            "wins": (accuracy > pixels).sum(0).tolist(), "draws": len(accuracy)}


def draw_neighbours(found: Mapping[str, Accuracy], baselines: set[str]) -> Figure:
    """Accuracy against the number of labels, and the paired difference to the pixels with its standard error."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.6), layout="constrained")
    for number, (name, accuracy) in enumerate(found.items()):
        counts = label_counts(max(LABELS))[:accuracy.shape[1]]
        style = f"C{number}--" if name in baselines else f"C{number}-"
        left.plot(counts, accuracy.mean(0), style, marker=".", label=in_words(name))
        difference, error = mean_and_error(accuracy - found["pixels"])
        apart = np.array(counts) * 1.015 ** (number - len(found) / 2)           # beside each other, to be told apart
        right.errorbar(apart, difference, np.nan_to_num(error), fmt=style, marker=".", capsize=2, label=in_words(name))
    for axes in (left, right):
        axes.set(xscale="log", xlabel="labelled training images", xticks=counts, xticklabels=[f"{k:,}" for k in counts])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(alpha=0.3)
    left.set_ylabel("right by the nearest neighbour")
    right.set_ylabel("more than with pixels, in points")
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def draw_ranking(ranked: Sequence[tuple[str, float, float]], baselines: set[str], labels: int) -> Figure:
    """(name, difference, its standard error), the best first, as bars."""
    figure, axes = plt.subplots(figsize=(8, 0.32 * len(ranked) + 1.3), layout="constrained")
    names, differences, errors = zip(*ranked, strict=True)
    colours = ["C7" if name in baselines else "C1" if name.startswith("dense") else "C0" for name in names]
    axes.barh(range(len(names)), differences, xerr=np.nan_to_num(errors), color=colours, capsize=2)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(yticks=range(len(names)), yticklabels=[in_words(name) for name in names],
             xlabel=f"more than with pixels, {labels} labels")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(alpha=0.3, axis="x")
    for colour, what in (("C0", "convolutional"), ("C1", "dense"), ("C7", "no training")):
        axes.plot([], [], "s", color=colour, label=what)
    axes.legend(fontsize=8)
    return figure


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
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    counts = sorted({labels for _, labels in curves})
    ways = list(dict.fromkeys(way for way, _ in curves))
    for (way, labels), values in curves.items():
        mean, error = map(np.nan_to_num, mean_and_error(values))
        epochs, colour = np.arange(1, len(mean) + 1), f"C{counts.index(labels)}"
        left.plot(epochs, mean, "-" if way == ways[0] else "--", color=colour, marker=".",
                  label=f"{way}, {labels:,} labels")
        left.fill_between(epochs, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    for way, line in zip(ways, ("C3-", "C7--"), strict=True):
        means, errors = zip(*(mean_and_error(test[way, labels]) for labels in counts), strict=True)
        right.errorbar(counts, means, np.nan_to_num(errors), fmt=line, marker=".", capsize=3, label=way)
    left.set(xlabel="epoch", ylabel="validation accuracy")
    right.set(xlabel="labelled training images", ylabel="test accuracy after the last epoch", xscale="log",
              xticks=counts, xticklabels=[f"{k:,}" for k in counts])
    right.minorticks_off()
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


# -- compression -------------------------------------------------------------------------------------------------------

def as_bytes(codes: np.ndarray, kind: str, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Codes as they are stored: float32, float16, or uint8 from the lowest to the highest of each number."""
    if kind != "uint8":
        return codes.astype(kind)
    steps = (codes - lowest) / np.maximum(highest - lowest, 1e-12) * 255
    return np.rint(steps.clip(0, 255)).astype(np.uint8)


def from_bytes(stored: np.ndarray, lowest: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """The float32 numbers that are left of stored codes."""
    if stored.dtype != np.uint8:
        return stored.astype(np.float32)
    return (lowest + stored.astype(np.float32) / 255 * (highest - lowest)).astype(np.float32)


def compressed(encode: Callable[[Tensor], np.ndarray], images: Tensor, training: Tensor, pixels: np.ndarray,
               decode: Callable[[np.ndarray], np.ndarray]) -> dict[str, dict[str, float]]:
    """For each way to store the codes of images: their bytes, the share of the pixels' bytes that is saved, the PSNR.

    training: images whose codes say what range uint8 has to cover. pixels: the images from 0 to 1, a byte each.
    encode: images -> codes (N, numbers). decode: codes -> pixels.
    """
    codes, of_training = encode(images), encode(training)
    lowest, highest = of_training.min(0), of_training.max(0)
    found = {}
    for kind in ("float32", "float16", "uint8"):
        stored = as_bytes(codes, kind, lowest, highest)
        found[kind] = {"bytes": stored.nbytes, "saved": 1 - stored.nbytes / pixels.size,
                       "psnr": psnr(pixels, decode(from_bytes(stored, lowest, highest)))}
    return found


def decoder_of(network: Autoencoder, code_shape: tuple[int, ...], mean: float, std: float,
               device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Codes (N, numbers) -> pixels (N, C, H, W)."""
    def decode(codes: np.ndarray) -> np.ndarray:
        code = minidl.from_numpy(codes).reshape(len(codes), *code_shape)        # (N, numbers) -> (N, 4, H/4, W/4)
        return as_pixels(_classifier.outputs(network.decoder, code, device), mean, std)

    return decode


def decoder_of_pca(components: PCA, shape: tuple[int, ...], mean: float,
                   std: float) -> Callable[[np.ndarray], np.ndarray]:
    """Codes (N, components) -> pixels (N, C, H, W)."""
    def decode(codes: np.ndarray) -> np.ndarray:
        x = components.inverse_transform(codes).astype(np.float32)              # (N, pixels)
        return as_pixels(minidl.from_numpy(x).reshape(len(x), *shape), mean, std)

    return decode


def lossless(pixels: np.ndarray) -> int:
    """How many bytes zlib makes of the pixels' bytes, from which it makes every pixel again."""
    return len(zlib.compress(np.rint(pixels * 255).astype(np.uint8).tobytes(), 9))


def draw_compression(compression: Mapping[str, Mapping[str, Any]]) -> Figure:
    """PSNR against bytes: a line for each code, a point for each way to store it."""
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for number, (name, kinds) in enumerate((name, kinds) for name, kinds in compression.items() if "float32" in kinds):
        axes.plot([of_kind["bytes"] for of_kind in kinds.values()], [of_kind["psnr"] for of_kind in kinds.values()],
                  f"C{number}--" if name.startswith("pca") else f"C{number}-", label=in_words(name))
        for kind, marker in zip(kinds, "os^", strict=True):
            axes.plot(kinds[kind]["bytes"], kinds[kind]["psnr"], marker, color=f"C{number}",
                      label=kind if number == 0 else None)
    for name, line in (("zlib", ":"), ("pixels", "-.")):
        axes.axvline(compression[name]["bytes"], color="black", linestyle=line, linewidth=1, label=f"{name}, exact")
    axes.set(xscale="log", xlabel="bytes of all test images (log scale)", ylabel="PSNR in dB")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.grid(alpha=0.3, which="both")
    return figure


# -- anomalies ---------------------------------------------------------------------------------------------------------

def lengths(difference: np.ndarray) -> np.ndarray:
    """The L2 norm of each image: (N, C, H, W) or (N, pixels) -> (N,)."""
    return np.linalg.norm(difference.reshape(len(difference), -1), axis=1)


def scores_by(lab: Lab, networks: Mapping[str, Autoencoder], training: Tensor,
              components: PCA) -> dict[str, Callable[[Tensor], np.ndarray]]:
    """Name -> what says how strange each image is, (N, C, H, W) -> (N,): errors of networks, then three baselines."""
    mean_image = flat(training).mean(0)

    def error_of(network: Autoencoder) -> Callable[[Tensor], np.ndarray]:
        return lambda images: lengths(images.numpy() - _autoencoders.reconstructed(network, images, lab.device).numpy())

    def residual(images: Tensor) -> np.ndarray:
        x = flat(images)
        return lengths(x - components.inverse_transform(components.transform(x)))

    return {**{name: error_of(network) for name, network in networks.items()},
            f"pca{components.n_components_}": residual,
            "intensity": lambda images: flat(images).mean(1),
            "mean_image": lambda images: lengths(flat(images) - mean_image)}


@dataclass(frozen=True)
class Scores:
    """One score of every image, (N,) each: of the known kind in training, validation and test; of the other kind."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    other_training: np.ndarray
    other_test: np.ndarray


def judged(scores: Scores) -> dict[str, float]:
    """How well a score tells the kinds apart, in test images.

    threshold: the 95th percentile of validation images, so chosen without any anomaly. classifier: logistic regression
    on the scores of both training sets, which has seen the other kind. auroc, average_precision and fpr_at_95 (the
    share of known images called strange, where 95 % of the strange ones are found) need no threshold.
    """
    threshold = float(np.quantile(scores.validation, 0.95))
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        np.concatenate([scores.training, scores.other_training])[:, None],                      # -> (N, 1)
        np.repeat([0, 1], [len(scores.training), len(scores.other_training)]))
    boundary = _boundary(classifier)
    is_other = np.repeat([0, 1], [len(scores.test), len(scores.other_test)])
    both = np.concatenate([scores.test, scores.other_test])
    false, true, _ = roc_curve(is_other, both)
    return {"mean": float(scores.test.mean()), "other_mean": float(scores.other_test.mean()),
            "threshold": threshold, "threshold_correct": float((scores.test <= threshold).mean()),
            "threshold_other_correct": float((scores.other_test > threshold).mean()), "boundary": boundary,
            "correct": float((classifier.predict(scores.test[:, None]) == 0).mean()),
            "other_correct": float((classifier.predict(scores.other_test[:, None]) == 1).mean()),
            "auroc": float(roc_auc_score(is_other, both)),
            "average_precision": float(average_precision_score(is_other, both)),
            "fpr_at_95": float(false[np.argmax(true >= 0.95)])}


def _boundary(classifier: Any) -> float:
    """The score at which logistic regression finds both kinds equally likely."""
    scaler, regression = classifier
    return float(scaler.mean_[0] - scaler.scale_[0] * regression.intercept_[0] / regression.coef_[0, 0])


def anomaly_facts(facts: Mapping[str, Mapping[str, float]], source: str, pca: str) -> dict[str, Any]:
    """For metrics.json: what `judged` found for the error of `source`, and for all other scores."""
    of_source = facts[source]
    return {"model": source, "mnist_mean_l2": of_source["mean"], "fashion_mean_l2": of_source["other_mean"],
            "mnist_correct": of_source["correct"], "fashion_correct": of_source["other_correct"],
            "auroc": of_source["auroc"], "average_precision": of_source["average_precision"],
            "fpr_at_95": of_source["fpr_at_95"],
            "threshold": {"value": of_source["threshold"], "mnist_correct": of_source["threshold_correct"],
                          "fashion_correct": of_source["threshold_other_correct"]},
            "baselines": {"pca128": facts[pca], "intensity": facts["intensity"], "mean_image": facts["mean_image"]},
            "others": {name: of_name for name, of_name in facts.items()
                       if name not in (source, pca, "intensity", "mean_image")}}


def draw_anomalies(scores: Mapping[str, Scores], facts: Mapping[str, Mapping[str, float]], shown: str, known: str,
                   other: str) -> Figure:
    """Histogram and boxplot of one score, and the ROC curves of all."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained",
                                                 width_ratios=[1.4, 0.8, 1.2])
    pair = (scores[shown].test, scores[shown].other_test)
    bins = np.linspace(0, np.quantile(pair[1], 0.995), 60)
    for values, name, colour in zip(pair, (known, other), ("C0", "C3"), strict=True):
        left.hist(values, bins, density=True, alpha=0.6, color=colour, label=name)
    left.axvline(facts[shown]["threshold"], color="black", label=f"95 % of validation, {facts[shown]['threshold']:.1f}")
    left.axvline(facts[shown]["boundary"], color="black", linestyle="--",
                 label=f"classifier, {facts[shown]['boundary']:.1f}")
    left.set(xlabel=f"L2 error of {in_words(shown)}", ylabel="density", yticks=[])
    left.legend(fontsize=8)
    middle.boxplot(pair, tick_labels=(known, other), whis=(5, 95), flierprops={"marker": ".", "markersize": 2})
    middle.set_ylabel(f"L2 error of {in_words(shown)} (whiskers: 5 and 95 %)")
    for number, (name, of_name) in enumerate(scores.items()):
        is_other = np.repeat([0, 1], [len(of_name.test), len(of_name.other_test)])
        false, true, _ = roc_curve(is_other, np.concatenate([of_name.test, of_name.other_test]))
        right.plot(np.maximum(false, 1e-4), true, color=f"C{number}",
                   label=f"{in_words(name)}, {facts[name]['auroc']:.3f}")
    right.set(xscale="log", xlim=(1e-4, 1), xlabel=f"{known} called strange (log scale)", ylabel=f"{other} found")
    right.legend(fontsize=8, title="area (AUROC)", title_fontsize=8)
    right.grid(alpha=0.3)
    return figure


Cases = tuple[np.ndarray, np.ndarray, np.ndarray]       # originals, reconstructions (n, C, H, W), 0 to 1; errors (n,)


def extremes(network: Autoencoder, images: Tensor, errors: np.ndarray, mean: float, std: float, device: str,
             count: int = 8) -> dict[str, Cases]:
    """The images with the "smallest" and the "largest" errors, the most extreme first."""
    order, found = np.argsort(errors, kind="stable"), {}
    for which, chosen in (("smallest", order[:count]), ("largest", order[::-1][:count])):
        x = images[minidl.tensor(chosen.copy())]
        remade = _autoencoders.reconstructed(network, x, device)
        found[which] = as_pixels(x, mean, std), as_pixels(remade, mean, std), errors[chosen]
    return found


def draw_cases(groups: Mapping[str, Cases]) -> Figure:
    """Title -> a row of pairs, the original above its reconstruction, with the error."""
    columns = max(len(errors) for _, _, errors in groups.values())
    figure = plt.figure(figsize=(1.15 * columns, 2.75 * len(groups)), layout="constrained")
    for part, (title, (originals, remade, errors)) in zip(figure.subfigures(len(groups), 1, squeeze=False)[:, 0],
                                                          groups.items(), strict=True):
        part.suptitle(title, fontsize=10)
        grid = part.subplots(2, columns, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for column, error in enumerate(errors):
            for axes, images in zip(grid[:, column], (originals, remade), strict=True):
                axes.axis("on")
                show(axes, minidl.from_numpy(images[column]))
            grid[0, column].set_title(f"{error:.1f}", fontsize=8)
    return figure
