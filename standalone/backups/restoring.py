"""Putting a backup back, while nothing runs: everything is checked and copied first, then exchanged by renames."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from core import files
from core.databases import RESTORING, KeptDatabase, RestoreBrokenOff
from core.errors import ImageSearchError
from core.filenames import from_text
from core.settings import FolderSettings
from searchsvc.feedback_schema import FeedbackFile, lock_path
from standalone.backups.manifest import MANIFEST, BackupUnusable, Manifest, checked
from standalone.backups.taking import FEEDBACK, LEDGER, PICTURES, SECRET, VECTORS
from watcher import database

if TYPE_CHECKING:
    from core.vectors.server_backup import ServerSnapshots

_BESIDE = ("", "-wal", "-shm", ".seal")
_STAGED, _BEFORE = "new", "before"


class StillRunning(ImageSearchError):
    """The product, or another restore, uses DATA_DIR."""


async def restore(settings: FolderSettings, source: Path, *, pictures: bool = False) -> tuple[Manifest, Path | None]:
    """Put the backup at `source` into DATA_DIR. Returns its manifest, and where what was there before lies now.

    Raises BackupUnusable, NewerRelease, NodesMissing and StillRunning before anything was touched; OSError, VectorsUnavailable. What
    then fails, or a crash breaks off, is gone on with by the next call: RestoreBrokenOff.
    """
    manifest = checked(source)
    _check_home(settings, manifest)
    _check_databases_home(settings, manifest)
    files.make_folder(settings.data_dir)
    with _alone(settings.data_dir):
        async with _snapshots(settings, manifest) as snapshots:
            if snapshots is not None:
                await snapshots.check(source / VECTORS, manifest.points)
            if pictures:
                _put_pictures(source / PICTURES, settings.images_dir, manifest)
            staging = _staged(source, settings.data_dir, manifest)
            try:
                if snapshots is not None:
                    await snapshots.put_back(source / VECTORS, manifest.points)
                before = _exchange(settings.data_dir, staging)
            except (ImageSearchError, OSError) as error:
                raise RestoreBrokenOff(f"the restore was broken off: {error}. Run it again, it goes on where it ended") from error
    return manifest, before


def _check_home(settings: FolderSettings, manifest: Manifest) -> None:
    home = "edge" if settings.qdrant_url is None else "server"
    if manifest.vectors not in {"none", home}:
        raise BackupUnusable(
            f"the backup's vectors are for {'Qdrant embedded' if home == 'server' else 'a Qdrant server'}: "
            f"{'unset' if home == 'server' else 'set'} QDRANT_URL"
        )


def _check_databases_home(settings: FolderSettings, manifest: Manifest) -> None:
    """What nobody would read is not to look restored."""
    if settings.database_url is not None and (manifest.images is not None or manifest.ratings is not None):
        raise BackupUnusable("the backup's ledger and ratings are for DATA_DIR: unset DATABASE_URL")


def _snapshots(settings: FolderSettings, manifest: Manifest) -> AbstractAsyncContextManager[ServerSnapshots | None]:
    """None where the vectors are files, or none are in the backup."""
    if manifest.vectors != "server" or settings.qdrant_url is None:
        return nullcontext()
    from core.vectors.server_backup import server_snapshots  # noqa: PLC0415 - 60 MB for those alone who have a server

    return server_snapshots(settings, settings.qdrant_url)


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Hold every lock that a running part would hold. Raises StillRunning."""
    with ExitStack() as stack:
        for path in (data_dir / f"{LEDGER}.lock", lock_path(data_dir / FEEDBACK), data_dir / VECTORS / ".lock"):
            if path.parent.is_dir():
                lock = stack.enter_context(path.open("ab"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise StillRunning(f"the product runs with {data_dir}: stop it first") from None
        yield


def _staged(source: Path, data_dir: Path, manifest: Manifest) -> Path:
    """Where the backup lies in DATA_DIR: a restore of it that was broken off has left it there. Of another one, what was begun is ended first."""
    staging = data_dir / RESTORING
    if (staging / _BEFORE).is_dir() and not _is_of(staging, source):
        _exchange(data_dir, staging)
    if not _is_of(staging, source):
        _stage(source, staging, manifest)
    return staging


def _is_of(staging: Path, source: Path) -> bool:
    try:
        return (staging / MANIFEST).read_bytes() == (source / MANIFEST).read_bytes()
    except FileNotFoundError:
        return False


def _stage(source: Path, staging: Path, manifest: Manifest) -> None:
    """Copy the backup into DATA_DIR, where a rename is enough to use it, and look whether this release can."""
    building = _discarded(staging)
    building.mkdir(mode=0o700)
    (building / _STAGED).mkdir()
    if manifest.vectors == "edge":
        (building / _STAGED / VECTORS).mkdir(mode=0o700)
    try:
        for name in manifest.files:
            if not name.startswith(f"{PICTURES}/") and not (manifest.vectors == "server" and name.startswith(f"{VECTORS}/")):
                copied = building / _STAGED / from_text(name)
                copied.parent.mkdir(parents=True, exist_ok=True)
                files.copy_sparse(source / from_text(name), copied)
        _check_databases(building / _STAGED)
        shutil.copyfile(source / MANIFEST, building / MANIFEST)
        files.sync_tree(building)
        building.rename(staging)
        files.sync([staging.parent])
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _check_databases(staged: Path) -> None:
    kept: list[KeptDatabase] = [database.kept(staged), FeedbackFile(staged / FEEDBACK).database]
    for one in kept:
        if one.path.exists() and (wound := one.wound()) is not None:
            raise BackupUnusable(f"the backup's {one.path.name}: {wound}")


def _exchange(data_dir: Path, staging: Path) -> Path | None:
    """What was there goes aside, what was staged takes its place. Each step may be repeated."""
    before = staging / _BEFORE
    before.mkdir(exist_ok=True)
    staged = staging / _STAGED
    names = [f"{name}{suffix}" for name in (LEDGER, FEEDBACK) for suffix in _BESIDE] + [SECRET, VECTORS]
    restored = {path.name for path in staged.iterdir()} | {path.name for path in (staging / "done").glob("*")}
    touched = [name for name in names if any(name.startswith(one) for one in restored)]
    for name in touched:
        if (data_dir / name).exists() and not (before / name).exists() and not (staging / "done" / name).exists():
            (data_dir / name).rename(before / name)
    files.sync([before, data_dir])
    (staging / "done").mkdir(exist_ok=True)
    for path in sorted(staged.iterdir()):
        (staging / "done" / path.name).touch()
        path.rename(data_dir / path.name)
    files.sync([staging, data_dir])
    return _concluded(data_dir, staging)


def _concluded(data_dir: Path, staging: Path) -> Path | None:
    """Keep what was there under a name of its own, and let the product start."""
    aside = data_dir / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    had_any = any((staging / _BEFORE).iterdir())
    if had_any:
        (staging / _BEFORE).rename(aside)
    files.sync([data_dir, staging])
    _discarded(staging)
    files.sync([data_dir])
    return aside if had_any else None


def _discarded(staging: Path) -> Path:
    """Remove it, all at once for whoever looks. Returns a name that is free now, for the next one while it is copied."""
    building = staging.with_name(f"{RESTORING}-copying")
    shutil.rmtree(building, ignore_errors=True)
    if staging.exists():
        staging.rename(building)
        shutil.rmtree(building, ignore_errors=True)
    return building


def _put_pictures(source: Path, images: Path, manifest: Manifest) -> None:
    """Those that are not there; a file that is, whatever it holds, stays."""
    for name in manifest.files:
        if name.startswith(f"{PICTURES}/"):
            path = images / from_text(name.removeprefix(f"{PICTURES}/"))
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = files.unfinished(path.with_name("restored"))  # short: the picture's own name may be as long as any
                files.copy_sparse(source / from_text(name.removeprefix(f"{PICTURES}/")), temporary)
                files.sync([temporary])
                temporary.rename(path)
