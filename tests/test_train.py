"""The Trainer: the same numbers as a loop written by hand, runs that go on after a break, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import cupy_backend, fake, nn, optim
from minidl.data import DataLoader, IterableDataset, TensorDataset
from minidl.errors import DeviceError, MinidlError, ModuleError, SettingError, ShapeError
from minidl.train import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateMonitor,
    LightningDataModule,
    LightningModule,
    ModelCheckpoint,
    Trainer,
    seed_everything,
)
from minidl.train.loggers import Logger
from minidl.train.settings import why_auto
from tests.helpers import Classifier

ROOT = Path(__file__).parent.parent
HOOKS_OF_STEP = ["on_train_batch_start", "training_step", "on_before_zero_grad", "on_before_backward",
                 "on_after_backward", "on_before_optimizer_step", "on_train_batch_end"]


class Net(Classifier):
    def __init__(self, lr=0.1, dropout=0.2):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)


def data(count=50, batch_size=8, **settings):
    generator = minidl.Generator().manual_seed(1)
    x = minidl.randn(count, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()), batch_size, **settings)


@pytest.fixture
def quiet(tmp_path):
    """Settings of a trainer that writes into a folder of its own and shows nothing."""
    return {"default_root_dir": tmp_path, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False, "accelerator": "cpu"}


def weights(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def train_by_hand(model, groups, every):
    """A step for each group of batches, with gradients divided by `every`."""
    optimizer = model.configure_optimizers()
    for group in groups:
        optimizer.zero_grad()
        for x, y in group:
            (F.cross_entropy(model(x), y) / every).backward()
        optimizer.step()


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# -- the loop --

def test_it_computes_what_a_loop_written_by_hand_computes(quiet):
    minidl.manual_seed(0)
    model = Net()
    trainer = Trainer(max_epochs=3, **quiet)
    trainer.fit(model, data(shuffle=True), data(30))

    minidl.manual_seed(0)
    twin, train_loader, val_loader = Net(), data(shuffle=True), data(30)
    optimizer = optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    history = []
    for epoch in range(3):
        total = 0.0
        for x, y in train_loader:
            loss = F.cross_entropy(twin(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(x)
        twin.eval()
        with minidl.no_grad():
            val = sum(F.cross_entropy(twin(x), y).item() * len(x) for x, y in val_loader) / 30
        twin.train()
        history.append({"epoch": epoch, "train_loss": total / 50, "val_loss": val})
    assert_same(weights(model), weights(twin))
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in trainer.history] == history
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    assert trainer.global_step == 21
    assert trainer.current_epoch == 3


def test_a_hand_written_loop_can_use_the_module_without_a_trainer():
    model, optimizer = Net(), None
    optimizer = model.configure_optimizers()
    before = weights(model)
    for i, batch in enumerate(data()):
        loss = model.training_step(batch, i)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert not np.array_equal(before["net.0.weight"], weights(model)["net.0.weight"])


class Recorder(Callback):
    def __init__(self, calls, who):
        self.calls, self.who = calls, who

    def __getattribute__(self, name):
        if name.startswith(("on_", "setup", "teardown")):
            calls, who = object.__getattribute__(self, "calls"), object.__getattribute__(self, "who")
            return lambda *args: calls.append((who, name))
        return object.__getattribute__(self, name)


def test_hooks_come_in_the_order_that_the_documentation_gives(quiet):
    calls = []

    class Watched(Net):
        def training_step(self, batch, batch_idx):
            calls.append(("module", "training_step"))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            calls.append(("module", "validation_step"))
            super().validation_step(batch, batch_idx)

        def on_validation_epoch_end(self):
            calls.append(("module", "on_validation_epoch_end"))

    model = Watched()
    Trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=1, callbacks=Recorder(calls, "callback"),
            **quiet).fit(model, data(), data())
    from minidl.train import hooks

    described = [line.strip().split("(")[0] for line in hooks.__doc__.splitlines()
                 if line.strip().split("(")[0] in {*vars(hooks.Hooks), "training_step", "validation_step"}]
    got = [name for who, name in calls if who == "callback" or name.endswith("_step")]
    assert got == [name for name in described if not name.startswith(("on_save", "on_load", "on_exception"))]
    assert HOOKS_OF_STEP == [name for name in got if name in HOOKS_OF_STEP]
    order = [who for who, name in calls if name == "on_validation_epoch_end"]
    assert order == ["callback", "module"]


def test_what_a_hook_logs_at_the_end_of_validation_counts(quiet):
    class WithOutputs(Net):
        def on_validation_epoch_start(self):
            self.outputs = []

        def validation_step(self, batch, batch_idx):
            self.outputs.append(len(batch[0]))

        def on_validation_epoch_end(self):
            self.log("seen", float(sum(self.outputs)))

    trainer = Trainer(max_epochs=2, **quiet)
    trainer.fit(WithOutputs(), data(), data(30))
    assert [row["seen"] for row in trainer.history] == [30.0, 30.0]
    assert trainer.callback_metrics["seen"].item() == 30


def test_means_are_weighted_by_the_size_of_the_batch(quiet):
    class Sizes(Net):
        def validation_step(self, batch, batch_idx):
            n = float(len(batch[0]))
            self.log("mean", n)
            self.log("sum", n, reduce_fx="sum")
            self.log("max", minidl.tensor(n), reduce_fx="max")
            self.log("unweighted", n, batch_size=1)
            self.log("integer", minidl.tensor([len(batch[0])]))

    (metrics,) = Trainer(**quiet).validate(Sizes(), data(20, 8), verbose=False)
    assert metrics == {"mean": (64 + 64 + 16) / 20, "sum": 20, "max": 8, "unweighted": 20 / 3, "integer": 7.2}


def test_validation_is_in_evaluation_mode_without_gradients_and_leaves_modes_as_they_were(quiet):
    class Frozen(Net):
        def on_fit_start(self):
            self.net[2].eval()

        def validation_step(self, batch, batch_idx):
            assert not self.training
            assert not self.net[0].training
            assert not self(batch[0]).requires_grad
            self.looked = True

        def on_train_epoch_end(self):
            assert self.training
            assert not self.net[2].training

    model = Frozen()
    Trainer(max_epochs=2, **quiet).fit(model, data(), data())
    assert model.looked


def test_limits_and_fast_dev_run(quiet, tmp_path):
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.counts = {"train": 0, "val": 0}

        def training_step(self, batch, batch_idx):
            self.counts["train"] += 1
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.counts["val"] += 1

    def counts(val_batches=7, **settings):
        model = Counting()
        Trainer(**{**quiet, **settings}).fit(model, data(56), data(8 * val_batches))
        return model.counts

    assert counts(max_epochs=2) == {"train": 14, "val": 14}
    assert counts(max_epochs=2, limit_train_batches=3, limit_val_batches=1) == {"train": 6, "val": 2}
    assert counts(max_epochs=1, limit_train_batches=0.5, limit_val_batches=0) == {"train": 3, "val": 0}
    assert counts(max_epochs=1, limit_train_batches=1, limit_val_batches=1.0) == {"train": 1, "val": 7}
    assert counts(max_steps=9) == {"train": 9, "val": 14}
    assert counts(max_epochs=4, check_val_every_n_epoch=2) == {"train": 28, "val": 14}
    files = set(tmp_path.rglob("*"))
    assert counts(fast_dev_run=2, logger=True, enable_checkpointing=True,
                  callbacks=ModelCheckpoint(tmp_path / "none")) == {"train": 2, "val": 2}
    assert set(tmp_path.rglob("*")) == files, "a dry run leaves nothing behind"


def test_gradients_are_clipped_and_accumulated(quiet):
    norms = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            norms.append(float(sum((p.grad ** 2).sum() for p in module.parameters()) ** 0.5))

    Trainer(max_epochs=1, gradient_clip_val=0.01, callbacks=Look(), **quiet).fit(Net(), data())
    assert max(norms) <= 0.01001
    assert min(norms) > 0.0099

    minidl.manual_seed(0)
    model = Net(dropout=0.0)
    twin = copy.deepcopy(model)
    trainer = Trainer(max_epochs=1, accumulate_grad_batches=3, **quiet)
    trainer.fit(model, data(56))
    batches = list(data(56))
    train_by_hand(twin, (batches[:3], batches[3:6], batches[6:]), every=3)
    assert trainer.global_step == 3
    assert_same(weights(model), weights(twin))


def test_manual_optimization_of_two_optimizers(quiet):
    class Two(LightningModule):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 1)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            first, second = self.optimizers()
            for optimizer, own, other in ((first, self.a, self.b), (second, self.b, self.a)):
                self.toggle_optimizer(optimizer)
                loss = ((self.a(batch[0]) - self.b(batch[0])) ** 2).mean()
                optimizer.zero_grad()
                self.manual_backward(loss)
                assert own.weight.grad is not None
                assert not other.weight.requires_grad
                optimizer.step()
                self.untoggle_optimizer(optimizer)
                assert other.weight.requires_grad
            self.log("loss", loss)

        def configure_optimizers(self):
            return [optim.SGD(self.a.parameters(), 0.1), optim.SGD(self.b.parameters(), 0.1)]

    trainer = Trainer(max_epochs=4, **quiet)
    trainer.fit(Two(), data())
    assert trainer.history[-1]["loss"] < 0.05 * trainer.history[0]["loss"]


def test_schedules_step_by_epoch_by_step_and_by_metric(quiet):
    def rates(make):
        seen = []

        class Scheduled(Net):
            def configure_optimizers(self):
                return make(optim.SGD(self.parameters(), lr=1.0))

            def on_train_epoch_start(self):
                seen.append(self.optimizers().param_groups[0]["lr"])

            def validation_step(self, batch, batch_idx):
                self.log("val_loss", 1.0)               # never becomes better

        Trainer(max_epochs=4, limit_train_batches=2, **quiet).fit(Scheduled(), data(), data())
        return seen

    step = optim.lr_scheduler.StepLR
    assert rates(lambda o: {"optimizer": o, "lr_scheduler": step(o, 2)}) == [1, 1, 0.1, 0.1]
    assert rates(lambda o: ([o], [step(o, 1, 0.5)])) == [1, 0.5, 0.25, 0.125]
    by_step = {"interval": "step", "frequency": 2}
    assert rates(lambda o: {"optimizer": o, "lr_scheduler": {"scheduler": step(o, 1, 0.5), **by_step}}) == \
        [1, 0.5, 0.25, 0.125]
    plateau = optim.lr_scheduler.ReduceLROnPlateau
    assert rates(lambda o: {"optimizer": o, "lr_scheduler": plateau(o, patience=0), "monitor": "val_loss"}) == \
        pytest.approx([1, 1, 0.1, 0.01])
    assert rates(lambda o: o) == [1, 1, 1, 1]


def test_test_predict_and_the_best_weights(quiet, tmp_path):
    minidl.manual_seed(0)
    model = Net()
    keeper = ModelCheckpoint(tmp_path / "kept", monitor="val_loss", filename="{epoch}-{val_loss:.3f}")
    trainer = Trainer(max_epochs=5, callbacks=keeper, **quiet)
    trainer.fit(model, data(), data(30))
    best = min(trainer.history, key=lambda row: row["val_loss"])
    assert Path(keeper.best_model_path).name == f"epoch={best['epoch']}-val_loss={best['val_loss']:.3f}.ckpt"
    assert keeper.best_model_score == best["val_loss"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [Path(keeper.best_model_path).name]

    (of_best,) = trainer.validate(model, data(30), ckpt_path="best", verbose=False)
    assert of_best["val_loss"] == best["val_loss"]
    loaded = Net.load_from_checkpoint(keeper.best_model_path)
    assert loaded.hparams == {"lr": 0.1, "dropout": 0.2}
    assert_same(weights(loaded), weights(model))
    (of_test,) = Trainer(**quiet).test(loaded, data(30), verbose=False)
    assert of_test == {"test_loss": best["val_loss"]}
    outputs = trainer.predict(loaded, data(20))
    assert [tuple(y.shape) for y in outputs] == [(8, 3), (8, 3), (4, 3)]
    assert not outputs[0].requires_grad
    other = Net.load_from_checkpoint(keeper.best_model_path, lr=0.5)
    assert other.hparams == {"lr": 0.5, "dropout": 0.2}


def test_early_stopping_waits_then_stops_and_gives_back_the_best_weights(quiet):
    scores = iter([5.0, 4.0, 3.0, 3.5, 2.999, 3.2, 0.1])

    class Scripted(Net):
        def on_validation_epoch_start(self):
            self.score = next(scores)

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", self.score)

    seen = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, module):
            seen.append(weights(module))

    model = Scripted()
    stopper = EarlyStopping("val_loss", patience=3, min_delta=0.01, restore_best_weights=True)
    trainer = Trainer(max_epochs=20, callbacks=[stopper, Look()], **quiet)
    trainer.fit(model, data(), data())
    assert len(trainer.history) == 6
    assert (stopper.best_epoch, stopper.best_score, stopper.wait_count, stopper.stopped_epoch) == (2, 3.0, 3, 5)
    assert_same(weights(model), seen[2])
    assert not np.array_equal(seen[2]["net.0.weight"], seen[5]["net.0.weight"])


def test_early_stopping_up_and_on_numbers_that_are_not_finite(quiet):
    def epochs(values, **settings):
        values = iter(values)

        class Scripted(Net):
            def on_train_epoch_end(self):
                self.log("score", next(values))

        trainer = Trainer(max_epochs=5, callbacks=EarlyStopping("score", **settings), **quiet)
        trainer.fit(Scripted(), data())
        return len(trainer.history)

    assert epochs([1, 2, 3, 4, 5], mode="max", patience=1) == 5
    assert epochs([1, 1.05, 1.08, 1.09, 5], mode="max", patience=2, min_delta=0.1) == 3
    assert epochs([1, 2, 2, 2, 5], mode="max", patience=2) == 4
    assert epochs([1, 2, 3, 4, 5], mode="min", patience=2) == 3
    assert epochs([3, 2, float("nan"), 1, 1], patience=5) == 3
    assert epochs([3, 2, float("nan"), 1, 1], patience=5, check_finite=False) == 5
    assert epochs([3, 2, 0.4, 1, 1], patience=5, stopping_threshold=0.5) == 3


def test_a_datamodule_and_the_modules_own_loaders(quiet):
    class Data(LightningDataModule):
        def __init__(self):
            self.calls = []

        def prepare_data(self):
            self.calls.append("prepare")

        def setup(self, stage):
            self.calls.append(stage)

        def train_dataloader(self):
            return data()

        def val_dataloader(self):
            return data(30)

        def test_dataloader(self):
            return data(20)

    class OfItsOwn(Net):
        def train_dataloader(self):
            return data()

    trainer, bundle = Trainer(max_epochs=1, **quiet), Data()
    trainer.fit(Net(), datamodule=bundle)
    assert trainer.history[0].keys() == {"epoch", "train_loss", "val_loss", "seconds"}
    trainer.test(datamodule=bundle, verbose=False)
    assert bundle.calls == ["prepare", "fit", "prepare", "test"]
    trainer.fit(OfItsOwn())
    assert trainer.history[0].keys() == {"epoch", "train_loss", "seconds"}


def test_loggers_get_steps_epochs_and_rates(tmp_path):
    class Kept(Logger):
        def __init__(self):
            self.rows = []

        def log_metrics(self, metrics, step):
            self.rows.append((step, metrics))

        def finalize(self, status):
            self.rows.append(status)

    class Both(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("both", loss, on_step=True, on_epoch=True)
            self.log("hidden", loss, logger=False)
            return loss

    logger = Kept()
    Trainer(max_epochs=2, logger=logger, log_every_n_steps=3, callbacks=LearningRateMonitor("epoch"), accelerator="cpu",
            enable_progress_bar=False, enable_checkpointing=False).fit(Both(), data(48), data(30))
    assert [(row[0], sorted(row[1])) for row in logger.rows[:-1]] == [
        (0, ["lr-SGD"]),
        (2, ["both_step", "epoch", "train_loss"]), (5, ["both_step", "epoch", "train_loss"]),
        (5, ["epoch", "val_loss"]), (5, ["both_epoch", "epoch"]),
        (6, ["lr-SGD"]),
        (8, ["both_step", "epoch", "train_loss"]), (11, ["both_step", "epoch", "train_loss"]),
        (11, ["epoch", "val_loss"]), (11, ["both_epoch", "epoch"])]
    assert logger.rows[-1] == "success"
    assert logger.rows[0][1]["lr-SGD"] == 0.1


def test_a_run_that_goes_on_says_so(quiet, capsys, tmp_path):
    settings = {**quiet, "enable_progress_bar": True}
    trainer = Trainer(max_epochs=2, **settings)
    trainer.fit(Net(), data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    capsys.readouterr()
    Trainer(max_epochs=3, **settings).fit(Net(), data(), ckpt_path=tmp_path / "a.ckpt")
    lines = capsys.readouterr().out.replace("\n", " ")         # a long path may be wrapped
    assert lines.startswith("going on after epoch 2, from ")
    assert "a.ckpt" in lines.replace(" ", "")


def test_one_aligned_line_an_epoch(quiet, capsys):
    Trainer(max_epochs=2, **{**quiet, "enable_progress_bar": True}).fit(Net(), data(), data())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["epoch", "train_loss", "val_loss", "seconds"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]
    assert len({len(line) for line in lines}) == 1, "columns do not line up"


def test_on_a_device_without_free_reads_the_loop_reads_seldom(quiet):
    """What `fake` counts: losses wait on the device until the epoch's end, or for every 50th step."""
    before = None
    reads = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            nonlocal before
            before = fake.syncs.count

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            reads.append(fake.syncs.count - before)

    model = Net()
    Trainer(max_epochs=1, log_every_n_steps=5, callbacks=Look(), **{**quiet, "accelerator": "fake"}).fit(
        model, data(56))
    assert reads == [0, 0, 0, 0, reads[4], 0, 0]
    assert reads[4] > 0


# -- what lessons use --

def test_a_datamodule_may_come_in_the_place_of_the_loader(quiet):
    stages = []

    class Data(LightningDataModule):
        def __init__(self, batch_size=8):
            super().__init__()
            self.save_hyperparameters()

        def setup(self, stage):
            stages.append(stage)
            self.loader = data(30, self.hparams.batch_size)

        def train_dataloader(self):
            return self.loader

        val_dataloader = test_dataloader = predict_dataloader = train_dataloader

        def teardown(self, stage):
            stages.append(f"end of {stage}")

    trainer, bundle, model = Trainer(max_epochs=1, **quiet), Data(), Net()
    trainer.fit(model, bundle)
    assert trainer.datamodule is bundle
    assert trainer.history[0].keys() == {"epoch", "train_loss", "val_loss", "seconds"}
    trainer.test(model, bundle, verbose=False)
    trainer.validate(model, bundle, verbose=False)
    assert len(trainer.predict(model, bundle)) == 4
    assert stages == [f"{end}{stage}" for stage in ("fit", "test", "validate", "predict") for end in ("", "end of ")]


class Both(Net):
    """Logs the number of the batch in each way."""

    def __init__(self, kind=None):
        super().__init__()
        self.kind = kind

    def training_step(self, batch, batch_idx):
        self.log("step", batch_idx)
        self.log("both", minidl.tensor(float(batch_idx)), on_epoch=True)
        self.log("epoch_only", batch_idx, on_step=False, on_epoch=True, reduce_fx=minidl.max)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val", float(batch_idx))
        self.log("val_both", float(batch_idx), on_step=True, on_epoch=True)


def test_callback_metrics_are_those_of_the_last_step_then_those_of_the_epoch(quiet):
    seen = {}

    class Look(Callback):
        def note(self, when, trainer):
            seen[when] = {name: value.item() for name, value in trainer.callback_metrics.items() if "loss" not in name}

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.note(f"step {batch_idx}", trainer)

        def on_validation_epoch_end(self, trainer, module):
            self.note("validation", trainer)

        def on_train_epoch_end(self, trainer, module):
            self.note("epoch", trainer)

    trainer = Trainer(max_epochs=1, callbacks=Look(), **quiet)
    trainer.fit(Both(), data(24), data(16))
    steps = {"step": 2, "both": 2, "both_step": 2}
    assert seen["step 1"] == {"step": 1, "both": 1, "both_step": 1}
    assert seen["validation"] == {**steps, "val": 0.5, "val_both": 0.5, "val_both_epoch": 0.5}
    assert seen["epoch"] == {**seen["validation"], "both": 1, "both_epoch": 1, "epoch_only": 2}
    logged = {name: value.item() for name, value in trainer.logged_metrics.items() if "loss" not in name}
    assert logged == {"step": 2, "both_step": 2, "both_epoch": 1, "epoch_only": 2, "val": 0.5, "val_both_epoch": 0.5,
                      "val_both_step": 1}
    assert {name: trainer.history[0][name] for name in ("step", "both", "epoch_only")} == \
        {"step": 1, "both": 1, "epoch_only": 2}, "the history has means"
    (of_validation,) = trainer.validate(Both(), data(16), verbose=False)
    assert of_validation == {"val": 0.5, "val_both_epoch": 0.5}
    assert trainer.callback_metrics.keys() == {"val", "val_both", "val_both_epoch"}, "numbers of the fit are gone"


@pytest.mark.parametrize(("monitor", "best"), [("step", 1), ("both", 1), ("both_step", 2), ("both_epoch", 1),
                                               ("val_both_epoch", 0.5)])
def test_monitors_look_at_the_means_of_the_table(monitor, best, quiet, tmp_path):
    keeper, stopper = ModelCheckpoint(tmp_path / "kept", monitor=monitor), EarlyStopping(monitor)
    Trainer(max_epochs=1, callbacks=[stopper, keeper], **quiet).fit(Both(), data(24), data(16))
    assert keeper.best_model_score == stopper.best_score == best


def test_rates_as_lessons_print_them(quiet):
    """Schedules by epoch step before validation, those that follow a metric after it."""
    seen = []

    class Printing(Net):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind

        def configure_optimizers(self):
            optimizer = optim.SGD(self.parameters(), 1.0)
            if self.kind == "metric":
                plateau = optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.99)
                return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "val_loss"}
            return [optimizer], optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

        def look(self):
            seen.append(self.optimizers().param_groups[0]["lr"])

        on_train_epoch_start = on_validation_start = on_train_epoch_end = look

    Trainer(max_epochs=2, **quiet).fit(Printing("epoch"), data(), data())
    assert seen == [1, 0.5, 0.5, 0.5, 0.25, 0.25]
    seen.clear()
    Trainer(max_epochs=3, **quiet).fit(Printing("metric"), data(), data())
    assert seen == [1, 1, 1, 1, 1, 1, pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1)]


def test_what_a_callback_gets_as_outputs(quiet):
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(outputs)

    class Several(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.losses = [*getattr(self, "losses", []), loss.item()]
            return [loss, {"loss": loss, "more": 3}, None][batch_idx]

    model = Several(dropout=0.0)
    Trainer(max_epochs=1, accumulate_grad_batches=2, callbacks=Look(), **quiet).fit(model, data(24))
    assert [sorted(outputs) for outputs in seen] == [["loss"], ["loss", "more"], []]
    assert [outputs["loss"].item() for outputs in seen[:2]] == pytest.approx([loss / 2 for loss in model.losses[:2]])
    assert not seen[0]["loss"].requires_grad


def test_a_batch_without_a_loss_is_left_out_and_does_not_mix_two_groups(quiet):
    """With accumulation, the first batch of the second group has none: the first group's gradients must be gone."""
    class Skips(Net):
        def training_step(self, batch, batch_idx):
            return None if batch_idx in (2, 5) else super().training_step(batch, batch_idx)

    minidl.manual_seed(0)
    model = Skips(dropout=0.0)
    twin = copy.deepcopy(model)
    trainer = Trainer(max_epochs=1, accumulate_grad_batches=2, **quiet)
    trainer.fit(model, data(48))
    batches = list(data(48))
    train_by_hand(twin, (batches[:2], batches[3:4], batches[4:5]), every=2)
    assert trainer.global_step == 3
    assert_same(weights(model), weights(twin))


class Endless(IterableDataset):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        generator = minidl.Generator().manual_seed(2)
        for i in range(self.count):
            yield {"image": minidl.randn(4, generator=generator), "label": i % 3}


class OfDicts(Net):
    def training_step(self, batch):                         # no batch_idx
        self.last = [*getattr(self, "last", []), self.trainer.is_last_batch]
        return F.cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch):
        self.log("val_loss", F.cross_entropy(self(batch["image"]), batch["label"]))


def test_batches_that_are_dicts_from_a_loader_without_a_length(quiet):
    model, trainer = OfDicts(), Trainer(max_epochs=2, accumulate_grad_batches=2, **quiet)
    trainer.fit(model, DataLoader(Endless(20), 4), DataLoader(Endless(9), 4))
    assert trainer.global_step == 6, "the fifth batch alone is a step too"
    assert model.last == 2 * [False, False, False, False, True]
    assert trainer.num_training_batches == math.inf
    model = OfDicts()
    Trainer(max_epochs=1, limit_train_batches=9, **quiet).fit(model, DataLoader(Endless(8), 4))
    assert model.last == [False, True]
    with pytest.raises(SettingError, match="got no batch from a DataLoader in epoch 1"):
        Trainer(max_epochs=1, **quiet).fit(OfDicts(), DataLoader(Endless(0), 4))
    batches = (batch for batch in DataLoader(Endless(8), 4))
    with pytest.raises(SettingError, match="from a generator in epoch 2, expected some; a generator can be used only"):
        Trainer(max_epochs=2, **quiet).fit(OfDicts(), batches)


def test_what_a_lesson_asks_the_trainer(quiet):
    seen = {}

    class Asking(Net):
        def ask(self, when):
            trainer = self.trainer
            seen[when] = [name for name in ("training", "validating", "testing", "predicting", "sanity_checking",
                                            "interrupted") if getattr(trainer, name)]
            assert trainer.lightning_module is self
            assert trainer.is_global_zero
            assert trainer.state.fn == ("fit" if when in ("train", "validate") else when)

        def training_step(self, batch, batch_idx):
            self.ask("train")
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.ask("validate")

        def test_step(self, batch, batch_idx):
            self.ask("test")

        def predict_step(self, batch, batch_idx):
            self.ask("predict")

        def configure_optimizers(self):
            assert self.trainer.num_training_batches == 7
            self.steps = self.trainer.estimated_stepping_batches
            return super().configure_optimizers()

    model, stopper = Asking(), EarlyStopping("train_loss")
    trainer = Trainer(max_epochs=3, accumulate_grad_batches=2, callbacks=stopper, **quiet)
    trainer.fit(model, data(), data())
    trainer.test(verbose=False, dataloaders=data())
    assert trainer.predict(dataloaders=data(), return_predictions=False) is None
    assert seen == {"train": ["training"], "validate": ["validating"], "test": ["testing"], "predict": ["predicting"]}
    assert model.steps == 12
    assert trainer.state.finished
    assert trainer.early_stopping_callback is stopper
    assert (trainer.checkpoint_callback, trainer.checkpoint_callbacks) == (None, [])
    assert trainer.log_dir == str(quiet["default_root_dir"])
    assert (model.dtype, model.global_rank) == (minidl.float32, 0)
    for name, sentence in (("fit_loop", "the loop is Trainer._train_epoch"), ("strategy", "there is one process"),
                           ("current_epochs", "the nearest is 'current_epoch'")):
        with pytest.raises(AttributeError, match=sentence):
            getattr(trainer, name)
    with pytest.raises(AttributeError, match="there is one process"):
        getattr(model, "all_gather")  # noqa: B009
    with pytest.raises(AttributeError, match="unless enable_progress_bar=False"):
        getattr(minidl.train.callbacks, "TQDMProgressBar")  # noqa: B009  it is not there


def test_stopping_in_the_middle_of_an_epoch(quiet):
    class Stops(Net):
        def training_step(self, batch, batch_idx):
            self.trainer.should_stop = self.global_step == 9
            return super().training_step(batch, batch_idx)

    trainer = Trainer(max_epochs=9, **quiet)
    trainer.fit(Stops(), data(), data())
    assert (trainer.global_step, trainer.current_epoch) == (10, 2)
    assert "val_loss" in trainer.history[1]

    class Skips(Net):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    trainer = Trainer(max_epochs=2, **quiet)
    trainer.fit(Skips(), data())
    assert trainer.global_step == 4


def test_freezing_and_clipping_by_hand(quiet):
    class Manual(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            self.clip_gradients(optimizer, gradient_clip_val=0.01, gradient_clip_algorithm="norm")
            assert sum((p.grad ** 2).sum().item() for p in self.parameters()) ** 0.5 <= 0.01001
            before = self.global_step
            optimizer.step()
            assert self.global_step == before + 1

    model = Manual()
    Trainer(max_epochs=1, **quiet).fit(model, data())
    model.freeze()
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.net.training
    model.unfreeze()
    assert all(p.requires_grad for p in model.parameters())
    assert model.training


def test_loggers_count_batches_where_the_module_steps_several_optimizers(tmp_path):
    class Two(Net):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.log("loss", 1.0)
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            return [optim.SGD([p], 0.1) for p in self.net[0].parameters()]

    logger = CSVLogger(tmp_path)
    trainer = Trainer(max_epochs=1, logger=logger, log_every_n_steps=3, enable_progress_bar=False, accelerator="cpu",
                      enable_checkpointing=False)
    trainer.fit(Two(), data(56))
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().split()
    assert lines == ["epoch,loss,step", "0,1.0,2", "0,1.0,5"]
    assert trainer.global_step == 14


def test_learning_rates_by_the_interval_of_the_schedule(tmp_path):
    class Rows(Logger):
        def __init__(self):
            self.rows = []

        def log_metrics(self, metrics, step):
            self.rows += [(step, metrics)] if any(name.startswith(("lr", "mine")) for name in metrics) else []

    class Scheduled(Net):
        def configure_optimizers(self):
            weight, bias = self.net[0].parameters()
            optimizer = optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.2}], 0.1)
            schedule = optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, **self.settings}}

    def rows(logging_interval, **settings):
        logger, model = Rows(), Scheduled()
        model.settings = settings
        Trainer(max_epochs=2, limit_train_batches=2, logger=logger, log_every_n_steps=1, accelerator="cpu",
                enable_progress_bar=False, enable_checkpointing=False,
                callbacks=LearningRateMonitor(logging_interval)).fit(model, data())
        return [(step, *metrics.items()) for step, metrics in logger.rows]

    first, second = ("lr-SGD/pg1", 0.1), ("lr-SGD/pg2", 0.2)
    assert rows(None) == [(0, first, second), (2, first, second)]
    assert [row[0] for row in rows("step")] == [0, 1, 2, 3]
    assert rows(None, interval="step", name="mine") == [
        (0, ("mine/pg1", 0.1), ("mine/pg2", 0.2)), (1, ("mine/pg1", 0.1), ("mine/pg2", 0.2)),
        (2, ("mine/pg1", 0.05), ("mine/pg2", 0.1)), (3, ("mine/pg1", 0.05), ("mine/pg2", 0.1))]


def test_hyperparameters_of_a_dict_a_namespace_and_a_subclass(quiet, tmp_path):
    from argparse import Namespace

    class Whole(Net):
        def __init__(self, hparams):
            super().__init__()
            self._hparams.clear()
            self.save_hyperparameters(hparams)

    class Wider(Net):                                       # says nothing about hyperparameters itself
        def __init__(self, width=3, lr=0.3):
            super().__init__(lr=lr)
            self.width = width

    for model in (Whole({"lr": 0.5, "deep": 2}), Whole(Namespace(lr=0.5, deep=2)), Wider(7)):
        trainer = Trainer(max_epochs=1, **quiet)
        trainer.fit(model, data())
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        loaded = type(model).load_from_checkpoint(tmp_path / "a.ckpt", lr=0.9)
        assert loaded.hparams == {**model.hparams, "lr": 0.9}
    assert loaded.width == 7
    assert repr(loaded.hparams) == '"dropout": 0.2\n"lr":      0.9\n"width":   7'
    with pytest.raises(ModuleError, match=r"on an object, .* use model = Wider\.load_from_checkpoint\(path\)"):
        loaded.load_from_checkpoint(tmp_path / "a.ckpt")

    class Needs(Net):
        def __init__(self, backbone, width=3, *, head, **others):
            super().__init__()

    assert Needs(nn.Linear(1, 1), head=3).hparams == {"lr": 0.1, "dropout": 0.2, "width": 3, "head": 3}

    with pytest.raises(SettingError, match="without backbone, head, which __init__ needs; pass backbone=…"):
        Needs.load_from_checkpoint(tmp_path / "a.ckpt")


def test_a_copy_of_a_module_has_no_trainer(quiet):
    twins = []

    class Copies(Net):
        def on_train_epoch_end(self):
            twins.append(copy.deepcopy(self))

    model = Copies()
    trainer = Trainer(max_epochs=1, **quiet)
    trainer.fit(model, data())
    (twin,) = twins
    assert twin.trainer is None
    assert model.trainer is trainer
    assert_same(weights(twin), weights(model))
    other = Trainer(max_epochs=1, **quiet)
    other.fit(model, data())
    assert model.trainer is other


def test_a_second_fit_with_the_same_callbacks_and_optimizer_begins_anew(quiet, tmp_path):
    class Keeps(Net):
        def configure_optimizers(self):
            self.optimizer = getattr(self, "optimizer", None) or super().configure_optimizers()
            assert self.global_step == 0
            return self.optimizer

    keeper = ModelCheckpoint(tmp_path / "kept", monitor="val_loss", save_top_k=-1, filename="{epoch}")
    stopper = EarlyStopping("val_loss", patience=9)
    trainer, model = Trainer(max_epochs=2, callbacks=[stopper, keeper], **quiet), Keeps()
    for _ in range(2):
        trainer.fit(model, data(), data())
        assert (trainer.global_step, trainer.current_epoch, len(trainer.history)) == (14, 2, 2)
        assert sorted(Path(path).name for path in keeper.best_k_models) == ["epoch=0.ckpt", "epoch=1.ckpt"]
        assert stopper.best_score == min(row["val_loss"] for row in trainer.history)
    scores = dict(keeper.best_k_models)
    trainer.validate(model, data(), verbose=False)
    assert keeper.best_k_models == scores, "measuring forgets nothing"
    assert stopper.best_epoch is not None


def test_predictions_with_other_weights_and_a_table_of_what_was_measured(quiet, tmp_path, capsys):
    trainer, model = Trainer(max_epochs=1, **quiet), Net(dropout=0.0)
    trainer.fit(model, data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    expected = trainer.predict(model, data(8))[0].tolist()
    other = Net()
    assert Trainer(**quiet).predict(other, data(8), ckpt_path=tmp_path / "a.ckpt")[0].tolist() == expected
    assert_same(weights(other), weights(model))
    capsys.readouterr()
    (metrics,) = trainer.test(model, data(), verbose=True)
    assert capsys.readouterr().out.split() == ["test_loss", f"{metrics['test_loss']:.4f}"]


def test_the_bar_on_a_terminal(quiet):
    import io

    from rich.console import Console

    class OnBar(Net):
        def training_step(self, batch, batch_idx):
            self.log("number", float(batch_idx), prog_bar=True)
            self.log("hidden", 3.0)
            return super().training_step(batch, batch_idx)

        def on_train_batch_end(self, outputs, batch, batch_idx):
            (bar,) = [callback for callback in self.trainer.callbacks if hasattr(callback, "bar")]
            tasks.append((len(bar.bar.tasks), bar.bar.tasks[0].completed, bar.bar.tasks[0].fields["numbers"]))

    tasks = []
    trainer = Trainer(max_epochs=2, **{**quiet, "enable_progress_bar": True})
    trainer.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    trainer.fit(OnBar(), data(24))
    assert tasks == 2 * [(1, i + 1, f"number {i:.4f}") for i in range(3)]
    assert "epoch 2" in trainer.console.file.getvalue()


# -- going on after a break --

SCHEDULES = {
    "none": lambda o: None,
    "step": lambda o: optim.lr_scheduler.StepLR(o, 2),
    "multistep": lambda o: optim.lr_scheduler.MultiStepLR(o, [2, 3], 0.5),
    "cosine": lambda o: optim.lr_scheduler.CosineAnnealingLR(o, 4),
    "warm restarts": lambda o: optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "one cycle": lambda o: optim.lr_scheduler.OneCycleLR(o, 0.2, total_steps=8),
    "plateau": lambda o: optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "sequential": lambda o: optim.lr_scheduler.SequentialLR(
        o, [optim.lr_scheduler.LinearLR(o), optim.lr_scheduler.ExponentialLR(o, 0.5)], [2]),
    "lambda": lambda o: optim.lr_scheduler.LambdaLR(o, lambda epoch: 0.8 ** epoch),
}
OPTIMIZERS = {"SGD": {"lr": 0.1, "momentum": 0.9}, "Adam": {"lr": 0.01, "amsgrad": True}, "AdamW": {"lr": 0.01},
              "RMSprop": {"lr": 0.01, "centered": True}, "Adagrad": {"lr": 0.1}, "Adadelta": {"lr": 1.0}}


@pytest.mark.parametrize(("optimizer", "schedule"), [*(("SGD", name) for name in SCHEDULES),
                                                     *((name, "none") for name in OPTIMIZERS if name != "SGD")])
def test_a_run_that_goes_on_ends_with_the_same_bits(optimizer, schedule, quiet, tmp_path):
    class Scheduled(Net):
        def configure_optimizers(self):
            made = getattr(optim, optimizer)(self.parameters(), **OPTIMIZERS[optimizer])
            scheduler = SCHEDULES[schedule](made)
            if scheduler is None:
                return made
            return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}

    def run(epochs, **settings):
        seed_everything(0)
        model = Scheduled()
        loader = data(shuffle=True, generator=minidl.Generator().manual_seed(9))
        trainer = Trainer(max_epochs=epochs, **quiet, callbacks=[
            EarlyStopping("val_loss", patience=9, restore_best_weights=True),
            ModelCheckpoint(tmp_path / "kept", save_last=True, monitor="val_loss")])
        trainer.fit(model, loader, data(30), **settings)
        return model, trainer

    whole, whole_trainer = run(6)
    last = weights(whole)
    for path in (tmp_path / "kept").iterdir():
        path.unlink()
    run(3)
    again, trainer = run(6, ckpt_path="last")
    assert_same(weights(again), last)
    assert [{**row, "seconds": 0} for row in trainer.history] == \
        [{**row, "seconds": 0} for row in whole_trainer.history]
    assert trainer.global_step == whole_trainer.global_step == 42
    keeper, whole_keeper = trainer.checkpoint_callback, whole_trainer.checkpoint_callback
    assert keeper.best_model_path == whole_keeper.best_model_path
    assert keeper.best_model_score == whole_keeper.best_model_score
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"last.ckpt", Path(keeper.best_model_path).name}


def test_everything_that_draws_goes_on_where_it_was(quiet, tmp_path):
    drawn = []

    class Drawing(Net):
        def training_step(self, batch, batch_idx):
            drawn.append((random.random(), np.random.rand(), minidl.rand(1).item(), batch[0][0, 0].item()))  # noqa: NPY002
            return super().training_step(batch, batch_idx)

    def run(epochs, ckpt_path=None):
        seed_everything(0)
        trainer = Trainer(max_epochs=epochs, **quiet)
        trainer.fit(Drawing(), data(shuffle=True, generator=minidl.Generator().manual_seed(9)), ckpt_path=ckpt_path)
        return trainer

    run(4)
    whole, drawn = drawn, []
    run(2).save_checkpoint(tmp_path / "half.ckpt")
    run(4, tmp_path / "half.ckpt")
    assert drawn == whole


def test_what_modules_and_callbacks_add_to_a_checkpoint_comes_back(quiet, tmp_path):
    class Remembering(Net):
        def on_save_checkpoint(self, checkpoint):
            checkpoint["mine"] = {"list": [1, 2], "tensor": minidl.arange(3)}

        def on_load_checkpoint(self, checkpoint):
            self.found = checkpoint["mine"]

    class Counter(Callback):
        epochs = 0

        def on_train_epoch_end(self, trainer, module):
            self.epochs += 1

        def state_dict(self):
            return {"epochs": self.epochs}

        def load_state_dict(self, state_dict):
            self.epochs = state_dict["epochs"]

    trainer = Trainer(max_epochs=2, callbacks=[Counter()], **quiet)
    trainer.fit(Remembering(), data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    model, counter = Remembering(), Counter()
    Trainer(max_epochs=5, callbacks=[counter], **quiet).fit(model, data(), ckpt_path=tmp_path / "a.ckpt")
    assert model.found["list"] == [1, 2]
    assert model.found["tensor"].tolist() == [0, 1, 2]
    assert counter.epochs == 5


def test_a_run_that_had_stopped_early_does_not_go_on(quiet, tmp_path):
    def run():
        keeper = ModelCheckpoint(tmp_path, save_last=True)
        trainer = Trainer(max_epochs=9, callbacks=[EarlyStopping("val_loss", patience=2), keeper], **quiet)
        model = Net(lr=1e-9, dropout=0.0)
        model.validation_step = lambda batch, batch_idx: model.log("val_loss", 1.0)
        trainer.fit(model, data(), data(), ckpt_path="last")
        return len(trainer.history)

    assert [run(), run()] == [3, 3]


@pytest.mark.slow
def test_ten_kills_at_any_moment_change_no_bit_of_the_result(tmp_path):
    epochs = 14
    command = [sys.executable, str(ROOT / "tests" / "training_run.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}

    def start(folder):
        folder.mkdir(exist_ok=True)
        return subprocess.Popen([*command, str(folder), str(epochs)], env=environment)

    begun = time.monotonic()
    assert start(tmp_path / "whole").wait(300) == 0
    seconds = time.monotonic() - begun
    rng = random.Random(0)
    kills, while_writing = 0, 0
    for attempt in range(60):
        process = start(tmp_path / "killed")
        if kills < 10:
            waits_for_writing = attempt % 2 == 0
            deadline = time.monotonic() + (seconds if waits_for_writing else rng.uniform(0.3, 1.0) * seconds)
            while process.poll() is None and time.monotonic() < deadline:
                if waits_for_writing and any((tmp_path / "killed").rglob(".*.part")):
                    while_writing += 1
                    break
                time.sleep(0.0005)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
        code = process.wait(300)
        if code == 0 and kills >= 10:
            break
        assert code in (0, -signal.SIGKILL)
        if code == 0:                           # finished before the tenth kill: begin again from an earlier epoch
            (tmp_path / "killed" / "final").unlink()
            for path in (tmp_path / "killed" / "checkpoints").iterdir():
                path.unlink()
    assert kills == 10
    assert while_writing >= 3, "no kill came while a checkpoint was written"
    assert (tmp_path / "killed" / "final").read_bytes() == (tmp_path / "whole" / "final").read_bytes()
    assert (tmp_path / "killed" / "log" / "version_0" / "metrics.csv").read_text() == \
        (tmp_path / "whole" / "log" / "version_0" / "metrics.csv").read_text()
    names = [sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir()) for run in ("killed", "whole")]
    assert names[0] == names[1]


class Killed(BaseException):
    """As if the process had been killed here."""


@pytest.mark.parametrize("last", [False, True])
def test_a_break_between_any_two_files_of_an_epoch(last, quiet, tmp_path, monkeypatch):
    """Three checkpoint callbacks in one folder: what they keep in the end, and every file, as without the break."""
    from minidl.train import checkpoint

    scores, write = [3.0, 1.0, 2.0, 0.5, 4.0, 0.7], checkpoint.write

    class Scripted(Net):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", scores[self.current_epoch])

    def run(folder, resume=None):
        seed_everything(4)
        keepers = [ModelCheckpoint(folder, monitor="val_loss", save_top_k=2, filename="a", save_last=last),
                   ModelCheckpoint(folder, monitor="val_loss", mode="max", filename="b-{epoch}"),
                   ModelCheckpoint(folder, filename="newest-{epoch}")]
        trainer = Trainer(max_epochs=6, callbacks=keepers, **quiet)
        trainer.fit(Scripted(), data(shuffle=True), data(), ckpt_path=resume)
        return [sorted(Path(path).name for path in keeper.best_k_models) for keeper in keepers]

    def files(folder):
        return {path.name: (content["epoch"], {name: t.tolist() for name, t in content["state_dict"].items()},
                            [sorted(map(os.path.basename, state["best_k_models"]))
                             for state in content["callbacks"].values()])
                for path in folder.iterdir() for content in [minidl.load(path)]}

    written = []

    def counted(*args):
        if len(written) == stop_at:
            raise Killed
        written.append(args[1].name)
        write(*args)

    monkeypatch.setattr(checkpoint, "write", counted)
    stop_at = None
    kept, count = run(tmp_path / "whole"), len(written)
    assert {name: epoch for name, (epoch, _, _) in files(tmp_path / "whole").items()} == \
        {"a.ckpt": 4, "a-v1.ckpt": 6, "b-epoch=4.ckpt": 5, "newest-epoch=5.ckpt": 6} | ({"last.ckpt": 6} if last else {})
    for break_at in range(1, count):
        written.clear()
        stop_at, folder = break_at, tmp_path / f"break{break_at}"
        with pytest.raises(Killed):
            run(folder)
        stop_at = None
        assert run(folder, "last") == kept
        assert files(folder) == files(tmp_path / "whole"), f"a break before file {break_at}"


def test_a_run_that_goes_on_in_another_folder_leaves_the_first_runs_files_alone(quiet, tmp_path):
    def run(folder, epochs, resume=None):
        keeper = ModelCheckpoint(tmp_path / folder, monitor="val_loss", save_last=True)
        Trainer(max_epochs=epochs, callbacks=keeper, **quiet).fit(Net(), data(), data(), ckpt_path=resume)
        return keeper

    run("first", 2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    second = run("second", 6, tmp_path / "first" / "last.ckpt")
    assert {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()} == before
    assert all(Path(path).parent == tmp_path / "second" for path in second.best_k_models)
    os.rename(tmp_path / "second", tmp_path / "moved")
    moved = run("moved", 6, "last")
    assert Path(moved.best_model_path) == tmp_path / "moved" / Path(second.best_model_path).name
    assert moved.best_model_score == second.best_model_score
    minidl.save({"a": 1}, tmp_path / "moved" / "strange.ckpt")
    assert len(run("moved", 7, "last").best_k_models) == 1


def test_two_checkpoint_callbacks_do_not_delete_each_others_files(quiet, tmp_path):
    scores = [2.0, 1.0, 3.0, 2.0]

    class Scripted(Net):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", scores[self.current_epoch])

    best, worst = (ModelCheckpoint(tmp_path, monitor="val_loss", mode=mode, filename="{epoch}") for mode in ("min", "max"))
    Trainer(max_epochs=4, callbacks=[best, worst], **quiet).fit(Scripted(), data(), data())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch=1.ckpt", "epoch=2.ckpt"]
    assert [Path(keeper.best_model_path).name for keeper in (best, worst)] == ["epoch=1.ckpt", "epoch=2.ckpt"]


def test_names_and_scores_of_checkpoints(quiet, tmp_path):
    scores = [float("nan"), 0.5, 0.5, 0.7, 0.2]

    class Scripted(Net):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", scores[self.current_epoch])

    def kept(**settings):
        keeper = ModelCheckpoint(tmp_path / str(len(list(tmp_path.iterdir()))), **settings)
        Trainer(max_epochs=5, callbacks=keeper, **quiet).fit(Scripted(), data(), data())
        return keeper, {path.name: minidl.load(path)["epoch"] for path in keeper.dirpath.iterdir()}

    keeper, files = kept(monitor="val_loss", filename="best.ckpt", save_top_k=3)
    assert files == {"best.ckpt": 5, "best-v1.ckpt": 2, "best-v2.ckpt": 3}, "nan is worse than any number"
    assert (Path(keeper.best_model_path).name, keeper.best_model_score) == ("best.ckpt", 0.2)
    assert kept(monitor="val_loss", filename="one")[1] == {"one.ckpt": 5}
    assert kept(filename="one")[1] == {"one.ckpt": 5}
    assert kept(every_n_epochs=2, save_top_k=-1, filename="{epoch}")[1] == {"epoch=1.ckpt": 2, "epoch=3.ckpt": 4}
    assert kept()[0].last_model_path == ""
    with pytest.raises(SettingError, match=r"got \{val_loss:d\} in filename='\{val_loss:d\}' for val_loss=nan, which"):
        kept(filename="{val_loss:d}")
    with pytest.raises(SettingError, match="a run goes on from the end of an epoch; use every_n_epochs"):
        ModelCheckpoint(every_n_train_steps=5)


def test_a_checkpoint_of_more_epochs_than_wanted(quiet, tmp_path):
    trainer = Trainer(max_epochs=2, **quiet)
    trainer.fit(Net(), data())
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    with pytest.raises(SettingError, match=r"two\.ckpt after 2 epochs and max_epochs=1; raise max_epochs"):
        Trainer(max_epochs=1, **quiet).fit(Net(), data(), ckpt_path=tmp_path / "two.ckpt")
    again = Trainer(max_epochs=2, **quiet)
    again.fit(Net(), data(), ckpt_path=tmp_path / "two.ckpt")
    assert (again.current_epoch, again.global_step) == (2, 14)


def test_what_a_killed_run_left_beside_its_checkpoints_is_cleared_away(quiet, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".last.ckpt.12345.part").write_text("half")
    Trainer(max_epochs=1, callbacks=ModelCheckpoint(tmp_path / "kept", filename="a"), **quiet).fit(Net(), data())
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a.ckpt"]


# -- what ends a run too early --

def test_ctrl_c_leaves_a_whole_checkpoint_written_logs_and_no_bar(tmp_path):
    import threading

    class Interrupted(Net):
        def training_step(self, batch, batch_idx):
            if self.current_epoch == 2 and batch_idx == 3:
                raise KeyboardInterrupt
            return super().training_step(batch, batch_idx)

    logger, threads = CSVLogger(tmp_path), threading.active_count()
    keeper = ModelCheckpoint(tmp_path / "kept", save_last=True)
    trainer = Trainer(max_epochs=5, logger=logger, callbacks=keeper, log_every_n_steps=1, accelerator="cpu")
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(Interrupted(), data())
    assert trainer.interrupted
    assert minidl.load(tmp_path / "kept" / "last.ckpt")["epoch"] == 2
    assert len((Path(logger.log_dir) / "metrics.csv").read_text().split()) == 1 + 17
    assert threading.active_count() == threads, "the bar still runs"


def test_an_error_in_a_callback_stops_neither_the_loggers_nor_the_teardown_of_the_data(quiet):
    seen = []

    class Bad(Callback):
        def on_train_batch_end(self, *args):
            raise ValueError("mine")

        def teardown(self, *args):
            raise RuntimeError("again")

    class Kept(Logger):
        def finalize(self, status):
            seen.append(status)
            raise OSError("no room")

    class Data(LightningDataModule):
        def train_dataloader(self):
            return data()

        def teardown(self, stage):
            seen.append(stage)

    trainer = Trainer(max_epochs=1, callbacks=Bad(), **{**quiet, "logger": [Kept(), Kept()]})
    with pytest.raises(RuntimeError, match="again"):
        trainer.fit(Net(), Data())
    assert seen == ["failed", "failed", "fit"]
    assert trainer.interrupted


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_a_full_disk_leaves_the_checkpoint_before_whole(quiet, tmp_path):
    import resource

    class Grows(Net):
        def on_train_epoch_end(self):
            if self.current_epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    keeper = ModelCheckpoint(tmp_path / "kept", save_last=True)
    try:
        with pytest.raises(MinidlError, match=r"cannot be written|no room"):
            Trainer(max_epochs=5, callbacks=keeper, **quiet).fit(Grows(), data())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["epoch=0-step=7.ckpt", "last.ckpt"]
    assert minidl.load(tmp_path / "kept" / "last.ckpt")["epoch"] == 1


def test_a_fit_that_is_refused_changes_nothing_of_the_run_before(quiet):
    trainer, model = Trainer(max_epochs=2, **quiet), Net()
    trainer.fit(model, data())
    with pytest.raises(ModuleError, match="got a Linear"):
        trainer.fit(nn.Linear(1, 1), data())
    assert len(trainer.history) == 2
    assert trainer.model is model


# -- what is refused --

def spoiled(kind):
    """A module whose loss becomes nan in the third step, for one of several reasons."""
    class Spoiled(Net):
        def training_step(self, batch, batch_idx):
            x, y = batch
            if kind == "weight" and batch_idx == 2:
                self.net[3].weight.data[0, 0] = float("nan")
            if kind == "batch" and batch_idx == 2:
                x = batch[0] = x.clone()
                x[0, 0] = float("nan")
            hidden = self.net[1](self.net[0](x))
            if kind == "layer" and batch_idx == 2:
                hidden = hidden * float("inf")
            loss = F.cross_entropy(self.net[3](hidden), y)
            return loss * float("nan") if kind == "step" and batch_idx == 2 else loss

    return Spoiled()


@pytest.mark.parametrize(("kind", "where"), [
    ("weight", "net.3.weight is the first weight that is not finite"),
    ("batch", "the batch itself holds numbers that are not finite"),
    ("layer", "net.3 Linear is the first layer with an input that is not finite, so it comes from what is done before"),
    ("step", "every layer's output is finite"),
])
def test_a_loss_that_is_not_finite_stops_the_run_and_says_where_it_began(kind, where, quiet, tmp_path):
    model = spoiled(kind)
    keeper = ModelCheckpoint(tmp_path / "kept", save_last=True)
    trainer = Trainer(max_epochs=3, callbacks=keeper, **quiet)
    clean = Net()
    clean.load_state_dict(model.state_dict())
    with pytest.raises(MinidlError, match=r"the loss is nan in epoch 1, step 3 \(learning rate 0\.1\)") as raised:
        trainer.fit(model, data())
    assert where in str(raised.value)
    if kind != "weight":
        assert all(np.isfinite(value).all() for value in weights(model).values()), "the weights were spoiled"
    assert not (tmp_path / "kept").exists()


def test_the_last_good_checkpoint_stays_and_is_named(quiet, tmp_path):
    class Later(Net):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if self.current_epoch == 2 else loss

    keeper = ModelCheckpoint(tmp_path / "kept", save_last=True)
    with pytest.raises(MinidlError, match=r"epoch 3, step 1 .* the last good checkpoint is .*last\.ckpt"):
        Trainer(max_epochs=5, callbacks=keeper, **quiet).fit(Later(), data())
    assert minidl.load(tmp_path / "kept" / "last.ckpt")["epoch"] == 2


def test_weights_that_are_not_finite_are_never_saved(quiet, tmp_path):
    class Spoils(Net):
        def on_train_epoch_end(self):
            if self.current_epoch == 1:
                self.net[0].bias.data[0] = float("inf")

    keeper = ModelCheckpoint(tmp_path / "kept", save_last=True)
    with pytest.raises(MinidlError, match=r"net\.0\.bias .* after epoch 2, so no checkpoint was written; the last good"):
        Trainer(max_epochs=5, callbacks=keeper, **quiet).fit(Spoils(), data())
    assert minidl.load(tmp_path / "kept" / "last.ckpt")["epoch"] == 1


def broken(**parts):
    def always(value):
        return lambda self, *args: value

    return type("Broken", (Net,), {name: always(value) for name, value in parts.items()})()


OPTIMIZER = optim.SGD(nn.Linear(1, 1).parameters(), 0.1)


@pytest.mark.parametrize(("model", "error", "sentence"), [
    (lambda: nn.Linear(4, 3), ModuleError, "got a Linear, expected a LightningModule"),
    (lambda: broken(training_step=1.0), ModuleError, "got a float back, expected the loss"),
    (lambda: broken(training_step={"los": 1}), ModuleError, "under 'loss'"),
    (lambda: broken(training_step=minidl.ones(3, requires_grad=True)), ShapeError, r"a loss of shape \(3,\)"),
    (lambda: broken(training_step=minidl.tensor(1.0)), MinidlError, "depends on no parameter"),
    (lambda: broken(configure_optimizers=3), SettingError, "got a int, expected an optimizer"),
    (lambda: broken(configure_optimizers=None), SettingError, "got None back, expected an optimizer"),
    (lambda: broken(configure_optimizers={"optimiser": 1}), SettingError, "expected 'optimizer'"),
    (lambda: broken(configure_optimizers={"optimizer": OPTIMIZER, "lr_scheduler": 3}), SettingError, "got a int, .* sched"),
    (lambda: broken(configure_optimizers=([OPTIMIZER], OPTIMIZER)), SettingError, "got a SGD, expected a scheduler"),
    (lambda: broken(validation_epoch_end=None), ModuleError, "no longer calls; .* on_validation_epoch_end"),
    (lambda: LightningModule(), NotImplementedError, "has no configure_optimizers"),
])
def test_modules_that_cannot_be_trained(model, error, sentence, quiet):
    with pytest.raises(error, match=sentence):
        Trainer(max_epochs=1, **quiet).fit(model(), data())


@pytest.mark.parametrize(("settings", "sentence"), [
    ({"max_epoch": 3}, "got a setting 'max_epoch', which is not there; did you mean max_epochs"),
    ({"max_epochs": 1.5}, "got max_epochs=1.5, expected a whole number"),
    ({"devices": 4}, "got devices=4, expected 1"),
    ({"strategy": "ddp"}, "got strategy='ddp', expected 'auto': there is one process"),
    ({"precision": "16-mixed"}, "got precision='16-mixed'"),
    ({"limit_train_batches": 1.5}, "got limit_train_batches=1.5, expected a number of batches, or a fraction"),
    ({"limit_val_batches": -1}, "got limit_val_batches=-1"),
    ({"gradient_clip_val": -1}, "got gradient_clip_val=-1, expected 0 or more"),
    ({"gradient_clip_algorithm": "l2"}, "expected 'norm' or 'value'"),
    ({"callbacks": [3]}, "got a int among the callbacks, expected"),
    ({"accumulate_grad_batches": 0}, "got accumulate_grad_batches=0"),
    ({"accelerator": "tpu"}, "got accelerator='tpu', expected 'auto', 'cpu' or 'gpu'"),
    ({"accelerator": 0}, "got accelerator=0, expected 'auto', 'cpu' or 'gpu'"),
])
def test_settings_of_a_trainer(settings, sentence):
    with pytest.raises(MinidlError, match=sentence):
        Trainer(**settings)


def test_accelerators_where_there_is_a_gpu(monkeypatch):
    """The fake device stands in for it."""
    monkeypatch.setattr(cupy_backend, "problem", lambda: None)
    monkeypatch.setattr(cupy_backend, "backend_on", lambda index: dataclasses.replace(fake.backend, name=f"cuda:{index or 0}"))
    monkeypatch.setattr(minidl.cuda, "is_available", lambda: True)
    monkeypatch.setattr(minidl.cuda, "get_device_name", lambda: "NVIDIA H100")
    assert {name: str(Trainer(accelerator=name, logger=False).device) for name in ("auto", "gpu", "cuda", "cuda:1", "cpu", "fake")} == {
        "auto": "cuda:0", "gpu": "cuda:0", "cuda": "cuda:0", "cuda:1": "cuda:1", "cpu": "cpu", "fake": "fake"}
    assert why_auto("cuda:1") == "NVIDIA H100"


def test_every_part_of_a_model_is_moved(quiet):
    """Also if its first part, such as an encoder that was trained before, is on the device already."""
    model = Net()
    model.net[0].to("fake")
    trainer = Trainer(max_epochs=1, **{**quiet, "accelerator": "fake"})
    trainer.fit(model, data(), data())
    assert {str(parameter.device) for parameter in model.parameters()} == {"fake"}


def test_accelerators_where_there_is_no_gpu(monkeypatch, capsys, quiet):
    """What is asked for is an error when the Trainer is made; nothing takes its place but for "auto"."""
    reason = "there is no NVIDIA driver; install one, or use the CPU (--device cpu)"

    def not_there():
        raise DeviceError(f'got device "cuda", but {reason}', where="cuda")

    monkeypatch.setattr(cupy_backend, "problem", lambda: reason)
    monkeypatch.setattr(cupy_backend, "cupy_or_error", not_there)
    monkeypatch.setattr(minidl.cuda, "is_available", lambda: False)
    for name in ("gpu", "cuda", "cuda:0"):
        with pytest.raises(DeviceError) as error:
            Trainer(accelerator=name, logger=False)
        assert str(error.value) == (f"Trainer: got accelerator={name!r}, but there is no NVIDIA driver; install one, or use the CPU "
                                    f'(accelerator="cpu")')
    for name, said in (("auto", "on cpu (chosen by auto: there is no NVIDIA driver)"), ("cpu", "on cpu"), ("fake", "on fake")):
        Trainer(max_steps=1, **{**quiet, "accelerator": name, "enable_model_summary": True}).fit(Net(), data())
        assert capsys.readouterr().out == f"Net: 67 parameters, {said}\n"


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: EarlyStopping("x", mode="maximum"), "got mode='maximum', expected 'min' or 'max'"),
    (lambda: EarlyStopping("x", patience=-1), "got patience=-1"),
    (lambda: ModelCheckpoint(save_top_k=3), "got save_top_k=3 and monitor=None"),
    (lambda: ModelCheckpoint(every_n_epochs=0), "got every_n_epochs=0"),
    (lambda: LearningRateMonitor("batch"), "got logging_interval='batch'"),
])
def test_settings_of_callbacks(make, sentence):
    with pytest.raises(SettingError, match=sentence):
        make()


def test_a_metric_that_nobody_logged(quiet):
    for callback in (EarlyStopping("val_los"), ModelCheckpoint(monitor="val_los")):
        with pytest.raises(MinidlError, match=r"got monitor='val_los', .*epoch.*did you mean 'val_loss'"):
            Trainer(max_epochs=2, callbacks=callback, **quiet).fit(Net(), data(), data())


@pytest.mark.parametrize(("value", "sentence"), [
    (minidl.ones(2), r"log\('x'\): got a tensor \(2,\), expected a single number"), ("high", "got a str, expected"),
])
def test_what_cannot_be_logged(value, sentence, quiet):
    class Logs(Net):
        def training_step(self, batch, batch_idx):
            self.log("x", value)
            return super().training_step(batch, batch_idx)

    with pytest.raises(MinidlError, match=sentence):
        Trainer(max_epochs=1, **quiet).fit(Logs(), data())


def test_loaders_that_are_none(quiet):
    with pytest.raises(SettingError, match=r"got no loader, expected batches: pass a DataLoader, or define train_data"):
        Trainer(max_epochs=1, **quiet).fit(Net())
    with pytest.raises(SettingError, match="got a int, expected a DataLoader"):
        Trainer(max_epochs=1, **quiet).fit(Net(), 5)
    with pytest.raises(SettingError, match="got 2 loaders"):
        Trainer(max_epochs=1, **quiet).fit(Net(), data(), [data(), data()])
    with pytest.raises(SettingError, match="got 0 training batches"):
        Trainer(max_epochs=1, **quiet).fit(Net(), data(4, batch_size=8, drop_last=True))
    with pytest.raises(SettingError, match="got 7 training batches and a limit of 0"):
        Trainer(max_epochs=1, limit_train_batches=0.1, **quiet).fit(Net(), data())


def test_checkpoints_that_do_not_fit_leave_the_module_as_it_was(quiet, tmp_path):
    trainer = Trainer(max_epochs=1, **quiet)
    trainer.fit(Net(), data())
    trainer.save_checkpoint(tmp_path / "good.ckpt")
    content = (tmp_path / "good.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[:-100])
    minidl.save({"a": 1}, tmp_path / "other.ckpt")
    trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    (tmp_path / "pickle.ckpt").write_bytes(b"\x80\x02}q\x00.")
    saved = minidl.load(tmp_path / "good.ckpt")
    saved["optimizer_states"] = saved["optimizer_states"] * 2
    minidl.save(saved, tmp_path / "two.ckpt")
    saved = minidl.load(tmp_path / "good.ckpt")
    saved["optimizer_states"][0]["param_groups"][0]["params"] = [0]
    minidl.save(saved, tmp_path / "groups.ckpt")

    class Wider(Net):
        def __init__(self):
            super().__init__()
            self.net[3] = nn.Linear(8, 5)

    class Renamed(Net):
        def __init__(self):
            super().__init__()
            self.head = self.net
            self.net = None

    for make, name, sentence in (
            (Net, "cut.ckpt", r"cut\.ckpt of [\d,]+ bytes, which is no whole safetensors file"),
            (Net, "pickle.ckpt", "no whole safetensors file"),
            (Net, "missing.ckpt", r"missing\.ckpt, which cannot be read \(No such file"),
            (Net, "other.ckpt", "holds no 'state_dict'"),
            (Net, "weights.ckpt", "without optimizer_states"),
            (Net, "two.ckpt", "a run with 2 optimizers, expected 1"),
            (Net, "groups.ckpt", "groups of"),
            (Wider, "good.ckpt", r"net\.3\.weight is \(3, 8\), expected \(5, 8\)"),
            (Renamed, "good.ckpt", r"head\.0\.weight \(it has net\.0\.weight\)")):
        model = make()
        before = weights(model)
        with pytest.raises(MinidlError, match=sentence):
            Trainer(max_epochs=3, **quiet).fit(model, data(), ckpt_path=tmp_path / name)
        assert_same(weights(model), before)


def test_hyperparameters_that_cannot_be_saved_are_noticed_at_once():
    class Wrapping(LightningModule):
        def __init__(self, backbone, width=3, ignore=()):
            super().__init__()
            self.save_hyperparameters(ignore=["ignore", *ignore])

    with pytest.raises(SettingError, match=r"got backbone, a Linear, .*ignore=\['backbone'\]"):
        Wrapping(nn.Linear(1, 1))
    assert Wrapping(nn.Linear(1, 1), ignore=["backbone"]).hparams == {"width": 3}
    with pytest.raises(SettingError, match="got width, a Parameter"):
        Wrapping(1, nn.Parameter(minidl.ones(1)))
    with pytest.raises(SettingError, match="got width, a dict"):
        Wrapping(1, {nn.Linear: 1})


@pytest.mark.parametrize(("kind", "layer"), [
    ("log", r"net\.0\.1 Log is the first layer with an output"),
    ("between", r"net\.0\.2 Linear.* is the first layer with an input that is not finite, so it comes from what is done"),
])
def test_the_first_layer_in_a_nested_module_and_batch_norms_numbers(kind, layer, quiet):
    class Log(nn.Module):
        def forward(self, x):
            return minidl.log(x.clamp(min=0.0)) if kind == "log" else x

    class Block(nn.Sequential):
        def forward(self, x):
            x = self[1](self[0](x))
            return self[2](x / (x - x) if kind == "between" else x)

    class Deep(Net):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(Block(nn.BatchNorm1d(4), Log(), nn.Linear(4, 3)))

        def training_step(self, batch, batch_idx):
            self.before = getattr(self, "before", None) or weights(self)
            return super().training_step(batch, batch_idx)

    model = Deep()
    with pytest.raises(MinidlError, match=layer):
        Trainer(max_epochs=1, **quiet).fit(model, data())
    assert_same(weights(model), model.before)


def test_data_that_are_not_finite_do_not_spoil_batch_norm(quiet):
    class Normed(Net):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3))

    x = minidl.randn(24, 4)
    x[20, 1] = float("nan")
    model = Normed()
    with pytest.raises(MinidlError, match=r"step 3 .*the batch itself holds numbers that are not finite; look at the data"):
        Trainer(max_epochs=1, **quiet).fit(model, DataLoader(TensorDataset(x, minidl.zeros(24).long()), 8))
    assert all(np.isfinite(value).all() for value in weights(model).values())
    assert model.net[0].num_batches_tracked.item() == 2


def test_a_gradient_that_is_not_finite_does_not_spoil_the_weights(quiet):
    class Root(Net):
        def training_step(self, batch, batch_idx):
            scores = self(batch[0])
            return scores.square().mean() + (minidl.sqrt((scores * 0).sum()) if batch_idx == 2 else 0)

    model = Root()
    with pytest.raises(MinidlError, match=r"the gradient of net\.0\.weight is not finite in epoch 1, step 3 .* a sqrt"):
        Trainer(max_epochs=1, gradient_clip_val=1.0, **quiet).fit(model, data())
    assert all(np.isfinite(value).all() for value in weights(model).values())

    class Huge(Net):                                        # their sum is not finite, they are
        def training_step(self, batch, batch_idx):
            return (self(batch[0]) * 0).sum() + 3e38 * (self.net[3].weight - self.net[3].weight.detach()).sum()

    Trainer(max_epochs=1, limit_train_batches=1, **quiet).fit(Huge(lr=1e-30), data())


def test_steps_that_are_missing_or_misspelt(quiet):
    class Without(Net):
        validation_step = LightningModule.validation_step
        test_step = LightningModule.test_step

    class Misspelt(Without):
        def validaton_step(self, batch, batch_idx):
            pass

    with pytest.warns(UserWarning, match="Without has no validation_step, so it is not validated"):
        Trainer(max_epochs=1, **quiet).fit(Without(), data(), data())
    with pytest.warns(UserWarning, match="has validaton_step, which nobody calls; did you mean validation_step?"):
        Trainer(max_epochs=1, **quiet).fit(Misspelt(), data())
    for name in ("validate", "test"):
        with pytest.raises(ModuleError, match=r"has no (validation|test)_step, so there is nothing to measure"):
            getattr(Trainer(**quiet), name)(Without(), data())
    with pytest.warns(UserWarning, match="got no batches from test_dataloader, so nothing is measured"):
        Trainer(**quiet).test(Net(), data(0), verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trainer(max_epochs=1, **quiet).fit(Net(), data(), data())


@pytest.mark.parametrize(("name", "instead"), [("optimizer_step", "LinearLR"), ("backward", "automatic_optimization"),
                                               ("lr_scheduler_step", "'interval'"), ("on_epoch_end", "on_train_epoch_end"),
                                               ("on_after_batch_transfer", "beginning of training_step")])
def test_methods_that_nobody_would_call(name, instead, quiet):
    with pytest.raises(ModuleError, match=rf"got {name}, which .*{instead}"):
        Trainer(max_epochs=1, **quiet).fit(broken(**{name: None}), data())


def test_a_callback_with_a_hook_of_lightning_1(quiet):
    class Old(Callback):
        def on_epoch_end(self, trainer, module):
            pass

    with pytest.raises(ModuleError, match="Old: got on_epoch_end, which Lightning 2 no longer calls"):
        Trainer(max_epochs=1, callbacks=Old(), **quiet).fit(Net(), data())


def test_a_monitored_metric_of_a_validation_that_there_is_not(quiet, tmp_path):
    for callback in (EarlyStopping("val_loss"), ModelCheckpoint(tmp_path, monitor="val_loss")):
        with pytest.raises(MinidlError, match="got monitor='val_loss', which was not logged in this epoch"):
            Trainer(max_epochs=1, callbacks=callback, **quiet).fit(Net(), data())
        Trainer(max_epochs=1, check_val_every_n_epoch=2, callbacks=callback, **quiet).fit(Net(), data(), data())
    Trainer(max_epochs=1, callbacks=EarlyStopping("val_loss", strict=False), **quiet).fit(Net(), data())
    stopper = EarlyStopping("train_loss", divergence_threshold=1e-3)
    trainer = Trainer(max_epochs=5, callbacks=stopper, **quiet)
    trainer.fit(Net(), data())
    assert len(trainer.history) == 1


def test_more_that_is_refused(quiet):
    class Logs(Net):
        def training_step(self, batch, batch_idx):
            self.log("x", 1.0, on_step=False, on_epoch=False)
            return super().training_step(batch, batch_idx)

    with pytest.raises(SettingError, match="so nobody would see it"):
        Trainer(max_epochs=1, **quiet).fit(Logs(), data())
    with pytest.raises(SettingError, match="got a list, expected a dict of numbers"):
        Net().log_dict([1.0])
    with pytest.raises(ModuleError, match=r"got None back for every batch of the epoch, .* return loss"):
        Trainer(max_epochs=1, **quiet).fit(broken(training_step=None), data())
    with pytest.raises(SettingError, match="got the class ModelCheckpoint among the callbacks, expected a Callback object"):
        Trainer(callbacks=[ModelCheckpoint])

    class Early(LightningModule):
        def __init__(self, lr=1):
            self.save_hyperparameters()

    with pytest.raises(ModuleError, match=r"got no call of super\(\).__init__\(\)"):
        Early()


def test_a_folder_that_cannot_be_made(quiet, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MinidlError, match="which cannot be made"):
        Trainer(max_epochs=1, callbacks=ModelCheckpoint(tmp_path / "file" / "kept"), **quiet).fit(Net(), data())
