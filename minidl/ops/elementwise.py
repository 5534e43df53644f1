"""Operations on each element by itself: arithmetic, exp, log and sine, rounding, comparisons, logic.

Two inputs of different shapes are broadcast as in NumPy; the engine sums the gradients back to the inputs' shapes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from minidl import dtypes
from minidl.backend import Array, Backend, backend_of, xp_of
from minidl.errors import SettingError
from minidl.graph import Op

if TYPE_CHECKING:
    from minidl.tensors import Tensor


class Add(Op):
    """y = a + b;   dL/da = g,   dL/db = g."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a + b

    def backward(self, g: Tensor) -> tuple[Tensor, Tensor]:
        return g, g


class Sub(Op):
    """y = a - b;   dL/da = g,   dL/db = -g."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a - b

    def backward_a(self, g: Tensor) -> Tensor:
        return g

    def backward_b(self, g: Tensor) -> Tensor:
        return -g


class Mul(Op):
    """y = a · b;   dL/da = g · b,   dL/db = g · a."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a * b

    def backward_a(self, g: Tensor, b: Tensor) -> Tensor:
        return g * b

    def backward_b(self, g: Tensor, a: Tensor) -> Tensor:
        return g * a


class Div(Op):
    """y = a / b;   dL/da = g / b,   dL/db = -g · y / b. Integers divide to floats."""

    broadcasts = True
    dtype_rule = "float"

    def forward(self, a: Array, b: Array) -> Array:
        return a / b

    def backward_a(self, g: Tensor, b: Tensor) -> Tensor:
        return g / b

    def backward_b(self, g: Tensor, b: Tensor, y: Tensor) -> Tensor:
        return -g * y / b                                   # not a / b², whose square over- or underflows early


class FloorDiv(Op):
    """y = floor(a / b), the whole times that b fits into a. No gradient: y is flat but for its jumps."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        _refuse_integers_by_zero(a, b)
        return a // b


class Remainder(Op):
    """y = a - b · floor(a / b), with the sign of b;   dL/da = g,   dL/db = -g · floor(a / b)."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        _refuse_integers_by_zero(a, b)
        return a % b

    def backward_a(self, g: Tensor) -> Tensor:
        return g

    def backward_b(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return -g * FloorDiv()(a, b)


class Fmod(Op):
    """y = a - b · trunc(a / b), with the sign of a;   dL/da = g,   dL/db = -g · trunc(a / b)."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        _refuse_integers_by_zero(a, b)
        return _array_module(a, b).fmod(a, b)

    def backward_a(self, g: Tensor) -> Tensor:
        return g

    def backward_b(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return -g * Trunc()(Div()(a, b))


def _refuse_integers_by_zero(a: Array, b: Array) -> None:
    """Integers have no inf to answer with; NumPy says 0. Checked on the host: on a GPU it would mean to wait."""
    if isinstance(b, int | float):
        has_zero = b == 0 and not isinstance(b, float)
    else:
        has_zero = b.dtype.kind in "iu" and backend_of(b).is_host and bool((b == 0).any())
    if has_zero and getattr(a, "dtype", dtypes.int64).kind in "iub":
        raise SettingError("got a 0 to divide integers by; convert to floats first, x.float()", where="division")


class Neg(Op):
    """y = -x;   dL/dx = -g."""

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, g: Tensor) -> Tensor:
        return -g


class Pow(Op):
    """y = a^b;   dL/da = g · b · a^(b-1),   dL/db = g · y · log a."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a ** b

    def backward_a(self, g: Tensor, a: Tensor, b: Tensor | float) -> Tensor:
        # at b = 0 the factor b is 0 already; a^0 keeps it 0 where a^-1 would make it nan
        return g * b * a ** (b - 1 + (b == 0))

    def backward_b(self, g: Tensor, a: Tensor | float, y: Tensor) -> Tensor:
        if isinstance(a, int | float):                      # 2 ** x
            return g * y * (math.log(a) if a > 0 else 0.0 if a == 0 else math.nan)
        # at a = 0 also y = 0; log 1 keeps the product 0 where log 0 would make it nan
        return g * y * (a + (a == 0)).log()


class Exp(Op):
    """y = e^x;   dL/dx = g · y."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).exp(x)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return g * y


class Log(Op):
    """y = ln x;   dL/dx = g / x."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).log(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g / x


class Log2(Op):
    """y = log₂ x;   dL/dx = g / (x · ln 2). Not ln x / ln 2, which misses whole powers by a digit."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).log2(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g / (x * math.log(2))


class Log10(Op):
    """y = log₁₀ x;   dL/dx = g / (x · ln 10)."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).log10(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g / (x * math.log(10))


class Log1p(Op):
    """y = ln(1 + x), exact also where 1 + x would round to 1;   dL/dx = g / (1 + x)."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).log1p(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g / (1 + x)


class Expm1(Op):
    """y = e^x - 1, exact also where e^x would round to 1;   dL/dx = g · (y + 1)."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).expm1(x)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return g * (y + 1)


class Sqrt(Op):
    """y = √x;   dL/dx = g / 2y."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).sqrt(x)

    def backward(self, g: Tensor, y: Tensor) -> Tensor:
        return g / (2 * y)


class Sin(Op):
    """y = sin x;   dL/dx = g · cos x."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).sin(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g * x.cos()


class Cos(Op):
    """y = cos x;   dL/dx = -g · sin x."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).cos(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return -g * x.sin()


class Sinh(Op):
    """y = (e^x - e^-x) / 2;   dL/dx = g · cosh x."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).sinh(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g * x.cosh()


class Cosh(Op):
    """y = (e^x + e^-x) / 2;   dL/dx = g · sinh x."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).cosh(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g * x.sinh()


class Atan(Op):
    """y = arctan x;   dL/dx = g / (1 + x²)."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).arctan(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g / (1 + x * x)


class Asin(Op):
    """y = arcsin x;   dL/dx = g / √((1 - x)(1 + x))."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).arcsin(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g / ((1 - x) * (1 + x)).sqrt()


class Acos(Op):
    """y = arccos x;   dL/dx = -g / √((1 - x)(1 + x))."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return xp_of(x).arccos(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return -g / ((1 - x) * (1 + x)).sqrt()


class Atan2(Op):
    """y = the angle of the point (b, a), between -π and π;   dL/da = g · b / r²,   dL/db = -g · a / r².

    r² = a² + b². At the origin, which has no angle, the gradients are 0.
    """

    broadcasts = True
    dtype_rule = "float"

    def forward(self, a: Array, b: Array) -> Array:
        return _array_module(a, b).arctan2(a, b)

    def backward_a(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return g * b / self._radius_squared(a, b)

    def backward_b(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return -g * a / self._radius_squared(a, b)

    def _radius_squared(self, a: Tensor, b: Tensor) -> Tensor:
        r2 = a * a + b * b
        return Where()(r2 == 0, 1, r2)                      # there a and b are 0, and so are the quotients


class Erf(Op):
    """y = 2/√π · the integral of e^-t² from 0 to x;   dL/dx = g · 2/√π · e^-x²."""

    dtype_rule = "float"

    def forward(self, x: Array) -> Array:
        return backend_of(x).erf(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g * (2 / math.sqrt(math.pi)) * (-x * x).exp()


class Abs(Op):
    """y = |x|;   dL/dx = g · sign(x), which is 0 at the kink x = 0."""

    def forward(self, x: Array) -> Array:
        return abs(x)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        return g * Sign()(x)


class Maximum(Op):
    """y = the larger of a and b;   dL/da = g where a > b, g/2 where they are equal, else 0."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return _array_module(a, b).maximum(a, b)

    def backward_a(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return Where()(a == b, g / 2, Where()(a > b, g, 0))

    def backward_b(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return Where()(a == b, g / 2, Where()(b > a, g, 0))


class Minimum(Op):
    """y = the smaller of a and b;   dL/da = g where a < b, g/2 where they are equal, else 0."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return _array_module(a, b).minimum(a, b)

    def backward_a(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return Where()(a == b, g / 2, Where()(a < b, g, 0))

    def backward_b(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return Where()(a == b, g / 2, Where()(b < a, g, 0))


def _array_module(a: Array, b: Array) -> Any:
    """The array module of two operands, one of which may be a Python number."""
    return xp_of(b if isinstance(a, int | float) else a)


class Clamp(Op):
    """y = x, moved up to `low` and down to `high` (None: no bound);   dL/dx = g where low <= x <= high, else 0."""

    def __init__(self, low: float | None, high: float | None) -> None:
        self.low = low
        self.high = high

    def forward(self, x: Array) -> Array:
        return xp_of(x).clip(x, self.low, self.high)

    def backward(self, g: Tensor, x: Tensor) -> Tensor:
        if self.low is not None:
            g = Where()(x >= self.low, g, 0)
        if self.high is not None:
            g = Where()(x <= self.high, g, 0)
        return g


class Clone(Op):
    """y = x in memory of its own, in the same layout;   dL/dx = g."""

    def forward(self, x: Array) -> Array:
        copy = xp_of(x).empty_like(x)                       # x.copy() would fall back to C order
        copy[...] = x
        return copy

    def backward(self, g: Tensor) -> Tensor:
        return g


class Where(Op):
    """y = a where the condition holds, else b;   dL/da = g where it holds, else 0;   dL/db = the other way round.

    Unlike a product with the mask, this keeps an infinite gradient from becoming nan where it does not count.
    """

    broadcasts = True

    def forward(self, condition: Array, a: Array, b: Array) -> Array:
        return xp_of(condition).where(condition, a, b)

    def backward_a(self, g: Tensor, condition: Tensor) -> Tensor:
        return Where()(condition, g, 0)

    def backward_b(self, g: Tensor, condition: Tensor) -> Tensor:
        return Where()(condition, 0, g)


class ToDevice(Op):
    """y = x on another device;   dL/dx = g, brought back."""

    def __init__(self, there: Backend) -> None:
        self.there = there

    def forward(self, x: Array) -> Array:
        self.here = backend_of(x)
        host = self.here.to_host(x)
        return self.there.from_host(host)

    def backward(self, g: Tensor) -> Tensor:
        return ToDevice(self.here)(g)


# -- rounding: flat but for jumps, so no gradient ------------------------------------------------------------------

class Sign(Op):
    """y = 1, 0 or -1 for positive, zero and negative x."""

    def forward(self, x: Array) -> Array:
        return x if x.dtype.kind == "b" else xp_of(x).sign(x)


class Floor(Op):
    """The largest whole number <= x."""

    def forward(self, x: Array) -> Array:
        return xp_of(x).floor(x).astype(x.dtype)


class Ceil(Op):
    """The smallest whole number >= x."""

    def forward(self, x: Array) -> Array:
        return xp_of(x).ceil(x).astype(x.dtype)


class Trunc(Op):
    """x without what stands behind the point."""

    def forward(self, x: Array) -> Array:
        return xp_of(x).trunc(x).astype(x.dtype)


class Round(Op):
    """The nearest number with `decimals` digits behind the point; halves go to the even neighbour."""

    def __init__(self, decimals: int = 0) -> None:
        self.decimals = decimals

    def forward(self, x: Array) -> Array:
        return x.round(self.decimals)


# -- logic: of booleans, or bit by bit of integers; no gradient ----------------------------------------------------

class And(Op):
    """y = a and b."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a & b


class Or(Op):
    """y = a or b."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a | b


class Xor(Op):
    """y = either a or b."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a ^ b


class Not(Op):
    """y = not x."""

    def forward(self, x: Array) -> Array:
        return ~x


# -- comparisons: booleans, no gradient ---------------------------------------------------------------------------

class Equal(Op):
    """y = (a == b)."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a == b


class NotEqual(Op):
    """y = (a != b)."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a != b


class Greater(Op):
    """y = (a > b)."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a > b


class GreaterEqual(Op):
    """y = (a >= b)."""

    broadcasts = True
    dtype_rule = "promote"

    def forward(self, a: Array, b: Array) -> Array:
        return a >= b
