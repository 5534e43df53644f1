"""Switches that scripts set under PyTorch's names, `torch.backends.cudnn.deterministic = True`. None changes anything.

minidl has no cuDNN and no Metal; its own kernels give the same bits in every run.
"""

from __future__ import annotations


class _Switches:
    """A place for settings to be written to."""

    deterministic = True
    benchmark = False
    enabled = False
    allow_tf32 = False

    def is_available(self) -> bool:
        """False: not there."""
        return False

    def is_built(self) -> bool:
        """False: not there."""
        return False


cudnn = _Switches()
mps = _Switches()
