"""Switches that scripts set under PyTorch's names, `torch.backends.cudnn.deterministic = True`. None changes anything.

minidl has no cuDNN and no Metal, and its own kernels give the same bits in every run.
"""

from minidl.backends import cudnn, mps

__all__ = ["cudnn", "get_num_threads", "mps", "set_float32_matmul_precision", "set_num_threads",
           "use_deterministic_algorithms"]


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Nothing to switch: there are no others."""


def set_float32_matmul_precision(precision: str) -> None:
    """Nothing to switch: products of float32 are computed in float32."""


def set_num_threads(threads: int) -> None:
    """Nothing to switch: the matrix library reads its number of threads once, from OPENBLAS_NUM_THREADS."""


def get_num_threads() -> int:
    """How many cores this machine has."""
    import os

    return os.cpu_count() or 1
