"""The watched folder as the search service touches it: finding a picture's file, and never a file outside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from core.errors import NotFound
from core.filenames import from_text
from core.images import beneath

SNIFFED_BYTES = 32


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open regular file and what it was when it was opened."""

    file: BinaryIO
    size: int
    modified_at_s: float
    first_bytes: bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class PictureFolder:
    """Blocks on the disk: call it in an executor."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open_first(self, paths: Iterable[str], *, size: int | None = None) -> OpenedFile:
        """Open the first of an image's paths that still holds it (as far as its size tells). Raises NotFound."""
        for path in paths:
            with suppress(OSError):
                if opened := self._open(path, size):
                    return opened
        raise NotFound("the picture's file is no longer there")

    def _open(self, path: str, size: int | None) -> OpenedFile | None:
        file = _regular(beneath.open_file(self._root, from_text(path)))
        if file is None:
            return None
        if size is not None and file.size != size:
            file.file.close()
            return None
        return file


def open_regular(path: Path) -> OpenedFile | None:
    """Open a regular file; None for anything else, on which reading might wait for ever. Raises OSError."""
    return _regular(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))


def _regular(descriptor: int) -> OpenedFile | None:
    """Takes the descriptor over: it is closed with the file, or here."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            return None
        first_bytes = os.pread(descriptor, SNIFFED_BYTES, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return OpenedFile(os.fdopen(descriptor, "rb"), status.st_size, status.st_mtime, first_bytes)


_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
    (b"\xffO\xffQ", "image/j2c"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
)
_ISO_BRANDS = {b"avif": "image/avif", b"avis": "image/avif"}


def content_type(first_bytes: bytes) -> str:
    """By what the file is, not by what it is called: nothing that a browser would run can come of it."""
    if first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP":
        return "image/webp"
    if first_bytes[4:8] == b"ftyp":
        return _ISO_BRANDS.get(first_bytes[8:12], "image/heic")
    return next((kind for signature, kind in _SIGNATURES if first_bytes.startswith(signature)), "application/octet-stream")
