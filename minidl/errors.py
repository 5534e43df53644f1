"""The errors of minidl: one sentence each, saying where it happened, what came, what was expected and the fix.

They derive from `RuntimeError`, as PyTorch's do, so a lesson's `except RuntimeError` keeps working.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence


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


class OutOfRangeError(MinidlError, IndexError):
    """An index beyond the elements that are there."""


class AxisError(ShapeError, IndexError):
    """An axis that the tensor does not have."""


class DtypeError(MinidlError, TypeError):
    """A number type that the operation cannot take."""


class DeviceError(MinidlError):
    """Operands on different devices, or a device that is not there."""


class OutOfMemoryError(DeviceError, MemoryError):
    """More memory asked for than there is."""


class GraphError(MinidlError):
    """The graph cannot be walked: no graph, freed already, or a kept value was changed."""


class SettingError(MinidlError, ValueError):
    """A setting outside its range: a learning rate of 0, an unknown kernel set, a wrong mode."""


class LabelError(MinidlError, ValueError, IndexError):
    """Class labels of the wrong shape, type or range."""


class ModuleError(MinidlError, TypeError):
    """A model put together in a way that would silently not train."""


class NotWrittenError(ModuleError, NotImplementedError):
    """A method that a subclass has to write and did not."""


def some(names: Sequence[str], most: int, between: str = ", ", others: Sequence[str] = (), cutoff: float = 0.5) -> str:
    """The first of the names and how many more there are, for an error. others: beside each stands the nearest of them.
    """
    shown = []
    for name in names[:most]:
        near = difflib.get_close_matches(name, others, n=1, cutoff=cutoff)
        shown.append(f"{name} (it has {near[0]})" if near else name)
    return between.join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")


class NoSuchName(AttributeError):
    """A name that is not there. The nearest one that is there is looked for when the error is printed, not before:
    `hasattr` raises this too, and throws it away.
    """

    def __init__(self, where: str, name: str, names: Callable[[], Iterable[str]], hints: Mapping[str, str]) -> None:
        super().__init__(name)
        self.where, self.missing, self.names, self.hints = where, name, names, hints

    def __str__(self) -> str:
        if self.missing in self.hints:
            return f"{self.where} has no {self.missing!r}; {self.hints[self.missing]}"
        by_lower = {known.lower(): known for known in self.names() if not known.startswith("_")}
        near = difflib.get_close_matches(self.missing.lower(), by_lower, n=2, cutoff=0.6)
        nearest = " or ".join(repr(by_lower[match]) for match in near)
        return f"{self.where} has no {self.missing!r}; {f'the nearest is {nearest}' if near else 'nothing is like it'}"


def no_such_name(where: str, name: str, names: Iterable[str] | Callable[[], Iterable[str]],
                 hints: Mapping[str, str] | None = None) -> AttributeError:
    """The error for `where.name` that is not there: it names the nearest thing that is.

    names: what is there. hints: foreign names with what to use instead, for those that no spelling would find.

    An AttributeError, because `hasattr(x, name)` must stay a question.
    """
    return NoSuchName(where, name, names if callable(names) else lambda: names, hints or {})
