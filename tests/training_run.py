"""A training run that can be killed and started again: `python tests/training_run.py FOLDER EPOCHS`.

It goes on from the newest checkpoint in FOLDER and writes FOLDER/final when it is done. Everything that has a state takes
part: dropout, batch-norm, shuffling, a random transform in threads, a generator of the loader's own, Adam, a schedule,
early stopping with its best weights. The weights are large enough for a checkpoint to take a while.
"""

import sys
from pathlib import Path

import minidl
import minidl.nn.functional as F
from minidl import nn, optim
from minidl.data import DataLoader, Dataset, current_generator
from minidl.train import CSVLogger, EarlyStopping, LightningModule, ModelCheckpoint, Trainer, seed_everything


class Noisy(Dataset):
    """Points of two kinds; each time with other noise."""

    def __init__(self, count):
        generator = minidl.Generator().manual_seed(5)
        self.labels = minidl.randint(0, 2, (count,), generator=generator)
        self.points = minidl.randn(count, 20, generator=generator) + self.labels.float().unsqueeze(1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.points[i] + 0.3 * minidl.randn(20, generator=current_generator()), self.labels[i]


class Net(LightningModule):
    """A dense network with about 400,000 weights."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 600), nn.BatchNorm1d(600), nn.ReLU(), nn.Dropout(0.3),
                                 nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 2))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        optimizer = optim.Adam(self.parameters(), lr=3e-3)
        schedule = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


def main(folder, epochs):
    seed_everything(3)
    generator = minidl.Generator().manual_seed(11)
    training = DataLoader(Noisy(320), batch_size=32, shuffle=True, num_workers=2, generator=generator)
    validation = DataLoader(Noisy(100), batch_size=50)
    model = Net()
    keeper = ModelCheckpoint(folder / "checkpoints", monitor="val_loss", save_last=True, save_top_k=2)
    stopper = EarlyStopping("val_loss", patience=epochs, restore_best_weights=True)
    trainer = Trainer(max_epochs=epochs, callbacks=[keeper, stopper], log_every_n_steps=1,
                      logger=CSVLogger(folder, name="log", version=0), enable_progress_bar=False)
    trainer.fit(model, training, validation, ckpt_path="last")
    history = [{name: value for name, value in row.items() if name != "seconds"} for row in trainer.history]
    minidl.save({"weights": model.state_dict(), "history": history, "kept": sorted(
        (Path(path).name, score) for path, score in keeper.best_k_models.items())}, folder / "final")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
