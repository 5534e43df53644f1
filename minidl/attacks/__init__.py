"""Small changes of an image that change what a model says about it, and how to measure how well it stands them."""

from typing import Any as _Any

from minidl.attacks.attack import Attack, input_gradient
from minidl.attacks.evaluation import Evaluation, evaluate
from minidl.attacks.fgsm import FGSM
from minidl.attacks.noise import SignNoise
from minidl.attacks.pgd import PGD
from minidl.errors import no_such_name as _no_such_name

__all__ = ["FGSM", "PGD", "Attack", "Evaluation", "SignNoise", "evaluate", "input_gradient"]

_HINTS = {
    "FGM": "use PGD(model, eps, alpha=eps, steps=1, random_start=False, norm=2)",
    "BIM": "use PGD(model, eps, random_start=False)", "IFGSM": "use PGD(model, eps, random_start=False)",
    "LinfPGD": "use PGD(model, eps)", "PGDL2": "use PGD(model, eps, norm=2)", "L2PGD": "use PGD(model, eps, norm=2)",
}


def __getattr__(name: str) -> _Any:
    raise _no_such_name("minidl.attacks", name, __all__, _HINTS)
