"""Many images as one picture (as `torchvision.utils`), and `minidl.utils.data`, another name of `minidl.data`."""

from typing import Any as _Any

from minidl.errors import no_such_name as _no_such_name
from minidl.utils import data
from minidl.utils.grid import make_grid, save_image

__all__ = ["data", "make_grid", "save_image"]

_HINTS = {
    "checkpoint": "all values are kept for backward; split the batch if memory runs out",
    "tensorboard": "use from minidl.utils.tensorboard import SummaryWriter",
}


def __getattr__(name: str) -> _Any:
    raise _no_such_name("minidl.utils", name, __all__, _HINTS)
