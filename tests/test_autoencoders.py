"""The two autoencoders, and what the labs on them share: the same numbers as PyTorch's, and nothing is trained twice."""

from __future__ import annotations

import argparse
import io
import math
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from labs import _autoencoders, _classifier, _speed_worker
from labs._arguments import parse
from labs._autoencoders import VARIANTS, GaussianNoise, Reconstruction, Snapshots, fitted, settings_of, variants
from minidl import nn, optim
from minidl.errors import MinidlError, SettingError, ShapeError
from minidl.models import Autoencoder, conv_autoencoder, dense_autoencoder
from minidl.train import checkpoint as checkpoints

MAKERS = {"dense": dense_autoencoder, "conv": conv_autoencoder}
PARAMETERS = {"dense": 468_368, "conv": 3_221}
CODES = {"dense": (128,), "conv": (4, 7, 7)}
MEAN, STD = 0.5, 0.25
PIXELS = np.random.default_rng(0).random((60, 1, 8, 8), np.float32)
IMAGES = minidl.from_numpy((PIXELS - MEAN) / STD)
EPOCH = 3                                                                   # steps in it: 48 images, 16 at a time


class FakeLab:
    """As much of a Lab as `fitted` asks for."""

    def __init__(self, folder=None, device="cpu", **settings):
        self.args = SimpleNamespace(**{"dataset": "digits", "retrain": False, "epochs": 2, "batch_size": 16, "seed": 0,
                                       "optimizer": "adam", "lr": None, "tensorboard": False, "train_size": 60,
                                       **settings})
        self.out, self.device, self.said = folder, device, []

    def say(self, text):
        self.said.append(text)


def settings_for(name, shape=(1, 8, 8), **settings):
    return settings_of(FakeLab(dataset="digits" if shape[1] == 8 else "mnist", **settings), name, shape)


def alone(model):
    """The model without a Trainer, and the dict that gets what it logs."""
    logged = {}
    model.log = lambda name, value, **how: logged.update({name: float(value)})
    model.log_dict = lambda values, **how: logged.update({name: float(value) for name, value in values.items()})
    return model, logged


# -- the models --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("form", MAKERS)
def test_parameters_codes_and_reconstructions(form):
    network = MAKERS[form]()
    assert isinstance(network, Autoencoder)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[form]
    images = minidl.randn(3, 1, 28, 28)
    code = network.encoder(images)
    assert code.shape == (3, *CODES[form])
    assert code.min() == 0, "ReLU is the last of the encoder"
    assert network(images).shape == images.shape
    assert network(images).min() < 0, "and no activation that of the decoder"
    np.testing.assert_array_equal(network(images).detach().numpy(), network.decoder(code).detach().numpy())


@pytest.mark.parametrize(("form", "workload"), [("dense", "W2"), ("conv", "W3")])
def test_they_are_those_that_labs_speed_measures(form, workload):
    measured = _speed_worker.WORKLOADS[workload].model(nn)
    mine = MAKERS[form]().state_dict().values()
    assert [tensor.shape for tensor in mine] == [tensor.shape for tensor in measured.state_dict().values()]
    assert [name.split(".")[-1] for name in MAKERS[form]().state_dict()] == \
        [name.split(".")[-1] for name in measured.state_dict()]


@pytest.mark.parametrize(("make", "shape", "code"), [
    (conv_autoencoder, (3, 12, 20), (4, 3, 5)), (conv_autoencoder, (1, 8, 8), (4, 2, 2)),
    (lambda shape: dense_autoencoder(shape, hidden=32, code=16), (1, 8, 8), (16,)),
    (lambda shape: dense_autoencoder(shape, hidden=5, code=1), (3, 5, 7), (1,))])
def test_images_of_other_sizes(make, shape, code):
    network, images = make(shape), minidl.randn(2, *shape)
    assert network.encoder(images).shape == (2, *code)
    assert network(images).shape == images.shape


def pytorchs(form, torch):
    """The same from PyTorch's layers, (encoder, decoder): the network that labs.speed compares with, cut in two."""
    whole = getattr(_speed_worker, f"{form}_autoencoder")(torch.nn)
    if form == "conv":
        encoder, decoder = whole[:8], whole[8:]
    else:
        encoder = torch.nn.Sequential(torch.nn.Flatten(), *whole[:4])
        decoder = torch.nn.Sequential(*whole[4:], torch.nn.Unflatten(1, (1, 28, 28)))
    return encoder.double(), decoder.double()


@pytest.mark.torch
@pytest.mark.parametrize("name", ["dense", "dense_sparse", "conv", "conv_sparse"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_twenty_steps_are_pytorchs(name, optimizer, torch, rng):
    """The lab's own training step and optimizer, in float64; SGD's rate is a tenth where codes are sparse."""
    model, logged = alone(Reconstruction(settings_for(name, (1, 28, 28), optimizer=optimizer)).double())
    encoder, decoder = pytorchs(name.partition("_")[0], torch)
    theirs = [*encoder.parameters(), *decoder.parameters()]
    assert sum(parameter.numel() for parameter in theirs) == PARAMETERS[name.partition("_")[0]]
    with torch.no_grad():
        for mine, other in zip(model.parameters(), theirs, strict=True):
            other.copy_(torch.tensor(mine.detach().numpy()))
    step = model.configure_optimizers()
    if optimizer == "adam":
        other_step = torch.optim.Adam(theirs, lr=1e-3)
    else:
        other_step = torch.optim.SGD(theirs, lr=1e-3 if "sparse" in name else 1e-2, momentum=0.99)
    batches = rng.normal(size=(4, 4, 1, 28, 28))
    losses = []
    for i in range(20):
        images, other_images = minidl.tensor(batches[i % 4]), torch.tensor(batches[i % 4])
        loss = model.training_step((images,), i)
        step.zero_grad()
        loss.backward()
        step.step()
        code = encoder(other_images)
        error = torch.nn.functional.mse_loss(decoder(code), other_images)
        expected = error + 0.5 * (code - 0.05).abs().mean() if "sparse" in name else error
        other_step.zero_grad()
        expected.backward()
        other_step.step()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-8)
        assert logged["train_loss"] == pytest.approx(error.item(), rel=1e-8), "without the second term"
        assert logged["train_sparsity"] == pytest.approx((code - 0.05).abs().mean().item(), rel=1e-8)
        losses.append(loss.item())
    assert abs(losses[19] - losses[3]) > 1e-3, "of the same images: the steps are no small ones"
    for mine, other in zip(model.parameters(), theirs, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-8, atol=1e-8)
    with minidl.no_grad(), torch.no_grad():
        code = encoder(other_images)
        np.testing.assert_allclose(model.network.encoder(images).numpy(), code.numpy(), rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(model.network(images).numpy(), decoder(code).numpy(), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("wrong", "error", "sentence"), [
    (lambda: dense_autoencoder((28, 28)), ShapeError, "dense_autoencoder: got image_shape=(28, 28), expected (C, H, W)"),
    (lambda: dense_autoencoder([1, 0, 8]), ShapeError, "dense_autoencoder: got image_shape=(1, 0, 8), expected (C, H, W)"),
    (lambda: dense_autoencoder(hidden=0), SettingError, "dense_autoencoder: got hidden=0 and code=128, expected at least one unit in each"),
    (lambda: dense_autoencoder(code=-1), SettingError, "dense_autoencoder: got hidden=256 and code=-1, expected at least one unit in each"),
    *((lambda shape=shape: conv_autoencoder(shape), ShapeError,
       f"conv_autoencoder: got image_shape={shape}, expected (C, H, W) with H and W multiples of 4, which two poolings halve and two "
       f"upsamplings double") for shape in [(28, 28), (0, 28, 28), (1, 30, 28), (1, 28, 30), (1, 28, 28, 1), (1, 0, 4)])])
def test_wrong_shapes_are_one_sentence(wrong, error, sentence):
    with pytest.raises(error) as caught:
        wrong()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("form", MAKERS)
def test_images_of_another_shape_are_one_sentence(form):
    with pytest.raises(ShapeError) as caught:
        MAKERS[form]()(minidl.zeros(2, 3, 28, 28))
    assert "\n" not in str(caught.value)
    assert "got" in str(caught.value)
    assert "expect" in str(caught.value)
    assert str(caught.value).startswith("encoder."), "the layer is named"


# -- what is trained ---------------------------------------------------------------------------------------------------

def test_the_noise_has_mean_0_and_the_deviation_that_was_asked_for():
    noise, x = GaussianNoise(0.5), minidl.full((200_000,), 3.0)
    added = noise(x) - 3
    assert float(added.mean()) == pytest.approx(0, abs=4 * 0.5 / math.sqrt(200_000))
    assert float(added.std()) == pytest.approx(0.5, rel=0.01)
    assert (noise(x) != noise(x)).any(), "new noise each time"
    assert noise.eval()(x) is x


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_what_its_name_says(name):
    model = Reconstruction(settings_for(name))
    code = model.network.encoder(minidl.rand(1, 1, 8, 8))
    assert code.shape == ((1, 16) if name.startswith("dense") else (1, 4, 2, 2))
    kinds = {"denoising": GaussianNoise, "dropout": nn.Dropout}
    kind = next((kinds[word] for word in name.split("_") if word in kinds), nn.Identity)
    assert type(model.noise) is kind
    assert kind is not GaussianNoise or model.noise.std == 0.5
    assert kind is not nn.Dropout or model.noise.p == 0.5
    assert model.is_sparse == name.endswith("_sparse")
    assert model.hparams == settings_for(name), "which checkpoints keep"


@pytest.mark.parametrize("name", VARIANTS)
def test_the_target_is_the_clean_image(name):
    """Encoder and decoder change nothing here, so that the error is the noise alone."""
    model, logged = alone(Reconstruction(settings_for(name)))
    model.network.encoder, model.network.decoder = nn.Identity(), nn.Identity()
    images = minidl.full((500, 1, 8, 8), 3.0)
    before = images.clone()
    loss = float(model.training_step((images,), 0))
    assert (images == before).all()
    if VARIANTS[name].noise == "gaussian":
        assert logged["train_loss"] == pytest.approx(0.5**2, rel=0.03)
    else:                                                                   # dropout makes 0 or twice the pixel of it
        assert logged["train_loss"] == pytest.approx(9 if VARIANTS[name].noise == "dropout" else 0)
    assert logged["train_sparsity"] == pytest.approx(2.95, rel=0.03), "of the codes, which are the noisy pixels here"
    added = 0.5 * logged["train_sparsity"] if VARIANTS[name].is_sparse else 0
    assert loss == pytest.approx(logged["train_loss"] + added, rel=1e-6)
    model.validation_step((images,), 0)
    assert logged["val_loss"] == 0, "without noise, and without the second term"


@pytest.mark.parametrize("name", ["dense", "conv_denoising_sparse"])
def test_validation_is_the_error_of_the_clean_images(name):
    model, logged = alone(Reconstruction(settings_for(name)))
    images = minidl.rand(6, 1, 8, 8)
    model.validation_step((images,), 0)
    assert logged == {"val_loss": pytest.approx(float(F.mse_loss(model.network(images), images)))}


@pytest.mark.parametrize(("settings", "kind", "lr"), [
    ({}, optim.Adam, 1e-3), ({"lr": 0.02}, optim.Adam, 0.02),
    ({"optimizer": "sgd"}, optim.SGD, 1e-2), ({"optimizer": "sgd", "lr": 0.3}, optim.SGD, 0.3)])
def test_the_optimizer_is_that_of_the_settings(settings, kind, lr):
    model = Reconstruction(settings_for("conv", (1, 28, 28), **settings))
    optimizer = model.configure_optimizers()
    group, = optimizer.param_groups
    assert type(optimizer) is kind
    assert group["lr"] == lr
    assert group.get("momentum") == (0.99 if kind is optim.SGD else None)
    assert group.get("betas", (0.9, 0.999)) == (0.9, 0.999)
    assert group["weight_decay"] == 0
    assert list(map(id, group["params"])) == list(map(id, model.parameters()))


# -- arguments and settings --------------------------------------------------------------------------------------------

def test_names_of_variants():
    assert variants("all") == list(VARIANTS)
    assert variants("conv") == ["conv"]
    assert variants("conv,dense_sparse,conv,dense") == ["conv", "dense_sparse", "dense"]
    for wrong, name in (("convolutional", "convolutional"), ("dense,", ""), ("dense, conv", " conv"), ("conv,all", "all"), ("", "")):
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            variants(wrong)
        assert str(caught.value) == f"got {name!r}, expected all, or one or more of {', '.join(list(VARIANTS)[:-1])} or conv_denoising_sparse"


def test_the_command_line(capsys):
    def parsed(*argv):
        return parse("autoencoders", "about", ["digits"], {"quick": {}}, {}, {"optimizer": "adam"}, _autoencoders.add_arguments, argv)[0]

    args = parsed()
    assert (args.models, args.optimizer, args.lr, args.test_size) == (list(VARIANTS), "adam", None, None)
    assert not args.retrain
    assert not args.tensorboard
    args = parsed("--models", "conv,dense", "--optimizer=sgd", "--lr=.02", "--test-size=7", "--retrain", "--tensorboard")
    assert (args.models, args.optimizer, args.lr, args.test_size) == (["conv", "dense"], "sgd", 0.02, 7)
    assert args.retrain
    assert args.tensorboard
    for argument, value in (("--models", "deep"), ("--lr", "0"), ("--optimizer", "rmsprop"), ("--test-size", "0")):
        with pytest.raises(SystemExit, match="2"):
            parsed(argument, value)
        said = capsys.readouterr().err
        assert said.startswith(f"error: argument {argument}: ")
        assert said.endswith("--help shows all arguments\n")
        assert said.count("\n") == 1


@pytest.mark.parametrize(("name", "optimizer", "asked", "of_digits", "of_mnist"), [
    ("dense", "adam", None, 2e-3, 1e-3), ("conv_denoising", "adam", None, 2e-3, 1e-3), ("conv_sparse", "adam", None, 1e-3, 1e-3),
    ("dense", "sgd", None, 1e-2, 1e-2), ("conv_dropout", "sgd", None, 1e-2, 1e-2), ("dense_denoising_sparse", "sgd", None, 1e-3, 1e-3),
    ("dense", "sgd", 0.5, 0.5, 0.5), ("dense_sparse", "sgd", 0.5, 0.5, 0.5), ("conv", "adam", 0.5, 0.5, 0.5)])
def test_learning_rates(name, optimizer, asked, of_digits, of_mnist):
    assert settings_for(name, optimizer=optimizer, lr=asked)["lr"] == of_digits
    assert settings_for(name, (1, 28, 28), optimizer=optimizer, lr=asked)["lr"] == of_mnist


def test_all_settings():
    assert settings_for("dense_sparse", seed=3) == {
        "variant": "dense_sparse", "image_shape": [1, 8, 8], "hidden": 32, "code": 16, "optimizer": "adam", "lr": 0.001,
        "batch_size": 16, "dataset": "digits", "train_size": 60, "seed": 3}
    large = settings_for("dense", (1, 28, 28))
    assert (large["hidden"], large["code"], large["dataset"]) == (256, 128, "mnist")
    network = _autoencoders.network_of("dense", large)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS["dense"]
    assert _autoencoders.network_of("dense", settings_for("dense")).encoder(minidl.rand(2, 1, 8, 8)).shape == (2, 16)
    assert _autoencoders.network_of("conv", large).encoder(minidl.rand(2, 1, 28, 28)).shape == (2, 4, 7, 7)


def test_networks_with_random_weights():
    """Those that a trained one is compared with: each seed draws its own, whatever was drawn before."""
    def weights(seed, device="cpu", form="dense"):
        minidl.rand(seed + 3)
        network = _autoencoders.untrained(FakeLab(device=device), form, (1, 8, 8), seed)
        assert {str(parameter.device) for parameter in network.parameters()} == {device}
        return next(iter(network.parameters())).detach().cpu().numpy()

    np.testing.assert_array_equal(weights(1), weights(1, "fake"))
    assert (weights(1) != weights(2)).all()
    assert weights(1).shape == (32, 64)
    assert weights(1, form="conv").shape == (16, 1, 3, 3)


def test_the_images_are_split_and_normalised_by_those_of_the_training():
    lab = FakeLab(seed=4)
    pixels, labels = minidl.from_numpy(PIXELS), minidl.arange(60)
    lab.images = lambda train: (pixels, labels) if train else (pixels[:5] / 2, labels[:5])
    data = _autoencoders.data_of(lab)
    first, second = _classifier.split(60, 4)
    assert data.labels.tolist() == first.tolist()
    assert data.validation_labels.tolist() == second.tolist()
    assert (len(first), len(second), data.test_labels.tolist()) == (48, 12, [0, 1, 2, 3, 4])
    assert (data.mean, data.std) == _autoencoders.mean_and_std(pixels[first], "digits") != _autoencoders.mean_and_std(pixels, "digits")
    for images, expected in ((data.training, PIXELS[first.numpy()]), (data.validation, PIXELS[second.numpy()]), (data.test, PIXELS[:5] / 2)):
        np.testing.assert_allclose(images.numpy() * data.std + data.mean, expected, atol=1e-6)
    assert float(data.training.mean()) == pytest.approx(0, abs=1e-5)
    assert float(data.training.std()) == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(data.pixels, PIXELS[:5] / 2)
    lab.args.dataset = "fashion-mnist"
    data = _autoencoders.data_of(lab)
    np.testing.assert_allclose(data.test.numpy(), (PIXELS[:5] / 2 - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)


def test_how_long_it_is_said_to_take():
    """In proportion to epochs and images, and convolutions take longer."""
    def seconds(models, **settings):
        args = argparse.Namespace(**{"models": models, "dataset": "mnist", "epochs": 2, "train_size": 1000, "batch_size": 10, **settings})
        return _autoencoders.training_seconds(args)

    assert 0 < seconds(["dense"]) < seconds(["conv"])
    assert seconds(["dense", "conv"]) == pytest.approx(seconds(["dense"]) + seconds(["conv_sparse"]))
    assert seconds(["conv"], epochs=6) == pytest.approx(3 * seconds(["conv"])) == pytest.approx(seconds(["conv"], train_size=3000))
    assert seconds(["conv"], dataset="digits") < seconds(["conv"])


def test_mean_and_standard_deviation():
    images = minidl.tensor([0.0, 0.5, 0.5, 1.0]).reshape(1, 1, 2, 2)
    mean, std = _autoencoders.mean_and_std(images, "digits")
    assert (mean, std) == pytest.approx((0.5, math.sqrt(0.5 / 3)))
    assert {type(mean), type(std)} == {float}
    for dataset in ("mnist", "fashion-mnist"):
        assert _autoencoders.mean_and_std(images, dataset) == (0.1307, 0.3081)


# -- a network is trained once -----------------------------------------------------------------------------------------

@pytest.fixture(autouse=True)
def of_other_lab(tmp_path, monkeypatch):
    """The folder of labs.autoencoders, empty here."""
    monkeypatch.setattr(_autoencoders, "OF_LABS_AUTOENCODERS", tmp_path / "of_other_lab")
    return tmp_path / "of_other_lab"


@pytest.fixture
def steps(monkeypatch):
    """The list that grows by one with each step of training."""
    taken, step = [], Reconstruction.training_step

    def counted(model, batch, batch_idx):
        taken.append(len(batch[0]))
        return step(model, batch, batch_idx)

    monkeypatch.setattr(Reconstruction, "training_step", counted)
    return taken


def fit(folder, name="conv_denoising_sparse", count=48, device="cpu", **settings):
    """`fitted` in a folder; by default the one with most that is drawn: the weights, the order, the noise."""
    return fitted(FakeLab(folder, device, train_size=count + 12, **settings), name, IMAGES[:count], IMAGES[48:], MEAN, STD)


def assert_same(trained, other):
    """Weights, history and snapshots to the bit, and the same place in the stream of random numbers was reached."""
    weights = trained.network.state_dict()
    for name, tensor in other.network.state_dict().items():
        np.testing.assert_array_equal(weights[name].numpy(), tensor.numpy())
    without_seconds = [[{name: x for name, x in row.items() if name != "seconds"} for row in one.history] for one in (trained, other)]
    assert without_seconds[0] == without_seconds[1]
    assert trained.val_loss == other.val_loss
    assert list(trained.snapshots) == list(other.snapshots)
    for epoch, images in other.snapshots.items():
        np.testing.assert_array_equal(trained.snapshots[epoch].numpy(), images.numpy())
    assert not trained.network.training


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def checkpoint_in(folder, name):
    return folder / _autoencoders.checkpoint_folder(settings_for(name)) / "last.ckpt"


def epochs_in(folder, name="conv_denoising_sparse"):
    path, = folder.glob(f"checkpoints/*/{name}/last.ckpt")
    return checkpoints.read(path)["epoch"]


def test_what_a_run_gives(tmp_path, steps):
    trained = fit(tmp_path, epochs=3)
    assert steps == [16] * 3 * EPOCH
    assert not trained.network.training
    assert [row["epoch"] for row in trained.history] == [0, 1, 2]
    assert trained.history[0].keys() == {"epoch", "train_loss", "train_sparsity", "val_loss", "seconds"}
    with minidl.no_grad():
        error = float(F.mse_loss(trained.network(IMAGES[48:]), IMAGES[48:]))
    assert trained.val_loss == [row["val_loss"] for row in trained.history]
    assert trained.val_loss[-1] == pytest.approx(error, rel=1e-5), "the weights are those of the last epoch"
    assert trained.val_loss[-1] < trained.val_loss[0]
    assert list(trained.snapshots) == [1, 3]
    np.testing.assert_allclose(trained.snapshots[3].numpy(), trained.network(IMAGES[48:56]).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert [str(path.relative_to(tmp_path)) for path in files_of(tmp_path)] == [
        "checkpoints/digits-60-adam-0.001-batch-16-seed-0/conv_denoising_sparse/last.ckpt"]


def test_each_epoch_has_all_images_in_an_order_of_its_own(tmp_path, monkeypatch):
    seen, step = [], Reconstruction.training_step
    monkeypatch.setattr(Reconstruction, "training_step", lambda model, batch, batch_idx: (
        seen.extend(batch[0][:, 0, 0, 0].tolist()), step(model, batch, batch_idx))[1])
    fit(tmp_path, "dense")
    first, second, expected = seen[:48], seen[48:], IMAGES[:48, 0, 0, 0].tolist()
    assert sorted(first) == sorted(second) == sorted(expected)
    assert first != second != expected != first


@pytest.mark.parametrize("name", ["dense_dropout", "conv_denoising_sparse"])
def test_a_finished_network_is_taken_as_it_is(name, tmp_path, steps):
    trained, drawn = fit(tmp_path, name), minidl.rand(3)
    before, count = files_of(tmp_path), len(steps)
    minidl.manual_seed(9)
    again, drawn_again = fit(tmp_path, name), minidl.rand(3)
    assert len(steps) == count == 2 * EPOCH
    assert_same(again, trained)
    assert again.history == trained.history, "with the seconds that it took"
    assert (drawn == drawn_again).all(), "what a lab draws afterwards is the same"
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["dense_dropout", "conv_denoising_sparse"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_shorter_run_is_gone_on_from_as_if_it_had_not_stopped(name, optimizer, tmp_path, steps):
    straight, drawn = fit(tmp_path / "straight", name, epochs=6, optimizer=optimizer), minidl.rand(3)
    fit(tmp_path / "halves", name, epochs=3, optimizer=optimizer)
    steps.clear()
    minidl.manual_seed(9)
    whole = fit(tmp_path / "halves", name, epochs=6, optimizer=optimizer)
    assert len(steps) == 3 * EPOCH
    assert_same(whole, straight)
    assert (drawn == minidl.rand(3)).all()
    assert list(whole.snapshots) == [1, 5, 6]
    assert epochs_in(tmp_path / "halves", name) == 6


@pytest.mark.parametrize("other", [{"seed": 1}, {"lr": 0.01}, {"optimizer": "sgd"}, {"batch_size": 8}, {"dataset": "mnist"}, {"count": 40},
                                   {"retrain": True}, {"retrain": True, "epochs": 1}])
def test_it_is_trained_anew_if_it_would_be_another_one(other, tmp_path, steps):
    first = fit(tmp_path / "twice")
    before, expected = files_of(tmp_path / "twice"), fit(tmp_path / "once", **other)
    steps.clear()
    trained = fit(tmp_path / "twice", **other)
    size = other.get("batch_size", 16)
    assert len(steps) == other.get("epochs", 2) * math.ceil(other.get("count", 48) / size)
    assert_same(trained, expected)
    if other == {"retrain": True} or "dataset" in other:                    # of the same images here
        assert_same(trained, first)
    else:
        assert trained.val_loss != first.val_loss
    steps.clear()
    if "retrain" not in other:
        assert files_of(tmp_path / "twice").items() > before.items(), "the first one is still there"
        assert_same(fit(tmp_path / "twice"), first)
    else:
        assert epochs_in(tmp_path / "twice") == other.get("epochs", 2)
    assert_same(fit(tmp_path / "twice", **{**other, "retrain": False}), expected)           # and from now on that one is found
    assert steps == []


def test_a_longer_training_is_not_lost_to_a_shorter_one(tmp_path, steps):
    """Hours of it, perhaps. It needs --retrain, or another folder."""
    fit(tmp_path, "dense")
    before = files_of(tmp_path)
    with pytest.raises(MinidlError, match=r"--epochs: got 1, but .*last\.ckpt holds dense after 2 epochs; use more --epochs"):
        fit(tmp_path, "dense", epochs=1)
    assert files_of(tmp_path) == before
    fit(tmp_path, "dense", epochs=1, retrain=True)
    assert epochs_in(tmp_path, "dense") == 1


def test_it_says_what_it_takes(tmp_path):
    def said(**settings):
        lab = FakeLab(tmp_path, **settings)
        fitted(lab, "dense", IMAGES[:48], IMAGES[48:], MEAN, STD)
        return lab.said

    where = f"dense: the network in {checkpoint_in(tmp_path, 'dense')} is taken, trained for"
    assert said() == []
    assert said() == [f"{where} 2 of 2 epochs."]
    assert said(epochs=3) == [f"{where} 2 of 3 epochs."]
    assert said(epochs=3, tensorboard=True) == [f"{where} 3 of 3 epochs. For TensorBoard use --retrain."]


def test_each_variant_has_a_place_of_its_own(tmp_path, steps):
    for name in ("dense", "dense_sparse"):
        fit(tmp_path, name)
    steps.clear()
    for name in ("dense", "dense_sparse"):
        fit(tmp_path, name)
    assert steps == []


def test_those_of_the_other_lab_are_found_and_left_as_they_are(tmp_path, of_other_lab, steps):
    theirs, straight = fit(of_other_lab), fit(tmp_path / "straight", epochs=4)
    before = files_of(of_other_lab)
    assert len(before) == 1
    steps.clear()
    assert_same(fit(tmp_path / "own"), theirs)
    assert steps == [], "it is finished"
    assert_same(fit(tmp_path / "longer", epochs=4), straight)
    assert len(steps) == 2 * EPOCH
    steps.clear()
    assert_same(fit(tmp_path / "retrained", retrain=True), theirs)
    fit(tmp_path / "other", seed=1)
    fit(tmp_path / "shorter", epochs=1)
    assert len(steps) == (2 + 2 + 1) * EPOCH, "not wanted, of other settings, too long"
    steps.clear()
    assert_same(fit(tmp_path / "other"), theirs)
    assert steps == [], "what the own folder has is of other settings"
    assert files_of(of_other_lab) == before
    assert epochs_in(tmp_path / "longer") == 4


def test_the_one_that_was_trained_longest_is_gone_on_from(tmp_path, of_other_lab, steps):
    straight = fit(tmp_path / "straight", epochs=4)
    fit(tmp_path / "own", epochs=3)
    fit(of_other_lab, epochs=2)
    before = files_of(of_other_lab)
    steps.clear()
    assert_same(fit(tmp_path / "own", epochs=4), straight)
    assert len(steps) == EPOCH
    fit(tmp_path / "mine", epochs=1)
    steps.clear()
    assert_same(fit(tmp_path / "mine", epochs=4), straight)
    assert len(steps) == 2 * EPOCH
    assert files_of(of_other_lab) == before
    fit(of_other_lab, epochs=6)                                             # too long, so that the own one counts
    steps.clear()
    fit(tmp_path / "own", epochs=5)
    assert len(steps) == EPOCH


def wrong_files():
    """What may lie there in place of a checkpoint: (name, whole checkpoint as bytes -> bytes)."""
    def saved(value):
        file = io.BytesIO()
        minidl.save(value, file)
        return file.getvalue()

    def changed(content, **entries):
        return saved({**minidl.load(io.BytesIO(content)), **entries})

    def weights_only(content):
        checkpoint = minidl.load(io.BytesIO(content))
        return saved({name: checkpoint[name] for name in ("epoch", "global_step", "state_dict", "hyper_parameters", "hparams_name")})

    return {"truncated": lambda content: content[:len(content) // 2], "empty": lambda content: b"",
            "text": lambda content: b"not a checkpoint\n" * 20,
            "weights": lambda content: saved(minidl.load(io.BytesIO(content))["state_dict"]), "list": lambda content: saved([1, 2]),
            "weights only": weights_only,
            "of another network": lambda content: changed(content, state_dict=nn.Linear(3, 3).state_dict())}


@pytest.mark.parametrize("kind", wrong_files())
@pytest.mark.parametrize("place", ["own", "of_other_lab"])
def test_a_file_that_is_no_checkpoint_is_one_sentence(kind, place, tmp_path, steps):
    fit(tmp_path / place, "dense")
    path = checkpoint_in(tmp_path / place, "dense")
    path.write_bytes(wrong_files()[kind](path.read_bytes()))
    before = files_of(tmp_path)
    steps.clear()
    with pytest.raises(MinidlError) as caught:
        fit(tmp_path / "own", "dense")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or kind == "of another network"
    assert "--retrain" in str(caught.value) or kind in ("of another network", "weights only")
    assert files_of(tmp_path) == before, "nothing is lost before somebody has looked"
    fit(tmp_path / "own", "dense", retrain=True)
    assert len(steps) == 2 * EPOCH


def test_snapshots_keep_the_first_the_fifth_and_the_last_epoch():
    model = SimpleNamespace(network=dense_autoencoder((1, 8, 8), 8, 4), device="cpu")
    snapshots, kept, expected = Snapshots(IMAGES[:3], MEAN, STD), [], {}
    for epoch in range(8):
        with minidl.no_grad():
            model.network.decoder[2].bias += 1
            expected[epoch + 1] = model.network(IMAGES[:3]).numpy().copy()
        if epoch == 3:                                                      # a run that goes on
            state, snapshots = snapshots.state_dict(), Snapshots(IMAGES[:3], MEAN, STD)
            snapshots.load_state_dict(state)
        snapshots.on_train_epoch_end(SimpleNamespace(current_epoch=epoch, logger=None), model)
        kept.append(list(snapshots.of_epoch))
    assert kept == [[1], [1, 2], [1, 3], [1, 4], [1, 5], [1, 5, 6], [1, 5, 7], [1, 5, 8]]
    for epoch, images in snapshots.of_epoch.items():
        np.testing.assert_allclose(images.numpy(), expected[epoch], rtol=1e-6)


def test_losses_and_reconstructions_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(tmp_path, epochs=2, tensorboard=True)
    fit(tmp_path, epochs=3, tensorboard=True)
    fit(tmp_path, "dense", epochs=1, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "conv_denoising_sparse"), {"images": 0, "scalars": 0})
    events.Reload()
    assert [event.step for event in events.Images("original and reconstruction")] == [1, 2, 3]
    assert {"train_loss", "val_loss"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("val_loss")) == 3
    fit(tmp_path, epochs=1, tensorboard=True, retrain=True)                 # its curves begin anew
    events = EventAccumulator(str(tmp_path / "tensorboard" / "conv_denoising_sparse"), {"images": 0, "scalars": 0})
    events.Reload()
    assert len(events.Scalars("val_loss")) == 1


def test_on_another_device(tmp_path, steps):
    """A device that has memory of its own, as a GPU; a network that was begun there is gone on with here."""
    here, there = fit(tmp_path / "here", epochs=1), fit(tmp_path / "there", device="fake", epochs=1)
    assert {str(parameter.device) for parameter in there.network.parameters()} == {"fake"}
    assert there.val_loss == pytest.approx(here.val_loss, rel=1e-5)
    np.testing.assert_allclose(there.snapshots[1].numpy(), here.snapshots[1].numpy(), rtol=1e-4, atol=1e-5)
    codes = _autoencoders.codes_of(there.network, IMAGES, "fake")
    np.testing.assert_allclose(codes, _autoencoders.codes_of(here.network, IMAGES, "cpu"), rtol=1e-4, atol=1e-5)
    images = _autoencoders.reconstructed(there.network, IMAGES, "fake")
    np.testing.assert_allclose(images.numpy(), _autoencoders.reconstructed(here.network, IMAGES, "cpu").numpy(), rtol=1e-4, atol=1e-5)
    steps.clear()
    whole, straight = fit(tmp_path / "there"), fit(tmp_path / "here")
    assert len(steps) == 2 * EPOCH, "one epoch each"
    np.testing.assert_allclose(whole.val_loss, straight.val_loss, rtol=1e-5)


# -- what is measured --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("device", ["cpu", "fake"])
def test_outputs_come_500_rows_at_a_time(device):
    part = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    part(minidl.randn(50, 3))                                               # batch-norm has something to remember
    part[1].eval()
    sizes = []
    part[0].register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    x = minidl.randn(1201, 3)
    part[2].eval()
    with minidl.no_grad():
        expected = part(x).numpy()
    part[2].train()
    sizes.clear()
    means = part[1].running_mean.numpy().copy()
    part.to(device)
    answers = _classifier.outputs(part, x, device)
    assert sizes == [500, 500, 201]
    assert (part.training, part[0].training, part[1].training, part[2].training) == (True, True, False, True), "as before"
    assert str(answers.device) == "cpu"
    assert not answers.requires_grad
    np.testing.assert_allclose(answers.numpy(), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(part.to("cpu")[1].running_mean.numpy(), means)
    np.testing.assert_allclose(_classifier.predict(part, x).numpy(), answers.softmax(dim=1).numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", MAKERS)
def test_codes_are_flat(form):
    network, images = MAKERS[form](), minidl.randn(3, 1, 28, 28)
    codes = _autoencoders.codes_of(network, images, "cpu")
    assert (codes.shape, codes.dtype) == ((3, math.prod(CODES[form])), np.float32)
    np.testing.assert_allclose(codes, network.encoder(images).detach().numpy().reshape(3, -1), rtol=1e-5, atol=1e-6)
    reconstructed = _autoencoders.reconstructed(network, images, "cpu").numpy()
    np.testing.assert_allclose(reconstructed, network(images).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_pixels_are_cut_off_at_0_and_1():
    images = minidl.tensor([-3.0, -2.0, 0.0, 1.0, 2.0, 2.5]).reshape(1, 1, 2, 3)
    np.testing.assert_allclose(_autoencoders.as_pixels(images, 0.5, 0.25).ravel(), [0, 0, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(_autoencoders.as_pixels(IMAGES, MEAN, STD), PIXELS, atol=1e-6)


def test_the_signal_to_noise_ratio():
    pixels = np.array([[0.0, 0.5], [1.0, 0.25]], np.float32)
    assert _autoencoders.psnr(pixels, pixels + np.float32(0.1)) == pytest.approx(20, abs=1e-5)
    others = np.array([[0.5, 0.5], [1.0, 0.25]], np.float32)                # mean squared error 1/16
    assert _autoencoders.psnr(pixels, others) == pytest.approx(40 * math.log10(2))
    assert _autoencoders.psnr(others, pixels) == _autoencoders.psnr(pixels, others)
    assert _autoencoders.psnr(pixels, pixels) == pytest.approx(120), "as high as it goes, and not infinite"
    assert type(_autoencoders.psnr(pixels, others)) is float
    random = np.random.default_rng(0).random((2, 100_000)).astype(np.float32)
    assert _autoencoders.psnr(*random) == pytest.approx(-10 * np.log10(np.mean((random[0].astype(float) - random[1])**2)), rel=1e-12)
