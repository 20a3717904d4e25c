"""Taking a backup, while everything runs or while it does not."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from core import files
from core.errors import ImageSearchError
from core.settings import FolderSettings
from searchsvc.feedback_schema import FEEDBACK_NAME
from searchsvc.secret import SECRET_NAME
from searchsvc.state import product_version
from standalone.backups.manifest import MANIFEST, Manifest, record_of
from watcher.database import LEDGER_NAME

LEDGER, FEEDBACK, SECRET, VECTORS, PICTURES = LEDGER_NAME, FEEDBACK_NAME, SECRET_NAME, "vectors", "pictures"
_LOCKS = f".*.{'[0-9a-f]' * 32}.lock"


class NothingToBackUp(ImageSearchError):
    """DATA_DIR holds none of what is backed up."""


async def take(settings: FolderSettings, target: Path, *, vectors: bool = True, pictures: bool = False) -> Manifest:
    """A backup at `target`, which must not exist: whole, or not there. Raises NothingToBackUp, VectorsUnavailable, OSError, sqlite3.Error.

    The ledger comes first and the vectors after it: a picture that is indexed in between is found in the vectors when the backup
    is used, and costs no model call; the other way round it would. With a DATABASE_URL both databases are left out: that is backed up
    by itself, before this.
    """
    if target.exists():
        raise FileExistsError(17, "there is something already", str(target))
    data = settings.data_dir
    in_files = settings.database_url is None
    if in_files and not any((data / name).exists() for name in (LEDGER, FEEDBACK, SECRET, VECTORS)):
        raise NothingToBackUp(f"there is nothing to back up in {data}: is DATA_DIR what it is when the product runs?")
    files.make_folder(target.parent)
    with _begun(target) as building:
        images = (
            _copied(data / LEDGER, building / LEDGER, "SELECT count(*) FROM images WHERE state = 'indexed'") if in_files else None
        )
        home, points = await _vectors(settings, building / VECTORS) if vectors else ("none", {})
        ratings = _copied(data / FEEDBACK, building / FEEDBACK, "SELECT count(*) FROM feedback") if in_files else None
        if (data / SECRET).exists():
            files.write_new(building / SECRET, (data / SECRET).read_bytes(), mode=0o600)
        manifest = Manifest.model_validate(
            {
                "product": product_version(),
                "made_at": datetime.now(UTC),
                "vectors": home,
                "images": images,
                "ratings": ratings,
                "points": points,
                "pictures": _pictures(settings.images_dir, building / PICTURES) if pictures else None,
                "files": record_of(building),
            }
        )
        files.write_durably(building / MANIFEST, manifest.model_dump_json(indent=2).encode())
        files.sync_tree(building)
        building.rename(target)
        files.sync([target.parent])
    return manifest


@contextmanager
def _begun(target: Path) -> Iterator[Path]:
    """A folder to build it in, which is no more afterwards. The lock beside it holds for as long as its process lives."""
    _sweep(target.parent)
    building = files.unfinished(target)
    lock = building.with_suffix(".lock")
    with lock.open("xb") as held:
        with suppress(OSError):  # where nothing can be locked, nothing is swept either
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            building.mkdir(mode=0o700)
            yield building
        finally:
            shutil.rmtree(building, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what backups that were killed left here."""
    for lock in folder.glob(_LOCKS):
        building = lock.with_suffix(".part")
        if building.is_dir():  # of a backup that has its lock: without the folder it may be about to take it
            with suppress(OSError), lock.open("r+b") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(building)
                lock.unlink()


def _copied(source: Path, target: Path, counting: str) -> int | None:
    """A SQLite file as it is at one moment, by its online backup: nobody waits for it. Returns what is counted; None where there is none."""
    if not source.exists():
        return None
    there = f"{source.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(there, uri=True, timeout=30)) as reading, closing(sqlite3.connect(target)) as written:
        reading.backup(written)
        written.execute("PRAGMA journal_mode = DELETE")  # one file, without a journal beside it
        (count,) = written.execute(counting).fetchone()
    return int(count)


async def _vectors(settings: FolderSettings, target: Path) -> tuple[str, dict[str, int]]:
    if settings.qdrant_url is None:
        from core.vectors.edge_backup import copy_collections  # noqa: PLC0415 - each home needs its own library

        return "edge", copy_collections(settings.data_dir / VECTORS, target)
    from core.vectors.server_backup import server_snapshots  # noqa: PLC0415 - as above

    async with server_snapshots(settings, settings.qdrant_url) as snapshots:
        return "server", await snapshots.fetch(target)


def _pictures(source: Path, target: Path) -> int:
    """Regular files, hidden ones left out; links are not followed. What is removed meanwhile is left out as well."""
    count = 0
    target.mkdir(mode=0o700)
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink() and not any(part.startswith(".") for part in path.relative_to(source).parts):
            copied = target / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            try:
                files.copy_sparse(path, copied)
            except (FileNotFoundError, NotADirectoryError):
                copied.unlink(missing_ok=True)
            else:
                count += 1
    return count
