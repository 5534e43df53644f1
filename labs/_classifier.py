"""What the labs that classify images share: the training step, and the loop around it."""

from __future__ import annotations

from typing import Any

import minidl
import minidl.nn.functional as F
from minidl import Tensor, nn, optim
from minidl.data import DataLoader, Dataset
from minidl.nn.utils.modes import evaluating
from minidl.train import EarlyStopping, LightningModule, Trainer


class Classifier(LightningModule):
    """A network that gives every class a score, trained with cross-entropy and Adam."""

    def __init__(self, network: nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.network, self.lr, self.weight_decay = network, lr, weight_decay

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> scores (N, classes)."""
        return self.network(images)

    def _measure(self, batch: tuple[Tensor, Tensor], kind: str) -> Tensor:
        images, labels = batch
        scores = self(images)
        loss = F.cross_entropy(scores, labels)
        accuracy = (scores.argmax(dim=1) == labels).float().mean()
        self.log_dict({f"{kind}_loss": loss, f"{kind}_accuracy": accuracy}, prog_bar=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch; its accuracy is that of the weights as they were for this batch."""
        return self._measure(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy, for choosing the epoch."""
        self._measure(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy, once, at the end."""
        self._measure(batch, "test")

    def configure_optimizers(self) -> optim.Optimizer:
        """Adam with the rate and the weight decay that were given."""
        return optim.Adam(self.parameters(), lr=self.lr, weight_decay=self.weight_decay)


def split(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The numbers 0 … count-1 in a random order, cut in two: for training, and a fifth (at most 6,000) to validate."""
    order = minidl.randperm(count, generator=minidl.Generator().manual_seed(seed))
    validation = min(count // 5, 6000)
    return order[:count - validation], order[count - validation:]


def train(network: nn.Module, training: Dataset[Any] | DataLoader, validation: Dataset[Any] | DataLoader, *,
          epochs: int, batch_size: int, device: str, lr: float = 1e-3,
          weight_decay: float = 0.0) -> tuple[Classifier, Trainer]:
    """Train for so many epochs. Afterwards the weights are those of the epoch with the lowest validation loss.

    training, validation: a dataset of (image, label), or a DataLoader of it, which is used as it is.
    """
    model = Classifier(network, lr, weight_decay)
    # with a patience as long as the run it never stops; it gives back the best weights, and the curves are whole
    best = EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    trainer = Trainer(max_epochs=epochs, callbacks=best, accelerator=device, logger=False, enable_checkpointing=False,
                      enable_model_summary=False)
    if not isinstance(training, DataLoader):
        training = DataLoader(training, batch_size, shuffle=True)
    if not isinstance(validation, DataLoader):
        validation = DataLoader(validation, 500)
    trainer.fit(model, training, validation)
    return model, trainer


def outputs(part: nn.Module, x: Tensor, device: str = "cpu") -> Tensor:
    """What a network or a part of it makes of x (N, …), in evaluation mode, 500 rows at a time; on the CPU."""
    with evaluating(part), minidl.no_grad():
        return minidl.cat([part(batch.to(device)).cpu() for batch in x.split(500)])


def predict(model: nn.Module, images: Tensor, device: str = "cpu") -> Tensor:
    """The probabilities of the classes, (N, classes)."""
    return outputs(model, images, device).softmax(dim=1)
