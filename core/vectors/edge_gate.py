"""What lets one other process copy shards that are in use: while it holds the gate, nothing is written to them.

The kernel opens the gate again when its holder ends, in whatever way.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from core.errors import ImageSearchError

_POLL_S = 0.02


class Held(ImageSearchError):
    """Another process copies the shards; the write is to be tried again soon."""


class WriteGate:
    """The writer's side. A lock taken and given back costs some microseconds."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = _gate(folder).open("ab")

    @contextmanager
    def writing(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Raises Held where it is not to be had within that time."""
        deadline = time.monotonic() + wait_s
        while not self._taken():
            if time.monotonic() >= deadline:
                raise Held("the vectors are being copied")
            time.sleep(_POLL_S)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._file.close()


@contextmanager
def copying(folder: Path) -> Iterator[None]:
    """Hold the gate, from the next moment in which nothing is written."""
    with _gate(folder).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _gate(folder: Path) -> Path:
    return folder / ".writes"
