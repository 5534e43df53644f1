"""What the filters of a convolutional network see: kernels, feature maps, and the patches that excite them most.

The network of `labs.cnn` is loaded, or trained first. Hooks read what its layers answer; none is built anew. Beside the
trained network stands one that is not trained, with random weights: what both show, training did not bring.

    python -m labs.filters                                          # 1,797 digits of 8×8 pixels
    python -m labs.filters --dataset mnist --image 7 --layer 5      # another test image, another layer
    python -m labs.filters --dataset fashion-mnist --preset full

All that is counted over many images is counted over the training images; the test images are looked at one by one.
"""
# %%
import numpy as np

import minidl
from labs import _filters, _trained
from labs._lab import Lab
from labs._statistics import mean_and_error
from minidl.errors import OutOfRangeError, SettingError
from minidl.models import small_cnn
from minidl.visualize import capture, layer_named, receptive_field, strongest_patches

lab = Lab("filters", __doc__, datasets=("digits", "mnist", "fashion-mnist"), batch_size=64,
          presets={"quick": {"train_size": 20_000, "epochs": 2, "patch_images": 6000},
                   "full": {"train_size": 60_000, "epochs": 10, "patch_images": 60_000}},
          per_dataset={"digits": {"train_size": 1347, "epochs": 25, "batch_size": 32}},
          extra_arguments=_filters.add_arguments,
          seconds=lambda args: 8 + 0.0018 * min(args.patch_images, args.train_size) + args.train_size * args.epochs * (
              0.0003 if args.dataset == "digits" else 0.0011))
args = lab.args
if args.patch_images < 9:
    raise SettingError(f"got {args.patch_images}, expected at least 9: each filter is shown with nine",
                       where="--patch-images")
FIRST, SECOND = "1", "4"                                    # where the ReLU of each convolution is; it stands before it

# %% The data, and a network with random weights
lab.section("The network")
images, labels = lab.images(train=True)                     # (N, 1, H, W) from 0 to 1, and (N,)
test_images, test_labels = lab.images(train=False)
shape, truth = tuple(images.shape[1:]), test_labels.numpy()
minidl.manual_seed(args.seed)
untrained = small_cnn(shape).to(lab.device).eval()
layer_named(untrained, args.layer, where="--layer")         # what cannot work is said before the training
if args.image >= len(test_images):
    raise OutOfRangeError(f"got {args.image}, expected 0 to {len(test_images) - 1}, the test images of {args.dataset}",
                          where="--image")
trained = _trained.trained_cnn(lab, images, labels)
networks = {"trained": trained, "untrained": untrained}
kinds = {name: f"layer {name}, {type(part).__name__}" for name, part in trained.named_modules() if name}
looked_into = list(dict.fromkeys([FIRST, SECOND, args.layer]))

# %% How much of the image a filter sees: size r and stride j, layer by layer
#    r <- r + (k - 1) · j,   j <- j · s        for a layer with kernel k and stride s, beginning with r = j = 1
fields = {name: receptive_field(trained, name, shape) for name in kinds}
with minidl.no_grad():
    sizes = {name: tuple(output.shape[1:]) for name, output in
             capture(trained, test_images[:1].to(lab.device), list(kinds)).items()}
lab.table([[kinds[name], str(sizes[name]), f"{field.size[0]}×{field.size[1]}", str(field.stride[0])]
           for name, field in fields.items()],
          ["layer", "output", "pixels that one answer depends on", "pixels from one to the next"],
          f"Receptive fields, for images of {shape[1]}×{shape[2]}; 0 to the next: all see the whole image")
lab.code(receptive_field)

# %% For each filter the nine patches of training images that excite it most, and which filters nothing excites
images, labels = images[:args.patch_images], labels[:args.patch_images]
found = {layer: {name: strongest_patches(network, layer, images, fill=float("nan"))     # nan: beyond the border
                 for name, network in networks.items()} for layer in looked_into}
lab.code(strongest_patches)
rectified = {layer: _filters.is_rectified(trained, layer) for layer in looked_into}
dead = {layer: {name: _filters.dead_filters(patches, rectified[layer]) for name, patches in of_network.items()}
        for layer, of_network in found.items()}
lab.table([[kinds[layer], str(len(found[layer]["trained"].channels)), str(len(dead[layer]["trained"])),
            str(len(dead[layer]["untrained"]))] for layer in looked_into],
          ["layer", "filters", "dead, trained", "dead, untrained"],
          f"Dead filters: those that answer none of {len(images):,} training images with more than 0")

# %% The kernels of the first layer
lab.section("Kernels")
kernels = {name: network.state_dict()["0.weight"][:, 0].cpu() for name, network in networks.items()}   # (32, 3, 3) each
figure, largest_weight = _filters.draw_kernels(kernels, dead[FIRST])
lab.figure(figure, "kernels", "The kernels of the first convolution, all in one scale: red adds, blue subtracts, white "
           "is 0. A kernel with red on one side and blue on the other answers to an edge. Look whether there are such "
           "kernels among the untrained ones, too.")
lab.say(f"The largest weight is {abs(kernels['trained']).max():.2f} after training and "
        f"{abs(kernels['untrained']).max():.2f} without it.")

# %% What the layers make of one image. A hook keeps what a layer answers; the network is not built anew.
lab.section("Feature maps")
image = test_images[args.image]                             # (1, H, W)
shown = list(dict.fromkeys(["0", "3", args.layer]))
with minidl.no_grad():
    answers = {name: output[0].cpu() for name, output in capture(trained, image[None].to(lab.device), shown).items()}
    scores = trained(image[None].to(lab.device))[0]
says = lab.classes[int(scores.argmax())]
dead_in = {kinds["0"]: dead[FIRST]["trained"], kinds["3"]: dead[SECOND]["trained"],
           kinds[args.layer]: dead[args.layer]["trained"]}
figure, map_scales = _filters.draw_maps(
    image, f"test image {args.image}: is {lab.classes[truth[args.image]]}, the network says {says}",
    {kinds[name]: maps for name, maps in answers.items()}, dead_in)
lab.figure(figure, "maps", "What each filter answers at each place of the image, with one scale for each layer. The "
           "two convolutions are shown before ReLU: what is red passes it, what is blue becomes 0. Look down to which "
           "layer you can recognize the image. A square of one colour is the one answer of a dense unit.")
lab.code(capture)

# %% Which filters tell two images apart? Another image of the first one's class is the control.
lab.section("Two images side by side")
first = args.image
second = int(np.flatnonzero(truth != truth[first])[0])      # the first test image of another class
control = next(int(i) for i in np.flatnonzero(truth == truth[first]) if i != first)
trio, of_first, of_second = [first, control, second], lab.classes[truth[first]], lab.classes[truth[second]]
apart, distances = {}, {}
for name, network in networks.items():
    mean_answer = _filters.mean_answers(network, SECOND, test_images, lab.device)       # (N, 64)
    of_pairs = abs(mean_answer[first] - mean_answer[[control, second]])                 # (2, 64)
    same, other = _filters.distances_of_classes(mean_answer, truth)
    distances[name] = {"control": of_pairs[0].sum(), "second": of_pairs[1].sum(),
                       "same_class": same, "other_class": other}
    filters = np.argsort(-of_pairs[1], kind="stable")[:8].tolist()
    apart[name] = filters, _filters.tell_apart(mean_answer, truth, (first, second), filters)[1]
filters, areas = apart["trained"]
with minidl.no_grad():
    maps = capture(trained, test_images[trio].to(lab.device), [SECOND])[SECOND][:, filters].cpu()     # (3, 8, H', W')
figure, pair_scale = _filters.draw_pair(
    test_images[trio], [f"image {i}\nis {lab.classes[truth[i]]}" for i in trio], maps, filters, areas)
others = int(np.isin(truth, truth[[first, second]]).sum()) - 2
lab.figure(figure, "pair", "The eight filters of the second convolution whose mean answers differ most between image "
           f"{first} and image {second}, all maps in one scale. The row in the middle is the control, of the class of "
           "the first. The area (under the ROC curve) says how often the class with the higher answer here has the "
           f"higher one among the other {others} test images of these two classes: 1 always, 0.5 by chance.")
lab.table([[name, f"{of_network['second']:.2f}", f"{of_network['control']:.2f}",
            f"{of_network['other_class'] / of_network['same_class']:.2f}", f"{apart[name][1].mean():.2f}",
            f"{apart[name][1].min():.2f} to {apart[name][1].max():.2f}"] for name, of_network in distances.items()],
          ["network", f"to image {second}, {of_second}", f"to the control, {of_first}", "other / same class, all pairs",
           "mean area", "areas"], f"How far the 64 mean answers are from those for image {first}, {of_first}: the sum "
          f"of the differences; and how well eight filters tell {of_first} and {of_second} apart")
lab.say("Each network has eight filters of its own, chosen by these two images alone. A filter that tells two images "
        "apart need not tell their classes apart: its area is then near 0.5, or below. “All pairs” are those of the "
        f"first {min(1000, len(truth)):,} test images: how much further images of different classes are from each "
        f"other than those of one class, "
        f"{distances['trained']['other_class'] / distances['trained']['same_class']:.2f} times with the trained "
        f"filters, {distances['untrained']['other_class'] / distances['untrained']['same_class']:.2f} times with the "
        "untrained ones.")

# %% The patches
lab.section("What excites a filter most")
for layer in looked_into:
    size = fields[layer].size
    figure = _filters.draw_patches(found[layer], dead[layer], kernels if layer == FIRST else None)
    before = "; the kernel stands before them" if layer == FIRST else ""
    lab.figure(figure, f"patches_{layer}", f"{kinds[layer]}: for each filter the nine of {len(images):,} training "
               f"images to which it answers most, at most one patch of each, the strongest first{before}. One answer "
               f"depends on {size[0]}×{size[1]} pixels; light blue is beyond the border. Left the trained network, "
               "right the one with random weights.")

# %% What training changed, in numbers: how many of the nine patches are from one class?
lab.section("What training changed")
count = found[FIRST]["trained"].scores.shape[1]
shares = {layer: {name: _filters.shares_of_commonest_class(patches, labels, dead[layer][name])
                  for name, patches in of_network.items()} for layer, of_network in found.items()}
chance = _filters.shares_by_chance(labels, count, args.seed)
selectivity = {layer: {name: mean_and_error(values) for name, values in of_network.items()}
               for layer, of_network in shares.items()}
difference = {}
for layer, of_network in selectivity.items():
    (a, error_of_a), (b, error_of_b) = of_network["trained"], of_network["untrained"]
    difference[layer] = a - b, (error_of_a ** 2 + error_of_b ** 2) ** 0.5
figure = _filters.draw_selectivity({kinds[layer]: of_network for layer, of_network in shares.items()}, chance, count)
lab.figure(figure, "selectivity", f"How many of its {count} patches are from the commonest class, for all live filters "
           f"of a layer. The dots are {count} training images drawn at random. Further to the right is more selective.")
lab.table([[kinds[layer], *(f"{mean:.1%} ± {error:.1%}" for mean, error in (*selectivity[layer].values(),
                                                                           difference[layer]))]
           for layer in looked_into], ["layer", "trained", "untrained", "difference"],
          f"Share of the {count} patches that are from the commonest class, mean over the live filters; by chance "
          f"{chance.mean():.1%}")
more = [kinds[layer] for layer, (mean, error) in difference.items() if mean > 2 * error + 1e-9]
less = [kinds[layer] for layer, (mean, error) in difference.items() if mean < -2 * error - 1e-9]
lab.say("± is one standard error over the filters of this one training. Filters of a network are not independent of "
        "each other, and another seed moves these numbers too. By more than two standard errors, the trained filters "
        f"are more selective for classes in: {'; '.join(more) or 'no layer'}; and less selective in: "
        f"{'; '.join(less) or 'no layer'}. What the untrained network has above chance is no knowledge: images of a "
        "class look alike, and excite the same filter, whichever. And a filter may be useful without being selective: "
        "many classes share a stroke.")

# %%
lab.question("What makes a filter dead, and why does it mostly stay so?",
             "Its sum is at most 0 for every image, ReLU makes 0 of it, and the slope of ReLU is 0 there: no gradient "
             "comes back to its weights. Only a change in the layers before it can wake it. Here " + ", ".join(
                 f"{len(dead[layer]['trained'])} of {len(found[layer]['trained'].channels)} in {kinds[layer]}, "
                 f"{len(dead[layer]['untrained'])} without training" for layer in dead if rectified[layer]) + ".")
field = fields["3"]
lab.question(f"The second convolution has kernels of 3×3. Why does it see {field.size[0]}×{field.size[1]} pixels?",
             "It sees 3×3 answers of the pooling, 2 pixels apart. Each of those depends on 4×4 pixels: on 2×2 answers "
             f"that see 3×3 pixels. 4 + (3 − 1) · 2 = {field.size[0]}.")
lab.question("Why are the patches of the untrained network shown as well?",
             "Because patches that look alike prove nothing by themselves: any filter, a random one too, answers most "
             "to what looks like its weights, and so its strongest patches look like each other.")
lab.question("Is a filter that has nine patches of one class a detector of that class?",
             "Not necessarily. The nine are the very highest answers; further down there may be all classes. The area "
             "under the ROC curve, as for the two images, counts all of them.")
lab.metrics |= {
    "receptive_field": {name: [field.size[0], field.stride[0]] for name, field in fields.items()},
    "filters": {layer: len(found[layer]["trained"].channels) for layer in looked_into},
    "dead": {layer: len(of_network["trained"]) for layer, of_network in dead.items()},
    "dead_untrained": {layer: len(of_network["untrained"]) for layer, of_network in dead.items()},
    "selectivity": {layer: {**{name: mean for name, (mean, _) in of_network.items()},
                            **{f"{name}_error": error for name, (_, error) in of_network.items()},
                            "difference": difference[layer][0], "difference_error": difference[layer][1]}
                    for layer, of_network in selectivity.items()}, "patch_images": len(images),
    "selectivity_by_chance": chance.mean(), "patches_of_a_filter": count,
    "pair": {"images": trio, "filters": filters, "distances": distances, "scale": pair_scale,
             "areas": {name: areas for name, (_, areas) in apart.items()}},
    "image": args.image, "layer": args.layer, "answer": says, "largest_weight": largest_weight,
    "map_scales": map_scales}
lab.finish()
