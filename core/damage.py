"""Damaged files: set aside, never deleted at once, and told of until somebody removes them.

What is set aside lies beside its old place in a folder `<name>.damaged-<time>`. A note in it (`why.json`) ends the repair: a folder
without one was left by a crash in the middle, and the repair is gone through again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog
from pydantic import ValidationError

from core import files
from core.schemas import Repair, StatePart

log = structlog.get_logger()

_MARK = ".damaged-"
_NOTE = "why.json"
_LONGEST_NOTE_BYTES = 2**16


def set_aside(name: Path, found: Iterable[Path]) -> Path:
    """Move what there is of `found` into a new folder beside `name`. Returns the folder. Raises OSError."""
    folder = name.with_name(f"{name.name}{_MARK}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    folder.mkdir(mode=0o700)
    move_into(folder, found)
    return folder


def move_into(folder: Path, found: Iterable[Path]) -> None:
    for path in found:
        if path.exists():
            path.rename(folder / path.name)
    files.sync([folder, folder.parent])


def name_of(folder: Path) -> str:
    """Whose damage such a folder holds."""
    return folder.name.rpartition(_MARK)[0]


def begun(name: Path) -> list[Path]:
    """Folders of repairs of `name` that were not concluded, oldest first."""
    return [folder for folder in _folders(name) if not (folder / _NOTE).is_file()]


def conclude(folder: Path, part: StatePart, detail: str, *, keep: int) -> None:
    """Note and tell it, and forget all but the `keep` newest of this name. `detail` is for people, and holds no path outside DATA_DIR."""
    repair = Repair(part=part, found_at=datetime.now(UTC), detail=detail, kept_as=folder.name)
    files.write_durably(folder / _NOTE, repair.model_dump_json().encode())
    log.error("state_repaired", part=part.value, detail=detail, kept_as=folder.name)
    for old in _folders(folder.with_name(name_of(folder)))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
        log.info("damaged_files_removed", name=old.name)


def repairs(*homes: Path) -> tuple[Repair, ...]:
    """What was repaired in these folders and is still kept, oldest first. Blocks on the disk."""
    notes = [note for home in homes for note in home.glob(f"*{_MARK}*/{_NOTE}")]
    return tuple(sorted(_read(notes), key=lambda repair: repair.found_at))


def _read(notes: Sequence[Path]) -> Iterable[Repair]:
    for note in notes:
        try:
            with note.open("rb") as file:
                yield Repair.model_validate_json(file.read(_LONGEST_NOTE_BYTES))
        except (OSError, ValidationError):
            log.warning("repair_note_unreadable", kept_as=note.parent.name)


def _folders(name: Path) -> list[Path]:
    return sorted(path for path in name.parent.glob(f"{_escaped(name.name)}{_MARK}*") if path.is_dir())


def _escaped(name: str) -> str:
    return name.replace("[", "[[]")
