"""A trained network that several runs or several labs look into: found where it was saved, or trained and saved."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minidl
from labs import _classifier
from labs._lab import Lab
from minidl import Tensor, nn
from minidl.data import TensorDataset
from minidl.errors import MinidlError
from minidl.models import small_cnn

OF_LABS_CNN = Path("runs", "cnn", "cnn.safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What such a lab's command line takes besides."""
    parser.add_argument("--retrain", action="store_true", help="train the network even if a trained one is found")


def training_of(lab: Lab, images: Tensor) -> dict[str, Any]:
    """What is saved beside the weights of a network that was trained on these images (N, C, H, W)."""
    return {"dataset": lab.args.dataset, "image_shape": tuple(images.shape[1:]), "seed": lab.args.seed,
            "epochs": lab.args.epochs, "train_size": len(images)}


def trained_cnn(lab: Lab, images: Tensor, labels: Tensor) -> nn.Module:
    """`small_cnn`: the one that `labs.cnn` saved for this dataset, however long that trained it, or see `trained`."""
    lr = 4e-3 if lab.args.dataset == "digits" else 1e-3                     # as in labs.cnn
    return trained(lab, small_cnn, images, labels, lr=lr, saved_by_other_lab=OF_LABS_CNN)


def trained(lab: Lab, make: Callable[[tuple[int, int, int]], nn.Module], images: Tensor, labels: Tensor, lr: float,
            saved_by_other_lab: Path | None = None) -> nn.Module:
    """A network that classifies the images, on the lab's device and in evaluation mode. Says where it comes from, also
    in `lab.metrics["network"]`.

    make: image shape (C, H, W) -> network. images (N, C, H, W), labels (N,): what it is trained on for --epochs, but
    for a fifth that chooses the epoch. It is saved among the lab's results, and a later run there takes it, if it would
    train the same. saved_by_other_lab: a file that is taken first, if it is of this dataset. --retrain takes neither.
    """
    args, shape = lab.args, tuple(images.shape[1:])
    asked = training_of(lab, images)
    own = lab.out / f"{make.__name__}.safetensors"
    if not args.retrain:
        for path, must_equal in ((saved_by_other_lab, ("dataset", "image_shape")), (own, tuple(asked))):
            if path is None or not path.is_file():
                continue
            saved = minidl.load(path)
            if all(saved.get(name) == asked[name] for name in must_equal):
                network = make(shape)
                _fill(network, saved, path)
                about = {name: saved.get(name) for name in ("dataset", "seed", "epochs", "train_size", "test_accuracy")}
                lab.metrics["network"] = {"file": str(path), **about}
                lab.say(f"The network is the one in {path}, trained on {saved['dataset']}; its test accuracy was "
                        f"{saved['test_accuracy']:.2%}.")
                return network.to(lab.device).eval()
            what = "is left alone" if path != own else "is replaced"
            lab.say(f"The network in {path} was trained on other images or for another time, and {what}.")
    times = f"{args.epochs} epoch" + ("s" if args.epochs > 1 else "")
    lab.say(f"A network is trained first, for {times} on {len(images):,} images, a fifth of which choose the epoch."
            + (f" For one trained longer, run python -m labs.cnn --dataset {args.dataset} before."
               if saved_by_other_lab else ""))
    minidl.manual_seed(args.seed)
    network = make(shape)
    first, second = _classifier.split(len(images), args.seed)
    _classifier.train(network, TensorDataset(images[first], labels[first]),
                      TensorDataset(images[second], labels[second]), epochs=args.epochs, batch_size=args.batch_size,
                      device=lab.device, lr=lr)
    test_images, test_labels = lab.images(train=False)
    answers = _classifier.predict(network, test_images, lab.device).argmax(1)
    accuracy = float((answers == test_labels).double().mean())
    minidl.save({**asked, "test_accuracy": accuracy, "state_dict": network.state_dict()}, own)
    lab.metrics["network"] = {"file": str(own), **asked, "test_accuracy": accuracy}
    lab.say(f"It is right for {accuracy:.2%} of the {len(test_labels):,} test images, and kept in {own}.")
    return network.eval()


def was_trained_on_this_split(lab: Lab, count: int) -> bool:
    """Whether the network of this lab was trained on the first part of `_classifier.split(count, seed)`, as here."""
    network = lab.metrics["network"]
    return bool(network["train_size"] == count and network["seed"] == lab.args.seed)


def _fill(network: nn.Module, saved: dict[str, Any], path: Path) -> None:
    """The saved weights into a network; a file that does not fit is one sentence."""
    try:
        network.load_state_dict(saved["state_dict"])
        float(saved["test_accuracy"])
    except (MinidlError, KeyError, TypeError) as error:
        raise MinidlError(f"{path} does not hold such a network ({error}); remove it or use --retrain",
                          where="--retrain") from error
