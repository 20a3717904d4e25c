"""Small disks: a tmpfs that can be filled to the last byte, emptied, and made read-only. Skips where the system allows no mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_CHUNK = 4096


class Disk:
    """A mounted tmpfs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._filler = place / ".filler"

    def fill(self) -> None:
        """To the last page, as if something else had taken the rest."""
        with self._filler.open("ab", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(b"x" * 2**20)
        with self._filler.open("ab", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(b"x" * _CHUNK)

    def empty(self) -> None:
        self._filler.unlink()

    def set_read_only(self, read_only: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if read_only else 'rw'}", self.place], check=True)

    def unmount(self) -> None:
        """At once, whoever still has files open on it."""
        subprocess.run(["umount", "--lazy", self.place], check=True)

    def mount(self, megabytes: int) -> None:
        self.place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", self.place], check=True)


@contextmanager
def small_disk(place: Path, *, megabytes: int) -> Iterator[Disk]:
    """Mounted at `place` for as long as the context lasts."""
    disk = Disk(place)
    try:
        disk.mount(megabytes)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"this system lets user {os.getuid()} mount no tmpfs")
    try:
        yield disk
    finally:
        if place.is_mount():
            disk.unmount()
