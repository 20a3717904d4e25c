"""A file is replaced, renamed, truncated or deleted between any two steps of its way to *indexed*: what is there in the end is found."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from tests.faults.rig import Rig, some_picture

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_STEPS = (
    "file_seen",
    "file_hashed",
    "image_unadmitted",
    "image_admitted",
    "image_claimed",
    "file_read",
    "picture_unsent",
    "picture_received",
    "picture_embedded",
    "picture_analysed",
    "points_unwritten",
    "points_written",
    "image_unfinished",
    "image_finished",
)


def _replaced(file: Path, rng: random.Random) -> None:
    file.write_bytes(some_picture(rng))


def _replaced_by_a_rename(file: Path, rng: random.Random) -> None:
    other = file.with_name(f".{file.name}")
    other.write_bytes(some_picture(rng))
    other.replace(file)


def _renamed(file: Path, rng: random.Random) -> None:
    file.rename(file.with_name(f"renamed {file.name}"))


def _moved(file: Path, rng: random.Random) -> None:
    target = file.parent / f"folder {rng.randrange(3)}"
    target.mkdir(exist_ok=True)
    file.rename(target / file.name)


def _truncated(file: Path, rng: random.Random) -> None:
    """As programs do. `truncate(2)`, which opens nothing and so closes nothing, is left to the next comparison."""
    with file.open("r+b") as opened:
        opened.truncate(rng.choice((0, 1, file.stat().st_size // 2)))


def _deleted(file: Path, rng: random.Random) -> None:
    file.unlink()


def _copied_and_deleted(file: Path, rng: random.Random) -> None:
    file.with_name(f"copy {file.name}").write_bytes(file.read_bytes())
    file.unlink()


Change = Callable[[Path, random.Random], None]
_CHANGES: tuple[Change, ...] = (
    _replaced,
    _replaced_by_a_rename,
    _renamed,
    _moved,
    _truncated,
    _deleted,
    _copied_and_deleted,
)


def test_a_file_that_changes_between_two_steps_is_what_it_is_in_the_end(rig: Rig, rng: random.Random) -> None:
    _change_between_steps(rig, rng, [(step, rng.choice(_CHANGES)) for step in rng.sample(_STEPS, 7)])


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_each_change_between_any_two_steps(rig: Rig, rng: random.Random) -> None:
    _change_between_steps(rig, rng, list(product(_STEPS, _CHANGES)) * 3)


def _change_between_steps(rig: Rig, rng: random.Random, cases: list[tuple[str, Change]]) -> None:
    rig.environment["RECONCILE_INTERVAL_S"] = "3600"  # nothing may depend on it
    rig.start_and_wait()
    for number, (step, change) in enumerate(cases):
        print(f"{change.__name__} at {step}")
        rig.arm(step, "hold")
        rig.add(f"{number}.jpg", some_picture(rng))
        rig.wait_held(step)
        change(rig.images / f"{number}.jpg", rng)
        rig.disarm(step)
        rig.rest()
        if number % 7 == 6:
            rig.agree(failed=_cut_short(rig.images))


def _cut_short(images: Path) -> frozenset[str]:
    """The image ids of what a truncation left."""
    contents = [file.read_bytes() for file in images.rglob("*.jpg")]
    return frozenset(hashlib.sha256(content).hexdigest() for content in contents if not content.endswith(b"\xff\xd9"))
