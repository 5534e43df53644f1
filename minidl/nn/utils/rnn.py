"""Sequences of different lengths as one batch."""

from __future__ import annotations

from collections.abc import Sequence

from minidl.errors import ShapeError
from minidl.functions import stack
from minidl.nn.functional import pad
from minidl.tensors import Tensor

__all__ = ["pad_sequence"]


def pad_sequence(sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0) -> Tensor:
    """Sequences (L_k, …) filled up to the longest, (L, N, …); batch_first: (N, L, …)."""
    if not sequences or len({tuple(x.shape[1:]) for x in sequences}) > 1:
        raise ShapeError(f"got shapes {', '.join(str(x.shape) for x in sequences)}, expected a list of sequences that "
                         f"differ in length alone", where="pad_sequence")
    longest = max(len(x) for x in sequences)
    filled = [pad(x, (0, 0) * (x.ndim - 1) + (0, longest - len(x)), value=padding_value) for x in sequences]
    return stack(filled, 0 if batch_first else 1)
