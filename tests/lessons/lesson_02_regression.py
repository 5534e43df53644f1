"""Lesson 2: a line and a cubic through noisy points, by gradient descent; first by hand, then with nn.Linear."""

import numpy as np

import minidl as torch
import minidl.nn.functional as F
from minidl import nn, optim

rng = np.random.default_rng(2)
x = torch.linspace(-1, 1, 80).unsqueeze(1)
noise = torch.from_numpy(rng.normal(0, 0.1, size=(80, 1)).astype(np.float32))
y = 1.8 * x - 0.4 + noise
print(x.shape, y.shape, y.mean(), y.std())

# --- 1. everything by hand: the gradient of the mean square is known ---
slope, offset = 0.0, 0.0
for _ in range(100):
    residual = slope * x + offset - y
    slope -= 0.1 * (2 * residual * x).mean().item()
    offset -= 0.1 * (2 * residual).mean().item()
print(f"by hand    slope {slope:.4f}  offset {offset:.4f}")

# --- 2. the same steps, the gradient by autograd ---
w = torch.zeros(1, requires_grad=True)
b = torch.zeros(1, requires_grad=True)
learning_rate = 0.1
for epoch in range(100):
    loss = ((w * x + b - y) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        w -= learning_rate * w.grad
        b -= learning_rate * b.grad
        w.grad.zero_()
        b.grad.zero_()
    if epoch % 25 == 0:
        print(f"epoch {epoch:3d}  loss {loss.item():.6f}")
print(f"autograd   slope {w.item():.4f}  offset {b.item():.4f}", w, b)

# --- 3. the older idiom, through .data ---
w.data = torch.tensor([0.0])
b.data.fill_(0)
for _ in range(100):
    loss = F.mse_loss(w * x + b, y)
    w.grad, b.grad = None, None
    loss.backward()
    w.data -= learning_rate * w.grad.data
    b.data.sub_(learning_rate * b.grad)
print(f".data      slope {w.item():.4f}  offset {b.item():.4f}  loss {loss:.6f}")

# --- 4. a layer and an optimizer ---
model = nn.Linear(1, 1)
nn.init.zeros_(model.weight)
nn.init.zeros_(model.bias)
criterion = nn.MSELoss()
optimizer = optim.SGD(model.parameters(), lr=learning_rate)
print(model, [p.shape for p in model.parameters()])
for _ in range(100):
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
weight, bias = model.parameters()
print(f"nn.Linear  slope {weight.item():.4f}  offset {bias.item():.4f}  loss {loss.item():.6f}")

# --- 5. the exact answer for comparison: the normal equations ---
design = torch.cat([x, torch.ones_like(x)], dim=1)
exact = np.linalg.solve((design.T @ design).numpy(), (design.T @ y).numpy())
print(f"exact      slope {exact[0].item():.4f}  offset {exact[1].item():.4f}")

# --- 6. a cubic: the features are powers of x ---
curve = torch.sin(3 * x) + 0.5 * noise
features = torch.cat([x ** k for k in range(1, 4)], dim=1)
print(features.shape, features[0], features.square().mean(0))


class Polynomial(nn.Module):
    """a + b x + c x² + d x³, with the powers made inside."""

    def __init__(self, degree):
        super().__init__()
        self.degree = degree
        self.coefficients = nn.Parameter(torch.zeros(degree + 1))

    def forward(self, x):
        powers = torch.stack([x.squeeze(1) ** k for k in range(self.degree + 1)], dim=1)
        return (powers * self.coefficients).sum(dim=1, keepdim=True)

    def extra_repr(self):
        return f"degree={self.degree}"


for degree in (1, 3, 5):
    cubic = Polynomial(degree)
    optimizer = torch.optim.SGD(cubic.parameters(), lr=0.2, momentum=0.9)
    for _ in range(150):
        loss = criterion(cubic(x), curve)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(cubic, f"loss {loss.item():.6f}", cubic.coefficients)

# --- 7. weight decay pulls the coefficients towards zero; the absolute loss forgives an outlier ---
outlier = curve.clone()
outlier[40] = 30.0
for name, criterion in [("mse", nn.MSELoss()), ("l1", nn.L1Loss()), ("smooth l1", nn.SmoothL1Loss()),
                        ("huber", nn.HuberLoss(delta=0.5))]:
    line = nn.Linear(3, 1)
    nn.init.constant_(line.weight, 0.1)
    nn.init.constant_(line.bias, 0.0)
    optimizer = optim.SGD(line.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        criterion(line(features), outlier).backward()
        optimizer.step()
    with torch.no_grad():
        error = (line(features) - curve).abs().median()
    print(f"{name:10s} middle error {error:.4f}  weights {[round(v, 3) for v in line.weight.data[0].tolist()]}")
