"""Which accelerator there is, under PyTorch's newer names. So far minidl computes on the CPU alone."""

from minidl.backend import device


def is_available() -> bool:
    """Whether tensors can be moved to an accelerator."""
    return False


def current_accelerator() -> device | None:
    """The accelerator in use; None without one."""
    return None


def device_count() -> int:
    """How many there are."""
    return 0
