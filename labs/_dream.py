"""What labs.dream computes besides, and its pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import minidl
from labs import _trained
from labs._arguments import one_of
from minidl import Tensor, nn
from minidl.models import small_cnn, small_resnet
from minidl.nn.utils.directions import lengths, unit
from minidl.visualize import Maximized, capture, layer_named, maximize, total_variation
from minidl.visualize.ascent import channel_scores, without_border

COUNT = 64                                                      # channels of a layer that are looked at
MODELS = ("small", "resnet50v2")                                # the latter in labs.dream_resnet50v2
OF_CNN = {"1": "convolution 1, ReLU", "4": "convolution 2, ReLU", "8": "dense layer, ReLU", "9": "class scores"}
OF_RESNET = {"stem.2": "stem, ReLU", "stage1.0.relu2": "stage 1", "stage2.0.relu2": "stage 2",
             "stage3.0.relu2": "stage 3", "classifier": "class scores"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this lab's command line takes besides."""
    _trained.add_arguments(parser)
    parser.add_argument("--model", type=one_of(MODELS), default=MODELS[0], metavar="|".join(MODELS),
                        help="small: one that is trained here (the default); resnet50v2: a large one, which takes "
                        "other arguments: see --model resnet50v2 --help")
    parser.add_argument("--layer", metavar="NAME", help="the layer whose filters are looked at most closely (default "
                        f"{list(OF_CNN)[1]}; cifar10 {list(OF_RESNET)[-2]})")


def asked_model(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """What a command line says about --model, if it does, and all that it says besides.

    Nothing is checked, and --help is left alone: the arguments depend on the model, and whoever takes them checks them.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--model", nargs="?")
    asked, rest = parser.parse_known_args(argv)
    return asked.model, rest


def layers_of(dataset: str, image_shape: tuple[int, int, int], asked: str | None) -> tuple[dict[str, str], str]:
    """The layers to look at, {name: what it is} from shallow to deep, and the name of the one to look at most closely.

    Raises for one that is not there, before anything is trained.
    """
    is_photo = dataset == "cifar10"
    layers = dict(OF_RESNET if is_photo else OF_CNN)
    if asked is None:
        return layers, list(layers)[-2] if is_photo else list(layers)[1]
    model = small_resnet(image_shape) if is_photo else small_cnn(image_shape)
    layers = {asked: type(layer_named(model, asked, "--layer")).__name__} | layers
    in_order = [name for name, _ in model.named_modules() if name in layers]
    return {name: layers[name] for name in in_order}, asked


def answers(network: nn.Module, images: Tensor, layers: Sequence[str], device: str) -> dict[str, np.ndarray]:
    """The score of every channel for every image, {layer: (N, O)}, from one forward pass for all of the layers."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    with minidl.no_grad():
        for batch in images.split(250):
            for name, y in capture(network, batch.to(device), layers).items():
                means = without_border(y).mean((2, 3)) if y.ndim == 4 else y        # (N, O, OH, OW) -> (N, O)
                parts[name].append(means.cpu().numpy())
    return {name: np.concatenate(of_layer) for name, of_layer in parts.items()}


def excite(network: nn.Module, layer: str, channels: Sequence[int], real: np.ndarray, examples: Tensor, seed: int,
           **settings: Any) -> tuple[list[Maximized], np.ndarray]:
    """A picture for each channel, and (K,) which of them began with a real image.

    All begin with the same noise. Where that ends without a gradient, though some of the `examples` (N, C, H, W) excite
    the channel, it begins anew with the one that does so most. real: what the channels say to them, (N, O).
    """
    def generator() -> minidl.Generator:
        return minidl.Generator().manual_seed(seed)             # the same noise and the same moves each time

    found = maximize(network, layer, list(channels), image_shape=tuple(examples.shape[1:]), generator=generator(),
                     **settings)
    again = [k for k, o in enumerate(channels) if found[k].dead and is_live(real[:, o])]
    if again:
        best = examples[[int(real[:, channels[k]].argmax()) for k in again]]
        second = maximize(network, layer, [channels[k] for k in again], start=best, generator=generator(), **settings)
        for k, result in zip(again, second, strict=True):
            found[k] = result
    return found, np.isin(np.arange(len(channels)), again)


def is_live(real: np.ndarray) -> Any:
    """Whether a channel tells real images apart at all, (N, …) -> (…): a dead one says the same to each of them."""
    return real.max(0) > real.min(0)


def summary(network: nn.Module, layer: str, real: np.ndarray, plain: tuple[list[Maximized], np.ndarray],
            in_range: tuple[list[Maximized], np.ndarray], seed: int) -> dict[str, Any]:
    """How the scores of the pictures of a layer's first channels compare with those of real images, real (N, K).

    All counts but the first three are of live channels. in_range: pictures whose pixels were kept within 0…1.
    """
    found, from_image = plain
    live = is_live(real)
    start, final, bounded = (np.array([result.scores[i] for result in results])
                             for results, i in ((found, 0), (found, -1), (in_range[0], -1)))
    of_noise = scores_of_noise(network, layer, range(len(found)), found, seed)
    mean, most = real.mean(0), real.max(0)
    above = (final > start) & (final > mean) & live

    def share(of_live: np.ndarray) -> float:
        return share_of(of_live, live)

    return {"channels": len(found), "live": int(live.sum()), "dead": int((~live).sum()),
            "woken": int(sum(not result.dead for result, is_alive in zip(found, live, strict=True) if not is_alive)),
            "from_image": int((from_image & live).sum()), "above_start_and_mean": int(above.sum()),
            "share": share(above), "share_from_noise": share_of(above, live & ~from_image),
            "share_above_noise_of_equal_length": share(final > of_noise),
            "share_within_0_1_above_mean": share(bounded > mean), "share_within_0_1_above_all": share(bounded > most)}


def scores_of_noise(network: nn.Module, layer: str, channels: Sequence[int], found: Sequence[Maximized],
                    seed: int) -> np.ndarray:
    """What channels say to noise that is as long as the pictures found for them, (K,): what the strength alone does."""
    images = minidl.stack([result.image for result in found])                               # (K, C, H, W)
    noise = minidl.rand(*images.shape[1:], generator=minidl.Generator().manual_seed(seed)).to(images.device) - 0.5
    with minidl.no_grad():
        output = capture(network, unit(noise[None]) * lengths(images), [layer])[layer]
        of_noise: np.ndarray = channel_scores(output, channels).cpu().numpy()
    return of_noise


def share_of(which: np.ndarray, among: np.ndarray) -> float:
    """The share of those that are `which` among some, both (K,) of bools; nan if these are none."""
    return float(which[among].mean()) if among.any() else float("nan")


def as_share(value: float) -> str:
    """A share of the live filters; of none there is none."""
    return "none" if np.isnan(value) else f"{value:.0%}"


def curves_of(found: Sequence[Maximized], real: np.ndarray) -> np.ndarray:
    """The scores of the live channels at each step, (K, steps + 1): 0 is the mean of the real images, 1 the best one.

    real: what the channels say to these, (N, K).
    """
    lines = np.array([result.scores for result in found])                                   # (K, steps + 1)
    mean, best = real.mean(0)[:, None], real.max(0)[:, None]
    scaled: np.ndarray = ((lines - mean) / np.maximum(best - mean, 1e-12))[is_live(real)]
    return scaled


def nearest(own: np.ndarray, real: np.ndarray, count: int) -> np.ndarray:
    """The real images whose answers (N, O) have the smallest angle to those of one picture, (O,): (count,) of them."""
    norms = np.linalg.norm(real, axis=1) * np.linalg.norm(own)
    return np.argsort(-(real @ own) / np.maximum(norms, 1e-12), kind="stable")[:count]


def roughness(image: Tensor) -> float:
    """Total variation beside what is left of the image without its mean: it does not change with the contrast."""
    return float(total_variation(image[None])[0] / ((image - image.mean()) ** 2).sum())


# -- pictures ----------------------------------------------------------------------------------------------------------

def panels(rows: int, columns: int, row_height: float, width: float, title: str,
           width_ratios: Sequence[float] | None = None, margin: float = 0.6) -> tuple[Figure, Any]:
    """A figure of many small panels, (rows, columns). Its margins are fixed: to fit them would take seconds.

    margin: for the title and the first row's titles, in inches.
    """
    height = row_height * rows + margin                         # inches
    spaces = {"left": 0.01, "right": 0.99, "bottom": 0.03 / height, "top": 1 - margin / height, "wspace": 0.08,
              "hspace": 0.2}
    figure, grid = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, width_ratios=width_ratios,
                                gridspec_kw=spaces)
    figure.suptitle(title, fontsize=11, y=1 - 0.06 / height, va="top")
    return figure, grid


def show(axes: Axes, picture: Tensor, title: str) -> None:
    """A picture (C, H, W) from 0 to 1, and the word "even" for one of a single colour."""
    axes.set_title(title, fontsize=7, pad=2)
    axes.set(xticks=[], yticks=[], box_aspect=1)
    pixels = (255 * picture.permute(1, 2, 0).cpu().numpy()).round() / 255                   # (H, W, C)
    if (pixels != pixels[0, 0]).any():
        axes.imshow(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    else:
        say_instead(axes, "even", "black")


def say_instead(axes: Axes, word: str, colour: str) -> None:
    """A word where a picture would be."""
    axes.set_facecolor("0.85")
    axes.text(0.5, 0.5, word, ha="center", va="center", fontsize=7, color=colour, transform=axes.transAxes)


def show_result(axes: Axes, result: Maximized, title: str, alive: bool = True, as_it_is: bool = False) -> None:
    """The picture, or a word where there is none. Grey title: no real image excites this channel.

    as_it_is: the pixels themselves, which are within 0…1, and not their contrast.
    """
    if result.dead:
        axes.set_title(title, fontsize=7, pad=2)
        axes.set(xticks=[], yticks=[], box_aspect=1)
        say_instead(axes, "lost" if alive else "dead", "crimson")
    else:
        show(axes, result.image if as_it_is else result.picture, title)
    axes.title.set_color("black" if alive else "gray")


def number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def draw_curves(layers: Mapping[str, str], curves: Mapping[str, np.ndarray]) -> Figure:
    """A panel for each layer, a line for each live channel (K, steps + 1): 0 is the mean real image, 1 the best one."""
    columns = (len(curves) + 1) // 2
    figure, places = plt.subplots(2, columns, figsize=(3.4 * columns, 5.6), layout="constrained", sharex=True,
                                  squeeze=False)
    for above, axes in zip(places.flat[len(curves) - columns:], places.flat[len(curves):], strict=False):
        axes.remove()
        above.tick_params(labelbottom=True)
    for axes, (name, lines) in zip(places.flat, curves.items(), strict=False):
        for line in lines:
            axes.plot(line, color="C0", alpha=0.35, linewidth=0.8)
        axes.plot(np.median(lines, axis=0), color="black", label="median")
        axes.axhline(1, color="crimson", linewidth=1, label="best of the real images")
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=min(-0.2, 1.2 * lines.min()))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title(f"{name}: {layers[name]}\n{len(lines)} live channels", fontsize="medium")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
    figure.suptitle("The score of every live channel, step by step")
    for axes in places[:, 0]:
        axes.set_ylabel("0: mean, 1: best real image")
    places[0, 0].legend(fontsize=8, loc="lower right")
    return figure


def draw_sheet(found: Sequence[Maximized], from_image: np.ndarray, live: np.ndarray, title: str,
               channels: Sequence[int] | None = None) -> Figure:
    """The pictures of some channels (the first ones, unless others are given), eight in a row, with the final scores.
    """
    figure, grid = panels(-(-len(found) // 8), 8, 1.25, 8.6, title)
    for axes in grid.flat[len(found):]:
        axes.remove()
    for k, (axes, result) in enumerate(zip(grid.flat, found, strict=False)):
        score = "" if result.dead else f": {number(result.scores[-1])}"
        name = starred(k if channels is None else channels[k], from_image[k])
        show_result(axes, result, f"{name}{score}", bool(live[k]))
    return figure


def draw_nearest(images: Tensor, titles: Sequence[str], title: str) -> Figure:
    """Real images (N, C, H, W), eight in a row, in the order of the channels of `draw_sheet`; no title, no image."""
    figure, grid = panels(-(-len(images) // 8), 8, 1.25, 8.6, title)
    for axes in grid.flat[len(images):]:
        axes.remove()
    for axes, image, words in zip(grid.flat, images, titles, strict=False):
        if words:
            show(axes, image, words)
        else:
            axes.set(xticks=[], yticks=[], box_aspect=1)
            say_instead(axes, "no picture", "crimson")
    return figure


def starred(channel: int, is_from_image: Any) -> str:
    """The number of a channel, with a * if its picture began with a real image."""
    return f"{channel}{'*' if is_from_image else ''}"


def draw_layers(rows: Sequence[tuple[str, Sequence[str], Sequence[Maximized]]], columns: int,
                title: str = "From shallow (top) to deep: the first live channels of each layer") -> Figure:
    """For each (name, names of channels, their pictures) a row."""
    figure, grid = panels(len(rows), columns + 1, 1.12, 9.6, title, [1.8] + [1] * columns)
    for line, (name_of_row, channels, found) in zip(grid, rows, strict=True):
        line[0].set_axis_off()
        line[0].text(0, 0.5, name_of_row, va="center", fontsize=9, transform=line[0].transAxes)
        for axes in line[1 + len(found):]:
            axes.set_visible(False)
        for axes, name, result in zip(line[1:], channels, found, strict=False):
            show_result(axes, result, f"{name}: {number(result.scores[-1])}")
    return figure


def draw_strip(channels: Sequence[int], variants: Mapping[str, tuple[Sequence[Maximized], np.ndarray]]) -> Figure:
    """A column for each variant, (pictures, which began with a real image); a row for each channel."""
    figure, grid = plt.subplots(len(channels), len(variants), figsize=(1.7 * len(variants), 1.75 * len(channels) + 0.4),
                                layout="constrained", squeeze=False)
    figure.suptitle("One thing after another; above each picture its final score", fontsize=11)
    for column, (name, (found, from_image)) in enumerate(variants.items()):
        for row, (result, is_from_image) in enumerate(zip(found, from_image, strict=True)):
            heading = f"{name}\n" if row == 0 else ""
            score = f"{'* ' if is_from_image else ''}{number(result.scores[-1])}"
            show_result(grid[row, column], result, f"{heading}{score}")
            grid[row, column].title.set_fontsize(9)
    for axes, o in zip(grid[:, 0], channels, strict=True):
        axes.set_ylabel(f"channel {o}", fontsize=9)
    return figure


@dataclass
class Neighbours:
    """One row of `draw_neighbours`: a channel's pictures, and the real images (N, C, H, W) that belong to them."""

    name: str
    plain: Maximized
    within: Maximized                                           # its pixels were kept within 0…1
    exciting: Tensor
    scores: np.ndarray                                          # of the exciting ones
    near: Tensor
    classes: list[str]                                          # of the near ones


def draw_neighbours(rows: Sequence[Neighbours]) -> Figure:
    """A row for each channel: its two pictures, the real images that excite it most, and those nearest to it."""
    most, near = len(rows[0].exciting), len(rows[0].near)
    figure, grid = panels(len(rows), most + near + 4, 0.95, 12.5, "Pictures of channels, and real images beside them",
                          [1.3, 1.3, 0.2, *[1] * most, 0.2, *[1] * near])
    for line, row in zip(grid, rows, strict=True):
        show_result(line[0], row.plain, f"{row.name}: {number(row.plain.scores[-1])}")
        show_result(line[1], row.within, f"{number(row.within.scores[-1])}", as_it_is=True)
        for axes in (line[2], line[3 + most]):                  # gaps
            axes.remove()
        for axes, image, score in zip(line[3:3 + most], row.exciting, row.scores, strict=True):
            show(axes, image, number(score))
        for axes, image, label in zip(line[4 + most:], row.near, row.classes, strict=True):
            show(axes, image, label)
    for place, words in ((0, "plain"), (1, "in 0…1"), (3 + most // 2, "real images that excite it most"),
                         (4 + most + near // 2, "nearest to plain")):
        grid[0, place].set_title(f"{words}\n{grid[0, place].get_title()}", fontsize=8, pad=2)
    return figure
