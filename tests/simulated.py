"""The kernels for a GPU, run in the simulator: `python -m tests.simulated ORDER [FILE OLD NEW]`, in a process of its own.

Prints a line of JSON with "results", {case: [worst error in units of what rounding explains, digest of the bits]} or
{case: "what was raised"}, and which kernels ran how often. FILE OLD NEW: first replace OLD by NEW in minidl/kernels/cuda/FILE, to see whether these cases would notice.

Every case runs on small, odd sizes, into results that are nan before, and is compared with `reference` in float64.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from unittest import mock

os.environ["NUMBA_ENABLE_CUDASIM"] = "1"                # before anything loads numba.cuda

import numpy as np
from numba import float32, float64

import minidl
from minidl import nn, optim
from minidl.debug import simulator
from minidl.kernels import reference, threads
from minidl.kernels.geometry import Conv2dGeometry, Pool2dGeometry
from tests.helpers import changed_module

CONVOLUTIONS = {
    "plain": ((2, 2, 5, 6), (3, 2, 3, 3), {}),
    "padded, even kernel": ((2, 3, 5, 4), (5, 3, 2, 2), {"padding": (1, 2)}),
    "stride, dilation": ((2, 2, 7, 6), (5, 2, 3, 2), {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}),
    "stride beyond the kernel": ((1, 2, 9, 7), (4, 2, 2, 2), {"stride": (3, 2)}),
    "groups": ((2, 4, 5, 5), (8, 2, 3, 3), {"padding": 1, "groups": 2}),
    "a channel each": ((2, 3, 5, 6), (6, 1, 3, 3), {"padding": 1, "groups": 3}),
    "one by one": ((3, 9, 3, 5), (4, 9, 1, 1), {}),
    "more rows than a tile": ((1, 1, 5, 5), (67, 1, 3, 3), {"padding": "same"}),
    "no images": ((0, 2, 5, 5), (4, 2, 3, 3), {}),
    "more pixels than a tile": ((3, 1, 11, 9), (4, 1, 2, 3), {}),
}
WAYS = ("as chosen", "naive", "16 × 256", "32 × 128", "64 × 64")
POOLINGS = {
    "side by side": ((2, 3, 6, 4), 2, {}),
    "overlapping": ((2, 2, 7, 5), 3, {"stride": 2, "padding": 1}),
    "a row": ((1, 2, 5, 7), (1, 3), {"stride": (2, 1), "padding": (0, 1), "dilation": (1, 2)}),
    "over the end": ((2, 1, 5, 6), 2, {"stride": 3, "ceil_mode": True}),
    "padding not counted": ((1, 2, 5, 5), 3, {"stride": 2, "padding": 1, "count_include_pad": False}),
}


def poisoned(shape, dtype=float, **_):
    return simulator._poisoned(shape, dtype)


def error(got, expected, scale) -> float:
    """The worst error as a multiple of the rounding of sums of that scale (the same sum over absolute values)."""
    assert got.shape == expected.shape, f"shape {got.shape}, expected {expected.shape}"
    unit = 8 * np.finfo(got.dtype).eps * (scale + np.finfo(got.dtype).tiny)
    worst = float(np.max(np.abs(got - expected) / unit, initial=0))
    return worst if np.isfinite(worst) else float("inf")


@contextmanager
def forced(cuda, tiled, way):
    """Let `cuda` go this way, wherever it would go by itself."""
    if way == "as chosen":
        yield
        return
    tiles = [tile for tile in tiled.TILES if f"{tile[0]} × {tile[1]}" == way]
    # BLOCKS: so few that a block gets several images, or lines of them; as chosen it gets one of each, or less
    with mock.patch.multiple(cuda, FEW=10**9 if way == "naive" else 0, BLOCKS=2), mock.patch.object(
            tiled, "TILES", tuple(tiles) or tiled.TILES):
        yield


def convolutions(cuda, tiled):
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for name, (x_shape, w_shape, settings) in CONVOLUTIONS.items():
            geometry = Conv2dGeometry.of(x_shape, w_shape, **settings)
            x, w, b = (rng.normal(size=s).astype(dtype) for s in (x_shape, w_shape, w_shape[0]))
            g = rng.normal(size=(len(x), len(w), *geometry.output_size)).astype(dtype)
            for way in WAYS if dtype is np.float32 else WAYS[:2]:
                for function, arrays in (("conv2d", (x, w, geometry, b)), ("conv2d_input_grad", (g, w, geometry)),
                                         ("conv2d_weight_grad", (x, g, geometry))):
                    wide = [a.astype(float) if isinstance(a, np.ndarray) else a for a in arrays]
                    exact = getattr(reference, function)(*wide)
                    scale = getattr(reference, function)(*[np.abs(a) if isinstance(a, np.ndarray) else a for a in wide])
                    with forced(cuda, tiled, way):
                        yield f"{function}, {name}, {way}, {np.dtype(dtype)}", getattr(cuda, function), arrays, exact, scale


def poolings(cuda):
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.float64):
        for name, (shape, kernel, settings) in POOLINGS.items():
            window = Pool2dGeometry.of(shape, kernel, **settings)
            x = rng.integers(-3, 4, shape).astype(dtype)                        # with equal numbers
            g = rng.normal(size=(*shape[:2], *window.output_size)).astype(dtype)
            largest, indices = reference.max_pool2d(x, window)
            what = f"{name}, {np.dtype(dtype)}"
            yield f"max_pool2d, {what}", lambda *a: cuda.max_pool2d(*a)[0], (x, window), largest, np.abs(largest)
            yield f"max_pool2d indices, {what}", lambda *a: cuda.max_pool2d(*a)[1].astype(float), (x, window), indices, indices
            for function, arrays in (("max_pool2d_input_grad", (g, indices, window)), ("avg_pool2d", (x, window)),
                                     ("avg_pool2d_input_grad", (g, window))):
                wide = [a.astype(float) if getattr(a, "dtype", None) == dtype else a for a in arrays]
                scale = [np.abs(a) if getattr(a, "dtype", None) == np.float64 else a for a in wide]
                yield (f"{function}, {what}", getattr(cuda, function), arrays, getattr(reference, function)(*wide),
                       getattr(reference, function)(*scale))
        x, g = rng.normal(size=(2, 3, 3, 4)).astype(dtype), rng.normal(size=(2, 3, 6, 12)).astype(dtype)
        for function, a in (("repeat2d", x), ("repeat2d_input_grad", g)):
            exact, scale = (getattr(reference, function)(v.astype(float), (2, 3)) for v in (a, np.abs(a)))
            yield f"{function}, {np.dtype(dtype)}", getattr(cuda, function), (a, (2, 3)), exact, scale
    x = np.array([[[[1, np.nan, 3], [2, 5, np.nan], [0, 0, 0]]]], np.float32)
    window = Pool2dGeometry.of(x.shape, 2, 1)
    yield ("max_pool2d indices, nan", lambda *a: cuda.max_pool2d(*a)[1].astype(float), (x, window),
           reference.max_pool2d(x, window)[1], np.ones((1, 1, 2, 2)))


def steps(cuda):
    """A step of the optimizer by the kernel and by the formula, from the same numbers."""
    rng = np.random.default_rng(2)
    for dtype in (np.float32, np.float64):
        for name, make in {"adam": lambda p: optim.Adam(p, 0.1, weight_decay=0.1), "adamw": lambda p: optim.AdamW(p, 0.1, maximize=True),
                           "sgd": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1)}.items():
            start, gradients = rng.normal(size=300).astype(dtype), rng.normal(size=(3, 300)).astype(dtype)

            def run(device, start=start, gradients=gradients, make=make):
                p = minidl.tensor(start, device=device).requires_grad_()
                optimizer = make([p])
                for g in gradients:
                    p.grad = minidl.tensor(g, device=device)
                    optimizer.step()
                return p.detach().cpu().numpy()

            yield f"{name}, {np.dtype(dtype)}", lambda run=run: run("fake"), (), run("cpu"), np.ones(300)


def training_step():
    """Two images through a small network, and a step of Adam: on the CPU with `reference`, and here."""
    rng = np.random.default_rng(3)
    images, labels = rng.normal(size=(2, 1, 8, 8)), np.array([1, 2])

    def run(device, kernel_set):
        minidl.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(),
                              nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6, 3)).double().to(device)
        optimizer = optim.Adam(model.parameters(), 0.01)
        with minidl.use_kernels(kernel_set):
            loss = nn.CrossEntropyLoss()(model(minidl.tensor(images).to(device)), minidl.tensor(labels).to(device))
            loss.backward()
            optimizer.step()
        numbers = [loss.detach(), *(p.grad for p in model.parameters()), *(p.detach() for p in model.parameters())]
        return np.concatenate([n.cpu().numpy().ravel() for n in numbers])

    expected = run("cpu", "reference")
    yield "training step", lambda: run("fake", "cuda"), (), expected, np.ones_like(expected)


def is_right(result) -> bool:
    return not isinstance(result, str) and result[0] <= 1


def recorded(launch, cuda, signatures: set) -> Callable[..., None]:
    """`launch`, which also notes what each kernel is launched with: (name, way, type of numbers, types of arguments)."""
    from numba import typeof

    ways = {id(getattr(cuda.tiled.kernels(np.dtype(dtype), *tile), name)): f"{tile[0]} × {tile[1]}"
            for dtype in (np.float32, np.float64) for tile in cuda.tiled.TILES for name in cuda.tiled.Kernels._fields}

    def noting(kernel, blocks, threads, *arguments):
        types = [typeof(getattr(argument, "inner", argument)) for argument in arguments]
        number = next(str(kind.dtype) for kind in types if getattr(kind, "dtype", None) in (float32, float64))
        is_naive = kernel in (cuda.naive.conv2d, cuda.naive.conv2d_input_grad, cuda.naive.conv2d_weight_grad)
        signatures.add((kernel.__name__, ways.get(id(kernel), "naive" if is_naive else ""), number, ", ".join(map(str, types))))
        launch(kernel, blocks, threads, *arguments)

    return noting


def main(order: str, *change: str) -> None:
    simulator.install(int(order) if order.isdigit() else order)
    from minidl.kernels import cuda
    from minidl.kernels.cuda import launching

    if change:
        file, old, new = change
        setattr(cuda, file.removesuffix(".py"), changed_module(f"kernels/cuda/{file}", old, new))

    results, signatures = {}, set()
    with minidl.use_kernels("cuda"), mock.patch.object(cuda, "launch", recorded(cuda.launch, cuda, signatures)):
        for name, function, arrays, exact, scale in itertools.chain(
                training_step(), steps(cuda), poolings(cuda), convolutions(cuda, cuda.tiled)):
            try:
                with mock.patch.object(np, "empty", poisoned):
                    got = np.ascontiguousarray(function(*arrays))
                results[name] = [error(got, exact, scale), hashlib.sha256(got.tobytes()).hexdigest()[:16]]
            except Exception as problem:
                results[name] = f"{type(problem).__name__}: {problem}"
            if change and not is_right(results[name]):
                break                                           # noticed
    print(json.dumps({"results": results, "ran": dict(threads.ran), "launches": dict(launching.launches),
                      "signatures": sorted(signatures)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
