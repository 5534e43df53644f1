"""Lesson 4: a LeNet reads handwritten digits: loader, scheduler, accuracy, confusion matrix. LeCun et al. 1998."""

import numpy as np
from sklearn.datasets import load_digits

import minidl as torch
import minidl.nn.functional as F
from minidl import nn, optim
from minidl.data import DataLoader, Dataset, TensorDataset
from minidl.optim.lr_scheduler import StepLR

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Digits(Dataset):
    """Images (1, 8, 8) in -1..1 with their labels: the even ones to learn from, the odd ones for the exam."""

    def __init__(self, even):
        digits = load_digits()
        part = slice(0, 1600, 2) if even else slice(1, 801, 2)
        self.images = torch.tensor(digits.images[part], dtype=torch.float32).unsqueeze(1) / 8 - 1
        self.labels = torch.tensor(digits.target[part]).long()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


class LeNet(nn.Module):
    """LeNet-5, cut down to 8×8 pixels: two convolutions, each followed by a mean over 2×2, and three dense layers."""

    def __init__(self):
        super(LeNet, self).__init__()         # noqa: UP008  (as older lessons write it)
        self.c1 = nn.Conv2d(1, 6, kernel_size=5, padding=2)
        self.s2 = nn.AvgPool2d(2, 2)
        self.c3 = nn.Conv2d(6, 16, 3, padding=1)
        self.c5 = nn.Linear(16 * 2 * 2, 60)
        self.f6 = nn.Linear(60, 42)
        self.out = nn.Linear(42, 10)

    def forward(self, x):
        x = self.s2(torch.tanh(self.c1(x)))             # (N, 6, 4, 4)
        x = self.s2(torch.tanh(self.c3(x)))             # (N, 16, 2, 2)
        x = x.view(x.size(0), -1)
        for dense in (self.c5, self.f6):
            x = dense(x).tanh()
        return F.log_softmax(self.out(x), dim=1)


generator = np.random.default_rng(4)
net = LeNet().to(device)
for name, parameter in net.named_parameters():
    if name.endswith("bias"):
        nn.init.zeros_(parameter)
    else:
        weights = generator.uniform(-1, 1, size=tuple(parameter.shape)) * np.sqrt(3 / parameter[0].numel())
        parameter.data = torch.from_numpy(weights).float().to(device)

train_set, exam_set = Digits(even=True), Digits(even=False)
train_loader = DataLoader(train_set, batch_size=50, shuffle=False)
exam_loader = DataLoader(TensorDataset(exam_set.images, exam_set.labels), batch_size=128)
images, labels = next(iter(train_loader))
print(len(train_set), len(exam_set), len(train_loader), len(exam_loader), images.shape, labels[:10], len(exam_loader.dataset))
print(net)
print(f"{sum(p.numel() for p in net.parameters()):,} parameters; first output {net(images)[0]}")

optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
for epoch in range(4):
    net.train()
    running = 0.0
    for i, (x, y) in enumerate(train_loader):
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = F.nll_loss(net(x), y)
        loss.backward()
        optimizer.step()
        running += loss.item() * x.size(0)
        if i % 8 == 0:
            print(f"epoch {epoch} [{i * len(x):3d}/{len(train_set)}]\tloss {loss.item():.6f}")
    scheduler.step()

    net.eval()
    exam_loss, correct = 0, 0
    confusion = torch.zeros(10, 10, dtype=torch.int64)
    with torch.no_grad():
        for x, y in exam_loader:
            log_p = net(x.to(device)).cpu()
            exam_loss += F.nll_loss(log_p, y, reduction="sum").item()
            guess = log_p.argmax(dim=1, keepdim=True)
            correct += guess.eq(y.view_as(guess)).sum().item()
            for k in range(y.size(0)):
                confusion[y[k], guess[k, 0]] += 1
    print(f"mean loss {running / len(train_set):.6f}, exam {exam_loss / len(exam_set):.6f}, right {correct}/{len(exam_set)} "
          f"({100.0 * correct / len(exam_set):.1f}%), next learning rate {scheduler.get_last_lr()[0]:.4f}")

print(confusion)
print("recall by digit", (confusion.diag().float() / confusion.sum(1)).numpy().round(3))
count, digit = torch.max(confusion.sum(0), dim=0)
print(f"said most often: {digit.item()} ({count} times); right: {confusion.trace()} of {confusion.sum()}")
