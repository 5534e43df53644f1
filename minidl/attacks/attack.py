"""What all attacks share: a small change of the images, at most eps in size, that changes what the model says.

    adversarial = x + δ,   ‖δ‖ <= eps,   every pixel within `clip`

eps is in the units of the images: a model that normalises has to do it in its first layer, so that images come as they
are, from 0 to 1.
"""

from __future__ import annotations

import copy
import math
from numbers import Real

from minidl.autograd import enable_grad, grad, no_grad
from minidl.errors import DtypeError, LabelError, SettingError, ShapeError
from minidl.nn import functional as F
from minidl.nn.module import Module
from minidl.nn.utils.modes import evaluating
from minidl.tensors import Tensor


def input_gradient(model: Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the loss with respect to the images: which pixels would raise it, and how fast.

    images (N, C, H, W), labels (N,)  ->  (N, C, H, W),  dJ/dx  for  J = -log softmax(model(x))[label]

    The loss is summed over the batch, so that each image has its own gradient, whatever else is in the batch. The
    parameters and their `.grad` are left alone. The model is used in the mode in which it is; in training mode a
    BatchNorm layer would mix the images.
    """
    x = images.detach().requires_grad_()
    with enable_grad():
        loss = F.cross_entropy(model(x), labels, reduction="sum")
    gradient: Tensor
    gradient, = grad(loss, x)
    return gradient


def answers(model: Module, images: Tensor) -> Tensor:
    """The class that the model gives the highest score, in evaluation mode: (N, C, H, W) -> (N,)."""
    with evaluating(model), no_grad():
        classes: Tensor = model(images).argmax(dim=1)
    return classes


class Attack:
    """An attack on a model: `adversarial = attack(images, labels)`. Subclasses write `perturb`.

    model: images (N, C, H, W) -> scores (N, classes). It is attacked in evaluation mode, and afterwards is as it was.
    eps: the largest change, a number from 0 up. targeted: labels are what the model shall say, instead of what it shall
    not say any more. clip: the smallest and the largest value of a pixel.

    Raises `SettingError` for an eps below 0, or one larger than any change can be (8 instead of 8/255).
    """

    norm: float = math.inf                                      # in which eps is measured

    def __init__(self, model: Module, eps: float, *, targeted: bool = False,
                 clip: tuple[float, float] = (0.0, 1.0)) -> None:
        if not isinstance(model, Module):
            raise DtypeError(f"got a {type(model).__name__}, expected a model: an nn.Module", where=self._name)
        is_pair = isinstance(clip, tuple | list) and len(clip) == 2 and all(isinstance(end, Real) for end in clip)
        if not (is_pair and -math.inf < clip[0] < clip[1] < math.inf):
            raise SettingError(f"got clip={clip!r}, expected (smallest, largest), the range of a pixel",
                               where=self._name)
        self.model, self.targeted, self.clip = model, targeted, (float(clip[0]), float(clip[1]))
        self._set_eps(eps)

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _width(self) -> float:
        return self.clip[1] - self.clip[0]

    def _checked(self, name: str, value: object) -> float:
        if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
            raise SettingError(f"got {name}={value!r}, expected a number, 0 or more", where=self._name)
        return float(value)

    def _set_eps(self, eps: float) -> None:
        self.eps = self._checked("eps", eps)
        if self.norm == math.inf:                               # in L2 it depends on the size of the images
            self._check_eps(self._width, f"the width of clip={self.clip}")

    def _check_eps(self, most: float, what: str) -> None:
        if self.eps > most:
            raise SettingError(f"got eps={self.eps:g}, expected at most {most:g}, {what}; eps is in the units of the "
                               f"images: {self.eps:g} steps of 255 are eps={self.eps:g}/255", where=self._name)

    def at(self, eps: float) -> Attack:
        """The same attack with another eps, and with all else as it is: an alpha that was given, too."""
        other = copy.copy(self)
        other._set_eps(eps)
        return other

    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """The adversarial images, of the shape and type of `images`, and outside of any graph.

        images: floats (N, C, H, W) within `clip`. labels: the true classes (N,), or the wanted ones if targeted; None
        takes what the model says about `images`, so that no truth is needed to leave it.
        """
        self.check_images(images)
        with evaluating(self.model):
            if labels is None:
                if self.targeted:
                    raise SettingError("got targeted=True and no labels, expected the classes that the model shall say",
                                       where=self._name)
                labels = answers(self.model, images)
            if not isinstance(labels, Tensor) or labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
                got = (f"labels of {labels.dtype} and shape {tuple(labels.shape)}" if isinstance(labels, Tensor)
                       else f"a {type(labels).__name__} as labels")
                raise LabelError(f"got {got}, expected one class for each image: a tensor of whole numbers, "
                                 f"({len(images)},)", where=self._name)
            with no_grad():
                return self.perturb(images.detach(), labels)

    def perturb(self, images: Tensor, labels: Tensor) -> Tensor:
        """The attack itself; nothing in here is recorded but what `uphill` needs."""
        raise NotImplementedError(f"{self._name} has to write perturb(images, labels)")

    def uphill(self, images: Tensor, labels: Tensor) -> Tensor:
        """The gradient along which to go: up the loss of the true labels, or down the loss of the wanted ones."""
        g = input_gradient(self.model, images, labels)
        return -g if self.targeted else g

    def clipped(self, images: Tensor) -> Tensor:
        """Every pixel within its range."""
        return images.clamp(*self.clip)

    def check_images(self, images: Tensor) -> None:
        """Raises if these are no images within `clip`."""
        if not isinstance(images, Tensor) or images.dtype.kind != "f":
            raise DtypeError(f"got images of {getattr(images, 'dtype', type(images).__name__)}, expected a tensor of "
                             f"floats; for bytes use x.float() / 255", where=self._name)
        if images.ndim < 2 or images.numel() == 0:
            raise ShapeError(f"got images of shape {tuple(images.shape)}, expected (N, C, H, W)", where=self._name)
        if self.norm == 2:
            self._check_eps(self._width * math.sqrt(images[0].numel()), "the length of the largest change")
        if not bool(images.isfinite().all()):
            raise SettingError("got images with nan or infinity, expected numbers; look at how they were made",
                               where=self._name)
        smallest, largest, slack = images.min().item(), images.max().item(), 1e-6 * self._width
        if not (self.clip[0] - slack <= smallest and largest <= self.clip[1] + slack):
            advice = "divide by 255" if smallest >= 0 and largest > 2 else \
                "attack them before they are normalised, and make that the first layer of the model"
            raise SettingError(f"got images from {smallest:g} to {largest:g}, expected {self.clip[0]:g} to "
                               f"{self.clip[1]:g}; {advice}; or pass clip=(smallest, largest)", where=self._name)
