"""Ways to damage a file at rest, as crashes, disks and people do."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

Harm = Callable[[Path, random.Random], None]


def emptied(path: Path, _: random.Random) -> None:
    os.truncate(path, 0)


def halved(path: Path, _: random.Random) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garbage_at_the_head(path: Path, rng: random.Random) -> None:
    _overwrite(path, 0, rng.randbytes(200))


def garbage_in_the_middle(path: Path, rng: random.Random) -> None:
    _overwrite(path, path.stat().st_size // 2, rng.randbytes(5000))


def garbage_at_the_tail(path: Path, rng: random.Random) -> None:
    _overwrite(path, max(0, path.stat().st_size - 3000), rng.randbytes(3000))


def garbage_all_over(path: Path, rng: random.Random) -> None:
    for _ in range(16):
        _overwrite(path, rng.randrange(max(1, min(path.stat().st_size, 2**16))), rng.randbytes(16))


def zeroed_header(path: Path, _: random.Random) -> None:
    _overwrite(path, 0, bytes(4096))


def deleted(path: Path, _: random.Random) -> None:
    path.unlink()


HARMS: dict[str, Harm] = {
    harm.__name__: harm
    for harm in (
        emptied,
        halved,
        garbage_at_the_head,
        garbage_in_the_middle,
        garbage_at_the_tail,
        garbage_all_over,
        zeroed_header,
        deleted,
    )
}


def _overwrite(path: Path, at: int, content: bytes) -> None:
    """Within the file as it is: what is longer is cut off."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(min(at, size))
        file.write(content[: max(0, size - at)])
