"""Pictures on the caller's side: bytes, open files, paths, and folders of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import BinaryIO

Picture = bytes | str | PathLike[str] | BinaryIO
"""Bytes, the path of a file, or a file opened for reading bytes."""


@dataclass(frozen=True, slots=True)
class LocalPicture:
    """A file to send, and the folder (below the watched one) that it is to lie in."""

    path: Path
    folder: str

    @property
    def name(self) -> str:
        return printable(self.path.name)


def read(picture: Picture) -> tuple[str, bytes]:
    """A picture's name and bytes. Raises OSError."""
    if isinstance(picture, bytes):
        return "picture", picture
    if isinstance(picture, str | PathLike):
        path = Path(picture)
        return printable(path.name), path.read_bytes()
    return "picture", picture.read()


def several(pictures: Picture | Sequence[Picture] | None) -> tuple[Picture, ...]:
    """None, one or more as a sequence. Bytes and paths are sequences too, but of no pictures."""
    if pictures is None:
        return ()
    if isinstance(pictures, Sequence) and not isinstance(pictures, bytes | str):
        return tuple(pictures)
    return (pictures,)


def gathered(paths: Iterable[str | PathLike[str]], folder: str | None) -> list[LocalPicture]:
    """The files that are named, and all pictures of the folders that are, sorted within each. Raises OSError for what is not there.

    Like `cp -r`, a folder brings its own name along: `2019/a.jpg` of `photos` goes to `<folder>/photos/2019`. What is hidden, and
    what is not named like a picture, is left out of folders; a file that is named itself is always taken.
    """
    found: list[LocalPicture] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += _below(path, folder or "")
        else:
            path.stat()
            found.append(LocalPicture(path, folder or ""))
    return found


def _below(root: Path, folder: str) -> Iterator[LocalPicture]:
    name = root.resolve().name
    for here, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
        inner_folder = PurePosixPath(folder, name, Path(here).relative_to(root).as_posix())
        for file in sorted(files):
            if is_named_like_a_picture(file) and not Path(here, file).is_fifo():  # which nobody may ever write into
                yield LocalPicture(Path(here, file), printable(str(inner_folder)))


def is_named_like_a_picture(name: str) -> bool:
    """By its suffix; what is hidden is none."""
    from core.decode import IMAGE_SUFFIXES  # noqa: PLC0415 - brings the codecs along, which nothing else here needs

    path = PurePosixPath(name)
    return not path.name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES


def _refuse(error: OSError) -> None:
    raise error


def printable(name: str) -> str:
    """A name as text that can be sent: what is not UTF-8 in it is replaced."""
    return os.fsencode(name).decode(errors="replace")
