"""One row an op: inputs, how to call it, what it should give, and wrong gradients that the checker must catch.

Everything in tests/test_ops.py is driven from this table: gradients of first and second order against finite
differences, forward against a plain definition, forward and gradients against PyTorch, the fake device against the CPU.
An op in minidl without a row fails the suite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import minidl
import minidl.nn.functional as F
from minidl import ops
from minidl.custom import FunctionCall
from minidl.kernels.fused import Stages
from minidl.kernels.geometry import Conv2dGeometry, Pool2dGeometry, Window2d
from minidl.ops.fused import FusedConv2d
from minidl.ops.index import Key

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    op: type                                                    # the op that this row is about
    inputs: Callable[[Rng], list[np.ndarray]]                   # float64 arrays are checked, integers are data
    run: Callable[..., minidl.Tensor]                           # on minidl tensors
    expected: Callable[..., Any]                                # on NumPy arrays: the definition, written out
    torch: Callable[..., Any] | None = None                     # called with the module torch and its tensors
    note: str = ""
    orders: tuple[int, ...] = (1, 2)                            # () for an op without gradient
    rtol: float = 1e-6
    atol: float = 1e-7
    wrong: dict[str, Callable[..., Any]] = field(default_factory=dict)     # backward method -> a wrong one
    on_fake: bool = True
    syncs: int = 0                                              # reads from the device that forward and backward need

    @property
    def name(self) -> str:
        return self.op.__name__ + (f" {self.note}" if self.note else "")


def normal(*shapes: tuple[int, ...]) -> Callable[[Rng], list[np.ndarray]]:
    return lambda rng: [rng.normal(size=shape) for shape in shapes]


def positive(*shapes: tuple[int, ...]) -> Callable[[Rng], list[np.ndarray]]:
    return lambda rng: [rng.uniform(0.5, 2, size=shape) for shape in shapes]


def distinct(*shapes: tuple[int, ...]) -> Callable[[Rng], list[np.ndarray]]:
    """No two elements closer than 0.1 and none near 0: the largest stays the largest when one moves by 1e-6."""
    return lambda rng: [(rng.permutation(math.prod(shape)) - math.prod(shape) / 2 + 0.25).reshape(shape) * 0.1
                        for shape in shapes]


def with_data(floats: Callable[[Rng], list[np.ndarray]], *data: Any) -> Callable[[Rng], list[np.ndarray]]:
    return lambda rng: [*floats(rng), *(np.array(d) for d in data)]


def by_reference(run: Callable[..., minidl.Tensor]) -> Callable[..., Any]:
    """The expected result of a convolution or pooling: the same call with the reference kernels."""
    def expected(*arrays: np.ndarray) -> np.ndarray:
        with minidl.use_kernels("reference"):
            return run(*map(minidl.tensor, arrays)).numpy()
    return expected


CONV = Conv2dGeometry.of((2, 4, 5, 6), (4, 2, 3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
POOL = Pool2dGeometry.of((2, 2, 5, 6), (3, 2), stride=(2, 1), padding=1)
DUPLICATES = [[0, 2, 2], [1, 1, 0]]
SLICES = Key((slice(1, None), 2))


def put(x: np.ndarray, key: Any, value: Any) -> np.ndarray:
    x = x.copy()
    x[key] = value
    return x


def added(shape: tuple[int, ...], key: Any, value: Any) -> np.ndarray:
    y = np.zeros(shape)
    np.add.at(y, key, value)
    return y


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(1, keepdims=True)


def max_cells(x: np.ndarray) -> np.ndarray:
    """Indices for MaxPool2dInputGrad that overlap: made by the reference kernels from distinct numbers."""
    from minidl.kernels import reference
    return reference.max_pool2d(x, POOL)[1]


def bits(rng: Rng) -> list[np.ndarray]:
    return [np.array([[True], [False]]), np.array([True, False])]


CELLS = Window2d((5, 4), (3, 2), (2, 1), ((1, 1), (0, 0)), (1, 2))


def windows(x: np.ndarray, window: Window2d) -> np.ndarray:
    """Unfold by its definition: column i·OW + j, row (c·KH + u)·KW + v holds the cell that tap (u, v) lies on."""
    (kh, kw), (rows, columns) = window.kernel_size, window.output_size
    y = np.zeros((*x.shape[:2], kh, kw, rows, columns))
    for i, j, u, v, row, column in window.taps():
        y[:, :, u, v, i, j] = x[:, :, row, column]
    return y.reshape(len(x), -1, rows * columns)


def unwindows(x: np.ndarray, window: Window2d, channels: int) -> np.ndarray:
    """Fold by its definition."""
    (kh, kw), (rows, columns) = window.kernel_size, window.output_size
    x, y = x.reshape(len(x), channels, kh, kw, rows, columns), np.zeros((len(x), channels, *window.input_size))
    for i, j, u, v, row, column in window.taps():
        y[:, :, row, column] += x[:, :, u, v, i, j]
    return y


FUSED = Conv2dGeometry.of((2, 2, 5, 4), (3, 2, 3, 2), padding=1)         # leaves 5×5, of which a pooling by 2 drops an edge
HALVED, OVERLAPPING = Pool2dGeometry.of((2, 3, 5, 5), 2), Pool2dGeometry.of((2, 3, 5, 5), 3, 2, 1, ceil_mode=True)


def fused(note: str, stages: Stages, after: Callable[..., Any], torch: Callable[..., Any], **settings: Any) -> Case:
    """A convolution and what follows it: `after` on the reference's result, `torch` on PyTorch's."""
    from minidl.kernels import reference
    return Case(FusedConv2d, normal((2, 2, 5, 4), (3, 2, 3, 2), (3,)), lambda x, w, b: FusedConv2d(FUSED, stages)(x, w, b),
                lambda x, w, b: after(reference, reference.conv2d(x, w, FUSED, b)),
                lambda t, x, w, b: torch(t.nn.functional, t.nn.functional.conv2d(x, w, b, padding=1)), note=note,
                orders=(1,), **settings)


class Squared(minidl.autograd.Function):
    """An op in PyTorch's style: factor · x²."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x * x * factor

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * ctx.factor * x * g, None


CASES = [
    # -- elementwise --
    Case(ops.Add, normal((3, 1, 2), (4, 1)), lambda a, b: a + b, lambda a, b: a + b, lambda t, a, b: a + b,
         wrong={"backward": lambda self, g: (g, -g)}),
    Case(ops.Sub, normal((3, 1, 2), (4, 1)), lambda a, b: a - b, lambda a, b: a - b, lambda t, a, b: a - b,
         wrong={"backward_b": lambda self, g: g}),
    Case(ops.Mul, normal((3, 1, 2), (4, 1)), lambda a, b: a * b, lambda a, b: a * b, lambda t, a, b: a * b,
         wrong={"backward_a": lambda self, g, b: g * b * b}),
    Case(ops.Mul, normal((3, 2)), lambda a: a * 3 * 0.5, lambda a: a * 1.5, lambda t, a: a * 3 * 0.5,
         note="by numbers"),
    Case(ops.Mul, normal((3, 2)), lambda a: a * a, lambda a: a ** 2, lambda t, a: a * a, note="with itself"),
    Case(ops.Div, positive((3, 1, 2), (4, 1)), lambda a, b: a / b, lambda a, b: a / b, lambda t, a, b: a / b,
         wrong={"backward_b": lambda self, g, b, y: g * y / b}),
    Case(ops.Neg, normal((3, 2)), lambda x: -x, lambda x: -x, lambda t, x: -x,
         wrong={"backward": lambda self, g: g}),
    Case(ops.Pow, normal((3, 2)), lambda a: a ** 3, lambda a: a * a * a, lambda t, a: a ** 3, note="by a number",
         wrong={"backward_a": lambda self, g, a, b: g * a ** (b - 1)}),
    Case(ops.Pow, positive((3, 1), (1, 2)), lambda a, b: a ** b, lambda a, b: np.exp(b * np.log(a)),
         lambda t, a, b: a ** b, wrong={"backward_b": lambda self, g, a, y: g * y}),
    Case(ops.Pow, normal((3, 2)), lambda b: 2 ** b, lambda b: np.exp2(b), lambda t, b: 2 ** b, note="of a number"),
    Case(ops.Exp, normal((3, 2)), lambda x: x.exp(), np.exp, lambda t, x: x.exp(),
         wrong={"backward": lambda self, g, y: g * y * y}),
    Case(ops.Log, positive((3, 2)), lambda x: x.log(), np.log, lambda t, x: x.log(),
         wrong={"backward": lambda self, g, x: g / (x + 0.001)}),
    Case(ops.Clone, normal((3, 2)), lambda x: x.clone(), lambda x: x, lambda t, x: x.clone(),
         wrong={"backward": lambda self, g: g * 0}),
    Case(ops.Where, lambda rng: [rng.normal(size=(2, 3)), rng.normal(size=(3,)), np.array([[True, False, True]])],
         lambda a, b, c: ops.Where()(c, a, b), lambda a, b, c: np.where(c, a, b), lambda t, a, b, c: t.where(c, a, b),
         wrong={"backward_b": lambda self, g, condition: g}),
    Case(ops.Cast, normal((3, 2)), lambda x: ops.Cast(minidl.float64)(x), lambda x: x, lambda t, x: x.double(),
         wrong={"backward": lambda self, g: g * 2}),
    Case(ops.ToDevice, normal((3, 2)), lambda x: (x.to("fake") * 2).to("cpu"), lambda x: x * 2, on_fake=False,
         wrong={"backward": lambda self, g: ops.ToDevice(self.here)(g) * 2}),
    Case(ops.FloorDiv, with_data(normal((2, 3)), 3 * [0.3]), lambda a, b: a // b, lambda a, b: np.floor(a / b),
         lambda t, a, b: a // b, orders=()),
    Case(ops.Remainder, lambda rng: [np.array([[0.7, -2.3, 5.1], [-0.4, 1.9, 8.8]]), np.array([0.5, -1.5, 3.0])],
         lambda a, b: a % b, lambda a, b: a - b * np.floor(a / b), lambda t, a, b: a % b,
         wrong={"backward_b": lambda self, g, a, b: -g * a / b}),
    Case(ops.Fmod, lambda rng: [np.array([[0.7, -2.3, 5.1], [-0.4, 1.9, 8.8]]), np.array([0.5, -1.5, 3.0])],
         lambda a, b: a.fmod(b), lambda a, b: a - b * np.trunc(a / b), lambda t, a, b: t.fmod(a, b),
         wrong={"backward_b": lambda self, g, a, b: -g * a / b}),
    Case(ops.Log2, positive((3, 2)), lambda x: x.log2(), np.log2, lambda t, x: x.log2(),
         wrong={"backward": lambda self, g, x: g / x}),
    Case(ops.Log10, positive((3, 2)), lambda x: x.log10(), np.log10, lambda t, x: x.log10(),
         wrong={"backward": lambda self, g, x: g / x}),
    Case(ops.Asin, lambda rng: [rng.uniform(-0.9, 0.9, (3, 2))], lambda x: x.asin(), np.arcsin, lambda t, x: x.asin(),
         wrong={"backward": lambda self, g, x: g / (1 + x * x).sqrt()}),
    Case(ops.Acos, lambda rng: [rng.uniform(-0.9, 0.9, (3, 2))], lambda x: x.acos(), np.arccos, lambda t, x: x.acos(),
         wrong={"backward": lambda self, g, x: g / (1 - x * x).sqrt()}),
    Case(ops.Log1p, positive((3, 2)), lambda x: x.log1p(), lambda x: np.log(1 + x), lambda t, x: x.log1p(),
         wrong={"backward": lambda self, g, x: g / x}),
    Case(ops.Expm1, normal((3, 2)), lambda x: x.expm1(), lambda x: np.exp(x) - 1, lambda t, x: x.expm1(),
         wrong={"backward": lambda self, g, y: g * y}),
    Case(ops.Sqrt, positive((3, 2)), lambda x: x.sqrt(), lambda x: x ** 0.5, lambda t, x: x.sqrt(),
         wrong={"backward": lambda self, g, y: g / y}),
    Case(ops.Sin, normal((3, 2)), lambda x: x.sin(), np.sin, lambda t, x: x.sin(),
         wrong={"backward": lambda self, g, x: -g * x.cos()}),
    Case(ops.Cos, normal((3, 2)), lambda x: x.cos(), np.cos, lambda t, x: x.cos(),
         wrong={"backward": lambda self, g, x: g * x.sin()}),
    Case(ops.Sinh, normal((3, 2)), lambda x: x.sinh(), lambda x: (np.exp(x) - np.exp(-x)) / 2, lambda t, x: x.sinh(),
         wrong={"backward": lambda self, g, x: g * x.sinh()}),
    Case(ops.Cosh, normal((3, 2)), lambda x: x.cosh(), lambda x: (np.exp(x) + np.exp(-x)) / 2, lambda t, x: x.cosh(),
         wrong={"backward": lambda self, g, x: g * x.cosh()}),
    Case(ops.Atan, normal((3, 2)), lambda x: x.atan(), np.arctan, lambda t, x: x.atan(),
         wrong={"backward": lambda self, g, x: g / (1 + x)}),
    Case(ops.Atan2, normal((3, 2), (2,)), lambda a, b: a.atan2(b), np.arctan2, lambda t, a, b: t.atan2(a, b),
         wrong={"backward_a": lambda self, g, a, b: g / b, "backward_b": lambda self, g, a, b: g * a / (a * a + b * b)}),
    Case(ops.Erf, normal((3, 2)), lambda x: x.erf(), lambda x: np.vectorize(math.erf)(x), lambda t, x: x.erf(),
         wrong={"backward": lambda self, g, x: g * (-x * x).exp()}),
    Case(ops.Abs, distinct((3, 4)), lambda x: abs(x), lambda x: np.where(x > 0, x, -x), lambda t, x: abs(x),
         wrong={"backward": lambda self, g, x: g}),
    Case(ops.Maximum, lambda rng: [d := distinct((3, 4))(rng)[0], d[::-1, :1] + 0.03], lambda a, b: a.maximum(b),
         lambda a, b: np.where(a > b, a, b), lambda t, a, b: t.maximum(a, b),
         wrong={"backward_a": lambda self, g, a, b: g, "backward_b": lambda self, g, a, b: g * (a > b)}),
    Case(ops.Minimum, lambda rng: [d := distinct((3, 4))(rng)[0], d[::-1, :1] + 0.03], lambda a, b: a.minimum(b),
         lambda a, b: np.where(a < b, a, b), lambda t, a, b: t.minimum(a, b),
         wrong={"backward_a": lambda self, g, a, b: g, "backward_b": lambda self, g, a, b: g * (a < b)}),
    Case(ops.Clamp, distinct((3, 4)), lambda x: x.clamp(-0.3, 0.28), lambda x: np.clip(x, -0.3, 0.28),
         lambda t, x: x.clamp(-0.3, 0.28), wrong={"backward": lambda self, g, x: g}),
    Case(ops.Clamp, distinct((3, 4)), lambda x: x.clamp(max=0.28), lambda x: np.minimum(x, 0.28),
         lambda t, x: x.clamp(max=0.28), note="from above"),
    Case(ops.Sign, distinct((3, 4)), lambda x: x.sign(), np.sign, lambda t, x: x.sign(), orders=()),
    Case(ops.Floor, normal((3, 4)), lambda x: x.floor(), np.floor, lambda t, x: x.floor(), orders=()),
    Case(ops.Ceil, normal((3, 4)), lambda x: x.ceil(), np.ceil, lambda t, x: x.ceil(), orders=()),
    Case(ops.Trunc, normal((3, 4)), lambda x: x.trunc(), np.trunc, lambda t, x: x.trunc(), orders=()),
    Case(ops.Round, normal((3, 4)), lambda x: x.round(decimals=1), lambda x: np.round(x, 1),
         lambda t, x: x.round(decimals=1), orders=()),
    Case(ops.And, bits, lambda a, b: a & b, np.logical_and, lambda t, a, b: a & b, orders=()),
    Case(ops.Or, bits, lambda a, b: a | b, np.logical_or, lambda t, a, b: a | b, orders=()),
    Case(ops.Xor, bits, lambda a, b: a ^ b, np.logical_xor, lambda t, a, b: a ^ b, orders=()),
    Case(ops.Not, lambda rng: [np.array([True, False])], lambda a: ~a, np.logical_not, lambda t, a: ~a, orders=()),
    Case(FunctionCall, normal((3, 2)), lambda x: Squared.apply(x, 2.0), lambda x: 2 * x * x, lambda t, x: 2 * x * x,
         wrong={"backward": lambda self, g, y, *xs: (g * xs[0],)}),
    Case(ops.Equal, with_data(normal((2, 3)), [0.0, 1.0, 2.0]), lambda a, b: a == b, lambda a, b: a == b,
         lambda t, a, b: a == b, orders=()),
    Case(ops.NotEqual, with_data(normal((2, 3)), [0.0, 1.0, 2.0]), lambda a, b: a != b, lambda a, b: a != b,
         lambda t, a, b: a != b, orders=()),
    Case(ops.Greater, normal((2, 3), (3,)), lambda a, b: a > b, lambda a, b: a > b, lambda t, a, b: a > b, orders=()),
    Case(ops.Greater, normal((2, 3)), lambda a: a < 0.5, lambda a: a < 0.5, lambda t, a: a < 0.5, orders=(),
         note="turned around"),
    Case(ops.GreaterEqual, normal((2, 3), (3,)), lambda a, b: a >= b, lambda a, b: a >= b, lambda t, a, b: a >= b,
         orders=()),
    # -- broadcasting and reductions --
    Case(ops.BroadcastTo, normal((3, 1)), lambda x: x.expand(2, -1, 4), lambda x: np.broadcast_to(x, (2, 3, 4)),
         lambda t, x: x.expand(2, -1, 4), wrong={"backward": lambda self, g: g[0, :, :1]}),
    Case(ops.SumTo, normal((2, 3, 4)), lambda x: ops.SumTo((3, 1))(x), lambda x: x.sum((0, 2))[:, None],
         lambda t, x: x.sum_to_size(3, 1), wrong={"backward": lambda self, g: ops.BroadcastTo(self.shape_of_x)(g) / 4}),
    Case(ops.Sum, normal((2, 3, 4)), lambda x: x.sum((0, -1)), lambda x: x.sum(axis=(0, 2)), lambda t, x: x.sum((0, -1)),
         wrong={"backward": lambda self, g: self.spread(g) / 2}),
    Case(ops.Sum, normal((2, 3)), lambda x: x.sum(1, keepdim=True), lambda x: x.sum(1)[:, None],
         lambda t, x: x.sum(1, keepdim=True), note="keepdim"),
    Case(ops.Sum, normal((2, 3)), lambda x: x.sum(), lambda x: x.sum(), lambda t, x: x.sum(), note="of all"),
    Case(ops.Mean, normal((2, 3, 4)), lambda x: x.mean((0, 1)), lambda x: x.sum(axis=(0, 1)) / 6,
         lambda t, x: x.mean((0, 1)), wrong={"backward": lambda self, g: self.spread(g)}),
    Case(ops.LogSumExp, normal((2, 3, 2)), lambda x: x.logsumexp((0, 2)), lambda x: np.log(np.exp(x).sum((0, 2))),
         lambda t, x: x.logsumexp((0, 2)), wrong={"backward": lambda self, g, x, y: self.spread(g) * x.exp()}),
    Case(ops.Norm, normal((2, 3, 2)), lambda x: x.norm(2, (0, 2), keepdim=True),
         lambda x: np.sqrt((x ** 2).sum((0, 2), keepdims=True)), lambda t, x: x.norm(2, (0, 2), keepdim=True),
         wrong={"backward": lambda self, g, x, y: self.spread(g) * x}),
    Case(ops.CumSum, normal((3, 4)), lambda x: x.cumsum(1), lambda x: np.stack([x[:, :k].sum(1) for k in range(1, 5)], 1),
         lambda t, x: x.cumsum(1), wrong={"backward": lambda self, g: ops.CumSum(self.axis)(g)}),
    Case(ops.Any, lambda rng: [np.eye(3)[:2] > 0], lambda x: x.any(0), lambda x: np.any(x, 0), lambda t, x: x.any(0),
         orders=()),
    Case(ops.All, lambda rng: [np.eye(3)[:2] < 1], lambda x: x.all(1, keepdim=True), lambda x: np.all(x, 1, keepdims=True),
         lambda t, x: x.all(1, keepdim=True), orders=()),
    Case(ops.ArgSort, distinct((3, 4)), lambda x: x.argsort(0), lambda x: np.argsort(x, 0), lambda t, x: x.argsort(0),
         orders=()),
    Case(ops.ArgSort, lambda rng: [np.array([[1.0, 2, 1, 2], [0, 0, 0, 1]])], lambda x: x.argsort(descending=True),
         lambda x: np.argsort(-x, 1, kind="stable"), lambda t, x: x.argsort(descending=True, stable=True), orders=(),
         note="of equals, the largest first"),
    Case(ops.ArgMax, distinct((3, 4)), lambda x: x.argmax(1), lambda x: np.argmax(x, 1), lambda t, x: x.argmax(1),
         orders=()),
    Case(ops.ArgMin, distinct((3, 4)), lambda x: x.argmin(), lambda x: np.argmin(x), lambda t, x: x.argmin(), orders=()),
    # -- shape --
    Case(ops.Reshape, normal((2, 3, 4)), lambda x: x.permute(1, 0, 2).reshape(4, -1),
         lambda x: x.transpose(1, 0, 2).reshape(4, 6), lambda t, x: x.permute(1, 0, 2).reshape(4, -1),
         wrong={"backward": lambda self, g: g.T.reshape(self.shape_of_x)}),
    Case(ops.Permute, normal((2, 3, 4)), lambda x: x.permute(2, 0, 1), lambda x: np.moveaxis(x, 2, 0),
         lambda t, x: x.permute(2, 0, 1), wrong={"backward": lambda self, g: g.reshape(2, 3, 4)}),
    Case(ops.Cat, normal((2, 3), (2, 1), (2, 2)), lambda *xs: minidl.cat(xs, 1), lambda *xs: np.concatenate(xs, 1),
         lambda t, *xs: t.cat(xs, 1), wrong={"backward": lambda self, g: g.split(self.lengths[::-1], self.axis)[::-1]}),
    # -- indexing --
    Case(ops.Index, normal((3, 4, 2)), lambda x: x[1:, None, ..., -1], lambda x: x[1:, :, 1][:, None],
         lambda t, x: x[1:, None, ..., -1], note="with slices"),
    Case(ops.Index, with_data(normal((3, 4)), DUPLICATES), lambda x, i: x[i], lambda x, i: np.stack([x[k] for k in i]),
         lambda t, x, i: x[i], note="with duplicates",
         wrong={"backward_x": lambda self, g, i: ops.IndexPut(self.key)(g.sum() * minidl.zeros(3, 4).double(), g, i)}),
    Case(ops.Index, with_data(normal((3, 2)), [True, False, True]), lambda x, m: x[m], lambda x, m: x[[0, 2]],
         lambda t, x, m: x[m], note="with a mask", syncs=2),
    Case(ops.IndexAdd, with_data(normal((2, 3, 4)), DUPLICATES),
         lambda x, i: ops.IndexAdd(Key((Key.ARRAY,)), (3, 4))(x, i), lambda x, i: added((3, 4), i, x),
         lambda t, x, i: t.zeros(3, 4, dtype=x.dtype).index_put((i,), x, accumulate=True),
         wrong={"backward_x": lambda self, g, i: ops.Index(self.key)(g, (i + 1) * (i < 2).long())}),
    Case(ops.IndexAdd, normal((2, 2)), lambda x: ops.IndexAdd(SLICES, (3, 4, 2))(x),
         lambda x: put(np.zeros((3, 4, 2)), np.s_[1:, 2], x), note="with slices"),
    Case(ops.Diagonal, normal((2, 4, 3)), lambda x: x.diagonal(-1, 1, 2), lambda x: np.stack([x[:, k + 1, k] for k in range(3)], 1),
         lambda t, x: x.diagonal(-1, 1, 2), wrong={"backward": lambda self, g, right=ops.Diagonal.backward: right(self, g).flip(1)}),
    Case(ops.IndexPut, normal((3, 4), (2, 1)), lambda x, v: ops.IndexPut(Key((slice(1, 3), slice(2, None))))(x, v),
         lambda x, v: put(x, np.s_[1:3, 2:], v), wrong={"backward_x": lambda self, g: g}),
    Case(ops.Gather, with_data(normal((2, 3)), [[2, 2, 0, 1], [0, 1, 1, 1]]), lambda x, i: x.gather(1, i),
         lambda x, i: np.take_along_axis(x, i, 1), lambda t, x, i: x.gather(1, i),
         wrong={"backward_x": lambda self, g, index: ops.ScatterAdd(1, self.shape_of_x)(g, index) / 2}),
    Case(ops.Gather, distinct((3, 4)), lambda x: x.max(1).values, lambda x: x.max(axis=1),
         lambda t, x: x.max(1).values, note="as max"),
    Case(ops.ScatterAdd, with_data(normal((2, 4)), [[2, 2, 0, 1], [0, 1, 1, 1]]),
         lambda x, i: ops.ScatterAdd(1, (2, 3))(x, i), lambda x, i: added((2, 3), (np.arange(2)[:, None], i), x),
         lambda t, x, i: t.zeros(2, 3, dtype=x.dtype).scatter_add(1, i, x),
         wrong={"backward_x": lambda self, g, index: ops.Gather(1)(g, index * 0)}),
    # -- matrix products --
    Case(ops.MatMul, normal((3, 3), (3, 3)), lambda a, b: a @ b, lambda a, b: np.einsum("ik,kj->ij", a, b),
         lambda t, a, b: a @ b, wrong={"backward_a": lambda self, g, b: g @ b, "backward_b": lambda self, g, a: a @ g}),
    Case(ops.MatMul, normal((2, 1, 3, 2), (4, 2, 3)), lambda a, b: a @ b, lambda a, b: np.einsum("aqik,bkj->abij", a, b),
         lambda t, a, b: a @ b, note="of batches"),
    Case(ops.MatMul, normal((3,), (3, 2)), lambda a, b: a @ b, lambda a, b: np.einsum("k,kj->j", a, b),
         lambda t, a, b: a @ b, note="of a vector"),
    Case(ops.Linear, normal((4, 3), (2, 3), (2,)), F.linear, lambda x, w, b: np.einsum("ni,oi->no", x, w) + b,
         lambda t, x, w, b: t.nn.functional.linear(x, w, b),
         wrong={"backward_b": lambda self, g: g.mean(0), "backward_x": lambda self, g, w: g @ w[:, [1, 0, 2]],
                "backward_w": lambda self, g, x: g.T @ x / len(x)}),
    Case(ops.Linear, normal((2, 2, 3), (4, 3)), F.linear, lambda x, w: np.einsum("abi,oi->abo", x, w),
         lambda t, x, w: t.nn.functional.linear(x, w), note="without bias, three axes"),
    Case(ops.SumOfOuterProducts, normal((4, 2), (4, 3)), lambda a, b: ops.SumOfOuterProducts()(a, b),
         lambda a, b: sum(np.outer(a[n], b[n]) for n in range(4)), lambda t, a, b: a.T @ b,
         wrong={"backward_a": lambda self, g, b: b @ g.mT / len(b), "backward_b": lambda self, g, a: (a @ g)[[1, 0, 2, 3]]}),
    Case(ops.SumOfOuterProducts, normal((2, 3, 2), (2, 3, 4)), lambda a, b: ops.SumOfOuterProducts()(a, b),
         lambda a, b: np.einsum("xyo,xyi->oi", a, b), lambda t, a, b: t.einsum("xyo,xyi->oi", a, b), note="three axes"),
    Case(ops.Einsum, normal((2, 3, 4), (4, 2, 5), (3,)), lambda a, b, c: minidl.einsum("nij,jnk,i->nk", a, b, c),
         lambda a, b, c: np.einsum("nij,jnk,i->nk", a, b, c), lambda t, a, b, c: t.einsum("nij,jnk,i->nk", a, b, c),
         wrong={"backward": lambda self, g, *xs: tuple(self._gradient(k, g, xs) * (1 if k else 2) for k in range(3))}),
    Case(ops.Einsum, normal((2, 3), (4,)), lambda a, b: minidl.einsum("ij,k->i", a, b),
         lambda a, b: a.sum(1) * b.sum(), lambda t, a, b: t.einsum("ij,k->i", a, b), note="with letters that only one has"),
    # -- activations --
    Case(ops.LeakyReLU, distinct((3, 4)), lambda x: F.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, 0.2 * x),
         lambda t, x: t.nn.functional.leaky_relu(x, 0.2), wrong={"backward": lambda self, g, x: g * self.slope}),
    Case(ops.PReLU, lambda rng: [distinct((2, 3, 2))(rng)[0], np.array([0.1, 0.3, 0.2])], F.prelu,
         lambda x, w: np.where(x > 0, x, w[:, None] * x), lambda t, x, w: t.nn.functional.prelu(x, w),
         wrong={"backward_w": lambda self, g, x: g * x, "backward_x": lambda self, g, x, w: g * w}),
    Case(ops.ELU, distinct((3, 4)), lambda x: F.elu(x, 1.5), lambda x: np.where(x > 0, x, 1.5 * (np.exp(x) - 1)),
         lambda t, x: t.nn.functional.elu(x, 1.5), wrong={"backward": lambda self, g, x, y: ops.Where()(x > 0, g, g * y)}),
    Case(ops.GELU, normal((3, 4)), F.gelu, lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
         lambda t, x: t.nn.functional.gelu(x), wrong={"backward": lambda self, g, x: g * 0.5 * (1 + x.erf())}),
    Case(ops.SiLU, normal((3, 4)), F.silu, lambda x: x / (1 + np.exp(-x)), lambda t, x: t.nn.functional.silu(x),
         wrong={"backward": lambda self, g, x: g * x.sigmoid()}),
    Case(ops.Softplus, normal((3, 4)), lambda x: F.softplus(x, 2), lambda x: np.log(1 + np.exp(2 * x)) / 2,
         lambda t, x: t.nn.functional.softplus(x, 2), wrong={"backward": lambda self, g, x: g * x.sigmoid()}),
    Case(ops.HardTanh, distinct((3, 4)), lambda x: F.hardtanh(x, -0.3, 0.28), lambda x: np.clip(x, -0.3, 0.28),
         lambda t, x: t.nn.functional.hardtanh(x, -0.3, 0.28), wrong={"backward": lambda self, g, x: g}),
    Case(ops.ReLU, distinct((3, 4)), lambda x: x.relu(), lambda x: np.where(x > 0, x, 0), lambda t, x: x.relu(),
         wrong={"backward": lambda self, g, y: g}),
    Case(ops.ReLUGrad, with_data(normal((2, 3)), [[1, 0, 2], [0, 0, 3]]), lambda d, z: ops.ReLUGrad()(d, z),
         lambda d, z: np.where(z > 0, d, 0), lambda t, d, z: t.where(z > 0, d, 0), wrong={"backward_d": lambda self, g, z: g}),
    Case(ops.Tanh, normal((3, 2)), lambda x: x.tanh(), lambda x: np.sinh(x) / np.cosh(x), lambda t, x: x.tanh(),
         wrong={"backward": lambda self, g, y: g * (1 - y)}),
    Case(ops.Sigmoid, normal((3, 2)), lambda x: x.sigmoid(), lambda x: np.exp(x) / (1 + np.exp(x)),
         lambda t, x: x.sigmoid(), wrong={"backward": lambda self, g, y: g * y}),
    Case(ops.Softmax, normal((3, 4)), lambda x: x.softmax(1), softmax, lambda t, x: x.softmax(1),
         wrong={"backward": lambda self, g, y: g * y * (1 - y)}),
    Case(ops.LogSoftmax, normal((3, 4)), lambda x: x.log_softmax(-1), lambda x: np.log(softmax(x)),
         lambda t, x: x.log_softmax(-1), wrong={"backward": lambda self, g, y: g - y.exp()}),
    # -- losses --
    Case(ops.ScaledDifference, normal((3, 4), (3, 4), ()), lambda a, b, s: ops.ScaledDifference(1.5)(a, b, s),
         lambda a, b, s: 1.5 * s * (a - b), lambda torch, a, b, s: 1.5 * s * (a - b),
         wrong={"backward_a": lambda self, g, s: g * s, "backward_b": lambda self, g, s: g * (s * self.k),
                "backward_s": lambda self, g, a, b: (g * (a + b)).sum() * self.k}),
    Case(ops.MeanSquaredError, normal((3, 4), (3, 4)), F.mse_loss, lambda x, t: ((x - t) ** 2).mean(),
         lambda torch, x, t: torch.nn.functional.mse_loss(x, t),
         wrong={"backward_x": lambda self, g, x, t: (x - t) * g, "backward_t": lambda self, g, x, t: (x - t) * (g * (2 / x.numel()))}),
    Case(ops.CrossEntropy, lambda rng: [rng.normal(size=(3, 4)), rng.uniform(0.1, 1, (3, 4))],
         lambda z, q: F.cross_entropy(z, q, reduction="none"), lambda z, q: -(q * np.log(softmax(z))).sum(1),
         lambda t, z, q: t.nn.functional.cross_entropy(z, q, reduction="none"), note="of probabilities",
         wrong={"backward_z": lambda self, g, z, q: (z.softmax(1) - q) * g.unsqueeze(1)}),
    Case(ops.LabelCrossEntropy, with_data(normal((3, 4)), [1, 3, 0]), F.cross_entropy,
         lambda z, q: -np.log(softmax(z)[[0, 1, 2], q]).mean(), lambda t, z, q: t.nn.functional.cross_entropy(z, q),
         wrong={"backward_z": lambda self, g, z, labels: ops.LabelCrossEntropyGrad()(g, z, labels) * labels.numel()}),
    Case(ops.LabelCrossEntropy, with_data(normal((2, 3, 2)), [[1, 2], [0, 2]]), F.cross_entropy,
         lambda z, q: -np.mean([np.log(softmax(z)[n, q[n, i], i]) for n in range(2) for i in range(2)]),
         lambda t, z, q: t.nn.functional.cross_entropy(z, q), note="of pixels"),
    Case(ops.LabelCrossEntropyGrad, with_data(normal((), (3, 4)), [1, 3, 0]), lambda d, z, q: ops.LabelCrossEntropyGrad()(d, z, q),
         lambda d, z, q: d / 3 * (softmax(z) - np.eye(4)[q]), lambda t, d, z, q: d / 3 * (z.softmax(1) - t.eye(4, dtype=z.dtype)[q]),
         wrong={"backward_d": lambda self, g, z, labels: (g * z.softmax(1)).sum() / labels.numel(),
                "backward_z": lambda self, g, d, z, labels: d / labels.numel() * z.softmax(1) * g}),
    Case(ops.CrossEntropy, with_data(normal((2, 3, 2)), [[1, 2], [0, 2]]),
         lambda z, q: F.cross_entropy(z, q, reduction="sum"),
         lambda z, q: -sum(np.log(softmax(z)[n, q[n, i], i]) for n in range(2) for i in range(2)),
         lambda t, z, q: t.nn.functional.cross_entropy(z, q, reduction="sum"), note="of pixels"),
    Case(ops.CrossEntropyGrad, normal((3,), (3, 4), (3, 4)), lambda d, z, q: ops.CrossEntropyGrad()(d, z, q),
         lambda d, z, q: d[:, None] * (softmax(z) * q.sum(1, keepdims=True) - q),
         lambda t, d, z, q: d[:, None] * (z.softmax(1) * q.sum(1, keepdim=True) - q),
         wrong={"backward_d": lambda self, g, z, q: (g * (z.softmax(1) - q)).sum(1),
                "backward_z": lambda self, g, d, z, q: d.unsqueeze(1) * q.sum(1, keepdim=True) * z.softmax(1) * g,
                "backward_q": lambda self, g, d, z: -d.unsqueeze(1) * g}),
    Case(ops.BCE, lambda rng: [rng.uniform(0.1, 0.9, (3, 2)), rng.uniform(0.1, 0.9, (3, 2))],
         lambda p, t: F.binary_cross_entropy(p, t, reduction="none"),
         lambda p, t: -t * np.log(p) - (1 - t) * np.log(1 - p),
         lambda torch, p, t: torch.nn.functional.binary_cross_entropy(p, t, reduction="none"),
         wrong={"backward_p": lambda self, g, p, t: g * (p - t), "backward_t": lambda self, g, p: g * p.log()}),
    # -- normalization --
    Case(ops.Normalize, normal((3, 2, 4)), lambda x: ops.Normalize((0, 2), 0.1)(x),
         lambda x: (x - x.mean((0, 2), keepdims=True)) / np.sqrt(x.var((0, 2), keepdims=True) + 0.1),
         lambda t, x: t.nn.functional.batch_norm(x, None, None, training=True, eps=0.1),
         wrong={"backward": lambda self, g, x, y: g / (x.var(self.axes, correction=0, keepdim=True) + 0.1).sqrt()}),
    Case(ops.ScaleShift, normal((3, 2, 4), (2,), (2,)), lambda x, s, t: ops.ScaleShift()(x, s, t),
         lambda x, s, t: x * s[:, None] + t[:, None],
         lambda torch, x, s, t: torch.nn.functional.batch_norm(x, torch.zeros_like(s), torch.ones_like(s), s, t, eps=0.0),
         wrong={"backward_x": lambda self, g, s: g * s.sum(), "backward_s": lambda self, g, x: (g * x).sum((0, 2)) / 2,
                "backward_t": lambda self, g: g.mean((0, *range(2, g.ndim)))}),
    Case(ops.ScaleShift, normal((3, 2, 2, 2), (2,)), lambda x, s: ops.ScaleShift()(x, s), lambda x, s: x * s[:, None, None],
         lambda torch, x, s: torch.nn.functional.batch_norm(x, torch.zeros_like(s), torch.ones_like(s), s, eps=0.0),
         wrong={"backward_x": lambda self, g, s: g * s.sum(), "backward_s": lambda self, g, x: (g * x).sum((0, 2, 3)) / 2},
         note="without t"),
    # -- convolution --
    Case(ops.Unfold, normal((2, 2, 5, 4)), lambda x: F.unfold(x, (3, 2), (1, 2), (1, 0), (2, 1)),
         lambda x: windows(x, CELLS), lambda t, x: t.nn.functional.unfold(x, (3, 2), (1, 2), (1, 0), (2, 1)),
         wrong={"backward": lambda self, g: ops.Fold(self.window)(g) / 2}),
    Case(ops.Fold, normal((2, 12, 6)), lambda x: F.fold(x, (5, 4), (3, 2), (1, 2), (1, 0), (2, 1)),
         lambda x: unwindows(x, CELLS, 2), lambda t, x: t.nn.functional.fold(x, (5, 4), (3, 2), (1, 2), (1, 0), (2, 1)),
         wrong={"backward": lambda self, g: ops.Unfold(self.window)(g[:, :, ::-1])}),
    Case(ops.Conv2d, normal((2, 2, 4, 5), (3, 2, 3, 2), (3,)), F.conv2d, by_reference(F.conv2d),
         lambda t, x, w, b: t.nn.functional.conv2d(x, w, b), note="plain",
         wrong={"backward_b": lambda self, g: g.sum((0, 2)).sum(1) / 2}),
    Case(ops.Conv2d, normal((2, 4, 5, 6), (4, 2, 3, 2)), lambda x, w: ops.Conv2d(CONV)(x, w, None),
         by_reference(lambda x, w: ops.Conv2d(CONV)(x, w, None)),
         lambda t, x, w: t.nn.functional.conv2d(x, w, None, (2, 1), (1, 2), (1, 2), 2),
         note="stride, padding, dilation, groups",
         wrong={"backward_w": lambda self, g, x: ops.Conv2dWeightGrad(self.geometry)(x, g)[:, ::-1],
                "backward_x": lambda self, g, w: ops.Conv2dInputGrad(self.geometry)(g, w[:, :, ::-1])}),
    Case(ops.Conv2d, normal((1, 1, 4, 4), (2, 1, 2, 2)), lambda x, w: F.conv2d(x, w, padding="same"),
         by_reference(lambda x, w: F.conv2d(x, w, padding="same")),
         lambda t, x, w: t.nn.functional.conv2d(t.nn.functional.pad(x, (0, 1, 0, 1)), w), note="same, even kernel"),
    Case(ops.Conv2dInputGrad, normal((2, 4, 3, 8), (4, 2, 3, 2)), lambda d, w: ops.Conv2dInputGrad(CONV)(d, w),
         by_reference(lambda d, w: ops.Conv2dInputGrad(CONV)(d, w)),
         lambda t, d, w: t.nn.grad.conv2d_input((2, 4, 5, 6), w, d, (2, 1), (1, 2), (1, 2), 2),
         wrong={"backward_d": lambda self, g, w: ops.Conv2d(self.geometry)(g, w[:, :, ::-1])}),
    Case(ops.Conv2dWeightGrad, normal((2, 4, 5, 6), (2, 4, 3, 8)), lambda x, d: ops.Conv2dWeightGrad(CONV)(x, d),
         by_reference(lambda x, d: ops.Conv2dWeightGrad(CONV)(x, d)),
         lambda t, x, d: t.nn.grad.conv2d_weight(x, (4, 2, 3, 2), d, (2, 1), (1, 2), (1, 2), 2),
         wrong={"backward_x": lambda self, g, d: ops.Conv2dInputGrad(self.geometry)(d, g)[::-1],
                "backward_d": lambda self, g, x: ops.Conv2d(self.geometry)(x, g)[:, :, ::-1]}),
    # -- pooling --
    Case(ops.MaxPool2d, distinct((2, 2, 5, 6)), lambda x: ops.MaxPool2d(POOL)(x),
         by_reference(lambda x: ops.MaxPool2d(POOL)(x)),
         lambda t, x: t.nn.functional.max_pool2d(x, (3, 2), (2, 1), 1), note="overlapping",
         wrong={"backward": lambda self, g, indices: ops.AvgPool2dInputGrad(self.geometry)(g)}),
    Case(ops.MaxPool2d, distinct((1, 2, 5, 5)), lambda x: F.max_pool2d(x, 2, ceil_mode=True),
         by_reference(lambda x: F.max_pool2d(x, 2, ceil_mode=True)),
         lambda t, x: t.nn.functional.max_pool2d(x, 2, ceil_mode=True), note="ceil_mode"),
    Case(ops.MaxPool2d, distinct((1, 1, 5, 5)), lambda x: F.max_pool2d(x, 2, stride=1, dilation=2),
         by_reference(lambda x: F.max_pool2d(x, 2, stride=1, dilation=2)),
         lambda t, x: t.nn.functional.max_pool2d(x, 2, 1, 0, 2), note="dilated"),
    Case(ops.MaxPool2dInputGrad,
         lambda rng: [rng.normal(size=(2, 2, *POOL.output_size)), max_cells(distinct((2, 2, 5, 6))(rng)[0])],
         lambda d, i: ops.MaxPool2dInputGrad(POOL)(d, i), by_reference(lambda d, i: ops.MaxPool2dInputGrad(POOL)(d, i)),
         wrong={"backward_d": lambda self, g, indices: ops.AvgPool2d(self.geometry)(g)}),
    Case(ops.AvgPool2d, normal((2, 2, 5, 6)), lambda x: ops.AvgPool2d(POOL)(x),
         by_reference(lambda x: ops.AvgPool2d(POOL)(x)),
         lambda t, x: t.nn.functional.avg_pool2d(x, (3, 2), (2, 1), 1),
         wrong={"backward": lambda self, g: ops.AvgPool2dInputGrad(self.geometry)(g) * 6}),
    Case(ops.AvgPool2d, normal((1, 2, 5, 5)),
         lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
         by_reference(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)),
         lambda t, x: t.nn.functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
         note="ceil_mode, without padding"),
    Case(ops.AvgPool2d, normal((1, 1, 6, 6)), lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
         by_reference(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)),
         lambda t, x: t.nn.functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True), note="ceil_mode, with padding"),
    Case(ops.AvgPool2dInputGrad, normal((2, 2, *POOL.output_size)), lambda d: ops.AvgPool2dInputGrad(POOL)(d),
         by_reference(lambda d: ops.AvgPool2dInputGrad(POOL)(d)),
         wrong={"backward": lambda self, g: ops.AvgPool2d(self.geometry)(g) * 6}),
    Case(ops.Repeat2d, normal((2, 3, 2, 3)), lambda x: F.interpolate(x, scale_factor=(2, 3)),
         lambda x: np.kron(x, np.ones((2, 3))), lambda t, x: t.nn.functional.interpolate(x, scale_factor=(2, 3)),
         wrong={"backward": lambda self, g: g[:, :, ::2, ::3] * 6}),
    Case(ops.Repeat2dInputGrad, normal((2, 3, 4, 6)), lambda d: ops.Repeat2dInputGrad((2, 3))(d),
         lambda d: d.reshape(2, 3, 2, 2, 2, 3).sum((3, 5)), lambda t, d: t.nn.functional.avg_pool2d(d, (2, 3)) * 6,
         wrong={"backward": lambda self, g: ops.Repeat2d((2, 3))(g) / 6}),
    # -- a convolution and what follows it --
    fused("then ReLU", Stages(relu=True), lambda k, z: np.maximum(z, 0), lambda f, z: f.relu(z),
          wrong={"backward_b": lambda self, g, way_back: g.sum((0, 2, 3)),
                 "backward_w": lambda self, g, x, way_back: ops.Conv2dWeightGrad(self.geometry)(x, g),
                 "backward_x": lambda self, g, w, way_back: ops.Conv2dInputGrad(self.geometry)(g, w)}),
    fused("then maximum", Stages(pooling="max", window=OVERLAPPING), lambda k, z: k.max_pool2d(z, OVERLAPPING)[0],
          lambda f, z: f.max_pool2d(z, 3, 2, 1, ceil_mode=True)),
    fused("then ReLU, maximum", Stages(True, False, "max", HALVED), lambda k, z: k.max_pool2d(np.maximum(z, 0), HALVED)[0],
          lambda f, z: f.max_pool2d(f.relu(z), 2)),
    fused("then maximum, ReLU", Stages(True, True, "max", HALVED), lambda k, z: np.maximum(k.max_pool2d(z, HALVED)[0], 0),
          lambda f, z: f.relu(f.max_pool2d(z, 2))),
    fused("then mean", Stages(pooling="avg", window=HALVED), lambda k, z: k.avg_pool2d(z, HALVED),
          lambda f, z: f.avg_pool2d(z, 2)),
    fused("then ReLU, mean", Stages(True, False, "avg", OVERLAPPING), lambda k, z: k.avg_pool2d(np.maximum(z, 0), OVERLAPPING),
          lambda f, z: f.avg_pool2d(f.relu(z), 3, 2, 1, ceil_mode=True)),
    fused("then mean, ReLU", Stages(True, True, "avg", HALVED), lambda k, z: np.maximum(k.avg_pool2d(z, HALVED), 0),
          lambda f, z: f.relu(f.avg_pool2d(z, 2))),
    fused("then repeating", Stages(repeat=(2, 3)), lambda k, z: np.kron(z, np.ones((2, 3))),
          lambda f, z: f.interpolate(z, scale_factor=(2, 3))),
    fused("then ReLU, repeating", Stages(True, False, repeat=(2, 1)), lambda k, z: np.kron(np.maximum(z, 0), [[1], [1]]),
          lambda f, z: f.interpolate(f.relu(z), scale_factor=(2, 1))),
    fused("then repeating, ReLU", Stages(True, True, repeat=(1, 3)), lambda k, z: np.maximum(np.kron(z, [[1, 1, 1]]), 0),
          lambda f, z: f.relu(f.interpolate(z, scale_factor=(1, 3)))),
]
