"""Where the numbers of a convolution lie in memory: tables that hold all there is to stride, dilation and padding.

In channels-last memory, let p number the pixels of the output and k = (u, v, c) the terms of the sum for one of them.
Where a term lies in the padded image is then the sum of two numbers,

    address(p, k) = pixels[p] + terms[k]        pixels[i, j]   = (i·s · width + j·s) · channels
                                                terms[u, v, c] = (u·d · width + v·d) · channels + c

of which one depends on the pixel alone and one on the term alone. For the gradient of the inputs the image is that of
the gradients g, and a pixel is one of the input; there are other tables, but the same sum of two.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minidl.kernels.geometry import Conv2dGeometry
from minidl.kernels.vectors import ROWS


class Frame(NamedTuple):
    """The size of an image with zeros around it, so that no term of a sum needs a check, and where the image begins."""

    height: int
    width: int
    top: int
    left: int


class Runs(NamedTuple):
    """The addresses  starts[r] + i · step  for all r and all i < length, in that order."""

    starts: np.ndarray
    length: int
    step: int


class Tables(NamedTuple):
    """Where the terms of each output pixel lie in a framed image, and where the pixel is written; all are addresses."""

    pixels: np.ndarray              # (P',) from the start of the framed image; P' is P rounded up to whole tiles
    terms: Runs                     # K in all, from the pixel
    outputs: np.ndarray             # (P',) from the start of the result
    taps: np.ndarray                # (T,) u * KW + v of the taps that take part; K = T * channels of a group


@lru_cache(maxsize=256)
def forward_tables(geometry: Conv2dGeometry, channels: int, outputs: int) -> tuple[Frame, Tables]:
    """The frame of the images, and where the terms of each output pixel lie in it."""
    (out_h, out_w), (kh, kw), (height, width) = geometry.output_size, geometry.kernel_size, geometry.padded_size
    (s, t), (d, e), ((top, _), (left, _)) = geometry.stride, geometry.dilation, geometry.padding
    i, j = np.arange(out_h)[:, None], np.arange(out_w)                                  # (OH, 1), (OW,)
    u, v = np.arange(kh)[:, None], np.arange(kw)                                        # (KH, 1), (KW,)
    return Frame(height, width, top, left), Tables(
        pixels=whole_tiles((i * s * width + j * t) * channels),
        terms=_joined((u * d * width + v * e) * channels, channels // geometry.groups),
        outputs=whole_tiles((i * out_w + j) * outputs),
        taps=np.arange(kh * kw),
    )


@lru_cache(maxsize=256)
def pixel_runs(geometry: Conv2dGeometry, channels: int) -> Runs:
    """`pixels` of the forward tables once more: one run for each row of the output."""
    (out_h, out_w), (s, t), (_, width) = geometry.output_size, geometry.stride, geometry.padded_size
    return Runs(np.arange(out_h) * (s * width * channels), out_w, t * channels)


@lru_cache(maxsize=256)
def input_grad_tables(geometry: Conv2dGeometry, channels: int, outputs: int) -> list[tuple[Frame, Tables]]:
    """The frame of the gradients g, and for each pair of remainders where the terms of each input pixel lie in it."""
    (_, width), (out_h, out_w), (s, t) = geometry.input_size, geometry.output_size, geometry.stride
    rows, top, bottom = _lines(geometry, 0)
    columns, left, right = _lines(geometry, 1)
    frame = Frame(top + out_h + bottom, left + out_w + right, top, left)
    every = []
    for row, row_count, u, i in rows:
        for column, column_count, v, j in columns:
            m, n = np.arange(row_count)[:, None], np.arange(column_count)               # (M, 1), (N,)
            windows = (i[:, None] + top) * frame.width + j + left                       # (U, V), for pixel 0, 0
            every.append((frame, Tables(
                pixels=whole_tiles((m * frame.width + n) * outputs),
                terms=_joined(windows * outputs, outputs // geometry.groups),
                outputs=whole_tiles(((row + m * s) * width + column + n * t) * channels),
                taps=(u[:, None] * geometry.kernel_size[1] + v).ravel(),
            )))
    return every


def _lines(geometry: Conv2dGeometry, axis: int) -> tuple[list[tuple[int, int, np.ndarray, np.ndarray]], int, int]:
    """The rows (or columns) of an image by the remainder that they leave, and the windows that they were seen by.

    For each remainder: the first row, how many rows s apart follow it, the taps u that fall on them, and which window i
    it is whose tap u falls on the first row. Last, how many windows are missing before the first and after the last.
    """
    size, windows, kernel = geometry.input_size[axis], geometry.output_size[axis], geometry.kernel_size[axis]
    s, d, start = geometry.stride[axis], geometry.dilation[axis], geometry.padding[axis][0]
    lines, before, after = [], 0, 0
    for remainder in range(s):
        first = (remainder - start) % s
        count = len(range(first, size, s))
        u = np.array([u for u in range(kernel) if u * d % s == remainder], np.int64)
        i = (first + start - u * d) // s
        if count:
            lines.append((first, count, u, i))
        if count and len(u):
            before, after = max(before, -int(i.min())), max(after, int(i.max()) + count - windows)
    return lines, before, after


def _joined(starts: np.ndarray, length: int) -> Runs:
    """The runs of `length` numbers side by side that begin at `starts` (U, V); one for each U if they adjoin."""
    if starts.shape[1] and (np.diff(starts) == length).all():
        return Runs(np.ascontiguousarray(starts[:, 0]), length * starts.shape[1], 1)
    return Runs(starts.ravel(), length, 1)


def all_of(runs: Runs) -> np.ndarray:
    """All addresses of the runs, one by one."""
    return (runs.starts[:, None] + np.arange(runs.length) * runs.step).ravel()


def whole_tiles(addresses: np.ndarray) -> np.ndarray:
    """The addresses in a row, the last one repeated until there are enough for whole tiles."""
    addresses = addresses.ravel()
    return np.pad(addresses, (0, -len(addresses) % ROWS), mode="edge")
