"""Ledger and ratings in SQLite in DATA_DIR, as one end of a move."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from core import files
from core.databases import MOVING, KeptDatabase, check_restored
from core.schemas import StatePart
from searchsvc.feedback_schema import FEEDBACK_NAME, FeedbackFile, lock_path
from standalone.moves.state.tables import TABLES, CannotMoveState, Row, Table
from watcher import database


class FilesHome:
    """Two files, and so two commits: between them DATA_DIR is marked, and nothing starts on it."""

    def __init__(self, data_dir: Path, opened: dict[StatePart, sqlite3.Connection]) -> None:
        self.name = f"SQLite in {data_dir}"
        self.is_half = (data_dir / MOVING).exists()
        self._data_dir = data_dir
        self._opened = opened

    @property
    def parts(self) -> frozenset[StatePart]:
        return frozenset(self._opened)

    def columns(self, table: Table) -> list[str]:
        return [str(row[1]) for row in self._opened[table.part].execute(f"PRAGMA table_info({table.name})")]

    def count(self, table: Table) -> int:
        (count,) = self._opened[table.part].execute(f"SELECT count(*) FROM {table.name}").fetchone()  # noqa: S608 - our own words
        return int(count)

    def rows(self, table: Table, columns: Sequence[str]) -> Iterator[Row]:
        reading = f"SELECT {', '.join(columns)} FROM {table.name} ORDER BY {table.key}"  # noqa: S608 - our own words
        return iter(self._opened[table.part].execute(reading))

    def clear(self, parts: frozenset[StatePart]) -> None:
        for table in reversed(TABLES):
            if table.part in parts:
                self._opened[table.part].execute(f"DELETE FROM {table.name}")  # noqa: S608 - our own words

    def write(self, table: Table, columns: Sequence[str], rows: Iterable[Row]) -> None:
        marks = ", ".join("?" * len(columns))
        writing = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 - our own words
        self._opened[table.part].executemany(writing, rows)

    def last_number(self) -> int:
        connection = self._opened[StatePart.FEEDBACK]
        (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'feedback'").fetchone()
        return int(last)

    def number_after(self, last: int) -> None:
        connection = self._opened[StatePart.FEEDBACK]
        last = max(last, self.last_number())
        connection.execute("DELETE FROM sqlite_sequence WHERE name = 'feedback'")
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('feedback', ?)", (last,))

    def check_alone(self) -> None:
        """Whoever came waits for the locks, or has given up."""

    def commit(self) -> None:
        if len(self._opened) > 1:
            files.write_durably(self._data_dir / MOVING, b"")
        for connection in self._opened.values():
            connection.execute("COMMIT")
        (self._data_dir / MOVING).unlink(missing_ok=True)
        files.sync([self._data_dir])


@contextmanager
def files_to_leave(data_dir: Path) -> Iterator[FilesHome]:
    """Raises CannotMoveState, LedgerInUse, NewerRelease, RestoreBrokenOff, OSError."""
    there = {part: kept for part, kept in _kept(data_dir).items() if kept.path.exists()}
    if not there:
        raise CannotMoveState(f"there is no state in {data_dir}: is DATA_DIR what it is when the product runs?")
    if (data_dir / MOVING).exists():
        raise CannotMoveState(f"what is in {data_dir} came from a move that was broken off: do that one again first")
    with _opened(data_dir, there, "BEGIN") as opened:
        yield FilesHome(data_dir, opened)


@contextmanager
def files_to_fill(data_dir: Path, parts: frozenset[StatePart]) -> Iterator[FilesHome]:
    """Raises as `files_to_leave`. Without a commit nothing is changed."""
    files.make_folder(data_dir)
    with _opened(data_dir, {part: kept for part, kept in _kept(data_dir).items() if part in parts}, "BEGIN IMMEDIATE") as opened:
        yield FilesHome(data_dir, opened)


def _kept(data_dir: Path) -> dict[StatePart, KeptDatabase]:
    """Ratings first: a ledger could be made again."""
    return {StatePart.FEEDBACK: FeedbackFile(data_dir / FEEDBACK_NAME).database, StatePart.LEDGER: database.kept(data_dir)}


@contextmanager
def _opened(data_dir: Path, kept: dict[StatePart, KeptDatabase], beginning: str) -> Iterator[dict[StatePart, sqlite3.Connection]]:
    check_restored(data_dir)
    with ExitStack() as stack:
        stack.enter_context(database.lock(data_dir))
        _lock_ratings(stack, data_dir)
        opened: dict[StatePart, sqlite3.Connection] = {}
        for part, one in kept.items():
            if (wound := one.wound()) is not None:
                raise CannotMoveState(f"{one.path.name}: {wound}. Start the product once, which repairs what can be repaired")
            opened[part] = connection = one.connect()
            stack.callback(one.close, connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(beginning)
        yield opened


def _lock_ratings(stack: ExitStack, data_dir: Path) -> None:
    lock = stack.enter_context(lock_path(data_dir / FEEDBACK_NAME).open("ab"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotMoveState(f"a search service works with the ratings in {data_dir}: stop the product first") from None
