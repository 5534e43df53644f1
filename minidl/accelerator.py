"""Which accelerator there is, under PyTorch's newer names: the GPU of `minidl.cuda`."""

from minidl import cuda
from minidl.backend import device


def is_available() -> bool:
    """Whether tensors can be moved to an accelerator."""
    return cuda.is_available()


def current_accelerator() -> device | None:
    """The accelerator in use; None without one."""
    return device("cuda") if is_available() else None


def device_count() -> int:
    """How many there are."""
    return cuda.device_count()
