"""Lesson 12: what autograd can do beyond loss.backward(): own functions, higher derivatives, penalties. In float64."""

import numpy as np

import minidl as torch
from minidl import nn
from minidl.autograd import Function, grad

torch.set_default_dtype(torch.float64)
torch.set_printoptions(precision=10)
rng = np.random.default_rng(12)


# --- a function with a derivative of its own ---
class Cube(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(ctx, grad_output):
        (x,) = ctx.saved_tensors
        return grad_output * 3 * x ** 2


class StraightThrough(Function):
    """Rounds, and sends the gradient through as if it had not."""

    @staticmethod
    def forward(ctx, x, levels):
        ctx.levels = levels
        return torch.round(x * levels) / levels

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output, None


x = torch.tensor([1.0, 2.0, -0.5], requires_grad=True)
y = Cube.apply(x)
y.sum().backward()
print(y, x.grad, torch.equal(x.grad, 3 * x.detach() ** 2))
x.grad = None
quantised = StraightThrough.apply(x * 0.3, 4)
(quantised * torch.arange(3)).sum().backward()
print(quantised, x.grad)
(first,) = grad(Cube.apply(x).sum(), x, create_graph=True)
print("second derivative of the cube", grad(first.sum(), x)[0])

# --- every derivative of sin(x²) ---
t = torch.linspace(0.1, 1.5, 4, requires_grad=True)
f = torch.sin(t ** 2)
derivatives = []
for _ in range(3):
    f = grad(f.sum(), t, create_graph=True)[0]
    derivatives.append(f.detach())
print(torch.stack(derivatives))
print((derivatives[1] - (2 * torch.cos(t ** 2) - 4 * t ** 2 * torch.sin(t ** 2))).abs().max() < 1e-12)


# --- finite differences tell whether a gradient is right ---
def numerical_gradient(f, x, eps=1e-6):
    result = torch.zeros_like(x)
    flat, out = x.detach().clone().view(-1), result.view(-1)
    for i in range(flat.numel()):
        keep = flat[i].item()
        flat[i] = keep + eps
        up = f(flat.view_as(x)).item()
        flat[i] = keep - eps
        down = f(flat.view_as(x)).item()
        flat[i] = keep
        out[i] = (up - down) / (2 * eps)
    return result


functions = {
    "softplus": lambda z: nn.functional.softplus(z).sum(),
    "logsumexp": lambda z: torch.logsumexp(z, dim=1).prod(),
    "log softmax": lambda z: (torch.log_softmax(z, 0) * torch.arange(4)).sum(),
    "einsum": lambda z: torch.einsum("ij,kj,kl->il", z, z, z).pow(2).mean(),
    "norms": lambda z: z.norm(dim=0).sum() + z.abs().sum() + z.std(),
    "index": lambda z: (z[:, [0, 0, 3]] * z[1:, 1:].sum()).exp().mean(),
    "where": lambda z: torch.where(z > 0, z ** 2, 3 * z).sum() + z.clamp(-0.5, 0.5).sum(),
    "cumulative": lambda z: (z.cumsum(1) ** 2).sum() + z.sigmoid().prod(1).sum(),
    "matrix": lambda z: torch.einsum("bij,bj->bi", torch.stack([z @ z.T, z[:, 1:]]), z.T[:2, :3]).tanh().trace(),
    "sorted": lambda z: (z.sort(dim=1)[0] * torch.arange(4)).sum() + z.topk(2, dim=0)[0].sum(),
}
z = torch.tensor(rng.normal(size=(3, 4)), requires_grad=True)
for name, function in functions.items():
    value = function(z)
    analytic, = grad(value, z)
    worst = (analytic - numerical_gradient(function, z)).abs().max()
    print(f"{name:12s} {value.item():.10f}  |gradient| {analytic.norm().item():.10f}  agrees: {bool(worst < 1e-6)}")

# --- Jacobian and Hessian, row by row ---
A = torch.tensor(rng.normal(size=(3, 3)))
v = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
out = torch.tanh(A @ v)
jacobian = torch.stack([grad(out[i], v, retain_graph=True)[0] for i in range(3)])
print(jacobian, torch.allclose(jacobian, (1 - out.detach() ** 2).unsqueeze(1) * A))
print("vector times Jacobian", grad(out, v, grad_outputs=torch.tensor([1.0, 0.0, -1.0]))[0], jacobian[0] - jacobian[2])
energy = (v ** 4).sum() + v[0] * v[1] * v[2]
g, = grad(energy, v, create_graph=True)
hessian = torch.stack([grad(g[i], v, retain_graph=True)[0] for i in range(3)])
step = np.linalg.solve(hessian.numpy(), g.detach().numpy())
print(hessian, "symmetric:", torch.equal(hessian, hessian.T), "Newton step", torch.from_numpy(step))

# --- gradients of things in the middle ---
a = torch.tensor(2.0, requires_grad=True)
b = a * 3
b.retain_grad()
seen = []
handle = b.register_hook(lambda gradient: seen.append(gradient.item()))
c = b ** 2
c.backward(retain_graph=True)
handle.remove()
c.backward()
print(a.grad, b.grad, seen, b.is_leaf)
unused = torch.ones(2, requires_grad=True)
print(grad(a * 2, [a, unused], allow_unused=True))
try:
    c.backward()
except RuntimeError as error:
    print("a second walk over a freed graph is refused:", type(error).__name__ != "")

# --- a gradient penalty, as for Wasserstein critics: Gulrajani et al. 2017, arXiv:1704.00028 ---
critic = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Softplus(), nn.Linear(8, 1))
for p in critic.parameters():
    p.data = torch.from_numpy(rng.normal(0, 0.5, size=p.shape))
real = torch.from_numpy(rng.normal(1, 0.3, size=(32, 2)))
fake = torch.from_numpy(rng.normal(-1, 0.5, size=(32, 2)))
optimizer = torch.optim.Adam(critic.parameters(), lr=0.01, betas=(0.5, 0.9))
for i in range(21):
    alpha = torch.from_numpy(rng.random((32, 1))).expand_as(real)
    mixed = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    scores = critic(mixed)
    gradients = torch.autograd.grad(outputs=scores, inputs=mixed, grad_outputs=torch.ones_like(scores),
                                    create_graph=True, retain_graph=True, only_inputs=True)[0]
    penalty = ((gradients.view(32, -1).norm(2, dim=1) - 1) ** 2).mean()
    loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if i % 5 == 0:
        print(f"step {i}: loss {loss.item():.10f}, penalty {penalty.item():.10f}")
print("weights", critic[0].weight[0], critic[4].bias)
