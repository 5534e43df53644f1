"""`@compiled`: Numba makes machine code of a function, once for each machine and each version of the kernels.

The first call with new types compiles, which takes a second or so for each kernel; what comes out is kept in

    <cache folder>/minidl/kernels/<key>        the key: a hash of all kernel sources and of what else shapes the code

and later processes load it in milliseconds. Numba notices a change in the file of a function but not in the files that
this one imports from, hence the key. The cache folder is `$NUMBA_CACHE_DIR`, else the user's own (`~/.cache`); where it
cannot be written, every process compiles for itself. With `NUMBA_DISABLE_JIT=1` functions stay plain Python, to step
through in a debugger.

Compiling is announced once, as a warning of the logger "minidl" (so `logging.getLogger("minidl")` can silence it).
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import logging
import os
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
from numba.core import config, event
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable[..., Any])

# Sums may be reordered, a*b + c may be one instruction, x/2 may be x*0.5; NaN and infinity stay what they are.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}

UNUSED_DAYS = 30           # after which the code of other versions is removed
SOURCES = Path(__file__).parent


def compiled(function: Function) -> Function:
    """The function as machine code, made when it is first called; it may run in several threads at once.

    Division by zero gives infinity or NaN as in NumPy, and indices are not checked.
    """
    if config.DISABLE_JIT:
        return function
    if function.__closure__:
        # Numba calls machine code by the function's name and by how many the process had compiled before. So functions
        # of one name, compiled by two processes and loaded by a third, would be taken for one another.
        function.__qualname__ += "_" + hashlib.sha256(repr(_identity(function)).encode()).hexdigest()[:8]
    made = numba.njit(nogil=True, error_model="numpy", boundscheck=False, fastmath=FASTMATH)(function)
    if folder() is not None:
        with contextlib.suppress(RuntimeError):              # its source is in no file that could be watched
            made._cache = _Cache(function)
    _ours.add(made)
    return made  # type: ignore[no-any-return]


def seconds() -> float:
    """How long this process has spent on compiling (not on loading) kernels."""
    return sum(spent for _, spent in _log.done)


def names() -> list[str]:
    """The functions that this process has compiled (not loaded), in order, as "file.function"."""
    return [name for name, _ in _log.done]


# -- where compiled code is kept ------------------------------------------------------------------------------------

@cache
def folder() -> Path | None:
    """The folder for the code of these very sources, which can be written; None where there is none."""
    try:
        parent = _cache_root() / "minidl" / "kernels"
        mine = parent / key()
        is_new = not mine.exists()
        mine.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=mine).close()             # is it writable? asking the system is not always right
        os.utime(mine)                                       # in use
    except (OSError, RuntimeError):                          # RuntimeError: there is no home folder
        return None
    if is_new:
        _remove_unused(parent)
    return mine


def key() -> str:
    """16 hex digits that change with the sources of the kernels, with the compiler, and with its settings."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    versions = (numba.__version__, llvmlite.__version__, config.OPT, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT)
    digest.update(repr(versions).encode())
    return digest.hexdigest()[:16]


def _cache_root() -> Path:
    if config.CACHE_DIR:                                     # $NUMBA_CACHE_DIR
        return Path(config.CACHE_DIR).absolute()
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    chosen = os.environ.get("XDG_CACHE_HOME", "")
    return Path(chosen) if os.path.isabs(chosen) else Path.home() / ".cache"


def _remove_unused(parent: Path) -> None:
    """Remove the code of other versions that no process has asked for in a month."""
    for path in parent.iterdir():
        if re.fullmatch("[0-9a-f]{16}", path.name) and time.time() - path.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(path, ignore_errors=True)


class _Cache(FunctionCache):
    """Numba's cache of one function, in our folder; a file that cannot be read or written is a miss, not an error."""

    def __init__(self, function: Callable[..., Any]) -> None:
        before = config.CACHE_DIR
        config.CACHE_DIR = str(folder())                     # read by Numba when a cache is made, and only then
        try:
            super().__init__(function)
        finally:
            config.CACHE_DIR = before
        # Numba counts up the names of its data files. Two processes that compile the same function for other types
        # would write one file, and the index might name it for the wrong types: so every process has its own names.
        self._cache_file._data_name_pattern = f"{self._impl.filename_base}.{uuid.uuid4().hex[:8]}.{{number}}.nbc"

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(signature, target_context)
        except Exception:                                    # a damaged file raises about anything
            self._try(self.flush)
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        self._try(super().save_overload, signature, data)    # the disk may be full; the code in memory is good

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        """What a compilation is found by: types, processor, and what the function's closure holds.

        Numba would pickle the closure, and a compiled function in there pickles differently in every process.
        """
        return signature, codegen.magic_tuple(), repr(_identity(self._py_func))

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:
            logging.getLogger("minidl").info("%s could not be kept in %s: %s", self._name, self._cache_path, error)


def _identity(value: Any) -> Any:
    """What tells two values in a closure apart, the same in every process; the sources count in `key` already."""
    if isinstance(value, tuple):
        return tuple(map(_identity, value))
    function = getattr(value, "py_func", getattr(value, "_defn", value))                 # compiled, or an intrinsic
    if not inspect.isfunction(function):
        return value
    cells = [_identity(cell.cell_contents) for cell in function.__closure__ or ()]
    return function.__module__, function.__qualname__, function.__code__.co_firstlineno, cells


# -- what has been compiled -----------------------------------------------------------------------------------------

class _Log(event.Listener):
    """Hears of every compilation of this process (not of what is loaded), and notes ours."""

    def __init__(self) -> None:
        self.done: list[tuple[str, float]] = []
        self._running: list[tuple[Any, float]] = []          # a kernel that calls another compiles it on the way

    def on_start(self, start: event.Event) -> None:
        dispatcher = start.data["dispatcher"]
        if dispatcher in _ours:
            if not self._running and not self.done:
                where = f"once; kept in {folder()}" if folder() else (
                    "in every process: no cache folder can be written, name one in NUMBA_CACHE_DIR")
                logging.getLogger("minidl").warning("minidl: compiling kernels (%s)", where)
            self._running.append((dispatcher, time.perf_counter()))

    def on_end(self, end: event.Event) -> None:
        dispatcher = end.data["dispatcher"]
        if dispatcher in _ours:
            _, began = self._running.pop()
            spent = 0.0 if self._running else time.perf_counter() - began    # an inner one counts for the outer one
            name = f"{dispatcher.py_func.__module__.split('.')[-1]}.{dispatcher.py_func.__name__}"
            self.done.append((name, spent))


_ours: set[Any] = set()
_log = _Log()
event.register("numba:compile", _log)
