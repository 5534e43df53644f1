"""Pictures that excite the filters of a trained network most: gradient ascent on the image instead of the weights.

    python -m labs.dream                                # the network for 1,797 digits of 8×8 pixels
    python -m labs.dream --dataset mnist                # the network that labs.cnn saved, or one trained here
    python -m labs.dream --dataset cifar10              # a small residual network, for photographs in colour
    python -m labs.dream --layer 8                      # look at another layer most closely
    python -m labs.dream --model resnet50v2             # ResNet50V2, trained on ImageNet: labs.dream_resnet50v2

The weights stay as they are, and the image changes: x = x + lr · g / ‖g‖ with g = d score / dx. The score of a filter
is the mean of its map. Whether such a picture says anything is checked on the first 1,000 training images: what the
filter answers to them, which excite it most, and which the network finds most like the picture. `fashion-mnist` is the
fourth dataset. The test images are only used to say how good the network is.

Erhan, Bengio, Courville, Vincent 2009, "Visualizing higher-layer features of a deep network"
"""
# %%
import runpy
import sys

import numpy as np

import minidl
from labs import _dream, _trained
from labs._classifier import predict
from labs._dream import as_share
from labs._lab import Lab, in_notebook
from minidl.models import small_resnet
from minidl.visualize import maximize

model, rest = _dream.asked_model([] if in_notebook() else sys.argv[1:])
if model == "resnet50v2":                                   # a lab of its own: it takes other arguments and no dataset
    sys.argv[1:] = rest
    runpy.run_module("labs.dream_resnet50v2", run_name="__main__")
    sys.exit()
lab = Lab("dream", __doc__, datasets=("digits", "mnist", "fashion-mnist", "cifar10"),
          presets={"quick": {"train_size": 10_000, "epochs": 3}, "full": {"train_size": 60_000, "epochs": 10}},
          per_dataset={"digits": {"train_size": 1347, "epochs": 12, "batch_size": 32}}, batch_size=64,
          extra_arguments=_dream.add_arguments,
          seconds=lambda args: {"digits": 25, "cifar10": 60}.get(args.dataset, 20) + args.epochs * args.train_size * {
              "digits": 0.0003, "cifar10": 0.0016}.get(args.dataset, 0.0011))
args = lab.args

# %% The network, and what its filters say to real images
lab.section("The network and the real images")
images, labels = lab.images(train=True)                         # (N, C, H, W) from 0 to 1, and (N,)
shape, names = tuple(images.shape[1:]), lab.classes
layers, main = _dream.layers_of(args.dataset, shape, args.layer)
if args.dataset == "cifar10":
    network = _trained.trained(lab, small_resnet, images, labels, lr=3e-3)
else:
    network = _trained.trained_cnn(lab, images, labels)
examples = images[:1000]
real = _dream.answers(network, examples, layers, lab.device)    # {layer: (N, O)}
hidden, classes = list(layers)[-2:]                             # the last hidden layer, and the class scores
lab.say(f"The first {len(examples):,} training images are the measure: the score of a filter is the mean of its map, "
        "without the two outermost rows and columns, where padding has a say (a map of less than 5 cells is taken "
        "whole; a unit of a dense layer is its own score). A filter is live if its score is not the same for all of "
        "these images; a dead one, closed by its ReLU, answers 0 to each.")
of_live = {name: scores[:, _dream.is_live(scores)] for name, scores in real.items()}
lab.table([[name, what, f"{real[name].shape[1]}", f"{of_live[name].shape[1]}", float(np.median(of_live[name].mean(0))),
            float(np.median(of_live[name].max(0)))] for name, what in layers.items() if of_live[name].size],
          ["layer", "what it is", "channels", "live", "mean score", "highest score"],
          f"What the layers say to {len(examples):,} real images: medians over the live channels")

# %% Gradient ascent: the recipe, on the first 64 channels of each layer
lab.section("Gradient ascent")
lab.code(maximize)
lab.say("The recipe: noise between −0.125 and 0.125, 30 steps of length 10 along the gradient. For the eye the result "
        "gets mean 0.5 and standard deviation 0.15, and its edge is cut off. Each filter begins with the same noise, "
        f"from seed {args.seed}. Where the ascent from noise comes to a point without a gradient, because the ReLU "
        "lets nothing through (mostly at the start), a live filter begins anew with the real image that excites it "
        "most; a * marks it.")


def pictures(layer, channels, **settings):
    """A picture for each channel, and which began with a real image."""
    return _dream.excite(network, layer, channels, real[layer], examples, args.seed, **settings)


plain, in_range, layer_metrics, curves = {}, {}, {}, {}
for name in layers:
    channels = range(min(_dream.COUNT, real[name].shape[1]))
    of_real = real[name][:, :len(channels)]
    plain[name] = pictures(name, channels)
    in_range[name] = pictures(name, channels, clip=(0.0, 1.0), lr=1.0)
    layer_metrics[name] = _dream.summary(network, name, of_real, plain[name], in_range[name], args.seed)
    curves[name] = _dream.curves_of(plain[name][0], of_real)
    print(f"{name}: {len(channels)} channels, {layer_metrics[name]['live']} live", flush=True)
lab.figure(_dream.draw_curves(layers, {name: lines for name, lines in curves.items() if len(lines)}), "curves",
           "The score of every live filter at each step: 0 is the mean of the real images, 1 the best of them. "
           "The axis is linear from −1 to 1 and logarithmic beyond. Lines that begin at 1 are filters that began with "
           "that image.")

# %% Whether the pictures excite the filters, and whether that is fair
lab.section("Is it more than real images do?")
shares = ("share", "share_from_noise", "share_above_noise_of_equal_length", "share_within_0_1_above_mean",
          "share_within_0_1_above_all")
lab.table([[name, f"{row['live']}", f"{row['dead']}", f"{row['from_image']}", *(as_share(row[key]) for key in shares)]
           for name, row in layer_metrics.items()],
          ["layer", "live", "dead", "began with image", "above start and mean", "those from noise",
           "above scaled noise", "within 0…1: above mean", "within 0…1: above all real"],
          f"Shares of the live filters among the first {_dream.COUNT} of each layer")
values = np.concatenate([result.image.cpu().numpy().ravel() for result in plain[main][0] if not result.dead] or [[0.0]])
lab.say(f"“Above start and mean” is the usual claim, and it is cheap. Pixels of real images are between 0 and 1; those "
        f"of the pictures for layer {main} are between {values.min():.1f} and {values.max():.1f}, and a network of "
        "ReLUs answers to a twice as strong image about twice as loudly. Two fairer comparisons: “scaled noise” is the "
        "noise of the start, made as long as the picture, and says what the strength alone would do. “Within 0…1” "
        "are other pictures, whose pixels are kept to the range of real images after each step, which then have "
        "length 1: they are compared with the mean of the real images, and with the best of them.")
woken = sum(row["woken"] for row in layer_metrics.values())
if woken:
    lab.say(f"{woken} filters are dead for all the real images but have a gradient from noise. They have pictures "
            "too, with grey titles, of something that real images do not show.")

# %% All of them: a sheet of the first 64 filters
lab.section(f"The filters of layer {main}")
found, from_image = plain[main]
live = _dream.is_live(real[main][:, :len(found)])
what_titles_say = ("Above each: number and final score. * began with a real image instead of noise. “dead”: no real "
                   "image excites it and noise leads nowhere; “lost”: a live one that both starts lead to a point "
                   "without a gradient; “even”: a picture of one colour. Each picture has its own contrast, so only "
                   "the scores can be compared.")
lab.figure(_dream.draw_sheet(found, from_image, live, f"Layer {main}, plain: what excites each of its first "
                             f"{len(found)} channels"), "sheet", what_titles_say)
sharp_found, sharp_from_image = pictures(main, range(len(found)), mode="sharp")
lab.figure(_dream.draw_sheet(sharp_found, sharp_from_image, live, f"Layer {main}, sharp: the same channels, each step "
                             "on a moved, turned and scaled image"), "sheet_sharp",
           what_titles_say + " The score is that of the image itself, neither moved nor penalised.")
start, final = (np.array([result.scores[i] for result in sharp_found]) for i in (0, -1))
of_real = real[main][:, :len(found)]
sharp = {name: _dream.share_of(final > other, live) for name, other in (
    ("share_above_start_and_mean", np.maximum(start, of_real.mean(0))), ("share_above_all", of_real.max(0)))}
sharp["share_below_plain"] = _dream.share_of(np.array([result.scores[-1] for result in found]) > final, live)
lab.say(f"Of the sharp pictures of live filters, {as_share(sharp['share_above_start_and_mean'])} score above their "
        f"start and the mean of the real images, {as_share(sharp['share_above_all'])} above all of these. The picture "
        "must excite the filter from several points of view, and not by single pixels; the plain picture scores higher "
        f"for {as_share(sharp['share_below_plain'])} of the filters.")


# %% The real image nearest to each of them
def hidden_answers(results):
    """What the last hidden layer says to the pictures of some results, (K, units)."""
    stacked = minidl.stack([result.image for result in results])
    return _dream.answers(network, stacked, [hidden], lab.device)[hidden]


near = [int(_dream.nearest(own, real[hidden], 1)[0]) for own in hidden_answers(found)]
headings = ["" if result.dead else f"{o}: {names[int(labels[i])]}"
            for o, (result, i) in enumerate(zip(found, near, strict=True))]
figure = _dream.draw_nearest(examples[near], headings, f"The real image nearest to each plain picture of layer {main}")
lab.figure(figure, "sheet_nearest",
           "In the places of the first sheet: of the real images the one that the network finds most like the plain "
           f"picture, and its class: with the smallest angle between what the last hidden layer ({hidden}) says to the "
           "two. A picture for one filter is no picture of a thing: what it is nearest to is often of no use.")

# %% Shallow beside deep
lab.section("Shallow and deep layers")
rows = []
for name, what in layers.items():
    some = np.flatnonzero(_dream.is_live(real[name][:, :len(plain[name][0])]))[:8].tolist()
    if some:
        for kind, (results, stars) in (("plain", [[x[o] for o in some] for x in plain[name]]),
                                       ("sharp", pictures(name, some, mode="sharp"))):
            rows.append((f"{name}: {what}\n{kind}", [*map(_dream.starred, some, stars)], results))
lab.figure(_dream.draw_layers(rows, 8), "layers", "The first eight live channels of each layer, with their final "
           "scores; * began with a real image. Going down, a unit sees more of the image at once. The last two rows "
           f"are for the classes {', '.join(names[:8])}.")

# %% One thing after another: what jitter and total variation do
lab.section("From plain to sharp")
few = np.flatnonzero(live)[:5].tolist()
still = {"degrees": 0.0, "zoom": (1.0, 1.0)}
variants = {"plain": {}, "+ jitter": {"mode": "sharp", "tv": 0.0, **still},
            "+ total variation": {"mode": "sharp", **still}, "+ turn and zoom": {"mode": "sharp"}}
strip = {name: pictures(main, few, **settings) for name, settings in variants.items()} if few else {}
rough = {name: float(np.median([_dream.roughness(result.image) for result in of_variant]))
         for name, (of_variant, _) in strip.items()}
if few:
    lab.figure(_dream.draw_strip(few, strip), "strip", "The first live channels, column by column with one more thing: "
               "the image is moved a little before each step; its total variation is kept small; it is turned and "
               "scaled too. Above each: the final score of the image as it is; * began with a real image.")
    lab.table([[name, float(np.median([result.scores[-1] for result in strip[name][0]])), value]
               for name, value in rough.items()], ["variant", "final score", "roughness"],
              f"Medians of these {len(few)} channels; roughness is total variation / squared deviation from the mean")

# %% What they are like: real images
lab.section("Real images beside the pictures")


def neighbours(layer, channels, called):
    """A row for each channel: its pictures, the nine real images that excite it most, and the four nearest."""
    results = [plain[layer][0][o] for o in channels]
    for o, result, answer in zip(channels, results, hidden_answers(results), strict=True):
        best = np.argsort(-real[layer][:, o], kind="stable")[:9]
        near = _dream.nearest(answer, real[hidden], 4)
        yield _dream.Neighbours(called(o), result, in_range[layer][0][o], examples[best], real[layer][best, o],
                                examples[near], [names[int(labels[i])] for i in near])


how_near = ("Left: the plain picture and the one within 0…1, with their scores. Middle: the nine real images that "
            "excite the channel most, with their scores. Right: the four that the network finds most like the plain "
            f"picture, with their class: those with the smallest angle between what the last hidden layer ({hidden}) "
            "says to them and to the picture. Angles do not mind how strong an image is. No pixels are compared.")
if few:
    rows_of_few = [*neighbours(main, few, lambda o: _dream.starred(o, from_image[o]))]
    lab.figure(_dream.draw_neighbours(rows_of_few), "neighbours", how_near)
rows_of_classes = [*neighbours(classes, range(len(names)), lambda o: names[o])]
lab.figure(_dream.draw_neighbours(rows_of_classes), "classes",
           f"The same for the {len(names)} class scores. {how_near}")
agree = sum(row.name == row.classes[0] for row in rows_of_classes)
called = {}
for key, of_layer in (("plain", plain), ("within_0_1", in_range)):
    of_classes = minidl.stack([result.image for result in of_layer[classes][0]])        # (classes, C, H, W)
    sure = predict(network, of_classes, lab.device).numpy()
    called[key] = {"as_meant": int((sure.argmax(1) == np.arange(len(names))).sum()),
                   "mean_probability": float(sure.diagonal().mean())}
lab.say(f"For {agree} of the {len(names)} classes the nearest real image is one of that class. The network calls "
        f"{called['plain']['as_meant']} of the plain pictures what they were made for, with a mean probability of "
        f"{called['plain']['mean_probability']:.1%}; of those within 0…1, {called['within_0_1']['as_meant']}, with "
        f"{called['within_0_1']['mean_probability']:.1%}. Judge for yourself how much they look like it: a score is "
        "what the network computes, not a likeness.")

# %%
lab.question("Why is the gradient divided by its length?",
             "Lengths differ by orders of magnitude between layers and filters. With steps of one length the same "
             "rate does for all of them, and 30 steps go equally far.")
lab.question("Why can a filter that answers to real images have no gradient from noise?",
             "Its ReLU is closed at every place for that image: its output is 0 and stays 0 if the image changes a "
             "little. So the gradient is 0, and there is no direction in which to go.")
lab.question("The score rises far above that of any real image. Is the picture what the filter “looks for”?",
             "It is one image that the filter answers strongly to, among very many, and mostly a stronger one than "
             "any it was trained on. The nine real images show what it answers to in practice.")
lab.metrics |= {"layers": layer_metrics, "main_layer": main, "image_shape": shape, "real_count": len(examples),
                "classes_as_nearest": agree, "classes": called, "roughness": rough,
                "sharp": sharp,
                "pixel_range": [float(values.min()), float(values.max())],
                "scores": {name: [{"start": result.scores[0], "final": result.scores[-1], "dead": result.dead,
                                   "began_with_image": bool(is_from_image), "real_mean": real[name][:, k].mean(),
                                   "real_max": real[name][:, k].max(), "within_0_1": bounded.scores[-1]}
                                  for k, (result, is_from_image, bounded) in enumerate(zip(
                                      *plain[name], in_range[name][0], strict=True))] for name in layers},
                "scores_sharp": {main: [result.scores[-1] for result in sharp_found]}}
lab.finish()
