"""What the convolution lab measures with: cases, ways to compute them, the limits of the machine, and a drawing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from minidl.kernels import addresses, im2col, loops, reference, simd, winograd
from minidl.kernels.compiling import compiled
from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.threads import parallel
from minidl.kernels.vectors import LANES, ROWS, WIDTH, add_to, outer, pointers, stay_apart, zeros

FUNCTIONS = {"forward": "conv2d", "input gradient": "conv2d_input_grad", "weight gradient": "conv2d_weight_grad"}


class Case(NamedTuple):
    """A convolution: its sizes, and random operands in float32 for each of its functions."""

    geometry: Conv2dGeometry
    operands: dict[str, tuple[np.ndarray, np.ndarray]]              # by the names in FUNCTIONS
    work: int                                                       # operations of one function, terms on padding too

    @classmethod
    def of(cls, rng: np.random.Generator, images: tuple[int, ...], weights: tuple[int, ...], **how: Any) -> Case:
        """images (N, C, H, W) and weights (O, C, KH, KW) are shapes; `how` has stride, padding, dilation."""
        geometry = Conv2dGeometry.of(images, weights, **how)
        x, g = (rng.standard_normal((images[0], *size, channels), np.float32).transpose(0, 3, 1, 2)    # channels-last
                for size, channels in ((images[2:], images[1]), (geometry.output_size, weights[0])))
        w = rng.standard_normal(weights, np.float32)
        return cls(geometry, dict(zip(FUNCTIONS, ((x, w), (g, w), (x, g)), strict=True)), 2 * g.size * w[0].size)


def ways_to_compute(case: Case) -> dict[str, dict[str, Callable[..., np.ndarray]]]:
    """Name -> the three functions; `simd` twice if it takes Winograd's way for this case: without it first."""
    sets = {"reference": reference, "im2col": im2col, "loops": loops, "simd": simd}
    ways = {name: {label: getattr(kernels, function) for label, function in FUNCTIONS.items()}
            for name, kernels in sets.items()}
    if winograd.fits(case.geometry, *case.operands["forward"][1].shape[1::-1]):
        shortcut = ways.pop("simd")
        ways["simd, tiles"] = {label: _only_tiles(function) for label, function in shortcut.items()}
        ways["simd, Winograd"] = shortcut
    return ways


def _only_tiles(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A function of `simd` that uses its tiles also where Winograd's way would fit."""
    def run(*operands: Any) -> np.ndarray:
        fits, winograd.fits = winograd.fits, lambda *_: False
        try:
            return function(*operands)
        finally:
            winograd.fits = fits

    return run


def relative_difference(result: np.ndarray, truth: np.ndarray) -> float:
    """The largest difference between two arrays, as a part of the largest number."""
    assert result.shape == truth.shape
    return float(abs(result - truth).max() / abs(truth).max())


def seconds_of(function: Callable[..., Any], *operands: Any) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function(*operands)
    return time.perf_counter() - start


# -- the limits of the machine -----------------------------------------------------------------------------------------

CHAINS = 8 if WIDTH > LANES else 4           # rows of a tile that leaves registers free for the numbers it multiplies
STEPS = 400_000
COPIED = 1 << 24                            # numbers: 64 MiB, more than caches hold


@compiled
def multiply_in_registers(start, stop, steps, numbers, offsets, total):  # type: ignore[no-untyped-def]
    """Outer products of always the same numbers: nothing is fetched, and no product of a step waits for another."""
    stay_apart()
    tile = zeros(CHAINS, WIDTH)
    rows = pointers(tile, numbers, 0, offsets, 0)
    for _ in range(steps):
        tile = outer(tile, rows, 0, numbers, 0)
    add_to(total, start * CHAINS * WIDTH, WIDTH, tile)


def operations_per_second(threads: int) -> float:
    """How many operations the registers can do, multiplications and additions."""
    size = CHAINS * WIDTH
    arguments = np.ones(WIDTH, np.float32), np.arange(CHAINS), np.zeros(threads * size, np.float32)
    units = [(i, i + 1) for i in range(threads)]
    return threads * STEPS * 2 * size / seconds_of(parallel, multiply_in_registers, units, STEPS, *arguments)


def bytes_per_second(source: np.ndarray, target: np.ndarray, threads: int) -> float:
    """How many bytes a copy reads and writes."""
    cuts = [source.size * i // threads for i in range(threads + 1)]
    ranges = list(itertools.pairwise(cuts))
    return 2 * source.nbytes / seconds_of(parallel, lambda start, stop: np.copyto(
        target[start:stop], source[start:stop]), ranges)


# -- the drawing -------------------------------------------------------------------------------------------------------

def width_of_tiles(channels_out: int) -> int:
    """How many channels of the result a tile of `simd` holds."""
    return simd.panels_of(np.zeros((1, 1, channels_out), np.float32), None)[0]


def draw_step(geometry: Conv2dGeometry, channels_in: int, channels_out: int) -> Any:
    """A figure of one step of one tile of `simd`, from the tables that the kernel goes by."""
    frame, tables = addresses.forward_tables(geometry, channels_in, channels_out)
    (height, width), (kh, kw), wide = geometry.input_size, geometry.kernel_size, width_of_tiles(channels_out)
    tap, first = kh * kw // 2, len(tables.pixels) // ROWS // 2 * ROWS
    first_term, this_term = simd.all_of(tables.terms)[[0, tap * channels_in]]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained", width_ratios=[1, 1.5])

    def cell(address: int) -> tuple[int, int]:
        """Column and row, in the framed image, of the pixel that an address belongs to."""
        row, column = divmod(int(address) // channels_in, frame.width)
        return column, row

    image = np.zeros((frame.height, frame.width))
    image[frame.top:frame.top + height, frame.left:frame.left + width] = 1
    left.pcolormesh(image, cmap="Greys", vmin=0, vmax=6, edgecolors="white", linewidth=0.5)
    for pixel in tables.pixels[first:first + ROWS]:
        left.add_patch(Rectangle(cell(pixel + this_term), 1, 1, facecolor="C1", edgecolor="white"))
        left.add_patch(Rectangle(cell(pixel + first_term), kw, kh, fill=False, edgecolor="C2", alpha=0.4))
    left.set(xticks=[], yticks=[], aspect="equal")
    left.set_title("Fetched: one number of each orange pixel", fontsize=11)
    left.invert_yaxis()
    left.set_xlabel(f"An image in its frame of zeros (white). Green: the {kh}×{kw}\nwindows of {ROWS} outputs. Orange: "
                    f"number {tap + 1} of each window,\nin one channel.", fontsize=9)

    for i in range(ROWS):
        right.add_patch(Rectangle((-2.2, i), 1, 0.9, facecolor="C1"))
        for j in range(wide):
            shade = 0.3 + 0.5 * ((i + j // LANES) % 2)                          # a register, and the next
            right.add_patch(Rectangle((j, i), 0.9, 0.9, facecolor="C2", alpha=shade))
    for j in range(wide):
        right.add_patch(Rectangle((j, -2.2), 0.9, 1, facecolor="C0"))
    registers = ROWS * wide // min(wide, LANES)
    for x, y, text, angle in ((wide / 2, -2.9, f"{wide} weights, for {wide} channels of the result", 0),
                              (-3, ROWS / 2, f"{ROWS} numbers of the image", 90),
                              (wide / 2, ROWS + 1, f"{ROWS} × {wide} sums, in {registers} registers", 0)):
        right.text(x, y, text, ha="center", va="center", rotation=angle, fontsize=9)
    right.set(xlim=(-4, wide + 0.5), ylim=(ROWS + 2, -4), aspect="equal")
    right.set_title(f"{ROWS + wide} numbers fetched, {ROWS * wide} multiplied and added", fontsize=11)
    right.axis("off")
    return figure
