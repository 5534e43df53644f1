"""LeNet, layer by layer: tanh and average pooling as in 1998, and the same network with ReLU and max pooling beside it.

    python -m labs.lenet                                        # 1,797 digits, enlarged from 8×8 to 28×28 pixels
    python -m labs.lenet --dataset mnist                        # the first 15,000 of MNIST
    python -m labs.lenet --dataset mnist --preset full          # all 60,000
    python -m labs.lenet --dataset cifar10                      # small photographs in colour

Both start from the same weights and see the same batches in the same order: pixels from 0 to 1, in colour normalised
channel by channel. The test images are classified after every epoch, to show how fast the two learn. Nothing is chosen
by that: how many epochs there are is settled before the run, and the weights of the last one are kept. `fashion-mnist`
is the fourth dataset.

LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition", doi:10.1109/5.726791
"""
# %%
import time

import numpy as np
from rich.progress import track
from sklearn.metrics import confusion_matrix

import minidl
import minidl.nn.functional as F
from labs import _lenet
from labs._arguments import rate
from labs._classifier import predict
from labs._lab import Lab
from minidl import nn, optim
from minidl.data import DataLoader, TensorDataset
from minidl.models import lenet
from minidl.transforms import Normalize

SIDE = 28                                                       # of the enlarged digits
lab = Lab("lenet", __doc__, datasets=("digits", "mnist", "fashion-mnist", "cifar10"),
          presets={"quick": {"train_size": 15_000, "epochs": 3}, "full": {"train_size": 60_000, "epochs": 3}},
          per_dataset={"digits": {"train_size": 1347, "epochs": 12, "batch_size": 32, "lr": 2e-3},
                       "cifar10": {"epochs": 10, "lr": 1e-3}}, batch_size=64,
          extra_arguments=lambda parser: parser.add_argument("--lr", type=rate, default=5e-4, metavar="RATE", help=(
              "the learning rate (default 0.0005; cifar10 0.001; digits 0.002, chosen on a part of its training set)")),
          seconds=lambda args: 8 + args.epochs * args.train_size * (0.0007 if args.dataset == "cifar10" else 0.0004))
args = lab.args

# %% The data
lab.section("The data")
images, labels = lab.images(train=True)                         # (N, C, H, W) from 0 to 1, and (N,)
test_images, test_labels = lab.images(train=False)
if args.dataset == "digits":                                    # (N, 1, 8, 8) -> (N, 1, 28, 28)
    images, test_images = (F.interpolate(x, size=(SIDE, SIDE), mode="bilinear") for x in (images, test_images))
    lab.say(f"Two 5×5 convolutions need larger images than 8×8: bilinear interpolation enlarges them to {SIDE}×{SIDE}. "
            "That adds pixels and no detail.")
shape, names, truth = tuple(images.shape[1:]), lab.classes, test_labels.numpy()
lab.say(f"{len(images):,} images to train on and {len(truth):,} to test with, {shape[0]}×{shape[1]}×{shape[2]} "
        "(channels, rows, columns), from 0 (black) to 1.")
inputs, test_inputs, mean, std = images, test_images, [0.0], [1.0]
if shape[0] == 3:                                               # photographs: no channel is mostly black
    mean, std = (x.tolist() for x in (images.mean((0, 2, 3)), images.std((0, 2, 3))))   # (N, 3, H, W) -> (3,)
    inputs, test_inputs = (Normalize(mean, std)(x) for x in (images, test_images))
    lab.say("The networks get (x - mean) / deviation for each channel, of the training images: means "
            f"{', '.join(f'{x:.3f}' for x in mean)}, deviations {', '.join(f'{x:.3f}' for x in std)}.")

# %% The network: what it computes, and how many numbers it learns
lab.section("The network")
lab.code(lenet)
minidl.manual_seed(args.seed)
at_start = lenet(shape)
table = minidl.summary(at_start, shape, verbose=False)


def arithmetic(layer):
    """A weight for every input of a unit, and a bias; a convolution uses them again at every place."""
    if isinstance(layer, nn.Conv2d):
        rows, columns = layer.kernel_size
        return f"({layer.in_channels}·{rows}·{columns} + 1) · {layer.out_channels}"
    return f"({layer.in_features} + 1) · {layer.out_features}" if isinstance(layer, nn.Linear) else ""


layers = [at_start[int(row.name)] for row in table.rows]
lab.table([[f"{row.name} {row.kind}", "×".join(map(str, row.output_shape[1:])), arithmetic(layer),
            f"{row.parameters:,}" if row.parameters else "", f"{row.multiply_adds:,}" if row.multiply_adds else ""]
           for row, layer in zip(table.rows, layers, strict=True)]
          + [["all", "", "", f"{table.parameters:,}", f"{table.multiply_adds:,}"]],
          ["layer", "output", "(inputs of a unit + 1) · units", "parameters", "multiply-adds"],
          "Layer by layer, for one image; with ReLU and max pooling the numbers are the same")
learning = [row for row in table.rows if row.parameters]        # two convolutions, then three dense layers
in_convolutions = sum(row.parameters for row in learning[:2]) / table.parameters
work_of_convolutions = sum(row.multiply_adds for row in learning[:2]) / table.multiply_adds
lab.say(f"The two convolutions do {work_of_convolutions:.0%} of the multiply-adds with {in_convolutions:.0%} of the "
        "parameters: the same few weights are used at every place of the image.")

# %% Training: both variants from the same start, on the same batches
lab.section("Training")
lab.say(f"Adam, learning rate {args.lr:g}, {args.batch_size} images a step. The test accuracy after each epoch is only "
        f"shown: nothing is chosen by it, there are {args.epochs} epochs whatever it says.")


def train(name, activation, pooling):
    """Train one variant. Returns it, its curves, the loss of each step, and what it says to the test images."""
    minidl.manual_seed(args.seed)                               # the same weights, and the same order of the images
    network = lenet(shape, activation=activation, pooling=pooling).to(lab.device)
    optimizer = optim.Adam(network.parameters(), lr=args.lr)
    loader = DataLoader(TensorDataset(inputs, labels), args.batch_size, shuffle=True)
    curves, step_losses = {"train_loss": [], "test_accuracy": [], "seconds_of_epochs": []}, []
    for epoch in range(1, args.epochs + 1):
        start, losses = time.perf_counter(), []
        network.train()
        for x, y in track(loader, f"{name}, epoch {epoch}", console=lab.console, transient=True,
                          disable=not lab.console.is_terminal):
            loss = F.cross_entropy(network(x.to(lab.device)), y.to(lab.device))         # forward
            optimizer.zero_grad()
            loss.backward()                                                             # dL/dw for every weight w
            optimizer.step()
            losses.append(loss.detach())            # stays on the device: reading it would wait for every step
        losses = minidl.stack(losses).cpu().numpy()
        curves["seconds_of_epochs"].append(time.perf_counter() - start)
        said = predict(network, test_inputs, lab.device).argmax(1).numpy()
        curves["train_loss"].append(float(losses.mean()))
        curves["test_accuracy"].append(float((said == truth).mean()))
        step_losses.append(losses)
        print(f"{name}, epoch {epoch}: training loss {losses.mean():.4f}, test accuracy "
              f"{curves['test_accuracy'][-1]:.2%}, {curves['seconds_of_epochs'][-1]:.1f} s", flush=True)
    return network, curves, np.concatenate(step_losses), said


lab.code(train)
variants = {"tanh + average": ("tanh_average", nn.Tanh, nn.AvgPool2d),
            "ReLU + max": ("relu_max", nn.ReLU, nn.MaxPool2d)}
networks, curves, step_losses, predicted = {}, {}, {}, {}
for name, (_, activation, pooling) in variants.items():
    networks[name], curves[name], step_losses[name], predicted[name] = train(name, activation, pooling)
first, second = variants
lab.report.table([[str(i + 1), *(f"{curves[name][key][i]:.4f}" for name in variants for key in curves[name])]
                  for i in range(args.epochs)],
                 ["epoch", *(f"{name}, {what}" for name in variants for what in ("loss", "test", "seconds"))],
                 "Epoch by epoch: training loss, test accuracy, seconds of training")
lab.figure(_lenet.draw_curves(step_losses, {name: curves[name]["test_accuracy"] for name in variants}), "curves",
           "Left: each point is the mean over a sixtieth of all steps. Right: the share of all test images; the last "
           "point is the result, whether or not it is the highest.")

# %% The test: both have classified the same images, so they are compared image by image
lab.section("The test")
count = len(truth)
accuracy = {name: curves[name]["test_accuracy"][-1] for name in variants}
seconds_per_epoch = {name: float(np.median(curves[name]["seconds_of_epochs"])) for name in variants}
lab.table([[name, f"{p:.2%} ± {(p * (1 - p) / count) ** 0.5:.2%}", f"{seconds_per_epoch[name]:.2f}"]
           for name, p in accuracy.items()],
          ["network", "test accuracy", "seconds an epoch"], f"After {args.epochs} epochs")
only_first = int(((predicted[first] == truth) & (predicted[second] != truth)).sum())
only_second = int(((predicted[second] == truth) & (predicted[first] != truth)).sum())
lab.say(f"± is one standard deviation of chance for {count:,} test images; another seed moves these numbers too. "
        f"{only_first:,} images are right with {first} only, {only_second:,} with {second} only. If the two were "
        f"equally good, that difference of {abs(only_first - only_second):,} would have a standard deviation of "
        f"{(only_first + only_second) ** 0.5:.0f}.")
lab.figure(_lenet.draw_mistakes(test_images, truth, predicted, names), "mistakes",
           "Test images that at least one of the two gets wrong, with the answers of both.")

# %% Class by class
of_class = np.bincount(truth, minlength=len(names))
confusion = {name: confusion_matrix(truth, said, labels=range(len(names)))                  # [true class, answer]
             for name, said in predicted.items()}
per_class = {name: counts.diagonal() / of_class for name, counts in confusion.items()}
deviation = {name: (p * (1 - p) / of_class) ** 0.5 for name, p in per_class.items()}
lab.table([[names[k], str(of_class[k]), *(f"{per_class[name][k]:.1%} ± {deviation[name][k]:.1%}" for name in variants)]
           for k in range(len(names))],
          ["class", "test images", *variants], "Accuracy of each class")
lab.say("± is one standard deviation of chance for the test images of the class. It is 0 where all of them are right "
        "or all are wrong, and then says nothing.")
figure, start = _lenet.draw_classes(names, per_class, deviation)
lab.figure(figure, "classes", "The whiskers are ± one standard deviation of chance for the test images of a class "
           f"({of_class.min():,} to {of_class.max():,})." + (f" The axis starts at {start:.0%}." if start else ""))
lab.figure(_lenet.draw_confusion(names, confusion), "confusion", "How many images of a class (row) got which answer "
           "(column). Right answers, on the diagonal, are counted but not coloured. Both have one scale.")

# %% What it has learned to look for: its kernels
lab.section("Kernels and maps")
weights = {name: (network[0].weight.detach().cpu(), network[3].weight.detach().cpu()) for name, network in
           {"Before training, the same for both": at_start, **networks}.items()}
figure, largest_weights = _lenet.draw_kernels(weights)
zero_in_colour = ", and in the colour kernels of the first convolution it is grey" if shape[0] == 3 else ""
lab.figure(figure, "kernels", "Kernels before and after training; all three rows have one scale. Red adds, blue "
           f"subtracts, 0 is white{zero_in_colour}. A map of the second convolution adds up what its column of kernels "
           "finds.")

# %% What becomes of six images: a hook on each layer of the two blocks keeps what the layer puts out
six = [int(np.flatnonzero(truth == k)[0]) for k in range(6)]    # the first test image of each of six classes
scales = {}
for name, network in networks.items():
    maps = {}
    handles = [network[i].register_forward_hook(
        lambda layer, inputs, output, i=i, maps=maps: maps.update({i: output.detach().cpu()})) for i in range(6)]
    predict(network, test_inputs[six], lab.device)
    for handle in handles:
        handle.remove()
    stages = [f"{part} {block}" for block in (1, 2) for part in ("convolution", *name.split(" + "))]
    titles = [f"is {names[truth[i]]}\nsays {names[predicted[name][i]]}" for i in six]
    figure, scales[name] = _lenet.draw_maps(test_images[six], titles, dict(zip(stages, maps.values(), strict=True)))
    lab.figure(figure, f"maps_{variants[name][0]}", f"{name}: the first test image of six classes, and its maps after "
               "each layer of the two blocks. Red is above 0, blue below, white is 0; each row has one scale, whose "
               "end stands at its left. Pooling leaves half as many places in each direction.")

# %%
dense = learning[2]
lab.question(f"Why does the first dense layer have {dense.parameters:,} of the {table.parameters:,} parameters?",
             f"It has a weight for every pair of an input and a unit, {arithmetic(layers[table.rows.index(dense)])}. "
             f"The second convolution computes {learning[1].multiply_adds:,} multiply-adds with "
             f"{learning[1].parameters:,} parameters, because it uses each of them at every place.")
lab.question(f"The accuracies are {accuracy[first]:.2%} and {accuracy[second]:.2%}. Does a difference come from ReLU "
             "or from max pooling?",
             "This run cannot tell: two things differ at once. Two more runs would be needed, one for each of the two "
             "other pairs: lenet(activation=nn.ReLU, pooling=nn.AvgPool2d), and nn.Tanh with nn.MaxPool2d.")
lab.question("The test images were looked at after every epoch. Why is that no cheating?",
             "Because nothing follows from it. The result is the accuracy after the last epoch, "
             + " and ".join(f"{accuracy[name]:.2%} with {name} (highest: {max(curves[name]['test_accuracy']):.2%})"
                            for name in variants) + ". To report the highest would be to choose by the test images.")
lab.metrics |= {"param_count": table.parameters, "layers": {
                    f"{row.name} {row.kind}": {"parameters": row.parameters, "multiply_adds": row.multiply_adds}
                    for row in table.rows}, "multiply_adds": table.multiply_adds,
                "lr": args.lr, "image_shape": shape, "mean": mean, "std": std, "test_count": count,
                "test_count_of_class": of_class,
                "right_only_with_tanh_average": only_first, "right_only_with_relu_max": only_second,
                "largest_weights": largest_weights}
for name, (key, activation, pooling) in variants.items():
    lab.metrics[key] = {**curves[name], "seconds_per_epoch": seconds_per_epoch[name],
                        "per_class_accuracy": per_class[name], "per_class_deviation": deviation[name],
                        "confusion": confusion[name], "map_scales": scales[name]}
    minidl.save({"dataset": args.dataset, "image_shape": shape, "seed": args.seed, "test_accuracy": accuracy[name],
                 "mean": mean, "std": std, "activation": activation.__name__, "pooling": pooling.__name__,
                 "state_dict": networks[name].state_dict()},
                lab.out / ("lenet.safetensors" if name == first else f"lenet_{key}.safetensors"))
lab.finish()
