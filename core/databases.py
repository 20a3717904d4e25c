"""SQLite files over their life: looked at before anything is written, brought to today's schema, sealed when they are closed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal

from core import damage, files
from core.errors import ImageSearchError
from core.schemas import StatePart
from core.seals import Found, Seal
from core.sql.connection import SqliteConnection

_BROKEN = {11, 26}
"""SQLITE_CORRUPT and SQLITE_NOTADB. What else may go wrong (no permission, no room, a lock) is nothing that a new file would cure."""

RESTORING = ".restoring"
"""In DATA_DIR while a backup is put back."""

MOVING = ".moving"
"""In DATA_DIR while what was moved there counts in one file and not yet in the other."""

Rescue = Callable[[Path, sqlite3.Connection], str]
"""Bring what can be read in this folder into a new database. Returns, for people, what came of it. May be called again after a crash."""


class NewerRelease(ImageSearchError):
    """A later release wrote this file; it was left as it is."""


class RestoreBrokenOff(ImageSearchError):
    """Half of what lies there is from a backup; nobody may start on it."""


class MoveBrokenOff(ImageSearchError):
    """One file there was moved, and the other was not; nobody may start on it."""


def check_restored(data_dir: Path) -> None:
    """Raises RestoreBrokenOff. What would start there makes files where those of the backup are to be put."""
    if (data_dir / RESTORING).exists():
        raise RestoreBrokenOff("a restore of DATA_DIR was broken off: run it again (make restore), it goes on where it ended")


class KeptDatabase:
    """One SQLite file in WAL mode. Whoever opens it holds its lock; blocking, for the thread that owns the connection.

    Step n of `steps` leads from schema n to n + 1, counted by `PRAGMA user_version`; one that was released is never changed.
    """

    def __init__(self, path: Path, steps: Sequence[str], *, part: StatePart, synchronous: Literal["NORMAL", "FULL"]) -> None:
        """`synchronous`: NORMAL survives `kill -9`; with FULL what was committed survives a power cut as well."""
        self.path = path
        self._steps = steps
        self._part = part
        self._synchronous = synchronous
        self._seal = Seal(path.with_name(f"{path.name}.seal"))

    def open(self, rescue: Rescue, *, keep: int) -> SqliteConnection:
        """Repaired where it is damaged: set aside, made anew, and told. Raises NewerRelease, RestoreBrokenOff, MoveBrokenOff, sqlite3.Error."""
        files.make_folder(self.path.parent)
        check_restored(self.path.parent)
        if (self.path.parent / MOVING).exists():
            raise MoveBrokenOff("a move into DATA_DIR was broken off: run it again (make move-state)")
        wound, aside = self.wound(), damage.begun(self.path)
        if wound is not None:
            aside = [*aside, self._set_aside()]
        self._seal.break_()
        connection = self.connect()
        try:
            for folder in dict.fromkeys(aside):
                outcome = rescue(folder, connection)
                damage.conclude(folder, self._part, f"{wound or 'its repair was broken off'}: {outcome}", keep=keep)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self, connection: sqlite3.Connection, *, alone: bool = True) -> None:
        """`alone`: nobody else has the file open, so that the next start need not look at it."""
        connection.close()
        if alone:
            self._seal.set(self.files())

    def files(self) -> list[Path]:
        """Those that there are: after a clean end, the database alone."""
        journal, index = (self.path.with_name(self.path.name + suffix) for suffix in ("-wal", "-shm"))
        return [path for path in (journal, index, self.path) if path.exists()]

    def wound(self) -> str | None:
        """What is wrong with the file; None if nothing is. Raises NewerRelease.

        After a clean end a `stat` tells. After a crash, or a change by somebody else, every page is read: 0.5 s for 100,000 images.
        """
        found, there = self._seal.found(self.files()), self.files()
        if self.path not in there:
            return None if found is Found.NEW and not there else "the file is gone"
        if self.path.stat().st_size == 0:
            return "the file is empty"
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as reading:
                version = _known(reading, self._steps, self.path.name)
                return None if found is Found.INTACT else self._read_through(reading, version)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _BROKEN:
                return "the file is damaged"
            raise

    def _read_through(self, reading: sqlite3.Connection, version: int) -> str | None:
        (said,) = reading.execute("PRAGMA integrity_check(1)").fetchone()
        if said != "ok":
            return "the file is damaged"
        return None if _tables(reading) == self._tables_of(version) else "the file is not what it should be"

    def _tables_of(self, version: int) -> set[str]:
        with closing(sqlite3.connect(":memory:")) as model:
            for step in self._steps[:version]:
                model.executescript(step)
            return _tables(model)

    def _set_aside(self) -> Path:
        """Into the folder that an earlier process began to set it aside into, if it holds none of the files yet."""
        there = self.files()
        for folder in reversed(damage.begun(self.path)):
            if not any((folder / path.name).exists() for path in there):
                damage.move_into(folder, there)
                return folder
        return damage.set_aside(self.path, there)

    def connect(self) -> SqliteConnection:
        """Today's schema. A new file is made aside, so that one without its tables is never found. Raises NewerRelease."""
        if not self.path.exists():
            self._make()
        connection = self._connected(self.path)
        try:
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            migrate(connection, self._steps, name=self.path.name)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make(self) -> None:
        files.sweep(self.path)
        new = files.unfinished(self.path)
        with closing(self._connected(new)) as connection:
            migrate(connection, self._steps, name=self.path.name)
        files.sync([new])
        new.rename(self.path)
        files.sync([self.path.parent])

    def _connected(self, path: Path) -> SqliteConnection:
        connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False, factory=SqliteConnection)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection


def migrate(connection: sqlite3.Connection, steps: Sequence[str], *, name: str) -> None:
    """Each step is one transaction with its number: a kill leaves the schema before it, or the one after. Raises NewerRelease."""
    version = _known(connection, steps, name)
    for number, step in enumerate(steps[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")


def _known(connection: sqlite3.Connection, steps: Sequence[str], name: str) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(steps):
        raise NewerRelease(f"{name} was written by a newer release (schema {version}, this one knows {len(steps)})")
    return version


def _tables(connection: sqlite3.Connection) -> set[str]:
    """Tables and indexes by name, without SQLite's own."""
    names = connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
    return {name for (name,) in names}
