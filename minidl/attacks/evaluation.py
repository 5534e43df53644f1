"""How well a model stands an attack: its answers for every image and every eps, and how large the changes were."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from minidl.attacks.attack import Attack, answers
from minidl.errors import SettingError
from minidl.functions import cat, stack
from minidl.tensors import Tensor


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured, for E values of eps and N images. All tensors are on the CPU."""

    epsilons: tuple[float, ...]
    labels: Tensor                  # (N,) the true classes
    clean: Tensor                   # (N,) what the model says about the images as they are
    predictions: Tensor             # (E, N) what it says about the adversarial ones
    success: Tensor                 # (E, N) bool: the answer is not the true class; with targets: it is the target
    linf: Tensor                    # (E, N) the largest change of a pixel
    l2: Tensor                      # (E, N) the length of the change

    @property
    def clean_accuracy(self) -> float:
        """The share of images, as they are, that the model gets right."""
        return float((self.clean == self.labels).double().mean())

    @property
    def accuracy(self) -> list[float]:
        """For each eps the share of adversarial images that the model gets right."""
        return [float((row == self.labels).double().mean()) for row in self.predictions]


def evaluate(attack: Attack, loader: Iterable[Any], epsilons: Sequence[float]) -> Evaluation:
    """Attack all images of a loader with every eps, each time from the image as it is.

    loader: batches (images, labels); for a targeted attack (images, labels, targets). The images go to the device of
    the model. Nothing is left out: an image that is wrong without an attack counts as wrong.

    Raises `SettingError` for an empty loader or an eps that the attack does not take, before the first attack.
    """
    if not isinstance(epsilons, Iterable):
        raise SettingError(f"got epsilons={epsilons!r}, expected several such as [0, 0.1]", where="evaluate")
    attacks = [attack.at(eps) for eps in epsilons]
    device = next((p.device for p in attack.model.parameters()), None)
    truth, targets, clean = [], [], []
    said, linf, l2 = (_empty(len(attacks)) for _ in range(3))               # for each eps, batch after batch
    for batch in loader:
        if len(batch) != 2 + attack.targeted:
            raise SettingError(f"got batches of {len(batch)} parts, expected (images, labels"
                               f"{', targets' if attack.targeted else ''})", where="evaluate")
        images, labels, wanted = batch[0].to(device), batch[1].cpu(), batch[-1].to(device)
        attack.check_images(images)                                         # before the model meets them
        truth.append(labels)
        targets.append(wanted.cpu())
        clean.append(answers(attack.model, images).cpu())
        for e, one in enumerate(attacks):
            adversarial = one(images, wanted)
            change = (adversarial - images).flatten(1)                      # (N, C, H, W) -> (N, C·H·W)
            said[e].append(answers(attack.model, adversarial).cpu())
            linf[e].append(change.abs().amax(dim=1).cpu())
            l2[e].append(change.norm(dim=1).cpu())
    if not truth or not attacks:
        raise SettingError(f"got {'no epsilons' if truth else 'an empty loader'}, expected at least one",
                           where="evaluate")
    predictions = _joined(said)
    success = predictions == cat(targets) if attack.targeted else predictions != cat(truth)
    return Evaluation(tuple(one.eps for one in attacks), cat(truth), cat(clean), predictions, success, _joined(linf),
                      _joined(l2))


def _empty(count: int) -> list[list[Tensor]]:
    return [[] for _ in range(count)]


def _joined(rows: list[list[Tensor]]) -> Tensor:
    """E lists of batches -> (E, N)."""
    return stack([cat(row) for row in rows])
