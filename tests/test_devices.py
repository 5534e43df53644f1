"""Training elsewhere than on the CPU: the same start, the same numbers, no waiting in between, and no mixing up.

The other device is `fake`, which refuses what a GPU refuses and counts what a GPU waits for.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import fake, nn, optim, transforms
from minidl.data import DataLoader, TensorDataset
from minidl.datasets import Digits
from minidl.errors import LabelError, MinidlError
from minidl.kernels import im2col
from minidl.train import Callback, EarlyStopping, ModelCheckpoint, Trainer
from tests.figures import run_here
from tests.helpers import Classifier

DEVICES = ("cpu", "fake")


class Net(Classifier):
    """Convolution, norms, dropout: what layers keep, draw and count."""

    def __init__(self, optimizer="Adam", **settings):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2),
                                 nn.Dropout2d(0.25), nn.Flatten(), nn.Linear(64, 16), nn.LayerNorm(16), nn.Tanh(), nn.Dropout(0.5),
                                 nn.Linear(16, 10))

    def configure_optimizers(self):
        return OPTIMIZERS[self.hparams.optimizer](self.parameters())


OPTIMIZERS = {
    "Adam": lambda parameters: optim.Adam(parameters, lr=1e-3),
    "AdamW amsgrad": lambda parameters: optim.AdamW(parameters, lr=1e-3, amsgrad=True),
    "SGD": lambda parameters: optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "RMSprop": lambda parameters: optim.RMSprop(parameters, lr=1e-3, centered=True, momentum=0.9),
    "Adagrad": optim.Adagrad,
    "Adadelta": optim.Adadelta,
}


@pytest.fixture
def quiet(tmp_path):
    return {"default_root_dir": tmp_path, "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
            "enable_model_summary": False}


def digits(count, batch_size, **settings):
    """Real digits, turned and shifted at random when they are loaded."""
    augment = transforms.Compose([transforms.RandomCrop(8, padding=1), transforms.RandomRotation(10), transforms.ToTensor()])
    return DataLoader(minidl.data.Subset(Digits(transform=augment), range(count)), batch_size, **{"shuffle": True, **settings})


def noise(count, batch_size, classes=10, **settings):
    generator = minidl.Generator().manual_seed(1)
    x = minidl.randn(count, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(x, minidl.randint(0, classes, (count,), generator=generator)), batch_size, **settings)


def host(value):
    """A copy of the numbers, from wherever they are."""
    return value.detach().cpu().numpy().copy()


def numbers_of(state):
    """Name -> numbers, for what a state dict holds, however it is nested."""
    if isinstance(state, minidl.Tensor):
        return host(state)
    if isinstance(state, dict):
        return {key: numbers_of(value) for key, value in state.items()}
    return [numbers_of(value) for value in state] if isinstance(state, list | tuple) else state


def tensors_in(state):
    if isinstance(state, minidl.Tensor):
        return [state]
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else []
    return [tensor for part in parts for tensor in tensors_in(part)]


# -- labs --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("lab", "size", "figures", "convolutions"), [
    ("digits", 64, ["digits"], 2), ("cnn", 80, ["samples", "curves", "predictions", "softmax", "features"], 2)])
def test_a_lab_takes_two_steps_on_the_strict_device(monkeypatch, tmp_path, lab, size, figures, convolutions):
    """Its figures and its numbers are there, and the numbers are those of a run on the CPU."""
    steps, places, step, weight_grad = [], [], optim.Adam.step, im2col.conv2d_weight_grad
    monkeypatch.setattr(optim.Adam, "step", lambda self, *closure: (steps.append(self), step(self, *closure))[1])
    monkeypatch.setattr(im2col, "conv2d_weight_grad", lambda x, *rest: (places.append(type(x)), weight_grad(x, *rest))[1])
    settings = ("--epochs=1", f"--train-size={size}", "--batch-size=32")
    _, drawn = run_here(monkeypatch, lab, "--device=fake", *settings, f"--out={tmp_path / 'fake'}", equal_panels={"predictions"})
    assert list(drawn) == figures
    assert [steps.count(optimizer) for optimizer in dict.fromkeys(steps)] == [2] * (2 if lab == "cnn" else 1)
    assert {p.device.type for optimizer in steps for group in optimizer.param_groups for p in group["params"]} == {"fake"}
    assert places == [fake.FakeArray] * 2 * convolutions
    for name in (*(f"{figure}.png" for figure in figures), "report.html", "manifest.json"):
        assert (tmp_path / "fake" / name).stat().st_size > 1000
    run_here(monkeypatch, lab, "--device=cpu", *settings, f"--out={tmp_path / 'cpu'}", equal_panels={"predictions"})
    on_fake, on_cpu = (json.loads((tmp_path / device / "metrics.json").read_text()) for device in ("fake", "cpu"))
    assert on_fake.keys() == on_cpu.keys()
    assert (on_fake["device"], on_fake["epochs"], on_fake["train_size"]) == ("fake", 1, size)
    assert 1 < on_fake["train_loss"][0] < 4
    assert on_fake["train_loss"] == pytest.approx(on_cpu["train_loss"], abs=1e-5)
    assert on_fake["test_accuracy"] == pytest.approx(on_cpu["test_accuracy"], abs=0.01)


# -- the same seed, the same start -------------------------------------------------------------------------------------

class Watch(Callback):
    """The weights before the first step; of each step the batch, what dropout let through, and the loss."""

    def __init__(self):
        self.batches, self.masks, self.losses = [], [], []

    def on_train_start(self, trainer, module):
        self.weights = numbers_of(module.state_dict())
        for layer in module.modules():
            if isinstance(layer, nn.Dropout | nn.Dropout2d):
                layer.register_forward_hook(lambda layer, inputs, output: self.masks.append(host(output) / host(inputs[0])))

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        assert {part.device.type for part in batch} == {trainer.device.type}
        self.batches.append([host(part) for part in batch])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_same_seed_is_the_same_start_on_every_device(quiet, optimizer):
    seen = {}
    for device in DEVICES:
        minidl.manual_seed(7)
        seen[device] = watch = Watch()
        Trainer(max_steps=3, accelerator=device, callbacks=watch, **quiet).fit(Net(optimizer), digits(40, 16))
    cpu, other = seen["cpu"], seen["fake"]
    assert len(cpu.batches) == len(cpu.losses) == 3
    assert len(cpu.masks) == 6
    assert len({labels.tobytes() for _, labels in cpu.batches}) == 3
    np.testing.assert_equal(other.weights, cpu.weights)
    np.testing.assert_equal(other.batches, cpu.batches)
    for ours, theirs in zip(cpu.masks, other.masks, strict=True):
        assert 0 < (ours == 0).mean() < 1
        np.testing.assert_array_equal(ours == 0, theirs == 0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert other.losses == pytest.approx(cpu.losses, abs=1e-5)


def test_a_model_that_is_made_on_a_device_starts_the_same():
    found = []
    for device in DEVICES:
        minidl.manual_seed(3)
        found.append(numbers_of(nn.Sequential(nn.Conv2d(1, 4, 3, device=device), nn.Linear(8, 4, device=device),
                                              nn.Embedding(5, 2, device=device), nn.PReLU(device=device)).state_dict()))
    np.testing.assert_equal(*found)


@pytest.mark.parametrize("draw", [
    lambda place: minidl.randn(3, 4, device=place), lambda place: minidl.rand(3, device=place),
    lambda place: minidl.randint(0, 9, (7,), device=place), lambda place: minidl.randperm(9, device=place),
    lambda place: minidl.zeros(5, device=place).normal_(), lambda place: minidl.zeros(5, device=place).uniform_(-1, 1),
    lambda place: minidl.bernoulli(minidl.full((9,), 0.5, device=place)), lambda place: minidl.rand_like(minidl.zeros(4, device=place)),
    lambda place: minidl.multinomial(minidl.ones(9, device=place), 4), lambda place: minidl.normal(minidl.zeros(4, device=place), 1.0),
    lambda place: nn.init.kaiming_normal_(minidl.zeros(4, 3, device=place)), lambda place: nn.init.orthogonal_(minidl.zeros(4, 3, device=place)),
    lambda place: nn.init.trunc_normal_(minidl.zeros(4, 3, device=place)),
    *(lambda place, drop=drop: drop(minidl.ones(2, 4, 3, 3, device=place), training=True)
      for drop in (F.dropout, F.dropout2d, F.rrelu)),
    lambda place: minidl.distributions.Normal(minidl.zeros(4, device=place), minidl.ones(4, device=place)).sample(),
    lambda place: minidl.distributions.Categorical(minidl.ones(4, device=place)).sample((5,)),
    lambda place: transforms.RandomCrop(3)(minidl.arange(25.0, device=place).reshape(1, 5, 5)),
    lambda place: transforms.RandomHorizontalFlip()(minidl.arange(25.0, device=place).reshape(1, 5, 5))])
def test_what_is_drawn_is_the_same_on_every_device(draw):
    found = []
    for device in DEVICES:
        minidl.manual_seed(5)
        drawn = draw(device)
        assert drawn.device.type == device
        found.append((host(drawn), minidl.get_rng_state()))
    np.testing.assert_equal(*found)


# -- no waiting in between ---------------------------------------------------------------------------------------------

class Reads(Callback):
    """How often each training step reads from the device, with all that comes before the next one begins."""

    def __init__(self):
        self.counts, self.within = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.counts.append(fake.syncs.count)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.within.append(fake.syncs.count - self.counts[-1])

    @property
    def until_the_next(self):
        return [int(count) for count in np.diff(self.counts)]


@pytest.mark.parametrize("settings", [
    {}, {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}, *({"optimizer": name} for name in OPTIMIZERS if name != "Adam")],
    ids=lambda settings: ", ".join(map(str, settings.values())) or "Adam")
def test_a_trainers_steps_do_not_wait(quiet, settings):
    """In 120 steps: the loss of the 50th and the 100th, once to see that it is finite and once for the log."""
    settings, reads = dict(settings), Reads()
    model = Net(settings.pop("optimizer", "Adam"))
    Trainer(max_epochs=1, accelerator="fake", callbacks=reads, **settings, **quiet).fit(model, noise(480, 4))
    expected = [0] * 120
    expected[49] = expected[99] = 1
    assert reads.within == expected
    assert reads.until_the_next == [2 * count for count in expected[:-1]]


def test_clipping_by_the_norm_does_not_wait_either(quiet):
    reads = Reads()
    Trainer(max_epochs=1, accelerator="fake", callbacks=reads, gradient_clip_val=1.0, **quiet).fit(Net(), noise(240, 4))
    expected = [0] * 60
    expected[49] = 2                                                        # the loss, and the norm
    assert reads.within == expected


def test_gradients_that_are_not_finite_are_seen_when_numbers_are_read(quiet):
    class Breaks(Net):
        """In one step the loss is finite and its gradient is not."""

        def __init__(self, at):
            super().__init__()
            self.at = at

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss + (loss - loss.detach()).abs().sqrt() if batch_idx == self.at else loss

    for at, error in ((4, "got gradients of length nan"), (2, r"the loss is nan in epoch 1, step 5 .*an earlier step was too large")):
        with pytest.raises(MinidlError, match=error):
            Trainer(max_epochs=1, accelerator="fake", log_every_n_steps=5, gradient_clip_val=1.0, **quiet).fit(
                Breaks(at), noise(40, 4))


def test_schedules_accumulation_and_validation_do_not_wait(quiet):
    class Scheduled(Net):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=100)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

        def on_validation_batch_start(self, batch, batch_idx):
            self.before = fake.syncs.count

        def on_validation_batch_end(self, outputs, batch, batch_idx):
            validated.append(fake.syncs.count - self.before)

    reads, validated = Reads(), []
    Trainer(max_epochs=1, accelerator="fake", accumulate_grad_batches=2, callbacks=reads, **quiet).fit(
        Scheduled(), noise(480, 4), noise(12, 4))
    expected = [0] * 120
    expected[98] = expected[99] = 1                                         # both halves of the 50th step
    assert reads.within == expected
    assert validated == [0, 0, 0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_loop_written_by_hand_waits_only_where_it_reads(optimizer):
    minidl.manual_seed(0)
    model = Net(optimizer).to("fake")
    optimizer, counts, losses = model.configure_optimizers(), [], []
    for i, (x, y) in enumerate(noise(240, 4, shuffle=True)):
        fake.syncs.reset()
        x, y = x.to("fake"), y.to("fake")
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if i % 50 == 0:
            losses.append(loss.item())
        counts.append(list(fake.syncs.calls))
    assert counts == [["get"] if i % 50 == 0 else [] for i in range(60)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("wrong", [10, -1])
def test_a_label_out_of_range_is_noticed_at_once(quiet, device, wrong):
    """Before the step: the host knows what it has uploaded. Nothing is read, and no weight has changed."""
    loader = noise(8, 4)
    loader.dataset.tensors[1][5] = wrong
    model, reads = Net(), Reads()
    fake.syncs.reset()
    with pytest.raises(LabelError, match=f"{wrong}"):
        Trainer(max_epochs=1, accelerator=device, callbacks=reads, **quiet).fit(model, loader)
    assert len(reads.counts) == 2, "it is in the second batch"
    assert reads.within == [0]
    assert fake.syncs.count == 0
    assert not any(np.isnan(host(p)).any() for p in model.parameters())


def test_a_label_out_of_range_in_a_loop_written_by_hand():
    fake.syncs.reset()
    with pytest.raises(LabelError):
        F.cross_entropy(minidl.zeros(2, 3).to("fake"), minidl.tensor([0, 3]).to("fake"))
    with pytest.raises(LabelError):
        F.nll_loss(minidl.zeros(2, 3).to("fake"), minidl.tensor([0, 3]).to("fake"))
    assert fake.syncs.calls == []


# -- checkpoints -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("first", "second"), [("fake", "cpu"), ("cpu", "fake")])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_goes_on_from_the_checkpoint_of_another_device(quiet, tmp_path, optimizer, first, second):
    """As one that stayed where it was: weights, the optimizer's memory, the best weights, batches and dropout."""
    def callbacks(folder):
        return [EarlyStopping("val_loss", patience=9, restore_best_weights=True), ModelCheckpoint(folder, save_last=True)]

    def run(device, epochs, folder, ckpt_path=None):
        minidl.manual_seed(2)
        trainer = Trainer(max_epochs=epochs, accelerator=device, callbacks=callbacks(tmp_path / folder), **{**quiet, "enable_checkpointing": True})
        model = Net(optimizer)
        trainer.fit(model, digits(48, 16), noise(20, 10), ckpt_path=ckpt_path)
        assert {t.device.type for t in tensors_in(model.state_dict())} == {device}
        memory = trainer.optimizers[0].state_dict()["state"]
        assert {t.device.type for t in tensors_in(memory)} == {device}
        assert tensors_in(memory)
        return trainer.history, numbers_of(model.state_dict()), numbers_of(memory)

    run(first, 1, "moved")
    moved = run(second, 3, "moved", tmp_path / "moved" / "last.ckpt")
    stayed = run(second, 3, "stayed")
    for ours, theirs in zip(moved[0], stayed[0], strict=True):
        assert {**ours, "seconds": 0} == pytest.approx({**theirs, "seconds": 0}, abs=1e-4)
    for ours, theirs in zip(moved[1:], stayed[1:], strict=True):
        assert repr(ours.keys()) == repr(theirs.keys())
        for one, other in zip(tensors_of(ours), tensors_of(theirs), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def tensors_of(numbers):
    parts = numbers.values() if isinstance(numbers, dict) else [numbers]
    return [part for each in parts for part in (tensors_of(each) if isinstance(each, dict) else [each])]


@pytest.mark.parametrize(("first", "second"), [("fake", "cpu"), ("cpu", "fake")])
def test_weights_and_memory_move_bit_for_bit(tmp_path, first, second):
    """With save and load, by hand; and the next step there is the one that would have come here."""
    minidl.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3)).to(first)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    x, labels = minidl.randn(6, 4), minidl.arange(6) % 3

    def step(model, optimizer, place):
        optimizer.zero_grad()
        F.cross_entropy(model(x.to(place)), labels.to(place)).backward()
        optimizer.step()

    step(model, optimizer, first)
    minidl.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "both.safetensors")
    for map_location in (None, first, second):
        saved = minidl.load(tmp_path / "both.safetensors", map_location=map_location)
        assert {t.device.type for t in tensors_in(saved)} == {map_location or "cpu"}
        twin = nn.Sequential(nn.Linear(4, 3, bias=False), nn.BatchNorm1d(3)).to(second)
        its_optimizer = optim.Adam(twin.parameters(), lr=0.5)
        twin.load_state_dict(saved["model"])
        its_optimizer.load_state_dict(saved["optimizer"])
        np.testing.assert_equal(numbers_of(twin.state_dict()), numbers_of(model.state_dict()))
        np.testing.assert_equal(numbers_of(its_optimizer.state_dict()), numbers_of(optimizer.state_dict()))
        assert {t.device.type for t in tensors_in([twin.state_dict(), its_optimizer.state_dict()])} == {second}
        step(twin, its_optimizer, second)
    step(model, optimizer, first)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(host(ours), host(theirs), rtol=1e-5, atol=1e-6)


def test_a_model_comes_from_a_checkpoint_onto_the_device_that_is_asked_for(quiet, tmp_path):
    trainer = Trainer(max_steps=1, accelerator="fake", **quiet)
    model = Net("SGD")
    trainer.fit(model, noise(8, 4))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    for map_location, expected in ((None, "cpu"), ("cpu", "cpu"), ("fake", "fake"), (minidl.device("fake"), "fake")):
        twin = Net.load_from_checkpoint(tmp_path / "a.ckpt", map_location=map_location)
        assert {t.device.type for t in tensors_in(twin.state_dict())} == {expected}
        assert twin.hparams.optimizer == "SGD"
        np.testing.assert_equal(numbers_of(twin.state_dict()), numbers_of(model.state_dict()))


def test_a_model_may_move_between_two_runs(quiet):
    model = Net()
    for device in ("fake", "cpu", "fake"):
        trainer = Trainer(max_steps=2, accelerator=device, **quiet)
        trainer.fit(model, noise(8, 4))
        assert model.device.type == device
        assert trainer.validate(model, noise(8, 4), verbose=False)[0]["val_loss"] < 4


def test_copies_stay_where_they_are():
    model = nn.Linear(2, 2).to("fake")
    optimizer = optim.Adam(model.parameters())
    model(minidl.ones(1, 2, device="fake")).sum().backward()
    optimizer.step()
    for original in (model, optimizer):
        assert {t.device.type for t in tensors_in(copy.deepcopy(original).state_dict())} == {"fake"}


# -- no mixing up ------------------------------------------------------------------------------------------------------

def here(*shape):
    return minidl.ones(*shape)


def there(*shape):
    return minidl.ones(*shape, device="fake")


LABELS = minidl.tensor([0, 1])

MIXED = {
    "add": lambda: there(3) + here(3), "a number in a tensor": lambda: there(3) * minidl.tensor(2.0), "numpy": lambda: there(3) - np.ones(3),
    "in place": lambda: there(3).add_(here(3)), "+=": lambda: here(3).__iadd__(there(3)), "matmul": lambda: there(2, 2) @ here(2, 2),
    "compare": lambda: there(3) == here(3), "allclose": lambda: minidl.allclose(there(3), here(3)),
    "cat": lambda: minidl.cat([there(3), here(3)]), "stack": lambda: minidl.stack([here(3), there(3)]),
    "where": lambda: minidl.where(here(3) > 0, there(3), there(3)), "masked_fill": lambda: there(3).masked_fill(here(3) > 0, 0.0),
    "gather": lambda: there(3).gather(0, LABELS), "scatter_add": lambda: here(3).scatter_add(0, LABELS.to("fake"), there(2)),
    "x[i] = value": lambda: there(3).__setitem__(0, here(1)[0]), "clamp": lambda: there(3).clamp(min=here(3)),
    "einsum": lambda: minidl.einsum("i,i->", there(3), here(3)), "lerp": lambda: minidl.lerp(there(3), there(3), here(3)),
    "a layer": lambda: nn.Linear(3, 2)(there(2, 3)), "a convolution": lambda: nn.Conv2d(1, 1, 3).to("fake")(here(1, 1, 4, 4)),
    "batch norm": lambda: nn.BatchNorm2d(1)(there(2, 1, 3, 3)), "its buffers": lambda: F.batch_norm(there(2, 1, 3, 3), here(1), here(1)),
    "a fused model": lambda: minidl.fuse(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))(there(1, 1, 5, 5)),
    "mse": lambda: F.mse_loss(there(3), here(3)), "nll": lambda: F.nll_loss(there(2, 3), LABELS),
    "weights of classes": lambda: F.cross_entropy(there(2, 3), LABELS.to("fake"), weight=here(3)),
    "bce": lambda: F.binary_cross_entropy_with_logits(there(2), here(2)), "cosine": lambda: F.cosine_similarity(here(2, 2), there(2, 2)),
    "a distribution": lambda: minidl.distributions.Normal(here(2), here(2)).log_prob(there(2)),
    "x.grad": lambda: setattr(here(3).requires_grad_(), "grad", there(3)), "np.asarray": lambda: np.asarray(there(3)),
    "one vector of parameters": lambda: nn.utils.parameters_to_vector([here(2), there(2)]),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_operands_on_two_devices_are_an_error_that_names_both(mix):
    fake.syncs.reset()
    with pytest.raises(MinidlError) as error:
        mix()
    assert "fake" in str(error.value)
    assert "cpu" in str(error.value).lower()
    assert fake.syncs.count == 0


def left_behind(optimizer):
    """An optimizer that has taken a step before its model moved on: its memory is where the model was."""
    model = nn.Linear(2, 2)
    chosen = OPTIMIZERS[optimizer](model.parameters())
    for device in DEVICES:
        model.to(device)
        model(minidl.ones(1, 2, device=device)).sum().backward()
        chosen.step()


def gradient_elsewhere():
    x = here(3).requires_grad_()
    minidl.autograd.grad(x * 2, x, there(3))


@pytest.mark.parametrize("mix", [
    lambda: F.cross_entropy(there(2, 3), LABELS), lambda: F.cross_entropy(here(2, 3), LABELS.to("fake")), gradient_elsewhere,
    lambda: here(3)[LABELS.to("fake")], lambda: nn.Embedding(3, 2)(LABELS.to("fake")), lambda: minidl.add(here(2), here(2), out=there(2)),
    *(lambda optimizer=optimizer: left_behind(optimizer) for optimizer in OPTIMIZERS)],
    ids=["labels on the CPU", "labels on the device", "grad_outputs", "indices on the device", "embedding", "out=", *OPTIMIZERS])
def test_what_stands_beside_an_operand_too(mix):
    test_operands_on_two_devices_are_an_error_that_names_both(mix)


def test_a_tensor_made_from_one_stays_on_its_device():
    assert minidl.tensor(there(2)).device == minidl.device("fake")
    assert minidl.tensor(there(2), device="cpu").device == minidl.device("cpu")
    assert minidl.tensor(there(2)).tolist() == there(2).tolist()


@pytest.mark.parametrize("pick", [
    lambda x: x[[0, 3]], lambda x: x[LABELS.new_tensor([0, 3])], lambda x: x[:, [-5, 0]], lambda x: x[..., np.array([4])], lambda x: x[None, [1, 9]],
    lambda x: x[minidl.ones(3, dtype=minidl.bool, device="fake"), [0, 1, 4]], lambda x: x[1, [0, 7]], lambda x: x.__setitem__(([0, 3],), 1.0),
    lambda x: x.__setitem__((1, [0, 7]), 1.0), lambda x: x.gather(0, minidl.tensor([[3, 0, 0, 0]]).to("fake")),
    lambda x: x.index_select(1, minidl.tensor([0, 4]).to("fake"))])
def test_an_index_beyond_the_end_that_the_host_knows_is_an_error(pick):
    """A GPU goes on from the other end, and so does `fake`."""
    x = there(3, 4)
    fake.syncs.reset()
    with pytest.raises((IndexError, LabelError), match="got the index"):
        pick(x)
    assert set(fake.syncs.calls) <= {"mask"}


def test_more_index_arrays_than_axes_are_the_same_error_as_on_the_cpu():
    for device in DEVICES:
        x = minidl.zeros(3, 4, device=device)
        with pytest.raises(IndexError, match="too many indices"):
            x[[0], [1], [2]]
        with pytest.raises(IndexError, match="too many indices"):
            x[[0], [1], [2]] = 1.0


def test_an_index_that_only_the_device_knows_goes_on_from_the_other_end():
    x, index = minidl.arange(5, device="fake"), minidl.tensor([1, 3]).to("fake") * 2
    assert x[index].tolist() == [2, 1]
    assert x[minidl.tensor([1, -1]).to("fake")].tolist() == [1, 4]


def test_a_label_that_only_the_device_knows_makes_the_loss_nan():
    scores, labels = there(3, 3).log_softmax(1), minidl.tensor([0, 2, -100]).to("fake") * 1
    assert F.nll_loss(scores, labels, reduction="none").isnan().tolist() == [False, False, False]
    labels = minidl.tensor([0, 7, -100]).to("fake") * 1
    assert F.nll_loss(scores, labels, reduction="none").isnan().tolist() == [False, True, False]
    assert F.cross_entropy(scores, labels, reduction="none").isnan().tolist() == [False, True, False]
