"""How long it takes: launches, training steps of labs.speed, products of matrices, convolutions and poolings.

Each call is measured with CUDA's events, on the stream that all of it runs on. `ms`: one call after the other, as a
training loop does; if Python is slower than the GPU, this is Python's time. `device_ms`: the GPU's time alone; it first
spins until the calls stand in its queue. `host_ms`: the time until a call returns, which waits for nothing.

PyTorch takes turns with minidl, in the same process, on the same numbers. Medians of all rounds. For a training step
the report has the GPU's time in each kernel of minidl's too, from one step more.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from statistics import median
from typing import Any
from unittest import mock

import numpy as np

import minidl
from minidl.gpucheck.kernels import all_kernels, plain_products
from minidl.gpucheck.ops import host
from minidl.gpucheck.session import Session, from_checkout
from minidl.kernels import cuda as kernels
from minidl.kernels import use_kernels
from minidl.kernels.cuda.launching import launch, launches
from minidl.kernels.geometry import Conv2dGeometry, Pool2dGeometry

Calls = dict[str, Callable[[], Any]]                            # engine -> what is timed
Item = tuple[str, Callable[[], Calls], int]                     # what it is, what makes the calls, how many in a round
ROUNDS, LAUNCHES = 7, 1000
STEPS, REPEATS = 5, 10                                          # in a round: all must have room in the GPU's queue
AGREE = 1e-8                # by how much training in float64 may differ; 1e-12 between kernel sets of the CPU
WORKLOADS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {       # for a rehearsal: an image, sizes of the model
    "W1": ((1, 8, 8), (8, 2, 8)), "W2": ((16,), (16, 8)), "W3": ((1, 4, 4), ()), "W4": ((3, 8, 8), (8, 2, 8))}
PRODUCTS = [(1024, 784, 256), (64, 18432, 512), (4096, 4096, 4096)]
CONVOLUTIONS = [(64, 1, 28, 32), (64, 32, 14, 64), (64, 3, 48, 32), (64, 32, 48, 64), (64, 64, 24, 128),
                (1024, 16, 14, 8), (32, 64, 56, 64)]            # images, channels, size, outputs; 3×3, padding 1
POOLINGS = [(64, 32, 28, 32), (64, 64, 48, 64)]                 # the same; 2×2
# kind of layer -> minidl's call (x, w, g, indices, geometry) and PyTorch's (the module, x, w, g, indices)
LAYERS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "convolution": (lambda x, w, g, i, geometry: kernels.conv2d(x, w, geometry),
                    lambda t, x, w, g, i: t.nn.functional.conv2d(x, w, padding=1)),
    "convolution, dx": (lambda x, w, g, i, geometry: kernels.conv2d_input_grad(g, w, geometry),
                        lambda t, x, w, g, i: t.nn.grad.conv2d_input(x.shape, w, g, padding=1)),
    "convolution, dw": (lambda x, w, g, i, geometry: kernels.conv2d_weight_grad(x, g, geometry),
                        lambda t, x, w, g, i: t.nn.grad.conv2d_weight(x, w.shape, g, padding=1)),
    "max pooling": (lambda x, w, g, i, geometry: kernels.max_pool2d(x, geometry),
                    lambda t, x, w, g, i: t.nn.functional.max_pool2d(x, 2, return_indices=True)),
    "max pooling, dx": (lambda x, w, g, i, geometry: kernels.max_pool2d_input_grad(g, i, geometry),
                        lambda t, x, w, g, i: t.ops.aten.max_pool2d_with_indices_backward(
                            g, x, (2, 2), (2, 2), (0, 0), (1, 1), False, i)),
    "mean pooling": (lambda x, w, g, i, geometry: kernels.avg_pool2d(x, geometry),
                     lambda t, x, w, g, i: t.nn.functional.avg_pool2d(x, 2)),
    "mean pooling, dx": (lambda x, w, g, i, geometry: kernels.avg_pool2d_input_grad(g, geometry),
                         lambda t, x, w, g, i: t.ops.aten.avg_pool2d_backward(
                             g, x, (2, 2), (2, 2), (0, 0), False, True, None))}
# the GPU does nothing for so many nanoseconds, while Python fills its queue
SPIN = """extern "C" __global__ void spin(long long ns) {
    long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do { asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); } while (now - start < ns);
}"""


class Clock:
    """Times calls on the session's device: with CUDA's events; in a rehearsal with the host's clock."""

    def __init__(self, session: Session) -> None:
        self.cupy: Any = None if session.rehearsal else session.backend.xp
        self.spin: Any = self.cupy and self.cupy.RawKernel(SPIN, "spin")

    def time(self, call: Callable[[], Any], count: int) -> dict[str, float]:
        """Milliseconds of one of `count` calls: "ms", "device_ms" and "host_ms"."""
        ms, host_ms = self.run(call, count)
        spin = int(1e6 * (1 + 1.5 * host_ms * count))
        return {"ms": ms, "device_ms": self.run(call, count, spin)[0] if self.cupy else ms, "host_ms": host_ms}

    def run(self, call: Callable[[], Any], count: int, spin: int = 0) -> tuple[float, float]:
        """Milliseconds of a call between two events, and on the host. spin: nanoseconds of the GPU before the first."""
        if self.cupy is not None:
            start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
            self.cupy.cuda.runtime.deviceSynchronize()
            if spin:
                self.spin((1,), (1,), (np.int64(spin),))
            start.record()
        began = time.perf_counter()
        for _ in range(count):
            call()
        host = 1000 * (time.perf_counter() - began) / count
        if self.cupy is None:
            return host, host
        end.record()
        end.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, end) / count, host

    def kernels(self, call: Callable[[], Any], host_ms: float) -> dict[str, dict[str, float]]:
        """Each kernel of minidl's in one call, the slowest first: the GPU's milliseconds in it, how often it ran."""
        names, marks = all_kernels(), list[tuple[str, Any, Any]]()

        def marked_launch(kernel: Any, *arguments: Any) -> None:
            before = self.mark()
            launch(kernel, *arguments)
            marks.append((names.get(id(kernel), kernel.__name__), before, self.mark()))

        with mock.patch.object(kernels, "launch", marked_launch):
            if self.cupy is not None:
                self.spin((1,), (1,), (np.int64(1e6 * (1 + 3 * host_ms)),))     # marks take time on the host
            call()
        if self.cupy is not None:
            self.cupy.cuda.runtime.deviceSynchronize()
        found: dict[str, dict[str, float]] = {name: {"ms": 0.0, "launches": 0} for name, _, _ in marks}
        for name, before, after in marks:
            found[name]["ms"] += self.cupy.cuda.get_elapsed_time(before, after) if self.cupy else 1e3 * (after - before)
            found[name]["launches"] += 1
        return dict(sorted(found.items(), key=lambda item: -item[1]["ms"]))

    def mark(self) -> Any:
        """A point in time in the GPU's queue; in a rehearsal on the host."""
        if self.cupy is None:
            return time.perf_counter()
        event = self.cupy.cuda.Event()
        event.record()
        return event


def overhead(session: Session, entry: dict[str, Any]) -> str:
    """The stage: how long Python takes to start a kernel that does nothing, and to do the smallest of ops."""
    def nothing(x: Any) -> None:
        return

    kernel = importlib.import_module("minidl.numba_cuda").cuda.jit(nothing)
    clock, x, t = Clock(session), session.backend.from_host(np.zeros(1, "f4")), minidl.zeros(1, device=session.device)
    calls: Calls = {"launch of a kernel": lambda: launch(kernel, 1, 32, x), "x + x, arrays": lambda: x + x,
                    "x + x, tensors": lambda: t + t}
    entry["host_us"] = {name: 1000 * median([clock.run(call, 10 if session.rehearsal else LAUNCHES)[1]
                                             for _ in range(4)][1:])                # the first one compiles
                        for name, call in calls.items()}
    return "done"


def timing(session: Session, entry: dict[str, Any]) -> str:
    """The stage: everything with TF32 off, then with TF32 on."""
    clock, modes = Clock(session), entry.setdefault("modes", {})
    for on in (False, True):
        if on and (session.rehearsal or minidl.cuda.get_device_capability() < (8, 0)):
            break                                               # such cards have none
        rows = modes[f"TF32 {'on' if on else 'off'}"] = {}
        try:
            set_tf32(session, on)
            for name, calls, count in chain(_steps(session, on), _products(session, on), _layers(session)):
                if session.left() < 0:
                    return "partly done (budget)"
                try:
                    rows[name] = compare(session, clock, made := calls(), 1 if session.rehearsal else count)
                    if name.endswith("training step"):
                        ours = rows[name]["minidl"]
                        ours["kernels"] = clock.kernels(made["minidl"], ours["host_ms"])
                except Exception as error:
                    session.wrong(f"timing of {name}", error)
                session.save()
        finally:
            set_tf32(session, False)
    return "done" if from_checkout("labs._speed_worker") else "partly done (training steps are in labs, not here)"


def set_tf32(session: Session, on: bool) -> None:
    """Whether products of float32 may drop 13 of 23 binary digits: CuPy's and PyTorch's. minidl's kernels never do."""
    if not session.rehearsal:
        cupys = importlib.import_module("cupy._core._routines_linalg")
        cupys.set_compute_type(np.dtype("f4"), cupys.COMPUTE_TYPE_TF32 if on else cupys.COMPUTE_TYPE_DEFAULT)
    if session.torch is not None:
        backends = session.torch.backends
        backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = on
        backends.cudnn.benchmark = True                         # let it look for its best algorithm


def compare(session: Session, clock: Clock, calls: Calls, count: int) -> dict[str, dict[str, Any]]:
    """Engine -> the medians of its times, and how many kernels of minidl a call starts. Engines take turns."""
    found: dict[str, dict[str, Any]] = {}
    for engine, call in calls.items():
        before = launches.total()
        call()                                                  # compiles, and looks for the best algorithm
        found[engine] = {"launches": launches.total() - before}
    times = [{engine: clock.time(call, count) for engine, call in calls.items()}
             for _ in range(1 if session.rehearsal else ROUNDS)]
    return {engine: found[engine] | {kind: median(of[engine][kind] for of in times) for kind in times[0][engine]}
            for engine in calls}


# -- what is timed -----------------------------------------------------------------------------------------------------

def _steps(session: Session, on: bool) -> Iterator[Item]:
    worker = from_checkout("labs._speed_worker")
    for name, (shape, sizes) in WORKLOADS.items() if worker else ():
        work = worker.WORKLOADS[name]
        work, sizes = (replace(work, shape=shape, batch=2), sizes) if session.rehearsal else (work, ())
        yield f"{name}, training step", partial(_step_calls, session, worker, work, sizes, name * (not on)), STEPS


def _step_calls(session: Session, worker: Any, work: Any, sizes: tuple[int, ...], name: str) -> Calls:
    if name:
        train = partial(_trained, worker, replace(work, batch=min(work.batch, 16)), session.seed, sizes)
        with use_kernels("im2col"), plain_products():
            on_cpu = train(None)
        off = max(float(np.linalg.norm(a - b) / (np.linalg.norm(b) + AGREE))
                  for a, b in zip(train(session.device), on_cpu, strict=True))
        if not off <= AGREE:
            session.wrong(f"training of {name}", f"a gradient, or what it did to the weights, is off by {off:.3g}")

    def step(run: Any) -> None:
        x, y = run.batches[run.count % len(run.batches)]
        run.count += 1
        run.optimizer.zero_grad(set_to_none=True)
        run.loss_of(run.model(x), y).backward()                 # the loss stays where it is: to read it is to wait
        run.optimizer.step()

    places = {"minidl": session.device} | ({"torch": session.torch_device} if session.torch is not None else {})
    return {engine: partial(step, worker.Run(engine, work, session.seed, *sizes, device=place))
            for engine, place in places.items()}


def _trained(worker: Any, work: Any, seed: int, sizes: tuple[int, ...], device: str | None) -> list[np.ndarray]:
    """Three steps in float64: the gradients of the first, and how far they have moved the weights.

    Not the losses, for Adam takes gradients of a wrong size for right ones. Not in float32, where rounding turns a few
    numbers at ReLU's kink, and Adam makes much of little.
    """
    run = worker.Run("minidl", work, seed, *sizes, device=device)
    run.model.double()
    run.batches = [tuple(x.double() if x.dtype == np.float32 else x for x in batch) for batch in run.batches]
    weights = list(run.model.parameters())
    before = [host(p).copy() for p in weights]
    run.steps(1)
    gradients = [host(p.grad).copy() for p in weights]
    run.steps(2)
    return [*gradients, *(host(p) - first for p, first in zip(weights, before, strict=True))]


def _products(session: Session, on: bool) -> Iterator[Item]:
    for n, k, m in [(4, 8, 3)] if session.rehearsal else PRODUCTS:
        yield f"matmul {n}×{k} by {k}×{m}", partial(_product_calls, session, n, k, m, on), REPEATS


def _product_calls(session: Session, n: int, k: int, m: int, on: bool) -> Calls:
    (a, their_a), (b, their_b) = _both(session, n, k), _both(session, k, m)
    x, y = (minidl.tensor(session.backend.to_host(array), device=session.device) for array in (a, b))
    exact, terms = (f(a.astype("f8")) @ f(b.astype("f8")) for f in (lambda array: array, abs))
    error = float((abs((x @ y).array - exact) / terms).max()) / float(np.finfo("f4").eps)
    if not on and not error <= 8:                               # as in kernels.py
        session.wrong(f"matmul {n}×{k} by {k}×{m}", f"off by {error:.3g} eps of the sum of absolute terms, TF32 is off")
    return _calls(session, lambda: x @ y, lambda: their_a @ their_b)


def _layers(session: Session) -> Iterator[Item]:
    for kind in LAYERS:
        sizes = CONVOLUTIONS if kind.startswith("conv") else POOLINGS
        for size in [(2, 3, 6, 3)] if session.rehearsal else sizes:
            yield (f"{kind}, {'×'.join(map(str, (*size[:3], size[2])))} to {size[3]}",
                   partial(_layer_calls, session, kind, *size), REPEATS)


def _layer_calls(session: Session, kind: str, n: int, c: int, size: int, o: int) -> Calls:
    pooling, (ours, theirs), t = Pool2dGeometry.of((n, c, size, size), 2), LAYERS[kind], session.torch
    convolution = Conv2dGeometry((size, size), (3, 3), padding=((1, 1), (1, 1)))
    geometry = convolution if kind.startswith("conv") else pooling
    (x, tx), (w, tw) = _both(session, n, c, size, size), _both(session, o, c, 3, 3)
    g, tg = _both(session, n, o, *geometry.output_size)
    i, ti = kernels.max_pool2d(x, pooling)[1], t and t.nn.functional.max_pool2d(tx, 2, return_indices=True)[1]
    return _calls(session, lambda: ours(x, w, g, i, geometry), lambda: theirs(t, tx, tw, tg, ti))


def _both(session: Session, *shape: int) -> tuple[Any, Any]:
    """The same random numbers for minidl, and for PyTorch if it is there."""
    x, torch = session.rng.normal(size=shape).astype(np.float32), session.torch
    return session.backend.from_host(x), torch.from_numpy(x).to(session.torch_device) if torch is not None else None


def _calls(session: Session, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Calls:
    return {"minidl": ours} | ({"torch": theirs} if session.torch is not None else {})
