"""A small convolutional network learns to read handwritten digits: the first lab, a page long.

    python -m labs.digits

Data: the 1,797 digits, 8×8 pixels, that come with scikit-learn (a part of the UCI set of 1998, real handwriting; no
download). A quarter is set aside as the test set and looked at once, at the end. Everything that happens in training
stands in the loop below; to watch one backward pass op by op, replace `loss.backward()` by

    for step in loss.backward_steps():
        print(step)
"""

import argparse
import json
import os
import time
from pathlib import Path

# The matrices here are so small that a second thread of the matrix library only waits for the first; on a busy machine
# the waiting costs ten times the work. This must be set before NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib
import numpy as np
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import minidl
import minidl.nn.functional as F
from minidl import nn, optim

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def make_model() -> nn.Module:
    """Two convolutions that look for strokes, then one dense layer that votes for a digit."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1), nn.ReLU(),      # (N, 1, 8, 8) -> (N, 16, 8, 8)
        nn.MaxPool2d(2),                                            # -> (N, 16, 4, 4)
        nn.Conv2d(16, 32, kernel_size=3, padding=1), nn.ReLU(),     # -> (N, 32, 4, 4)
        nn.MaxPool2d(2),                                            # -> (N, 32, 2, 2)
        nn.Flatten(), nn.Linear(128, 10),                           # -> (N, 128) -> (N, 10), a score for each digit
    )


def load(seed: int) -> list[np.ndarray]:
    """Training images, test images, training labels, test labels; a quarter of each digit is for the test."""
    digits = load_digits()
    images = digits.images[:, None].astype("float32") / 16                  # pixels 0..16 -> (1797, 1, 8, 8) in 0..1
    return train_test_split(images, digits.target, test_size=0.25, stratify=digits.target, random_state=seed)


def positive(text: str) -> int:
    """An argument that must be a whole number above 0."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number above 0")
    return int(text)


def main() -> None:
    """Load, train, test, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=positive, default=40, help="passes over the training set (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the batches (default 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder for the results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    train_x, test_x, train_y, test_y = load(args.seed)
    x, y = minidl.tensor(train_x), minidl.tensor(train_y)

    minidl.manual_seed(args.seed)
    model = make_model()
    optimizer = optim.Adam(model.parameters(), lr=4e-3)     # rate and epochs: chosen on a part of the training set
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(train_x)} training and {len(test_x)} test images, {parameters:,} parameters, "
          f"{args.epochs} epochs: about {args.epochs / 10:.0f} s.")

    # training: each epoch sees all training images once, 32 at a time, in a new order
    start, start_cpu, losses = time.perf_counter(), time.process_time(), []
    for _ in track(range(args.epochs), description="training"):
        total = 0.0
        for batch in np.array_split(minidl.randperm(len(x)).numpy(), len(x) // 32):
            loss = F.cross_entropy(model(x[batch]), y[batch])               # forward
            optimizer.zero_grad()
            loss.backward()                                                 # dL/dw for every weight w
            optimizer.step()                                                # w changes a little, against dL/dw
            total += loss.item() * len(batch)
        losses.append(total / len(x))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu

    # test: once, and beside the simplest thing that could work, a linear classifier on the same pixels
    with minidl.no_grad():
        predicted = model(minidl.tensor(test_x)).argmax(dim=1).numpy()
    accuracy = float((predicted == test_y).mean())
    linear = LogisticRegression(max_iter=2000).fit(train_x.reshape(len(train_x), -1), train_y)
    baseline = float(linear.score(test_x.reshape(len(test_x), -1), test_y))
    print(f"trained in {seconds:.1f} s, mean loss of the last epoch {losses[-1]:.4f}")
    print(f"test accuracy {accuracy:.1%}   (a linear classifier on the same pixels: {baseline:.1%})")

    draw(args.out / "digits.png", losses, test_x[:, 0], test_y, predicted)
    metrics = {"lab": "digits", "dataset": "digits", "seed": args.seed, "device": "cpu", "epochs": args.epochs,
               "param_count": parameters, "train_loss": losses, "test_accuracy": accuracy, "test_count": len(test_y),
               "linear_test_accuracy": baseline, "train_seconds": seconds,
               "train_cpu_seconds": cpu_seconds, "minidl": minidl.__version__,
               "numpy": np.__version__}
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"figure and numbers: {args.out / 'digits.png'}, {args.out / 'metrics.json'}")


def draw(path: Path, losses: list[float], images: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> None:
    """The loss of each epoch; then test images, all mistakes first, each with what the network said."""
    wrong, right = np.flatnonzero(predicted != labels), np.flatnonzero(predicted == labels)
    shown = [*wrong, *right][:24]
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right_side = figure.subfigures(1, 2, width_ratios=[1, 1.3])
    axes = left.subplots()
    axes.semilogy(range(1, len(losses) + 1), losses, marker="o")
    axes.set(title="Training loss", xlabel="epoch", ylabel="mean cross-entropy (log scale)")
    axes.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    right_side.suptitle(f"Test images and what the network said: {len(wrong)} of {len(labels)} wrong, shown first")
    for axes, i in zip(right_side.subplots(4, 6).flat, shown, strict=False):
        axes.imshow(images[i], cmap="gray_r", vmin=0, vmax=1)
        is_right = predicted[i] == labels[i]
        axes.set_title(f"{predicted[i]}" if is_right else f"said {predicted[i]}, is {labels[i]}", fontsize=9,
                       color="black" if is_right else "crimson")
        axes.axis("off")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
