"""Lesson 11: letters one after the other: a table of pairs, an embedding network, and causal attention.

Bengio et al. 2003; Vaswani et al. 2017, arXiv:1706.03762.
"""

import math

import numpy as np

import minidl as torch
import minidl.nn as nn
from minidl.nn import functional as F

rng = np.random.default_rng(11)
text = ("the cat sat on the mat. the dog sat on the log. a cat and a dog ran to the man. "
        "the man had a hat and the hat had a hole. then the rat ate the hat and the cat ate the rat. ") * 2
letters = sorted(set(text))
number_of = {letter: i for i, letter in enumerate(letters)}
V = len(letters)


def spell(numbers):
    return "".join(letters[n] for n in numbers)


data = torch.tensor([number_of[letter] for letter in text], dtype=torch.long)
here, there = data[:-1], data[1:]
print(V, "letters:", "".join(letters), data.shape, data.dtype, data[:12], spell(data[:12].tolist()))

# --- 1. counting pairs ---
pairs = torch.zeros((V, V), dtype=torch.int32)
for a, b in zip(here.tolist(), there.tolist(), strict=True):
    pairs[a, b] += 1
P = (pairs + 1).float()
P /= P.sum(1, keepdim=True)
surprise = -P[here, there].log().mean()
print(f"{surprise = :.6f}, e to that {surprise.exp():.3f}, entropy of the letters {-(P * P.log()).sum(1).mean():.4f}")
print("after t comes", letters[pairs[number_of["t"]].argmax().item()], pairs.sum(), P[0].max())

# --- 2. the same table, learned: a one-hot vector times a matrix ---
table = torch.zeros(V, V, requires_grad=True)
one_hot = F.one_hot(here, num_classes=V).float()
for _ in range(30):
    odds = (one_hot @ table).exp()
    chances = odds / odds.sum(1, keepdims=True)
    loss = -chances[torch.arange(len(there)), there].log().mean() + 0.01 * (table ** 2).mean()
    table.grad = None
    loss.backward()
    table.data += -20 * table.grad
print(f"learned table: {loss.item():.6f}, {table.grad.norm():.6f}")

# --- 3. an embedding and a hidden layer look three letters back ---
past = F.pad(data, (3, 0)).unfold(0, 3, 1)[:-1]                                # (L, 3)
print(past.shape, past[:4].tolist(), [spell(row) for row in past[3:6].tolist()])
sizes = {"embedding": (V, 4), "W": (12, 40), "b": (40,), "U": (40, V), "c": (V,)}
weights = {name: torch.from_numpy(rng.normal(size=size) / math.sqrt(size[0])).float() for name, size in sizes.items()}
for parameter in weights.values():
    parameter.requires_grad = True
print({name: (parameter.nelement(), parameter.is_leaf) for name, parameter in weights.items()})
for step in range(60):
    chosen = torch.from_numpy(rng.integers(0, len(data), size=64))
    vectors = F.embedding(past[chosen], weights["embedding"])                   # (64, 3, 4)
    hidden = torch.tanh(vectors.view(vectors.shape[0], -1) @ weights["W"] + weights["b"])
    loss = F.cross_entropy(hidden @ weights["U"] + weights["c"], data[chosen])
    loss.backward()
    for parameter in weights.values():
        parameter.data -= (0.3 if step < 40 else 0.1) * parameter.grad
        parameter.grad.zero_()
    if step % 20 == 0:
        print(f"step {step:2d}: {loss.item():.6f}")


# --- 4. causal self-attention: each letter asks those before it ---
class Attention(nn.Module):
    """softmax(q kᵀ / √d, only backwards in time) v, for several heads at once."""

    def __init__(self, width, heads, longest):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.register_buffer("past", torch.tril(torch.ones(longest, longest)).view(1, 1, longest, longest))
        self.weights = None

    def forward(self, x):
        N, T, width = x.size()
        q, k, v = (part.view(N, T, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(width, dim=2))
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.size(-1))           # (N, H, T, T)
        scores = scores.masked_fill(self.past[:, :, :T, :T] == 0, float("-inf"))
        weights = F.softmax(scores, dim=-1)
        self.weights = weights.detach()
        return self.out((weights @ v).transpose(1, 2).contiguous().view(N, T, width))


class Transformer(nn.Module):
    def __init__(self, width=16, depth=2, longest=16):
        super().__init__()
        self.longest = longest
        self.letter, self.place = nn.Embedding(V, width), nn.Embedding(longest, width)
        self.layers = nn.ModuleList()
        for _ in range(depth):
            self.layers.append(nn.ModuleDict({
                "norm1": nn.LayerNorm(width), "attention": Attention(width, 2, longest),
                "norm2": nn.LayerNorm(width), "mlp": nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)),
            }))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, V)

    def forward(self, letters):
        x = self.letter(letters) + self.place(torch.arange(letters.shape[1], device=letters.device))
        for layer in self.layers:
            x = x + layer["attention"](layer["norm1"](x))
            x = x + layer["mlp"](layer["norm2"](x))
        return self.head(self.norm(x))

    @torch.no_grad()
    def go_on(self, letters, n):
        for _ in range(n):
            scores = self(letters[:, -self.longest:])[:, -1]
            letters = torch.cat((letters, scores.argmax(dim=-1, keepdim=True)), dim=1)
        return letters


model = Transformer()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            parameter.copy_(torch.from_numpy(rng.normal(0, 0.1, size=tuple(parameter.shape))))
print(model.layers[0], sum(p.numel() for p in model.parameters()), [name for name, _ in model.named_buffers()])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for step in range(60):
    starts = rng.integers(0, len(data) - 17, size=8)
    batch = torch.stack([data[s:s + 17] for s in starts])
    scores = model(batch[:, :-1])
    loss = F.cross_entropy(scores.view(-1, V), batch[:, 1:].reshape(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 15 == 0 or step == 59:
        print(f"step {step}: loss {loss.item():.6f}")
model.eval()
print(f"by letter: {F.cross_entropy(scores.transpose(1, 2), batch[:, 1:], reduction='none').mean(0)[:4]}")
attention = model.layers[0]["attention"].weights[0]
print(attention.shape, attention[1, 2, :4], attention.sum(-1).mean(), attention.triu(1).abs().max().item())
print(spell(model.go_on(torch.tensor([[number_of[letter] for letter in "the "]]), 20)[0].tolist()))
