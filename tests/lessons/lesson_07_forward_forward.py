"""Lesson 7: learning without a backward pass through the network. Hinton 2022, arXiv:2212.13345.

Each layer learns by itself to be excited (a large mean square) by digits with their own label painted in, and calm at
digits with a wrong one. Its input is detached: no gradient leaves a layer.
"""

from itertools import pairwise

import numpy as np
from sklearn.datasets import load_digits

import minidl as torch
import minidl.nn as nn
from minidl.optim import Adam

rng = np.random.default_rng(7)


def paint(x, labels):
    """Replace the first ten pixels by the label, one-hot, as bright as the brightest pixel."""
    painted = x.clone()
    painted[:, :10] *= 0.0
    painted[range(len(x)), labels] = x.max()
    return painted


class SelfTaught(nn.Linear):
    """A linear layer that owns its threshold and its optimizer."""

    def __init__(self, n_in, n_out, threshold=2.0, lr=0.02):
        super().__init__(n_in, n_out)
        start = rng.uniform(-1, 1, size=(n_out, n_in)) / np.sqrt(n_in)
        self.weight.data = torch.from_numpy(start).float()
        self.bias.data = torch.zeros(n_out)
        self.threshold, self.optimizer = threshold, Adam(self.parameters(), lr=lr)

    def forward(self, x):
        unit = x / (x.norm(2, 1, keepdim=True) + 1e-4)          # only the direction is handed on, not the goodness
        return torch.relu(torch.mm(unit * self.in_features ** 0.5, self.weight.T) + self.bias.unsqueeze(0))

    def learn(self, good, bad, epochs=60):
        for epoch in range(epochs):
            excited, calm = self(good).pow(2).mean(1), self(bad).pow(2).mean(1)
            margins = torch.cat([self.threshold - excited, calm - self.threshold])
            loss = torch.log(1 + torch.exp(margins)).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if epoch % 20 == 0 or epoch == epochs - 1:
                print(f"  epoch {epoch:2d}: loss {loss.item():.6f}, goodness {excited.mean():.6f} and {calm.mean():.6f}")
        return self(good).detach(), self(bad).detach()


class Stack(torch.nn.Module):
    """The layers live in a plain list that grows: nobody asks the stack for parameters."""

    def __init__(self, *sizes):
        super().__init__()
        self.layers = []
        for n_in, n_out in pairwise(sizes):
            self.layers += [SelfTaught(n_in, n_out)]

    def scores(self, x):
        """For each label, how excited all layers are together when it is painted in: (N, 10)."""
        columns = []
        for label in range(10):
            h = paint(x, torch.full((x.shape[0],), label))
            total = 0
            for layer in self.layers:
                h = layer(h)
                total = total + h.pow(2).mean(1)
            columns += [total.unsqueeze(1)]
        return torch.cat(columns, 1)

    def learn(self, good, bad):
        for i, layer in enumerate(self.layers):
            print("layer", i)
            good, bad = layer.learn(good, bad)


def error(model, x, y):
    with torch.no_grad():
        return 1.0 - model.scores(x).argmax(1).eq(y).float().mean().item()


digits = load_digits()
x = torch.from_numpy(digits.data[:1000].astype(np.float32)) / 16
y = torch.from_numpy(digits.target[:1000])
x, x_test = x[:600], x[600:]
y, y_test = y[:600], y[600:]
wrong = (y + torch.from_numpy(rng.integers(1, 10, size=600))) % 10
right_ones, wrong_ones = paint(x, y), paint(x, wrong)
print(right_ones[:3, :10], wrong_ones[:3, :10], (wrong == y).any(), x.max(), x[:, :10].sum())

net = Stack(64, 100, 60)
print(f"before: test error {error(net, x_test, y_test):.4f}")
net.learn(right_ones, wrong_ones)
print(f"after: train error {error(net, x, y):.4f}, test error {error(net, x_test, y_test):.4f}")
print("the five highest goodnesses of a digit:", net.scores(x_test[:1]).detach().sort(descending=True)[0][0, :5])
first = net.layers[0]
print([tuple(layer.weight.shape) for layer in net.layers], first.weight.grad.norm(), len(list(first.parameters())), first)
