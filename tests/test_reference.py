"""Known protocols on the real data, against the numbers that PyTorch reaches with them.

They need MNIST: set MINIDL_DATA to a folder with it. About a minute.
"""

from __future__ import annotations

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import nn, optim
from minidl.data import DataLoader
from minidl.datasets import MNIST
from minidl.errors import MinidlError
from minidl.train import LightningModule, Trainer
from minidl.transforms import Compose, Normalize, ToTensor

# test accuracy after epochs 1 to 5 in PyTorch 2.13, the mean of eight seeds, whose standard deviation is up to .014
PYTORCH = [0.704, 0.783, 0.816, 0.836, 0.848]


@pytest.fixture(scope="module")
def mnist():
    transform = Compose([ToTensor(), Normalize(0.1307, 0.3081)])
    try:
        return MNIST(transform=transform), MNIST(train=False, transform=transform)
    except MinidlError as error:
        pytest.skip(f"MNIST is not here: {error}")


class MLP(LightningModule):
    """784-512-10 with tanh, plain gradient descent."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.Tanh(), nn.Linear(512, 10))

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("accuracy", (self(batch[0]).argmax(1) == batch[1]).double().mean())

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=1e-3)


def by_trainer(training, test, seed):
    minidl.manual_seed(seed)
    trainer = Trainer(max_epochs=5, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu")
    trainer.fit(MLP(), DataLoader(training, 256, shuffle=True), DataLoader(test, 1000))
    return [row["accuracy"] for row in trainer.history]


def by_hand(training, test, seed):
    minidl.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.Tanh(), nn.Linear(512, 10))
    optimizer = optim.SGD(net.parameters(), lr=1e-3)
    training_loader, test_loader = DataLoader(training, 256, shuffle=True), DataLoader(test, 1000)
    accuracies = []
    for _ in range(5):
        for images, labels in training_loader:
            loss = F.cross_entropy(net(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with minidl.no_grad():
            right = sum((net(images).argmax(1) == labels).sum().item() for images, labels in test_loader)
        accuracies.append(right / len(test))
    return accuracies


@pytest.mark.slow
def test_the_mlp_learns_as_in_pytorch_by_hand_and_by_trainer(mnist):
    runs = [by_trainer(*mnist, seed) for seed in range(3)]
    for seed in range(3):
        assert runs[seed] == pytest.approx(by_hand(*mnist, seed), abs=1e-12), f"seed {seed}"
    means = np.mean(runs, axis=0)
    print("\nseeds 0, 1, 2 after each epoch:", *np.round(runs, 4).tolist(), "mean", np.round(means, 4).tolist())
    np.testing.assert_allclose(means, PYTORCH, atol=0.02)
