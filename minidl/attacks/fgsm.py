"""The fast gradient sign method: one step, as far as eps allows, in each pixel."""

from __future__ import annotations

from minidl.attacks.attack import Attack
from minidl.tensors import Tensor


class FGSM(Attack):
    """x' = x + eps · sign(dJ/dx), within `clip`.

    To first order the loss rises by δ · dJ/dx, and among all δ with |δ_i| <= eps this one raises it most:
    eps · sum over i of |dJ/dx_i|.

    Ref: Goodfellow et al. 2015, arXiv:1412.6572
    """

    def perturb(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of the size eps in every pixel whose gradient is not 0."""
        return self.clipped(images + self.eps * self.uphill(images, labels).sign())
