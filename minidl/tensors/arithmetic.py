"""Operators and functions that work on single elements: arithmetic, comparisons, logic, exp and its kin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import dtypes, ops
from minidl.errors import DtypeError, SettingError, ShapeError
from minidl.graph import is_tensor, new_tensor
from minidl.ops.linalg import matmul
from minidl.tensors.arguments import host_array, is_numeric
from minidl.tensors.base import TensorBase

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Arithmetic(TensorBase):
    """What Tensor does to each element by itself, and matrix products."""

    __slots__ = ()

    # -- operators --

    def __add__(self, other: Any) -> Tensor:
        return ops.Add()(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return ops.Add()(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return ops.Sub()(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.Sub()(other, self)

    def __mul__(self, other: Any) -> Tensor:
        """x · other."""
        return ops.Mul()(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return ops.Mul()(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.Div()(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.Div()(other, self)

    def __floordiv__(self, other: Any) -> Tensor:
        """x / other, rounded down."""
        return ops.FloorDiv()(self, other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return ops.FloorDiv()(other, self)

    def __mod__(self, other: Any) -> Tensor:
        """What is left of x after whole times other, with the sign of other."""
        return ops.Remainder()(self, other)

    def __rmod__(self, other: Any) -> Tensor:
        return ops.Remainder()(other, self)

    def __pow__(self, other: Any) -> Tensor:
        """x to the power of other."""
        return ops.Pow()(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.Pow()(other, self)

    def __neg__(self) -> Tensor:
        """-x."""
        return ops.Neg()(self)

    def __pos__(self) -> Tensor:
        return self  # type: ignore[return-value]

    def __abs__(self) -> Tensor:
        """|x|; the gradient at 0 is 0."""
        return ops.Abs()(self)

    def __matmul__(self, other: Any) -> Tensor:
        """The matrix product."""
        return matmul(self, as_operand(other))  # type: ignore[arg-type]

    def __rmatmul__(self, other: Any) -> Tensor:
        return matmul(as_operand(other), self)  # type: ignore[arg-type]

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        """Where x and other are equal."""
        if not is_numeric(other):
            return NotImplemented                           # x == None is False, as for any object
        return ops.Equal()(self, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        """Where x and other differ."""
        if not is_numeric(other):
            return NotImplemented
        return ops.NotEqual()(self, other)

    def __hash__(self) -> int:                              # a class that defines __eq__ loses it otherwise
        return id(self)

    def __gt__(self, other: Any) -> Tensor:
        """Where x is larger."""
        return ops.Greater()(self, other)

    def __ge__(self, other: Any) -> Tensor:
        """Where x is larger or equal."""
        return ops.GreaterEqual()(self, other)

    def __lt__(self, other: Any) -> Tensor:
        """Where x is smaller."""
        return ops.Greater()(other, self)

    def __le__(self, other: Any) -> Tensor:
        """Where x is smaller or equal."""
        return ops.GreaterEqual()(other, self)

    def __and__(self, other: Any) -> Tensor:
        """x and other; bit by bit of integers."""
        return ops.And()(self, other)

    def __or__(self, other: Any) -> Tensor:
        """x or other; bit by bit of integers."""
        return ops.Or()(self, other)

    def __xor__(self, other: Any) -> Tensor:
        """Either x or other; bit by bit of integers."""
        return ops.Xor()(self, other)

    def __invert__(self) -> Tensor:
        """Not x; bit by bit of integers."""
        return ops.Not()(self)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__

    # -- the same by name --

    mul = multiply = __mul__
    pow, neg, negative, abs, absolute = __pow__, __neg__, __neg__, __abs__, __abs__
    remainder, floor_divide = __mod__, __floordiv__
    eq, ne, gt, ge, lt, le = __eq__, __ne__, __gt__, __ge__, __lt__, __le__
    not_equal, greater, greater_equal, less, less_equal = __ne__, __gt__, __ge__, __lt__, __le__
    matmul = mm = __matmul__

    def add(self, other: Any, *, alpha: float = 1) -> Tensor:
        """x + alpha · other."""
        return ops.Add()(self, other if alpha == 1 else self._times(other, alpha))

    def sub(self, other: Any, *, alpha: float = 1) -> Tensor:
        """x - alpha · other."""
        return ops.Sub()(self, other if alpha == 1 else self._times(other, alpha))

    subtract = sub

    def _times(self, other: Any, alpha: float) -> Any:
        """alpha · other, in the type that x + other has."""
        if not is_tensor(other):
            return other * alpha
        common = dtypes.result_type([(self.dtype, self.ndim), (other.dtype, other.ndim)])
        if isinstance(alpha, float) and not dtypes.is_floating(common):
            raise DtypeError(f"got alpha={alpha} for tensors of {self.dtype} and {other.dtype}, expected an integer",
                             where="add")
        return other.to(common) * alpha

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """x / other; rounding_mode "floor" rounds down, "trunc" towards zero."""
        if rounding_mode is None:
            return ops.Div()(self, other)
        if rounding_mode == "floor":
            return ops.FloorDiv()(self, other)
        if rounding_mode == "trunc":
            quotient = ops.FloorDiv()(self - self.fmod(other), other)            # exact for integers of any size
            return ops.Div()(self, other).trunc() if quotient.is_floating_point() else quotient
        raise SettingError(f'got rounding_mode={rounding_mode!r}, expected None, "floor" or "trunc"', where="div")

    divide = true_divide = div

    def bmm(self, other: Tensor) -> Tensor:
        """The products of two batches of matrices: (N, n, k) and (N, k, m) -> (N, n, m)."""
        if self.ndim != 3 or other.ndim != 3 or len(self.array) != len(other.array):
            raise ShapeError(f"got {self.shape} and {other.shape}, expected (N, n, k) and (N, k, m)", where="bmm")
        return self @ other

    def mv(self, vector: Tensor) -> Tensor:
        """A matrix times a vector: (n, k) and (k,) -> (n,)."""
        if self.ndim != 2 or vector.ndim != 1:
            raise ShapeError(f"got {self.shape} and {vector.shape}, expected a matrix and a vector", where="mv")
        return self @ vector

    def dot(self, other: Tensor) -> Tensor:
        """The sum of the products of two vectors' elements."""
        if self.ndim != 1 or other.ndim != 1:
            raise ShapeError(f"got {self.shape} and {other.shape}, expected two vectors", where="dot")
        return self @ other

    inner = dot

    def outer(self, other: Tensor) -> Tensor:
        """y[i, j] = x[i] · other[j] of two vectors."""
        if self.ndim != 1 or other.ndim != 1:
            raise ShapeError(f"got {self.shape} and {other.shape}, expected two vectors", where="outer")
        return ops.Reshape((-1, 1) if self.numel() else (0, 1))(self) * other                # (n, 1) · (m,) -> (n, m)

    def addmm(self, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        """beta · x + alpha · a @ b."""
        product = a @ b if alpha == 1 else (a @ b) * alpha
        return product if beta == 0 else product + self * beta

    def addcmul(self, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
        """x + value · a · b."""
        return self + a * b * value

    def addcdiv(self, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
        """x + value · a / b."""
        return self + a / b * value

    def fmod(self, other: Any) -> Tensor:
        """What is left of x after whole times other, with the sign of x."""
        return ops.Fmod()(self, other)

    def nan_to_num(self, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
        """x with numbers in place of nan and of the infinities (the largest that the type has, unless given)."""
        if not self.is_floating_point():
            return self  # type: ignore[return-value]
        largest = float(np.finfo(str(self.dtype)).max)
        x = ops.Where()(self.isnan(), nan, self)
        x = ops.Where()(x == math.inf, largest if posinf is None else posinf, x)
        return ops.Where()(x == -math.inf, -largest if neginf is None else neginf, x)

    def logaddexp(self, other: Tensor) -> Tensor:
        """log(e^x + e^other), also where they would overflow."""
        shape = np.broadcast_shapes(self.shape, other.shape)
        return ops.LogSumExp((0,), False)(ops.Cat(0)(*(ops.BroadcastTo((1, *shape))(x) for x in (self, other))))

    def lerp(self, end: Tensor, weight: Any) -> Tensor:
        """x + weight · (end - x): from x (weight 0) to end (weight 1) on a straight line."""
        return ops.Add()(self, weight * (end - self))

    # -- exponentials, roots, waves --

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return ops.Exp()(self)

    def expm1(self) -> Tensor:
        """e^x - 1, exact for small x."""
        return ops.Expm1()(self)

    def exp2(self) -> Tensor:
        """2 to the power of each element."""
        return ops.Pow()(2.0, self)

    def log(self) -> Tensor:
        """The natural logarithm of each element."""
        return ops.Log()(self)

    def log1p(self) -> Tensor:
        """ln(1 + x), exact for small x."""
        return ops.Log1p()(self)

    def log2(self) -> Tensor:
        """The logarithm to base 2."""
        return ops.Log2()(self)

    def log10(self) -> Tensor:
        """The logarithm to base 10."""
        return ops.Log10()(self)

    def sqrt(self) -> Tensor:
        """The square root of each element."""
        return ops.Sqrt()(self)

    def rsqrt(self) -> Tensor:
        """1 / √x."""
        return self ** -0.5 if self.is_floating_point() else self.float() ** -0.5

    def square(self) -> Tensor:
        """x · x."""
        return self * self

    def reciprocal(self) -> Tensor:
        """1 / x."""
        return 1 / self

    def sin(self) -> Tensor:
        """The sine of x radians."""
        return ops.Sin()(self)

    def cos(self) -> Tensor:
        """The cosine of x radians."""
        return ops.Cos()(self)

    def tan(self) -> Tensor:
        """The tangent of x radians."""
        return self.sin() / self.cos()

    def atan(self) -> Tensor:
        """The angle between -π/2 and π/2 whose tangent is x."""
        return ops.Atan()(self)

    arctan = atan

    def atan2(self, other: Any) -> Tensor:
        """The angle between -π and π of the point (other, x)."""
        return ops.Atan2()(self, other)

    def asin(self) -> Tensor:
        """The angle between -π/2 and π/2 whose sine is x."""
        return ops.Asin()(self)

    def acos(self) -> Tensor:
        """The angle between 0 and π whose cosine is x."""
        return ops.Acos()(self)

    def sinh(self) -> Tensor:
        """(e^x - e^-x) / 2."""
        return ops.Sinh()(self)

    def cosh(self) -> Tensor:
        """(e^x + e^-x) / 2."""
        return ops.Cosh()(self)

    def tanh(self) -> Tensor:
        """The hyperbolic tangent."""
        return ops.Tanh()(self)

    def sigmoid(self) -> Tensor:
        """1 / (1 + e^-x)."""
        return ops.Sigmoid()(self)

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return ops.ReLU()(self)

    def erf(self) -> Tensor:
        """The error function."""
        return ops.Erf()(self)

    # -- bounds and rounding --

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """x, moved up to `min` and down to `max`: numbers, tensors or None."""
        if is_tensor(min) or is_tensor(max):
            bounded = self if min is None else ops.Maximum()(self, min)
            return bounded if max is None else ops.Minimum()(bounded, max)  # type: ignore[return-value]
        if min is None and max is None:
            raise SettingError("got no bound, expected min, max or both", where="clamp")
        if min is not None and max is not None and min > max:
            raise SettingError(f"got min={min} above max={max}, between which there is nothing", where="clamp")
        if not self.is_floating_point() and any(isinstance(bound, float) for bound in (min, max)):
            return self.float().clamp(min, max)             # the result may be a bound, which is no integer
        return ops.Clamp(min, max)(self)

    clip = clamp

    def clamp_min(self, min: Any) -> Tensor:
        """The larger of x and min."""
        return self.clamp(min=min)

    def clamp_max(self, max: Any) -> Tensor:
        """The smaller of x and max."""
        return self.clamp(max=max)

    def maximum(self, other: Tensor) -> Tensor:
        """The larger of two elements; each gets half of the gradient where they are equal."""
        return ops.Maximum()(self, other)

    def minimum(self, other: Tensor) -> Tensor:
        """The smaller of two elements; each gets half of the gradient where they are equal."""
        return ops.Minimum()(self, other)

    def sign(self) -> Tensor:
        """1, 0 or -1. No gradient."""
        return ops.Sign()(self)

    def floor(self) -> Tensor:
        """The largest whole number that is not above x. No gradient."""
        return ops.Floor()(self)

    def ceil(self) -> Tensor:
        """The smallest whole number that is not below x. No gradient."""
        return ops.Ceil()(self)

    def trunc(self) -> Tensor:
        """x without what stands behind the point. No gradient."""
        return ops.Trunc()(self)

    def round(self, *, decimals: int = 0) -> Tensor:
        """The nearest whole number (or with `decimals` digits), halves to the even neighbour. No gradient."""
        return ops.Round(decimals)(self)

    # -- questions --

    def isnan(self) -> Tensor:
        """Where x is not a number."""
        return ops.NotEqual()(self, self)                   # nan is the only number that does not equal itself

    def isinf(self) -> Tensor:
        """Where x is infinite."""
        return abs(self) == math.inf

    def isfinite(self) -> Tensor:
        """Where x is neither infinite nor not a number."""
        return abs(self) < math.inf

    def isclose(self, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Tensor:
        """Where |x - other| <= atol + rtol · |other|; infinities only where they are equal."""
        near = ops.Equal()(self, other) | ((self - other).abs() <= atol + rtol * abs(other)) & other.isfinite()
        return near | self.isnan() & other.isnan() if equal_nan else near

    def allclose(self, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
        """Whether all elements are close to those of another tensor: |x - other| <= atol + rtol · |other|."""
        return bool(self.isclose(other, rtol, atol, equal_nan).all())

    def equal(self, other: Tensor) -> bool:
        """Whether shape and all elements are the same."""
        return self.shape == other.shape and bool(ops.Equal()(self, other).all())

    def logical_and(self, other: Tensor) -> Tensor:
        """Where both are not 0."""
        return self.bool() & as_operand(other).bool()

    def logical_or(self, other: Tensor) -> Tensor:
        """Where at least one is not 0."""
        return self.bool() | as_operand(other).bool()

    def logical_xor(self, other: Tensor) -> Tensor:
        """Where exactly one is not 0."""
        return self.bool() ^ as_operand(other).bool()

    def logical_not(self) -> Tensor:
        """Where x is 0."""
        return ~self.bool()


def as_operand(data: Any) -> Tensor:
    """Anything that an expression may hold beside a tensor, such as an array or a list, as a tensor."""
    if is_tensor(data):
        return data  # type: ignore[no-any-return]
    if not is_numeric(data):
        raise DtypeError(f"got {data!r}, expected a tensor, an array or numbers")
    return new_tensor(host_array(data))
