"""Every kernel against a float64 result of the CPU, on fresh random numbers.

The kernel set's functions are called as a model calls them, and once more for each way of computing a convolution:
`naive`, and each tile of `tiled`. What `xp.empty` gives them is full of nan, in the middle of more such memory: what a
kernel leaves out stays nan, and what it writes beyond the end is seen. Two calls must give the same bits.

As in the tests of the other kernel sets, a sum may be off by 8 eps · (the sum of its terms' absolute values).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from minidl.backend import Array, Backend
from minidl.gpucheck.session import Session
from minidl.kernels import cuda, dense, im2col
from minidl.kernels.cuda import naive, optimizers, pooling, tiled
from minidl.kernels.cuda.launching import launch as really_launch
from minidl.kernels.geometry import Conv2dGeometry, Pool2dGeometry

DTYPES = (np.dtype("float32"), np.dtype("float64"))
GUARD, NO_INDEX = 64, -987_654_321                  # numbers before and after each result; poison for integers
# a way of computing -> FEW, from how many rows on the kernel set takes tiles, and TILES, which ones there are
WAYS: dict[str, tuple[int, Any]] = {"as chosen": (cuda.FEW, tiled.TILES), "naive": (1 << 30, tiled.TILES),
                                    **{f"tile {r}×{c}": (0, ((r, c),)) for r, c in tiled.TILES}}

# Of each list the first IN_A_REHEARSAL are rehearsed. Layers of labs.speed stand last, with fewer images if large.
IN_A_REHEARSAL = 2
ONE: dict[str, Any] = {"padding": ((1, 1), (1, 1))}
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [     # x, w, where the window goes
    ((2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2), "groups": 2}),
    ((3, 3, 5, 7), (7, 3, 1, 1), {}), ((1, 1, 1, 1), (1, 1, 1, 1), {}), ((2, 1, 9, 5), (3, 1, 4, 3), ONE),
    ((3, 6, 11, 13), (9, 2, 3, 3), {**ONE, "groups": 3}), ((2, 8, 6, 6), (8, 1, 3, 3), {**ONE, "groups": 8}),
    ((2, 7, 12, 10), (20, 7, 5, 3), {"stride": (3, 2), "padding": ((2, 1), (0, 3))}),
    ((2, 3, 13, 14), (33, 3, 3, 3), {"padding": ((3, 2), (1, 4)), "dilation": (3, 2)}),
    ((1, 70, 9, 9), (65, 70, 3, 3), ONE), ((5, 130, 3, 3), (129, 130, 1, 1), {"stride": (2, 2)}),
    ((2, 16, 8, 9), (32, 16, 2, 2), {"padding": ((0, 1), (0, 1))}), ((600, 4, 5, 5), (16, 4, 3, 3), ONE),
    *(((n, c, size, size), (o, c, 3, 3), ONE) for n, c, size, o in (
        (64, 1, 28, 32), (64, 32, 14, 64), (64, 16, 14, 8), (64, 8, 7, 4), (64, 4, 7, 8), (64, 8, 14, 16),
        (64, 16, 28, 1), (8, 3, 48, 32), (8, 32, 48, 64), (8, 64, 24, 128)))]
POOLINGS: list[tuple[tuple[int, ...], Any, dict[str, Any]]] = [                     # x, window, where it goes
    ((2, 3, 7, 6), (3, 2), {"stride": (2, 1), "padding": 1, "ceil_mode": True, "count_include_pad": False}),
    ((1, 2, 9, 8), 2, {"stride": 1, "dilation": (2, 3)}), ((2, 5, 11, 13), 3, {"stride": 2, "padding": 1}),
    ((3, 1, 5, 5), 2, {"ceil_mode": True}), ((1, 1, 3, 3), 1, {}), ((64, 32, 28, 28), 2, {}),
    ((64, 64, 14, 14), 2, {}), ((16, 64, 48, 48), 2, {}), ((16, 128, 24, 24), 2, {})]
REPEATS = [((2, 3, 4, 5), (2, 3)), ((1, 1, 1, 1), (3, 1)), ((64, 8, 7, 7), (2, 2)), ((64, 16, 14, 14), (2, 2))]
PARAMETERS = [(77,), (3, 5, 7), (64, 32, 3, 3), (1_000_003,)]


class Case(NamedTuple):
    """A call of one function of the kernel set."""

    function: str
    about: object                                   # sizes and settings
    arrays: tuple[np.ndarray, ...]                  # float64, or indices
    call: Callable[..., Any]                        # (a kernel set, *arrays) -> a result, or several
    measure: str = "terms"                          # of errors: absolute "terms"; "one"; "none" may be


def run(session: Session, entry: dict[str, Any]) -> str:
    """The stage: all cases, in both number types and all ways, as far as time goes."""
    worst: dict[str, float] = entry.setdefault("worst", {})
    launched, entry["checks"] = set[str](), 0
    for case in cases(session):
        for dtype in DTYPES:
            arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in case.arrays]
            exact = expected(case, arrays)
            for way in WAYS if case.function.startswith("conv2d") else ("as chosen",):
                if session.left() < 0:
                    return "partly done (budget)"
                name = f"{case.function}, {way}, {dtype}"
                ratio, problems = check(session.backend, case, way, arrays, exact, launched)
                worst[name], entry["checks"] = max(worst.get(name, 0.0), ratio), entry["checks"] + 1
                if problems:
                    session.wrong(name, f"{[a.shape for a in arrays]}, {case.about}: {'; '.join(problems)}")
        entry["result"] = (f"{entry['checks']} checks, {len(session.mismatches)} wrong; the largest right error is "
                           f"{max(worst.values()):.2g} of what rounding explains")
    for name in sorted(set(all_kernels().values()) - launched):
        session.wrong(name, "no case launched this kernel")
    return "done"


def all_kernels() -> dict[int, str]:
    """id of a kernel -> its name; a tile's with the tile and the number type."""
    found = {id(kernel): f"{module.__name__.rpartition('.')[2]}.{name}"
             for module in (naive, tiled, pooling, optimizers)
             for name, kernel in vars(module).items() if isinstance(kernel, type(naive.conv2d))}
    return found | {id(kernel): f"tiled.{name} {tile} {dtype}" for dtype in DTYPES for tile in tiled.TILES
                    for name, kernel in tiled.kernels(dtype, *tile)._asdict().items()}


def check(backend: Backend, case: Case, way: str, arrays: list[np.ndarray], exact: list[tuple[np.ndarray, np.ndarray]],
          launched: set[str]) -> tuple[float, list[str]]:
    """The largest error that is no mistake, in units of what rounding explains; and in words what is wrong.

    launched: gets the names of the kernels that were started.
    """
    names, (few, tiles) = all_kernels(), WAYS[way]

    def launch(kernel: Any, *arguments: Any) -> None:
        launched.add(names.get(id(kernel), kernel.__name__))
        really_launch(kernel, *arguments)

    problems: list[str] = []
    try:
        with mock.patch.multiple(cuda, FEW=few, launch=launch), mock.patch.object(tiled, "TILES", tiles):
            results, again = (_compute(backend, case, arrays, problems) for _ in range(2))
    except Exception as error:                      # it does not compile, or does not start
        return 0.0, [f"{type(error).__name__}: {str(error)[:500]}"]
    if [a.tobytes() for a in results] != [a.tobytes() for a in again]:
        problems.append("the same call twice gave different bits")
    return max(_compare(a, *e, problems) for a, e in zip(results, exact, strict=True)), problems


def _compute(backend: Backend, case: Case, arrays: list[np.ndarray], problems: list[str]) -> list[np.ndarray]:
    """The results of a call; `problems` gets what it did that it may not do."""
    given = [backend.from_host(a.copy()) for a in arrays]
    with poisoned(backend) as memory:
        results = _several(case.call(cuda, *given))
    if not all(is_poison(backend.to_host(part)).all() for m in memory for part in (m[:GUARD], m[-GUARD:])):
        problems.append("it wrote beyond its result")
    if case.function not in vars(FORMULAS) and any(backend.to_host(a).tobytes() != b.tobytes()
                                                   for a, b in zip(given, arrays, strict=True)):
        problems.append("it wrote into its inputs")
    return [backend.to_host(a) for a in results]


def _compare(result: np.ndarray, exact: np.ndarray, scale: np.ndarray, problems: list[str]) -> float:
    """As `check`, for one result."""
    if result.shape != exact.shape:
        problems.append(f"got shape {result.shape}, expected {exact.shape}")
        return 0.0
    with np.errstate(all="ignore"):
        error = np.abs(result.astype(np.float64) - exact)
        bound = 8 * np.finfo(result.dtype).eps * scale if result.dtype.kind == "f" else np.zeros(exact.shape)
        right = (error <= bound) | (result == exact) | (np.isnan(result) & np.isnan(exact))
        ratio = np.where(right & (bound > 0) & np.isfinite(error), error / bound, 0)
    if not right.all():
        at = tuple(map(int, np.argwhere(~right)[0]))
        problems.append(f"{(~right).sum()} of {right.size} are wrong, {(is_poison(result) & ~right).sum()} of them not "
                        f"written; at {at} it is {result[at]:.9g}, expected {exact[at]:.9g}")
    return float(ratio.max(initial=0))


@contextmanager
def poisoned(backend: Backend) -> Iterator[list[Array]]:
    """What `xp.empty` gives is full of nan, or of a number that is no index, and lies amid more of it, in the list."""
    memory: list[Array] = []
    original = backend.xp.empty

    def empty(shape: Any, dtype: Any = np.float64, **others: Any) -> Array:
        if others:
            return original(shape, dtype=dtype, **others)
        shape = shape if isinstance(shape, tuple) else (shape,)
        size, kind = math.prod(shape), np.dtype(dtype)
        memory.append(backend.xp.full(size + 2 * GUARD, np.nan if kind.kind == "f" else NO_INDEX, kind))
        return memory[-1][GUARD:GUARD + size].reshape(shape)

    with mock.patch.object(backend.xp, "empty", empty):
        yield memory


def is_poison(array: np.ndarray) -> Any:
    """Where nobody has written."""
    return np.isnan(array) if array.dtype.kind == "f" else array == NO_INDEX


# -- the cases, and what they should give ------------------------------------------------------------------------------

def cases(session: Session) -> Iterator[Case]:
    """All of them; the small ones of each kind first."""
    rng, few = session.rng, IN_A_REHEARSAL if session.rehearsal else None
    for shape in PARAMETERS[:few]:
        yield from _steps(rng.normal(size=(3, *shape)), rng.uniform(0.1, 1, shape))
    for shape, factors in REPEATS[:few]:
        x, g = rng.normal(size=shape), rng.normal(size=(*shape[:2], shape[2] * factors[0], shape[3] * factors[1]))
        yield Case("repeat2d", factors, (x,), lambda k, x, f=factors: k.repeat2d(x, f))
        yield Case("repeat2d_input_grad", factors, (g,), lambda k, g, f=factors: k.repeat2d_input_grad(g, f))
    for shape, window, settings in POOLINGS[:few]:
        yield from _pooling(rng, rng.normal(size=shape), Pool2dGeometry.of(shape, window, **settings))
    for x_shape, w_shape, settings in CONVOLUTIONS[:few]:
        yield from _convolution(rng, rng.normal(size=x_shape), rng.normal(size=w_shape), settings)


def _convolution(rng: Any, x: np.ndarray, w: np.ndarray, settings: dict[str, Any]) -> Iterator[Case]:
    geometry = Conv2dGeometry((x.shape[2], x.shape[3]), (w.shape[2], w.shape[3]), **settings)
    b, g = rng.normal(size=len(w)), rng.normal(size=(len(x), len(w), *geometry.output_size))
    yield Case("conv2d", settings, (x, w, b), lambda k, x, w, b: k.conv2d(x, w, geometry, b))
    yield Case("conv2d", settings, (x, w), lambda k, x, w: k.conv2d(x, w, geometry))
    yield Case("conv2d_input_grad", settings, (g, w), lambda k, g, w: k.conv2d_input_grad(g, w, geometry))
    yield Case("conv2d_weight_grad", settings, (x, g), lambda k, x, g: k.conv2d_weight_grad(x, g, geometry))


def _pooling(rng: Any, x: np.ndarray, geometry: Pool2dGeometry) -> Iterator[Case]:
    equals = np.round(x)                                    # with equals, and numbers that are none
    equals[rng.random(x.shape) < 0.1] = -np.inf
    equals[rng.random(x.shape) < 0.02] = np.nan
    g, indices = rng.normal(size=(*x.shape[:2], *geometry.output_size)), im2col.max_pool2d(x, geometry)[1]
    for values in (x, equals):
        yield Case("max_pool2d", geometry, (values,), lambda k, x: k.max_pool2d(x, geometry), "none")
    yield Case("max_pool2d_input_grad", geometry, (g, indices), lambda k, g, i: k.max_pool2d_input_grad(g, i, geometry))
    yield Case("avg_pool2d", geometry, (x,), lambda k, x: k.avg_pool2d(x, geometry))
    yield Case("avg_pool2d_input_grad", geometry, (g,), lambda k, g: k.avg_pool2d_input_grad(g, geometry))


def _steps(numbers: np.ndarray, v: np.ndarray) -> Iterator[Case]:
    p, g, m = numbers
    for decay, shrink, sign, nesterov in ((0.0, 1.0, 1, False), (0.01, 0.99, -1, True)):
        settings: Any = 0.01, (0.9, 0.999), 1e-8, 3, decay, shrink, sign
        yield Case("adam", settings, (p, g, m, v),
                   lambda k, p, g, m, v, s=settings: (k.adam(p, g, m, v, *s), p, m, v)[1:], "one")
        settings = 0.1, 0.9, 0.7, nesterov, decay, sign
        yield Case("sgd", settings, (p, g, m), lambda k, p, g, v, s=settings: (k.sgd(p, g, v, *s), p, v)[1:], "one")


def _adam(p: Any, g: Any, m: Any, v: Any, lr: float, betas: Any, eps: float, t: int, decay: float, shrink: float,
          sign: float) -> None:
    p *= shrink
    gradient = sign * g + decay * p
    m[...] = betas[0] * m + (1 - betas[0]) * gradient
    v[...] = betas[1] * v + (1 - betas[1]) * gradient**2
    p -= lr * (m / (1 - betas[0]**t)) / (np.sqrt(v / (1 - betas[1]**t)) + eps)


def _sgd(p: Any, g: Any, v: Any, lr: float, momentum: float, new: float, nesterov: bool, decay: float,
         sign: float) -> None:
    gradient = sign * g + decay * p
    v[...] = momentum * v + new * gradient
    p -= lr * (momentum * v + gradient if nesterov else v)


FORMULAS = SimpleNamespace(adam=_adam, sgd=_sgd)            # these two work in place


def expected(case: Case, arrays: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each result: the exact one, in float64, and for each of its numbers what its error is measured by."""
    found = []
    with plain_products(), np.errstate(all="ignore"):
        for prepare in (np.copy, np.abs):
            exact = [prepare(a).astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
            found.append(_several(case.call(FORMULAS if case.function in vars(FORMULAS) else im2col, *exact)))
    return [(y, terms if case.measure == "terms" else 1 + np.abs(y) if case.measure == "one" else np.zeros(y.shape))
            for y, terms in zip(*found, strict=True)]


def _several(results: Any) -> Any:
    return results if isinstance(results, tuple) else (results,)


@contextmanager
def plain_products() -> Iterator[None]:
    """Products on the CPU are NumPy's own: minidl's need threadpoolctl, which may not be installed."""
    def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
        return a @ b if bias is None else a @ b + bias

    with mock.patch.object(dense, "matmul", matmul):
        yield
