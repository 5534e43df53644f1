"""What the engine notes about the present moment: whether to record, in which module, on whose line.

All of it is per thread.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import ContextDecorator
from types import CodeType
from typing import Any


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.recording = True
        self.modules: list[Any] = []        # the modules whose forward is running, outermost first


state = _ThreadState()


def is_grad_enabled() -> bool:
    """Whether ops called in this thread are recorded."""
    return state.recording


class Recording(ContextDecorator):
    """Recording switched to `mode` for a block or a decorated function; may be nested and entered again."""

    def __init__(self, mode: bool) -> None:
        self._mode = mode
        self._before: list[bool] = []

    def __enter__(self) -> None:
        self._before.append(state.recording)
        state.recording = self._mode

    def __exit__(self, *error: object) -> None:
        state.recording = self._before.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:  # type: ignore[override]
        """Decorate a function; a generator function runs in the block, but not what happens between its items."""
        if not function.__code__.co_flags & 0x20:           # the flag CO_GENERATOR
            return super().__call__(function)

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Any:
            items, sent = function(*args, **kwargs), None
            while True:
                try:
                    with self._recreate_cm():
                        item = items.send(sent)
                except StopIteration as end:
                    return end.value
                sent = yield item
        return generator

    def _recreate_cm(self) -> Recording:
        return Recording(self._mode)       # each call of a decorated function enters a block of its own


class no_grad(Recording):
    """Ops in this block, or in the decorated function, leave no nodes: nothing is kept and no gradient flows."""

    def __init__(self) -> None:
        super().__init__(False)

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """`@no_grad` without parentheses works too."""
        return super().__new__(cls) if function is None else Recording(False)(function)


class enable_grad(Recording):
    """Record in this block, or in the decorated function, although `no_grad` surrounds it."""

    def __init__(self) -> None:
        super().__init__(True)

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        """`@enable_grad` without parentheses works too."""
        return super().__new__(cls) if function is None else Recording(True)(function)


class set_grad_enabled(Recording):
    """Switch recording on or off: from now on, or for a `with` block or a decorated function."""

    def __init__(self, mode: bool) -> None:
        super().__init__(bool(mode))
        self._at_first = state.recording
        state.recording = self._mode

    def __enter__(self) -> None:
        self._before.append(self._at_first)
        state.recording = self._mode

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:  # type: ignore[override]
        """As a decorator it did not mean "from now on"."""
        state.recording = self._at_first
        return super().__call__(function)


# -- where in the program ------------------------------------------------------------------------------------------

def module_stack() -> list[Any]:
    """The modules whose forward is running in this thread, outermost first. `Module.__call__` keeps it."""
    return state.modules


def module_path(root: Any, module: Any) -> str:
    """What `root` calls one of its submodules: "features.0"."""
    return next((name for name, candidate in root.named_modules() if candidate is module), "")


_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def users_line() -> tuple[CodeType, int] | None:
    """The nearest line on the call stack that is not minidl's own, as (code object, line number).

    A frame would keep all its variables alive; the code object keeps nothing.
    """
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_PACKAGE):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return frame.f_code, frame.f_lineno


# -- versions: noticing that a kept value was overwritten ----------------------------------------------------------

class Version:
    """Counts the writes to one piece of memory; all tensors that are views of that memory share it."""

    __slots__ = ("_prune_at", "_sharers", "count", "uploaded")

    def __init__(self) -> None:
        self.count = 0
        self.uploaded: Any = None                               # see minidl/uploads.py
        self._sharers: list[weakref.ref[Any]] | None = None     # most memory is seen by one tensor alone
        self._prune_at = 16

    def shared_by(self, *tensors: Any) -> None:
        """Note that these tensors see the same memory."""
        self._sharers = self._sharers or []
        if len(self._sharers) >= self._prune_at:
            self._sharers = [ref for ref in self._sharers if ref() is not None]
            self._prune_at = 16 + 2 * len(self._sharers)
        self._sharers += map(weakref.ref, tensors)

    def left_by(self, tensor: Any) -> None:
        """Note that this tensor sees the memory no longer."""
        self._sharers = [ref for ref in self._sharers or () if ref() is not tensor]

    def is_shared(self) -> bool:
        """Whether more than one living tensor sees this memory."""
        alive = [tensor for ref in self._sharers or () if (tensor := ref()) is not None]
        return any(tensor is not alive[0] for tensor in alive)


# -- hooks ---------------------------------------------------------------------------------------------------------

class HookHandle:
    """What registering a hook returns; `remove()` takes the hook away again."""

    _last = 0

    def __init__(self, hooks: dict[int, Any], function: Callable[..., Any]) -> None:
        HookHandle._last += 1
        self._id, self._hooks = HookHandle._last, hooks
        hooks[self._id] = function

    def remove(self) -> None:
        """Take the hook away; doing it twice does no harm."""
        self._hooks.pop(self._id, None)

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()
