"""A network with dropout learns from images of 48×48 in colour that are different in every epoch.

Images are enlarged to 48×48 in three channels and, each time they are fetched, turned, changed in colour and
normalised. Three convolutions and two dense layers with dropout learn from them. The lab measures whether loading keeps
up with training, and what goes wrong with dropout if `train()` or `eval()` is forgotten. A fifth of the training images
(at most 6,000) is set aside to choose the epoch; the test images are looked at once, at the end.

    python -m labs.cnn48                                  # 600 digits of 8×8 pixels, enlarged
    python -m labs.cnn48 --dataset mnist                  # one epoch of 6,400 images of MNIST
    python -m labs.cnn48 --dataset mnist --preset full    # all 60,000, 5 epochs

Others are `fashion-mnist`, and `cifar10`, whose images have colours already.
"""
# %%
import itertools
import time

import numpy as np
from sklearn.metrics import classification_report, confusion_matrix

import minidl
from labs import _classifier, _cnn48
from labs._cnn48 import Images, fastest, images_per_second, log_probabilities, loss_and_accuracy, step
from labs._lab import Lab
from minidl import optim
from minidl.data import DataLoader, Subset
from minidl.models import cnn48
from minidl.transforms import ColorJitter, Compose, Grayscale, InterpolationMode, Normalize, RandomRotation

SIZE, LR, WEIGHT_DECAY = 48, 1e-3, 1e-4
lab = Lab("cnn48", __doc__, datasets=("digits", "mnist", "fashion-mnist", "cifar10"),
          presets={"quick": {"train_size": 8_000, "epochs": 1}, "full": {"train_size": 60_000, "epochs": 5}},
          per_dataset={"digits": {"train_size": 600, "epochs": 3, "batch_size": 32}}, batch_size=64,
          extra_arguments=lambda parser: parser.add_argument("--workers", type=int, choices=range(9), default=1, help=(
              "threads that load images ahead of the training (default 1)")),
          seconds=lambda args: (24 if args.dataset == "digits" else 45) + args.epochs * args.train_size * 0.005)
args = lab.args

# %% The images
lab.section("The images")
images, labels = lab.images(train=True)                     # (N, 1 or 3, H, W) from 0 to 1, and (N,)
test_images, test_labels = lab.images(train=False)
start = time.perf_counter()
pixels, test_pixels = _cnn48.enlarged(images, SIZE), _cnn48.enlarged(test_images, SIZE)
resize_seconds = time.perf_counter() - start
for_training, for_validation = (part.numpy() for part in _classifier.split(len(images), args.seed))
in_colour, names = pixels.ndim == 4, lab.classes
mean, std = _cnn48.mean_and_std(pixels[for_training[:2000]])
normalise, plain = Normalize(mean, std), Compose([] if in_colour else [Grayscale(3)])   # grey: three equal channels
augment = Compose([RandomRotation(10, InterpolationMode.BILINEAR), plain,               # one channel is turned faster
                   ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2 if in_colour else 0)])
training = Images(pixels[for_training], labels[for_training], augment, normalise)
not_augmented = Images(training.pixels, training.labels, plain, normalise)
validation = Images(pixels[for_validation], labels[for_validation], plain, normalise)
test = Images(test_pixels, test_labels, plain, normalise)
loader = DataLoader(training, args.batch_size, shuffle=True, num_workers=args.workers)
lab.say(f"{len(training):,} images to train on, {len(validation):,} to choose the epoch with, {len(test):,} to test "
        f"with once. What is the same in every epoch is done once: {images.shape[2]}×{images.shape[3]} pixels are "
        f"enlarged to {SIZE}×{SIZE} in {resize_seconds:.1f} s and kept as bytes ({pixels.nbytes / 1e6:,.0f} MB; as "
        f"float32 in three channels they would take {len(pixels) * 3 * SIZE * SIZE * 4 / 1e6:,.0f} MB). What is random "
        f"is drawn whenever an image is fetched: a turn by up to 10°, brightness and contrast ±20 %"
        + (", and saturation ±20 %." if in_colour else "; saturation and hue would change nothing about grey."))
lab.code(Images)
lab.figure(_cnn48.draw_augmentation(training, not_augmented, names), "augmentation",
           "Five training images, each with seven draws. The label stays true and the numbers do not: the network "
           "hardly ever meets the same numbers twice. What a turn leaves empty is black.")
after = training.whole_batch(range(min(64, len(training))))[0].numpy()[:, :3 if in_colour else 1]
after = after.swapaxes(0, 1).reshape(after.shape[1], -1)                                # (N, C, H, W) -> (C, N·H·W)
lab.figure(_cnn48.draw_normalisation(after, mean, std), "normalisation",
           "The pixels of one augmented batch; the dashed line is their mean. The shape stays, the axis is moved and "
           "stretched, so that the first layer gets numbers around 0 of a size of about 1. Mean and deviation come "
           f"from {min(2000, len(training)):,} training images before augmentation.")

# %% The network and its parameters
lab.section("The network")
shape, dense_inputs = (3, SIZE, SIZE), 128 * (SIZE // 4) ** 2
table = minidl.summary(cnn48(shape, len(names)), shape, verbose=False)
weighted = [row for row in table.rows if row.parameters]
formulas = [(f"3·3·{i}·{o} + {o}", 3 * 3 * i * o + o) for i, o in itertools.pairwise((3, 32, 64, 128))]
formulas += [(f"{i}·{o} + {o}", i * o + o) for i, o in itertools.pairwise((dense_inputs, 512, len(names)))]
assert [count for _, count in formulas] == [row.parameters for row in weighted], "the formulas describe this model"
total, largest, convolutions = table.parameters, weighted[3], weighted[:3]
few_weights = sum(row.parameters for row in convolutions) / total
convolution_work = sum(row.multiply_adds for row in convolutions) / table.multiply_adds
lab.code(cnn48)
lab.table([[f"{row.name} {row.kind}", formula, f"{count:,}", f"{row.parameters:,}", f"{row.parameters / total:.2%}",
            f"{row.multiply_adds / table.multiply_adds:.1%}"]
           for row, (formula, count) in zip(weighted, formulas, strict=True)]
          + [["all", "", f"{sum(count for _, count in formulas):,}", f"{total:,}", "", ""]],
          ["layer", "weights + biases", "by formula", "in the model", "of all", "of the multiply-adds"])

# %% Does loading keep up with training?
lab.section("Does loading keep up with training?")
THREADS = f"threads: {args.workers}"
measures = {"loader alone, no thread": (False, 0), f"loader alone, {THREADS}": (False, args.workers),
            "step alone, on a ready batch": (True, None),
            "both, no thread": (True, 0), f"both, {THREADS}": (True, args.workers)}
scratch = cnn48(shape, len(names)).to(lab.device)           # not the network that is trained below
scratch_optimizer = optim.Adam(scratch.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)


def rate(trains, workers):
    """Images a second; `trains`: with a step of training after each batch."""
    work = (lambda batch: step(scratch, scratch_optimizer, batch, lab.device)) if trains else len
    return images_per_second(training, args.batch_size, work, workers, count=4 if trains else 16)


rate(True, None)                                            # the first steps find their memory, and may compile
rounds = [{name: rate(*how) for name, how in measures.items()} for _ in range(2)]
rates = {name: max(one[name] for one in rounds) for name in measures}       # other work only ever slows it down
loads_in_turn, loads, steps, in_turn, together = rates.values()
lab.table([[name, f"{value:,.0f}", f"{1000 / value:.2f}"] for name, value in rates.items()],
          ["what", "images a second", "milliseconds an image"], "The faster of two rounds")
many = range(min(64, len(training)))
one_by_one, in_batches = (fastest(work) / len(many) for work in (
    lambda: [training[i] for i in many], lambda: training.whole_batch(many)))
limit, expected = "the step" if steps < loads else "the loader", 1 / (1 / loads_in_turn + 1 / steps)
lab.say(f"{limit.capitalize()} limits: alone, the loader gives {loads / steps:.1f} times as many images a second as "
        f"the step takes. One after the other, times add: {expected:,.0f} images a second expected, {in_turn:,.0f} "
        f"measured. With threads ({args.workers}) it was {together:,.0f}, {together / steps:.0%} of the step alone: on "
        f"a CPU threads take time from the cores that compute the step; beside a GPU they need not. Images become "
        f"floats and are normalised a whole batch at once: the same numbers as one by one, and with all transforms "
        f"{in_batches:.2f} ms an image instead of {one_by_one:.2f}.")

# %% Training
lab.section("Training")
minidl.manual_seed(args.seed)
network = cnn48(shape, len(names))
model, trainer = _classifier.train(network, loader, DataLoader(validation, 128), epochs=args.epochs, lr=LR,
                                   batch_size=args.batch_size, device=lab.device, weight_decay=WEIGHT_DECAY)
curves = {key: [epoch[key] for epoch in trainer.history]
          for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")}
best = int(np.argmin(curves["val_loss"]))
lab.say(f"The weights of epoch {best + 1} of {args.epochs} are kept, where the validation loss is lowest, "
        f"{curves['val_loss'][best]:.4f}. Adam, learning rate {LR:g}, weight decay {WEIGHT_DECAY:g}.")
lab.report.table([[str(i + 1), *(f"{values[i]:.4f}" for values in curves.values())] for i in range(args.epochs)],
                 ["epoch", *curves], "Epoch by epoch")
if args.epochs > 1:
    lab.figure(_cnn48.draw_curves(curves), "curves", "Training values are means during an epoch, with dropout, on "
               "augmented images, while the weights still change; validation comes after it, without all that.")

# %% The test
lab.section("The test")
truth = test_labels.numpy()
answers = log_probabilities(model.network, test, lab.device)                            # (N, classes)
predicted, (test_loss, accuracy) = answers.argmax(1), loss_and_accuracy(answers, truth)
confusion = confusion_matrix(truth, predicted, labels=range(len(names)))
report = classification_report(truth, predicted, labels=range(len(names)), target_names=names, output_dict=True,
                               zero_division=0)
lab.say(f"{accuracy:.2%} ± {(accuracy * (1 - accuracy) / len(truth)) ** 0.5:.2%} of {len(truth):,} test images are "
        f"right (± is one standard deviation of chance in the choice of images); the loss is {test_loss:.4f}.")
lab.table([[name, *(f"{report[name][key]:.4f}" for key in ("precision", "recall", "f1-score")),
            f"{report[name]['support']:,.0f}"] for name in (*names, "macro avg", "weighted avg")],
          ["class", "precision", "recall", "F1", "images"], "scikit-learn's classification report")
lab.figure(_cnn48.draw_confusion(confusion, names), "confusion",
           "How many test images of each class got which answer; an empty square is 0.")

# %% Dropout: train() or eval()
lab.section("Dropout: train() or eval()")
DRAWS, ONE_IMAGE_DRAWS, STEPS = 12, 200, 10
features, head = model.network[:9], model.network[9:]       # up to the first dropout both modes are the same
few = Subset(test, range(min(1000, len(test))))
with minidl.no_grad():
    seen = minidl.cat([features(batch.to(lab.device)) for batch, _ in DataLoader(few, 128)])        # (N, 18432)
    in_eval = head.eval()(seen).softmax(1).cpu().numpy()                                            # (N, classes)
    in_train = np.stack([head.train()(seen).softmax(1).cpu().numpy() for _ in range(DRAWS)])    # (draws, N, classes)
    chosen = np.argsort(in_eval.max(1), kind="stable")[[-1, len(few) // 50, 0]].tolist()
    of_one = np.stack([head(seen[i].expand(ONE_IMAGE_DRAWS, -1)).softmax(1).cpu().numpy()[:, truth[i]]
                       for i in chosen])                                                            # (images, draws)
eval_accuracy = float((in_eval.argmax(1) == truth[:len(few)]).mean())
train_accuracies = (in_train.argmax(2) == truth[:len(few)]).mean(1)                                 # (draws,)
averaged_accuracy = float((in_train.mean(0).argmax(1) == truth[:len(few)]).mean())
lab.table([["eval()", f"{eval_accuracy:.2%}", "0: every pass is the same"],
           ["train()", f"{train_accuracies.mean():.2%}", f"{train_accuracies.std(ddof=1):.2%}"],
           [f"train(), mean of the probabilities of {DRAWS} passes", f"{averaged_accuracy:.2%}", ""]],
          ["mode", "accuracy", "standard deviation"], f"The same weights on the same {len(few):,} test images")
of_one_in_eval = [float(in_eval[i, truth[i]]) for i in chosen]
lab.figure(_cnn48.draw_modes(train_accuracies, eval_accuracy, [test.changed(i) for i in chosen],
                             [names[truth[i]] for i in chosen], of_one, of_one_in_eval), "modes",
           f"Left: accuracy on {len(few):,} images. Right: {ONE_IMAGE_DRAWS} answers of train() to one image, of which "
           "eval() is most, less and least sure. Orange: its single answer. ±: the deviation of those of train().")

val_part, val_truth = Subset(validation, range(min(320, len(validation)))), validation.labels.numpy()[:320]
part, part_truth = range(min(320, len(training))), training.labels.numpy()[:320]
losses = {what: loss_and_accuracy(log_probabilities(model.network, data, lab.device, dropout), known)
          for what, data, known, dropout in (
              ("training images, augmented, train()", Subset(training, part), part_truth, True),
              ("training images, augmented, eval()", Subset(training, part), part_truth, False),
              ("training images, eval()", Subset(not_augmented, part), part_truth, False),
              ("validation images, eval()", val_part, val_truth, False))}
lab.table([[what, f"{loss:.4f}", f"{share:.2%}"] for what, (loss, share) in losses.items()],
          ["the kept weights on", "loss", "accuracy"], "What dropout and augmentation add to the training loss")
kept = {name: value.clone() for name, value in model.network.state_dict().items()}


def continued(mode):
    """Train a few steps more in a mode, from the kept weights: their mean loss; loss and accuracy afterwards."""
    model.network.load_state_dict(kept)
    model.network.train(mode == "train()")
    minidl.manual_seed(args.seed + 1)                       # the same batches for both
    optimizer = optim.Adam(model.network.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    batches = itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), STEPS)
    loss = float(np.mean([step(model.network, optimizer, batch, lab.device) for batch in batches]))
    return loss, *loss_and_accuracy(log_probabilities(model.network, val_part, lab.device), val_truth)


forgotten = {mode: continued(mode) for mode in ("train()", "eval()")}
model.network.load_state_dict(kept)
lab.table([[mode, f"{loss:.4f}", f"{after:.4f}", f"{share:.2%}"] for mode, (loss, after, share) in forgotten.items()],
          ["mode", "training loss", "validation loss", "validation accuracy"],
          f"{STEPS} more steps, in the right mode and in the one that is left after validating")
lower = forgotten["eval()"][0] < forgotten["train()"][0]
lab.say(f"Who calls eval() to validate and forgets train() afterwards trains on without dropout. Nothing warns; the "
        f"training loss was {'lower, as if all were well' if lower else 'not even lower'}. {STEPS} steps say little "
        f"about validation. The Trainer switches by itself; a loop by hand has to.")

# %%
lab.question("Why are the numbers that dropout keeps multiplied by 1/(1−p) in training?",
             f"x stays with chance 1−p. As x/(1−p) its mean over all draws is x, so the next layer's sums have the "
             f"mean that they have in eval(), where nothing is dropped. After ReLU and softmax that is not exact: the "
             f"mean of {DRAWS} passes is right for {averaged_accuracy:.2%} of images, eval() for {eval_accuracy:.2%}.")
learned, off, bare, held_out = (loss for loss, _ in losses.values())
lab.question("Why is the validation loss often below the training loss here?",
             f"The training loss is that of a handicapped network, on harder images, before the epoch's learning is "
             f"done: {curves['train_loss'][best]:.3f} in the kept epoch, validation {curves['val_loss'][best]:.3f}. "
             f"The kept weights get {learned:.3f} on {len(part)} training images, in eval() {off:.3f}, without "
             f"augmentation {bare:.3f}. Only the last compares with {held_out:.3f} on {len(val_part)} for validation.")
lab.question("Most parameters sit in one layer. What do the convolutions cost instead?",
             f"{largest.parameters / total:.1%} of {total:,} are in the first dense layer: one for each pair of its "
             f"{dense_inputs:,} inputs and 512 units, used once an image. The convolutions have {few_weights:.1%} of "
             f"them and do {convolution_work:.1%} of the multiply-adds: a kernel is used at every place of the image.")
lab.metrics |= {
    "param_count": total, "param_counts": {f"{row.name} {row.kind}": row.parameters for row in weighted},
    "param_counts_by_formula": [count for _, count in formulas], "convolution_work": convolution_work,
    "convolution_parameters": few_weights, "pixel_bytes": pixels.nbytes, "best_epoch": best + 1, **curves,
    "train_count": len(training), "val_count": len(validation), "test_count": len(test), "lr": LR,
    "weight_decay": WEIGHT_DECAY, "workers": args.workers, "mean": mean, "std": std, "resize_seconds": resize_seconds,
    "seconds_of_epochs": [epoch["seconds"] for epoch in trainer.history], "test_accuracy": accuracy,
    "test_loss": test_loss, "confusion": confusion, "report": report, "eval_accuracy": eval_accuracy,
    "train_mode_accuracy": {"mean": train_accuracies.mean(), "sd": train_accuracies.std(ddof=1),
                            "passes": train_accuracies, "averaged": averaged_accuracy},
    "one_image": {"test_image": chosen, "eval": of_one_in_eval, "train_mean": of_one.mean(1),
                  "train_sd": of_one.std(1, ddof=1)},
    "mode_counts": {"images": len(few), "passes": DRAWS, "answers": ONE_IMAGE_DRAWS, "steps": STEPS}, "limit": limit,
    "losses": losses, "continued": forgotten, "images_per_second": rates, "expected_in_turn": expected,
    "loader_images_per_second": loads, "step_images_per_second": steps, "together_images_per_second": together,
    "milliseconds_an_image": {"one_by_one": one_by_one, "whole_batches": in_batches}}
minidl.save({"dataset": args.dataset, "image_shape": shape, "seed": args.seed, "test_accuracy": accuracy, "mean": mean,
             "std": std, "state_dict": model.network.state_dict()}, lab.out / "cnn48.safetensors")
lab.finish()
