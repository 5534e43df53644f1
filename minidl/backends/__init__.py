"""Switches that scripts set under PyTorch's names, `torch.backends.cudnn.deterministic = True`, and the threads.

minidl has no cuDNN and no Metal, and its own kernels give the same bits in every run with the same number of threads.
"""

from minidl.backends import cudnn, mps
from minidl.kernels.threads import get_num_threads, set_num_threads

__all__ = ["cudnn", "get_num_threads", "mps", "set_float32_matmul_precision", "set_num_threads",
           "use_deterministic_algorithms"]


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Nothing to switch: there are no others."""


def set_float32_matmul_precision(precision: str) -> None:
    """Nothing to switch: products of float32 are computed in float32."""
