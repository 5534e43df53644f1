"""Normalization layers; the formulas stand in `minidl/nn/functional/normalization.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl import creation
from minidl.dtypes import int64
from minidl.errors import SettingError, ShapeError
from minidl.nn import functional as F
from minidl.nn.functional.checks import check_number
from minidl.nn.init import constant_
from minidl.nn.module import Module, Parameter, positive
from minidl.recording import no_grad
from minidl.tensors import Tensor


class _BatchNorm(Module):
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    dimensions: tuple[int, ...] = ()

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__()
        self.num_features = positive(num_features, "num_features", type(self).__name__)
        check_number(eps, "eps", type(self).__name__, 0)
        self.eps = eps
        self.momentum = momentum                            # None: the running values are the means of all batches
        self.affine = affine
        self.track_running_stats = track_running_stats
        settings = {"device": device, "dtype": dtype}
        self.weight = Parameter(creation.ones(num_features, **settings)) if affine else None
        self.bias = Parameter(creation.zeros(num_features, **settings)) if affine and bias else None
        kept = track_running_stats
        self.register_buffer("running_mean", creation.zeros(num_features, **settings) if kept else None)
        self.register_buffer("running_var", creation.ones(num_features, **settings) if kept else None)
        self.register_buffer("num_batches_tracked", creation.zeros((), dtype=int64, device=device) if kept else None)

    def reset_parameters(self) -> None:
        """Weights, biases and running values as at the start."""
        _start_anew(self)
        self.reset_running_stats()

    def reset_running_stats(self) -> None:
        """The running values as at the start."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, …) -> y, in the same shape."""
        if input.ndim not in self.dimensions or input.shape[1] != self.num_features:
            shapes = {2: "(N, C)", 3: "(N, C, L)", 4: "(N, C, H, W)"}
            expected = " or ".join(shapes[n].replace("C", str(self.num_features)) for n in self.dimensions)
            raise ShapeError(f"got {tuple(input.shape)}, expected {expected}", where=type(self).__name__)
        share = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked += 1
            if self.momentum is None:
                share = 1 / int(self.num_batches_tracked.item())
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias,
                            self.training or self.running_mean is None, share, self.eps)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class BatchNorm1d(_BatchNorm):
    """Each feature of (N, C) or channel of (N, C, L) to mean 0 and variance 1 over the batch, then · weight + bias.

    In training with the batch's own mean and variance; in evaluation with running averages of them, of which each batch
    makes up `momentum`.
    """

    dimensions = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Each channel of (N, C, H, W) to mean 0 and variance 1 over the batch, then · weight + bias.

    In training with the batch's own mean and variance; in evaluation with running averages of them, of which each batch
    makes up `momentum`.
    """

    dimensions = (4,)


def _start_anew(layer: Module) -> None:
    for p, start in ((layer.weight, 1.0), (layer.bias, 0.0)):
        if p is not None:
            constant_(p, start)


class LayerNorm(Module):
    """Each sample to mean 0 and variance 1 over its last axes, then · weight + bias."""

    def __init__(self, normalized_shape: int | Sequence[int], eps: float = 1e-5, elementwise_affine: bool = True,
                 bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        settings = {"device": device, "dtype": dtype}
        self.weight = Parameter(creation.ones(self.normalized_shape, **settings)) if elementwise_affine else None
        with_bias = elementwise_affine and bias
        self.bias = Parameter(creation.zeros(self.normalized_shape, **settings)) if with_bias else None

    def reset_parameters(self) -> None:
        """Weights 1 and biases 0, as at the start."""
        _start_anew(self)

    def forward(self, input: Tensor) -> Tensor:
        """x (…, *normalized_shape) -> y, in the same shape."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")


class GroupNorm(Module):
    """Each sample of (N, C, …) to mean 0 and variance 1 over groups of channels, then · weight + bias."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, device: Any = None,
                 dtype: Any = None, *, bias: bool = True) -> None:
        super().__init__()
        if positive(num_channels, "num_channels", "GroupNorm") % positive(num_groups, "num_groups", "GroupNorm"):
            raise SettingError(f"got num_groups={num_groups}, expected a divisor of num_channels={num_channels}",
                               where="GroupNorm")
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.weight = Parameter(creation.ones(num_channels, device=device, dtype=dtype)) if affine else None
        with_bias = affine and bias
        self.bias = Parameter(creation.zeros(num_channels, device=device, dtype=dtype)) if with_bias else None

    def reset_parameters(self) -> None:
        """Weights 1 and biases 0, as at the start."""
        _start_anew(self)

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, …) -> y, in the same shape."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")


class _InstanceNorm(Module):
    dimensions = 0

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
                 track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
                 bias: bool = True) -> None:
        super().__init__()
        if track_running_stats:
            raise SettingError("got track_running_stats=True, expected False: none are kept",
                               where=type(self).__name__)
        self.num_features = positive(num_features, "num_features", type(self).__name__)
        self.eps, self.momentum, self.affine, self.track_running_stats = eps, momentum, affine, track_running_stats
        self.weight = Parameter(creation.ones(num_features, device=device, dtype=dtype)) if affine else None
        with_bias = affine and bias
        self.bias = Parameter(creation.zeros(num_features, device=device, dtype=dtype)) if with_bias else None

    def reset_parameters(self) -> None:
        """Weights 1 and biases 0, as at the start."""
        _start_anew(self)

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, …) -> y, in the same shape."""
        if input.ndim != self.dimensions or input.shape[1] != self.num_features:
            raise ShapeError(f"got {tuple(input.shape)}, expected {self.dimensions} axes with {self.num_features} "
                             f"channels", where=type(self).__name__)
        return F.instance_norm(input, None, None, self.weight, self.bias, True, self.momentum, self.eps)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}")


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each sample of (N, C, L) to mean 0 and variance 1."""

    dimensions = 3


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each sample of (N, C, H, W) to mean 0 and variance 1."""

    dimensions = 4


class LocalResponseNorm(Module):
    """x / (k + α · mean of x² over `size` neighbouring channels)^β, as in AlexNet."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        """x (N, C, …) -> y, in the same shape."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """As PyTorch prints it."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
