"""PyTorch's place for Parameter: `from minidl.nn.parameter import Parameter`."""

from minidl.nn.module import Parameter

__all__ = ["Parameter"]
