"""The errors of minidl: one sentence each, saying where it happened, what came, what was expected and the fix.

They derive from `RuntimeError`, as PyTorch's do, so a lesson's `except RuntimeError` keeps working.
"""

from __future__ import annotations


class MinidlError(RuntimeError):
    """Base of all errors that minidl raises about what it was given.

    `where` is the function that noticed ("conv2d"); inside a model, `Module.__call__` replaces it by the layer
    ("features.0 Conv2d(1→6)").
    """

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.located = False          # True once a module has put its own path into `where`

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class ShapeError(MinidlError, ValueError):
    """Sizes that do not fit together."""


class DtypeError(MinidlError, TypeError):
    """A number type that the operation cannot take."""


class DeviceError(MinidlError):
    """Operands on different devices, or a device that is not there."""


class GraphError(MinidlError):
    """The graph cannot be walked: no graph, freed already, or a kept value was changed."""


class SettingError(MinidlError, ValueError):
    """A setting outside its range: a learning rate of 0, an unknown kernel set, a wrong mode."""


class LabelError(MinidlError, ValueError):
    """Class labels of the wrong shape, type or range."""


class ModuleError(MinidlError, TypeError):
    """A model put together in a way that would silently not train."""
