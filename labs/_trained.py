"""The trained network that several labs look into: the one that `labs.cnn` saved, or one that is trained here."""

from __future__ import annotations

import argparse
from pathlib import Path

import minidl
from labs import _classifier
from labs._lab import Lab
from minidl import Tensor, nn
from minidl.data import TensorDataset
from minidl.errors import MinidlError
from minidl.models import small_cnn

SAVED = Path("runs", "cnn", "cnn.safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What such a lab's command line takes besides."""
    parser.add_argument("--retrain", action="store_true", help="train the network even if a trained one is found")


def trained_cnn(lab: Lab, images: Tensor, labels: Tensor) -> nn.Module:
    """`small_cnn` for the lab's dataset, on its device and in evaluation mode; says where it came from.

    It is loaded from what `labs.cnn` saved, or from an earlier run of this lab, if that is of the same dataset. Else it
    is trained here as `labs.cnn` does it, for --epochs, on `images` (N, C, H, W) and `labels` (N,), a fifth of which is
    set aside to choose the epoch; and saved beside the lab's other results. --retrain trains in any case.
    """
    shape, own = tuple(images.shape[1:]), lab.out / "cnn.safetensors"
    for path in () if lab.args.retrain else (SAVED, own):
        if not path.is_file():
            continue
        saved = minidl.load(path)
        if saved.get("dataset") == lab.args.dataset and tuple(saved.get("image_shape", ())) == shape:
            network = small_cnn(shape)
            try:
                network.load_state_dict(saved["state_dict"])
            except MinidlError as error:
                error.message = f"{path} does not hold the network of labs.cnn ({error.message}); remove it"
                raise
            lab.say(f"The network is the one in {path}, trained on {lab.args.dataset}; its test accuracy was "
                    f"{saved['test_accuracy']:.2%}.")
            return network.to(lab.device).eval()
        lab.say(f"The network in {path} was trained on {saved.get('dataset')}, and is left alone.")
    lab.say(f"A network is trained first, for {lab.args.epochs} epochs on {len(images):,} images, a fifth of which "
            f"choose the epoch. For one trained longer, run python -m labs.cnn --dataset {lab.args.dataset} before.")
    minidl.manual_seed(lab.args.seed)
    network = small_cnn(shape)
    first, second = _classifier.split(len(images), lab.args.seed)
    _classifier.train(network, TensorDataset(images[first], labels[first]),
                      TensorDataset(images[second], labels[second]), epochs=lab.args.epochs,
                      batch_size=lab.args.batch_size, device=lab.device,
                      lr=4e-3 if lab.args.dataset == "digits" else 1e-3)
    test_images, test_labels = lab.images(train=False)
    right = _classifier.predict(network, test_images, lab.device).argmax(1) == test_labels
    accuracy = float(right.float().mean())
    minidl.save({"dataset": lab.args.dataset, "image_shape": shape, "seed": lab.args.seed, "test_accuracy": accuracy,
                 "state_dict": network.state_dict()}, own)
    lab.say(f"It is right for {accuracy:.2%} of the {len(test_labels):,} test images, and kept in {own}.")
    return network.eval()
