"""Steps of optimizers on a GPU in one pass: each thread changes one weight, and what is remembered of it.

The formulas are those of `optim.Adam` and `optim.SGD`. Computed by an array library each of their dozen operations is a
launch, a fetch of its operands and a store of its result; here a weight, its gradient and its memory are fetched once.
"""

from __future__ import annotations

import math

from numba import cuda


@cuda.jit
def adam(p, g, m, v, step, new1, beta2, new2, root, eps, decay, shrink, sign):
    """With G = sign · g + decay · p after p ← shrink · p:  m ← β₁ m + (1-β₁) G,  v ← β₂ v + (1-β₂) G²,

    p ← p - step · m / (√v · root + ε).   Memory: 4 fetches and 3 stores a weight.
    """
    i = cuda.grid(1)
    if i < len(p):
        weight = shrink * p[i]
        gradient = sign * g[i] + decay * weight
        m[i] += new1 * (gradient - m[i])                                    # β₁ m + (1-β₁) G, with new1 = 1 - β₁
        v[i] = beta2 * v[i] + new2 * gradient * gradient
        p[i] = weight - step * m[i] / (math.sqrt(v[i]) * root + eps)


@cuda.jit
def sgd(p, g, v, lr, momentum, new, share_of_v, share_of_g, decay, sign):
    """With G = sign · g + decay · p:  v ← momentum · v + new · G,   p ← p - lr · (share_of_v · v + share_of_g · G).

    Memory: 3 fetches and 2 stores a weight.
    """
    i = cuda.grid(1)
    if i < len(p):
        gradient = sign * g[i] + decay * p[i]
        v[i] = momentum * v[i] + new * gradient
        p[i] -= lr * (share_of_v * v[i] + share_of_g * gradient)
