"""A convolutional network and a dense one with as many parameters, on the same images.

Two convolutions, each followed by ReLU and average pooling, and two dense layers are trained with Adam. A fifth of the
training images (at most 6,000) is set aside to choose the epoch; the test images are looked at once, at the end. Beside
it a dense network with as many parameters is trained in the same way.

    python -m labs.cnn                                  # 1,797 digits of 8×8 pixels
    python -m labs.cnn --dataset mnist                  # the first 20,000 of MNIST
    python -m labs.cnn --dataset mnist --preset full    # all 60,000

The small digits come with scikit-learn. Others are `fashion-mnist` and `mnist-csv`.
"""
# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm

import minidl
import minidl.nn.functional as F
from labs import _classifier, _trained
from labs._arguments import rate
from labs._lab import Lab
from minidl import nn
from minidl.data import TensorDataset
from minidl.models import small_cnn

lab = Lab("cnn", __doc__, datasets=("digits", "mnist", "fashion-mnist", "mnist-csv"),
          presets={"quick": {"train_size": 20_000, "epochs": 10}, "full": {"train_size": 60_000, "epochs": 8}},
          per_dataset={"digits": {"train_size": 1347, "epochs": 25, "batch_size": 32, "lr": 4e-3}}, batch_size=64,
          extra_arguments=lambda parser: parser.add_argument("--lr", type=rate, default=1e-3, metavar="RATE", help=(
              "the learning rate (default 0.001; digits 0.004, chosen on validation images)")),
          seconds=lambda args: 5 + args.epochs * args.train_size * (0.0003 if args.dataset == "digits" else 0.0011))
args = lab.args

# %% The data
lab.section("The data")
images, labels = lab.images(train=True)                     # (N, 1, H, W) from 0 to 1, and (N,)
test_images, test_labels = lab.images(train=False)
shape, names = tuple(images.shape[1:]), lab.classes
for_training, for_validation = _classifier.split(len(images), args.seed)
training = TensorDataset(images[for_training], labels[for_training])
validation = TensorDataset(images[for_validation], labels[for_validation])
lab.say(f"{len(training):,} images to train on, {len(validation):,} to choose the epoch with, {len(test_images):,} to "
        f"test with once: each {shape[1]}×{shape[2]} pixels from 0 (black) to 1 (white). Which training images are set "
        f"aside is drawn at random, from seed {args.seed}.")

figure, grid = plt.subplots(10, 12, figsize=(8, 7), layout="constrained")
for label, row in enumerate(grid):
    row[0].set_ylabel(names[label], rotation=0, ha="right", va="center")
    for axes, i in itertools.zip_longest(row, np.flatnonzero(labels.numpy() == label)[:12]):
        axes.set(xticks=[], yticks=[])
        if i is not None:
            axes.imshow(images[int(i), 0].numpy(), cmap="gray", vmin=0, vmax=1)
        else:                                               # a small --train-size
            axes.text(0.5, 0.5, "none", ha="center", va="center", fontsize=6, transform=axes.transAxes)
lab.figure(figure, "samples", "The first training images of each class. No two of a class are alike; that is the task.")

one_hot = F.one_hot(labels, 10)                             # (N,) -> (N, 10)
assert (one_hot.sum(1) == 1).all(), "a label is one class and no other"
assert (one_hot.argmax(1) == labels).all()
lab.say(f"The label {names[int(labels[0])]} as a one-hot vector: {one_hot[0].tolist()}. Each of the {len(one_hot):,} "
        f"rows sums to 1. The loss takes the labels as numbers, which is the same without the zeros.")

# %% The network
lab.section("The network")
minidl.manual_seed(args.seed)
cnn = small_cnn(shape)
lab.code(small_cnn)
table = minidl.summary(cnn, shape, verbose=False)
lab.layers(table, "The network, layer by layer, for a batch of one image")
convolutions = [row for row in table.rows if row.kind == "Conv2d"]
lab.say(f"The two convolutions do {sum(row.multiply_adds for row in convolutions) / table.multiply_adds:.0%} of the "
        f"multiply-adds with {sum(row.parameters for row in convolutions) / table.parameters:.1%} of the parameters: "
        f"the same few weights are used at every place of the image.")

# %% Training, first the CNN, then a dense network
lab.section("Training")
lab.code(_classifier.Classifier)


def seconds_per_epoch(curves):
    """The median, which a busy moment of the machine does not change."""
    return float(np.median(curves["seconds_of_epochs"]))


def train(network, name):
    """Train; returns the model with the weights of its best epoch, its curves, and which epoch that was (from 0)."""
    lab.say(f"{name}: a line an epoch, with means over its steps for training, and validation after it.")
    model, trainer = _classifier.train(network, training, validation, epochs=args.epochs, batch_size=args.batch_size,
                                       lr=args.lr, device=lab.device)
    curves = {key: [epoch[key] for epoch in trainer.history]
              for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")}
    curves["seconds_of_epochs"] = [epoch["seconds"] for epoch in trainer.history]
    best = int(np.argmin(curves["val_loss"]))
    is_last = "; it is the last epoch, so more of them might still help" if best + 1 == args.epochs else ""
    lab.say(f"The weights of epoch {best + 1} are kept, where the validation loss is lowest, "
            f"{curves['val_loss'][best]:.4f}{is_last}. An epoch takes {seconds_per_epoch(curves):.2f} seconds.")
    rows = [[str(i + 1), *(f"{values[i]:.4f}" for values in curves.values())] for i in range(args.epochs)]
    lab.report.table(rows, ["epoch", *curves], f"{name}, epoch by epoch")
    return model, curves, best


model, curves, best = train(cnn, "CNN")
hidden = round((table.parameters - 10) / (images[0].numel() + 1 + 10))      # as many parameters as the CNN
minidl.manual_seed(args.seed)
dense = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), hidden), nn.ReLU(), nn.Linear(hidden, 10))
dense_count = sum(p.numel() for p in dense.parameters())
dense_model, dense_curves, dense_best = train(dense, f"Dense network with {hidden:,} hidden units")

# %% The curves
figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
epochs = np.arange(1, args.epochs + 1)
for axes, what in zip(panels, ("loss", "accuracy"), strict=True):
    for name, colour, lines, kept in (("CNN", "C0", curves, best), ("dense", "C1", dense_curves, dense_best)):
        axes.plot(epochs, lines[f"train_{what}"], f"{colour}--", label=f"{name}, training", linewidth=1)
        axes.plot(epochs, lines[f"val_{what}"], colour, label=f"{name}, validation")
        axes.plot(kept + 1, lines[f"val_{what}"][kept], f"{colour}o", label=f"{name}, kept: epoch {kept + 1}")
    axes.axvline(best + 1, color="C0", linewidth=0.8)
    axes.set(xlabel="epoch", xticks=epochs if args.epochs <= 12 else [1, *range(5, args.epochs + 1, 5)])
    axes.grid(alpha=0.3)
panels[0].set(yscale="log", ylabel="mean cross-entropy (log scale)")
panels[0].yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
panels[0].yaxis.set_major_formatter("{x:g}")
panels[0].yaxis.set_minor_formatter(plt.NullFormatter())
highest = max(curves["val_accuracy"] + dense_curves["val_accuracy"])
panels[1].set(ylabel="accuracy", ylim=(max(0, 1 - 8 * (1 - highest) - 0.02), 1.01))     # the first epochs may leave it
panels[1].legend(fontsize=8)
lab.figure(figure, "curves", "The dots mark the epochs of lowest validation loss, the line the CNN's: from there early "
           "stopping takes the weights. Training values are means during the epoch, while the weights still change, "
           "and so can be worse than those of validation after it.")

# %% The test
lab.section("The test")
truth = test_labels.numpy()
probabilities = _classifier.predict(model, test_images, lab.device).numpy()             # (N, 10)
predicted = probabilities.argmax(1)
by_dense = _classifier.predict(dense_model, test_images, lab.device).argmax(1).numpy()
accuracy, dense_accuracy = float((predicted == truth).mean()), float((by_dense == truth).mean())
lab.table([[name, f"{share:.2%} ± {(share * (1 - share) / len(truth)) ** 0.5:.2%}", f"{count:,}",
            f"{seconds_per_epoch(lines):.2f}"]
           for name, share, count, lines in (("CNN", accuracy, table.parameters, curves),
                                             ("dense", dense_accuracy, dense_count, dense_curves))],
          ["network", "test accuracy", "parameters", "seconds an epoch"], "On images that neither has seen")
only_cnn = int(((predicted == truth) & (by_dense != truth)).sum())
only_dense = int(((predicted != truth) & (by_dense == truth)).sum())
lab.say(f"± is one standard deviation of chance for {len(truth):,} test images; another seed moves these numbers too. "
        f"{only_cnn:,} images are right with the CNN only, {only_dense:,} with the dense network only. If the two were "
        f"equally good, that difference of {abs(only_cnn - only_dense):,} would have a standard deviation of "
        f"{(only_cnn + only_dense) ** 0.5:.0f}.")
if args.dataset == "digits":
    lab.say("These images have 64 pixels. Compare again on MNIST, whose images have 784: --dataset mnist")

wrong = np.flatnonzero(predicted != truth)
between = ",\n" if max(map(len, names)) > 2 else ", "       # two lines for "says Sandal, is Sneaker"
figure = plt.figure(figsize=(9, 5.6), layout="constrained")
upper, lower = figure.subfigures(2, 1, height_ratios=[3, 2])
upper.suptitle("The first 36 test images")
lower.suptitle(f"All {len(wrong)} mistakes" if len(wrong) <= 24 else f"The first 24 of {len(wrong):,} mistakes")
for part, rows, shown in ((upper, 3, np.arange(36)), (lower, 2, wrong[:24])):
    for axes, i in itertools.zip_longest(part.subplots(rows, 12).flat, shown):
        if i is None:
            axes.remove()
            continue
        axes.imshow(test_images[int(i), 0].numpy(), cmap="gray", vmin=0, vmax=1)
        is_right = predicted[i] == truth[i]
        said = names[predicted[i]] if is_right else f"says {names[predicted[i]]}{between}is {names[truth[i]]}"
        axes.set_title(said, fontsize=7, color="black" if is_right else "crimson")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set(color="black" if is_right else "crimson", linewidth=0.5 if is_right else 2)
lab.figure(figure, "predictions", "What the CNN says, wrong answers in red.")

# %% How sure it is
surest = np.argsort(-probabilities.max(1), kind="stable")
right_first, wrong_first = surest[predicted[surest] == truth[surest]], surest[predicted[surest] != truth[surest]]
chosen = [int(i) for i in dict.fromkeys([*right_first[:2], *wrong_first[:2], *surest[::-1]])][:6]
figure, grid = plt.subplots(2, 6, figsize=(11, 3.8), layout="constrained", height_ratios=[1, 1.2])
for column, i in enumerate(chosen):
    picture, bars = grid[:, column]
    picture.imshow(test_images[i, 0].numpy(), cmap="gray", vmin=0, vmax=1)
    picture.set_axis_off()
    picture.set_title(f"says {names[predicted[i]]} ({probabilities[i].max():.1%}),\nis {names[truth[i]]}", fontsize=9)
    bars.bar(range(10), probabilities[i], color=[
        "C2" if k == truth[i] else "crimson" if k == predicted[i] else "gray" for k in range(10)])
    bars.set(ylim=(0, 1), yticks=[0, 0.5, 1] if column == 0 else [], ylabel="probability" if column == 0 else "")
    bars.set_xticks(range(10), names, rotation=0 if max(map(len, names)) <= 2 else 90)
lab.figure(figure, "softmax", "The softmax of six test images: two of which the CNN is surest and right, two of which "
           "it is surest and wrong, and those of which it is least sure. Green is the right class, red a wrong answer. "
           "A high probability is no guarantee.")

# %% What it looks at
activations = {}
handles = [layer.register_forward_hook(lambda layer, inputs, output, i=i: activations.update({i: output.detach()}))
           for i, layer in enumerate(model.network) if isinstance(layer, nn.ReLU)]
_classifier.predict(model, test_images[:1], lab.device)
for handle in handles:
    handle.remove()
kernels = model.network[0].weight.detach().cpu().numpy()[:, 0]              # (32, 3, 3)
largest = float(abs(kernels).max())
blocks = ((f"The 32 kernels of the first convolution: red adds, blue subtracts, −{largest:.2f} to {largest:.2f}",
           kernels, {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}),
          ("What they make of the first test image, after ReLU", activations[1][0].cpu().numpy(), {"cmap": "gray"}),
          ("32 of the 64 maps of the second convolution, after ReLU", activations[4][0, :32].cpu().numpy(),
           {"cmap": "gray"}))
figure = plt.figure(figsize=(10, 5.6), layout="constrained")
for part, (title, maps, how) in zip(figure.subfigures(3, 1), blocks, strict=True):
    part.suptitle(title, fontsize=11)
    norm = None if "vmin" in how else PowerNorm(0.5, vmin=0, vmax=float(maps.max()) or 1.0)
    for axes, picture in zip(part.subplots(2, 16).flat, maps, strict=True):
        axes.set(xticks=[], yticks=[], box_aspect=1)
        if picture.any():
            axes.imshow(picture, norm=norm, **how)
        else:
            axes.set_facecolor("black")
            axes.text(0.5, 0.5, "silent", color="gray", ha="center", va="center", size=6, transform=axes.transAxes)
lab.figure(figure, "features", "Kernels and maps. All maps of a block have one scale, the square root of the answer, "
           "so that weak ones can be seen; “silent” is a map of zeros: ReLU let nothing through for this image.")

# %%
lab.question("Why does a dense layer need so many more parameters than a convolution for the same picture?",
             "It has a weight for every pair of pixel and unit. A convolution has one set of weights for all places, "
             "because an edge is an edge wherever it is.")
lab.question("Why is the epoch chosen with validation images and not with the test images?",
             "The best of many epochs on some images is best partly by luck on those images. Choosing on the test set "
             "puts that luck into the reported number.")
lab.question("The training loss falls to the end, the validation loss often not. What is learned in between?",
             "Peculiarities of single training images. It becomes surer of them, and also of its mistakes: the loss "
             "rises where it is wrong with confidence, even while the accuracy still grows.")
lab.metrics |= {"param_count": table.parameters, "best_epoch": best + 1, "test_accuracy": accuracy, "lr": args.lr,
                "train_count": len(training), "val_count": len(validation), "test_count": len(truth),
                "seconds_per_epoch": seconds_per_epoch(curves), **curves,
                "right_only_with_cnn": only_cnn, "right_only_with_dense": only_dense,
                "dense": {"param_count": dense_count, "hidden": hidden, "best_epoch": dense_best + 1,
                          "test_accuracy": dense_accuracy, **dense_curves,
                          "seconds_per_epoch": seconds_per_epoch(dense_curves)}}
minidl.save({**_trained.training_of(lab, images), "test_accuracy": accuracy,
             "state_dict": model.network.state_dict()}, lab.out / "cnn.safetensors")
lab.finish()
