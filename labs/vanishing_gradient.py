"""How the gradient of a deep network vanishes or explodes on its way to the first layers, and what keeps it.

First a chain of five neurons, by hand; then dense networks of 2 to 50 layers on real images, with three activation
functions and three initializations; then what normalization and residual connections change, and who learns with it.

    python -m labs.vanishing_gradient
    python -m labs.vanishing_gradient --dataset mnist
    python -m labs.vanishing_gradient --preset full         # more draws of the weights, longer training

Gradients are computed in float64: in float32 many of them would be 0, because they are below its smallest number.
"""
# %%
import itertools

import matplotlib.pyplot as plt
import numpy as np
from rich.progress import track

import minidl.nn.functional as F
from labs import _classifier, _vanishing
from labs._arguments import positive, rate
from labs._lab import Lab
from labs._vanishing import ACTIVATIONS, SCHEMES, WIDTH, draw, mean_log
from minidl.errors import SettingError

DEPTHS = (2, 5, 10, 20, 50)
SMALLEST = float(np.finfo(np.float32).tiny)                     # below it, float32 has few digits and then none


def arguments(parser):
    """How often weights are drawn, and which networks are trained how fast."""
    parser.add_argument("--draws", type=positive, metavar="N", help="draws of the weights (quick 3, full 12)")
    parser.add_argument("--starts", type=positive, metavar="N", help="trainings per network (quick 2, full 5)")
    parser.add_argument("--depth", type=positive, default=12, metavar="N", help="layers of those trained (default 12)")
    parser.add_argument("--lr", type=rate, default=0.02, metavar="RATE", help="of all trainings (default 0.02)")


lab = Lab("vanishing_gradient", __doc__, datasets=("digits", "mnist", "fashion-mnist"), batch_size=64,
          presets={"quick": {"draws": 3, "starts": 2, "epochs": 6, "train_size": 2000},
                   "full": {"draws": 12, "starts": 5, "epochs": 40, "train_size": 10_000}}, extra_arguments=arguments,
          seconds=lambda args: 7 + 1.5 * args.draws + 0.0026 * args.depth * args.starts * args.epochs * (
              args.train_size / args.batch_size))
args = lab.args
if args.draws < 2:
    raise SettingError("got 1, expected at least 2: the spread over draws is shown", where="--draws")
if args.batch_size < 2:
    raise SettingError("got 1, expected at least 2: BatchNorm takes means over a batch", where="--batch-size")

# %% Five neurons in a chain: y = f5(w5 · f4(w4 · f3(w3 · f2(w2 · f1(w1 · x)))))
lab.section("Five neurons in a chain")
X = 2.0
WEIGHTS = {"A": (1.2, 0.1, 1.2, -0.5, 1.0), "B": (1.0, 0.1, 1.2, 0.5, 1.0)}
lab.code(_vanishing.run_chain)
FUNCTIONS = {"sigmoid": [F.sigmoid] * 5, "relu": [F.relu] * 4 + [F.sigmoid]}
chains = {f"{what}, weights {name}": _vanishing.run_chain(X, WEIGHTS[name], FUNCTIONS[what], lab.device)
          for what, name in (("sigmoid", "A"), ("relu", "B"), ("sigmoid", "B"), ("relu", "A"))}
sigmoid_chain, relu_chain, sigmoid_b, relu_a = chains.values()
lab.say(f"One input, x = {X:g}, one weight in each neuron, no bias. Weights A are {WEIGHTS['A']}, weights B "
        f"{WEIGHTS['B']}. In the chains called relu the last neuron is a sigmoid: all outputs are between 0 and 1.")
lab.table([[name, f"{run['output']:.4f}", *(f"{run['dy_dw'][i] + 0:.4e}" for i in (0, -1))]     # -0 + 0 is 0
           for name, run in chains.items()], ["chain", "output y", "dy/dw1", "dy/dw5"], "First and last gradient")
lab.say(f"The first two lines are the usual comparison: the gradient of the first weight is "
        f"{sigmoid_chain['dy_dw'][0]:.4e} with sigmoids and {relu_chain['dy_dw'][0]:.4f} with relu. Their weights "
        f"differ; the other two lines change one thing at a time. With weights B too, sigmoids have "
        f"{sigmoid_b['dy_dw'][0]:.4e}: it is the function that makes the difference. And with weights A, where w4 is "
        f"negative, relu has {relu_a['dy_dw'][0] + 0:g}: a unit that is silent lets nothing through at all.")
slopes = [s * (1 - s) for s in 1 / (1 + np.exp(-np.array(sigmoid_chain["z"])))]
lab.table([[str(i + 1), w, z, float(slope), float(w * slope), dz, dw] for i, (w, z, slope, dz, dw) in enumerate(zip(
    WEIGHTS["A"], sigmoid_chain["z"], slopes, sigmoid_chain["dy_dz"], sigmoid_chain["dy_dw"], strict=True))],
          ["neuron", "w", "z", "f'(z)", "w · f'(z)", "dy/dz", "dy/dw"],
          "The chain of sigmoids: every neuron multiplies the gradient that passes it by w · f'(z)")

# %% Deep networks
lab.section("Depth, activation and initialization")
images, labels = lab.images(train=True)
for_training, for_validation = _classifier.split(len(images), args.seed)
pixels = images.flatten(1)                                      # (N, 1, H, W) -> (N, H·W)
train_x, train_y = (values[for_training].to(lab.device) for values in (pixels, labels))
val_x, val_y = (values[for_validation].to(lab.device) for values in (pixels, labels))
batch_x, batch_y = train_x[:256].double(), train_y[:256]        # the same images for every network


def gradient_norms(depth, activation, scheme, kind="plain"):
    """‖dL/dW‖ of each layer but the last, for each draw of the weights: (draws, depth)."""
    norms = []
    for seed in range(args.seed, args.seed + args.draws):
        model = _vanishing.network(pixels.shape[1], depth, activation, scheme, kind, seed).double().to(lab.device)
        norms.append(_vanishing.gradient_norms(model, batch_x, batch_y))
    return np.stack(norms)


for thing in (_vanishing.Layer, _vanishing.network, _vanishing.gradient_norms):
    lab.code(thing)
norms = {(scheme, name, depth): gradient_norms(depth, name, scheme)
         for scheme, name, depth in itertools.product(SCHEMES, ACTIVATIONS, DEPTHS)}
all_norms = np.concatenate([values.ravel() for values in norms.values()])
zeros, norm_count = int((all_norms == 0).sum()), len(all_norms)
assert np.isfinite(all_norms).all(), "a gradient is not finite"
lab.say(f"Dense networks of {WIDTH} units a layer, {min(DEPTHS)} to {max(DEPTHS)} layers deep, biases 0; the gradient "
        f"of the cross-entropy for {len(batch_x)} training images, before any training. Xavier (Glorot, Bengio 2010) "
        f"gives the weights the variance 1/width, Kaiming (He et al. 2015) 2/width. {args.draws} draws of the weights; "
        f"means and standard deviations are those of logarithms. Norms that are exactly 0: {zeros} of {norm_count:,}"
        + (", left out of the means." if zeros else "."))
figure, grid = plt.subplots(3, 3, figsize=(10.5, 8), layout="constrained", sharex=True, sharey="col")
for (row, name), (column, scheme) in itertools.product(enumerate(ACTIVATIONS), enumerate(SCHEMES)):
    axes = grid[row, column]
    for i, depth in enumerate(DEPTHS):
        draw(axes, range(1, depth + 1), norms[scheme, name, depth], color=plt.cm.viridis_r((i + 0.7) / 5.5),
             label=f"{depth} layers", marker=".", markersize=4)
    axes.set_title(f"{name}, {scheme}", fontsize=11)
    if column == 0:
        axes.axhline(SMALLEST, color="crimson", linestyle="--", linewidth=1)
        axes.set_ylabel("‖dL/dW‖ (log scale)")
grid[0, 0].text(50, SMALLEST / 1e3, "float32 ends", color="crimson", fontsize=9, ha="right", va="top")
for axes in grid[-1]:
    axes.set_xlabel("layer (1: the first)")
figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize=10)
lab.figure(figure, "layers", "Each line is one network, from its first layer to its last; the bands are ± one standard "
           "deviation over the draws. The panels of a column have one scale. A line that rises is a gradient that "
           "shrinks on its way back to layer 1. Lines that are level, but lower the deeper the network is: there the "
           "signal shrinks forwards as the gradient does backwards, and all layers get equally little.")

# %% The same as a summary: the first layer's gradient against depth
figure, grid = plt.subplots(2, 3, figsize=(10.5, 6), layout="constrained", sharex=True)
rows, summary, deepest = [], {}, max(DEPTHS)
for column, scheme in enumerate(SCHEMES):
    for colour, name in enumerate(ACTIVATIONS):
        first = np.stack([norms[scheme, name, depth][:, 0] for depth in DEPTHS], 1)         # (draws, depths)
        last = np.stack([norms[scheme, name, depth][:, -1] for depth in DEPTHS], 1)
        ratios = np.divide(first, last, out=np.zeros_like(first), where=last > 0)
        draw(grid[0, column], DEPTHS, first, color=f"C{colour}", label=name, marker=".")
        draw(grid[1, column], DEPTHS, ratios, color=f"C{colour}", label=name, marker=".")
        (logs, spread), (ratio_logs, ratio_spread) = mean_log(first), mean_log(ratios)
        fact = {"first_norm": dict(zip(DEPTHS, (10 ** logs).filled(0), strict=True)),
                "log10_spread": float(spread[-1]), "first_to_last": float(10 ** ratio_logs[-1]),
                "log10_ratio_spread": float(ratio_spread[-1]),
                "per_layer": float(10 ** ((logs[-1] - logs[DEPTHS.index(10)]) / (deepest - 10)))}
        summary.setdefault(scheme, {})[name] = fact
        rows.append([scheme, name, f"{fact['first_norm'][2]:.1e}", f"{fact['first_norm'][10]:.1e}",
                     f"{fact['first_norm'][deepest]:.1e}", f"{fact['log10_spread']:.2f}",
                     f"{fact['first_to_last']:.1e}", f"{fact['per_layer']:.3f}"])
    grid[0, column].set_title(scheme, fontsize=12)
    grid[1, column].set_xlabel("depth (layers)")
grid[0, 0].set_ylabel("‖dL/dW‖ of the first layer")
grid[1, 0].set_ylabel("first layer / last layer")
grid[0, 0].legend(fontsize=9)
lab.figure(figure, "depth", "Above: the gradient of the first layer. Below: the same as a part of the last layer's. "
           "A ratio near 1 does not mean that something arrives: both ends may have shrunk, as the upper row shows.")
lab.table(rows, ["weights", "function", "2 layers", "10 layers", f"{deepest} layers", "± (log10)", "first/last",
                 "per layer"], f"‖dL/dW‖ of the first layer; at {deepest} layers its spread over the draws and its "
          f"part of the last layer's; and by how much one more layer multiplies it, from 10 to {deepest} layers")
lost = [f"{name} with {scheme}" for scheme in SCHEMES for name in ACTIVATIONS
        if summary[scheme][name]["first_norm"][deepest] < SMALLEST]
lab.say(f"float32 has few digits below {SMALLEST:.1e}, and soon only 0. The first of {deepest} layers would get such a "
        f"gradient from: {', '.join(lost) or 'none of these'}.")

# %% What normalization and residual connections change
lab.section("Normalization and residual connections")
KINDS, OWN = ("plain", "BatchNorm", "LayerNorm", "residual"), {"sigmoid": "Xavier", "relu": "Kaiming"}
figure, panels = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
remedies, rows = {}, []
for axes, (name, scheme) in zip(panels, OWN.items(), strict=True):
    for colour, kind in enumerate(KINDS):
        values = norms[scheme, name, deepest] if kind == "plain" else gradient_norms(deepest, name, scheme, kind)
        draw(axes, range(1, deepest + 1), values, color=f"C{colour}", label=kind)
        logs = mean_log(values)[0].filled(np.nan)
        remedies.setdefault(name, {})[kind] = {"norms": 10 ** logs, "first_to_last": float(10 ** (logs[0] - logs[-1]))}
        rows.append([name, kind, *(f"{10 ** logs[i]:.1e}" for i in (0, 1, deepest // 2, -1)),
                     f"{10 ** (logs[0] - logs[-1]):.1e}"])
    axes.set_title(f"{name}, {scheme}, {deepest} layers", fontsize=12)
    axes.set_xlabel("layer (1: the first)")
panels[0].set_ylabel("‖dL/dW‖ (log scale)")
panels[0].legend(fontsize=9)
lab.figure(figure, "remedies", f"The gradient in each layer of networks of {deepest} layers, from the same draws: as "
           f"before (plain), with a normalization in each layer, and with a way around each layer but the first. "
           f"BatchNorm lets the gradient of a deep network grow towards the first layer (Yang et al. 2019, "
           f"arXiv:1902.08129); the table's last column says by how much here.")
lab.table(rows, ["function", "network", "layer 1", "layer 2", f"layer {deepest // 2 + 1}", f"layer {deepest}",
                 "first / last"], "‖dL/dW‖, means over the draws")

# %% Who learns?
lab.section("Who learns?")
VARIANTS = {"sigmoid": ("sigmoid", "plain", args.depth), "relu": ("relu", "plain", args.depth),
            "sigmoid, BatchNorm": ("sigmoid", "BatchNorm", args.depth),
            "sigmoid, residual": ("sigmoid", "residual", args.depth), "relu, 2 layers": ("relu", "plain", 2)}
lab.code(_vanishing.train)
lab.say(f"{args.depth} layers of {WIDTH} units, {len(train_x):,} images to train on, {args.epochs} epochs of "
        f"batches of {args.batch_size}, gradient descent with learning rate {args.lr:g} and momentum 0.9. Nothing was "
        f"tuned for one of them: a rate of its own might help each. Sigmoid starts with Xavier's variance, relu with "
        f"Kaiming's, from the same draws. Accuracies are those of the {len(val_x):,} images set aside; the test images "
        f"are not used in this lab.")
training, validation, accuracies = (train_x, train_y), (val_x, val_y), {}
for name, (activation, kind, depth) in track(VARIANTS.items(), description="training"):
    for seed in range(args.seed, args.seed + args.starts):
        model = _vanishing.network(pixels.shape[1], depth, activation, OWN[activation], kind, seed).to(lab.device)
        accuracies.setdefault(name, []).append(
            _vanishing.train(model, training, validation, args.epochs, args.batch_size, args.lr))
frequent = float(np.bincount(val_y.cpu().numpy()).max() / len(val_y))
figure, axes = plt.subplots(figsize=(9, 4.4), layout="constrained")
epochs = np.arange(1, args.epochs + 1)
for colour, (name, curves) in enumerate(accuracies.items()):
    axes.plot(epochs, np.mean(curves, 0), f"C{colour}{':' if 'layers' in name else '-'}", marker=".", label=name)
    axes.fill_between(epochs, np.min(curves, 0), np.max(curves, 0), color=f"C{colour}", alpha=0.15, linewidth=0)
axes.axhline(frequent, color="0.4", linestyle="--", linewidth=1, label="always the most frequent class")
axes.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1.02))
axes.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
axes.grid(alpha=0.3)
figure.legend(loc="outside right upper", fontsize=9)
lab.figure(figure, "training", f"Networks of {args.depth} layers, and a relu network of 2 for comparison. Lines are "
           f"means of {args.starts} starts, bands go from the lowest to the highest.")
final = {name: np.array(curves)[:, -1] for name, curves in accuracies.items()}
lab.table([[name, OWN[VARIANTS[name][0]], f"{values.mean():.1%}", f"{values.min():.1%} to {values.max():.1%}"]
           for name, values in final.items()], ["network", "weights", "accuracy", "of single starts"],
          f"Validation accuracy after {args.epochs} epochs (always the most frequent class: {frequent:.1%})")

# %%
xavier, kaiming = summary["Xavier"], summary["Kaiming"]
lab.question("Why does the gradient of the sigmoid vanish?",
             f"Each layer multiplies it by W and by f', and f' of the sigmoid is at most 1/4. With Xavier's weights W "
             f"alone keeps the size of a vector on average, so that about 1/4 a layer is left; here it is "
             f"{xavier['sigmoid']['per_layer']:.3f}. With {deepest} layers the first one's gradient has the norm "
             f"{xavier['sigmoid']['first_norm'][deepest]:.0e}. In the chain of five the factors w · f' multiply to "
             f"{sigmoid_chain['dy_dz'][0] / slopes[-1]:.1e} from the last neuron to the first.")
lab.question("Why has Kaiming's variance the factor 2?",
             f"A relu sets half of its inputs to 0, and with them half of the mean square, forwards and backwards; "
             f"twice the variance gives it back. Without the factor (Xavier) a layer should leave 1/√2 = 0.707, and "
             f"here it leaves {xavier['relu']['per_layer']:.3f}; with it, {kaiming['relu']['per_layer']:.3f}. Those "
             f"are means: the draws differ more from each other the deeper and the narrower the network is.")
lab.question("Why does a residual connection keep the gradient?",
             f"The derivative of x + f(x) is 1 + f': whatever f' is, the 1 is a way on which nothing is multiplied. "
             f"For the sigmoid, first / last is {remedies['sigmoid']['plain']['first_to_last']:.0e} without and "
             f"{remedies['sigmoid']['residual']['first_to_last']:.2g} with it. The part of each layer is divided by "
             f"√depth here; if it were not, the sum would grow with every layer.")
lab.metrics |= {"width": WIDTH, "depths": DEPTHS, "trained_depth": args.depth, "lr": args.lr, "draws": args.draws,
                "starts": args.starts, "chain_input": X, "chain_weights": WEIGHTS, "chains": chains,
                "chain_slopes": slopes, "summary": summary, "remedies": remedies, "zero_norms": zeros,
                "norm_count": norm_count, "smallest_of_float32": SMALLEST, "below_float32": lost,
                "val_accuracy": accuracies, "val_most_frequent": frequent, "train_count": len(train_x),
                "val_count": len(val_x), "batch_count": len(batch_x)}
lab.finish()
