"""Networks that several labs use."""

from minidl.models.small_cnn import small_cnn

__all__ = ["small_cnn"]
