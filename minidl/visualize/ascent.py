"""Pictures that excite a channel of a trained network most: gradient ascent on the image, the weights stay as they are.

Erhan, Bengio, Courville, Vincent 2009, "Visualizing higher-layer features of a deep network". Mode "plain" is the
recipe of the Keras tutorial "Visualizing what convnets learn". Mode "sharp" adds what keeps an image from exciting
single pixels: it is moved, turned and scaled at random before each step (Mordvintsev, Olah, Tyka 2015, "Inceptionism";
Olah, Mordvintsev, Schubert 2017, "Feature visualization", doi:10.23915/distill.00007), and its total variation is kept
small (Mahendran, Vedaldi 2015, arXiv:1412.0035).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minidl import autograd, creation, functions
from minidl.errors import DtypeError, MinidlError, OutOfRangeError, SettingError, ShapeError
from minidl.nn.module import Module
from minidl.nn.utils.directions import lengths, unit
from minidl.rng import Generator
from minidl.tensors import Tensor
from minidl.visualize.layers import FeatureExtractor

# What a mode sets, unless the call says otherwise; jitter None: in proportion to the image.
MODES: dict[str, dict[str, Any]] = {
    "plain": {"jitter": 0, "degrees": 0.0, "zoom": (1.0, 1.0), "tv": 0.0},
    "sharp": {"jitter": None, "degrees": 10.0, "zoom": (0.9, 1.1), "tv": 0.5},
}
BORDER = 2                                  # cells of a map that are left out at each edge: padding shapes them


@dataclass(frozen=True)
class Maximized:
    """What `maximize` found for one channel.

    image: (C, H, W), the optimised input itself, whatever its range. picture: (C, H', W'), the same for the eye, from
    0 to 1 (`as_picture`). scores: the channel's score at the start, after each step but the last, and of `image`: one
    more than there were steps, all of the image as it is, not moved, without a penalty.
    dead: at `image` there is no gradient, so there is no way on: mostly a ReLU that lets nothing through, for the start
    already, or after a step that led too far. `image` then shows nothing about the channel.
    """

    image: Tensor
    picture: Tensor
    scores: list[float]
    dead: bool


def maximize(model: Module, layer: str, channel: int | Sequence[int], mode: str = "plain", *,
             image_shape: Sequence[int] | None = None, start: Tensor | None = None, steps: int = 30, lr: float = 10.0,
             clip: tuple[float, float] | None = None, jitter: int | None = None, degrees: float | None = None,
             zoom: tuple[float, float] | None = None, tv: float | None = None,
             generator: Generator | None = None) -> Any:
    """An image that makes one channel of a layer answer strongly, found by gradient ascent from noise.

        start: x = (u - 0.5) · 0.25, u uniform in 0…1            each step: x = x + lr · g / ‖g‖,   g = d score / dx

    layer: its name, as in `model.named_modules()`. Its output is (N, O, OH, OW) or (N, O), and the score of channel o
    is `channel_scores`: the mean of its map without a border of 2 cells. channel: which o, or several, which share the
    start and what is drawn at random, and do not influence each other: the result for one is that of it alone, but for
    rounding. Returns a `Maximized`, and a list of them for several channels.

    image_shape: (C, H, W) of what the model takes; not needed with `start`, an image (C, H, W) to begin with instead
    of noise, or (K, C, H, W), one for each channel. clip: (smallest, largest) for the pixels, kept to after each step;
    without it they go where they like. generator: of all that is random; the global one if None.

    mode "sharp" looks at the image anew in each step: moved by up to `jitter` pixels, turned by up to `degrees`,
    enlarged by a factor from `zoom`; and g = ∇score / ‖∇score‖ - tv · ∇TV / ‖∇TV‖, with the total variation TV: both
    have length 1, so that `tv` means the same for every layer. "plain" has none of it. Each can be set by itself;
    jitter is 12 pixels of 224 if it is not, in proportion and at least 1.

    The model is in evaluation mode meanwhile and left as it was, its parameters' `.grad` too. Raises `SettingError` for
    an unknown layer (with the nearest) or mode and settings outside their range, `OutOfRangeError` for a channel that
    the layer has not, `ShapeError` for a start or image_shape that is no (C, H, W), `MinidlError` for a gradient that
    is not finite.
    """
    answers = FeatureExtractor(model, [layer], "maximize")
    channels = _checked_channels(channel)
    look = _checked_settings(mode, steps, lr, clip, jitter, degrees, zoom, tv)
    images = _start(model, len(channels), image_shape, start, generator)        # (K, C, H, W), one for each channel
    if look["jitter"] is None:                              # 8 and then 4 pixels of 224, as in Olah et al.
        look["jitter"] = max(1, round(12 / 224 * min(images.shape[2:])))
    is_moved = bool(look["jitter"] or look["degrees"] or look["zoom"] != (1, 1))
    scores: list[list[float]] = []
    for step in range(steps):
        score, g = _score_and_gradient(answers, images, layer, channels, _draw(look, generator) if is_moved else None)
        scores.append(_scores(answers, images, layer, channels) if is_moved else score)
        _check_finite(step, lr, scores[-1], g)
        g = unit(g)                                                             # (K, C, H, W)
        if look["tv"]:
            # without a gradient of the score, no step: smoothing alone would make a picture of nothing
            g = unit(g - look["tv"] * unit(_gradient_of_variation(images))) * (lengths(g) > 0)
        images = images + lr * g
        if clip is not None:
            images = images.clamp(*clip)
    score, g = _score_and_gradient(answers, images, layer, channels, None)
    scores.append(score)
    _check_finite(steps, lr, score, g)
    dead = (lengths(unit(g)) == 0).flatten().tolist()                           # (K,)
    found = [Maximized(image, as_picture(image), list(of_one), is_dead) for image, of_one, is_dead in
             zip(images.unbind(0), zip(*scores, strict=True), dead, strict=True)]
    return found if isinstance(channel, Sequence) else found[0]


def channel_scores(output: Tensor, channels: Sequence[int], layer: str = "") -> Tensor:
    """How strongly each image excites its own channel: image k, channel channels[k]. Returns (K,).

        score = mean over i, j of  y[k, channels[k], i, j],   without the 2 outermost rows and columns

    output: the layer's, (K, O, OH, OW), or (K, O) of a dense layer, where the unit itself is the score. A map with
    fewer than 5 rows (or columns) would have nothing left, and is taken whole in that direction.
    """
    if output.ndim not in (2, 4):
        raise ShapeError(f"the layer {layer!r} returns {tuple(output.shape)}, expected (N, O, H, W) or (N, O); name "
                         f"another layer", where="maximize")
    count = output.shape[1]
    for o in channels:
        if not 0 <= o < count:
            raise OutOfRangeError(f"got channel {o}, expected 0 to {count - 1}: the layer {layer!r} has {count} "
                                  f"channels", where="maximize")
    own = output[list(range(len(channels))), list(channels)]                    # (K, O, OH, OW) -> (K, OH, OW)
    return without_border(own).mean((1, 2)) if output.ndim == 4 else own


def without_border(maps: Tensor) -> Tensor:
    """(…, H, W) -> (…, H - 4, W - 4): without the 2 outermost cells; less than 5 cells are left as they are."""
    for dim in (-2, -1):
        if maps.shape[dim] > 2 * BORDER:
            maps = maps.narrow(dim, BORDER, maps.shape[dim] - 2 * BORDER)
    return maps


def as_picture(image: Tensor) -> Tensor:
    """An optimised image (C, H, W) for the eye: (C, H', W') from 0 to 1.

        y = 0.15 · (x - mean) / std + 0.5,   the centre of it, clipped to 0…1

    The crop is that of the recipe, 25 pixels of 180 at each edge, in proportion.
    """
    spread = image.std(correction=0) + 1e-5                 # a constant image is grey
    y = 0.15 * (image - image.mean()) / spread
    top, left = (25 * size // 180 for size in image.shape[1:])
    y = y[:, top:image.shape[1] - top, left:image.shape[2] - left]
    return (y + 0.5).clamp(0, 1)


def total_variation(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N,): how much neighbouring pixels differ.

    TV = sum over all c, i, j of  (x[c, i+1, j] - x[c, i, j])² + (x[c, i, j+1] - x[c, i, j])²

    Squared, as Mahendran and Vedaldi do with β = 2, which makes it differentiable everywhere.
    """
    down = images[:, :, 1:] - images[:, :, :-1]             # (N, C, H, W) -> (N, C, H - 1, W)
    right = images[..., 1:] - images[..., :-1]              # (N, C, H, W) -> (N, C, H, W - 1)
    return (down ** 2).sum((1, 2, 3)) + (right ** 2).sum((1, 2, 3))


def resample(images: Tensor, degrees: float = 0.0, zoom: float = 1.0, shift: tuple[float, float] = (0, 0)) -> Tensor:
    """Images (N, C, H, W) turned about their centre, then enlarged, then moved; differentiable.

    What stands at (i, j) afterwards stood at (r, c) before; with the centre (i0, j0) and the angle a:

        [r - i0]   1   [ cos a  sin a] [i - i0 - shift_i]
        [c - j0] = - · [-sin a  cos a] [j - j0 - shift_j]
                  zoom
        y[i, j] = (1-p)(1-q) x[r⁻, c⁻] + (1-p) q x[r⁻, c⁺] + p (1-q) x[r⁺, c⁻] + p q x[r⁺, c⁺]

    where r⁻ = floor r, r⁺ = r⁻ + 1, p = r - r⁻, and c⁻, c⁺, q likewise: bilinear interpolation between four pixels.
    Beyond the edge the edge goes on. degrees: positive is counter-clockwise, as one sees it (rows count downwards).
    """
    height, width = images.shape[2:]
    like: dict[str, Any] = {"dtype": images.dtype, "device": images.device}
    i = creation.arange(height, **like)[:, None] - (height - 1) / 2 - shift[0]                      # (H, 1)
    j = creation.arange(width, **like)[None, :] - (width - 1) / 2 - shift[1]                        # (1, W)
    cos, sin = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    r = (cos * i + sin * j + (height - 1) / 2).clamp(0, height - 1).flatten()                       # (H, W) -> (H·W,)
    c = (cos * j - sin * i + (width - 1) / 2).clamp(0, width - 1).flatten()
    r_low, c_low = r.floor(), c.floor()
    p, q = r - r_low, c - c_low
    r0, c0 = r_low.long(), c_low.long()
    r1, c1 = (r0 + 1).clamp(0, height - 1), (c0 + 1).clamp(0, width - 1)        # on the last row and column p = q = 0
    pixels = images.flatten(2)                                                  # (N, C, H, W) -> (N, C, H·W)

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        return pixels.index_select(2, rows * width + columns)

    y: Tensor = (1 - p) * ((1 - q) * at(r0, c0) + q * at(r0, c1)) + p * ((1 - q) * at(r1, c0) + q * at(r1, c1))
    return y.unflatten(2, (height, width))                                      # (N, C, H·W) -> (N, C, H, W)


# -- what maximize consists of -----------------------------------------------------------------------------------------

def _score_and_gradient(answers: FeatureExtractor, images: Tensor, layer: str, channels: Sequence[int],
                        move: tuple[float, float, tuple[int, int]] | None) -> tuple[list[float], Tensor]:
    """The score of each image (K,), moved as `resample` does if `move` says how, and dscore/dx (K, C, H, W)."""
    x = images.detach().requires_grad_()
    with autograd.enable_grad():
        seen = x if move is None else resample(x, *move)
        score = channel_scores(answers(seen)[layer], channels, layer)
        together = score.sum()                              # image k has no part in the other scores
    g, = autograd.grad(together, x, materialize_grads=True)
    return score.tolist(), g


def _gradient_of_variation(images: Tensor) -> Tensor:
    """dTV/dx, (K, C, H, W)."""
    x = images.detach().requires_grad_()
    with autograd.enable_grad():
        variation = total_variation(x).sum()
    g: Tensor
    g, = autograd.grad(variation, x)
    return g


def _check_finite(step: int, lr: float, scores: list[float], g: Tensor) -> None:
    if not (all(map(math.isfinite, scores)) and bool(g.isfinite().all())):
        raise MinidlError(f"got a score or a gradient that is not finite after {step} steps; use a smaller lr than "
                          f"{lr:g}, or look for nan among the weights", where="maximize")


def _scores(answers: FeatureExtractor, images: Tensor, layer: str, channels: Sequence[int]) -> list[float]:
    """The scores of these images, without a graph."""
    with autograd.no_grad():
        return list(channel_scores(answers(images)[layer], channels, layer).tolist())


def _draw(look: dict[str, Any], generator: Generator | None) -> tuple[float, float, tuple[int, int]]:
    """Degrees, zoom and a shift by whole pixels, uniform in their ranges."""
    angle, size, down, right = creation.rand(4, generator=generator).tolist()
    smallest, largest = look["zoom"]
    cells = 2 * look["jitter"] + 1                          # -jitter … jitter
    shift = (int(down * cells) - look["jitter"], int(right * cells) - look["jitter"])
    return (2 * angle - 1) * look["degrees"], smallest + size * (largest - smallest), shift


def _start(model: Module, count: int, image_shape: Sequence[int] | None, start: Tensor | None,
           generator: Generator | None) -> Tensor:
    """The first images (K, C, H, W), in the type and on the device of the model's weights: noise, or a copy of `start`.
    """
    weights = next(iter(model.parameters()), None)
    like: dict[str, Any] = {} if weights is None else {"dtype": weights.dtype, "device": weights.device}
    shape = tuple(image_shape) if isinstance(image_shape, Sequence) else image_shape
    if shape is None and start is None:
        raise SettingError("expected image_shape=(C, H, W) of the model's images, or a start image", where="maximize")
    if shape is not None and (not isinstance(shape, tuple) or len(shape) != 3
                              or not all(isinstance(n, int) and n > 0 for n in shape)):
        raise ShapeError(f"got image_shape={shape}, expected (C, H, W), such as (1, 28, 28)", where="maximize")
    if start is None:
        noise = (creation.rand(*(shape or ()), generator=generator, **like) - 0.5) * 0.25
        return functions.stack([noise] * count)             # (C, H, W) -> (K, C, H, W)
    images = start
    if isinstance(start, Tensor) and start.ndim == 3:
        images = functions.stack([start] * count)           # (C, H, W) -> (K, C, H, W)
    if isinstance(images, Tensor) and (not images.is_floating_point() or not bool(images.isfinite().all())):
        what = " with nan or infinity" if images.is_floating_point() else ""
        raise DtypeError(f"got a start of {images.dtype}{what}, expected finite floats as the model takes them; divide "
                         f"bytes by 255", where="maximize")
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != count or shape not in (
            None, tuple(images.shape[1:])):
        found = tuple(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise ShapeError(f"got a start of {found}, expected one image {shape or '(C, H, W)'}, or {count} of them, one "
                         f"for each channel", where="maximize")
    return images.detach().clone().to(**like)


def _checked_channels(channel: Any) -> list[int]:
    try:
        channels = [operator.index(o) for o in (channel if isinstance(channel, Sequence) else [channel])]
    except TypeError:
        channels = []
    if not channels or isinstance(channel, bool):
        raise SettingError(f"got channel={channel!r}, expected a whole number from 0, or several such as range(64)",
                           where="maximize")
    return channels


def _checked_settings(mode: str, steps: Any, lr: Any, clip: Any, jitter: Any, degrees: Any, zoom: Any,
                      tv: Any) -> dict[str, Any]:
    """Those of the mode, replaced by what the call gives."""
    def is_number(value: Any, low: float) -> bool:
        return isinstance(value, int | float) and low <= value < math.inf

    def is_range(value: Any, low: float) -> bool:
        return (isinstance(value, tuple | list) and len(value) == 2 and all(is_number(v, low) for v in value)
                and value[0] <= value[1])

    if mode not in MODES:
        raise SettingError(f'got mode={mode!r}, expected "plain" or "sharp"', where="maximize")
    for name, value, is_right, expected in (
            ("steps", steps, isinstance(steps, int) and steps > 0, "a whole number above 0"),
            ("lr", lr, is_number(lr, 0) and lr > 0, "a number above 0"),
            ("clip", clip, clip is None or (is_range(clip, -math.inf) and clip[0] < clip[1]),
             "None or (smallest, largest), such as (0, 1)"),
            ("jitter", jitter, jitter is None or (isinstance(jitter, int) and jitter >= 0), "whole pixels, 0 or more"),
            ("degrees", degrees, degrees is None or is_number(degrees, 0), "a number of 0 or more"),
            ("zoom", zoom, zoom is None or (is_range(zoom, 0) and zoom[0] > 0),
             "(smallest, largest) above 0, such as (0.9, 1.1)"),
            ("tv", tv, tv is None or is_number(tv, 0), "a number of 0 or more")):
        if not is_right:
            raise SettingError(f"got {name}={value!r}, expected {expected}", where="maximize")
    given = {"jitter": jitter, "degrees": degrees, "zoom": None if zoom is None else tuple(zoom), "tv": tv}
    return MODES[mode] | {name: value for name, value in given.items() if value is not None}
