"""Lesson 17: the loop as a Trainer, hooks, callbacks, checkpoints and loggers. In float64."""

import csv
import logging
import warnings
from pathlib import Path

import numpy as np

import minidl as torch
import minidl.nn.functional as F
import minidl.train as L
from minidl import nn
from minidl.data import DataLoader, TensorDataset
from minidl.train.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint
from minidl.train.loggers import CSVLogger

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
torch.set_default_dtype(torch.float64)
rng = np.random.default_rng(17)


# --- three clouds of points ---
centres = np.array([[0.0, 1.0], [1.0, -0.5], [-1.0, -0.5]])
labels = rng.integers(0, 3, size=130)
points = centres[labels] + rng.normal(0, 0.55, size=(130, 2))


def part(first, last):
    return TensorDataset(torch.from_numpy(points[first:last]), torch.from_numpy(labels[first:last]))


class Clouds(L.LightningDataModule):
    def __init__(self, batch_size=16):
        super().__init__()
        self.batch_size = batch_size

    def setup(self, stage):
        self.train, self.val, self.test = part(0, 70), part(70, 100), part(100, 130)

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size)

    def val_dataloader(self):
        return DataLoader(self.val, 20)

    def test_dataloader(self):
        return DataLoader(self.test, 20)


class Classifier(L.LightningModule):
    def __init__(self, hidden=8, lr=0.05, schedule=None):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 3))
        self.outputs = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        scores = self(x)
        self.outputs.append((scores.argmax(dim=1) == y).double())
        self.log("val_loss", F.cross_entropy(scores, y))

    def on_validation_epoch_end(self):
        self.log("val_acc", torch.cat(self.outputs).mean())
        self.outputs.clear()

    def test_step(self, batch, batch_idx):
        x, y = batch
        scores = self(x)
        self.log_dict({"test_loss": F.cross_entropy(scores, y),
                       "test_acc": (scores.argmax(dim=1) == y).double().mean()})

    def predict_step(self, batch, batch_idx):
        return self(batch[0]).softmax(dim=1)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        if self.hparams.schedule == "step":
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)]
        if self.hparams.schedule == "plateau":
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.2)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
        if self.hparams.schedule == "cycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=25)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        return optimizer


def make(**settings):
    model = Classifier(**settings)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(np.random.default_rng(p.numel()).normal(0, 0.5, size=tuple(p.shape))))
    return model


class Printer(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        metrics = trainer.callback_metrics
        print(f"epoch {trainer.current_epoch}, step {trainer.global_step}:",
              ", ".join(f"{name} {metrics[name].item():.8f}" for name in ("train_loss", "val_loss", "val_acc")))


quiet = {"accelerator": "cpu", "devices": 1, "enable_progress_bar": False, "enable_model_summary": False,
         "num_sanity_val_steps": 0}
data = Clouds()

# --- one run, with everything ---
model = make()
logger = CSVLogger("logs", name="clouds")
keeper = ModelCheckpoint(monitor="val_loss", filename="{epoch}-{val_loss:.4f}")
trainer = L.Trainer(max_epochs=12, logger=logger, log_every_n_steps=2, **quiet,
                    callbacks=[Printer(), keeper, EarlyStopping(monitor="val_loss", patience=3, min_delta=0.004),
                               LearningRateMonitor()])
trainer.fit(model, datamodule=data)
print("stopped in epoch", trainer.current_epoch, "after", trainer.global_step, "steps; should_stop", trainer.should_stop)
print("best", Path(keeper.best_model_path).name, f"{keeper.best_model_score:.8f}")
with open(Path(logger.log_dir) / "metrics.csv") as file:
    for row in list(csv.DictReader(file)):
        cells = {name: float(cell) for name, cell in row.items() if cell}
        if "train_loss_step" in cells or "val_loss" in cells:
            print(", ".join(f"{name} {cells[name]:.6f}" for name in sorted(cells)))
print("test", {name: round(value, 6) for name, value in trainer.test(model, datamodule=data, verbose=False)[0].items()})
print("best weights", {name: round(value, 6) for name, value in
                       trainer.test(model, datamodule=data, ckpt_path="best", verbose=False)[0].items()})
predictions = trainer.predict(model, DataLoader(part(100, 130), 20))
print("predictions", [tuple(p.shape) for p in predictions], f"{torch.cat(predictions)[:, 0].mean():.6f}")
again = Classifier.load_from_checkpoint(keeper.best_model_path)
print("hyperparameters", dict(again.hparams), f"{again.net[0].weight.sum().item():.8f}")

# --- schedules, limits, clipping, accumulation ---
for settings, trainer_settings in (
        ({"schedule": "step"}, {"max_epochs": 5}), ({"schedule": "plateau"}, {"max_epochs": 6}),
        ({"schedule": "cycle"}, {"max_epochs": 5}), ({}, {"max_epochs": 2, "limit_train_batches": 3}),
        ({}, {"max_epochs": 2, "limit_train_batches": 0.5, "limit_val_batches": 1}),
        ({"lr": 1.0}, {"max_epochs": 3, "gradient_clip_val": 0.1}),
        ({"lr": 1.0}, {"max_epochs": 3, "gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"}),
        ({}, {"max_epochs": 3, "accumulate_grad_batches": 2}), ({}, {"max_steps": 10}),
        ({}, {"max_epochs": 4, "check_val_every_n_epoch": 2}), ({}, {"fast_dev_run": True})):
    model = make(**settings)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, **quiet, **trainer_settings)
    trainer.fit(model, datamodule=data)
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    print(settings, trainer_settings, "steps", trainer.global_step, f"lr {rate:.8f}",
          f"val {trainer.callback_metrics['val_loss'].item():.8f}" if "val_loss" in trainer.callback_metrics else "")

# --- going on from a checkpoint ---
first = L.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, **quiet)
first.fit(make(), datamodule=data)
first.save_checkpoint("two.ckpt")
model = make()
second = L.Trainer(max_epochs=4, logger=False, enable_checkpointing=False, callbacks=Printer(), **quiet)
second.fit(model, datamodule=data, ckpt_path="two.ckpt")
print("went on to epoch", second.current_epoch, "and step", second.global_step)


# --- what callbacks and hooks see while it runs ---
def shown(metrics):
    return ", ".join(f"{name} {value.item():.8f}" for name, value in sorted(metrics.items()))


class Watched(Classifier):
    def training_step(self, batch):
        loss = super().training_step(batch, 0)
        self.log("mean_loss", loss, on_step=False, on_epoch=True)
        return {"loss": loss, "size": len(batch[0])}

    def rate(self):
        return self.optimizers().param_groups[0]["lr"]

    def on_train_epoch_start(self):
        print("epoch", self.current_epoch, "of", self.trainer.max_epochs, "step", self.global_step, "rate", self.rate())

    def on_validation_start(self):
        print("validation, rate", self.rate(), shown(self.trainer.callback_metrics))

    def on_train_epoch_end(self):
        self.log("seen_by_module", 1.0)
        print("module: end of epoch, rate", self.rate(), shown(self.trainer.callback_metrics))


class Watcher(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx in (0, trainer.num_training_batches - 1):
            print(f"batch {batch_idx}, last {trainer.is_last_batch}, loss {outputs['loss'].item():.8f}, "
                  f"size {outputs['size']}:", shown(trainer.callback_metrics))

    def on_validation_epoch_end(self, trainer, pl_module):
        print("callback: end of validation", shown(trainer.callback_metrics))

    def on_train_epoch_end(self, trainer, pl_module):
        print("callback: end of epoch", shown(trainer.callback_metrics))


for settings, interval in (({"schedule": "step"}, None), ({"schedule": "plateau"}, "epoch"),
                           ({"schedule": "cycle"}, "step")):
    model = make(**settings)
    model.__class__ = Watched
    logger = CSVLogger("logs", name="watched")
    keepers = [ModelCheckpoint("kept", monitor="mean_loss", filename="best-{epoch}-{mean_loss:.6f}"),
               ModelCheckpoint("kept", monitor="train_loss_epoch", filename="mean-{epoch}-{train_loss_epoch:.6f}")]
    trainer = L.Trainer(max_epochs=3, logger=logger, log_every_n_steps=2, accumulate_grad_batches=2, **quiet,
                        callbacks=[Watcher(), LearningRateMonitor(interval), *keepers])
    trainer.fit(model, data)
    print([f"{Path(keeper.best_model_path).name} {keeper.best_model_score:.8f}" for keeper in keepers])
    print("logged", shown(trainer.logged_metrics))
    print("estimated steps", trainer.estimated_stepping_batches, "taken", trainer.global_step)
    with open(Path(logger.log_dir) / "metrics.csv") as file:
        for row in csv.DictReader(file):
            print({name: round(float(cell), 8) for name, cell in sorted(row.items()) if cell})
    print("test", trainer.test(model, data, verbose=False)[0].keys() == {"test_loss", "test_acc"},
          shown(trainer.callback_metrics))
