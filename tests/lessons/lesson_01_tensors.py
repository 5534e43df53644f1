"""Lesson 1: tensors and the gradients they carry."""

import math

import numpy as np

import minidl as torch

# --- making tensors ---
a = torch.tensor([[1, 2, 3], [4, 5, 6]])
b = torch.arange(6, dtype=torch.float32).view(2, 3)
print(a, b)
print(a.dtype, b.dtype, a.shape, b.size(), b.size(0), a.numel(), a.dim(), a.device)
print(torch.zeros(2, 2), torch.ones(3), torch.full((2, 2), 7.5), torch.eye(3))
print(torch.linspace(0, 1, steps=5), torch.arange(10, 0, -3), torch.zeros_like(b), torch.ones_like(a))
print(torch.tensor(3.5), torch.tensor([True, False]), torch.tensor([1e-6, 1.0, 2e5]), torch.tensor([]))

torch.manual_seed(0)
noise = torch.rand(3, 4)
print(noise.shape, bool((noise >= 0).all()), bool((noise < 1).all()), torch.randn(2, 5).dtype, torch.randperm(7).sum())

# memory is shared with NumPy, both ways
array = np.linspace(-1, 1, 5).astype(np.float32)
shared = torch.from_numpy(array)
array[0] = 10
shared[4] = -10
print(shared, array.sum(), type(shared.numpy()).__name__, torch.as_tensor([1.5, 2.5]).tolist())

# --- number types ---
print((a + 1).dtype, (a / 2).dtype, (a * 0.5).dtype, (a // 2).dtype, (a > 2).dtype, (b + a).dtype)
print(a.float().mean(), b.long(), b.int().dtype, b.double().dtype, b.to(torch.float64).sum(), b.bool())
print(7 // torch.tensor([2, 3]), torch.tensor([7, -7]) % 3, 2 ** torch.tensor([1.0, 3.0]), -a, abs(torch.tensor([-1, 4])))

# --- shapes: views of the same memory ---
v = b.view(3, 2)
v[0, 0] = 100
print(b, b.t(), b.T.shape, b.reshape(-1), b.view(-1, 2).size(), b.is_contiguous(), b.t().is_contiguous())
print(b.unsqueeze(0).shape, b.unsqueeze(-1).shape, b[None, :, None].squeeze().shape, b.flatten().shape)
images = torch.arange(24).view(2, 3, 4)
print(images.permute(2, 0, 1).shape, images.transpose(0, 2).shape, images.flatten(1).shape, images.permute(1, 2, 0)[0])
print(torch.cat([a, a * 10], dim=0), torch.cat((a, a), 1).shape, torch.stack([a, a], dim=1).shape)
left, right = torch.arange(8).chunk(2)
first, second, third = torch.arange(9).view(3, 3).unbind(0)
print(left, right, first + second + third, [part.tolist() for part in torch.arange(7).split(3)])
print(torch.tensor([1, 2, 3]).repeat(2, 2), torch.tensor([[1], [2]]).expand(2, 3), torch.tensor([1, 2]).repeat_interleave(2))
print(torch.arange(6).roll(2), torch.arange(6).view(2, 3).flip(1), torch.ones(3, 3).tril(), torch.ones(3, 3).triu(1))

# --- broadcasting ---
column, row = torch.tensor([[0.0], [10.0], [20.0]]), torch.tensor([1.0, 2.0, 3.0])
print(column + row, (column - row).shape, torch.outer(row, row), column.expand_as(column + row)[:, 2])
xs, ys = torch.meshgrid(torch.arange(3), torch.arange(2), indexing="ij")
print(xs, ys, (xs * 10 + ys).flatten())

# --- indexing ---
m = torch.arange(12).reshape(3, 4)
print(m[1], m[:, 1], m[1:, ::2], m[-1, -1].item(), m[..., 0], m[[0, 2]], m[torch.tensor([0, 2]), torch.tensor([1, 3])])
mask = m % 3 == 0
print(mask, m[mask], m[m > 7].sum(), mask.sum().item(), torch.where(mask, m, -m), (~mask).sum(), (mask & (m > 4)).nonzero())
m[0] = 0
m[:, 3] += 100
m[m == 5] = -5
print(m, m.masked_fill(m < 0, 55), m.index_select(1, torch.tensor([3, 0])), torch.nonzero(m[1] > 4).squeeze(1))
print(m.gather(1, torch.tensor([[0], [1], [2]])), m.diagonal())
board = torch.zeros(3, 5).scatter_(1, torch.tensor([[1], [0], [4]]), 1.0)
print(board, torch.nn.functional.one_hot(torch.tensor([2, 0, 1])), board.argmax(dim=1))

# --- reductions ---
c = torch.tensor([[3.0, -1.0, 2.0], [0.5, 7.0, -4.0]])
print(c.sum(), c.sum(0), c.sum(dim=1, keepdim=True), c.mean(1), c.std(), c.var(0, unbiased=False), c.prod(), c.norm())
values, indices = torch.max(c, dim=1)
print(values, indices, c.max(), c.min(dim=0)[0], c.min(dim=0).indices, c.argmax(), c.argmin(1), torch.max(c, torch.zeros(1)))
print(c.cumsum(1), c.cumprod(0), c.abs().amax(0), c.amin((0, 1)), c.median(), torch.tensor([1, 1, 0]).any(), (c > -5).all(1))
ordered, order = c.sort(dim=1, descending=True)
print(ordered, order, c.flatten().argsort(), c.flatten().topk(2).values, torch.tensor([3, 1, 3, 2, 1]).unique())
print(torch.bincount(torch.tensor([0, 2, 2, 5])), c.logsumexp(1), c.softmax(dim=1), torch.allclose(c.softmax(1).sum(1), torch.ones(2)))

# --- arithmetic ---
p = torch.tensor([0.25, 1.0, 2.25])
print(p.sqrt(), p.rsqrt(), p.exp(), p.log(), torch.log1p(p), p.pow(1.5), p.reciprocal(), p.square(), p.sin(), torch.cos(p))
print(p.round(), p.floor(), p.ceil(), p.clamp(0.5, 2.0), p.clamp(min=1), torch.sign(p - 1), torch.maximum(p, 1 / p), p.erf())
print(torch.atan(p), torch.tensor(math.pi).sin() < 1e-6, torch.isnan(torch.tensor([0.0, math.nan])), torch.lerp(p, 2 * p, 0.5))
print(a.float() @ b.t(), torch.mm(b, b.T), torch.matmul(b, row), row.dot(row), torch.bmm(images.float(), torch.ones(2, 4, 1)).shape)
print(torch.einsum("ij,kj->ik", b, b)[0], torch.trace(torch.eye(4)), torch.addmm(torch.ones(2, 2), b, b.T).diag(), torch.equal(a, a.clone()))

# --- in-place methods end with an underscore ---
z = torch.zeros(4)
z.add_(2).mul_(3).sub_(1).div_(2)
z[1:3].fill_(-1)
print(z.clamp(min=0), z.clamp_(max=2), z.clone().zero_().sum(), z.sqrt_(), torch.empty(2).fill_(4).copy_(torch.tensor([8.0, 9.0])))
print(torch.empty(50).uniform_(1, 2).min() >= 1, torch.zeros(3).normal_().shape, torch.zeros(2).random_(0, 5).max() < 5)

# --- gradients ---
x = torch.tensor([2.0, 3.0], requires_grad=True)
y = (x ** 2).sum() + x[0] * x[1]
print(f"y = {y.item()}, y = {y:.2f}, y = {y}, a leaf: {x.is_leaf} {y.is_leaf}")
y.backward()
print(x.grad, "by hand:", 2 * x.data + x.detach().flip(0))
(3 * x).sum().backward()
print("gradients add up:", x.grad)
x.grad.zero_()
with torch.no_grad():
    frozen = x * 2
print(frozen.requires_grad, (x * 2).requires_grad, x.detach().requires_grad, x, frozen)

w = torch.tensor([[1.0, -1.0], [0.5, 2.0]], requires_grad=True)
h = torch.tanh(x @ w)
loss = (h * torch.tensor([1.0, 10.0])).mean().exp()
loss.backward()
by_hand = torch.outer(x.detach(), (1 - h.detach() ** 2) * torch.tensor([0.5, 5.0]) * loss.detach())
print(loss, w.grad, torch.allclose(w.grad, by_hand, rtol=1e-4))
(g,) = torch.autograd.grad((w[0] * w[1].relu()).sum() / w.norm(), w)
print(g, w.grad_fn, h.grad_fn is not None)
