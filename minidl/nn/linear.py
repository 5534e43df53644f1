"""Dense layers, tables of vectors, dropout, and the reshaping in front of dense layers."""

from __future__ import annotations

from typing import Any

from minidl import creation
from minidl.errors import SettingError
from minidl.nn import functional as F
from minidl.nn.functional.checks import check_number
from minidl.nn.init import default_uniform_, normal_
from minidl.nn.module import Module, Parameter, positive
from minidl.tensors import Tensor


class Linear(Module):
    """y = x wᵀ + b: every output is a weighted sum of all inputs.

    x (…, in_features) -> (…, out_features); weight (out_features, in_features), bias (out_features,) or None,
    both starting uniform within ±1/√in_features.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.in_features = positive(in_features, "in_features", "Linear")
        self.out_features = positive(out_features, "out_features", "Linear")
        self.weight = Parameter(creation.empty(out_features, in_features, dtype=dtype, device=device))
        self.bias = Parameter(creation.empty(out_features, dtype=dtype, device=device)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        default_uniform_(self.weight, fan_in=self.in_features)
        if self.bias is not None:
            default_uniform_(self.bias, fan_in=self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        """x (…, in_features) -> (…, out_features)."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def short_name(self) -> str:
        """In an error message."""
        return "Linear"


class Bilinear(Module):
    """y[o] = x1ᵀ W[o] x2 + b[o]."""

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.in1_features = positive(in1_features, "in1_features", "Bilinear")
        self.in2_features = positive(in2_features, "in2_features", "Bilinear")
        self.out_features = positive(out_features, "out_features", "Bilinear")
        self.weight = Parameter(creation.empty(out_features, in1_features, in2_features, dtype=dtype, device=device))
        self.bias = Parameter(creation.empty(out_features, dtype=dtype, device=device)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        default_uniform_(self.weight, fan_in=self.in1_features)
        if self.bias is not None:
            default_uniform_(self.bias, fan_in=self.in1_features)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """x1 (…, I), x2 (…, J) -> (…, O)."""
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")


class Embedding(Module):
    """A table with a learned vector for each index: (…) integers -> (…, embedding_dim).

    weight (num_embeddings, embedding_dim) starts normal; the row `padding_idx` starts at 0 and is not trained.
    sparse is accepted and changes nothing: gradients are always dense.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
                 max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
                 sparse: bool = False, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.num_embeddings = positive(num_embeddings, "num_embeddings", "Embedding")
        self.embedding_dim = positive(embedding_dim, "embedding_dim", "Embedding")
        if max_norm is not None or scale_grad_by_freq:
            raise SettingError("got max_norm or scale_grad_by_freq, which are not here; scale the rows or their "
                               "gradients yourself", where="Embedding")
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise SettingError(f"got padding_idx={padding_idx}, expected a row of the {num_embeddings}",
                               where="Embedding")
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = Parameter(creation.empty(num_embeddings, embedding_dim, dtype=dtype, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vectors anew."""
        normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    @classmethod
    def from_pretrained(cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None) -> Embedding:
        """A table with these vectors (V, D), which stay as they are if `freeze`."""
        module = cls(embeddings.shape[0], embeddings.shape[1], padding_idx)
        module.weight = Parameter(embeddings, requires_grad=not freeze)
        return module

    def forward(self, input: Tensor) -> Tensor:
        """x (…) of integers -> (…, embedding_dim)."""
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Flatten(Module):
    """All axes from `start_dim` on as one: (N, C, H, W) -> (N, C·H·W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """x -> x with the axes from start_dim to end_dim as one."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One axis as several: (N, C·H·W) -> (N, C, H, W)."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        """x -> x with axis `dim` as several."""
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Identity(Module):
    """y = x, for a place where a layer may or may not stand. Takes any arguments and ignores them."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """x -> x."""
        return input


class _Dropout(Module):
    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        check_number(p, "p", type(self).__name__, 0, 1)
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """In training, each number becomes 0 with chance p and the others grow by 1 / (1 - p)."""

    def forward(self, input: Tensor) -> Tensor:
        """x -> x with zeros in training, x itself in evaluation."""
        return F.dropout(input, self.p, self.training)


class Dropout1d(_Dropout):
    """Dropout of whole channels of (N, C, L)."""

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, L) -> x without some channels in training."""
        return F.dropout1d(input, self.p, self.training)


class Dropout2d(_Dropout):
    """Dropout of whole channels of (N, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, H, W) -> x without some channels in training."""
        return F.dropout2d(input, self.p, self.training)


class CosineSimilarity(Module):
    """The cosine of the angle between vectors along `dim`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """x1, x2 (N, D) -> (N,)."""
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The distance of each row of x1 to the same row of x2."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """x1, x2 (N, D) -> (N,)."""
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
