"""Autoencoders: images through a few numbers and back, with noise to remove, with sparse codes, and what codes keep.

A dense and a convolutional autoencoder are trained in five ways each: as they are, with Gaussian noise or dropout on
the images that they have to make clean again, with codes that are pulled to 0.05, and with noise and sparse codes. As
it is, the run with MNIST trains five of these ten; --models all trains all.

    python -m labs.autoencoders                                     # 1,797 digits of 8×8 pixels
    python -m labs.autoencoders --dataset mnist                     # the first 10,000 of MNIST, fewer epochs
    python -m labs.autoencoders --dataset fashion-mnist --preset full --models conv     # 150 epochs

The last epoch counts: no network and no epoch is chosen, and test images are looked at once, at the end. The networks
are kept in checkpoints: a second run takes them, one with more --epochs goes on, --retrain begins anew.
"""
# %%
import numpy as np

import minidl
from labs import _autoencoders, _reconstructions
from labs._autoencoders import NOISE, TARGET, VARIANTS, as_pixels, codes_of, in_words, psnr, reconstructed
from labs._components import components_of
from labs._lab import Lab
from labs._reconstructions import errors
from labs._statistics import mean_and_error
from minidl.errors import SettingError
from minidl.models import conv_autoencoder, dense_autoencoder

lab = Lab("autoencoders", __doc__, datasets=("digits", "mnist", "fashion-mnist"),
          presets={"quick": _autoencoders.QUICK, "full": _autoencoders.FULL},
          per_dataset={"digits": _autoencoders.OF_DIGITS}, extra_arguments=_autoencoders.add_arguments,
          seconds=lambda args: _autoencoders.training_seconds(args) + (20 if args.dataset == "digits" else 45))
args = lab.args
if args.test_size < 50:
    raise SettingError(f"got {args.test_size}, expected at least 50: nearest neighbours are sought among them",
                       where="--test-size")

# %% The data
lab.section("The data")
data = _autoencoders.data_of(lab)                           # normalised images (N, 1, H, W), and labels (N,)
training, validation, mean, std = data.training, data.validation, data.mean, data.std
test, truth, test_pixels = (x[:args.test_size] for x in (data.test, data.test_labels, data.pixels))
shape = tuple(test.shape[1:])
lab.say(f"{len(training):,} images to train on, {len(validation):,} to validate with, {len(test):,} to test with: each "
        f"{shape[1]}×{shape[2]} pixels, less {mean:.4f}, divided by {std:.4f}. Errors are mean squares in these units, "
        f"in which training pixels have a variance of {float(training.var()):.2f}; PSNR is of pixels from 0 to 1. "
        "Labels are not used in training, only to name images and to count how well classes group.")

# %% The two forms
lab.section("The networks")
forms = list(dict.fromkeys(VARIANTS[name].form for name in args.models))
untrained = {form: _autoencoders.untrained(lab, form, shape, args.seed) for form in ("dense", "conv")}
for form in forms:
    lab.code(dense_autoencoder if form == "dense" else conv_autoencoder)
    lab.layers(minidl.summary(untrained[form], shape, verbose=False),
               f"{form}, layer by layer, for a batch of one image")
lab.code(_autoencoders.Reconstruction)

# %% Training
lab.section("Training")
trained, models = {}, {}
for name in args.models:
    lr = _autoencoders.settings_of(lab, name, shape)["lr"]
    lab.say(f"{in_words(name)}: {args.optimizer}, learning rate {lr:g}")
    trained[name] = _autoencoders.fitted(lab, name, training, validation, mean, std)
    history = trained[name].history
    models[name] = {"lr": lr, "param_count": sum(p.numel() for p in trained[name].network.parameters()),
                    "train_loss": [epoch["train_loss"] for epoch in history], "val_loss": trained[name].val_loss,
                    "seconds_per_epoch": float(np.median([epoch["seconds"] for epoch in history]))}
networks = {name: of_name.network for name, of_name in trained.items()}
codes = {name: codes_of(network, test, lab.device) for name, network in networks.items()}       # (N, K) each
code_size = {VARIANTS[name].form: of_name.shape[1] for name, of_name in codes.items()}

components = components_of(training, max(code_size.values()))
pca_name = {form: f"PCA, {min(size, len(components.directions))} numbers" for form, size in code_size.items()}
pca_error = {form: float(errors(validation, components.reconstructed(validation, size)).mean())
             for form, size in code_size.items()}
figure = _reconstructions.draw_curves({name: (of_name["train_loss"], of_name["val_loss"])
                                       for name, of_name in models.items()},
                                      {form: (pca_name[form], pca_error[form]) for form in forms})
lab.figure(figure, "curves", "Mean squared error of training images (dashed) and validation images (solid). Training "
           "values are means during the epoch and, where there is noise, of noisy images; validation is without noise "
           "and without the term for sparse codes, and so is the same measure for all. Dotted, for validation images: "
           "as many principal components of the training images as the code has numbers.")

for name, network in networks.items():
    models[name] |= {"code_size": codes[name].shape[1],
                     "psnr": psnr(test_pixels, as_pixels(reconstructed(network, test, lab.device), mean, std))}
pca_psnr = {form: psnr(test_pixels, as_pixels(components.reconstructed(test, size), mean, std))
            for form, size in code_size.items()}
mean_image = minidl.from_numpy(components.mean).reshape(1, *shape).expand(len(test), -1, -1, -1)
mean_image_psnr = psnr(test_pixels, as_pixels(mean_image, mean, std))
rows = [[in_words(name), f"{of_name['param_count']:,}", str(of_name["code_size"]), f"{of_name['val_loss'][0]:.4f}",
         f"{of_name['val_loss'][-1]:.4f}", f"{of_name['psnr']:.2f}", f"{of_name['seconds_per_epoch']:.2f}"]
        for name, of_name in models.items()]
for form in {code_size[form]: form for form in reversed(forms)}.values():               # one row if sizes are equal
    size = min(code_size[form], len(components.directions))
    rows.append([pca_name[form], f"{(size + 1) * test[0].numel():,}", str(size), "–", f"{pca_error[form]:.4f}",
                 f"{pca_psnr[form]:.2f}", "–"])
rows.append(["mean training image", f"{test[0].numel():,}", "0", "–",
             f"{errors(validation, mean_image[:1]).mean():.4f}", f"{mean_image_psnr:.2f}", "–"])
lab.table(rows, ["network", "parameters", "numbers in a code", "validation error, epoch 1", f"epoch {args.epochs}",
                 "PSNR of test images, dB", "seconds an epoch"], "What each makes of images without noise")
above = [name for name, of_name in models.items() if of_name["psnr"] > pca_psnr[VARIANTS[name].form]]
lab.say(f"Better than PCA with as many numbers, after {args.epochs} epoch{'s' if args.epochs > 1 else ''}: "
        f"{', '.join(map(in_words, above)) or 'no network'}.")

# %% What is made of test images
lab.section("Reconstructions")
shown = [name for name in _reconstructions.SHOWN if name in networks] or args.models[:1]
firsts = [int(np.flatnonzero(truth == label)[0]) for label in np.unique(truth)]         # the first of each class
noisy = {noise: _reconstructions.noisy(test, noise, args.seed) for noise in _reconstructions.NOISES}
rows = _reconstructions.reconstructed_rows({name: networks[name] for name in shown}, test[firsts],
                                           {noise: x[firsts] for noise, x in noisy.items()}, mean, std, lab.device)
figure = _reconstructions.draw_rows(rows, [lab.classes[truth[i]] for i in firsts])
lab.figure(figure, "reconstructions", "The first test image of each class, and what is made of it; all in one grey "
           "scale from 0 to 1, what lies beyond is cut off.")
rows = {name: _reconstructions.rows_of_epochs(validation[:8], trained[name].snapshots, mean, std) for name in shown}
lab.figure(_reconstructions.draw_epochs(rows), "epochs", "Eight validation images without noise, and what each network "
           "makes of them as it learns.")

# %% What is it worth to learn to remove noise?
lab.section("Noise")
labels_of = {"noisy": "the noisy image itself", "blur": "mean of 3×3 pixels"}
labels_of |= {f"pca_{code_size[form]}": pca_name[form] for form in forms} | {name: in_words(name) for name in networks}
found = {noise: {"noisy": errors(test, x), "blur": errors(test, _autoencoders.blurred(x)),
                 **{f"pca_{size}": errors(test, components.reconstructed(x, size)) for size in code_size.values()},
                 **{name: errors(test, reconstructed(network, x, lab.device)) for name, network in networks.items()}}
         for noise, x in noisy.items()}                     # (N,) each
lab.figure(_reconstructions.draw_denoising(found, labels_of), "denoising", f"The error of {len(test):,} noisy test "
           "images against the clean ones. Gaussian noise has a standard deviation of "
           f"{NOISE:g}; dropout sets half of the pixels to 0, a grey of {mean:.2f}, and doubles the others, as in "
           "training. Whiskers: one standard error over the images.")
lab.table([[label, *(f"{of_noise[method].mean():.4f} ± {mean_and_error(of_noise[method])[1]:.4f}"
                     for of_noise in found.values())] for method, label in labels_of.items()],
          ["method", *(f"{noise} noise" for noise in found)], "Mean squared error to the clean test image")
for noise, of_noise in found.items():
    of_networks = {name: of_noise[name].mean() for name in networks}
    others = {method: values.mean() for method, values in of_noise.items() if method not in networks}
    best, other = min(of_networks, key=of_networks.get), min(others, key=others.get)
    lab.say(f"{noise.capitalize()} noise: without a network the least error is {others[other]:.4f} "
            f"({labels_of[other]}), with one {of_networks[best]:.4f} ({in_words(best)}); each the best of its kind.")
if gains := _reconstructions.gains(found):
    lab.say("What training with this noise takes off the error of the same images, against the same network trained "
            "without noise (paired, ± one standard error over the images of this one training; below 0 it is worse): "
            + ", ".join(f"{in_words(name)} {gain:.4f} ± {error:.4f}" for name, (gain, error) in gains.items()) + ".")

# %% The codes
lab.section("Codes")
lab.figure(_reconstructions.draw_codes(_reconstructions.plain_and_sparse(codes)), "codes", "All numbers of the codes "
           "of the test images, below only the smallest. The bar at 0 holds those that are exactly 0, too. The axes "
           "above end where 99.9 % of the numbers of the wider network do.")
sparsity = {name: _reconstructions.about_codes(codes[name], codes_of(networks[name], noisy["gaussian"], lab.device))
            for name in networks}
lab.table([[in_words(name), f"{about['zero']:.1%}", f"{about['mean']:.3f}", f"{about['distance']:.3f}",
            f"{about['dead']} of {codes[name].shape[1]}", f"{about['moved']:.3f}"] for name, about in sparsity.items()],
          ["network", "exactly 0", "mean z", f"mean |z − {TARGET:g}|", "0 for all test images", "moved by noise"],
          "Numbers z of the codes of test images; the last column: how far Gaussian noise moves a code, over how far "
          "two images are apart (mean squares)")
lab.say(f"The term for sparse codes asks for {TARGET:g}, not for 0; ReLU makes the zeros. A number that is always 0 "
        "says nothing: the code is then smaller than it seems.")

# %% The weights of the last layer
lab.section("Weights")
weighty = [name for form in forms for name in (form, f"{form}_denoising") if name in networks] or args.models[:1]
pictures = {name: _reconstructions.weight_pictures(networks[name]) for name in weighty}
before = _reconstructions.smoothness(_reconstructions.weight_pictures(untrained["dense"]))
smooth = {name: {"trained": _reconstructions.smoothness(pictures[name]), "untrained": before}
          for name in weighty if VARIANTS[name].form == "dense"}
lab.figure(_reconstructions.draw_weights(pictures), "decoder_weights", "The weights of the last layer, those of the "
           "largest norm first, red above 0 and blue below. Dense: what each hidden unit adds to the image. "
           "Convolutional: the kernels that make the image of its maps.")
if smooth:
    lab.say("The correlation of a weight with the one to its right, in all such pictures: " + ", ".join(
        f"{in_words(name)} {both['trained']:z.2f} (before training {both['untrained']:z.2f})"
        for name, both in smooth.items()) + ". 0 is snow; strokes and blobs bring it nearer to 1.")

# %% From one image to another
lab.section("Between two images")
second = int(np.flatnonzero(truth != truth[0])[0])          # the first test image of another class
others = np.flatnonzero(truth[1:] != truth[:-1])[:500].tolist()                         # pairs of neighbours i, i + 1
along = [name for name in ("dense", "conv") if name in networks] or args.models[:1]
rows = {"pixels": as_pixels(_reconstructions.blends(test[[0, second]], 11), mean, std)}
rows |= {in_words(name): as_pixels(_reconstructions.path(networks[name], test[[0, second]], 11, lab.device), mean, std)
         for name in along}
figure = _reconstructions.draw_rows(rows, [f"{share:.0%}" for share in np.linspace(0, 1, 11)])
lab.figure(figure, "interpolation", f"From test image 0 ({lab.classes[truth[0]]}) to test image {second} "
           f"({lab.classes[truth[second]]}): the blend of the pixels, and what is decoded from the blend of the codes.")
departures = {name: _reconstructions.departure(networks[name], test[others], test[[i + 1 for i in others]], lab.device)
              for name in along}
lab.say(f"How far from a blend is that? For {len(others)} pairs of test images of different classes, the mean squared "
        "difference of the decoded midpoint from the blend of the two reconstructions, over that between these two: "
        + ", ".join(f"{in_words(name)} {value:.3f}" for name, value in departures.items()) + ". A blend has 0; the two "
        "ends have 0.25. The nearer to 0, the more the way through the codes is a mere fading over.")

# %% The codes as a map
lab.section("Maps of the codes")
points = {"pixels": test.flatten(1).numpy()[:1000]} | {name: codes[name][:1000] for name in shown}      # (N, K)
equal = [name for name in points if not np.ptp(points[name], axis=0).any()]
points = {name: of_name for name, of_name in points.items() if name not in equal}
near = truth[:1000]
maps = {name: _reconstructions.maps_of(of_name, args.seed) for name, of_name in points.items()}
agrees = {name: {"all numbers": _reconstructions.agreement(points[name], near)}
          | {method: _reconstructions.agreement(of_method, near) for method, of_method in maps[name].items()}
          for name in points}
chance = _reconstructions.agreement_by_chance(near)
lab.figure(_reconstructions.draw_embedding(maps, near, lab.classes, agrees), "embedding", f"The same {len(near):,} "
           "test images in each panel. Above each: the share of a point's ten nearest in the panel that are of its "
           "class.")
lab.table([[in_words(name), str(points[name].shape[1]), *(f"{value:.1%}" for value in agrees[name].values())]
           for name in points], ["space", "numbers", "in all numbers", "in 2 of PCA", "in 2 of t-SNE"],
          f"Share of a point's ten nearest neighbours that are of its class; by chance {chance:.1%}")
if equal:
    lab.say(f"All codes are equal, and have no map, in: {', '.join(map(in_words, equal))}.")

# %%
ahead = sum(of_name["t-SNE"] > of_name["PCA"] for of_name in agrees.values())
lab.question("Why is the code smaller than the input?",
             "If it were as large, to copy would be enough: a perfect score, and nothing learned. The code of "
             f"{in_words(shown[0])} has {codes[shown[0]].shape[1]} numbers for {test[0].numel()} pixels, so it must "
             "find what images have in common. Noise and sparse codes are other ways to forbid copying.")
lab.question("Are reconstructions perfect?",
             "No. " + ", ".join(f"{in_words(name)} {models[name]['psnr']:.1f} dB" for name in shown) + f"; the mean "
             f"image, the same for all, has {mean_image_psnr:.1f} dB, and 40 dB would be an error of 1 % of the grey "
             "scale. Mean squares reward the blurred middle of all that the code leaves open.")
lab.question("Which plot groups the classes, and why?",
             f"t-SNE has the higher number in {ahead} of {len(agrees)} spaces here. It is fitted to keep neighbours, "
             "and neighbours are counted; PCA is fitted to keep variance, and two directions need not part classes. "
             "The distances between groups, and their sizes, mean little with t-SNE. Compare with the column for all "
             "numbers, and with pixels: is it the map that groups the classes, or the code?")
pairs = [(form, f"{form}_denoising") for form in forms if {form, f"{form}_denoising"} <= networks.keys()]
if pairs:
    lab.question("Does a denoising autoencoder learn another code?",
                 "It has to make the clean image of both, so it gains if a noisy image has the code of the clean one. "
                 "How far noise moves codes, over how far two images are apart: " + "; ".join(
                     f"{in_words(name)} {sparsity[name]['moved']:.3f}, {form} without noise in training "
                     f"{sparsity[form]['moved']:.3f}" for form, name in pairs)
                 + ". The smaller it is, the more of the noise the encoder overlooks; one training of each says this.")
if "conv" in forms:
    a, b = (sum(p.numel() for p in untrained[form].parameters()) for form in ("conv", "dense"))
    lab.question("Why does the convolutional network have so few parameters?",
                 f"It has {a:,}, the dense one {b:,}. A kernel is used at all places, a dense layer has a weight for "
                 "every pair of numbers."
                 + (" So its code is a small picture, each number from around its own place." if shape[1] > 18 else ""))
lab.metrics |= {"optimizer": args.optimizer, "test_size": len(test), "models": models,
                "pca_psnr": {str(code_size[form]): value for form, value in pca_psnr.items()},
                "mean_image_psnr": mean_image_psnr,
                "denoising": {noise: {method: float(values.mean()) for method, values in of_noise.items()}
                              for noise, of_noise in found.items()},
                "sparsity": sparsity, "decoder_smoothness": smooth, "interpolation": departures,
                "embedding": {**agrees, "chance": chance}}
lab.finish()
