"""Lesson 15: tensors without gradients: neighbours, k-means, principal components, a naive Bayes reader of digits."""

import math

import numpy as np
from sklearn.datasets import load_digits, load_iris

import minidl as torch
import minidl.nn.functional as F
from minidl.data import DataLoader, Dataset
from minidl.utils.data import TensorDataset

iris = load_iris()
X = torch.from_numpy(iris.data).float()
y = torch.from_numpy(iris.target)
X = (X - X.mean(0, keepdim=True)) / X.std(0, keepdim=True)
names = [str(name) for name in iris.target_names]
print(X.shape, y.bincount(), X[:2], names)

# --- describe the data ---
for label in y.unique():
    rows = X[y == label]
    print(f"{names[label]:10s} {len(rows)} mean {rows.mean(0)} largest {rows.max(0).values} {rows.max(0).indices}")
covariance = X.T @ X / (len(X) - 1)
print(covariance, np.abs(covariance.numpy() - np.corrcoef(X.numpy().T)).max() < 1e-5, X[:, 0].median(), X.sort(0)[0][len(X) // 4])
counts = ((X[:, 2] + 2) / 0.8).floor().clamp(0, 4).long().bincount(minlength=5)
print(counts, counts.sum(), torch.cumsum(counts, dim=0), torch.var(X, dim=0).sum())

# --- k nearest neighbours ---
every_third = torch.arange(len(X)) % 3 == 0
train_x, train_y, test_x, test_y = X[~every_third], y[~every_third], X[every_third], y[every_third]
distance = (test_x.unsqueeze(1) - train_x.unsqueeze(0)).pow(2).sum(-1).sqrt()
print(distance.shape, (distance - torch.cdist(test_x, train_x)).abs().max().item() < 1e-3)
for k in (1, 3, 7):
    _, nearest = torch.topk(distance, k, dim=1, largest=False)
    votes = F.one_hot(train_y[nearest], 3).sum(dim=1)
    predicted = votes.argmax(dim=-1)
    print(f"{k} neighbours: {(predicted == test_y).sum().item()}/{len(test_y)}, wrong at {(predicted != test_y).nonzero().flatten()}")

# --- k-means ---
centres = X[[0, 60, 120]].clone()
for iteration in range(20):
    assignment = torch.cdist(X, centres).argmin(dim=1)
    sums = torch.zeros_like(centres).index_add_(0, assignment, X)
    sizes = torch.zeros(3).scatter_add_(0, assignment, torch.ones(len(X)))
    new = sums / sizes.unsqueeze(1)
    moved = (new - centres).norm(dim=1).max().item()
    centres.copy_(new)
    if moved < 1e-6:
        print("k-means stopped at", iteration)
        break
print(centres, sizes)
table = torch.zeros(3, 3, dtype=torch.long)
table.view(-1).index_add_(0, 3 * y + assignment, torch.ones(len(y), dtype=torch.long))
print(table, "purity", table.max(dim=1).values.sum().item() / table.sum().item())

# --- principal components: a power iteration, and the library's own ---
remaining, components, variances = covariance.clone(), [], []
for _ in range(2):
    v = torch.ones(4) / 2
    for _ in range(200):
        v = F.normalize(remaining.mv(v), dim=0)
    variance = v @ remaining @ v
    remaining -= variance * torch.outer(v, v)
    components.append(v)
    variances.append(variance)
W = torch.stack(components, dim=1)
print(W, torch.stack(variances), f"{sum(variances) / covariance.trace():.2%} of the variance")
eigenvalues, eigenvectors = (torch.from_numpy(a) for a in np.linalg.eigh(covariance.numpy()))
print(eigenvalues.flip(0), (eigenvectors[:, -1] @ W[:, 0]).abs(), (X @ W).std(0))
print(eigenvalues.prod(), covariance.norm(), covariance.norm(1), eigenvalues.square().sum().sqrt(), covariance.triu().sum())
rebuilt = eigenvectors @ torch.diag(eigenvalues) @ eigenvectors.mT
print(torch.allclose(rebuilt, covariance, atol=1e-5), torch.isclose(rebuilt.trace(), torch.tensor(4.0)).item())


# --- a dataset with a transform, a loader with a collate function ---
class DigitRows(Dataset):
    def __init__(self, start, stop, transform=None):
        digits = load_digits()
        self.images, self.targets, self.transform = digits.images[start:stop], digits.target[start:stop], transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        image = torch.tensor(self.images[i], dtype=torch.float32)
        if self.transform is not None:
            image = self.transform(image)
        return {"image": image, "label": int(self.targets[i])}


def binarise(image):
    return image.gt(7).float()


batch = next(iter(DataLoader(DigitRows(0, 10, binarise), batch_size=4)))
print({key: (value.shape, str(value.dtype)) for key, value in batch.items()}, batch["label"], batch["image"][0].int())
ragged = DataLoader([torch.arange(n) for n in (3, 1, 4, 1, 5)], batch_size=2,
                    collate_fn=lambda items: (torch.tensor([len(t) for t in items]), torch.cat(items)))
print([(lengths.tolist(), joined.tolist()) for lengths, joined in ragged])
padded = torch.stack([F.pad(torch.ones(n), (0, 4 - n), value=-1.0) for n in (2, 4)])
print(padded, padded.ne(-1).sum(1))

# --- naive Bayes: count black pixels, multiply probabilities ---
black, total = torch.zeros(10, 64), torch.zeros(10)
for batch in DataLoader(DigitRows(0, 600, binarise), batch_size=100):
    one_hot = F.one_hot(batch["label"], 10).float()
    black += one_hot.T @ batch["image"].flatten(1)
    total += one_hot.sum(0)
p = (black + 1) / (total.view(-1, 1) + 2)
prior = torch.log(total / total.sum())
right = 0
test_set = DigitRows(600, 900, binarise)
images, labels = zip(*[(item["image"], item["label"]) for item in test_set], strict=True)
for image, label in DataLoader(TensorDataset(torch.stack(images), torch.tensor(labels)), batch_size=64):
    bits = image.view(image.size(0), -1)
    log_likelihood = bits @ p.log().t() + (1 - bits) @ (1 - p).log().t() + prior
    right += int((log_likelihood.max(1)[1] == label).sum())
print(f"naive Bayes: {right}/300, {math.exp(prior[0].item()):.4f}, the surest zero pixel {p[0].min():.4f} at {p[0].argmin()}")
np.testing.assert_allclose(p.numpy().sum(), float(p.sum()), rtol=1e-5)
