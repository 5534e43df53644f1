"""What the lab on autoencoders measures, and its pictures: reconstructions, noise, codes, weights, paths, maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

import minidl
from labs._autoencoders import EARLY, FORMS, NOISE, TARGET, VARIANTS, as_pixels, in_words
from labs._classifier import outputs
from labs._filters import add_scale
from labs._lenet import coloured, sheet, show
from labs._statistics import mean_and_error
from minidl import Tensor
from minidl.models import Autoencoder
from minidl.utils import make_grid

SHOWN = ("dense", "conv", "conv_denoising", "conv_sparse")      # in pictures, of those that are trained
NOISES = ("gaussian", "dropout")
KINDS = {"plain": "C0", "denoising": "C1", "dropout": "C2", "sparse": "C3", "denoising_sparse": "C4"}
BASELINE = "0.6"                                                # grey
MOST_WEIGHTS = 64                                               # pictures of weights of one network


def kind_of(name: str) -> str:
    """What a variant is but for its form: one of KINDS."""
    return name.partition("_")[2] or "plain"


# -- what is measured --------------------------------------------------------------------------------------------------

def noisy(images: Tensor, noise: str, seed: int) -> Tensor:
    """Images with the noise of training, "gaussian" or "dropout", always the same for the same seed."""
    generator = minidl.Generator().manual_seed(seed)
    if noise == "gaussian":
        return images + NOISE * minidl.randn(*images.shape, generator=generator)
    is_kept = minidl.rand(*images.shape, generator=generator) >= NOISE
    return images * is_kept / (1 - NOISE)                       # as nn.Dropout does it


def errors(images: Tensor, others: Tensor) -> np.ndarray:
    """The mean squared error of each image: (N, C, H, W) -> (N,)."""
    return ((images - others) ** 2).flatten(1).mean(dim=1).numpy().astype(np.float64)


def gains(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, tuple[float, float]]:
    """What training with a noise takes off the error of images with it, against the same network without: mean, ±.

    found: for each noise and each network the error of every image. Paired: both have the same images.
    """
    pairs = {}
    for name, variant in VARIANTS.items():
        plain = variant.form + "_sparse" * variant.is_sparse
        if variant.noise != "none" and {name, plain} <= found[variant.noise].keys():
            pairs[name] = mean_and_error(found[variant.noise][plain] - found[variant.noise][name])
    return pairs


def about_codes(clean: np.ndarray, of_noisy: np.ndarray) -> dict[str, float]:
    """Numbers about the codes (N, K) of images, and of the same images with noise.

    zero: the share of numbers that are exactly 0. dead: how many of the K are 0 for all images. moved: how far noise
    moves a code, against how far two images are apart, both as mean squares; nan if all codes are equal.
    """
    apart = 2 * clean.var(axis=0, ddof=1).sum()                 # the mean of |z − z'|² over all pairs of images
    moved = np.mean(((of_noisy - clean) ** 2).sum(axis=1)) / apart if apart > 0 else np.nan
    return {"zero": float(np.mean(clean == 0)), "mean": float(clean.mean()),
            "distance": float(abs(clean - TARGET).mean()), "dead": int((clean == 0).all(axis=0).sum()),
            "moved": float(moved)}


def weight_pictures(network: Autoencoder) -> Tensor:
    """What each number before the last layer adds to an image, (count, H, W); those of the largest norm first.

    Dense: whole images. Convolutional: the kernels for the first channel.
    """
    last = next(part for part in reversed(list(network.decoder)) if hasattr(part, "weight"))
    weights = last.weight.detach().cpu()
    if weights.ndim == 2:
        shape = next(part for part in network.decoder if hasattr(part, "unflattened_size")).unflattened_size
        pictures = weights.T.reshape(-1, *shape)[:, 0]          # (C · H · W, hidden) -> (hidden, H, W)
    else:
        pictures = weights[0]                                   # (C, channels, 3, 3) -> (channels, 3, 3)
    order = np.argsort(-pictures.flatten(1).norm(dim=1).numpy(), kind="stable")
    return pictures[order.tolist()]


def smoothness(pictures: Tensor) -> float:
    """The correlation of weights with the ones to their right: 1 for slow changes, about 0 for random numbers."""
    values = pictures.numpy()
    return float(np.corrcoef(values[..., :-1].ravel(), values[..., 1:].ravel())[0, 1])


def blends(pair: Tensor, steps: int) -> Tensor:
    """(2, …) -> (steps, …): from the first to the second in equal steps."""
    share = minidl.linspace(0, 1, steps).reshape(-1, *[1] * (pair.ndim - 1))
    return pair[:1] * (1 - share) + pair[1:] * share


def path(network: Autoencoder, pair: Tensor, steps: int, device: str) -> Tensor:
    """What is decoded on the straight way between two images' codes: (2, C, H, W) -> (steps, C, H, W)."""
    return outputs(network.decoder, blends(outputs(network.encoder, pair, device), steps), device)


def departure(network: Autoencoder, firsts: Tensor, seconds: Tensor, device: str) -> float:
    """How far decoded midpoints are from blends of the two reconstructions, against how far these are apart.

    Both are mean squares over the pairs. 0 is the blend; the ends themselves are 0.25 from it.
    """
    a, b = (outputs(network.encoder, images, device) for images in (firsts, seconds))
    of_a, of_b, middle = (outputs(network.decoder, code, device).numpy() for code in (a, b, (a + b) / 2))
    apart = np.mean((of_a - of_b) ** 2, dtype=np.float64)
    return float(np.mean((middle - (of_a + of_b) / 2) ** 2, dtype=np.float64) / max(apart, 1e-12))


def maps_of(points: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """PCA and t-SNE (van der Maaten & Hinton 2008) of points (N, K): (N, 2) each."""
    tsne = TSNE(perplexity=min(30, (len(points) - 1) / 3), random_state=seed)
    with threadpool_limits(1, user_api="openmp"):           # short steps, in which threads would mostly wait
        return {"PCA": PCA(2, svd_solver="full").fit_transform(points), "t-SNE": tsne.fit_transform(points)}


def agreement(points: np.ndarray, labels: np.ndarray, count: int = 10) -> float:
    """The share of the `count` nearest neighbours that have the label of the point, in the mean over all points."""
    neighbours = NearestNeighbors(n_neighbors=count).fit(points).kneighbors(return_distance=False)     # without itself
    return float(np.mean(labels[neighbours] == labels[:, None]))


def agreement_by_chance(labels: np.ndarray) -> float:
    """The same for neighbours that are drawn at random."""
    counts = np.unique_counts(labels).counts
    return float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))


# -- how it is drawn ---------------------------------------------------------------------------------------------------

def show_rows(axes: Axes, rows: Mapping[str, np.ndarray]) -> None:
    """Rows of images (n, 1, H, W) from 0 to 1 below each other, in one grey scale, the name of each at the left."""
    count, _, height, _ = next(iter(rows.values())).shape
    gap = 2 if height > 8 else 1
    grid = make_grid(minidl.from_numpy(np.concatenate(list(rows.values()))), nrow=count, padding=gap, pad_value=0.5)
    show(axes, grid)
    axes.set_yticks([gap + height / 2 + (height + gap) * row for row in range(len(rows))], list(rows), fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def draw_curves(histories: Mapping[str, tuple[Sequence[float], Sequence[float]]],
                baselines: Mapping[str, tuple[str, float]]) -> Figure:
    """Errors in training and in validation of each variant; for each form a horizontal line with its label, too."""
    forms = [form for form in FORMS if any(VARIANTS[name].form == form for name in histories)]
    figure, panels = plt.subplots(1, len(forms), figsize=(5.6 * len(forms), 4.4), layout="constrained", sharey=True,
                                  squeeze=False)
    for axes, form in zip(panels[0], forms, strict=True):
        for name, (training, validation) in histories.items():
            if VARIANTS[name].form == form:
                epochs, colour = range(1, len(validation) + 1), KINDS[kind_of(name)]
                marker = "o" if len(validation) == 1 else ""
                axes.plot(epochs, training, f"{colour}--", linewidth=1, marker=marker, markerfacecolor="none")
                axes.plot(epochs, validation, colour, marker=marker, label=in_words(name))
        label, value = baselines[form]
        axes.axhline(value, color="black", linestyle=":", label=label)
        axes.set(title=form, xlabel="epoch", yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 3, 5, 7)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    panels[0, 0].set_ylabel("mean squared error (log scale)")
    return figure


def draw_rows(rows: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Rows of images with the name of each column above."""
    figure, axes = plt.subplots(figsize=(10, 0.6 + 0.86 * len(rows)), layout="constrained")
    show_rows(axes, rows)
    width = next(iter(rows.values())).shape[3]
    gap = 2 if width > 8 else 1
    axes.xaxis.tick_top()
    axes.set_xticks([gap + width / 2 + (width + gap) * column for column in range(len(names))], names, fontsize=9)
    return figure


def draw_denoising(found: Mapping[str, Mapping[str, np.ndarray]], labels: Mapping[str, str]) -> Figure:
    """For each noise the error of every method in the mean over the images, with its standard error."""
    figure, panels = plt.subplots(1, len(found), figsize=(11, 1.3 + 0.3 * len(labels)), layout="constrained",
                                  sharey=True)
    for axes, (noise, of_method) in zip(panels, found.items(), strict=True):
        for place, (method, values) in enumerate(of_method.items()):
            mean, error = mean_and_error(values)
            variant = VARIANTS.get(method)
            colour = FORMS[variant.form] if variant else BASELINE
            knows = variant is not None and variant.noise == noise
            axes.barh(place, mean, xerr=error, color=colour, alpha=1 if knows or not variant else 0.45,
                      hatch="//" if knows else "", edgecolor="white" if knows else colour)
            axes.text(mean + error, place, f" {mean:.3f}", va="center", fontsize=8)
        axes.set(title=f"{noise.capitalize()} noise", xlabel="mean squared error to the clean image")
        axes.margins(x=0.12)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(labels)), list(labels.values()))
    panels[0].invert_yaxis()
    figure.legend(handles=[Patch(color=BASELINE, label="without a network"),
                           *(Patch(color=colour, alpha=0.45, label=form) for form, colour in FORMS.items()),
                           Patch(facecolor="0.3", hatch="//", edgecolor="white", label="trained with this noise")],
                  loc="outside lower center", ncols=4, fontsize=8)
    return figure


def draw_epochs(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A panel for each network: the originals, and below them how they were reconstructed as it learned."""
    height = 2 if len(rows) > 2 else 1
    columns = -(-len(rows) // height)
    figure, panels = plt.subplots(height, columns, layout="constrained", squeeze=False,
                                  figsize=(6 * columns, height * (0.5 + 0.68 * max(map(len, rows.values())))))
    for axes in panels.flat[len(rows):]:
        axes.remove()
    for axes, (name, of_epoch) in zip(panels.flat, rows.items(), strict=False):
        show_rows(axes, of_epoch)
        axes.set_title(in_words(name), fontsize=10)
    return figure


def plain_and_sparse(codes: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """For each form the codes of the plain network and of the sparse one; if it has neither, of the first it has."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for form in FORMS:
        names = [name for name in codes if VARIANTS[name].form == form]
        chosen = [name for name in names if kind_of(name) in ("plain", "sparse")] or names[:1]
        if chosen:
            found[form] = {name: codes[name] for name in chosen}
    return found


def draw_codes(codes: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """A column for each form: which share of all numbers of codes (N, K) lies where, and the same near 0."""
    figure, grid = plt.subplots(2, len(codes), figsize=(5.6 * len(codes), 6.6), layout="constrained", squeeze=False)
    for column, (form, of_network) in zip(grid.T, codes.items(), strict=True):
        whole = max(float(np.quantile(values, 0.999)) for values in of_network.values()) or 1.0
        for axes, end in zip(column, (whole, min(whole / 2, 8 * TARGET)), strict=True):
            bins = np.linspace(0, end, 61)
            for name, values in of_network.items():
                axes.hist(values.ravel(), bins=bins, weights=np.full(values.size, 1 / values.size), histtype="step",
                          linewidth=1.4, color=KINDS[kind_of(name)],
                          label=f"{in_words(name)}: {np.mean(values == 0):.1%} are 0")
            axes.axvline(TARGET, color="black", linewidth=0.8, linestyle="--", label=f"the target {TARGET:g}")
            axes.set(xlabel="number in a code", yscale="log")
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
            axes.grid(alpha=0.3)
        column[0].set_title(form)
        column[0].legend(fontsize=8)
        column[1].set_title(f"{form}, near 0")
    for axes in grid[:, 0]:
        axes.set_ylabel("share of all numbers (log scale)")
    return figure


def draw_weights(pictures: Mapping[str, Tensor]) -> Figure:
    """The pictures (count, h, w) of some networks, at most 64 of each, red above 0 and blue below.

    Networks of a form have one scale, to the largest absolute weight.
    """
    forms = {form: [name for name in pictures if VARIANTS[name].form == form] for form in FORMS}
    forms = {form: names for form, names in forms.items() if names}
    scales = {form: max(float(pictures[name].abs().max()) for name in names) for form, names in forms.items()}
    heights = {form: 0.6 + 4.7 * -(-min(MOST_WEIGHTS, *(len(pictures[name]) for name in names)) // 8) / 8
               for form, names in forms.items()}                                    # 8 pictures in 4.7 inches
    figure = plt.figure(figsize=(0.9 + 4.8 * max(map(len, forms.values())), sum(heights.values())),
                        layout="constrained")
    parts = figure.subfigures(len(forms), 1, height_ratios=list(heights.values()), squeeze=False)[:, 0]
    for part, (form, names) in zip(parts, forms.items(), strict=True):
        panels = part.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            shown = pictures[name][:MOST_WEIGHTS]
            show(axes, sheet(coloured(shown, scales[form]), 8))
            which = "" if len(shown) == len(pictures[name]) else f", {len(shown)} of {len(pictures[name])}"
            axes.set_title(f"{in_words(name)}{which}", fontsize=10)
        add_scale(part, list(panels), scales[form], "weight")
    return figure


def draw_embedding(maps: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray, classes: Sequence[str],
                   agrees: Mapping[str, Mapping[str, float]]) -> Figure:
    """A column for each space, PCA above t-SNE, all points (N, 2) in the colour of their class."""
    methods = list(next(iter(maps.values())))
    figure, grid = plt.subplots(len(methods), len(maps), layout="constrained", squeeze=False,
                                figsize=(max(6, 3.1 * len(maps)), 6.9))
    palette = plt.get_cmap("tab10")
    for column, (name, of_method) in zip(grid.T, maps.items(), strict=True):
        for axes, (method, points) in zip(column, of_method.items(), strict=True):
            for label in np.unique(labels):
                axes.scatter(*points[labels == label].T, s=5, color=palette(int(label)), label=classes[label])
            axes.set(xticks=[], yticks=[], box_aspect=1)
            axes.set_title(f"{in_words(name)}: {agrees[name][method]:.0%}", fontsize=10)
    for axes, method in zip(grid[:, 0], methods, strict=True):
        axes.set_ylabel(method, fontsize=11)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", markerscale=3, fontsize=9,
                  ncols=10 if len(maps) > 2 and max(map(len, classes)) <= 2 else 5)
    return figure


def reconstructed_rows(networks: Mapping[str, Autoencoder], test: Tensor, noisy_images: Mapping[str, Tensor],
                       mean: float, std: float, device: str) -> dict[str, np.ndarray]:
    """The rows for `draw_rows`: images, what is made of them, noisy images, what denoising networks make of those."""
    rows = {"original": as_pixels(test, mean, std)}
    for name in sorted(networks, key=lambda name: VARIANTS[name].noise != "none"):          # with noise below
        noise = VARIANTS[name].noise
        images, label = test, in_words(name)
        if noise != "none":
            images, label = noisy_images[noise], f"{in_words(name)},\nof the noisy ones"
            rows[f"{noise.capitalize()} noise"] = as_pixels(images, mean, std)
        rows[label] = as_pixels(outputs(networks[name], images, device), mean, std)
    return rows


def rows_of_epochs(originals: Tensor, snapshots: Mapping[int, Tensor], mean: float,
                   std: float) -> dict[str, np.ndarray]:
    """The rows for `draw_epochs`: after the first epoch, the fifth and the last, so many as there were."""
    epochs = [epoch for epoch in sorted(snapshots) if epoch in EARLY or epoch == max(snapshots)]
    return {"original": as_pixels(originals, mean, std),
            **{f"epoch {epoch}": as_pixels(snapshots[epoch], mean, std) for epoch in epochs}}
