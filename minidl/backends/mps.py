"""PyTorch's questions about Metal, which is not used here."""


def is_available() -> bool:
    """False: not there."""
    return False


def is_built() -> bool:
    """False: not there."""
    return False
