"""Attacks: within eps and within the range of a pixel, equal to their equations, and leaving the model as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minidl
import minidl.nn.functional as F
from minidl import attacks, nn
from minidl.attacks import FGSM, PGD, Attack, SignNoise, evaluate, input_gradient
from minidl.data import DataLoader, TensorDataset
from minidl.errors import DtypeError, LabelError, MinidlError, SettingError, ShapeError

KINDS = {
    "FGSM": lambda model, eps, **more: FGSM(model, eps, **more),
    "PGD": lambda model, eps, **more: PGD(model, eps, **more),
    "PGD from the image": lambda model, eps, **more: PGD(model, eps, random_start=False, **more),
    "PGD, large steps": lambda model, eps, **more: PGD(model, eps, alpha=3 * eps, steps=3, **more),
    "noise": lambda model, eps, **more: SignNoise(model, eps, **more),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def network(dtype="float64", seed=0):
    minidl.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.5),
                          nn.Linear(36, 5))
    return model.to(getattr(minidl, dtype))


def batch(count=8, dtype="float64"):
    random = np.random.default_rng(1)
    images = random.random((count, 1, 6, 6)).round(1)                       # many pixels at 0 and at 1
    return minidl.tensor(images.astype(dtype)), minidl.tensor(random.integers(0, 5, count))


def loss(model, images, labels):
    model.eval()
    return F.cross_entropy(model(images), labels, reduction="none")


# -- what holds for all of them ----------------------------------------------------------------------------------------

@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("eps", [0.0, 0.03, 0.1, 0.7, 1.0])
def test_no_pixel_changes_by_more_than_eps_or_leaves_its_range(kind, dtype, eps):
    images, labels = batch(dtype=dtype)
    before = images.numpy().copy()
    adversarial = kind(network(dtype), eps)(images, labels)
    change = (adversarial - images).numpy()
    assert np.abs(change).max() <= eps + np.finfo(dtype).eps
    assert adversarial.numpy().min() >= 0
    assert adversarial.numpy().max() <= 1
    assert (np.abs(change).max() > 0.9 * eps) == (eps > 0)                  # and it uses what it may
    assert (adversarial.dtype, adversarial.shape, adversarial.requires_grad) == (images.dtype, images.shape, False)
    np.testing.assert_array_equal(images.numpy(), before)
    if eps == 0:
        np.testing.assert_array_equal(adversarial.numpy(), before)


@every_kind
def test_model_images_and_labels_are_left_as_they_were(kind):
    model, (images, labels) = network(), batch()
    model.train()
    model[1].eval()                                                         # one part is frozen by its user
    model(images).sum().backward()
    gradients = [p.grad.numpy().copy() for p in model.parameters()]
    values = [p.detach().numpy().copy() for p in model.parameters()]
    truth = labels.numpy().copy()
    kind(model, 0.1)(images, labels)
    assert [part.training for part in model.modules()] == [True, True, False, True, True, True, True]
    for p, gradient, value in zip(model.parameters(), gradients, values, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), gradient)
        np.testing.assert_array_equal(p.detach().numpy(), value)
        assert p.requires_grad
    np.testing.assert_array_equal(labels.numpy(), truth)
    assert not images.requires_grad
    assert images.grad is None


def test_the_mode_comes_back_after_an_error_too():
    model, (images, labels) = network().train(), batch()
    with pytest.raises(LabelError):
        FGSM(model, 0.1)(images, labels + 5)
    assert model.training


def test_dropout_is_off_and_no_grad_does_not_matter():
    model, (images, labels) = network().train(), batch()
    attack = FGSM(model, 0.1)
    first = attack(images, labels)
    with minidl.no_grad():
        np.testing.assert_array_equal(attack(images, labels).numpy(), first.numpy())
    images.requires_grad_()                                                 # as a user may hand them over
    np.testing.assert_array_equal(attack(images, labels).numpy(), first.numpy())
    assert images.grad is None


@pytest.mark.parametrize("kind", [KINDS["FGSM"], KINDS["PGD from the image"]])
def test_an_image_is_changed_the_same_way_in_any_batch(kind):
    model, (images, labels) = network(), batch()
    together = kind(model, 0.1)(images, labels)
    alone = [kind(model, 0.1)(images[i:i + 1], labels[i:i + 1]) for i in range(len(images))]
    np.testing.assert_allclose(together.numpy(), minidl.cat(alone).numpy(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", ["FGSM", "PGD", "PGD from the image"])
def test_the_loss_rises_and_that_of_a_target_falls(name):
    model, (images, labels) = network(), batch()
    before = loss(model, images, labels)
    assert (loss(model, KINDS[name](model, 0.1)(images, labels), labels) > before).all()
    assert (loss(model, KINDS[name](model, 0.1, targeted=True)(images, labels), labels) < before).all()


def test_without_labels_the_models_own_answers_count():
    model, (images, _) = network(), batch()
    answers = model.eval()(images).argmax(dim=1)
    np.testing.assert_array_equal(FGSM(model, 0.1)(images).numpy(), FGSM(model, 0.1)(images, answers).numpy())


def test_clip_is_the_range_of_a_pixel():
    model, (images, labels) = network(), batch()
    adversarial = FGSM(model, 20, clip=(-10, 200))(images * 200, labels)
    assert adversarial.min() >= -10
    assert adversarial.max() == 200
    assert (adversarial - images * 200).abs().max() == 20


# -- each is its equation ----------------------------------------------------------------------------------------------

def test_the_gradient_is_that_of_softmax_and_cross_entropy():
    """For scores x·W:  dJ/dx = (softmax(x·W) - one-hot) · Wᵀ."""
    random = np.random.default_rng(0)
    x, w, labels = random.random((6, 4)), random.normal(size=(4, 3)), random.integers(0, 3, 6)
    model = nn.Linear(4, 3, bias=False).double()
    with minidl.no_grad():
        model.weight.copy_(minidl.tensor(w.T))
    e = np.exp(x @ w)
    expected = (e / e.sum(1, keepdims=True) - np.eye(3)[labels]) @ w.T
    np.testing.assert_allclose(input_gradient(model, minidl.tensor(x), minidl.tensor(labels)).numpy(), expected,
                               rtol=1e-12)
    np.testing.assert_allclose(FGSM(model, 0.2)(minidl.tensor(x), minidl.tensor(labels)).numpy(),
                               np.clip(x + 0.2 * np.sign(expected), 0, 1), rtol=1e-12)
    assert model.weight.grad is None


def test_among_all_changes_of_this_size_the_sign_raises_a_linear_loss_most():
    """Random signs, and the gradient itself at the same largest pixel, do less."""
    model, (images, labels) = network(), batch(64)
    images = images * 0.5 + 0.25                                            # nothing is clipped
    by_sign = loss(model, FGSM(model, 0.01)(images, labels), labels)
    g = input_gradient(model.eval(), images, labels)
    along = images + 0.01 * g / g.flatten(1).abs().amax(dim=1).reshape(-1, 1, 1, 1)
    assert (by_sign > loss(model, along, labels)).all()
    assert (by_sign > loss(model, SignNoise(model, 0.01)(images, labels), labels)).all()


def test_one_large_step_of_pgd_is_fgsm():
    model, (images, labels) = network(), batch()
    one_step = PGD(model, 0.1, alpha=0.1, steps=1, random_start=False)
    np.testing.assert_array_equal(one_step(images, labels).numpy(), FGSM(model, 0.1)(images, labels).numpy())


def test_more_steps_of_pgd_raise_the_loss_more():
    model, (images, labels) = network(), batch(64)
    fgsm = loss(model, FGSM(model, 0.3)(images, labels), labels).mean()
    pgd = loss(model, PGD(model, 0.3, steps=20, random_start=False)(images, labels), labels).mean()
    assert pgd > fgsm


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("eps", [0.0, 0.5, 2.0])
def test_pgd_in_l2_stays_in_the_ball_and_reaches_its_edge(eps, dtype):
    model, (images, labels) = network(dtype), batch(dtype=dtype)
    images = images * 0.1 + 0.45                                            # far from 0 and 1
    change = (PGD(model, eps, norm=2, clip=(-9, 9))(images, labels) - images).flatten(1).norm(dim=1).numpy()
    assert change.max() <= eps * (1 + 1e-5)
    assert change.min() >= eps * 0.99


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e30])
def test_a_step_in_l2_has_its_length_for_any_gradient(size):
    """Squares of small numbers are 0 in float32, those of large ones infinite."""
    images, labels = batch(dtype="float32")
    attack = PGD(network("float32"), 0.5, alpha=0.25, steps=1, norm=2, random_start=False, clip=(-9, 9))
    g = images - 0.5
    attack.uphill = lambda images, labels: g * size                         # a model with such a gradient
    change = (attack(images, labels) - images).flatten(1)
    np.testing.assert_allclose(change.norm(dim=1).numpy(), 0.25, rtol=1e-5)
    attack.uphill = lambda images, labels: g * 0
    np.testing.assert_array_equal(attack(images, labels).numpy(), images.numpy())


def test_a_random_start_is_drawn_from_the_generator():
    model, (images, labels) = network(), batch()
    runs = [PGD(model, 0.1, steps=1, alpha=0.01, generator=minidl.Generator().manual_seed(seed))(images, labels).numpy()
            for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.05


@pytest.mark.parametrize(("norm", "power"), [("inf", 1), (2, 36)])
def test_a_random_start_is_uniform_within_eps(norm, power):
    """Of n uniform points in a ball of n dimensions, the n-th powers of their radii are uniform; so are coordinates of a
    cube.
    """
    images, labels = minidl.full((2000, 1, 6, 6), 0.5, dtype=minidl.float64), minidl.zeros(2000, dtype=minidl.int64)
    attack = PGD(network(), 0.4, alpha=0.0, steps=1, norm=norm, generator=minidl.Generator().manual_seed(0))
    change = (attack(images, labels) - images).flatten(1).numpy()           # (2000, 36)
    size = np.abs(change[:, 0]) if norm == "inf" else np.linalg.norm(change, axis=1)
    u = np.sort((size / 0.4) ** power)
    assert np.abs(u - (np.arange(2000) + 0.5) / 2000).max() < 0.04          # Kolmogorov's bound for 1 in 1000: .0436
    assert abs(change.mean()) < 5 * change.std() / change.size ** 0.5


def test_noise_tosses_a_coin_for_every_pixel():
    images, labels = minidl.full((200, 1, 6, 6), 0.5), minidl.zeros(200, dtype=minidl.int64)
    change = SignNoise(network("float32"), 0.25, generator=minidl.Generator().manual_seed(0))(images, labels) - images
    values, counts = np.unique(change.numpy(), return_counts=True)
    assert values.tolist() == [-0.25, 0.25]
    assert abs(counts[0] / counts.sum() - 0.5) < 4 * 0.5 / 7200 ** 0.5


@pytest.mark.torch
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["inf", 2])
def test_pgd_equals_a_loop_in_pytorch(norm, targeted, torch):
    model, (images, labels) = network().eval(), batch()
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.AvgPool2d(2),
                                 torch.nn.Flatten(), torch.nn.Linear(36, 5)).double()
    with torch.no_grad():
        for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
            other.copy_(torch.from_numpy(mine.detach().numpy()))
    x0, y = torch.from_numpy(images.numpy()), torch.from_numpy(labels.numpy())
    eps, alpha, x = 0.3, 0.11, x0.clone()
    for _ in range(7):
        x.requires_grad_()
        g, = torch.autograd.grad(torch.nn.functional.cross_entropy(theirs(x), y, reduction="sum"), x)
        g = -g if targeted else g
        if norm == "inf":
            d = (x.detach() + alpha * g.sign() - x0).clamp(-eps, eps)
        else:
            d = x.detach() + alpha * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) - x0
            d = d * (eps / d.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)
        x = (x0 + d).clamp(0, 1)
    ours = PGD(model, eps, alpha, steps=7, random_start=False, norm=norm, targeted=targeted)(images, labels)
    np.testing.assert_allclose(ours.numpy(), x.numpy(), rtol=0, atol=1e-12)


def test_an_attack_of_ones_own():
    class Brighter(Attack):
        """Every pixel brighter by eps."""

        def perturb(self, images, labels):
            return self.clipped(images + self.eps)

    images, labels = batch()
    np.testing.assert_array_equal(Brighter(network(), 0.1)(images, labels).numpy(), (images + 0.1).clamp(0, 1).numpy())
    with pytest.raises(NotImplementedError, match=r"Attack has to write perturb"):
        Attack(network(), 0.1)(images, labels)


@every_kind
def test_on_another_device(kind):
    """`fake` is as strict as a GPU about which arrays may meet."""
    images, labels = batch()
    attack = kind(network().to("fake"), 0.1)
    assert str(attack(images.to("fake"), labels.to("fake")).device) == "fake"
    result = evaluate(attack, [(images, labels)], [0.1])                    # which moves the images itself
    assert {str(x.device) for x in (result.labels, result.clean, result.predictions, result.linf, result.l2)} == {"cpu"}


# -- measuring ---------------------------------------------------------------------------------------------------------

def test_evaluate():
    model, (images, labels) = network().train(), batch(20)
    epsilons = [0.0, 0.05, 0.3]
    result = evaluate(FGSM(model, 0.1), DataLoader(TensorDataset(images, labels), 8), epsilons)
    assert model.training
    model.eval()
    clean = model(images).argmax(dim=1).numpy()
    np.testing.assert_array_equal(result.clean.numpy(), clean)
    assert result.clean_accuracy == pytest.approx((clean == labels.numpy()).mean())
    assert result.epsilons == tuple(epsilons)
    for e, eps in enumerate(epsilons):
        adversarial = FGSM(model, eps)(images, labels)
        change = (adversarial - images).flatten(1).numpy()
        said = model(adversarial).argmax(dim=1).numpy()
        np.testing.assert_array_equal(result.predictions[e].numpy(), said)
        np.testing.assert_array_equal(result.success[e].numpy(), said != labels.numpy())
        np.testing.assert_allclose(result.linf[e].numpy(), np.abs(change).max(1))
        np.testing.assert_allclose(result.l2[e].numpy(), np.linalg.norm(change, axis=1))
        assert result.accuracy[e] == pytest.approx(1 - result.success[e].float().mean().item())
    assert result.accuracy[0] == result.clean_accuracy


def test_evaluate_with_targets():
    model, (images, labels) = network(), batch(20)
    targets = (labels + 1) % 5
    result = evaluate(PGD(model, 0.5, targeted=True, random_start=False),
                      DataLoader(TensorDataset(images, labels, targets), 8), [0.0, 0.5])
    said = model.eval()(images).argmax(dim=1)
    np.testing.assert_array_equal(result.success[0].numpy(), (said == targets).numpy())
    np.testing.assert_array_equal(result.success.numpy(), (result.predictions == targets).numpy())
    assert result.success[1].float().mean() > result.success[0].float().mean()


def test_another_eps_is_another_attack():
    attack = PGD(network(), 0.1, steps=3, random_start=False)
    other = attack.at(0.2)
    assert (attack.eps, other.eps, other.steps, other.random_start) == (0.1, 0.2, 3, False)
    with pytest.raises(SettingError, match=r"PGD: got eps=-1"):
        attack.at(-1)


# -- bad input ---------------------------------------------------------------------------------------------------------

X, Y = batch()
BAD = {
    "eps below 0": (lambda m: FGSM(m, -0.1), SettingError, "FGSM: got eps=-0.1, expected a number, 0 or more"),
    "eps in steps of 255": (lambda m: PGD(m, 8), SettingError, "PGD: got eps=8, expected at most 1, the width of clip=(0.0, 1.0); eps is in the units of the images: 8 steps of 255 are eps=8/255"),
    "eps of nan": (lambda m: SignNoise(m, math.nan), SettingError, "SignNoise: got eps=nan, expected a number, 0 or more"),
    "eps a text": (lambda m: FGSM(m, "8/255"), SettingError, "FGSM: got eps='8/255', expected a number, 0 or more"),
    "eps in steps of 255, L2": (lambda m: PGD(m, 128, norm=2)(X, Y), SettingError, "PGD: got eps=128, expected at most 6, the length of the largest change; eps is in the units of the images: 128 steps of 255 are eps=128/255"),
    "another eps in steps of 255": (lambda m: FGSM(m, 0.1).at(8), SettingError, "FGSM: got eps=8, expected at most 1"),
    "clip without an end": (lambda m: FGSM(m, 0.1, clip=(0, None)), SettingError, "FGSM: got clip=(0, None), expected (smallest, largest)"),
    "clip up to infinity": (lambda m: FGSM(m, 0.1, clip=(0, math.inf)), SettingError, "FGSM: got clip=(0, inf), expected (smallest, largest)"),
    "no model": (lambda m: FGSM(lambda x: x, 0.1), DtypeError, "FGSM: got a function, expected a model: an nn.Module"),
    "labels in a list": (lambda m: FGSM(m, 0.1)(X, [0] * 8), LabelError, "FGSM: got a list as labels, expected one class for each image"),
    "one eps": (lambda m: evaluate(FGSM(m, 0.1), [(X, Y)], 0.1), SettingError, "evaluate: got epsilons=0.1, expected several such as [0, 0.1]"),
    "bytes in the loader": (lambda m: evaluate(FGSM(m, 0.1), [((X * 255).byte(), Y)], [0.1]), DtypeError, "FGSM: got images of uint8, expected a tensor of floats"),
    "clip upside down": (lambda m: FGSM(m, 0.1, clip=(1, 0)), SettingError, "FGSM: got clip=(1, 0), expected (smallest, largest), the range of a pixel"),
    "no steps": (lambda m: PGD(m, 0.1, steps=0), SettingError, "PGD: got steps=0, expected a whole number, 1 or more"),
    "alpha below 0": (lambda m: PGD(m, 0.1, alpha=-1), SettingError, "PGD: got alpha=-1, expected a number, 0 or more"),
    "another norm": (lambda m: PGD(m, 0.1, norm=1), SettingError, "PGD: got norm=1, expected 'inf' or 2"),
    "images of bytes' size": (lambda m: FGSM(m, 0.1)(X * 255, Y), SettingError, "FGSM: got images from 0 to 255, expected 0 to 1; divide by 255; or pass clip=(smallest, largest)"),
    "normalised images": (lambda m: FGSM(m, 0.1)((X - 0.5) / 0.25, Y), SettingError, "FGSM: got images from -2 to 2, expected 0 to 1; attack them before they are normalised, and make that the first layer of the model; or pass clip=(smallest, largest)"),
    "nan in the images": (lambda m: FGSM(m, 0.1)(X * math.nan, Y), SettingError, "FGSM: got images with nan or infinity, expected numbers; look at how they were made"),
    "bytes": (lambda m: FGSM(m, 0.1)((X * 255).byte(), Y), DtypeError, "FGSM: got images of uint8, expected a tensor of floats; for bytes use x.float() / 255"),
    "an array": (lambda m: FGSM(m, 0.1)(X.numpy(), Y), DtypeError, "FGSM: got images of float64, expected a tensor of floats"),
    "no images": (lambda m: FGSM(m, 0.1)(X[:0], Y[:0]), ShapeError, "FGSM: got images of shape (0, 1, 6, 6), expected (N, C, H, W)"),
    "labels one-hot": (lambda m: FGSM(m, 0.1)(X, F.one_hot(Y, 5)), LabelError, "FGSM: got labels of int64 and shape (8, 5), expected one class for each image: a tensor of whole numbers, (8,)"),
    "labels as floats": (lambda m: FGSM(m, 0.1)(X, Y.double()), LabelError, "FGSM: got labels of float64 and shape (8,), expected one class"),
    "a label too large": (lambda m: FGSM(m, 0.1)(X, Y + 5), LabelError, "expected 0 to 4 for 5 classes"),
    "no targets": (lambda m: FGSM(m, 0.1, targeted=True)(X), SettingError, "FGSM: got targeted=True and no labels, expected the classes that the model shall say"),
    "an empty loader": (lambda m: evaluate(FGSM(m, 0.1), [], [0.1]), SettingError, "evaluate: got an empty loader, expected at least one"),
    "no epsilons": (lambda m: evaluate(FGSM(m, 0.1), [(X, Y)], []), SettingError, "evaluate: got no epsilons, expected at least one"),
    "batches without targets": (lambda m: evaluate(FGSM(m, 0.1, targeted=True), [(X, Y)], [0.1]), SettingError, "evaluate: got batches of 2 parts, expected (images, labels, targets)"),
    "another name": (lambda m: attacks.PGDL2, AttributeError, "minidl.attacks has no 'PGDL2'; use PGD(model, eps, norm=2)"),
}


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence(call, kind, message):
    with pytest.raises(kind) as caught:
        call(network())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, MinidlError | AttributeError)
