"""Fooling a trained network with changes that are hardly seen, and training one that is harder to fool.

Every pixel of an image may change by ε at most. FGSM and PGD choose the change by the gradient of the loss with respect
to the image; random signs of the same size are the control. All attacks get the same test images.

    python -m labs.fgsm                                  # 1,797 digits of 8×8 pixels
    python -m labs.fgsm --dataset mnist                  # 500 test images
    python -m labs.fgsm --dataset mnist --preset full    # all 10,000; 3 epochs of adversarial training

The network is the one that `labs.cnn` saved, or is trained first. Also for `fashion-mnist`.
"""
# %%
import copy

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import confusion_matrix

import minidl
from labs import _classifier, _fgsm, _trained
from labs._arguments import positive
from labs._cnn48 import draw_confusion
from labs._lab import Lab
from minidl.attacks import FGSM, PGD, SignNoise, evaluate, input_gradient
from minidl.data import DataLoader, TensorDataset
from minidl.train import Trainer

EPSILONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
EPS = 0.1                                       # where one ε is shown, and the one of adversarial training


def arguments(parser):
    """What this lab takes besides."""
    _trained.add_arguments(parser)
    parser.add_argument("--test-size", type=positive, metavar="N", help="attack the first N test images")
    parser.add_argument("--harden-epochs", type=positive, metavar="N", help="epochs of adversarial training")
    parser.add_argument("--harden-size", type=positive, metavar="N", help="training images for it")


lab = Lab("fgsm", __doc__, datasets=("digits", "mnist", "fashion-mnist"), extra_arguments=arguments, batch_size=64,
          presets={"quick": {"train_size": 20_000, "epochs": 2, "test_size": 500, "harden_epochs": 1,
                             "harden_size": 4000},
                   "full": {"train_size": 20_000, "epochs": 10, "test_size": 10_000, "harden_epochs": 3,
                            "harden_size": 16_000}},
          per_dataset={"digits": {"train_size": 1347, "epochs": 25, "batch_size": 32, "test_size": 450,
                                  "harden_epochs": 10, "harden_size": 1078}},
          seconds=lambda args: 35 if args.dataset == "digits" else 60 + args.test_size * 0.06 + args.harden_size * (
              args.harden_epochs * 0.006))
args = lab.args

# %% The network
lab.section("The network")
images, labels = lab.images(train=True)                     # (N, 1, H, W) from 0 to 1, and (N,)
network = _trained.trained_cnn(lab, images, labels)
test_images, test_labels = lab.images(train=False)
test_images, test_labels = test_images[:args.test_size], test_labels[:args.test_size]
loader, truth, names = DataLoader(TensorDataset(test_images, test_labels), 500), test_labels.numpy(), lab.classes
lab.say(f"The first {len(truth):,} test images are attacked, by every attack the same ones. A share p of them has a "
        f"standard deviation of chance of √(p(1−p)/{len(truth):,}); that is the width of the bands.")


def probabilities_of(pictures):
    """The softmax of the network for each picture, (N, 10)."""
    return _classifier.predict(network, pictures, lab.device).numpy()


def changed_by(attack, pictures, answers):
    """The adversarial images, on the CPU."""
    return attack(pictures.to(lab.device), answers.to(lab.device)).cpu()


# %% The gradient of the loss with respect to the image
lab.section("The gradient with respect to the image")
lab.code(input_gradient)
firsts = [int(np.flatnonzero(truth == k)[0]) for k in range(10) if (truth == k).any()]
gradients = input_gradient(network, test_images[firsts].to(lab.device), test_labels[firsts].to(lab.device)).cpu()
sizes = gradients.flatten(1).abs().amax(dim=1)              # (N,)
lab.figure(_fgsm.draw_gradients(test_images[firsts], gradients, [names[truth[i]] for i in firsts]), "gradients",
           "The first test image of each class, the gradient of its loss for every pixel (red: a brighter pixel raises "
           "the loss; the number is the end of the colour scale, each image has its own), and the sign of it, which is "
           "all that FGSM takes: a gradient of 1e-6 counts as much as one of 1.")
nowhere = int((sizes == 0).sum())
lab.say(f"The largest gradient of a pixel lies between {float(sizes.min()):.0e} and {float(sizes.max()):.0e}. Training "
        f"moves the weights against dJ/dθ; an attack leaves the weights and moves the image along dJ/dx."
        + (f" For {nowhere} of these images the gradient is 0 in float32, because the network is too sure: there the "
           f"sign is 0 too, and an attack changes nothing." if nowhere else ""))

# %% The attacks, on the same images
lab.section("Three changes of the same size")
for thing in (FGSM, PGD, SignNoise):
    lab.code(thing)
generator = minidl.Generator().manual_seed(args.seed)
attacks = {"random signs": SignNoise(network, EPS, generator=generator), "FGSM": FGSM(network, EPS),
           "PGD, 10 steps of ε/4": PGD(network, EPS, generator=generator)}
results = {name: evaluate(attack, loader, EPSILONS) for name, attack in attacks.items()}
noise, fgsm, pgd = results.values()
for result in results.values():                             # what is claimed about the attacks
    assert (result.predictions[0] == result.clean).all(), "ε = 0 changes nothing"
    assert all(float(row.max()) <= eps + 1e-6 for row, eps in zip(result.linf, EPSILONS, strict=True)), "‖δ‖∞ ≤ ε"
lab.table([[f"{eps:g}", *(f"{of.accuracy[e]:.1%} ({float(of.l2[e].mean()):.2f})" for of in results.values())]
           for e, eps in enumerate(EPSILONS)],
          ["ε", *results], "The share of changed images that is still right (and the mean length of the change, L2)")
figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
_fgsm.draw_accuracy(axes, EPSILONS, {name: result.accuracy for name, result in results.items()}, len(truth),
                    dict(zip(results, ("C7", "C3", "C1"), strict=True)))
lab.figure(figure, "accuracy", "Accuracy against ε, for the same images. Random signs change each pixel by ε, as FGSM "
           "does, unless it would leave the range from 0 to 1. Bands: one standard deviation of chance.")
at = EPSILONS.index(EPS)
lab.say(f"At ε = {EPS:g} the network is right for {noise.accuracy[at]:.1%} of the images with random signs, for "
        f"{fgsm.accuracy[at]:.1%} after FGSM and for {pgd.accuracy[at]:.1%} after PGD; without a change it was "
        f"{fgsm.clean_accuracy:.1%}. " + ("So it is not the size of the change that fools it, but its direction."
                                          if fgsm.clean_accuracy - noise.accuracy[at] < 0.5 * (
                                              fgsm.clean_accuracy - fgsm.accuracy[at]) else
                                          "This network is fooled by noise about as well."))

# %% One image, then several
right = fgsm.clean == fgsm.labels                           # (N,) bool
fooled = [np.flatnonzero((right & row).numpy()) for row in fgsm.success]
e = next((e for e in range(at, len(EPSILONS)) if len(fooled[e])), at)                   # ε = 0.1, if it fools any
chosen = int(fooled[e][0]) if len(fooled[e]) else 0
one, its_label = test_images[chosen:chosen + 1], test_labels[chosen:chosen + 1]
adversarial = changed_by(FGSM(network, EPSILONS[e]), one, its_label)
lab.figure(_fgsm.draw_one(one[0], adversarial[0], probabilities_of(minidl.cat([one, adversarial])), int(its_label),
                          EPSILONS[e], names), "one",
           ("The first test image that is right as it is and wrong after FGSM" if len(fooled[e]) else
            "The first test image (none is right as it is and wrong after FGSM)")
           + f" with ε = {EPSILONS[e]:g}: the image, the change (red is brighter, blue darker, white 0), the sum of "
           f"both, and what the network says of the two.")
few = slice(0, 10)
pictures = [changed_by(FGSM(network, eps), test_images[few], test_labels[few]) for eps in EPSILONS]
lab.figure(_fgsm.draw_rows(pictures, fgsm.predictions[:, few].numpy(), truth[few], EPSILONS, names), "rows",
           "The first ten test images, changed by FGSM: what it is → what the network says, red where it is wrong. "
           "From which row on would you not be sure yourself?")
strong = EPSILONS.index(0.2)
taken_for = fgsm.predictions[strong].numpy()
counts = np.bincount(taken_for[taken_for != truth], minlength=10)
top = np.argsort(-counts, kind="stable")[:2]
lab.figure(draw_confusion(confusion_matrix(truth, taken_for, labels=range(10)), names), "confusion",
           f"What adversarial images of FGSM with ε = {EPSILONS[strong]:g} are taken for: rows are the true class. Of "
           f"the wrong answers, {counts[top].sum() / max(counts.sum(), 1):.0%} are {names[top[0]]} or {names[top[1]]}.")

# %% The smallest ε
lab.section("The smallest ε for each image")
STEP, LARGEST = 0.005, 0.5
steps = tuple(round(k * STEP, 3) for k in range(round(LARGEST / STEP) + 1))
hundred = DataLoader(TensorDataset(test_images[:100], test_labels[:100]), 100)


def smallest_eps(attack):
    """For each of the first 100 images the smallest of those ε that fools the network, infinity if none does."""
    success = evaluate(attack, hundred, steps).success.numpy()                  # (E, N)
    return np.where(success.any(0), np.asarray(steps)[success.argmax(0)], np.inf)


smallest = {"FGSM": smallest_eps(FGSM(network, EPS)), "random signs": smallest_eps(attacks["random signs"])}
lab.figure(_fgsm.draw_smallest(smallest, STEP, LARGEST), "smallest",
           f"The smallest ε, in steps of {STEP:g} up to {LARGEST:g}, that makes the answer wrong, for the first "
           f"{len(smallest['FGSM'])} test images (0: it is wrong anyway). Dashed: the median.")
median = float(np.median(smallest["FGSM"]))
lab.say((f"Half of the images need no more than {median:g} with FGSM. " if np.isfinite(median) else "")
        + f"With random signs {np.isinf(smallest['random signs']).mean():.0%} of the images stand everything up to "
        f"{LARGEST:g}.")

# %% Why the sign
lab.section("Why the sign?")
by_sign = changed_by(FGSM(network, EPS), test_images, test_labels)
g = minidl.cat([input_gradient(network, x.to(lab.device), y.to(lab.device)).cpu() for x, y in loader])
by_length = _fgsm.of_length(test_images, g, (by_sign - test_images).flatten(1).norm(dim=1))
in_range = (test_images + EPS * g / g.flatten(1).abs().amax(dim=1).clamp(min=1e-30).reshape(-1, 1, 1, 1)).clamp(0, 1)
ways = {"sign(g)": by_sign, "g, of equal L2": by_length, "g, of equal L∞": in_range}
said = {name: probabilities_of(x).argmax(1) for name, x in ways.items()}
changes = {name: (x - test_images).flatten(1) for name, x in ways.items()}
of_ways = {name: float((said[name] == truth).mean()) for name in ways}
lab.table([[name, f"{of_ways[name]:.1%}", *(f"{float(d.norm(p, dim=1).mean()):.2f}" for p in (2, float("inf")))]
           for name, d in changes.items()], ["change along", "still right", "mean L2", "mean L∞"],
          f"FGSM with ε = {EPS:g}, and the gradient g itself made as long in two ways")
lab.figure(_fgsm.draw_signs(one[0], {name: x[chosen] for name, x in ways.items()},
                            {name: names[answers[chosen]] for name, answers in said.items()}), "sign",
           "The same image changed by the sign of the gradient, and by the gradient itself: with the same L2 norm it "
           f"changes one pixel by {float(changes['g, of equal L2'][chosen].abs().max()):.2f}, where FGSM's limit is "
           f"{EPS:g}; with the same largest change it moves "
           f"{float((changes['g, of equal L∞'][chosen].abs() < EPS / 10).double().mean()):.0%} of the pixels by less "
           f"than a tenth of ε.")
lab.say("If each pixel may change by ε, the loss rises fastest when every pixel uses all of it, in the direction that "
        "its gradient says: that is the sign. If the length of the change (L2) were limited, it would be the gradient "
        "itself. Which attack is the stronger depends on what is counted as small.")

# %% Adversarial training, and as much training without
lab.section("Adversarial training")
lab.code(_fgsm.Hardened)
first, second = _classifier.split(len(images), args.seed)
first = first[:args.harden_size]
validation = DataLoader(TensorDataset(images[second], labels[second]), 500)
trained, histories = {}, {}
if not _trained.was_trained_on_this_split(lab, len(images)):
    lab.say("The saved network was trained on another choice of images than the one made here, so that some of the "
            "validation images below were training images for it. The test images were not.")
for name, share in (("with FGSM", 0.5), ("without", 0.0)):
    lab.say(f"The network is trained on, {name}, on {len(first):,} images. All epochs are shown; none is chosen.")
    minidl.manual_seed(args.seed)
    trained[name] = copy.deepcopy(network)
    trainer = Trainer(max_epochs=args.harden_epochs, accelerator=lab.device, logger=False, enable_checkpointing=False,
                      enable_model_summary=False)
    trainer.fit(_fgsm.Hardened(trained[name], 1e-3, EPS, share), DataLoader(
        TensorDataset(images[first], labels[first]), args.batch_size, shuffle=True), validation)
    histories[name] = trainer.history
hardened, longer = trained["with FGSM"].to(lab.device), trained["without"].to(lab.device)
after = {"before, FGSM": fgsm, "before, PGD": pgd,
         "trained on without, FGSM": evaluate(FGSM(longer, EPS), loader, EPSILONS),
         "adversarially trained, FGSM": evaluate(FGSM(hardened, EPS), loader, EPSILONS),
         "adversarially trained, PGD": evaluate(PGD(hardened, EPS, generator=generator), loader, EPSILONS)}
lab.table([[name, f"{result.clean_accuracy:.1%}", *(f"{result.accuracy[k]:.1%}" for k in (at, strong))]
           for name, result in after.items()],
          ["network, attack", "no change", f"ε = {EPS:g}", f"ε = {EPSILONS[strong]:g}"], "The same test images again")
figure, (left, right_panel) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
_fgsm.draw_accuracy(left, EPSILONS, {name: result.accuracy for name, result in after.items()}, len(truth),
                    dict(zip(after, ("C3", "C3--", "C7", "C0", "C0--"), strict=True)))
left.set_title("Test images")
left.axvline(EPS, color="black", linewidth=0.6)
_fgsm.draw_epochs(right_panel, histories, EPS)
lab.figure(figure, "hardened", f"Left: accuracy against ε before and after adversarial training with ε = {EPS:g} (the "
           f"thin line). Grey: the same training without adversarial images, so that what more training does is not "
           f"taken for what they do. PGD (dashed) was not used in training. Right: validation images, epoch by epoch.")
of_hardened, by_pgd = after["adversarially trained, FGSM"], after["adversarially trained, PGD"]
lab.say(f"After adversarial training the network is right for {of_hardened.clean_accuracy:.1%} of the images as they "
        f"are, for {of_hardened.accuracy[at]:.1%} after FGSM and {by_pgd.accuracy[at]:.1%} after PGD, both with "
        f"ε = {EPS:g} and with gradients of the new network. Trained on without adversarial images it is right for "
        f"{after['trained on without, FGSM'].accuracy[at]:.1%} after FGSM. PGD is the test here: a network could "
        f"learn to hide its gradient from the one step that it was trained with, but hardly from ten. It is no proof "
        f"against other attacks.")

# %%
lab.question("Why is the gradient taken with respect to the image and not to the weights?",
             "The attacker cannot change the network, only what it sees. Both gradients come out of one backward pass: "
             "dJ/dx is what the first layer hands to its input.")
lab.question("Why is random noise of the same size nearly harmless?",
             "The loss changes by the scalar product of change and gradient. For random signs the terms cancel; for "
             "the signs of the gradient all of them add up, and there are as many as there are pixels.")
lab.question("PGD changes no pixel by more than FGSM does. Why is it stronger?",
             "FGSM follows the gradient at the image as it is, as if the loss were a plane. PGD looks at the gradient "
             "again after every small step.")
lab.metrics |= {"clean_accuracy": fgsm.clean_accuracy, "epsilons": list(EPSILONS), "fgsm_accuracy": fgsm.accuracy,
                "pgd_accuracy": pgd.accuracy, "noise_accuracy": noise.accuracy, "test_count": len(truth),
                "median_smallest_eps": median, "same_length": of_ways,
                "adversarially_trained": {"clean_accuracy": of_hardened.clean_accuracy,
                                          "fgsm_accuracy_at_0.1": of_hardened.accuracy[at],
                                          "pgd_accuracy_at_0.1": by_pgd.accuracy[at],
                                          "fgsm_accuracy": of_hardened.accuracy, "pgd_accuracy": by_pgd.accuracy},
                "trained_on_without": {"clean_accuracy": after["trained on without, FGSM"].clean_accuracy,
                                       "fgsm_accuracy": after["trained on without, FGSM"].accuracy}}
lab.finish()
