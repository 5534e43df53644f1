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
import time
from pathlib import Path

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


def main() -> None:
    """Load, train, test, draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the batches (default 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="folder for the results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    # data: pixels from 0..16 to 0..1, as images with one channel
    digits = load_digits()
    images, labels = digits.images[:, None] / 16.0, digits.target           # (1797, 1, 8, 8) and (1797,)
    train_x, test_x, train_y, test_y = train_test_split(
        images.astype("float32"), labels, test_size=0.25, stratify=labels, random_state=args.seed)
    x, y = minidl.tensor(train_x), minidl.tensor(train_y)

    minidl.manual_seed(args.seed)
    model = make_model()
    optimizer = optim.Adam(model.parameters(), lr=4e-3)     # rate and epochs: chosen on a part of the training set
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{len(train_x)} training and {len(test_x)} test images, {parameters:,} parameters, "
          f"{args.epochs} epochs: a few seconds on two cores.")

    # training
    start, losses = time.perf_counter(), []
    for _ in track(range(args.epochs), description="training"):
        total = 0.0
        for batch in np.array_split(minidl.randperm(len(x)).numpy(), len(x) // 32):
            loss = F.cross_entropy(model(x[batch]), y[batch])               # forward
            optimizer.zero_grad()
            loss.backward()                                                 # dL/dw for every weight w
            optimizer.step()                                                # w changes a little, against dL/dw
            total += loss.item() * len(batch)
        losses.append(total / len(x))
    seconds = time.perf_counter() - start

    # test: once, and beside the simplest thing that could work, a linear classifier on the same pixels
    with minidl.no_grad():
        predicted = model(minidl.tensor(test_x)).argmax(dim=1).numpy()
    accuracy = float((predicted == test_y).mean())
    linear = LogisticRegression(max_iter=2000).fit(train_x.reshape(len(train_x), -1), train_y)
    baseline = float(linear.score(test_x.reshape(len(test_x), -1), test_y))
    print(f"trained in {seconds:.1f} s, mean loss of the last epoch {losses[-1]:.4f}")
    print(f"test accuracy {accuracy:.1%}   (a linear classifier on the same pixels: {baseline:.1%})")

    draw(args.out / "digits.png", losses, test_x[:, 0], test_y, predicted, accuracy)
    metrics = {"lab": "digits", "dataset": "digits", "seed": args.seed, "device": "cpu", "epochs": args.epochs,
               "param_count": parameters, "train_loss": losses, "test_accuracy": accuracy, "test_count": len(test_y),
               "linear_test_accuracy": baseline, "train_seconds": seconds, "minidl": minidl.__version__,
               "numpy": np.__version__}
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"figure and numbers: {args.out / 'digits.png'}, {args.out / 'metrics.json'}")


def draw(path: Path, losses: list[float], images: np.ndarray, labels: np.ndarray, predicted: np.ndarray,
         accuracy: float) -> None:
    """The loss of each epoch; then test images, all mistakes first, each with what the network said."""
    wrong, right = np.flatnonzero(predicted != labels), np.flatnonzero(predicted == labels)
    shown = [*wrong, *right][:24]
    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right_side = figure.subfigures(1, 2, width_ratios=[1, 1.3])
    axes = left.subplots()
    axes.semilogy(range(1, len(losses) + 1), losses, marker="o")
    axes.set(title="Training loss", xlabel="epoch", ylabel="mean cross-entropy, nats")
    axes.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    right_side.suptitle(f"Test images, mistakes first: {len(wrong)} of {len(labels)} wrong ({accuracy:.1%} right)")
    for axes, i in zip(right_side.subplots(4, 6).flat, shown, strict=False):
        axes.imshow(images[i], cmap="gray_r", vmin=0, vmax=1)
        is_right = predicted[i] == labels[i]
        axes.set_title(f"{predicted[i]}" if is_right else f"{predicted[i]}, is {labels[i]}", fontsize=9,
                       color="black" if is_right else "crimson")
        axes.axis("off")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
