"""Every compiled kernel once, on a few numbers: so that compiling is over before the first lesson begins.

    python -m minidl warmup

What is compiled is kept (see compiling.py), so a second time there is nothing to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from minidl.kernels import compiling, fused_simd, passes, pooling, simd
from minidl.kernels.fused import Stages
from minidl.kernels.geometry import Conv2dGeometry, Pool2dGeometry


def _convolutions() -> None:
    """All shapes of tiles: for few channels, many, and from many to one; and 3×3 windows side by side."""
    for channels, outputs, kernel in ((1, 1, 2), (16, 16, 2), (64, 64, 2), (64, 1, 2), (64, 64, 3)):
        x, w = _images(channels), _numbers(outputs, channels, kernel, kernel)
        geometry = Conv2dGeometry.of(x.shape, w.shape)
        y = simd.conv2d(x, w, geometry, _numbers(outputs))
        simd.conv2d_input_grad(y, w, geometry)
        simd.conv2d_weight_grad(x, y, geometry)


def _poolings() -> None:
    """Windows side by side, and windows that overlap."""
    x = _images(2)
    for stride in (3, 1):
        geometry = Pool2dGeometry.of(x.shape, 3, stride)
        y, indices = pooling.max_pool2d(x, geometry)
        pooling.max_pool2d_input_grad(y, indices, geometry)
        pooling.avg_pool2d_input_grad(pooling.avg_pool2d(x, geometry), geometry)
    pooling.repeat2d_input_grad(pooling.repeat2d(x, (2, 2)), (2, 2))


def _fused() -> None:
    """One compiled function knows all stages; there is one for each kind of convolution."""
    for channels, kernel in ((1, 2), (16, 2), (64, 2), (64, 3)):
        x, w = _images(channels), _numbers(channels, channels, kernel, kernel)
        geometry, stages = Conv2dGeometry.of(x.shape, w.shape), Stages(relu=True)
        y, kept = fused_simd.forward(x, w, _numbers(channels), geometry, stages)
        fused_simd.input_grad(y, w, kept, geometry, stages)
        fused_simd.weight_grad(x, y, kept, geometry, stages)


def _activations() -> None:
    y = passes.relu(_numbers(8))
    passes.relu_grad(_numbers(8), y)


def _sums() -> None:
    passes.channel_sums(_numbers(4, 2))
    passes.scale_shift(_numbers(4, 2), _numbers(2), None)
    passes.scaled_difference(_numbers(8), _numbers(8), _numbers())
    passes.mean_squared_error(_numbers(8), _numbers(8))


def _optimizers() -> None:
    p, g, m, v = (_numbers(8) for _ in range(4))
    passes.sgd(p, g, m, lr=0.1, momentum=0.9, new=1.0, nesterov=False, decay=0.0, sign=1.0)
    passes.adam(p, g, m, v, lr=0.1, betas=(0.9, 0.999), eps=1e-8, t=1, decay=0.0, shrink=1.0, sign=1.0)


# A kernel that is not called by one of these is compiled in the middle of a lesson; a test looks for such.
WORK: dict[str, Callable[[], None]] = {
    "convolution": _convolutions, "pooling": _poolings, "fused": _fused, "activations": _activations, "sums": _sums,
    "optimizers": _optimizers,
}


def warmup() -> Iterator[tuple[str, list[str], float]]:
    """Do the work, and yield for each kind of it: its name, the functions that had to be compiled, and seconds."""
    for name, work in WORK.items():
        before, began = len(compiling.names()), time.perf_counter()
        work()
        yield name, compiling.names()[before:], time.perf_counter() - began


def _images(channels: int) -> np.ndarray:
    """(2, C, 6, 6), channels-last in memory."""
    return _numbers(2, 6, 6, channels).transpose(0, 3, 1, 2)


def _numbers(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)
