"""Lesson 16: networks with a memory, the cells written out: a plain cell, a GRU and an LSTM. Hochreiter 1997; Cho 2014."""

import math

import numpy as np

import minidl as torch
import minidl.nn as nn
import minidl.nn.functional as F
import minidl.optim as optim

HIDDEN, WINDOW = 12, 20


def init_(module, seed):
    generator = np.random.default_rng(seed)
    bound = 1 / math.sqrt(HIDDEN)
    for parameter in module.parameters():
        new = torch.from_numpy(generator.uniform(-bound, bound, size=tuple(parameter.shape)))
        with torch.no_grad():
            parameter.copy_(new)
    return module


class PlainCell(nn.Module):
    """h' = tanh(x Wᵀ + h Uᵀ + b)"""

    def __init__(self, inputs, hidden):
        super().__init__()
        self.hidden_size = hidden
        self.x2h = nn.Linear(inputs, hidden)
        self.h2h = nn.Linear(hidden, hidden, bias=False)

    def initial(self, batch):
        return torch.zeros(batch, self.hidden_size)

    def forward(self, x, h):
        h = torch.tanh(self.x2h(x) + self.h2h(h))
        return h, h


class GRUCell(PlainCell):
    def __init__(self, inputs, hidden):
        super().__init__(inputs, hidden)
        self.x2h = nn.Linear(inputs, 3 * hidden)
        self.h2h = nn.Linear(hidden, 3 * hidden)

    def forward(self, x, h):
        xr, xz, xn = self.x2h(x).chunk(3, dim=1)
        hr, hz, hn = self.h2h(h).chunk(3, 1)
        reset, update = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        new = torch.tanh(xn + reset * hn)
        h = (1 - update) * new + update * h
        return h, h


class LSTMCell(PlainCell):
    def __init__(self, inputs, hidden):
        super().__init__(inputs, hidden)
        self.gates = nn.Linear(inputs + hidden, 4 * hidden)
        del self.x2h, self.h2h

    def initial(self, batch):
        return torch.zeros(batch, self.hidden_size), torch.zeros(batch, self.hidden_size)

    def forward(self, x, state):
        h, c = state
        i, f, g, o = torch.split(self.gates(torch.cat([x, h], dim=1)), self.hidden_size, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return h, (h, c)


class Forecaster(nn.Module):
    """Reads a sequence (N, T, 1), says at each step what comes next (N, T, 1)."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell
        self.readout = nn.Linear(cell.hidden_size, 1)

    def forward(self, sequence, state=None, future=0):
        if state is None:
            state = self.cell.initial(sequence.size(0))
        outputs = []
        for x in sequence.unbind(dim=1):
            h, state = self.cell(x, state)
            outputs.append(self.readout(h))
        for _ in range(future):
            h, state = self.cell(outputs[-1], state)
            outputs.append(self.readout(h))
        return torch.stack(outputs, dim=1), state


# --- the data: windows of two waves added ---
time = torch.arange(0, 150).float() * 0.2
signal = torch.sin(time) + 0.5 * torch.cos(2.3 * time)
signal = (signal - signal.mean()) / signal.std()
windows = signal.unfold(0, WINDOW + 1, 3)
inputs, targets = windows[:, :-1].unsqueeze(-1), windows[:, 1:].unsqueeze(-1)
print(time.shape, windows.shape, inputs.shape, torch.equal(inputs[0, 1:], targets[0, :-1]), windows[1, :4])

for cell_type in (PlainCell, GRUCell, LSTMCell):
    model = init_(Forecaster(cell_type(1, HIDDEN)), seed=16)
    n_parameters = sum(math.prod(p.shape) for p in model.parameters())
    print(model, n_parameters)
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    for step in range(25):
        optimizer.zero_grad()
        prediction, state = model(inputs[:32])
        loss = F.mse_loss(prediction[:, 4:], targets[:32, 4:])
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 8 == 0:
            print(f"step {step:2d} loss {loss.item():.6f} norm {norm:.6f}")
    with torch.no_grad():
        test, _ = model(inputs[32:])
        dreamt, _ = model(inputs[-1:, :10], future=5)
    print(f"test {F.mse_loss(test[:, 4:], targets[32:, 4:]).item():.6f}, {tuple(dreamt.shape)}, its own future {dreamt[0, -5:, 0]}")

# --- gradients through time fade, or grow ---
for scale in (0.5, 1.0, 1.5):
    U = scale * torch.eye(3)
    start = torch.ones(1, 3, requires_grad=True)
    h = start
    for _ in range(20):
        h = h @ U
    h.sum().backward()
    print(f"scale {scale}: gradient after 20 steps {start.grad.mean().item():.6f}")

# --- pieces of a long sequence: the state goes on, the gradient is cut ---
model = init_(Forecaster(GRUCell(1, HIDDEN)), seed=17)
state, losses = None, []
for piece, target in zip(signal[:60].split(15), signal[1:61].split(15), strict=True):
    prediction, state = model(piece.view(1, -1, 1), state)
    loss = (prediction.squeeze() - target).abs().mean()
    loss.backward()
    losses.append(loss.item())
    state = state.detach()
print(losses, state.requires_grad, model.readout.weight.grad.abs().mean())
