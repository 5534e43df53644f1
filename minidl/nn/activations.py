"""Activation functions as modules; their formulas stand in `minidl/nn/functional/activations.py`.

`inplace` is accepted where PyTorch has it, and changes nothing.
"""

from __future__ import annotations

from typing import Any

from minidl import creation
from minidl.nn import functional as F
from minidl.nn.module import Module, Parameter
from minidl.tensors import Tensor


class ReLU(Module):
    """max(x, 0)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.relu(input)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return "inplace=True" if self.inplace else ""


class ReLU6(Module):
    """x between 0 and 6."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.relu6(input)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return "inplace=True" if self.inplace else ""


class LeakyReLU(Module):
    """x where x > 0, else slope · x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = negative_slope
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class ELU(Module):
    """x where x > 0, else α (e^x - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.elu(input, self.alpha)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class SELU(Module):
    """An elu scaled so that mean 0 and variance 1 stay from layer to layer."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.selu(input)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return "inplace=True" if self.inplace else ""


class CELU(Module):
    """x where x > 0, else α (e^(x/α) - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = alpha
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.celu(input, self.alpha)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class GELU(Module):
    """x · Φ(x), Φ being the cumulative normal distribution."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x · sigmoid(x)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.silu(input)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return "inplace=True" if self.inplace else ""


class Mish(Module):
    """x · tanh(softplus(x))."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.mish(input)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return "inplace=True" if self.inplace else ""


class Softplus(Module):
    """1/β · log(1 + e^βx), a smooth ReLU."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.tanhshrink(input)


class Hardtanh(Module):
    """x between min_val and max_val."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.min_val = min_val
        self.max_val = max_val
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"min_val={self.min_val}, max_val={self.max_val}" + (", inplace=True" if self.inplace else "")


class Hardsigmoid(Module):
    """x/6 + 1/2 between 0 and 1."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.hardsigmoid(input)


class Hardswish(Module):
    """x · hardsigmoid(x)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.hardswish(input)


class Hardshrink(Module):
    """x, but 0 between -λ and λ."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.hardshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return str(self.lambd)


class Softshrink(Module):
    """x moved towards 0 by λ, and 0 between -λ and λ."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.softshrink(input, self.lambd)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return str(self.lambd)


class Threshold(Module):
    """x where x is above the threshold, else `value`."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__()
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.threshold(input, self.threshold, self.value)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"threshold={self.threshold}, value={self.value}" + (", inplace=True" if self.inplace else "")


class Tanh(Module):
    """The hyperbolic tangent: between -1 and 1."""

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return input.tanh()


class Sigmoid(Module):
    """1 / (1 + e^-x): between 0 and 1."""

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return input.sigmoid()


class LogSigmoid(Module):
    """log(sigmoid(x)), exact for every x."""

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.logsigmoid(input)


class GLU(Module):
    """a · sigmoid(b), where a and b are the halves of x along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, with half the size along dim."""
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}"


class Softmax(Module):
    """e^x divided by its sum along `dim`: probabilities. CrossEntropyLoss wants the scores before it."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """The logarithm of softmax, which NLLLoss takes."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}"


class Softmin(Module):
    """softmax(-x)."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """x -> y, in the same shape."""
        return F.softmin(input, self.dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}"


class PReLU(Module):
    """x where x > 0, else w · x with learned slopes: one for all, or one for each channel.

    Ref: He et al. 2015, arXiv:1502.01852
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(creation.full((num_parameters,), float(init), dtype=dtype, device=device))

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, …) -> y, in the same shape."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"num_parameters={self.num_parameters}"
