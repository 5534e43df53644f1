"""Another name of `minidl.data`, for programs that write `from torch.utils.data import DataLoader`."""

from typing import Any as _Any

import minidl.data as _data
from minidl.data import *  # noqa: F403
from minidl.data import __all__ as __all__


def __getattr__(name: str) -> _Any:
    return getattr(_data, name)
