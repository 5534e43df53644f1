"""Networks that several labs use."""

from minidl.models.cnn48 import cnn48
from minidl.models.lenet import lenet
from minidl.models.small_cnn import small_cnn

__all__ = ["cnn48", "lenet", "small_cnn"]
