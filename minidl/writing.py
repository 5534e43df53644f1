"""Writing files: what is written is written whole or not at all, and failing is a sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minidl.errors import MinidlError


@contextmanager
def writing(path: str | Path, where: str) -> Iterator[None]:
    """Turn what the system says when a file or folder cannot be written into one sentence, with its path."""
    try:
        yield
    except OSError as error:
        raise MinidlError(f"got {path}, which cannot be written ({error.strerror}); choose another place, or make room",
                          where=where) from None


def make_folder(path: str | Path, where: str) -> None:
    """The folder, and those around it."""
    with writing(path, where):
        os.makedirs(path, exist_ok=True)


def append_whole(path: str | Path, content: bytes, where: str) -> None:
    """Append all of the content to a file, or nothing where the disk is full."""
    with writing(path, where), open(path, "ab", buffering=0) as file:
        size = file.tell()
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[file.write(rest):]
        except OSError:
            file.truncate(size)
            raise


def replace_whole(path: str | Path, content: bytes, where: str) -> None:
    """Give a file other content. It is written beside it and renamed: a crash leaves the old or the new file."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path, where):
        try:
            beside.write_bytes(content)
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
