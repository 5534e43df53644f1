"""Lesson 3: logistic regression and a small network on two moons; seven optimizers from the same start."""

import copy
import math

import numpy as np

import minidl as torch
from minidl import nn, optim

# Two half circles, one upside down, with a bit of noise.
rng = np.random.default_rng(3)
angle = np.linspace(0, math.pi, 100)
upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
points = np.concatenate([upper, lower]) + rng.normal(0, 0.12, size=(200, 2))
X = torch.tensor(points, dtype=torch.float32)
y = torch.cat([torch.zeros(100), torch.ones(100)])
X = (X - X.mean(dim=0)) / X.std(dim=0)
print(X.shape, y.shape, X.mean(0).abs().max() < 1e-6, X.std(0), y.unique())

order = torch.from_numpy(rng.permutation(200))
train, test = order[:150], order[150:]


def accuracy(model, points, labels):
    with torch.no_grad():
        predicted = (torch.sigmoid(model(points)).squeeze(1) > 0.5).float()
    return (predicted == labels).float().mean().item()


# --- logistic regression, the loss written out ---
w, b = torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)
for _ in range(200):
    p = torch.sigmoid(X[train] @ w + b)
    loss = -(y[train] * torch.log(p) + (1 - y[train]) * torch.log(1 - p)).mean()
    loss.backward()
    with torch.no_grad():
        for parameter in (w, b):
            parameter -= 0.5 * parameter.grad
            parameter.grad = None
print(f"logistic regression: loss {loss.item():.6f}", w, b)

# --- the same with BCEWithLogitsLoss and with BCELoss ---
criterion = nn.BCEWithLogitsLoss()
for build in (lambda: (nn.Linear(2, 1), nn.BCEWithLogitsLoss()),
              lambda: (nn.Sequential(nn.Linear(2, 1), nn.Sigmoid()), nn.BCELoss())):
    model, loss_function = build()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        loss = loss_function(model(X[train]).squeeze(-1), y[train])
        loss.backward()
        optimizer.step()
    print(f"{loss_function.__class__.__name__}: loss {loss.item():.6f}, weight {next(model.parameters()).data}")


# --- a network bends the line ---
class MLP(nn.Module):
    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, outputs)
        self.act = nn.Tanh()

    def forward(self, x):
        x = self.act(self.hidden(x))
        x = self.act(self.hidden2(x))
        return self.out(x)


def init(module):
    if isinstance(module, nn.Linear):
        with torch.no_grad():
            values = rng.normal(0, 1 / math.sqrt(module.in_features), size=tuple(module.weight.shape))
            module.weight.copy_(torch.from_numpy(values))
            module.bias.zero_()


start = MLP(2, 16, 1).apply(init)
print(start)
print("parameters:", sum(p.numel() for p in start.parameters() if p.requires_grad),
      {name: tuple(p.shape) for name, p in start.named_parameters()})
print(f"before training: {accuracy(start, X[test], y[test]):.3f}, loss {criterion(start(X), y.unsqueeze(1)):.5f}")

makers = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.1),
    "momentum": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9),
    "nesterov": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "adagrad": lambda ps: optim.Adagrad(ps, lr=0.1),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.01),
    "adam": lambda ps: optim.Adam(ps, lr=0.01),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.01, betas=(0.9, 0.99), weight_decay=0.05),
}
for name, make in makers.items():
    model = copy.deepcopy(start)
    optimizer = make(model.parameters())
    history = []
    model.train()
    for _epoch in range(30):
        for batch in train.split(50):
            logits = model(X[batch])
            loss = criterion(logits.view(-1), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        history.append(criterion(model(X[train]).view(-1), y[train]).item())
    model.eval()
    print(f"{name:9s} {history[0]:.6f} -> {history[-1]:.6f}   test accuracy {accuracy(model, X[test], y[test]):.2f}")

# --- the deep copies left the first network alone; a state dict carries weights over ---
other = MLP(2, 16, 1)
print(other.load_state_dict(model.state_dict()), torch.equal(other(X), model(X)), torch.equal(start(X), model(X)))
saved = {key: value.clone() for key, value in start.state_dict().items()}
other.load_state_dict(saved)
print(list(saved), torch.allclose(other(X), start(X)), optimizer.param_groups[0]["lr"])
