"""One number out of many: sums, means, maxima, norms; and putting in order, which is how the largest are found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import dtypes, ops
from minidl.backend import xp_of
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.graph import is_tensor, new_tensor
from minidl.ops.reduce import axes_of, axis_of
from minidl.rng import default_generator
from minidl.tensors.arguments import Dim, ValuesAndIndices, numpy_names
from minidl.tensors.arithmetic import as_operand
from minidl.tensors.shaping import Shaping

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Reductions(Shaping):
    """What Tensor does along axes. `dim` may be called axis, and `keepdim` keepdims, as in NumPy."""

    __slots__ = ()

    # -- sums and what is made of them --

    @numpy_names
    def sum(self, dim: Dim = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The sum over the axes `dim` (all, if None)."""
        return ops.Sum(axes_of(dim, self.ndim), keepdim)(self.to(dtype=dtype))

    @numpy_names
    def mean(self, dim: Dim = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The mean over the axes `dim` (all, if None); of floats only, as in PyTorch."""
        x = self.to(dtype=dtype)
        if not x.is_floating_point():
            raise DtypeError(f"got a tensor of {self.dtype}, expected floats; use x.float().mean()", where="mean")
        return ops.Mean(axes_of(dim, self.ndim), keepdim)(x)

    @numpy_names
    def var(self, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *,
            correction: float | None = None) -> Tensor:
        """The variance, sum of (x - mean)² / (n - 1); correction (1, or 0 with unbiased=False) is what n is less by."""
        if isinstance(dim, bool):                           # x.var(False): the older way to say unbiased
            dim, unbiased = None, dim
        if correction is None:
            correction = 1 if unbiased else 0
        if not self.is_floating_point():
            raise DtypeError(f"got a tensor of {self.dtype}, expected floats; use x.float()", where="var")
        axes = axes_of(dim, self.ndim)
        n = math.prod(self.shape[axis] for axis in axes)
        from_mean = self - self.mean(axes, keepdim=True)
        return ops.Div()((from_mean * from_mean).sum(axes, keepdim), max(n - correction, 0))

    @numpy_names
    def std(self, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *,
            correction: float | None = None) -> Tensor:
        """The standard deviation, the root of `var`."""
        return _root(self.var(dim, unbiased, keepdim, correction=correction))

    @numpy_names
    def norm(self, p: Any = 2, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """(sum of |x|^p)^(1/p): the length for p=2 (or "fro"), the largest |x| for p=inf."""
        axes = axes_of(dim, self.ndim)
        if p in (2, "fro"):
            return ops.Norm(axes, keepdim)(self)
        if not isinstance(p, int | float):
            raise SettingError(f'got p={p!r}, expected a number, inf or "fro"', where="norm")
        if p == math.inf:
            return abs(self).amax(axes, keepdim)
        if p == -math.inf:
            return abs(self).amin(axes, keepdim)
        if p == 0:
            return (self != 0).to(self.dtype).sum(axes, keepdim)
        if p == 1:
            return abs(self).sum(axes, keepdim)
        total = (abs(self) ** p).sum(axes, keepdim)
        return ops.Where()(total == 0, 0, ops.Where()(total == 0, 1, total) ** (1 / p))      # gradient 0 at length 0

    @numpy_names
    def logsumexp(self, dim: Dim, keepdim: bool = False) -> Tensor:
        """log(sum of e^x), also where e^x would overflow."""
        return ops.LogSumExp(axes_of(dim, self.ndim), keepdim)(self)

    @numpy_names
    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """e^x divided by its sum along `dim`: positive, adding up to 1."""
        return ops.Softmax(axis_of(dim, self.ndim))(self.to(dtype=dtype))

    @numpy_names
    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """The logarithm of softmax, exact also where the softmax is too small for a float."""
        return ops.LogSoftmax(axis_of(dim, self.ndim))(self.to(dtype=dtype))

    @numpy_names
    def prod(self, dim: int | None = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
        """The product along `dim` (of all, if None). The halves are multiplied with each other until one is left."""
        x = self.to(dtype=dtype if dtype or self.is_floating_point() else dtypes.int64)
        x = x.ravel() if dim is None else x.movedim(axis_of(dim, self.ndim), 0) if self.ndim else x.ravel()
        while len(x) > 1:
            half = len(x) // 2
            # (2h,) or (2h + 1,) -> (h,) or (h + 1,): an odd one out waits for the next round
            x = ops.Cat(0)(x[:half] * x[half:2 * half], x[2 * half:])
        y = x[0] if len(x) else ops.Cast(x.dtype)(new_tensor(xp_of(x.array).ones(x.shape[1:])))
        return self._unshared(y.unsqueeze(dim) if keepdim and dim is not None and self.ndim else y)

    @numpy_names
    def cumsum(self, dim: int, dtype: Any = None) -> Tensor:
        """The sums of all elements so far along `dim`."""
        return ops.CumSum(axis_of(dim, self.ndim))(self.to(dtype=dtype)) if self.ndim else self.sum(dtype=dtype)

    @numpy_names
    def cumprod(self, dim: int, dtype: Any = None) -> Tensor:
        """The products of all elements so far along `dim`. Each round doubles how many factors have gone in."""
        x = self.to(dtype=dtype if dtype or self.is_floating_point() else dtypes.int64)
        if x.ndim == 0:
            return self._unshared(x)
        y, reach = x.movedim(dim, 0), 1
        while reach < len(y):
            y = ops.Cat(0)(y[:reach], y[reach:] * y[:-reach])
            reach *= 2
        return self._unshared(y.movedim(0, dim))

    # -- the largest and the smallest --

    @numpy_names
    def max(self, dim: Any = None, keepdim: bool = False) -> Any:
        """The largest element; with `dim`, (values, indices) along it. Of equal elements the first one counts.

        With a tensor, the larger of the two, element by element.
        """
        if is_tensor(dim):
            return self.maximum(dim)
        return self._pick(self.argmax(dim, keepdim=True), dim, keepdim)

    @numpy_names
    def min(self, dim: Any = None, keepdim: bool = False) -> Any:
        """The smallest element; with `dim`, (values, indices) along it. Of equal elements the first one counts.

        With a tensor, the smaller of the two, element by element.
        """
        if is_tensor(dim):
            return self.minimum(dim)
        return self._pick(self.argmin(dim, keepdim=True), dim, keepdim)

    def _pick(self, indices: Tensor, dim: int | None, keepdim: bool) -> Any:
        """The elements at `indices`: they are all of the gradient that a maximum has."""
        if dim is None:
            return self.flatten()[indices.flatten()].reshape(())
        if self.ndim == 0:
            return ValuesAndIndices(self.clone(), indices.reshape(()))
        values = self.gather(dim, indices)
        if not keepdim:
            values, indices = values.squeeze(dim), indices.squeeze(dim)
        return ValuesAndIndices(values, indices)

    @numpy_names
    def amax(self, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """The largest element over the axes `dim`, without indices."""
        return self._over_several("max", dim, keepdim)

    @numpy_names
    def amin(self, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """The smallest element over the axes `dim`, without indices."""
        return self._over_several("min", dim, keepdim)

    def _over_several(self, name: str, dim: Dim, keepdim: bool) -> Tensor:
        axes = axes_of(dim, self.ndim)
        others = tuple(axis for axis in range(self.ndim) if axis not in axes)
        last = self.permute(*others, *axes).flatten(len(others)) if axes else self.reshape(1)
        values: Tensor = getattr(last, name)(-1).values                      # (others…, all of the axes)
        shape = tuple(1 if axis in axes else n for axis, n in enumerate(self.shape))
        return values.reshape(shape) if keepdim else values

    @numpy_names
    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the largest element along `dim` (in the flattened tensor, if None)."""
        self._check_not_empty(dim, "argmax")
        return ops.ArgMax(None if dim is None else axis_of(dim, self.ndim), keepdim)(self)

    @numpy_names
    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The index of the smallest element along `dim` (in the flattened tensor, if None)."""
        self._check_not_empty(dim, "argmin")
        return ops.ArgMin(None if dim is None else axis_of(dim, self.ndim), keepdim)(self)

    def _check_not_empty(self, dim: int | None, where: str) -> None:
        if (self.numel() if dim is None or self.ndim == 0 else self.size(dim)) == 0:
            raise ShapeError(f"got a tensor of shape {self.shape}, expected at least one element to choose from",
                             where=where)

    # -- order --

    @numpy_names
    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
        """The indices that put the elements along `dim` in order; equal ones stay in their order."""
        x = self.unsqueeze(0) if self.ndim == 0 else self
        return ops.ArgSort(axis_of(dim, x.ndim), descending)(x).reshape(self.shape)

    @numpy_names
    def sort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesAndIndices:
        """(values, indices) along `dim` in order; equal ones stay in their order."""
        indices = self.argsort(dim, descending)
        return ValuesAndIndices(self.gather(dim, indices) if self.ndim else self.clone(), indices)

    @numpy_names
    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ValuesAndIndices:
        """(values, indices) of the k largest (or smallest) elements along `dim`, the most extreme first."""
        n = self.shape[axis_of(dim, self.ndim)] if self.ndim else 1
        if not 0 <= k <= n:
            raise SettingError(f"got k={k}, expected 0 to {n}: there are {n} elements along dim {dim}", where="topk")
        if self.ndim == 0:
            return self.sort()
        indices = self.argsort(dim, descending=largest).narrow(dim, 0, k)
        return ValuesAndIndices(self.gather(dim, indices), indices)

    @numpy_names
    def median(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """The element in the middle, the lower one of two; with `dim`, (values, indices) along it."""
        if dim is None:
            self._check_not_empty(None, "median")
            return self.ravel().median(0).values
        if self.ndim == 0:
            return self.sort()
        self._check_not_empty(dim, "median")
        values, indices = self.sort(dim)
        n = self.shape[axis_of(dim, self.ndim)]
        has_nan = values.narrow(dim, n - 1, 1).isnan()      # nan is sorted behind all numbers, and is then the median
        parts = (ops.Where()(has_nan, x.narrow(dim, n - 1, 1), x.narrow(dim, (n - 1) // 2, 1))
                 for x in (values, indices))
        return ValuesAndIndices(*(part if keepdim else part.squeeze(dim) for part in parts))

    @numpy_names
    def quantile(self, q: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """The number that the share q of the elements are below, between two elements in proportion; q from 0 to 1."""
        shares = as_operand(q if is_tensor(q) else np.asarray(q, self.dtype)).to(self)
        if not self.is_floating_point() or bool(((shares < 0) | (shares > 1)).any()):
            raise SettingError(f"got q={q} for {self.dtype}, expected numbers between 0 and 1 for floats",
                               where="quantile")
        axis = 0 if dim is None else axis_of(dim, self.ndim)
        in_order = (self.ravel() if dim is None else self.movedim(axis, 0)).sort(0).values        # (n, …)
        place = shares.ravel() * (len(in_order) - 1)
        below, above = place.floor().long(), place.ceil().long()
        part = (place - place.floor()).reshape(-1, *[1] * (in_order.ndim - 1))                     # (k, 1, …)
        values = in_order[below] * (1 - part) + in_order[above] * part                             # (k, …)
        if keepdim:
            values = values.reshape(len(place), *[1] * self.ndim) if dim is None else values.unsqueeze(axis + 1)
        return values if shares.ndim else values[0]

    # -- questions and counts --

    @numpy_names
    def any(self, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """Whether any element is not 0."""
        return ops.Any(axes_of(dim, self.ndim), keepdim)(self)

    @numpy_names
    def all(self, dim: Dim = None, keepdim: bool = False) -> Tensor:
        """Whether all elements are not 0."""
        return ops.All(axes_of(dim, self.ndim), keepdim)(self)

    @numpy_names
    def count_nonzero(self, dim: Dim = None) -> Tensor:
        """How many elements are not 0."""
        return (self != 0).sum(dim)

    def unique(self, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
        """The different elements in order; also where each one went, and how often each occurs, if asked for."""
        # NumPy does it on the host for any device; the answer's size is unknown before, so it must be waited for
        values, inverse, counts = np.unique(self._on_host(), return_inverse=True, return_counts=True,
                                            equal_nan=False)
        results = [values] + [inverse.reshape(self.shape)] * return_inverse + [counts] * return_counts
        moved = tuple(new_tensor(result).to(self.device) for result in results)
        return moved[0] if len(moved) == 1 else moved

    def bincount(self, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
        """How often each of 0, 1, 2, … occurs; or the sum of the weights beside it."""
        if self.dtype.kind not in "iu" or self.ndim != 1 or (self.numel() and int(self.min()) < 0):
            raise DtypeError(f"got {self.dtype} of shape {self.shape}, expected a vector of integers from 0 on",
                             where="bincount")
        if weights is not None and (not is_tensor(weights) or weights.shape != self.shape):
            raise ShapeError(f"got weights of shape {getattr(weights, 'shape', ())}, expected {self.shape}",
                             where="bincount")
        counts = xp_of(self.array).bincount(self.array, None if weights is None else weights.array, minlength)
        return new_tensor(counts if weights is None else counts.astype(weights.dtype))

    def trace(self) -> Tensor:
        """The sum of the diagonal of a matrix."""
        if self.ndim != 2:
            raise ShapeError(f"got {self.shape}, expected a matrix", where="trace")
        return self.diagonal().sum()

    def multinomial(self, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Tensor:
        """Indices drawn with chances in proportion to the numbers along the last axis: (…, n) -> (…, num_samples)."""
        weights = self.detach()._on_host().astype("float64")
        rows = weights.reshape(-1, weights.shape[-1])                        # (n,) or (N, n) -> (N, n)
        if (rows < 0).any() or not (rows.sum(1) > 0).all():
            raise SettingError("got negative chances or only zeros, expected numbers of 0 or more with a sum above 0",
                               where="multinomial")
        if not replacement and (rows > 0).sum(1).min() < num_samples:
            raise SettingError(f"got num_samples={num_samples}, expected at most as many as there are chances above "
                               f"0; use replacement=True to draw again", where="multinomial")
        draws = [(generator or default_generator).numpy.choice(len(row), num_samples, replacement, row / row.sum())
                 for row in rows]
        return new_tensor(xp_of(self.array).asarray(draws)).reshape(*self.shape[:-1], num_samples)


def _root(v: Tensor) -> Tensor:
    """√v, whose gradient at 0 is 0 instead of inf: numbers that are all equal have a deviation to grow, not a slope."""
    return ops.Where()(v == 0, 0, ops.Where()(v == 0, 1, v).sqrt())
