"""What the two labs on autoencoders share: what is trained, the training step, and networks that are trained once.

`labs.autoencoders` keeps its networks in checkpoints, `labs.autoencoder_applications` takes them from there.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter

import minidl
import minidl.nn.functional as F
from labs import _classifier, _trained
from labs._arguments import either, positive, rate
from labs._lab import Lab
from minidl import Tensor, nn, optim
from minidl.data import DataLoader, TensorDataset
from minidl.errors import MinidlError, SettingError
from minidl.models import Autoencoder, conv_autoencoder, dense_autoencoder
from minidl.train import Callback, LightningModule, ModelCheckpoint, TensorBoardLogger, Trainer
from minidl.train import checkpoint as checkpoints
from minidl.utils import make_grid

NOISE, TARGET, WEIGHT = 0.5, 0.05, 0.5      # noise on a pixel; where codes are pulled to, and how hard
MNISTS = (0.1307, 0.3081)                   # mean and standard deviation of MNIST's pixels, used for Fashion-MNIST too
OF_LABS_AUTOENCODERS = Path("runs", "autoencoders")
FORMS = {"dense": "C0", "conv": "C1"}       # and their colours
EARLY = (1, 5)                              # epochs after which reconstructions are kept


@dataclass(frozen=True)
class Variant:
    """An autoencoder and what it is trained for. noise: "none", "gaussian" or "dropout", on its input in training."""

    form: str                               # "dense" or "conv"
    noise: str = "none"
    is_sparse: bool = False


VARIANTS = {"dense": Variant("dense"), "dense_denoising": Variant("dense", "gaussian"),
            "dense_dropout": Variant("dense", "dropout"), "dense_sparse": Variant("dense", is_sparse=True),
            "dense_denoising_sparse": Variant("dense", "gaussian", True),
            "conv": Variant("conv"), "conv_denoising": Variant("conv", "gaussian"),
            "conv_dropout": Variant("conv", "dropout"), "conv_sparse": Variant("conv", is_sparse=True),
            "conv_denoising_sparse": Variant("conv", "gaussian", True)}

# settings of both labs, so that one takes what the other has trained
SOME = ["dense", "dense_denoising", "conv", "conv_denoising", "conv_sparse"]
QUICK = {"train_size": 10_000, "epochs": 3, "optimizer": "adam", "batch_size": 32, "test_size": 2000, "models": SOME}
FULL = {"train_size": 60_000, "epochs": 150, "optimizer": "sgd", "batch_size": 1024, "test_size": 10_000}
OF_DIGITS = {"train_size": 1347, "epochs": 20, "optimizer": "adam", "batch_size": 32, "test_size": 450,
             "models": list(VARIANTS)}


def in_words(name: str) -> str:
    """The name of a variant as text."""
    return name.replace("_", " ")


# -- the training ------------------------------------------------------------------------------------------------------

class GaussianNoise(nn.Module):
    """x + σ ε,  ε ~ N(0, 1), in training; in evaluation mode x itself."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        return x + self.std * minidl.randn_like(x) if self.training else x


class Reconstruction(LightningModule):
    """An autoencoder that is trained to make the clean image again.

    z = encoder(x + noise),  x̂ = decoder(z),  L = mean (x̂ − x)² [+ 0.5 · mean |z − 0.05|]

    Vincent et al. 2008 for the noise, https://doi.org/10.1145/1390156.1390294. Validation is without noise and without
    the second term, so that val_loss means the same for all. settings: see `settings_of`; kept in checkpoints.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters(settings)
        self.settings, variant = settings, VARIANTS[settings["variant"]]
        self.network = network_of(variant.form, settings)
        noises = {"none": nn.Identity(), "gaussian": GaussianNoise(NOISE), "dropout": nn.Dropout(NOISE)}
        self.noise = noises[variant.noise]
        self.is_sparse = variant.is_sparse

    def training_step(self, batch: tuple[Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch of images (N, C, H, W)."""
        images, = batch
        code = self.network.encoder(self.noise(images))
        error = F.mse_loss(self.network.decoder(code), images)
        sparsity = (code - TARGET).abs().mean()
        loss = error + WEIGHT * sparsity if self.is_sparse else error
        self.log_dict({"train_loss": error, "train_sparsity": sparsity.detach()}, prog_bar=True, on_step=False,
                      on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor], batch_idx: int) -> None:
        """The error alone, of clean images."""
        images, = batch
        self.log("val_loss", F.mse_loss(self.network(images), images), prog_bar=True)

    def configure_optimizers(self) -> optim.Optimizer:
        """Adam, or SGD with much momentum."""
        lr = self.settings["lr"]
        if self.settings["optimizer"] == "adam":
            return optim.Adam(self.parameters(), lr=lr)
        return optim.SGD(self.parameters(), lr=lr, momentum=0.99)


class Snapshots(Callback):
    """Keeps how a few images are reconstructed after the first and the fifth epoch, and now; shows them to TensorBoard.

    images (N, C, H, W), normalised. `of_epoch`: epoch (from 1) -> reconstructions (N, C, H, W).
    """

    def __init__(self, images: Tensor, mean: float, std: float) -> None:
        self.images, self.mean, self.std = images, mean, std
        self.of_epoch: dict[int, Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, module: Reconstruction) -> None:
        """After validation."""
        epoch = trainer.current_epoch + 1
        last = max(self.of_epoch, default=0)
        if last not in EARLY:
            self.of_epoch.pop(last, None)                                       # only the newest of the later ones
        self.of_epoch[epoch] = _classifier.outputs(module.network, self.images, str(module.device))
        if isinstance(trainer.logger, TensorBoardLogger):
            rows = minidl.cat([self.images, self.of_epoch[epoch]]) * self.std + self.mean   # -> (2 N, C, H, W)
            trainer.logger.experiment.add_image("original and reconstruction",
                                                make_grid(rows.clamp(0, 1), nrow=len(self.images)), epoch)

    def state_dict(self) -> dict[str, Any]:
        """For a run that goes on."""
        return {str(epoch): images for epoch, images in self.of_epoch.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Those of the epochs before."""
        self.of_epoch = {int(epoch): images for epoch, images in state_dict.items()}


@dataclass
class Trained:
    """A network in evaluation mode, what every epoch logged, and how `Snapshots` saw it learn."""

    network: Autoencoder
    history: list[dict[str, Any]]
    snapshots: dict[int, Tensor]

    @property
    def val_loss(self) -> list[float]:
        """After each epoch, the mean squared error of the validation images, in normalised units."""
        return [epoch["val_loss"] for epoch in self.history]


# -- the lab's arguments, its images, its networks ---------------------------------------------------------------------

def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What both labs take besides."""
    _trained.add_arguments(parser)
    parser.add_argument("--models", type=variants, metavar="NAMES", default=list(VARIANTS),
                        help=f"which autoencoders, separated by commas, or all: {', '.join(VARIANTS)} (default all; "
                        f"quick {','.join(SOME)})")
    parser.add_argument("--optimizer", choices=("adam", "sgd"), help="Adam, or SGD with a momentum of 0.99")
    parser.add_argument("--lr", type=rate, metavar="RATE", help="its learning rate (default: adam 0.001, for "
                        "digits 0.002; sgd 0.01; always 0.001 for sparse codes)")
    parser.add_argument("--test-size", type=positive, metavar="N", help="take the first N test images")
    parser.add_argument("--tensorboard", action="store_true",
                        help="write losses and reconstructions for TensorBoard (needs minidl[tensorboard])")


def training_seconds(args: argparse.Namespace) -> float:
    """About how long the training takes, if nothing is found that was trained before."""
    of_image_and_step = {"dense": (3.5e-5, 5.5e-3), "conv": (1.6e-4, 8e-3)}     # seconds, measured
    if args.dataset == "digits":
        of_image_and_step = {"dense": (0, 2e-3), "conv": (0, 5e-3)}
    rates, steps = [of_image_and_step[VARIANTS[name].form] for name in args.models], args.train_size / args.batch_size
    return args.epochs * sum(args.train_size * of_image + steps * of_step for of_image, of_step in rates)


def variants(text: str) -> list[str]:
    """Names of VARIANTS, separated by commas; "all" for all of them."""
    names = list(VARIANTS) if text == "all" else list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in VARIANTS:
            raise argparse.ArgumentTypeError(f"got {name!r}, expected all, or one or more of {either(VARIANTS)}")
    return names


def mean_and_std(images: Tensor, dataset: str) -> tuple[float, float]:
    """What the pixels are normalised by: the usual numbers for MNIST and Fashion-MNIST, else those of the images."""
    return MNISTS if dataset != "digits" else (float(images.mean()), float(images.std()))


@dataclass
class Data:
    """Normalised images (N, C, H, W) and their labels (N,): for training, a fifth at most for validation, for the test.

    pixels: the test images from 0 to 1, before x → (x − mean) / std.
    """

    training: Tensor
    validation: Tensor
    test: Tensor
    labels: np.ndarray
    validation_labels: np.ndarray
    test_labels: np.ndarray
    pixels: np.ndarray
    mean: float
    std: float


def data_of(lab: Lab) -> Data:
    """The images of --dataset; labels are looked at by nothing that trains an autoencoder."""
    images, labels = lab.images(train=True)                     # (N, 1, H, W) from 0 to 1, and (N,)
    test_images, test_labels = lab.images(train=False)
    first, second = _classifier.split(len(images), lab.args.seed)
    mean, std = mean_and_std(images[first], lab.args.dataset)
    training, validation, test = ((x - mean) / std for x in (images[first], images[second], test_images))
    return Data(training, validation, test, labels[first].numpy(), labels[second].numpy(), test_labels.numpy(),
                test_images.numpy(), mean, std)


def default_rate(optimizer: str, dataset: str, is_sparse: bool) -> float:
    """The learning rate. With 0.004, both sparse convolutional networks ended with codes of 0 for all digits, from
    where ReLU has no gradient that leads back.
    """
    if is_sparse:
        return 0.001
    if optimizer == "sgd":
        return 0.01
    return 0.002 if dataset == "digits" else 0.001          # few steps: digits are 1,078 images


def dense_sizes(image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Hidden units and numbers in a code of the dense networks: fewer for digits of 8×8, whose 64 pixels are few."""
    return (32, 16) if image_shape[1] * image_shape[2] < 784 else (256, 128)


def settings_of(lab: Lab, name: str, image_shape: tuple[int, ...]) -> dict[str, Any]:
    """All that decides what a trained network is, but for the number of epochs."""
    args = lab.args
    lr = args.lr or default_rate(args.optimizer, args.dataset, VARIANTS[name].is_sparse)
    hidden, code = dense_sizes(image_shape)
    return {"variant": name, "image_shape": list(image_shape), "hidden": hidden, "code": code,
            "optimizer": args.optimizer, "lr": lr, "batch_size": args.batch_size,
            "dataset": args.dataset, "train_size": args.train_size, "seed": args.seed}


def network_of(form: str, settings: Mapping[str, Any]) -> Autoencoder:
    """A new network of the form "dense" or "conv"."""
    shape = tuple(settings["image_shape"])
    return conv_autoencoder(shape) if form == "conv" else dense_autoencoder(shape, settings["hidden"], settings["code"])


def untrained(lab: Lab, form: str, image_shape: tuple[int, ...], seed: int) -> Autoencoder:
    """A network with random weights, drawn from this seed, on the lab's device."""
    minidl.manual_seed(seed)
    return network_of(form, settings_of(lab, form, image_shape)).to(lab.device)


def fitted(lab: Lab, name: str, training: Tensor, validation: Tensor, mean: float, std: float) -> Trained:
    """The autoencoder of this name, trained for --epochs, its weights those of the last one: none is chosen.

    training, validation: normalised images (N, C, H, W). A checkpoint of the same settings, among the lab's results or
    those of `labs.autoencoders`, is gone on from, if only to find that nothing is left to do; --retrain looks at none.
    """
    args = lab.args
    settings = settings_of(lab, name, training.shape[1:])
    minidl.manual_seed(args.seed)
    model, snapshots = Reconstruction(settings), Snapshots(validation[:8], mean, std)
    found = None if args.retrain else _to_go_on_from(lab, settings)
    if args.tensorboard and found is None:
        shutil.rmtree(lab.out / "tensorboard" / name, ignore_errors=True)       # else its curves would run twice
    is_long = args.dataset != "digits"                      # else a line for each of many short epochs helps nobody
    logger = TensorBoardLogger(lab.out, "tensorboard", name) if args.tensorboard else False
    keeper = ModelCheckpoint(lab.out / checkpoint_folder(settings), save_last=True, save_top_k=0)
    trainer = Trainer(max_epochs=args.epochs, accelerator=lab.device, logger=logger, callbacks=[snapshots, keeper],
                      enable_model_summary=False, enable_progress_bar=is_long)
    trainer.fit(model, DataLoader(TensorDataset(training), args.batch_size, shuffle=True),
                DataLoader(TensorDataset(validation), 500), ckpt_path=found)
    trained = Trained(model.network.eval(), trainer.history, snapshots.of_epoch)
    if not np.isfinite(trained.val_loss[-1]):
        raise MinidlError(f"the training of {name} ended with an error of {trained.val_loss[-1]}; choose a smaller one "
                          f"than {settings['lr']:g}", where="--lr")
    return trained


def checkpoint_folder(settings: Mapping[str, Any]) -> Path:
    """Where in the folder of a lab's results a network is kept: one place for each of all settings."""
    run = "{dataset}-{train_size}-{optimizer}-{lr:g}-batch-{batch_size}-seed-{seed}".format(**settings)
    return Path("checkpoints", run, settings["variant"])


def _to_go_on_from(lab: Lab, settings: Mapping[str, Any]) -> Path | None:
    """The checkpoint that was trained longest with these settings, and not longer than asked for. Says which it is."""
    epochs, reached = lab.args.epochs, {}
    for results in dict.fromkeys((lab.out, OF_LABS_AUTOENCODERS)):
        path = results / checkpoint_folder(settings) / "last.ckpt"
        if path.is_file():
            try:
                checkpoint = checkpoints.read(path)
                is_same, epoch = checkpoint["hyper_parameters"] == settings, int(checkpoint["epoch"])
            except (MinidlError, KeyError, TypeError, ValueError) as error:
                raise MinidlError(f"{path} does not hold such a network ({error}); remove it or use --retrain",
                                  where="--retrain") from error
            if results == lab.out and (epoch > epochs or not is_same):
                raise SettingError(f"got {epochs}, but {path} holds {settings['variant']} after {epoch} epochs"
                                   f"{'' if is_same else ' of another training'}; use more --epochs or another --out, "
                                   f"or --retrain, which replaces it", where="--epochs")
            if is_same and epoch <= epochs:
                reached[path] = epoch
    if not reached:
        return None
    path = max(reached, key=lambda path: reached[path])
    lab.say(f"{settings['variant']}: the network in {path} is taken, trained for {reached[path]} of {epochs} epochs."
            + (" For TensorBoard use --retrain." if reached[path] == epochs and lab.args.tensorboard else ""))
    return path


# -- what is measured --------------------------------------------------------------------------------------------------

def codes_of(network: Autoencoder, images: Tensor, device: str) -> np.ndarray:
    """The code of each image, flat: (N, C, H, W) -> float32 (N, numbers in a code)."""
    return _classifier.outputs(network.encoder, images, device).flatten(1).numpy()


def reconstructed(network: Autoencoder, images: Tensor, device: str) -> Tensor:
    """What the network makes of each image: (N, C, H, W) -> (N, C, H, W)."""
    return _classifier.outputs(network, images, device)


def as_pixels(images: Tensor, mean: float, std: float) -> np.ndarray:
    """Normalised images as pixels from 0 to 1; what lies beyond is cut off, as on a screen."""
    return (images * std + mean).clamp(0, 1).numpy()


def psnr(pixels: np.ndarray, others: np.ndarray) -> float:
    """The peak signal-to-noise ratio in decibels, -10 log₁₀ of the mean squared error of pixels from 0 to 1."""
    error = np.mean((pixels.astype(np.float64) - others) ** 2)
    return float(-10 * np.log10(max(error, 1e-12)))


def blurred(images: Tensor) -> Tensor:
    """Each pixel the mean of 3×3; the border is repeated. (N, C, H, W) -> (N, C, H, W)."""
    return minidl.from_numpy(uniform_filter(images.numpy(), size=(1, 1, 3, 3), mode="nearest"))
