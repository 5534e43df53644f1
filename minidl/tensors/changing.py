"""Changes in place: `x[i] = v`, `x += y`, and the methods whose names end in _. `minidl/inplace.py` has the rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidl import dtypes
from minidl.backend import as_number
from minidl.errors import DtypeError, GraphError, SettingError
from minidl.inplace import assign, become
from minidl.ops.index import split_key
from minidl.rng import Generator, default_generator
from minidl.tensors.arguments import is_numeric
from minidl.tensors.arithmetic import as_operand
from minidl.tensors.reductions import Reductions

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Changing(Reductions):
    """What changes the tensor itself. Every method here returns the tensor."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        keys, indices = split_key(key, self._index)
        if not is_numeric(value):
            raise DtypeError(f"got {value!r}, expected a number, a tensor or an array", where="x[...] = value")
        if as_number(value) is None:
            value = as_operand(value).to(self.dtype)
        value = dtypes.wrapped(value, self.dtype)
        assign(self._own(), keys, indices, value)

    def _own(self) -> Tensor:
        return self  # type: ignore[return-value]

    def _become(self, result: Tensor, name: str) -> Tensor:
        return become(self._own(), result, name)

    # -- arithmetic --

    def __iadd__(self, other: Any) -> Tensor:
        return self._become(self + other, "+=")

    def __isub__(self, other: Any) -> Tensor:
        return self._become(self - other, "-=")

    def __imul__(self, other: Any) -> Tensor:
        return self._become(self * other, "*=")

    def __itruediv__(self, other: Any) -> Tensor:
        return self._become(self / other, "/=")

    def __ifloordiv__(self, other: Any) -> Tensor:
        return self._become(self // other, "//=")

    def __imod__(self, other: Any) -> Tensor:
        return self._become(self % other, "%=")

    def __ipow__(self, other: Any) -> Tensor:
        return self._become(self ** other, "**=")

    def __iand__(self, other: Any) -> Tensor:
        return self._become(self & other, "&=")

    def __ior__(self, other: Any) -> Tensor:
        return self._become(self | other, "|=")

    def __ixor__(self, other: Any) -> Tensor:
        return self._become(self ^ other, "^=")

    mul_, pow_, remainder_, floor_divide_ = __imul__, __ipow__, __imod__, __ifloordiv__

    def add_(self, other: Any, *, alpha: float = 1) -> Tensor:
        """x += alpha · other."""
        return self._become(self.add(other, alpha=alpha), "add_")

    def sub_(self, other: Any, *, alpha: float = 1) -> Tensor:
        """x -= alpha · other."""
        return self._become(self.sub(other, alpha=alpha), "sub_")

    def div_(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """x /= other."""
        return self._become(self.div(other, rounding_mode=rounding_mode), "div_")

    def addcmul_(self, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
        """x += value · a · b."""
        return self._become(self.addcmul(a, b, value=value), "addcmul_")

    def addcdiv_(self, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
        """x += value · a / b."""
        return self._become(self.addcdiv(a, b, value=value), "addcdiv_")

    def lerp_(self, end: Tensor, weight: Any) -> Tensor:
        """x += weight · (end - x)."""
        return self._become(self.lerp(end, weight), "lerp_")

    def neg_(self) -> Tensor:
        """x = -x."""
        return self._become(-self, "neg_")

    def abs_(self) -> Tensor:
        """x = |x|."""
        return self._become(abs(self), "abs_")

    def exp_(self) -> Tensor:
        """x = e^x."""
        return self._become(self.exp(), "exp_")

    def log_(self) -> Tensor:
        """x = ln x."""
        return self._become(self.log(), "log_")

    def sqrt_(self) -> Tensor:
        """x = √x."""
        return self._become(self.sqrt(), "sqrt_")

    def square_(self) -> Tensor:
        """x = x²."""
        return self._become(self.square(), "square_")

    def relu_(self) -> Tensor:
        """x = max(x, 0)."""
        return self._become(self.relu(), "relu_")

    def tanh_(self) -> Tensor:
        """x = tanh x."""
        return self._become(self.tanh(), "tanh_")

    def sigmoid_(self) -> Tensor:
        """x = sigmoid x."""
        return self._become(self.sigmoid(), "sigmoid_")

    def sin_(self) -> Tensor:
        """x = sin x."""
        return self._become(self.sin(), "sin_")

    def cos_(self) -> Tensor:
        """x = cos x."""
        return self._become(self.cos(), "cos_")

    def sign_(self) -> Tensor:
        """x = the sign of x."""
        return self._become(self.sign(), "sign_")

    def round_(self) -> Tensor:
        """x = the nearest whole number."""
        return self._become(self.round(), "round_")

    def floor_(self) -> Tensor:
        """x = the largest whole number that is not above x."""
        return self._become(self.floor(), "floor_")

    def ceil_(self) -> Tensor:
        """x = the smallest whole number that is not below x."""
        return self._become(self.ceil(), "ceil_")

    def clamp_(self, min: Any = None, max: Any = None) -> Tensor:
        """x = x between min and max."""
        return self._become(self.clamp(min, max), "clamp_")

    clip_ = clamp_

    def clamp_min_(self, min: Any) -> Tensor:
        """x = the larger of x and min."""
        return self.clamp_(min=min)

    def clamp_max_(self, max: Any) -> Tensor:
        """x = the smaller of x and max."""
        return self.clamp_(max=max)

    # -- shape: the same memory, seen in another way --

    def squeeze_(self, dim: Any = None) -> Tensor:
        """Without the axes of size 1."""
        return self._seen_as(self.squeeze(dim), "squeeze_")

    def unsqueeze_(self, dim: int) -> Tensor:
        """With a new axis of size 1 at `dim`."""
        return self._seen_as(self.unsqueeze(dim), "unsqueeze_")

    def t_(self) -> Tensor:
        """The transpose of a matrix."""
        return self._seen_as(self.t(), "t_")

    def transpose_(self, dim0: int, dim1: int) -> Tensor:
        """Two axes exchanged."""
        return self._seen_as(self.transpose(dim0, dim1), "transpose_")

    def _seen_as(self, view: Tensor, name: str) -> Tensor:
        x = self._own()
        if x.node is not None and x.is_leaf:
            raise GraphError(f"got a leaf that requires grad, whose gradient would keep the old shape; do it under "
                             f"minidl.no_grad(), or out of place: x = x.{name[:-1]}(…)", where=name)
        x.array, x.node, x.version = view.array, view.node, view.version
        return x

    def detach_(self) -> Tensor:
        """Cut off from the graph: a leaf from now on, without gradient."""
        self.node = None
        return self._own()

    # -- numbers from elsewhere --

    def fill_(self, value: Any) -> Tensor:
        """Every element becomes `value`."""
        self[...] = value
        return self._own()

    def zero_(self) -> Tensor:
        """Every element becomes 0."""
        return self.fill_(0)

    def copy_(self, other: Any, non_blocking: bool = False) -> Tensor:
        """Take over the numbers of another tensor, broadcast to this shape and cast to this dtype."""
        self[...] = as_operand(other).to(self.device)
        return self._own()

    def masked_fill_(self, mask: Tensor, value: Any) -> Tensor:
        """x[mask] = value."""
        return self._become(self.masked_fill(mask, value), "masked_fill_")

    def scatter_(self, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
        """x[i, index[i, j]] = src[i, j] for dim=1, and so on; src may be a number."""
        return self._become(self.scatter(dim, index, src, value=value), "scatter_")

    def scatter_add_(self, dim: int, index: Tensor, src: Tensor) -> Tensor:
        """x[i, index[i, j]] += src[i, j] for dim=1, and so on."""
        return self._become(self.scatter_add(dim, index, src), "scatter_add_")

    def index_add_(self, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
        """x[:, index[j]] += source[:, j] for dim=1, and so on."""
        return self._become(self.index_add(dim, index, source, alpha=alpha), "index_add_")

    def fill_diagonal_(self, value: float) -> Tensor:
        """x[i, i] = value."""
        steps = range(min(self.shape))
        self[tuple(list(steps) for _ in self.shape)] = value
        return self._own()

    # -- random numbers, drawn on the host from one generator --

    def normal_(self, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Every element becomes a normal draw."""
        if not std >= 0:
            raise SettingError(f"got std={std}, expected 0 or more", where="normal_")
        return self._filled((generator or default_generator).numpy.normal(mean, std, self.shape))

    def uniform_(self, a: float = 0.0, b: float = 1.0, *, generator: Generator | None = None) -> Tensor:
        """Every element becomes a draw between a and b."""
        if not a <= b:
            raise SettingError(f"got a={a} and b={b}, expected a <= b", where="uniform_")
        return self._filled((generator or default_generator).numpy.uniform(a, b, self.shape))

    def bernoulli_(self, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
        """Every element becomes 1 with chance p, else 0."""
        draws = (generator or default_generator).numpy.random(self.shape)
        return self._filled(draws < (p._on_host() if hasattr(p, "_on_host") else p))

    def random_(self, low: int = 0, high: int | None = None, *, generator: Generator | None = None) -> Tensor:
        """Every element becomes a whole number from `low` up to, not including, `high`; `random_(n)` starts at 0."""
        first, last = (0, low) if high is None else (low, high)
        if not first < last:
            raise SettingError(f"got {first} and {last}, expected the first to be smaller", where="random_")
        return self._filled((generator or default_generator).numpy.integers(first, last, self.shape))

    def _filled(self, draws: Any) -> Tensor:
        self[...] = as_operand(draws).to(self.device)
        return self._own()
