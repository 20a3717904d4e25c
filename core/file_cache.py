"""Small files that can be made again, kept on the disk within a bound: the least lately used go first."""

from __future__ import annotations

import os
import stat
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from core import files

log = structlog.get_logger()

_KEPT_SHARE = 0.9
"""Of the bound, after a clearing: the next one is not due at once."""
_COUNTED_AFTER = 1 / 16
"""Of the bound, written since the files were counted last: they are counted anew, since other processes may write here as well."""
_TOUCH_AFTER_S = 3600.0
"""A file's time of change says when it was used last, to the hour: a read in between costs no write."""


class FileCache:
    """Blocking, for worker threads; several may use it at once, and several processes, which together may exceed the bound by a
    sixteenth each. What cannot be kept is not kept, and the log says so."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held_bytes: int | None = None
        """Counted at the first write, since an old folder may hold a million files."""
        self._written_bytes = 0

    def get(self, name: str) -> bytes | None:
        """The file's bytes, or None. It counts as used."""
        file = self.open(name)
        if file is None:
            return None
        with file, suppress(OSError):
            return file.read()
        return None

    def open(self, name: str) -> BinaryIO | None:
        """The file, or None. It counts as used, and stays whole for who has it open."""
        path = self._path(name)
        try:
            file = path.open("rb")
            if time.time() - os.fstat(file.fileno()).st_mtime > _TOUCH_AFTER_S:
                with suppress(OSError):
                    os.utime(path)
        except OSError:
            return None
        return file

    def keep(self, name: str, content: bytes) -> None:
        """Complete or not at all, but for a power cut: who reads it looks whether it is whole."""
        file = self.keep_open(name, content)
        if file is not None:
            file.close()

    def keep_open(self, name: str, content: bytes) -> BinaryIO | None:
        """As `keep`; the file, open at its beginning, which nobody who clears the folder can take away any more. None where it is not kept."""
        path = self._path(name)
        temporary = files.unfinished(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, ExitStack() as undone:
                self._make_room(len(content))
                file = undone.enter_context(temporary.open("w+b"))
                file.write(content)
                file.seek(0)  # where a full disk is noticed, and to close the file notices it once more
                temporary.replace(path)
                undone.pop_all()
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            log.warning("file_unkept", folder=self._folder.name, errno=error.errno)
            return None
        return file

    def forget(self, name: str) -> None:
        """Its bytes stay counted until the next clearing, which counts anew."""
        with suppress(OSError):
            self._path(name).unlink()

    def names(self, prefix: str) -> list[str]:
        """Of all files whose name begins with these two letters."""
        with suppress(OSError):
            return [path.name for path in (self._folder / prefix).iterdir() if path.name.startswith(prefix)]
        return []

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _make_room(self, needed: int) -> None:
        if self._held_bytes is None or self._written_bytes > self._max_bytes * _COUNTED_AFTER:
            self._held_bytes = sum(size for _, size, _ in self._files())
            self._written_bytes = 0
        self._held_bytes += needed
        self._written_bytes += needed
        if self._held_bytes > self._max_bytes:
            self._held_bytes = self._clear(needed)

    def _clear(self, needed: int) -> int:
        """Remove what was used least lately. Returns the bytes that are left, with those that are needed."""
        files = sorted(self._files())
        held, removed = needed + sum(size for _, size, _ in files), 0
        for _, size, path in files:
            if held <= self._max_bytes * _KEPT_SHARE:
                break
            with suppress(OSError):
                path.unlink()
                held, removed = held - size, removed + 1
        log.info("file_cache_cleared", folder=self._folder.name, removed=removed, bytes_kept=held)
        return held

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was used last, its size, its path. What a killed process left half-written is among them."""
        found = []
        for path in self._folder.rglob("*"):
            with suppress(OSError):
                seen = path.stat()
                if stat.S_ISREG(seen.st_mode):
                    found.append((seen.st_mtime, seen.st_size, path))
        return found
