"""What the lab on vanishing gradients builds, measures and trains: a chain of neurons, and deep networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn, optim

WIDTH = 32                                                              # units in a layer
ACTIVATIONS = {"sigmoid": F.sigmoid, "tanh": F.tanh, "relu": F.relu}
SCHEMES: dict[str, Callable[[Tensor], Tensor]] = {                      # how the weights are drawn
    "N(0, 0.01²)": lambda weight: nn.init.normal_(weight, std=0.01),
    "Xavier": nn.init.xavier_normal_,                                                   # variance 1/width
    "Kaiming": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu")}     # variance 2/width


def run_chain(x: float, weights: Sequence[float], functions: Sequence[Callable[[Tensor], Tensor]],
              device: str) -> dict[str, Any]:
    """y = f_n(w_n · … f_2(w_2 · f_1(w_1 · x))), in float64.

    Returns the output y, z = w · input of each neuron, and the gradients dy/dz and dy/dw.
    """
    w = [minidl.tensor(value, dtype=minidl.float64, device=device, requires_grad=True) for value in weights]
    out, sums = minidl.tensor(x, dtype=minidl.float64, device=device), []
    for weight, function in zip(w, functions, strict=True):
        z = weight * out
        z.retain_grad()                                     # a tensor in the middle would not keep its gradient
        out = function(z)
        sums.append(z)
    out.backward()
    return {"output": out.item(), "z": [z.item() for z in sums], "dy_dz": [z.grad.item() for z in sums],
            "dy_dw": [weight.grad.item() for weight in w]}


class Layer(nn.Module):
    """y = f(n(Wx + b)), n being BatchNorm, LayerNorm or nothing; or, with a residual connection, x + f(Wx + b)/√depth.

    x (N, inputs) -> y (N, WIDTH). kind: plain, BatchNorm, LayerNorm or residual. A layer with another number of inputs
    than of outputs has no way around it.
    """

    def __init__(self, inputs: int, activation: Callable[[Tensor], Tensor], kind: str, depth: int) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(inputs, WIDTH), activation
        self.norm: nn.Module = nn.Identity()                # the others learn no scale and no shift
        if kind == "BatchNorm":
            self.norm = nn.BatchNorm1d(WIDTH, affine=False)
        elif kind == "LayerNorm":
            self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.residual = kind == "residual" and inputs == WIDTH
        self.share = depth ** -0.5                          # without it, x would grow by a factor in every layer

    def forward(self, x: Tensor) -> Tensor:
        """x (N, inputs) -> y (N, WIDTH)."""
        y = self.activation(self.norm(self.linear(x)))
        return x + self.share * y if self.residual else y


def network(inputs: int, depth: int, activation: str, scheme: str, kind: str, seed: int) -> nn.Sequential:
    """`depth` layers and a last one that gives 10 scores, biases 0, on the CPU.

    One seed draws the same numbers for all schemes and kinds; a scheme only scales them.
    """
    minidl.manual_seed(seed)
    layers = [Layer(WIDTH if i else inputs, ACTIVATIONS[activation], kind, depth) for i in range(depth)]
    last = nn.Linear(WIDTH, 10)
    for linear in [*(layer.linear for layer in layers), last]:
        SCHEMES[scheme](linear.weight)
        nn.init.zeros_(linear.bias)
    return nn.Sequential(*layers, last)


def gradient_norms(model: nn.Sequential, x: Tensor, y: Tensor) -> np.ndarray:
    """‖dL/dW‖ of each layer but the last, (depth,), for the cross-entropy of images x (N, inputs) and labels y (N,)."""
    F.cross_entropy(model(x), y).backward()
    return minidl.stack([layer.linear.weight.grad.norm() for layer in list(model)[:-1]]).cpu().numpy()


def train(model: nn.Module, training: tuple[Tensor, Tensor], validation: tuple[Tensor, Tensor], epochs: int,
          batch_size: int, lr: float) -> list[float]:
    """The accuracy on the validation images after each epoch of gradient descent with momentum 0.9.

    training and validation: images (N, inputs) and labels (N,). Each epoch sees all training images in a new order.
    """
    x, y = training
    optimizer, accuracies = optim.SGD(model.parameters(), lr=lr, momentum=0.9), []
    for _ in range(epochs):
        model.train()
        for chosen in minidl.randperm(len(x), device=x.device).split(batch_size):
            if len(chosen) == 1:                            # what is left over; BatchNorm needs two images at least
                continue
            loss = F.cross_entropy(model(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with minidl.no_grad():
            accuracies.append((model(validation[0]).argmax(dim=1) == validation[1]).double().mean().item())
    return accuracies


def mean_log(norms: np.ndarray) -> tuple[np.ma.MaskedArray, np.ma.MaskedArray]:
    """Mean and standard deviation of log10 over the draws (axis 0). A norm of 0 has no logarithm and is left out."""
    logs = np.ma.log10(np.ma.masked_less_equal(np.atleast_2d(norms), 0))
    return logs.mean(0), logs.std(0, ddof=1)


def draw(axes: Any, places: Sequence[int], norms: np.ndarray, color: Any, **style: Any) -> None:
    """A line through the means of the logarithms of norms (draws, places), and a band of one standard deviation."""
    mean, spread = mean_log(norms)
    there = ~np.ma.getmaskarray(spread)                     # at least two draws have a logarithm
    x, mean, spread = np.asarray(places)[there], mean[there].data, spread[there].data
    axes.semilogy(x, 10 ** mean, color=color, **style)
    axes.fill_between(x, 10 ** (mean - spread), 10 ** (mean + spread), color=color, alpha=0.2, linewidth=0)
    axes.grid(alpha=0.3)
