"""The numbers of an optimizer's step, which are the same for every weight: for its kernels on the CPU and on a GPU."""

from __future__ import annotations


def numbers_of_adam(lr: float, betas: tuple[float, float], eps: float, t: int, decay: float, shrink: float,
                    sign: float) -> tuple[float, ...]:
    """(step, new1, beta2, new2, root, eps, decay, shrink, sign):  lr · m̂ / (√v̂ + ε) is  step · m / (√v · root + ε)."""
    beta1, beta2 = betas
    return lr / (1 - beta1 ** t), 1 - beta1, beta2, 1 - beta2, (1 - beta2 ** t) ** -0.5, eps, decay, shrink, sign


def numbers_of_sgd(lr: float, momentum: float, new: float, nesterov: bool, decay: float,
                   sign: float) -> tuple[float, ...]:
    """(lr, momentum, new, share_of_v, share_of_g, decay, sign):  p goes by  lr · (share_of_v · v + share_of_g · G)."""
    share_of_v, share_of_g = (momentum, 1.0) if nesterov else (1.0, 0.0)
    return lr, momentum, new, share_of_v, share_of_g, decay, sign
