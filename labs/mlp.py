"""A dense network with one hidden layer, trained by a loop written out, by Trainer, and by five optimizers.

First plain gradient descent: a loop by hand and `Trainer` take the same steps to the same numbers. Then momentum,
RMSprop, Adagrad and Adam beside it, from the same start and with the same batches, each with the rate of a grid that
is best on validation images; and the same five in a valley of two dimensions, where their paths can be seen.

    python -m labs.mlp                                  # 1,797 digits of 8×8 pixels, from scikit-learn
    python -m labs.mlp --dataset mnist                  # the first 8,000; fashion-mnist likewise
    python -m labs.mlp --dataset mnist --preset full    # all 60,000; five optimizers on the first 20,000
"""
# %%
import numpy as np
from rich.progress import track

import minidl
import minidl.nn.functional as F
from labs import _classifier, _optimizers
from labs._lab import Lab
from labs._optimizers import OPTIMIZERS
from minidl import nn, optim
from minidl.data import DataLoader, TensorDataset
from minidl.train import LightningModule, Trainer
from minidl.transforms import Normalize

HIDDEN, SLOW, COMPARED = 512, 1e-3, 20_000      # units; rate of plain descent; at most so many images for 50 runs
RATES, SEEDS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), 3       # of the five optimizers
# test accuracies after epochs 1 to 5 of MNIST with PyTorch 2.13: mean and standard deviation of eight seeds
PYTORCH = ("0.704 ± 0.014", "0.783 ± 0.005", "0.816 ± 0.004", "0.836 ± 0.003", "0.848 ± 0.003")

lab = Lab("mlp", __doc__, datasets=("digits", "mnist", "fashion-mnist"), epochs=5, batch_size=256,
          presets={"quick": {"train_size": 8_000}, "full": {"train_size": 60_000}},
          per_dataset={"digits": {"train_size": 1347, "epochs": 6, "batch_size": 64}},
          seconds=lambda args: 6 + args.epochs * (2 * args.train_size + 40 * min(args.train_size, COMPARED)) * (
              0.0012 / args.batch_size + (1e-6 if args.dataset == "digits" else 3.2e-5)))
args, device = lab.args, lab.device

# %% The data and the network
lab.section("The data and the network")
images, labels = lab.images(train=True)                     # (N, 1, H, W) from 0 to 1, and (N,)
test_images, test_labels = lab.images(train=False)
shape, inputs = images.shape[1:], images[0].numel()
mean, std = (round(float(value), 4) for value in (images.numpy().mean(dtype=float), images.numpy().std(dtype=float)))
training = TensorDataset(Normalize(mean, std)(images), labels)
test = TensorDataset(Normalize(mean, std)(test_images), test_labels)
lab.say(f"{len(training):,} training and {len(test):,} test images of {shape[1]}×{shape[2]} pixels x, normalised to "
        f"(x - {mean}) / {std}: mean and standard deviation of the training pixels, so that the inputs lie around 0.")


def network(seed):
    """The network, with the start that belongs to the seed; what is drawn after it, the batches, belongs to it too."""
    minidl.manual_seed(seed)
    return nn.Sequential(nn.Flatten(),                      # (N, 1, H, W) -> (N, H·W)
                         nn.Linear(inputs, HIDDEN), nn.Tanh(),          # -> (N, 512)
                         nn.Linear(HIDDEN, 10)).to(device)              # -> (N, 10), a score for each class


parameters = sum(p.numel() for p in network(args.seed).parameters())
assert parameters == inputs * HIDDEN + HIDDEN + HIDDEN * 10 + 10
lab.say(f"{inputs} inputs, {HIDDEN} hidden units with tanh, 10 scores: {inputs}·{HIDDEN} weights and {HIDDEN} biases, "
        f"then {HIDDEN}·10 and 10, together {parameters:,} parameters.")

# %% Plain gradient descent: the loop by hand
lab.section("One loop, by hand and by Trainer")


def measure(net, data):
    """Mean loss and accuracy of the network on a dataset."""
    loss, right = 0.0, 0
    with minidl.no_grad():
        for batch, truth in DataLoader(data, 1000):
            scores, truth = net(batch.to(device)), truth.to(device)
            loss += F.cross_entropy(scores, truth, reduction="sum").item()
            right += (scores.argmax(dim=1) == truth).sum().item()
    return loss / len(data), right / len(data)


def by_hand(training, measured, seed, make_optimizer, lr):
    """Train; returns the network, the loss of every step, and loss and accuracy on `measured` after every epoch."""
    net = network(seed)
    optimizer = make_optimizer(net.parameters(), lr)
    losses, epochs = [], []
    loader = DataLoader(training, args.batch_size, shuffle=True)
    for _ in range(args.epochs):
        for batch, truth in loader:
            loss = F.cross_entropy(net(batch.to(device)), truth.to(device))
            optimizer.zero_grad()
            loss.backward()                                             # g = dL/dp for every parameter p
            optimizer.step()                                            # p changes, against g
            losses.append(loss.detach())
        epochs.append(measure(net, measured))
    return net, minidl.stack(losses).cpu().numpy(), np.array(epochs)    # …, (steps,), (epochs, 2)


class MLP(LightningModule):
    """The same for a Trainer: what a batch means, how to measure, which optimizer."""

    def __init__(self, seed):
        super().__init__()
        self.net, self.losses = network(seed), []

    def training_step(self, batch, batch_idx):
        """The loss of a batch."""
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch, batch_idx):
        """How many images of a batch are right."""
        self.log("right", (self.net(batch[0]).argmax(dim=1) == batch[1]).sum(), reduce_fx="sum")

    def configure_optimizers(self):
        """Plain gradient descent."""
        return optim.SGD(self.parameters(), lr=SLOW)


lab.say(f"Plain gradient descent, p ← p - {SLOW:g} · g, with {args.batch_size} images a step, first by hand. The test "
        f"accuracy after each epoch is reported; nothing is chosen by it.")
for thing in (network, by_hand, MLP, Trainer._train_batch):
    lab.code(thing)
hand, hand_losses, hand_epochs = by_hand(training, test, args.seed, optim.SGD, SLOW)
lab.say("Then by Trainer; after each epoch, how many of the test images are right:")
module = MLP(args.seed)
trainer = Trainer(max_epochs=args.epochs, accelerator=device, logger=False, enable_checkpointing=False,
                  enable_model_summary=False)
trainer.fit(module, DataLoader(training, args.batch_size, shuffle=True), DataLoader(test, 1000))
trainer_losses = minidl.stack(module.losses).cpu().numpy()
accuracies = {"by hand": hand_epochs[:, 1],
              "by Trainer": np.array([epoch["right"] for epoch in trainer.history]) / len(test)}


def weights(net):
    """All parameters in one array, (P,)."""
    return np.concatenate([p.detach().cpu().numpy().ravel() for p in net.parameters()])


difference = {"losses": float(abs(hand_losses - trainer_losses).max()),
              "accuracies": float(abs(accuracies["by hand"] - accuracies["by Trainer"]).max()),
              "parameters": float(abs(weights(hand) - weights(module.net)).max())}
columns = {name: [*map("{:.4f}".format, column)] for name, column in accuracies.items()}
if (args.dataset, len(training), args.batch_size) == ("mnist", 60_000, 256):
    columns["PyTorch, 8 seeds"] = [*PYTORCH, *["–"] * args.epochs][:args.epochs]
lab.table([[str(i + 1), f"{losses.mean():.4f}", *(column[i] for column in columns.values())]
           for i, losses in enumerate(np.split(hand_losses, args.epochs))], ["epoch", "training loss", *columns],
          f"Plain gradient descent, rate {SLOW:g}: mean loss of the steps by hand, and accuracy on the test images")
lab.say(f"The largest difference between the two is {difference['losses']:g} among the losses of {len(hand_losses):,} "
        f"steps, {difference['accuracies']:g} among the accuracies, and {difference['parameters']:g} among the "
        f"{parameters:,} parameters at the end.")

# %% Five optimizers, and a rate for each
lab.section("Five optimizers")
lab.table([[name, choice.rule, choice.source] for name, choice in OPTIMIZERS.items()], ["optimizer", "step t", "from"],
          "g: gradient of p; v, s, m: kept for each p, 0 at first; m̂ = m / (1 - 0.9ᵗ), v̂ = v / (1 - 0.999ᵗ); no ε")
for kind in (optim.SGD, optim.RMSprop, optim.Adagrad, optim.Adam):
    lab.code(kind.update)
for_training, for_validation = _classifier.split(min(len(images), COMPARED), args.seed)
part, validation = (TensorDataset(training.tensors[0][i], labels[i]) for i in (for_training, for_validation))
lab.say(f"Each is trained on {len(part):,} training images with each rate of one grid, from the same start and with "
        f"the same batches. It keeps the rate with the lowest loss on {len(validation):,} other training images, drawn "
        f"at random, and trains with it from {SEEDS - 1} more starts. Networks with that rate are tested, once.")
runs = {(name, lr): by_hand(part, validation, args.seed, OPTIMIZERS[name].make, lr)
        for name, lr in track([(name, lr) for name in OPTIMIZERS for lr in RATES], "rates")}
# all finite: tanh keeps the inputs of the last layer within 1, so scores grow at most in proportion to the steps
final = {name: [float(runs[name, lr][2][-1, 0]) for lr in RATES] for name in OPTIMIZERS}
best = {name: RATES[int(np.argmin(losses))] for name, losses in final.items()}
lab.figure(_optimizers.draw_rates(RATES, final, f"Validation loss after {args.epochs} epochs"), "rates", "The large "
           "dots are the rates that are kept. With one rate for all, rates would be compared rather than optimizers.")

# %% Each with its rate
kept = {name: [runs[name, lr], *(by_hand(part, validation, args.seed + k, OPTIMIZERS[name].make, lr)
                                 for k in range(1, SEEDS))] for name, lr in track(best.items(), "seeds")}
tested = {name: np.array([measure(net, test)[1] for net, _, _ in seeds]) for name, seeds in kept.items()}
validated = {name: np.array([epochs[-1] for _, _, epochs in seeds]) for name, seeds in kept.items()}    # (SEEDS, 2)
first = weights(network(args.seed))
length = float(np.linalg.norm(first))
moved = {name: float(np.linalg.norm(weights(seeds[0][0]) - first)) / length for name, seeds in kept.items()}
rows = [[name, f"{best[name]:g}", *(f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" for values in (
    *validated[name].T, tested[name], tested[name] - tested["SGD"])), f"{moved[name]:.3f}"] for name in OPTIMIZERS]
lab.table(rows, ["optimizer", "rate", "validation loss", "its accuracy", "test accuracy", "less SGD's", "moved by"],
          f"After {args.epochs} epochs: mean ± standard deviation of {SEEDS} seeds, same start and batches for all")
wins = {name: int((tested[name] > tested["SGD"]).sum()) for name in OPTIMIZERS if name != "SGD"}
lab.say(f"Better than SGD on the test images, in how many of {SEEDS} seeds: " + ", ".join(
    f"{name} {count}" for name, count in wins.items()) + ". “Moved by”: how far the parameters are from their start, "
    "as a share of their length there. A finer or wider grid may change the order.")

window = max(len(kept["SGD"][0][1]) // 20, 1)
figure = _optimizers.draw_curves({name: seeds[0][1:] for name, seeds in kept.items()}, best, window)
lab.figure(figure, "optimizers", f"Seed {args.seed}: same start, same batches, each with the rate that it kept. Left: "
           f"every step, faint, and means of {window} steps.")

# %% The first layer
at_first = network(args.seed)[1].weight.detach().cpu().numpy()          # (512, H·W)
blocks = {"The start": at_first, **{f"What {name} added to it, rate {best[name]:g}": (
    kept[name][0][0][1].weight.detach().cpu().numpy() - at_first) for name in ("SGD", "Adam")}}
figure, end = _optimizers.draw_weights({title: units[:32].reshape(32, *shape[1:])       # (32, H·W) -> (32, H, W)
                                        for title, units in blocks.items()})
lab.figure(figure, "weights", f"The weights of the first 32 hidden units, one for each pixel. One scale for all: red "
           f"is positive, blue negative, the darkest {end:.2f} and beyond.")

# %% A valley, in which the paths can be seen
lab.section("A valley")
paths = {title: _optimizers.best_paths(angle) for title, angle in _optimizers.ANGLES.items()}
straight, turned = paths.values()
apart = {name: float(abs(straight[name][1] - turned[name][1]).max()) for name in OPTIMIZERS}
lab.say(f"The height h(a, b) = ½ (a² + {_optimizers.STEEP:g} b²) is gentle along the valley, a, and steep across it, "
        f"b. Each optimizer takes {_optimizers.STEPS} steps with whichever of {len(_optimizers.RATES)} rates makes its "
        f"path lowest on average. Then the same with parameters that are turned against a and b by 45°.")
lab.code(_optimizers.descend)
lab.figure(_optimizers.draw_valleys(paths), "valley", "The star is the lowest place. RMSprop and Adagrad divide the "
           "gradient of each parameter by its usual size: above, where b is steep and a is not, they are there soon; "
           "below, where both parameters are steep alike, it does not help. Adam has momentum too, and overshoots.")
lab.table([[name, f"{straight[name][2][-1]:.2g}", f"{turned[name][2][-1]:.2g}", f"{apart[name]:.1g}"]
           for name in OPTIMIZERS], ["optimizer", "height, upper", "height, lower", "paths apart"],
          f"Height after {_optimizers.STEPS} steps, and how far the upper and the lower path get apart in a or b")
lab.say("SGD and momentum take the same path in both, but for rounding: they do not see how the parameters are turned.")

# %%
net, (x, y) = network(args.seed), (tensor[:args.batch_size].to(device) for tensor in part.tensors)
F.cross_entropy(net(x), y).backward()
gradient = np.concatenate([p.grad.cpu().numpy().ravel() for p in net.parameters()])
optim.Adam(net.parameters(), lr=SLOW).step()
spread, spread_of_steps = (float(np.divide(*np.quantile(abs(values), (0.9, 0.1)))) for values in (
    gradient, weights(net) - first))
step = float(np.linalg.norm(gradient)) * SLOW
lab.question("Why do the loop by hand and Trainer give the same numbers, although each step rounds?",
             "The seed decides the start and the order of the images. Both do the same operations in the same order, "
             "and so round in the same way. " + ("Here the device adds in a varying order, so they differ a little."
             if any(difference.values()) else "All losses, accuracies and parameters are the same to the last bit."))
lab.question(f"Why does plain gradient descent with the rate {SLOW:g} crawl?",
             f"Its step is the rate times the gradient. The first one has the length {step:.2g}, the parameters "
             f"{length:.3g}; {len(hand_losses)} such steps in one direction are {len(hand_losses) * step / length:.0%} "
             f"of that. In the comparison its validation loss ends at {final['SGD'][RATES.index(SLOW)]:.3f}, with "
             f"the rate {best['SGD']:g} at {min(final['SGD']):.3f}.")
lab.question("What does Adam divide by?",
             f"By √v̂, the usual size of the parameter's own gradients. In the first step that is the size of g itself, "
             f"so every parameter moves by the rate. Of the first gradients, the size that 90 % stay below is "
             f"{spread:.0f} times the one that 10 % stay below; of Adam's first steps, {spread_of_steps:.2f} times.")
lab.metrics |= {
    "param_count": parameters, "hidden": HIDDEN, "mean": mean, "std": std, "train_count": len(training),
    "test_count": len(test), "rate": SLOW, "steps": len(hand_losses), "difference": difference,
    "train_loss": [losses.mean() for losses in np.split(hand_losses, args.epochs)],
    "test_accuracy_by_hand": accuracies["by hand"], "test_accuracy_by_trainer": accuracies["by Trainer"],
    "compared": {"train_count": len(part), "val_count": len(validation), "rates": RATES, "val_loss_of_rates": final,
                 "rate": best, "seeds": SEEDS, "val_loss": {name: values[:, 0] for name, values in validated.items()},
                 "val_accuracy": {name: values[:, 1] for name, values in validated.items()}, "test_accuracy": tested,
                 "better_than_sgd": wins, "moved": moved, "scale_of_weights": end},
    "valley": {name: {"rates": [straight[name][0], turned[name][0]], "apart": apart[name],
                      "heights": [straight[name][2][-1], turned[name][2][-1]]} for name in OPTIMIZERS},
    "first_step": {"length": step, "of_parameters": length, "spread_of_gradient": spread,
                   "spread_of_adam": spread_of_steps}}
lab.finish()
