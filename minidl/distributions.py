"""Probability distributions: draws, and the logarithm of how likely they were, which has a gradient.

Ref: Schulman et al. 2015, arXiv:1506.05254, on how the two make gradients of expectations
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl import functions
from minidl.backend import backend_of
from minidl.creation import rand, randn, tensor
from minidl.errors import SettingError, ShapeError, no_such_name
from minidl.nn import functional as F
from minidl.recording import no_grad
from minidl.tensors import Tensor

__all__ = ["Bernoulli", "Categorical", "Distribution", "Normal", "Uniform", "kl_divergence"]


class Distribution:
    """A distribution: `sample()` draws without gradient, `rsample()` with one, `log_prob(value)` rates a value."""

    @property
    def mean(self) -> Tensor:
        """The mean of many draws."""
        raise NotImplementedError

    @property
    def variance(self) -> Tensor:
        """The variance of many draws."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The standard deviation of many draws."""
        return self.variance.sqrt()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws through which gradients reach the parameters."""
        raise SettingError("has no draws with a gradient; use sample() and log_prob()", where=type(self).__name__)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of shape (*sample_shape, *shape of the parameters)."""
        with no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability, or of its density."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The mean of -log_prob: how uncertain a draw is."""
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = [f"{name}: {value if value.numel() == 1 else tuple(value.shape)}"
                 for name, value in vars(self).items() if isinstance(value, Tensor)]
        return f"{type(self).__name__}({', '.join(shown)})"


def _parameters(*given: Any) -> tuple[Tensor, ...]:
    """Numbers and tensors as tensors of one shape."""
    return functions.broadcast_tensors(*(x if isinstance(x, Tensor) else tensor(float(x)) for x in given))


def _check(ok: Tensor, message: str, where: str) -> None:
    if backend_of(ok.array).is_host and not bool(ok.all()):
        raise SettingError(message, where=where)


def _inside(p: Tensor) -> Tensor:
    """Probabilities kept off 0 and 1, whose logarithms would make gradients nan."""
    eps = float(np.finfo(str(p.dtype)).eps)
    return p.clamp(eps, 1 - eps)


class Normal(Distribution):
    """The normal distribution with mean `loc` and standard deviation `scale`."""

    def __init__(self, loc: Any, scale: Any) -> None:
        self.loc, self.scale = _parameters(loc, scale)
        _check(self.scale > 0, "got a scale that is not positive, expected more than 0", "Normal")

    @property
    def mean(self) -> Tensor:
        """The parameter loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The parameter scale, squared."""
        return self.scale * self.scale

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """loc + scale · ε with a standard normal ε: the draw moves with the parameters."""
        noise = randn((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * noise

    def log_prob(self, value: Tensor) -> Tensor:
        """-(x - loc)² / 2 scale² - log scale - ½ log 2π."""
        distance = (value - self.loc) / self.scale
        return -0.5 * distance * distance - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def entropy(self) -> Tensor:
        """½ + ½ log 2π + log scale."""
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The chance that a draw is below the value."""
        return 0.5 * (1 + ((value - self.loc) / (self.scale * math.sqrt(2))).erf())


class Uniform(Distribution):
    """All numbers from `low` to `high` equally likely."""

    def __init__(self, low: Any, high: Any) -> None:
        self.low, self.high = _parameters(low, high)
        _check(self.low < self.high, "got a low that is not below high", "Uniform")

    @property
    def mean(self) -> Tensor:
        """The middle."""
        return (self.low + self.high) / 2

    @property
    def variance(self) -> Tensor:
        """The width squared / 12."""
        return (self.high - self.low) ** 2 / 12

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """low + (high - low) · u."""
        draw = rand((*sample_shape, *self.low.shape), dtype=self.low.dtype, device=self.low.device)
        return self.low + (self.high - self.low) * draw

    def log_prob(self, value: Tensor) -> Tensor:
        """-log(high - low) inside, -inf outside."""
        inside = (value >= self.low) & (value < self.high)
        return functions.where(inside, -(self.high - self.low).log(), -math.inf)  # type: ignore[no-any-return]

    def entropy(self) -> Tensor:
        """log(high - low)."""
        return (self.high - self.low).log()


class _FromProbsOrLogits(Distribution):
    def _one_of(self, probs: Any, logits: Any) -> Tensor:
        if (probs is None) == (logits is None):
            raise SettingError("expected either probs or logits", where=type(self).__name__)
        given = logits if probs is None else probs
        return given if isinstance(given, Tensor) else tensor(given)


class Bernoulli(_FromProbsOrLogits):
    """1 with chance `probs`, else 0; `logits` are the scores whose sigmoid is probs."""

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        given = self._one_of(probs, logits)
        if logits is None:
            _check((given >= 0) & (given <= 1), "got probs outside of 0 to 1", "Bernoulli")
            inside = _inside(given)
            self.probs, self.logits = given, inside.log() - (-inside).log1p()
        else:
            self.probs, self.logits = given.sigmoid(), given

    @property
    def mean(self) -> Tensor:
        """The chance of a 1."""
        return self.probs

    @property
    def variance(self) -> Tensor:
        """p · (1 - p)."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Zeros and ones."""
        return functions.bernoulli(self.probs.detach().expand(*sample_shape, *self.probs.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p where the value is 1, log(1 - p) where it is 0."""
        logits, value = functions.broadcast_tensors(self.logits, value.to(self.logits.dtype))
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none")

    def entropy(self) -> Tensor:
        """-p log p - (1 - p) log(1 - p)."""
        return F.binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")


class Categorical(_FromProbsOrLogits):
    """One of the classes 0 … C-1 along the last axis, with chances `probs` (made to add up to 1) or softmax(logits)."""

    def __init__(self, probs: Any = None, logits: Any = None) -> None:
        given = self._one_of(probs, logits)
        if given.ndim == 0:
            raise ShapeError("got one number, expected one for each class", where="Categorical")
        if logits is None:
            _check((given >= 0).all() & (given.sum(-1) > 0).all(), "got probs that are negative or all 0",
                   "Categorical")
            self.probs = given / given.sum(-1, keepdim=True)
            self.logits = _inside(self.probs).log()
        else:
            self.logits = given - given.logsumexp(-1, keepdim=True)
            self.probs = self.logits.softmax(-1)

    @property
    def param_shape(self) -> tuple[int, ...]:
        """The shape of the probabilities."""
        return self.probs.shape

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Class indices of shape (*sample_shape, *shape of the parameters without the last axis)."""
        n, batch = math.prod(sample_shape), self.probs.shape[:-1]
        rows = self.probs.detach().reshape(-1, self.probs.shape[-1])         # (…, C) -> (B, C)
        return rows.multinomial(n, replacement=True).T.reshape(*sample_shape, *batch)      # (B, n) -> (n, B) -> (…)

    def log_prob(self, value: Tensor) -> Tensor:
        """log of the value's probability: what the policy gradient is made of."""
        index = value.long().unsqueeze(-1)
        shape = functions.broadcast_tensors(index[..., 0], self.logits[..., 0].detach())[0].shape
        logits = self.logits.expand(*shape, self.logits.shape[-1])
        return logits.gather(-1, index.expand(*shape, 1)).squeeze(-1)

    def entropy(self) -> Tensor:
        """-sum of p log p, in which 0 log 0 counts as 0."""
        log_p: Tensor = functions.where(self.probs == 0, 0.0, self.logits)
        return -(self.probs * log_p).sum(-1)


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """The mean of log p - log q over draws from p: how much q is off."""
    if isinstance(p, Normal) and isinstance(q, Normal):
        ratio = (p.scale / q.scale) ** 2
        return 0.5 * (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - ratio.log())
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        of_each = p.probs * (functions.where(p.probs == 0, 0.0, p.logits) - q.logits)
        counted: Tensor = functions.where(p.probs == 0, 0.0, of_each)
        return counted.sum(-1)
    if isinstance(p, Bernoulli) and isinstance(q, Bernoulli):
        of_one = p.probs * (F.softplus(-q.logits) - F.softplus(-p.logits))
        return of_one + (1 - p.probs) * (F.softplus(q.logits) - F.softplus(p.logits))
    raise SettingError(f"got {type(p).__name__} and {type(q).__name__}, expected two of the same: Normal, Categorical "
                       f"or Bernoulli", where="kl_divergence")


def __getattr__(name: str) -> Any:
    raise no_such_name("minidl.distributions", name, __all__)
