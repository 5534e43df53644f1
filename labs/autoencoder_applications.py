"""What the codes of autoencoders are good for: classes from few labels, fewer bytes, and finding what does not belong.

Compared methods see the same images, each claim has a baseline without a network, and nothing is chosen by the test
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

import minidl
from labs import _anomalies, _autoencoders, _classifier, _compression, _few_labels
from labs._anomalies import Scores
from labs._autoencoders import VARIANTS, as_pixels, in_words, psnr, reconstructed
from labs._components import components_of
from labs._lab import Lab
from labs._statistics import mean_and_error
from minidl.data import TensorDataset
from minidl.errors import MinidlError, SettingError

lab = Lab("autoencoder_applications", __doc__, datasets=("digits", "mnist", "fashion-mnist"),
          extra_arguments=_few_labels.add_arguments,
          presets={"quick": {**_autoencoders.QUICK, "draws": 5, "tune_epochs": 5, "tune_draws": 2},
                   "full": {**_autoencoders.FULL, "draws": 20, "tune_epochs": 30, "tune_draws": 5}},
          per_dataset={"digits": {**_autoencoders.OF_DIGITS, "draws": 20, "tune_epochs": 12, "tune_draws": 3}},
          seconds=lambda args: _autoencoders.training_seconds(args) + (
              50 if args.dataset == "digits" else 35 if args.preset == "quick" else 300))
args = lab.args

# %% The images, and others that are none of their kind
lab.section("The images")
OTHER = {"mnist": "fashion-mnist", "fashion-mnist": "mnist"}.get(args.dataset, "photographs")
data = _autoencoders.data_of(lab)
training, validation, test, mean, std = data.training, data.validation, data.test, data.mean, data.std
shape, pixels, truth = tuple(test.shape[1:]), data.pixels, data.test_labels
if OTHER == "photographs":
    others = _anomalies.photographs(shape[1])
else:
    others = lab.images(True, OTHER)[0], lab.images(False, OTHER)[0]
other_training, other_test = ((x - mean) / std for x in others)
forms = [form for form in ("conv", "dense") if any(VARIANTS[name].form == form for name in args.models)]
code_size = _autoencoders.dense_sizes(shape)[1]
most = max(code_size, pixels[0].size // 4 if "conv" in forms else 0)        # numbers in a code
if len(training) < most:
    raise SettingError(f"got {args.train_size}, of which {len(training)} are trained on, expected enough for {most}: "
                       f"PCA is fitted with as many components as a code has numbers", where="--train-size")
few_test, few_truth = test[:args.test_size], truth[:args.test_size]         # for classes; the rest takes all
lab.say(f"{len(training):,} images to train on, {len(validation):,} for the curves and the threshold of the anomaly "
        f"detector, {len(test):,} to test with. Pixels are normalised, x → (x − {mean:.4f}) / {std:.4f}. Images of "
        f"another kind, {OTHER}, are normalised in the same way: {len(other_training):,} and {len(other_test):,}. No "
        f"autoencoder is trained on those." + (
            " They are patches of two real photographs that come with scikit-learn: the classifier is fitted with one, "
            "the other is for the test." if OTHER == "photographs" else ""))

# %% The autoencoders
lab.section("The autoencoders")
trained, code_shapes = {}, {}
for name in args.models:
    trained[name] = _autoencoders.fitted(lab, name, training, validation, mean, std)
    codes = _classifier.outputs(trained[name].network.encoder, validation, lab.device)
    code_shapes[name] = tuple(codes.shape[1:])
    silent = int((codes.flatten(1) == 0).all(dim=0).sum())
    lab.say(f"{in_words(name)}: the error of validation images after the last epoch is "
            f"{trained[name].val_loss[-1]:.4f}; {silent} of {codes[0].numel()} numbers in their codes are always 0.")
    if silent == codes[0].numel():
        raise MinidlError(f"the codes of {name} have become 0 for all images; choose a smaller rate than "
                          f"{_autoencoders.settings_of(lab, name, shape)['lr']:g}", where="--lr")
sizes = {name: int(np.prod(code_shape)) for name, code_shape in code_shapes.items()}
shown = [next(name for name in VARIANTS if name in trained and VARIANTS[name].form == form) for form in forms]
source, its_name = shown[0], in_words(shown[0])             # the plain one of each form; and the one most is said about

# %% Classes from few labels: is the nearest labelled image of the same class?
lab.section("Classes from few labels; exercise: which training gives the best codes?")
labelled, their_labels = training[:10_000], data.labels[:10_000]
draws = _few_labels.draws_of(len(labelled), args.draws, args.seed)          # (draws, 1000), the same for all
counts = _few_labels.label_counts(draws.shape[1])
components = components_of(training, most)
pca_sizes = sorted({code_size // 4, code_size, *(sizes[name] for name in shown)})
untrained = {"untrained" if form == "conv" else "untrained_dense": [
    _autoencoders.untrained(lab, form, shape, args.seed + i) for i in range(3)] for form in forms}
represent = _few_labels.representations({name: one.network for name, one in trained.items()}, untrained, components,
                                        pca_sizes, lab.device)
knn, probe, numbers = {}, {}, {}
for name, encoders in represent.items():                    # three encoders with random weights count as one
    codes = [(encode(labelled), their_labels, encode(few_test), few_truth) for encode in encoders]
    knn[name] = np.mean([_few_labels.by_neighbour(*one, draws) for one in codes], axis=0)       # (draws, counts)
    probe[name] = np.mean([_few_labels.by_line(*one, draws[:5]) for one in codes], axis=0)      # (draws,)
    numbers[name] = codes[0][0].shape[1]
baselines = [name for name in knn if name not in trained]
at = counts.index(min(100, counts[-1]))
paired = {name: mean_and_error(accuracy - knn["pixels"]) for name, accuracy in knn.items()}
ranked = sorted(((name, float(mean[at]), float(error[at])) for name, (mean, error) in paired.items()),
                key=lambda row: -row[1])
few = ["pixels", "blur", *(f"pca{k}" for k in pca_sizes), *untrained, *shown]
lab.figure(_few_labels.draw_neighbours({name: knn[name] for name in few}, set(baselines)), "neighbours",
           f"Left: how many of {len(few_test):,} test images have the class of the nearest labelled training image. "
           f"Right: the difference to pixels for the same {len(draws)} draws from {len(labelled):,} images, with its "
           "standard error over them. Large draws overlap, which makes it small, and the test images are always the "
           "same; what those and another training would change is not in it.")
lab.figure(_few_labels.draw_ranking(ranked, counts[at]), "ranking",
           f"All of them with {counts[at]} labels against pixels, paired over the draws.")
lab.table([[in_words(name), str(numbers[name]),
            f"{knn[name][:, at].mean():.1%} ± {knn[name][:, at].std(ddof=1):.1%}",
            f"{100 * difference:+.1f} ± {100 * error:.1f} ({(knn[name] > knn['pixels'])[:, at].sum()})",
            f"{knn[name][:, -1].mean():.1%}", f"{probe[name].mean():.1%}"] for name, difference, error in ranked],
          ["code", "numbers", "right ± sd", f"points against pixels (draws won of {len(draws)})",
           f"{counts[-1]:,} labels", f"{counts[-1]:,}, linear"],
          f"The nearest neighbour among {counts[at]} labels and among {counts[-1]:,}, and a linear classifier of those "
          f"(ridge regression; {len(draws[:5])} of the draws)")
lab.say(_few_labels.on_ranking(ranked, counts[at]) + " The accuracy with pixels has a standard deviation of "
        f"{knn['pixels'][:, at].std(ddof=1):.1%} from draw to draw, so only paired differences say anything.")

# %% Does pretraining help a classifier?
lab.section("Exercise: fine-tuning the encoder")
lab.code(_few_labels.tuned)
check = TensorDataset(validation[:1000], minidl.tensor(data.validation_labels[:1000]))
TUNE_LR = 4e-3 if args.dataset == "digits" else 1e-3        # as in labs.cnn


def begin(way, seed):
    """The encoder with which a classifier begins."""
    return (trained[source].network if way == "pretrained" else
            _autoencoders.untrained(lab, VARIANTS[source].form, shape, seed)).encoder


WAYS, tune_counts = ("pretrained", "from scratch"), counts[::2]
curves, tuned_accuracy = {}, {}
for way, k in itertools.product(WAYS, tune_counts):
    runs = [_few_labels.tuned(begin(way, seed), labelled[draw[:k]], minidl.tensor(their_labels[draw[:k]]), check,
                              lr=TUNE_LR, rows=counts[-1], epochs=args.tune_epochs, device=lab.device, seed=seed)
            for seed, draw in enumerate(draws[:args.tune_draws], start=args.seed)]
    curves[way, k] = np.array([curve for _, curve in runs])                                 # (draws, epochs)
    answers = [_classifier.predict(network, few_test, lab.device).argmax(1).numpy() for network, _ in runs]
    tuned_accuracy[way, k] = (np.array(answers) == few_truth).mean(1)                       # (draws,)
ahead = {k: mean_and_error(tuned_accuracy["pretrained", k] - tuned_accuracy["from scratch", k]) for k in tune_counts}
lab.figure(_few_labels.draw_tuning(curves, tuned_accuracy), "fine_tuning",
           f"The encoder of {its_name} with one dense layer behind it, trained on labelled images with Adam (rate "
           f"{TUNE_LR:g}); beside it the same network from random weights. An epoch is {counts[-1]:,} images: with "
           f"fewer labels each comes several times. Bands and bars: standard error over "
           f"{len(draws[:args.tune_draws])} draws. Where curves still rise, more epochs may change who is ahead.")
lab.table([[f"{k:,}", *(f"{tuned_accuracy[way, k].mean():.1%}" for way in WAYS),
            _few_labels.in_points(*ahead[k]), f"{knn[source][:args.tune_draws, counts.index(k)].mean():.1%}"]
           for k in tune_counts], ["labels", *WAYS, "difference ± error", "1-NN on its codes"],
          f"Test accuracy after the last epoch, {args.tune_epochs} in all, for the same draws")
lab.say(_few_labels.on_tuning(ahead))

# %% Compression
lab.section("Fewer bytes")
compression = {"pixels": {"bytes": pixels.size}, "zlib": {"bytes": _compression.lossless(pixels)}}
for name in shown:
    k, decoder = sizes[name], _compression.decoder_of(trained[name].network, code_shapes[name], mean, std, lab.device)
    compression[name] = _compression.compressed(*represent[name], test, labelled, pixels, decoder)
    decoder = _compression.decoder_of_pca(components, shape, mean, std)
    compression[f"pca{k}"] = _compression.compressed(*represent[f"pca{k}"], test, labelled, pixels, decoder)
lab.table([[name, "", f"{compression[name]['bytes']:,}", f"{1 - compression[name]['bytes'] / pixels.size:.2%}", "exact"]
           for name in ("pixels", "zlib")]
          + [[in_words(name), kind, f"{of_kind['bytes']:,}", f"{of_kind['saved']:.2%}", f"{of_kind['psnr']:.2f}"]
             for name in compression if name not in ("pixels", "zlib") for kind, of_kind in compression[name].items()],
          ["what is stored", "as", "bytes", "saved", "PSNR in dB"], f"{len(pixels):,} test images. PSNR: −10 log₁₀ of "
          "the mean squared error. Decoders, and the range of each number for uint8, are not counted")
lab.figure(_compression.draw_compression(compression), "compression", "Quality against bytes. Only what lies left of "
           "the dotted line takes less than zlib does, which loses nothing.")

# %% Anomalies
lab.section("What does not belong")
scores = {name: Scores(*map(score, (training, validation, test, other_training, other_test))) for name, score in
          _anomalies.scores_by(lab, {name: trained[name].network for name in shown}, components, code_size).items()}
facts = {name: _anomalies.judged(of_name) for name, of_name in scores.items()}
known, pca = args.dataset, f"pca{code_size}"
lab.table([[in_words(name), *(f"{of_name[key]:z.2f}" for key in ("mean", "other_mean")), f"{of_name['auroc']:.3f}",
            f"{of_name['average_precision']:.3f}", f"{of_name['fpr_at_95']:.1%}"] for name, of_name in facts.items()],
          ["score", f"mean, {known}", f"mean, {OTHER}", "AUROC", "average precision", "FPR at 95 % TPR"],
          "Test images. Scores: the L2 error of a network, of PCA; the mean pixel; the distance to the mean image")
DECISIONS = ("threshold_correct", "threshold_other_correct", "correct", "other_correct")
lab.table([[in_words(name), *(f"{of_name[key]:.1%}" for key in DECISIONS)] for name, of_name in facts.items()],
          ["score", f"threshold: {known}", f"threshold: {OTHER}", f"classifier: {known}", f"classifier: {OTHER}"],
          "The share of test images of each kind that is taken for what it is")
lab.say(f"AUROC, the area under the ROC curve, is the share of pairs of an image of each kind in which that of {OTHER} "
        "has the higher score; 0.5 is chance. Average precision is the mean share of right ones among those called "
        f"strange; by chance {len(other_test) / (len(test) + len(other_test)):.2f}. FPR at 95 % TPR: how much of "
        f"{known} is called strange, if 95 % of {OTHER} is to be. The threshold is the score that 95 % of the "
        f"{len(validation):,} validation images stay below; it has seen no anomaly. The classifier, logistic "
        f"regression on the scores of both training sets, has seen {OTHER}: it tells two kinds apart, and knows "
        "nothing of a third.")
lab.say(_anomalies.on_detectors(facts, pca, OTHER))
lab.figure(_anomalies.draw_anomalies(scores, facts, source, known, OTHER), "anomalies",
           f"The L2 error of {its_name} for test images of both kinds: histogram, boxplot. Right, for each score, how "
           f"many of {OTHER} are found against how many of {known} are called strange with them.")
cases = {f"{kind}: the {which} errors": rows for kind, x, errors in (
    (known, test, scores[source].test), (OTHER, other_test, scores[source].other_test))
    for which, rows in _anomalies.extremes(trained[source].network, x, errors, mean, std, lab.device).items()}
lab.figure(_anomalies.draw_cases(cases), "cases", f"What {its_name} makes of the test images with the smallest and "
           f"the largest error of each kind: above the image, below its reconstruction. Which ones are really strange?")

# %%
lab.question(*_few_labels.why_codes(ranked, shape, known))
lab.question(*_anomalies.which_population(facts[source], its_name, known, OTHER))
lab.question("Why can linear PCA be as good a detector, or a better one?",
             f"Its components are whole images, learnt from {known}: they hold "
             f"{components.variances[:code_size].sum():.1%} of its variance, and what another kind has outside of the "
             "space that they span is the residual, whole. An autoencoder is trained to make the error small, not to "
             "make the error of other images large. By AUROC: " + ", ".join(
                 f"{in_words(name)} {of_name['auroc']:.3f}" for name, of_name in facts.items()) + ".")
of_source = compression[source]
lab.question("Is a code of fewer numbers than pixels a compression?",
             f"The images are bytes, the codes float32, four bytes a number. {its_name} has {sizes[source]} numbers "
             f"for {pixels[0].size} pixels; it saves {of_source['float32']['saved']:.2%}, as bytes "
             f"{of_source['uint8']['saved']:.2%}, and with zlib after that {of_source['uint8 by zlib']['saved']:.2%}. "
             f"zlib alone, which loses nothing, saves {1 - compression['zlib']['bytes'] / pixels.size:.2%}. And the "
             "decoder has to be stored as well.")
lab.metrics |= {
    "models": {name: {"param_count": sum(p.numel() for p in one.network.parameters()), "val_loss": one.val_loss,
                      "code_shape": code_shapes[name], "knn": _few_labels.facts_of(knn[name], knn["pixels"]),
                      "linear_probe": float(probe[name].mean()),
                      "psnr": psnr(pixels, as_pixels(reconstructed(one.network, test, lab.device), mean, std))}
               for name, one in trained.items()},
    "knn_baselines": {name: _few_labels.facts_of(knn[name], knn["pixels"]) for name in baselines},
    "linear_probe_baselines": {name: float(probe[name].mean()) for name in baselines},
    "ranking": [name for name, _, _ in ranked], "fine_tuning": {way: {str(k): {
        "test_accuracy": tuned_accuracy[way, k].tolist(), "val_accuracy": curves[way, k].mean(0).tolist()}
        for k in tune_counts} for way in WAYS},
    "compression": compression, "anomaly": _anomalies.anomaly_facts(facts, source, known, OTHER),
    "other_dataset": OTHER, "optimizer": args.optimizer, "normalised_by": [mean, std], "test_count": len(test),
    "knn_test_count": len(few_test)}
lab.finish()
