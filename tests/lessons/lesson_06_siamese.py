"""Lesson 6: a siamese network learns a distance: contrastive loss, then triplets. Hadsell et al. 2006."""

import numpy as np
from sklearn.datasets import load_digits

import minidl as torch
import minidl.nn as nn
import minidl.nn.functional as F
from minidl.data import DataLoader, Dataset
from minidl.optim import Adam

rng = np.random.default_rng(6)
digits = load_digits()
data = (torch.from_numpy(digits.data).float() - 8.0) / 8.0
targets = torch.from_numpy(digits.target)


class Pairs(Dataset):
    """Two images and whether they show different digits (1) or the same (0), half of each kind."""

    def __init__(self, count, seed):
        generator = np.random.default_rng(seed)
        self.pairs = []
        for i in range(count):
            first = int(generator.integers(1000))
            matching = np.flatnonzero((digits.target[:1000] == digits.target[first]) == (i % 2 == 0))
            self.pairs.append((first, int(generator.choice(matching)), float(i % 2)))

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, i):
        first, second, differ = self.pairs[i]
        return data[first], data[second], torch.tensor([differ], dtype=torch.float32)


class Embedder(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(inplace=True), nn.Linear(48, dim))

    def forward(self, *images):
        return tuple(self.net(x) for x in images)


class ContrastiveLoss(nn.Module):
    """Same: d². Different: max(margin - d, 0)²."""

    def __init__(self, margin=2.0):
        super().__init__()
        self.margin = margin

    def forward(self, left, right, differ):
        distance = F.pairwise_distance(left, right, keepdim=True)
        return torch.mean((1 - differ) * distance.pow(2) + differ * torch.clamp(self.margin - distance, min=0.0).pow(2))


def start():
    model = Embedder()
    generator = np.random.default_rng(60)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(generator.normal(0, 0.15, tuple(p.shape))))
    return model


def report(name, model):
    """How well the nearest of 1000 known images names 200 new ones, and how far same and different ones are apart."""
    model.eval()
    with torch.no_grad():
        known, new = model(data[:1000], data[1000:1200])
        distances = torch.cdist(new, known)
        nearest = distances.argmin(dim=1)
        hits = (targets[nearest] == targets[1000:1200]).sum().item()
        five = targets[distances.topk(5, dim=1, largest=False).indices]
        votes = F.one_hot(five, 10).sum(1).argmax(1)
        same = targets[1000:1200].unsqueeze(1) == targets[:1000].unsqueeze(0)
    print(f"{name}: nearest {hits}/200, vote of five {(votes == targets[1000:1200]).sum().item()}/200, "
          f"same {distances[same].mean():.6f}, different {distances[~same].mean():.6f}")


model = start()
report("untrained", model)
criterion, optimizer = ContrastiveLoss(), Adam(model.parameters(), lr=0.003)
loader = DataLoader(Pairs(800, seed=61), batch_size=40)
for epoch in range(3):
    model.train()
    losses = []
    for left, right, differ in loader:
        loss = criterion(*model(left, right), differ)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    print(f"epoch {epoch}: {torch.stack(losses).mean():.6f} ± {torch.stack(losses).std():.6f}")
report("contrastive", model)

# --- triplets: an anchor, one like it, one unlike it ---
triplet = nn.TripletMarginLoss(margin=1.0, p=2)
model = start()
optimizer = Adam(model.parameters(), lr=0.003, weight_decay=1e-5)
for step in range(60):
    anchor = torch.from_numpy(rng.integers(0, 1000, 64))
    positive = torch.tensor([int(rng.choice(np.flatnonzero(digits.target[:1000] == t))) for t in targets[anchor].tolist()])
    negative = torch.tensor([int(rng.choice(np.flatnonzero(digits.target[:1000] != t))) for t in targets[anchor].tolist()])
    a, p, n = model(*(data[index] for index in (anchor, positive, negative)))
    loss = triplet(a, p, n)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 15 == 0:
        by_hand = F.relu(F.pairwise_distance(a, p) - F.pairwise_distance(a, n) + 1.0).mean()
        active = (F.pairwise_distance(a, p) + 1.0 > F.pairwise_distance(a, n)).float().mean()
        print(f"step {step}: {loss:.6f} {by_hand:.6f}, {active:.0%} of the triplets still count")
report("triplets", model)

# --- the angle instead of the distance ---
with torch.no_grad():
    e = F.normalize(model(data[:6])[0], dim=1)
    print(e.norm(dim=1), (e @ e.t()).diagonal())
    print(torch.allclose(e @ e.T, F.cosine_similarity(e.unsqueeze(1), e.unsqueeze(0), dim=-1), atol=1e-6))
    print("squared distance = 2 - 2 cos:", (torch.cdist(e, e)[0, 1:] ** 2 - (2 - 2 * (e @ e.T)[0, 1:])).abs().max() < 1e-5)
y = torch.where(targets[:5] == targets[1:6], 1, -1)
print(y, F.cosine_embedding_loss(e[:5], e[1:6], y, margin=0.2))
