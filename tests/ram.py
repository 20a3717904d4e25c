"""Folders for tests that write much and sync often."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (a private folder is made in it)
_ENOUGH_BYTES = 2**30


@contextmanager
def ram_folder() -> Iterator[Path]:
    """A new folder in memory where there is room for it, else on the disk: an `fsync` there costs nothing. Removed at the end."""
    roomy = _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > _ENOUGH_BYTES
    with tempfile.TemporaryDirectory(prefix="imagesearch-test-", dir=_SHARED_MEMORY if roomy else None) as folder:
        yield Path(folder)
