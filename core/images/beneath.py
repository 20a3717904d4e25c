"""Opening what lies beneath a folder, and nothing else, whoever renames what meanwhile.

A path is resolved first, so links within the folder are followed; then each part is opened in its turn, and a link that was not there
a moment before is not. Blocks on the disk. Raises OSError, PermissionError where the path leads outside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_file(root: Path, path: str) -> int:
    """A descriptor for reading; of anything that has a name there, a pipe included."""
    parts = resolved(root, path).parts
    with folder(root, parts[:-1]) as descriptor:
        return os.open(parts[-1] if parts else ".", _FILE, dir_fd=descriptor)


def resolved(root: Path, path: str) -> PurePath:
    """Where a path beneath `root` really lies, beneath it."""
    outer = root.resolve(strict=True)
    try:
        inner = (outer / path).resolve()
    except (RuntimeError, ValueError):  # links in a circle, before Python 3.13; a name that cannot be one
        raise FileNotFoundError(2, "nothing lies there") from None
    if not inner.is_relative_to(outer):
        raise PermissionError(13, "outside the watched folder")
    return inner.relative_to(outer)


@contextmanager
def folder(root: Path, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder that `parts`, which are resolved, lead to; with `make`, those that are missing are made."""
    descriptor = os.open(root.resolve(strict=True), _FOLDER)
    try:
        for part in parts:
            inner = _entered(part, descriptor, make=make)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _entered(part: str, outer: int, *, make: bool) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=outer)
    except FileNotFoundError:
        if not make:
            raise
    with suppress(FileExistsError):  # somebody else was quicker
        os.mkdir(part, dir_fd=outer)
        os.fsync(outer)  # or a power cut takes the folder, and what was written durably into it
    return os.open(part, _FOLDER, dir_fd=outer)
