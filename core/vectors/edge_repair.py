"""A damaged shard: found before this process loads it, set aside, and what is whole of it taken over into a new one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import structlog
from pydantic import ValidationError

from core import damage
from core.schemas import StatePart
from core.seals import Found
from core.vectors.edge_audit import Outcome
from core.vectors.storage import VectorStorage

log = structlog.get_logger()

_KEPT_DAMAGED = 1
_LEAST_TIME_S = 120.0
_SLOWEST_BYTES_PER_S = 2e6
_DEATHS = {"SIGABRT": -6, "SIGBUS": -7, "SIGFPE": -8, "SIGILL": -4, "SIGSEGV": -11}
"""What the engine dies of by itself. Any other end is somebody else's doing, and says nothing of the files."""


def wrong_with(path: Path, found: Found) -> str | None:
    """What is wrong with a shard, as far as it was not closed well and left alone since; None if nothing is. Blocking.

    100,000 points take about 5 s after a crash, and 8 s after a change.
    """
    if found is Found.INTACT:
        return None
    outcome = _asked("thorough" if found is Found.CHANGED else "check", path)
    if outcome is None:
        log.warning("vectors_unchecked", name=path.name)
        return None
    log.info("vectors_checked", name=path.name, found=found.value, points=outcome.points, wrong=outcome.wrong)
    return outcome.wrong


def set_aside(path: Path, collection: str) -> Path:
    """Move a damaged shard out of the way. Returns the folder that it lies in now."""
    return damage.set_aside(path.with_name(collection), [path])


def audited(path: Path) -> Outcome:
    """What a shard that nobody has open holds."""
    return _asked("check", path) or Outcome(wrong="it could not be looked at")


def begun(folder: Path) -> list[tuple[Path, str]]:
    """Repairs that a crash broke off, as folder and collection."""
    return [(aside, damage.name_of(aside)) for aside in damage.begun(folder / "*")]


def rescued(aside: Path, target: Path, storage: VectorStorage) -> int:
    """Write what can be read into a new shard at `target`. Returns how many points that is; none, and there is no shard."""
    shutil.rmtree(target, ignore_errors=True)
    found = [
        _asked("rescue", path, str(target), storage.quantization, str(storage.on_disk))
        for path in aside.iterdir()
        if path.is_dir()
    ]
    return sum(outcome.points for outcome in found if outcome is not None)


def conclude(aside: Path, wrong: str, points: int) -> None:
    detail = f"{damage.name_of(aside)}: {wrong}; {points} of its points were taken over, what is missing is analysed again"
    damage.conclude(aside, StatePart.VECTORS, detail, keep=_KEPT_DAMAGED)


def clear_away(path: Path) -> None:
    """What lies where a collection is to be made, and is none: its files are gone but for a few."""
    aside = damage.set_aside(path, [path])
    detail = f"{path.name}: most of its files were gone; it is made anew and everything is analysed again"
    damage.conclude(aside, StatePart.VECTORS, detail, keep=_KEPT_DAMAGED)


def _asked(mode: str, path: Path, *more: str) -> Outcome | None:
    """The answer of a process of its own; None where it was ended by others. In a group of its own, so that Ctrl-C does not end it."""
    patience_s = _LEAST_TIME_S + sum(one.stat().st_blocks * 512 for one in path.rglob("*")) / _SLOWEST_BYTES_PER_S
    command = [sys.executable, "-m", "core.vectors.edge_audit", mode, str(path), str(os.getpid()), *more]
    try:
        ended = subprocess.run(  # noqa: S603 - ours
            command, capture_output=True, text=True, errors="replace", timeout=patience_s, check=False, process_group=0
        )
    except subprocess.TimeoutExpired:
        return Outcome(wrong="it cannot be read in any useful time")
    if ended.returncode in _DEATHS.values():
        return Outcome(wrong="the engine crashes on it")
    try:
        return Outcome.model_validate_json(ended.stdout)
    except ValidationError:
        log.warning("vectors_audit_failed", name=path.name, code=ended.returncode, said=ended.stderr[-500:])
        return Outcome(wrong="it cannot be read") if ended.returncode == 1 else None
