"""Pictures that excite the filters of ResNet50V2 most, a residual network of fifty layers for photographs.

    python -m labs.dream_resnet50v2                     # with the weights that Keras publishes
    python -m labs.dream_resnet50v2 --weights mine.h5   # with those in a file that Keras saved
    python -m labs.dream_resnet50v2 --random-weights    # without any: only the mechanics
    python -m labs.dream_resnet50v2 --layer conv4_block1_1_conv --layer conv4_block2_out --filter 7 --filter 42

The recipe is that of `labs.dream`, on a network that is not trained here: x = x + lr · g / ‖g‖ with g = d score / dx,
30 steps from noise. The pixels are those that the network takes, from −1 to 1. The measure are the few photographs that
come with scikit-learn and, where it is installed, with scikit-image; whether the network knows what is on them is the
check that its weights are the right ones. `python -m labs.dream --model resnet50v2` is the same lab.

He, Zhang, Ren, Sun 2016, "Identity mappings in deep residual networks", arXiv:1603.05027
"""
# %%
import time

import numpy as np

import minidl
from labs import _dream, _dream_resnet50v2, _photographs
from labs._dream import as_share
from labs._dream_resnet50v2 import FEW, LABEL, OF_STAGES, PARTS
from labs._lab import Lab
from minidl.models import ResNet50V2, imagenet
from minidl.visualize import capture, maximize

lab = Lab("dream_resnet50v2", __doc__, datasets=(), extra_arguments=_dream_resnet50v2.add_arguments,
          seconds=_dream_resnet50v2.seconds)
args = lab.args
start = time.perf_counter()
network = _dream_resnet50v2.network_for(args).to(lab.device)
seconds_to_load = time.perf_counter() - start
layers, sheets = _dream_resnet50v2.layers_of(network, args.layer)


def figure(drawn, name, caption):
    """`lab.figure`, with the label that no figure may lack if the weights are random."""
    lab.figure(_dream_resnet50v2.labelled(drawn) if args.random_weights else drawn, name, caption)


# %% The network
lab.section("The network")
if args.random_weights:
    lab.say(f"{LABEL}. They are those that training would begin with, drawn from seed {args.seed}. "
            "What follows shows how it is done. No picture says anything about ResNet50V2, and no number about what a "
            "trained one would answer.")
    weights = "random"
else:
    weights = "imagenet" if args.weights is None else str(args.weights)
    lab.say("The weights are " + ("those that Keras publishes, trained on ImageNet." if weights == "imagenet" else
                                  f"those in {weights}. The lab takes them for trained on ImageNet; whether they are, "
                                  "the photographs below tell."))
photographs = _photographs.photographs()
lab.say(f"Building and filling it took {seconds_to_load:.1f} s. Its parameters stay as they are.")
if "scikit-image" not in {photograph.library for photograph in photographs}:
    lab.say("scikit-image is not installed, which would bring more photographs: pip install scikit-image.")
examples = imagenet.preprocess_input(_photographs.squares(photographs, args.size))         # (N, 3, size, size), −1 to 1
lasts = [last for _, last in PARTS.values()]
with minidl.no_grad():
    outputs = capture(network, examples[:1].to(lab.device), [*lasts, *layers])
channels = {name: _dream_resnet50v2.channels_of(args, name, name in sheets, outputs[name].shape[1]) for name in layers}
sizes = {name: "×".join(map(str, output.shape[1:])) for name, output in outputs.items()}
lab.table([[part, sizes[last], sum(p.numel() for name, p in network.named_parameters() if name.startswith(beginning))]
           for part, (beginning, last) in PARTS.items()],
          ["part", f"answer to 3×{args.size}×{args.size}", "parameters"],
          f"{sum(p.numel() for p in network.parameters()):,} parameters")
lab.code(ResNet50V2)

# %% What it says to photographs
lab.section("What it says to photographs")
squares = _photographs.squares(photographs, 224)                # the size it was trained for
with minidl.no_grad():
    probabilities = network(imagenet.preprocess_input(squares).to(lab.device)).cpu().numpy()           # (N, 1000)
best = _dream_resnet50v2.most_probable(probabilities)           # (N, 5)
names = None if args.random_weights else _dream_resnet50v2.names_of_classes()
called = [f"class {o}" for o in range(probabilities.shape[1])] if names is None else names
undecided = _dream_resnet50v2.effective_classes(probabilities)
checked = [k for k, photograph in enumerate(photographs) if photograph.expected]
found_of = [k for k in checked if set(best[k].tolist()) & set(photographs[k].expected)]
if args.random_weights:
    lab.say("There is nothing to check: random weights know no classes. How even are the probabilities? A network that "
            f"is as undecided as among E classes of equal probability has E = exp(−Σ p · log p), {len(called):,} at "
            "most.")
    lab.table([[photograph.name, f"{undecided[k]:.1f}", f"{probabilities[k].max():.2%}"]
               for k, photograph in enumerate(photographs)], ["photograph", "E", "highest probability"],
              f"{len(called):,} classes")
    answers = [f"as undecided as among {number:.1f} classes" for number in undecided]
else:
    if names is None:
        lab.say("The names of the classes are not here and cannot be downloaded, so their numbers stand for them.")
    rows = [[photograph.name, *(f"{called[o]} {probabilities[k, o]:.1%}" for o in best[k]),
             "–" if not photograph.expected else "yes" if k in found_of else "NO"]
            for k, photograph in enumerate(photographs)]
    lab.table(rows, ["photograph", "most probable", "second", "third", "fourth", "fifth", "as it should"],
              "The five most probable classes of 1,000")
    if checked:
        right = ", ".join(f"{photographs[k].name} ({', '.join(called[o] for o in photographs[k].expected)})"
                          for k in checked)
        lab.say(f"For {len(checked)} of the photographs ImageNet has a class: {right}. One of those is among the five "
                f"most probable for {len(found_of)} of them. With the weights that Keras publishes expect it for most; "
                "if it is so for none, these are hardly weights trained on ImageNet.")
    else:
        lab.say("For none of these photographs ImageNet has a class of its own, so there is nothing to be right about.")
    answers = ["\n".join(f"{called[o]} {probabilities[k, o]:.1%}" for o in best[k, :3]) for k in range(len(best))]
figure(_dream_resnet50v2.draw_photographs(photographs, squares.float() / 255, answers), "photographs",
       "The square in the middle of each photograph, 224×224 pixels. They are all the real images there are here.")

# %% Gradient ascent: the recipe
lab.section("Gradient ascent")
lab.code(maximize)
lab.say("The score of a filter is the mean of its map, without the two outermost rows and columns (a map of less than "
        "5 cells is taken whole; a unit of a dense layer is its own score). Noise between −0.125 and 0.125, 30 steps "
        "of length 10 along the gradient. For the eye the result gets mean 0.5 and standard deviation 0.15, and its "
        f"edge is cut off. Each filter begins with the same noise, from seed {args.seed}; if that leads to a point "
        "without a gradient, it begins anew with the photograph that excites it most, and a * marks it.")
real = _dream.answers(network, examples, layers, lab.device)    # {layer: (N, O)}
plain, took, of_layers, curves = {}, {}, {}, {}
for name in layers:
    start, of_real = time.perf_counter(), real[name][:, channels[name]]
    plain[name] = _dream_resnet50v2.excite(network, name, channels[name], real[name], examples, args.seed)
    took[name] = time.perf_counter() - start
    of_layers[name] = _dream_resnet50v2.summary(network, name, channels[name], of_real, plain[name], args.seed)
    of_layers[name]["seconds"] = took[name]
    curves[name] = _dream.curves_of(plain[name][0], of_real)
    print(f"{name}: {len(channels[name])} channels in {took[name]:.1f} s", flush=True)
lab.table([[name, sizes[name], len(channels[name]), f"{took[name]:.1f}", f"{took[name] / len(channels[name]):.2f}"]
           for name in layers],
          ["layer", "answer", "filters", "seconds", "seconds for each"], "30 steps for each filter")
what_titles_say = ("Above each: number and final score. * began with a photograph instead of noise. “dead”: no "
                   "photograph excites it and noise leads nowhere; “lost”: a live one that both starts lead to a point "
                   "without a gradient. Each picture has its own contrast, so only the scores can be compared.")
for name in sheets:
    which = f"{len(channels[name])} chosen" if args.filter else f"first {len(channels[name])}"
    figure(_dream.draw_sheet(*plain[name], _dream.is_live(real[name][:, channels[name]]),
                             f"Layer {name}: what excites each of its {which} channels", channels[name]),
           f"sheet_{name}", what_titles_say)

# %% The score at each step
lab.section("The scores, step by step")
with_lines = {name: lines for name, lines in curves.items() if len(lines)}
if with_lines:
    figure(_dream.draw_curves({name: sizes[name] for name in layers}, with_lines), "curves",
           f"The score of every live filter at each step: 0 is the mean of the {len(photographs)} photographs, 1 the "
           "best of them. The axis is linear from −1 to 1 and logarithmic beyond.")
else:
    lab.say("No filter is live: to all photographs each says the same. Are there weights in the file?")

# %% Whether that is much
lab.section("Is it more than photographs do?")
shares = ("share_above_start", "share_above_best_photograph", "share_above_noise_of_equal_length")
lab.table([[name, row["live"], *(as_share(row[key]) for key in shares), row["median_best_photograph"],
            row["median_noise_of_equal_length"], row["median_final"]] for name, row in of_layers.items()],
          ["layer", "live", "above start", "above all photos", "above noise", "best photo", "noise", "picture"],
          "Shares of the live filters whose final score is above …, and medians of their scores")
pixels = np.concatenate([result.image.cpu().numpy().ravel() for name in layers for result in plain[name][0]])
lab.say("A filter is live if its score is not the same for all photographs. The best of "
        f"{len(photographs)} photographs is a low bar: among many there would be a better one. And it is no fair one: "
        "the pixels of a photograph are between −1 and 1, those of the pictures between "
        f"{pixels.min():.1f} and {pixels.max():.1f}, and such a network answers louder to a stronger image. “Noise” "
        "is that of the start, made as long as the picture: what is above it is not due to strength alone.")

# %% Shallow beside deep
lab.section("Shallow and deep layers")
seen, rows, rough, sharp_scores = _dream_resnet50v2.seen_pixels(), [], {}, {}
for name in OF_STAGES:
    few = channels[name][:FEW]
    sharp = _dream_resnet50v2.excite(network, name, few, real[name], examples, args.seed, mode="sharp")
    kinds = {"plain": tuple(part[:FEW] for part in plain[name]), "sharp": sharp}
    rough[name] = {kind: float(np.median([_dream.roughness(result.image) for result in results]))
                   for kind, (results, _) in kinds.items()}
    sharp_scores[name] = [result.scores[-1] for result in sharp[0]]
    rows += [(f"{name}\nsees {seen[name]} pixels\n{kind}", [*map(_dream.starred, few, stars)],
              results) for kind, (results, stars) in kinds.items()]
figure(_dream.draw_layers(rows, FEW, "From shallow (top) to deep: a few channels of each layer"), "layers",
       "A convolution of each stage, with the final scores. Sharp: each step looks at the image moved, turned and "
       "scaled at random, and its total variation is kept small. “Sees”: how many pixels across an answer depends on; "
       f"where these are more than {args.size}, on the whole image and the zeros around it.")
noise = minidl.rand(3, args.size, args.size, generator=minidl.Generator().manual_seed(args.seed))
of_noise = _dream.roughness(noise)
of_photographs = float(np.median([_dream.roughness(image) for image in examples.unbind(0)]))
lab.table([[name, str(seen[name]), of_layer["plain"], of_layer["sharp"]] for name, of_layer in rough.items()],
          ["layer", "pixels it sees, across", "roughness, plain", "roughness, sharp"],
          "Roughness is total variation / squared deviation from the mean: medians of the pictures above")
shallow, deep = (rough[OF_STAGES[i]]["plain"] for i in (0, -1))
lab.say(f"That of the noise at the start is {of_noise:.2f}, that of the photographs {of_photographs:.3f} (median). The "
        f"plain pictures of the deepest layer here are {deep / shallow:.2f} times as rough as those of the shallowest. "
        "A filter can only show what fits into the pixels it sees: the shallow one repeats small things over the whole "
        "image, the deep one may arrange large ones. Whether it does depends on the weights.")

# %%
lab.question("Why can no filter of conv2_block1_1_conv show an eye?",
             f"Each of its answers depends on {seen[OF_STAGES[0]]}×{seen[OF_STAGES[0]]} pixels, and the "
             "score is their mean over all places. So the best picture repeats what fits into these pixels.")
lab.question("Eight filters are maximised at once. Why do they not influence each other?",
             "Image k has only the score of filter k, and the score of the others does not depend on it: in evaluation "
             "mode batch normalisation uses the statistics of its training, not those of the batch.")
lab.question("Why does the ascent from noise rarely come to a dead end here, other than in labs.dream?",
             "The layers looked at are convolutions whose answers no ReLU has cut off. A ReLU that is closed at every "
             "place has no gradient; the sum before it has.")
lab.question("With --random-weights the scores rise far above those of the photographs, too. What follows?",
             "That a score that has risen is no sign of anything learned, nor is a regular pattern that random weights "
             "bring about as well. What was learned is what differs between those pictures and the ones with trained "
             "weights.")
lab.metrics |= {
    "weights": weights, "size": args.size, "filters": args.filters, "seconds_to_load": seconds_to_load,
    "layers": of_layers, "sheets": sheets, "channels": channels,
    "scores": {name: [result.scores[-1] for result in plain[name][0]] for name in layers},
    "scores_sharp": sharp_scores, "pixel_range": [float(pixels.min()), float(pixels.max())],
    "classification": {
        "photographs": [{"name": photograph.name, "library": photograph.library, "classes": best[k],
                         "probabilities": probabilities[k, best[k]], "expected": photograph.expected,
                         "effective_classes": undecided[k]} for k, photograph in enumerate(photographs)],
        "with_expectation": len(checked), "expectation_met": None if args.random_weights else len(found_of)},
    "roughness": {"layers": rough, "noise": of_noise, "photographs": of_photographs},
    "seen_pixels": {name: seen[name] for name in OF_STAGES}}
lab.finish()
