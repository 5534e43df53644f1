"""Images that do not belong: scores of strangeness, how well they tell, and what is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import minidl
from labs import _autoencoders
from labs._autoencoders import VARIANTS, as_pixels, in_words
from labs._components import Components
from labs._lab import Lab
from labs._lenet import show
from minidl import Tensor
from minidl.models import Autoencoder


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


def lengths(difference: np.ndarray) -> np.ndarray:
    """The L2 norm of each image: (N, C, H, W) or (N, pixels) -> (N,)."""
    return np.linalg.norm(difference.reshape(len(difference), -1), axis=1)


def scores_by(lab: Lab, networks: Mapping[str, Autoencoder], components: Components,
              count: int) -> dict[str, Callable[[Tensor], np.ndarray]]:
    """Name -> what says how strange each image is, (N, C, H, W) -> (N,): errors of networks, then three baselines."""
    def error_of(network: Autoencoder) -> Callable[[Tensor], np.ndarray]:
        return lambda images: lengths(images.numpy() - _autoencoders.reconstructed(network, images, lab.device).numpy())

    return {**{name: error_of(network) for name, network in networks.items()},
            f"pca{count}": lambda images: lengths((images - components.reconstructed(images, count)).numpy()),
            "intensity": lambda images: images.flatten(1).numpy().mean(1),
            "mean_image": lambda images: lengths(images.flatten(1).numpy() - components.mean)}


@dataclass(frozen=True)
class Scores:
    """One score of every image, (N,) each: of the known kind in training, validation and test; of the other kind."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    other_training: np.ndarray
    other_test: np.ndarray

    def of_test(self) -> tuple[np.ndarray, np.ndarray]:
        """For all test images, (N,) each: whether it is of the other kind, 0 or 1, and its score."""
        is_other = np.repeat([0, 1], [len(self.test), len(self.other_test)])
        return is_other, np.concatenate([self.test, self.other_test])


def judged(scores: Scores) -> dict[str, float]:
    """How well a score tells the kinds apart, in test images.

    threshold: the 95th percentile of validation images, so chosen without any anomaly. classifier: logistic regression
    on the scores of both training sets, each with half of the weight; it has seen the other kind. auroc,
    average_precision and fpr_at_95 (the share of known images called strange, where 95 % of the strange ones are
    found) need no threshold.
    """
    threshold = float(np.quantile(scores.validation, 0.95))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced")).fit(
        np.concatenate([scores.training, scores.other_training])[:, None],                      # -> (N, 1)
        np.repeat([0, 1], [len(scores.training), len(scores.other_training)]))
    boundary = _boundary(classifier)
    is_other, both = scores.of_test()
    false, true, _ = roc_curve(is_other, both)
    return {"mean": float(scores.test.mean()), "other_mean": float(scores.other_test.mean()),
            "median": float(np.median(scores.test)), "other_median": float(np.median(scores.other_test)),
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


def anomaly_facts(facts: Mapping[str, Mapping[str, float]], source: str, known: str, other: str) -> dict[str, Any]:
    """For metrics.json: what `judged` found for the error of `source`, then for all other scores.

    known, other: the datasets, whose first words begin the names: mnist_mean_l2, fashion_correct, …
    """
    def named(found: Mapping[str, float]) -> dict[str, Any]:
        a, b = (dataset.partition("-")[0] for dataset in (known, other))
        return {f"{a}_mean_l2": found["mean"], f"{b}_mean_l2": found["other_mean"], f"{a}_median": found["median"],
                f"{b}_median": found["other_median"], f"{a}_correct": found["correct"],
                f"{b}_correct": found["other_correct"],
                **{key: found[key] for key in ("auroc", "average_precision", "fpr_at_95", "boundary")},
                "threshold": {"value": found["threshold"], f"{a}_correct": found["threshold_correct"],
                              f"{b}_correct": found["threshold_other_correct"]}}

    networks = [name for name in facts if name in VARIANTS]
    return {"model": source, **named(facts[source]),
            "baselines": {name: named(found) for name, found in facts.items() if name not in networks},
            "others": {name: named(facts[name]) for name in networks if name != source}}


def on_detectors(facts: Mapping[str, Mapping[str, float]], pca: str, other: str) -> str:
    """Which score is the best, and which ones point the wrong way, in sentences."""
    ordered = sorted(facts, key=lambda name: -facts[name]["auroc"])
    best, areas = ordered[0], {name: f"{in_words(name)} {facts[name]['auroc']:.4f}" for name in facts}
    networks = [name for name in ordered if name in VARIANTS]
    text = f"By AUROC the best score for these test images is {areas[best]}"
    if best == pca:
        text += f": linear PCA is ahead of {', '.join(areas[name] for name in networks)}"
    elif best in networks:
        text += f"; PCA is a step without training: {areas[pca]}"
    text += ". "
    inverted = [in_words(name) for name in ordered if facts[name]["auroc"] < 0.5]
    if inverted:
        text += (f"Below 0.5, as for {' and '.join(inverted)}, images of {other} have the lower scores more often than "
                 f"not: as a detector of what is strange that is worse than chance.")
    return text.rstrip()


def which_population(found: Mapping[str, float], its_name: str, known: str, other: str) -> tuple[str, str]:
    """The question about the histogram, and its answer."""
    answer = (f"Blue is {known}, with a mean error of {found['mean']:.2f} and a median of {found['median']:.2f}; red "
              f"is {other}, with {found['other_mean']:.2f} and {found['other_median']:.2f}. An image of {other} has "
              f"the larger error in {found['auroc']:.1%} of pairs. ")
    if found["auroc"] < 0.5:
        answer += f"{its_name} makes images of {other} better than those it was fitted to: as a detector it fails. "
    else:
        answer += f"{its_name} was fitted to {known} alone. "
    return (f"The histogram has two populations. Which is which, and why is {other} not further away?",
            answer + "Nothing in the loss asks for a large error of other images. What is dark, even or made of such "
            "strokes is cheap for any decoder, as the cases with the smallest errors show.")


def draw_anomalies(scores: Mapping[str, Scores], facts: Mapping[str, Mapping[str, float]], shown: str, known: str,
                   other: str) -> Figure:
    """Histogram and boxplot of one score, and the ROC curves of all."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained",
                                                 width_ratios=[1.4, 0.8, 1.2])
    pair = (scores[shown].test, scores[shown].other_test)
    bins = np.linspace(0, max(np.quantile(values, 0.995) for values in pair), 60)
    for values, name, colour in zip(pair, (known, other), ("C0", "C3"), strict=True):
        left.hist(values, bins, density=True, alpha=0.6, color=colour, label=name)
    for key, line, label in (("threshold", "-", "95 % of validation"), ("boundary", "--", "classifier")):
        if bins[0] < facts[shown][key] < bins[-1]:
            left.axvline(facts[shown][key], color="black", linestyle=line, label=f"{label}: {facts[shown][key]:.1f}")
    left.set(xlabel=f"L2 error of {in_words(shown)}", ylabel="density", yticks=[])
    left.legend(fontsize=8)
    middle.boxplot(pair, tick_labels=(known, other), whis=(5, 95), flierprops={"marker": ".", "markersize": 2})
    middle.set(title="whiskers: 5 and 95 %", ylabel=f"L2 error of {in_words(shown)}")
    for number, (name, of_name) in enumerate(scores.items()):
        false, true, _ = roc_curve(*of_name.of_test())
        right.plot(np.maximum(false, 1e-4), true, color=f"C{number}",
                   label=f"{in_words(name)}, {facts[name]['auroc']:.3f}")
    right.set(xscale="log", xlim=(1e-4, 1), xlabel=f"share of {known} called strange (log scale)",
              ylabel=f"share of {other} found")
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
