"""Steps of optimizers on a GPU in one pass: each thread changes one weight, and what is remembered of it.

The formulas are those of `optim.Adam` and `optim.SGD`. Computed by an array library each of their dozen operations is a
launch, a fetch of its operands and a store of its result; here a weight, its gradient and its memory are fetched once.
They are held in variables in between: the compiler cannot know that `p` and `m` are different memory, and would fetch
what it has just stored.
"""

from __future__ import annotations

import math

from minidl.numba_cuda import cuda


@cuda.jit
def adam(p, g, m, v, step, new1, beta2, new2, root, eps, decay, shrink, sign):
    """With G = sign · g + decay · p after p ← shrink · p:  m ← β₁ m + (1-β₁) G,  v ← β₂ v + (1-β₂) G²,

    p ← p - step · m / (√v · root + ε).   Memory: 4 fetches and 3 stores a weight.
    """
    i = cuda.grid(1)
    if i < len(p):
        weight, mean, square = shrink * p[i], m[i], v[i]
        gradient = sign * g[i] + decay * weight
        mean += new1 * (gradient - mean)                                    # β₁ m + (1-β₁) G, with new1 = 1 - β₁
        square = beta2 * square + new2 * gradient * gradient
        m[i], v[i] = mean, square
        p[i] = weight - step * mean / (math.sqrt(square) * root + eps)


@cuda.jit
def sgd(p, g, v, lr, momentum, new, share_of_v, share_of_g, decay, sign):
    """With G = sign · g + decay · p:  v ← momentum · v + new · G,   p ← p - lr · (share_of_v · v + share_of_g · G).

    Memory: 3 fetches and 2 stores a weight.
    """
    i = cuda.grid(1)
    if i < len(p):
        weight = p[i]
        gradient = sign * g[i] + decay * weight
        velocity = momentum * v[i] + new * gradient
        v[i] = velocity
        p[i] = weight - lr * (share_of_v * velocity + share_of_g * gradient)
