"""Lesson 9: residual blocks, normalisation, dropout; what train() and eval() change. He et al. 2015, arXiv:1512.03385."""

import math

import numpy as np
from sklearn.datasets import load_digits

import minidl as torch
import minidl.nn.functional as F
from minidl import nn
from minidl.data import DataLoader, TensorDataset
from minidl.optim import lr_scheduler

rng = np.random.default_rng(9)

# --- batch norm by itself ---
bn = nn.BatchNorm1d(3)
x = torch.tensor(rng.normal(2, 3, size=(20, 3))).float()
out = bn(x)
by_hand = (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + bn.eps)
print(torch.allclose(out, by_hand, atol=1e-6), out.mean(0).abs().max() < 1e-6, out.std(0))
print("running:", bn.running_mean, bn.running_var, bn.num_batches_tracked)
print("0.1 of the batch:", 0.1 * x.mean(0), 0.9 + 0.1 * x.var(0))
bn.eval()
print("eval:", bn(x)[0], (x[0] - bn.running_mean) / (bn.running_var + 1e-5).sqrt(), bn.training)

# --- layer norm and group norm look at one sample ---
ln = nn.LayerNorm(3, eps=1e-5)
print(ln, ln(x)[0], (x[0] - x[0].mean()) / (x[0].var(unbiased=False) + 1e-5).sqrt())
gn = nn.GroupNorm(2, 4)
maps = torch.from_numpy(rng.normal(size=(2, 4, 3, 3)).astype("float32"))
print(gn(maps).view(2, 2, -1).std(-1, unbiased=False), torch.allclose(ln(x).mean(1), torch.zeros(20), atol=1e-6))

# --- dropout: zeros in training, nothing in eval; what is left is scaled up ---
drop = nn.Dropout(0.25)
ones = torch.ones(4000)
dropped = drop(ones)
print(set(dropped.unique().tolist()) <= {0.0, 4 / 3, dropped.max().item()}, f"{dropped.max():.4f}",
      abs(dropped.mean().item() - 1) < 0.05, abs((dropped == 0).float().mean().item() - 0.25) < 0.05)
drop.eval()
print(torch.equal(drop(ones), ones), F.dropout(ones, 0.5, training=False).sum(), F.dropout(ones, p=1.0).sum(), drop)

# --- initialisation ---
layer = nn.Linear(64, 32)
nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
print(layer.weight.abs().max() <= math.sqrt(6 / 64), f"gain {nn.init.calculate_gain('relu'):.4f}")
nn.init.xavier_uniform_(layer.weight)
print(layer.weight.abs().max() <= math.sqrt(6 / 96), layer.weight.mean().abs() < 0.02)
nn.init.kaiming_normal_(layer.weight, mode="fan_out")
print((layer.weight.std() - math.sqrt(2 / 32)).abs() < 0.03)
nn.init.normal_(layer.weight, mean=1.0, std=0.01)
nn.init.eye_(torch.empty(2, 2))
print(layer.weight.mean().round().item(), nn.init.ones_(layer.bias).sum(), nn.init.eye_(torch.empty(2, 3)))


# --- the network ---
class ResidualBlock(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    def __init__(self, widths=(8, 16), num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList([ResidualBlock(widths[0], widths[0]), ResidualBlock(widths[0], widths[1], stride=2)])
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.LayerNorm(widths[1]), nn.GELU(), nn.Dropout(0.0), nn.Linear(widths[1], num_classes))

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(torch.flatten(self.pool(x), 1))


def init(m):
    if isinstance(m, (nn.Conv2d, nn.Linear)):
        m.weight.data = torch.from_numpy(rng.normal(0, math.sqrt(2 / m.weight[0].numel()), tuple(m.weight.shape))).float()
        if m.bias is not None:
            nn.init.constant_(m.bias, 0)
    elif isinstance(m, nn.BatchNorm2d):
        nn.init.constant_(m.weight, 1)
        nn.init.constant_(m.bias, 0)


digits = load_digits()
images = (torch.tensor(digits.images, dtype=torch.float32)[:, None] - 5) / 6
labels = torch.tensor(digits.target)
train_loader = DataLoader(TensorDataset(images[:320], labels[:320]), batch_size=32, shuffle=False)
model = ResNet()
model.apply(init)
print(model)
print(len(list(model.modules())), "modules,", sum(p.numel() for p in model.parameters()), "parameters,",
      sum(b.numel() for b in model.buffers()), "numbers in buffers")

criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=4, eta_min=1e-4)
for epoch in range(4):
    model.train()
    total_loss, correct = 0.0, 0
    for inputs, targets in train_loader:
        outputs = model(inputs)
        loss = criterion(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
        correct += (outputs.argmax(1) == targets).sum().item()
    scheduler.step()
    print(f"epoch {epoch}: loss {total_loss / len(train_loader):.6f}, {correct}/320 right, "
          f"next lr {optimizer.param_groups[0]['lr']:.6f}")

with torch.no_grad():
    model.eval()
    scores = model(images[400:600])
    alone = model(images[400:401])
    print("test accuracy", (scores.argmax(1) == labels[400:600]).float().mean().item())
    print("in eval a sample does not depend on its batch:", torch.allclose(scores[0], alone[0], atol=1e-4))
    model.train()
    before = model.blocks[0].bn1.running_mean.clone()
    in_batch, among_others = model(images[400:404])[0], model(images[400:440])[0]
    print("in training it does:", not torch.allclose(in_batch, among_others, atol=1e-2),
          not torch.equal(before, model.blocks[0].bn1.running_mean), model.blocks[0].bn1.num_batches_tracked.item())
print([name for name in model.state_dict() if name.startswith("blocks.1.shortcut")])
