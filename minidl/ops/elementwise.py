"""Operations on each element by itself: arithmetic, exp and log, comparisons.

Two inputs of different shapes are broadcast as in NumPy; the engine sums the gradients back to the inputs' shapes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from minidl.backend import Array, Backend, backend_of, xp_of
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
    """y = a / b;   dL/da = g / b,   dL/db = -g · a / b². Integers divide to floats."""

    broadcasts = True
    dtype_rule = "float"

    def forward(self, a: Array, b: Array) -> Array:
        return a / b

    def backward_a(self, g: Tensor, b: Tensor) -> Tensor:
        return g / b

    def backward_b(self, g: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return -g * a / (b * b)


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
