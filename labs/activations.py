"""Thirteen activation functions: value and derivative, by autograd and by formula, and what they do to a deep network.

The derivative decides how much of a gradient gets through a unit. Each function is computed by the engine, its
derivative by a backward pass, and both are compared with the formula, which stands in this file in NumPy.

    python -m labs.activations

In a deep network the derivatives of all layers are multiplied. The last part computes what that makes of the signal and
of the gradient in a wide network with random weights; `labs.vanishing_gradient` then measures it on real networks.
"""
# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import ndtr

import minidl
import minidl.nn.functional as F
from labs._lab import Lab

SATURATED = 0.05        # where |f'| is below this, a unit lets less than a twentieth of the gradient through
DEPTH = 50              # layers of the network of the last part
FAR = 1e6               # stands for infinity: all functions here have reached their limits long before, or have none

lab = Lab("activations", __doc__, datasets=(), seconds=lambda args: 3)
args = lab.args


# %% The formulas, beside the engine's functions: name -> the engine's f, then f(x) and f'(x) in NumPy, then where two
# formulas meet. At such a place f' is what the engine answers.
def s(x):
    """The sigmoid, s(x) = 1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772           # λ and α of selu
slope_of_prelu = minidl.tensor([0.25], dtype=minidl.float64, device=lab.device)
FUNCTIONS = {
    # f = s(x);   f' = s (1 - s)
    "sigmoid": (F.sigmoid, s, lambda x: s(x) * (1 - s(x)), ()),
    # f = tanh x;   f' = 1 - tanh² x
    "tanh": (F.tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2, ()),
    # f = x - tanh x;   f' = tanh² x
    "tanhshrink": (F.tanhshrink, lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2, ()),
    # f = log(1 + e^x);   f' = s(x)
    "softplus": (F.softplus, lambda x: np.log1p(np.exp(x)), s, ()),
    # f = max(x, 0)
    "relu": (F.relu, lambda x: np.maximum(x, 0), lambda x: np.where(x > 0, 1.0, 0.0), (0,)),
    # f = min(max(x, 0), 6)
    "relu6": (F.relu6, lambda x: np.clip(x, 0, 6), lambda x: np.where((x > 0) & (x < 6), 1.0, 0.0), (0, 6)),
    # f = x where x > 0, else x/100
    "leaky_relu": (F.leaky_relu, lambda x: np.where(x > 0, x, x / 100), lambda x: np.where(x > 0, 1.0, 0.01), (0,)),
    # f = x where x > 0, else w x; the slope w is learned, here 1/4 as at its start (He et al. 2015, arXiv:1502.01852)
    "prelu": (lambda x: F.prelu(x, slope_of_prelu), lambda x: np.where(x > 0, x, x / 4),
              lambda x: np.where(x > 0, 1.0, 0.25), (0,)),
    # f = x where x > 0, else e^x - 1 (Clevert et al. 2015, arXiv:1511.07289)
    "elu": (F.elu, lambda x: np.where(x > 0, x, np.exp(x) - 1), lambda x: np.where(x > 0, 1.0, np.exp(x)), (0,)),
    # f = x where x > 0, else α (e^(x/α) - 1), here with α = 2 (Barron 2017, arXiv:1704.07483)
    "celu": (lambda x: F.celu(x, 2.0), lambda x: np.where(x > 0, x, 2 * (np.exp(x / 2) - 1)),
             lambda x: np.where(x > 0, 1.0, np.exp(x / 2)), (0,)),
    # f = λ x where x > 0, else λ α (e^x - 1) (Klambauer et al. 2017, arXiv:1706.02515)
    "selu": (F.selu, lambda x: SCALE * np.where(x > 0, x, ALPHA * (np.exp(x) - 1)),
             lambda x: SCALE * np.where(x > 0, 1.0, ALPHA * np.exp(x)), (0,)),
    # f = x s(x);   f' = s + x s (1 - s) (Elfwing et al. 2017, arXiv:1702.03118)
    "silu": (F.silu, lambda x: x * s(x), lambda x: s(x) + x * s(x) * (1 - s(x)), ()),
    # f = x Φ(x);   f' = Φ + x φ; Φ: the normal distribution, φ: its density (Hendrycks, Gimpel 2016, arXiv:1606.08415)
    "gelu": (F.gelu, lambda x: x * ndtr(x), lambda x: ndtr(x) + x * np.exp(-x ** 2 / 2) / math.sqrt(2 * math.pi), ())}


# %% The same by the engine
def by_autograd(function, numbers):
    """f(x) and f'(x) for each of the numbers, float64 (N,): one backward pass of the sum of all f(x)."""
    x = minidl.tensor(np.asarray(numbers, np.float64), device=lab.device, requires_grad=True)
    y = function(x)
    y.sum().backward()                                          # d(sum of f(x_j)) / dx_i = f'(x_i)
    return y.detach().cpu().numpy(), x.grad.cpu().numpy()


lab.section("Value and derivative")
lab.code(by_autograd)
x = np.arange(-800, 801) / 100                                  # -8 to 8, with 0 and 6 exactly
measured, errors = {}, {}
for name, (function, value, slope, _) in FUNCTIONS.items():
    measured[name] = by_autograd(function, x)
    errors[name] = [float(abs(ours - formula(x)).max()) for ours, formula in
                    zip(measured[name], (value, slope), strict=True)]
    assert max(errors[name]) < 1e-12, f"{name}: engine and formula differ by {max(errors[name]):.1e}"
worst = max(errors, key=lambda name: max(errors[name]))
lab.say(f"At {len(x):,} points from -8 to 8, in float64, value and derivative of all {len(FUNCTIONS)} functions agree "
        f"with their formulas. The largest difference is {max(errors[worst]):.1e}, of {worst}.")
# the slope of prelu is a parameter: with one slope for each x, the backward pass shows df/dw at each x
x_row = minidl.tensor(x[None], device=lab.device)               # (1, C): one number in each of C channels
weight = minidl.full((len(x),), 0.25, dtype=minidl.float64, device=lab.device, requires_grad=True)      # (C,)
F.prelu(x_row, weight).sum().backward()
weight_slope = weight.grad.cpu().numpy()
weight_error = float(abs(weight_slope - np.minimum(x, 0)).max())                    # df/dw = min(x, 0)
assert weight_error < 1e-12, f"prelu: df/dw is wrong by {weight_error:.1e}"


def draw(axes, title, f, slope, dots):
    """Value and derivative as lines, the formula of the derivative as dots, and grey where |f'| is small."""
    axes.fill_between(x, -9, 9, where=abs(slope) < SATURATED, color="0.88", label=f"|derivative| < {SATURATED}")
    if f is not None:
        axes.plot(x, f, "C0", label="value, by the engine")
    axes.plot(x, slope, "C1", label="derivative, by autograd")
    axes.plot(x[::50], dots[::50], "k.", markersize=4.5, label="derivative, by its formula")
    axes.axhline(0, color="0.5", linewidth=0.6)
    axes.axvline(0, color="0.5", linewidth=0.6)
    axes.set_title(title, fontsize=12)
    axes.set(xlim=(-4, 4), ylim=(-2, 3))


figure, grid = plt.subplots(4, 4, figsize=(10.5, 10.5), layout="constrained")
titles = {"celu": "celu, α = 2", "elu": "elu, α = 1", "leaky_relu": "leaky_relu, slope 0.01",
          "prelu": "prelu, w = 0.25", "relu6": "relu6 (other scales)"}
for axes, (name, (_, _, slope, _)) in zip(grid.flat, FUNCTIONS.items(), strict=False):
    draw(axes, titles.get(name, name), *measured[name], slope(x))
grid.flat[list(FUNCTIONS).index("relu6")].set(xlim=(-4, 8), ylim=(-2, 7))
draw(grid[3, 1], "prelu: df/dw, not df/dx", None, weight_slope, np.minimum(x, 0))
draw(grid[3, 2], "sigmoid: derivative, enlarged", None, measured["sigmoid"][1], FUNCTIONS["sigmoid"][2](x))
grid[3, 2].axhline(0.25, color="crimson", linestyle="--", linewidth=1)
grid[3, 2].text(-3.8, 0.275, "1/4, reached at x = 0", color="crimson", fontsize=10)
grid[3, 2].set(xlim=(-4, 4), ylim=(0, 0.3))
for axes in grid[:, 0]:
    axes.set_ylabel("f, f'")
for axes in (*grid[2, 3:], *grid[3, :3]):
    axes.set_xlabel("x")
grid[3, 3].remove()
figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="lower right", bbox_to_anchor=(0.995, 0.08), fontsize=10)
lab.figure(figure, "functions", f"The dots lie on the line: the backward pass computes the formula. Grey is where "
           f"|f'| is below {SATURATED}, by the same rule in all panels: a unit there hardly lets its gradient through. "
           f"Sigmoid and tanh saturate on both sides, relu and its relatives on the left only; leaky_relu keeps a "
           f"hundredth there, and prelu as much as it learns.")

# %% The same in numbers. For inputs z from the standard normal distribution, the means are integrals, not draws.
lab.section("In numbers")
step = 0.002
z = (np.arange(-4000, 4000) + 0.5) * step                       # the middles of small cells: kinks lie between them
density = np.exp(-z ** 2 / 2) / math.sqrt(2 * math.pi) * step   # sums to 1


def limit(value):
    """A value far out as text: infinite if it is large."""
    return f"{value:.3g}" if abs(value) < FAR / 1000 else "∞" if value > 0 else "−∞"


facts = {}
for name, (function, *_) in FUNCTIONS.items():
    f, slope = (np.concatenate(pair) for pair in zip(measured[name], by_autograd(function, [-FAR, FAR]), strict=True))
    at_z, slope_at_z = by_autograd(function, z)
    facts[name] = {"lowest": float(f.min()), "highest": float(f.max()), "slope_left": float(abs(slope[-2])),
                   "slope_right": float(slope[-1]), "slope_at_0": float(slope[len(x) // 2]),
                   "largest_slope": float(slope.max()), "mean": float(density @ at_z),
                   "mean_square": float(density @ at_z ** 2), "mean_square_slope": float(density @ slope_at_z ** 2),
                   "saturated_share": float(density @ (abs(slope_at_z) < SATURATED))}
lab.table([[name, f"{limit(fact['lowest'])} … {limit(fact['highest'])}",
            f"{fact['slope_left']:.3g} and {fact['slope_right']:.3g}", f"{fact['slope_at_0']:.3g}",
            f"{fact['largest_slope']:.3g}", f"{fact['saturated_share']:.0%}", f"{round(fact['mean'], 3) + 0:.3f}",
            f"{fact['mean_square']:.3f}", f"{fact['mean_square_slope']:.3f}", f"{errors[name][1]:.0e}"]
           for name, fact in facts.items()],
          ["function", "values", "f' at ±∞", "f'(0)", "max f'", "small f'", "mean f", "mean f²", "mean f'²", "error"],
          f"From “small f'” (share with |f'| < {SATURATED}) to “mean f'²”: for standard normal inputs. “error”: the "
          f"largest difference between autograd and formula")
lab.say(f"The derivative of the sigmoid lies between 0 and 1/4: s (1 − s) is largest where s = 1/2, at x = 0. Autograd "
        f"finds {facts['sigmoid']['slope_at_0']:.4f} there, and nowhere more than "
        f"{facts['sigmoid']['largest_slope']:.4f}. Only selu has a mean f of {abs(facts['selu']['mean']):.3f} and a "
        f"mean f² of {facts['selu']['mean_square']:.3f}: what comes in with mean 0 and variance 1 leaves so.")
kinks = [{"function": name, "at": float(at), "left": float(slope(at - 1e-9)), "right": float(slope(at + 1e-9)),
          "autograd": float(by_autograd(function, [at])[1][0])}
         for name, (function, _, slope, places) in FUNCTIONS.items() for at in places]
for row in kinks:
    row["smooth"] = abs(row["left"] - row["right"]) < 1e-6
lab.table([[row["function"], f"{row['at']:g}", f"{row['left']:.4g}", f"{row['right']:.4g}", f"{row['autograd']:.4g}",
            "no kink" if row["smooth"] else "kink"] for row in kinks],
          ["function", "at x", "f' just left", "f' just right", "autograd says", ""],
          "Where two formulas meet: what the derivative is there")
elu_slope = float(by_autograd(lambda numbers: F.elu(numbers, 2.0), [0])[1][0])
lab.say(f"At a kink there is no derivative, and the engine takes one side. With α = 2 the left part of an elu arrives "
        f"at 0 with the slope {elu_slope:g}; celu divides x by α in the exponent, and so has the slope 1 there for "
        f"every α. With α = 1 the two are the same function.")

# %% What the derivatives make of a gradient that passes many layers
lab.section("Many layers")
lab.say(f"A network of {DEPTH} layers, so wide that every unit's input is normally distributed with mean 0. Its "
        f"weights have the variance 1/width, biases are 0. From layer to layer the mean square q of the inputs becomes "
        f"the mean of f(√q z)², and the mean square of the gradient, on its way back, is multiplied by the mean of "
        f"f'(√q z)², where z is standard normal (Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, "
        f"arXiv:1611.01232).")


def through_layers(function):
    """The mean square of the inputs of layers 1 … DEPTH + 1, and what each layer multiplies the gradient's by."""
    squares, factors = [1.0], []
    for _ in range(DEPTH):
        f, slope = by_autograd(function, math.sqrt(squares[-1]) * z)
        squares.append(float(density @ f ** 2))
        factors.append(float(density @ slope ** 2))
    return squares, factors


lab.code(through_layers)
shown = ("sigmoid", "tanh", "relu", "prelu", "gelu", "elu", "selu")
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.6), layout="constrained")
signals, gradients = {}, {}
for number, name in enumerate(shown):
    signals[name], factors = through_layers(FUNCTIONS[name][0])
    gradients[name] = [1.0, *np.sqrt(np.cumprod(factors)).tolist()]             # root mean square
    for axes, values in ((left, np.sqrt(signals[name])), (right, gradients[name])):
        axes.semilogy(range(DEPTH + 1), values, f"C{number}", label=name)
for axes, what in ((left, "Signal"), (right, "Gradient")):
    axes.set(xlabel="layers passed", ylabel=f"root mean square of the {what.lower()}, first = 1")
    axes.set_title(what, fontsize=12)
    axes.grid(alpha=0.3)
left.legend(fontsize=9, loc="lower left")
lab.figure(figure, "depth", f"Weights of variance 1/width. Left, forwards: selu keeps the signal at 1, the size to "
           f"which it returns; relu halves the mean square in every layer. Right, backwards: after {DEPTH} layers the "
           f"sigmoid leaves {gradients['sigmoid'][-1]:.0e} of the gradient, relu {gradients['relu'][-1]:.0e}, tanh "
           f"{gradients['tanh'][-1]:.2g}, selu {gradients['selu'][-1]:.2g}.")

# %%
lab.question("Why does a deep network of sigmoids learn so slowly in its first layers?",
             f"A gradient is multiplied by f' in every layer, and f' of the sigmoid is at most "
             f"{facts['sigmoid']['largest_slope']:.2f}. Ten layers leave at most 0.25¹⁰ = {0.25 ** 10:.0e} of it, "
             f"unless large weights make up for that; and large weights push the units to where f' is smaller still. "
             f"With weights of variance 1/width, {gradients['sigmoid'][10]:.0e} is left here after ten layers.")
lab.question("relu has no derivative at 0. Why does that do no harm?",
             f"Any number from 0 to 1 would be a subgradient there, and a step along it is as good as one along the "
             f"slope of either side. The engine answers {kinks[0]['autograd']:g}, as PyTorch does. Inputs of exactly 0 "
             f"are rare unless something makes them so, such as zero weights; then nothing is learned through them.")
lab.question("Which variance should the weights have, so that the gradient keeps its size?",
             f"The mean square of the gradient is multiplied by width · variance · mean f'², so the variance should be "
             f"1 / (width · mean f'²). For relu the mean f'² of the table makes that "
             f"{1 / facts['relu']['mean_square_slope']:.2f}/width, the variance of He et al. 2015. For the sigmoid it "
             f"is {1 / facts['sigmoid']['mean_square_slope']:.0f}/width, but weights that large give inputs with "
             f"another mean square than 1, for which f' is smaller.")
lab.metrics |= {"saturated_below": SATURATED, "depth": DEPTH, "points": len(x), "functions": facts, "kinks": kinks,
                "value_error": {name: pair[0] for name, pair in errors.items()},
                "slope_error": {name: pair[1] for name, pair in errors.items()}, "prelu_weight_error": weight_error,
                "elu_alpha_2_slope_at_0": elu_slope,
                "signal_mean_square": signals, "gradient_rms": gradients}
lab.finish()
