"""Downloads: mirrors in turn, resumed where they broke off, checked, and only then put into place."""

from __future__ import annotations

import io
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from minidl.datasets.files import checksum_of, kind_of, read_payload
from minidl.errors import MinidlError

TIMEOUT = 30.0                              # seconds without a byte
ATTEMPTS = 3                                # at each mirror, each going on where the last one broke off


def download(urls: Sequence[str], target: Path, expected: str, where: str, unpacked: bool = True) -> None:
    """Get the file `target` from the first of the mirrors that has it whole.

    expected: the SHA-256, or an MD5, of what is in the file if `unpacked` (gzip files of the same content differ from
    mirror to mirror), else of the file itself. While it grows it is called target.part, and one with other bytes is set
    aside as target.bad.
    """
    part, bad = (target.with_name(target.name + ending) for ending in (".part", ".bad"))
    with writing(target, where):
        if target.is_file() and _digest(target, unpacked, expected) == expected:
            return
    problems, kind = [], kind_of(expected)
    for url in urls:
        for _ in range(ATTEMPTS):
            with writing(part, where):
                before = _size(part)
            try:
                _receive(url, part, where)
            except (OSError, HTTPException, ValueError) as error:
                problem = f"{error}" or type(error).__name__
                if _size(part) <= before:                   # not a byte more: asking again is idle
                    break
                continue
            with writing(target, where):
                found = _digest(part, unpacked, expected)
                os.replace(part, target if found == expected else bad)
            if found == expected:
                return
            problem = f"{kind} {found}, set aside as {bad.name}"
            if not before:                                  # else the old bytes may be wrong: from the start
                break
        problems.append(f"{url}: {problem}")
    raise MinidlError(f"got no {target.name} from {'; '.join(problems)}; expected {kind} {expected}; try again later, "
                      f"or put the file into {target.parent} by hand", where=where)


@contextmanager
def writing(path: Path, where: str) -> Iterator[None]:
    """A full disk or a folder that is not to be written into, as one sentence: no other mirror would help."""
    try:
        yield
    except OSError as error:
        raise MinidlError(f"got {error.strerror or error} when writing {path}, expected room for it in a folder that "
                          f"can be written into; make some or give another root (what has come so far is kept, and "
                          f"the next call goes on from there)", where=where) from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path, unpacked: bool, expected: str) -> str:
    try:
        return checksum_of(read_payload(path, "download") if unpacked else path, expected)
    except MinidlError:
        return "none, as it is no whole gzip file"


def _receive(url: str, part: Path, where: str) -> None:
    """Append to `part` what it has not got yet; what came until something goes wrong is kept.

    Raises OSError, HTTPException or ValueError if that is the mirror's fault, and MinidlError if it is the disk's.
    """
    have = _size(part)
    headers = {"User-Agent": "minidl", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:                      # nothing is left to send
            return
        raise
    with response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0                                        # the mirror begins from the start
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None                  # None: the mirror does not say
        with _growing(part, have, where) as file, _progress(part.stem, have, total) as advance:
            while chunk := response.read1(1 << 16):
                with writing(part, where):
                    _append(file, chunk)
                have += len(chunk)
                advance(len(chunk))
    if total is not None and have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _growing(part: Path, have: int, where: str) -> io.FileIO:
    """The file, to append to what it has got or else to begin; unbuffered, so no write is put off and fails later."""
    with writing(part, where):
        part.parent.mkdir(parents=True, exist_ok=True)
        return open(part, "ab" if have else "wb", buffering=0)


def _append(file: io.FileIO, chunk: bytes) -> None:
    while chunk:                                            # a disk that is nearly full takes only some of it
        chunk = chunk[file.write(chunk):]


@contextmanager
def _progress(name: str, have: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr; what it yields is told how many more bytes have come."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total, completed=have)
        yield lambda count: progress.advance(task, count)
