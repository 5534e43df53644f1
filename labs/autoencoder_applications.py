"""What the codes of autoencoders are good for: classes from few labels, fewer bytes, and finding what does not belong.

Compared methods see the same images, each claim has a baseline that learns nothing, and nothing is chosen by the test
images. Anomalies are Fashion-MNIST for MNIST and the reverse, and patches of photographs for the small digits.

    python -m labs.autoencoder_applications                                  # 1,797 digits of 8×8 pixels
    python -m labs.autoencoder_applications --dataset mnist                  # 10,000 images, 3 epochs
    python -m labs.autoencoder_applications --dataset mnist --preset full    # all 60,000, the published 150 epochs
    python -m labs.autoencoder_applications --dataset mnist --preset full --models conv,dense --optimizer adam \\
        --batch-size 128 --epochs 10                                         # ten minutes instead of hours

The autoencoders are those that `labs.autoencoders` has trained with the same settings, or are trained first.
"""
# %%
import itertools

import numpy as np
from sklearn.decomposition import PCA

import minidl
from labs import _autoencoder_applications as _applications
from labs import _autoencoders, _classifier
from labs._autoencoder_applications import Scores
from labs._autoencoders import VARIANTS, as_pixels, blurred, codes_of, in_words, mean_and_error, psnr, reconstructed
from labs._lab import Lab
from minidl.data import TensorDataset
from minidl.errors import SettingError

lab = Lab("autoencoder_applications", __doc__, datasets=("digits", "mnist", "fashion-mnist"),
          extra_arguments=_applications.add_arguments,
          presets={"quick": {**_autoencoders.QUICK, "draws": 5, "tune_epochs": 8, "tune_draws": 2},
                   "full": {**_autoencoders.FULL, "draws": 20, "tune_epochs": 30, "tune_draws": 5}},
          per_dataset={"digits": {**_autoencoders.OF_DIGITS, "draws": 20, "tune_epochs": 10, "tune_draws": 3}},
          seconds=lambda args: _autoencoders.training_seconds(args) + (25 if args.preset == "quick" else 300))
args = lab.args

# %% The images, and others that are none of their kind
lab.section("The images")
OTHER = {"mnist": "fashion-mnist", "fashion-mnist": "mnist"}.get(args.dataset, "photographs")
data = _autoencoders.data_of(lab)
training, validation, test, mean, std = data.training, data.validation, data.test, data.mean, data.std
shape, pixels, truth = tuple(test.shape[1:]), data.pixels, data.test_labels
if OTHER == "photographs":
    others = _applications.photographs(shape[1])
else:
    others = lab.images(True, OTHER)[0], lab.images(False, OTHER)[0]
other_training, other_test = ((x - mean) / std for x in others)
code_size = _autoencoders.dense_sizes(shape)[1]
needed = max(code_size, pixels[0].size // 4)
if len(training) < needed:
    raise SettingError(f"got {args.train_size}, of which {len(training)} are trained on, expected enough for {needed}: "
                       f"PCA is fitted with as many components as a code has numbers", where="--train-size")
few_test, few_truth = test[:args.test_size], truth[:args.test_size]         # for classes; the rest takes all
lab.say(f"{len(training):,} images to train on, {len(validation):,} for the curves and the threshold of the anomaly "
        f"detector, {len(test):,} to test with. Pixels are normalised, x → (x − {mean:.4f}) / {std:.4f}. Images of "
        f"another kind, {OTHER}, are normalised in the same way: {len(other_training):,} and {len(other_test):,}. No "
        f"autoencoder is trained on those." + (" They are real photographs, which come with scikit-learn, in patches."
                                               if OTHER == "photographs" else ""))

# %% The autoencoders
lab.section("The autoencoders")
trained, code_shapes = {}, {}
for name in args.models:
    trained[name] = _autoencoders.fitted(lab, name, training, validation, mean, std)
    codes = _classifier.outputs(trained[name].network.encoder, validation, lab.device)
    code_shapes[name] = tuple(codes.shape[1:])
    silent = int((codes.flatten(1) == 0).all(dim=0).sum())
    lab.say(f"{in_words(name)}: after {args.epochs} epochs the error of validation images is "
            f"{trained[name].val_loss[-1]:.4f}; {silent} of {codes[0].numel()} numbers in a code are 0 for all.")
sizes = {name: int(np.prod(code_shape)) for name, code_shape in code_shapes.items()}
shown = [name for name in VARIANTS if name in trained]
shown = [next(name for name in shown if VARIANTS[name].form == form)        # of each form the plain one, if it is there
         for form in ("conv", "dense") if any(VARIANTS[name].form == form for name in shown)]
source, its_name = shown[0], in_words(shown[0])                             # the one that is looked at most

# %% Classes from few labels: is the nearest labelled image of the same class?
lab.section("Classes from few labels")
labelled, their_labels = training[:10_000], data.labels[:10_000]
draws = _applications.draws_of(len(labelled), args.draws, args.seed)        # (draws, 1000), the same for all
counts = _applications.label_counts(draws.shape[1])
components = {k: PCA(k, svd_solver="covariance_eigh").fit(_applications.flat(training))
              for k in sorted({code_size // 4, code_size, *(sizes[name] for name in shown)})}
untrained = [_autoencoders.untrained(lab, "conv", shape, seed) for seed in range(args.seed, args.seed + 3)]
represent = {"pixels": _applications.flat, "blur": lambda x: _applications.flat(blurred(x)),
             **{f"pca{k}": lambda x, k=k: components[k].transform(_applications.flat(x)) for k in components}}
represent |= {f"untrained {i}": lambda x, i=i: codes_of(untrained[i], x, lab.device) for i in range(3)}
represent |= {name: lambda x, name=name: codes_of(trained[name].network, x, lab.device) for name in trained}
knn, probe, numbers = {}, {}, {}
for name, of_images in represent.items():
    codes = of_images(labelled), their_labels, of_images(few_test), few_truth
    knn[name] = _applications.by_neighbour(*codes, draws)                   # (draws, numbers of labels)
    probe[name] = _applications.by_line(*codes, draws[:5])                  # (draws,)
    numbers[name] = codes[0].shape[1]
for of_method in (knn, probe, numbers):                     # three networks with random weights are one method
    of_method["untrained"] = np.mean([of_method.pop(f"untrained {i}") for i in range(3)], axis=0)
baselines = {name: knn[name] for name in knn if name not in trained}
at = counts.index(min(100, counts[-1]))
ranked = sorted(((name, *(float(value[at]) for value in mean_and_error(accuracy - knn["pixels"])))
                 for name, accuracy in knn.items() if name != "pixels"), key=lambda row: -row[1])
few = ["pixels", "blur", *(f"pca{k}" for k in components), "untrained", *shown]
lab.figure(_applications.draw_neighbours({name: knn[name] for name in few}, set(baselines)), "neighbours",
           f"Left: how many of {len(few_test):,} test images have the class of the nearest labelled training image. "
           f"Right: the difference to pixels for the same {len(draws)} draws of labelled images, with its standard "
           f"error over them; what another training would change is not in it.")
lab.figure(_applications.draw_ranking(ranked, set(baselines), counts[at]), "ranking",
           f"All of them with {counts[at]} labels: how many points more than pixels, paired over the draws.")
lab.table([[in_words(name), f"{numbers[name]:.0f}", f"{knn[name][:, at].mean():.1%} ± {knn[name][:, at].std():.1%}",
            f"{difference:+.1%} ± {error:.1%} ({(knn[name] > knn['pixels'])[:, at].sum()})",
            f"{knn[name][:, -1].mean():.1%}", f"{probe[name].mean():.1%}"]
           for name, difference, error in [*ranked, ("pixels", 0.0, 0.0)]],
          ["code", "numbers", "right ± sd", f"paired difference (draws won of {len(draws)})", f"{counts[-1]:,} labels",
           f"{counts[-1]:,}, linear"],
          f"The nearest neighbour among {counts[at]} labels and among {counts[-1]:,}; a linear classifier of those")
gains = {name: difference for name, difference, _ in ranked}
blur = gains["blur"]
for form in ("conv", "dense"):
    of_form = [row for row in ranked if row[0] in trained and VARIANTS[row[0]].form == form]
    better = [name for name, gain, error in of_form if gain > 2 * error]
    if of_form:
        lab.say(f"Of {len(of_form)} {form} autoencoders, {len(better)} have codes that beat pixels with {counts[at]} "
                f"labels by more than two standard errors: {', '.join(map(in_words, better)) or 'none'}.")
best = next(name for name, _, _ in ranked if name in trained)
lab.say(f"The best of these codes, of {in_words(best)}, gains {gains[best]:+.1%}; being the best here, it may owe some "
        f"of it to these test images. A 3×3 blur, which learns nothing, gains {blur:+.1%}"
        + (f", {blur / gains[best]:.0%} of that: so much of it is smoothing." if gains[best] > blur > 0 else
           ", more than any code here." if blur >= gains[best] > 0 else ".")
        + f" The spread of a single draw is {knn['pixels'][:, at].std():.1%}, so only paired differences say anything.")

# %% Does pretraining help a classifier?
lab.section("Fine-tuning the encoder")
lab.code(_applications.tuned)
check = TensorDataset(validation[:1000], minidl.tensor(data.validation_labels[:1000]))


def begin(way, seed):
    """The encoder with which a classifier begins."""
    return (trained[source].network if way == "pretrained" else
            _autoencoders.untrained(lab, VARIANTS[source].form, shape, seed)).encoder


WAYS, tune_counts = ("pretrained", "from scratch"), counts[-3:]
tune_lr, curves, tuned_accuracy = _autoencoders.default_rate("adam", args.dataset, is_sparse=False), {}, {}
for way, k in itertools.product(WAYS, tune_counts):
    runs = [_applications.tuned(begin(way, seed), labelled[draw[:k]], minidl.tensor(their_labels[draw[:k]]), check,
                                lr=tune_lr, rows=counts[-1], epochs=args.tune_epochs, device=lab.device, seed=seed)
            for seed, draw in enumerate(draws[:args.tune_draws], start=args.seed)]
    curves[way, k] = np.array([curve for _, curve in runs])                                 # (draws, epochs)
    answers = [_classifier.predict(network, few_test, lab.device).argmax(1).numpy() for network, _ in runs]
    tuned_accuracy[way, k] = (np.array(answers) == few_truth).mean(1)                       # (draws,)
lab.figure(_applications.draw_tuning(curves, tuned_accuracy), "fine_tuning",
           f"The encoder of {its_name} with one dense layer behind it, trained on labelled images; beside it the same "
           f"network with random weights. An epoch is {counts[-1]:,} images: with fewer labels each comes several "
           f"times. Bands and bars: standard error over {len(draws[:args.tune_draws])} draws.")
ahead = {k: mean_and_error(tuned_accuracy["pretrained", k] - tuned_accuracy["from scratch", k])
         for k in tune_counts}
lab.table([[f"{k:,}", *(f"{tuned_accuracy[way, k].mean():.1%}" for way in WAYS),
            f"{ahead[k][0]:+.1%} ± {ahead[k][1]:.1%}", f"{knn[source][:args.tune_draws, counts.index(k)].mean():.1%}"]
           for k in tune_counts], ["labels", "pretrained", "from scratch", "difference ± error", "1-NN on its codes"],
          f"Test accuracy after {args.tune_epochs} epochs, the same draws")

# %% Compression
lab.section("Fewer bytes")
compression = {"pixels": {"bytes": pixels.size}, "zlib": {"bytes": _applications.lossless(pixels)}}
for name in shown:
    k, decoder = sizes[name], _applications.decoder_of(trained[name].network, code_shapes[name], mean, std, lab.device)
    compression[name] = _applications.compressed(represent[name], test, labelled, pixels, decoder)
    decoder = _applications.decoder_of_pca(components[k], shape, mean, std)
    compression[f"pca{k}"] = _applications.compressed(represent[f"pca{k}"], test, labelled, pixels, decoder)
lab.table([[name, "", f"{compression[name]['bytes']:,}", f"{1 - compression[name]['bytes'] / pixels.size:.2%}", "exact"]
           for name in ("pixels", "zlib")]
          + [[in_words(name), kind, f"{of_kind['bytes']:,}", f"{of_kind['saved']:.2%}", f"{of_kind['psnr']:.2f}"]
             for name in compression if name not in ("pixels", "zlib") for kind, of_kind in compression[name].items()],
          ["what is stored", "as", "bytes", "saved", "PSNR in dB"], f"{len(pixels):,} test images, a byte a pixel")
lab.figure(_applications.draw_compression(compression), "compression", "Quality against bytes. Only what lies left of "
           "the dotted line takes less than zlib does, which loses nothing.")

# %% Anomalies
lab.section("What does not belong")
scores = {name: Scores(*map(score, (training, validation, test, other_training, other_test))) for name, score in
          _applications.scores_by(lab, {name: trained[name].network for name in shown}, training,
                                  components[code_size]).items()}
facts = {name: _applications.judged(of_name) for name, of_name in scores.items()}
known, pca = args.dataset, f"pca{code_size}"
lab.table([[in_words(name), *(f"{of_name[key]:.2f}" for key in ("mean", "other_mean")), f"{of_name['auroc']:.3f}",
            f"{of_name['average_precision']:.3f}", f"{of_name['fpr_at_95']:.1%}"] for name, of_name in facts.items()],
          ["score", f"mean, {known}", f"mean, {OTHER}", "AUROC", "average precision", "FPR at 95 % TPR"],
          "Test images. Scores: the L2 error of a network, of PCA; the mean pixel; the distance to the mean image")
DECISIONS = ("threshold_correct", "threshold_other_correct", "correct", "other_correct")
lab.table([[in_words(name), *(f"{of_name[key]:.1%}" for key in DECISIONS)] for name, of_name in facts.items()],
          ["score", f"threshold: {known}", f"threshold: {OTHER}", f"classifier: {known}", f"classifier: {OTHER}"],
          "The share of test images of each kind that is taken for what it is")
winner = max(facts, key=lambda name: facts[name]["auroc"])
lab.say(f"The threshold is the error that 95 % of the validation images stay below; it is a detector that has seen no "
        f"anomaly. The classifier, logistic regression on the norms of both training sets, has seen {OTHER}: it tells "
        f"two kinds apart, and knows nothing of a third. By AUROC the best score here is {in_words(winner)}, "
        f"{facts[winner]['auroc']:.3f}"
        + (": linear PCA beats the autoencoders, by one eigendecomposition instead of a training." if winner == pca
           else f"; PCA with {code_size} components has {facts[pca]['auroc']:.3f}."))
lab.figure(_applications.draw_anomalies(scores, facts, source, known, OTHER), "anomalies",
           f"The L2 error of {its_name} for test images of both kinds: histogram, boxplot. Right, for each score, how "
           f"many of {OTHER} are found against how many of {known} are called strange with them.")
cases = {f"{kind}: the {which} errors": rows for kind, x, errors in (
    (known, test, scores[source].test), (OTHER, other_test, scores[source].other_test))
    for which, rows in _applications.extremes(trained[source].network, x, errors, mean, std, lab.device).items()}
lab.figure(_applications.draw_cases(cases), "cases", f"What {its_name} makes of the test images with the smallest and "
           f"the largest error of each kind: above the image, below its reconstruction. Which ones are really strange?")

# %%
lab.question("Why do the codes of convolutional autoencoders beat pixels, if they do, and those of dense ones not?",
             "A pixel that moves by one place is another pixel, and the distance to the same digit becomes large. "
             "Convolution and pooling add up neighbours first, so that small shifts change little; the blur, which "
             f"gains {blur:+.1%}, does that alone. A dense code may put any two images far apart, as long as its "
             "decoder finds them again; nothing in the loss asks for classes. Measured here: " + ", ".join(
                 f"{in_words(name)} {gains[name]:+.1%}" for name in trained) + ".")
of_source = facts[source]
larger = OTHER if of_source["other_mean"] > of_source["mean"] else known
lab.question(f"The histogram has two populations. Which is which, and why is the error of {OTHER} not larger?",
             f"The mean error is {of_source['mean']:.2f} for {known} and {of_source['other_mean']:.2f} for {OTHER}; "
             f"that of {larger} is the larger one. {its_name} was fitted to {known} alone. "
             + (f"But its code of {sizes[source]} numbers for {pixels[0].size} pixels is local: it knows strokes, "
                "edges and even surfaces, and of these other images are made too. "
                if VARIANTS[source].form == "conv" else "")
             + f"PCA with {code_size} components has {facts[pca]['mean']:.2f} and {facts[pca]['other_mean']:.2f}.")
lab.question("Why can linear PCA be the better detector?",
             f"Its components are whole images, learnt from {known}: they hold "
             f"{components[code_size].explained_variance_ratio_.sum():.1%} of its variance, and what another kind has "
             "outside of the space that they span is the residual, whole. An autoencoder is trained to make the error "
             "small, not to make the error of other images large. By AUROC: " + ", ".join(
                 f"{in_words(name)} {of_name['auroc']:.3f}" for name, of_name in facts.items()) + ".")
lab.question("Is a code of fewer numbers than pixels a compression?",
             f"The images are bytes, the codes float32, four bytes a number. {its_name} has {sizes[source]} numbers "
             f"for {pixels[0].size} pixels; it saves {compression[source]['float32']['saved']:.2%}, and as bytes "
             f"{compression[source]['uint8']['saved']:.2%}. zlib, which knows nothing of digits and loses nothing, "
             f"saves {1 - compression['zlib']['bytes'] / pixels.size:.2%}. And the decoder has to be stored as well.")
lab.metrics |= {
    "models": {name: {"param_count": sum(p.numel() for p in one.network.parameters()), "val_loss": one.val_loss,
                      "code_shape": code_shapes[name], "knn": _applications.facts_of(knn[name], knn["pixels"]),
                      "linear_probe": float(probe[name].mean()),
                      "psnr": psnr(pixels, as_pixels(reconstructed(one.network, test, lab.device), mean, std))}
               for name, one in trained.items()},
    "knn_baselines": {name: _applications.facts_of(of_name, knn["pixels"]) for name, of_name in baselines.items()},
    "linear_probe_baselines": {name: float(probe[name].mean()) for name in baselines},
    "ranking": [name for name, _, _ in ranked], "fine_tuning": {way: {str(k): {
        "test_accuracy": tuned_accuracy[way, k].tolist(), "val_accuracy": curves[way, k].mean(0).tolist()}
        for k in tune_counts} for way in WAYS},
    "compression": compression, "anomaly": _applications.anomaly_facts(facts, source, pca), "other_dataset": OTHER,
    "optimizer": args.optimizer, "normalised_by": [mean, std], "test_count": len(test), "knn_test_count": len(few_test)}
lab.finish()
