"""PyTorch's switches of cuDNN, which is not used here: writing to them changes nothing."""

deterministic = True
benchmark = False
enabled = False
allow_tf32 = False


def is_available() -> bool:
    """False: not there."""
    return False
