"""Seals: what tells a clean end from a crash, and files that nobody touched since from others, by a `stat` of each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from core import files

_OPEN = b"open\n"


class Found(StrEnum):
    """What a start finds."""

    NEW = "new"
    """Nobody ever said anything of these files."""
    INTACT = "intact"
    """As the last process left them when it ended."""
    CRASHED = "crashed"
    """In use when the last process ended, or the machine."""
    CHANGED = "changed"
    """Closed well, and changed since: by another program, a copy, or a failing disk."""


class Seal:
    """A small file that holds the sizes and times of others from when they were closed; broken for as long as they are in use."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def found(self, sealed: Iterable[Path]) -> Found:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return Found.NEW
        if content == _OPEN:
            return Found.CRASHED
        return Found.INTACT if content == self._of(sealed) else Found.CHANGED

    def break_(self) -> None:
        """Before the first write. On return it survives a power cut."""
        files.write_durably(self._path, _OPEN)

    def set(self, sealed: Iterable[Path]) -> None:
        """After the last write."""
        files.write_durably(self._path, self._of(sealed))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def _of(self, sealed: Iterable[Path]) -> bytes:
        """By path below the seal's folder. A file that is gone, or new, makes another seal."""
        seen = {}
        for path in sealed:
            status = path.stat()
            seen[path.relative_to(self._path.parent).as_posix()] = (status.st_size, status.st_mtime_ns)
        return json.dumps(seen, sort_keys=True).encode() + b"\n"
