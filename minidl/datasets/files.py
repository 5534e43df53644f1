"""Finding and reading the files of datasets. Nothing that a file says about itself is believed before it is checked."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minidl.errors import MinidlError, SettingError

_MOST_AXES = 64                                         # what NumPy can hold
_verified: set[tuple[str, int, int, str]] = set()       # path, size, time of the last change, checksum


def data_root(root: Any = None) -> Path:
    """The folder of all datasets: `root`, else the environment's MINIDL_DATA, else data/."""
    if root is not None and not isinstance(root, str | os.PathLike):
        raise SettingError(f"got root={root!r}, expected the path of a folder", where="datasets")
    return Path(root if root is not None else os.environ.get("MINIDL_DATA") or "data").expanduser()


def find_together(root: Path, folders: Iterable[str], names: Sequence[str]) -> list[Path] | None:
    """The files with these names, plain or gzipped, all from the first of the folders below `root` that has them."""
    for folder in (root / name for name in folders):
        found = []
        for name in names:
            # some collections write train-images.idx3-ubyte
            spellings = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
            found += [folder / spelling for spelling in spellings if os.path.isfile(folder / spelling)][:1]
        if len(found) == len(names):
            return found
    return None


def not_found(where: str, root: Path, folders: Iterable[str], names: Sequence[str], fix: str) -> MinidlError:
    """The error for files that are not there: where they were looked for, and what to do."""
    places = ", ".join(str(root / folder) for folder in folders)
    return MinidlError(f"got none of these folders with {' and '.join(names)}: {places}; {fix}", where=where)


def read_bytes(path: Path, where: str) -> bytes:
    """The bytes of a file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise MinidlError(f"got {path}, which cannot be read ({error.strerror or error}), expected a file that can",
                          where=where) from None


def read_payload(path: Path, where: str) -> bytes:
    """The bytes of a file, decompressed if it is gzipped (its first bytes tell, not its name)."""
    content = read_bytes(path, where)
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise MinidlError(f"got {path}, a damaged gzip file of {len(content):,} bytes ({error}), expected a whole one; "
                          f"delete it and load it again", where=where) from None


def kind_of(checksum: str) -> str:
    """Which checksum it is, by its length in hexadecimal digits: "SHA-256", or "MD5" where nothing better is published.
    """
    return "MD5" if len(checksum) == 32 else "SHA-256"


def checksum_of(payload: bytes | Path, expected: str) -> str:
    """The checksum of bytes, or of a file, of the same kind as `expected`, in hexadecimal digits."""
    algorithm = kind_of(expected).replace("-", "").lower()
    if isinstance(payload, bytes):
        return hashlib.new(algorithm, payload, usedforsecurity=False).hexdigest()
    with open(payload, "rb") as file:                       # piece by piece
        return hashlib.file_digest(file, algorithm).hexdigest()


def verify(path: Path, payload: bytes | None, expected: str, where: str, known: dict[str, str] | None = None,
           fix: str = "delete it and load it again, or give another root") -> None:
    """Compare the payload of a file (None: all of it) with the checksum that it should have; once for a file that does
    not change.

    known: checksum -> whose file it is, to say so where a file of another dataset is in this place. fix: what to do.
    """
    about = path.stat()
    key = (str(path.resolve()), about.st_size, about.st_mtime_ns, expected)
    if key in _verified:
        return
    found, kind = checksum_of(path if payload is None else payload, expected), kind_of(expected)
    size = about.st_size if payload is None else len(payload)
    if found != expected:
        whose = f", which is the file of {known[found]}" if known and found in known else ""
        raise MinidlError(f"got {path} with {size:,} bytes of {kind} {found}{whose}, expected {kind} {expected}; {fix}",
                          where=where)
    _verified.add(key)


def parse_idx(payload: bytes, path: Path, where: str) -> np.ndarray:
    """The array in an IDX file: two zero bytes, the number type, the number of axes, their sizes, then the numbers."""
    types = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
    axes = payload[3] if len(payload) > 3 else 0
    start = 4 + 4 * axes
    if payload[:2] != b"\0\0" or len(payload) < start or payload[2] not in types or not 0 < axes <= _MOST_AXES:
        raise MinidlError(f"got {path}, which begins with {payload[:4].hex(' ') or 'nothing'}, expected an IDX file: "
                          f"00 00, a number type, a number of axes; is it another kind of file?", where=where)
    shape = tuple(int.from_bytes(payload[i:i + 4], "big") for i in range(4, start, 4))
    dtype = np.dtype(types[payload[2]])
    size = math.prod(shape) * dtype.itemsize            # in Python's integers, which do not overflow
    if len(payload) != start + size:
        raise MinidlError(f"got {path} with {len(payload):,} bytes, expected {start + size:,}: its header promises "
                          f"{'×'.join(map(str, shape))} numbers; delete it and load it again", where=where)
    if not size:                                        # the other sizes may be any, and NumPy would believe them
        raise MinidlError(f"got {path}, which holds {'×'.join(map(str, shape))} numbers, so none, expected some; "
                          f"delete it and load it again", where=where)
    return np.frombuffer(payload, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
