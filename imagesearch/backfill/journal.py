"""What a backfill has done, in one SQLite file: where the source goes on, the rows that have not ended, those that were parked, and counts.

What ended well is counted and forgotten, so the file stays small. Each step is one transaction: a kill at any instant leaves it before or
after. A statement takes some 50 microseconds, a batch some milliseconds: the one loop of the command waits for them.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from imagesearch.backfill.rows import Batch, Kind, Row

_SCHEMA = """
CREATE TABLE source (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    identity TEXT NOT NULL,
    cursor   BLOB NOT NULL,
    ended    INTEGER NOT NULL DEFAULT 0,
    spent_s  REAL NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE rows (
    number   INTEGER PRIMARY KEY,
    state    TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'lying', 'parked')),
    kind     TEXT NOT NULL,
    place    TEXT NOT NULL,
    folder   TEXT NOT NULL,
    name     TEXT NOT NULL,
    sha256   TEXT,
    image_id TEXT,
    reason   TEXT,
    detail   TEXT,
    since    REAL NOT NULL          -- when it came into this state; Unix seconds
) STRICT;
CREATE INDEX rows_by_state ON rows (state, number);
CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE states (state TEXT PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
INSERT INTO states (state) VALUES ('waiting'), ('sent'), ('lying'), ('parked');
CREATE TRIGGER row_came AFTER INSERT ON rows BEGIN UPDATE states SET n = n + 1 WHERE state = NEW.state; END;
CREATE TRIGGER row_went AFTER DELETE ON rows BEGIN UPDATE states SET n = n - 1 WHERE state = OLD.state; END;
CREATE TRIGGER row_turned AFTER UPDATE OF state ON rows BEGIN
    UPDATE states SET n = n + (state = NEW.state) - (state = OLD.state); END;
PRAGMA user_version = 1;
"""
_PAGE = 1000


class UnusableJournal(Exception):
    """Another backfill has the journal open, it is that of another source, it is damaged, or its disk is full; the message says which."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A row that is not brought yet."""

    number: int
    row: Row


@dataclass(frozen=True, slots=True)
class Followed:
    """A row whose image has not ended; `key` is its image id, or the path where it lies."""

    number: int
    key: str
    since: float


@dataclass(frozen=True, slots=True)
class Parked:
    """A row that was given up."""

    number: int
    place: str
    reason: str
    detail: str


class Journal:
    """A context manager. One process has it at a time; the system gives it back when that one dies. Raises UnusableJournal."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._identity = identity.encode(errors="backslashreplace").decode()  # a folder's name may be no UTF-8
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._sql = sqlite3.connect(path, timeout=0.5, isolation_level=None)
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        self._begun_at = time.monotonic()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException as error:
            self._sql.close()
            if isinstance(error, sqlite3.Error):
                raise self._unusable(error) from None
            raise
        return self

    def _unusable(self, error: sqlite3.Error) -> UnusableJournal:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF in {
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        }:
            return UnusableJournal(f"another backfill is under way with {self.path}")
        return UnusableJournal(f"{self.path}: {error}")

    def _open(self) -> None:
        self._sql.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._sql.execute("PRAGMA journal_mode = WAL")
        self._sql.execute("PRAGMA synchronous = NORMAL")
        self._sql.execute("BEGIN IMMEDIATE")
        if self._sql.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _SCHEMA.split(";\n"):
                self._sql.execute(statement)
        self._sql.execute(
            "INSERT INTO source (only_one, identity, cursor) VALUES (1, ?, x'') ON CONFLICT DO NOTHING", (self._identity,)
        )
        (known,) = self._sql.execute("SELECT identity FROM source").fetchone()
        self._sql.execute("COMMIT")
        if known != self._identity:
            raise UnusableJournal(f"{self.path} is of {known}; begin anew with another --state")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(sqlite3.Error):  # how long it took may be lost
            self._sql.execute("UPDATE source SET spent_s = spent_s + ?", (time.monotonic() - self._begun_at,))
        self._sql.close()
        if isinstance(error, sqlite3.Error):
            raise self._unusable(error) from error

    # --- the source

    @property
    def cursor(self) -> str:
        (cursor,) = self._sql.execute("SELECT cursor FROM source").fetchone()
        return bytes(cursor).decode("utf-8", "surrogateescape")

    @property
    def has_read_all(self) -> bool:
        return bool(self._sql.execute("SELECT ended FROM source").fetchone()[0])

    def note_end(self) -> None:
        """The source has no more rows."""
        self._sql.execute("UPDATE source SET ended = 1")

    def take_in(self, batch: Batch) -> list[Pending]:
        """Remember these rows, and that the source goes on behind them. Returns those to bring."""
        now, first = time.time(), self.count("rows") + 1
        numbered = list(enumerate(batch.rows, first))
        with self._transaction():
            self._sql.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?)",
                [_stored(number, row, now) for number, row in numbered],
            )
            self._sql.execute("UPDATE source SET cursor = ?", (batch.cursor.encode("utf-8", "surrogateescape"),))
            self._add(Counter(rows=len(numbered)))
        return [Pending(number, row) for number, row in numbered if row.kind not in {Kind.NONE, Kind.LYING}]

    def waiting(self, after: int) -> list[Pending]:
        """Rows to bring that an earlier run left, a page of them beyond this number."""
        found = self._sql.execute(
            "SELECT number, kind, place, folder, name, sha256 FROM rows WHERE state = 'waiting' AND number > ? ORDER BY number LIMIT ?",
            (after, _PAGE),
        )
        return [
            Pending(number, Row(Kind(kind), place, folder, name, sha256)) for number, kind, place, folder, name, sha256 in found
        ]

    # --- rows

    def note_sent(self, number: int, image_id: str, how: str) -> None:
        """The service has it; `how` it came to have it is counted."""
        with self._transaction():
            changed = self._sql.execute(
                "UPDATE rows SET state = 'sent', image_id = ?, since = ? WHERE number = ? AND state = 'waiting'",
                (image_id, time.time(), number),
            )
            self._add(Counter({how: changed.rowcount}))

    def park(self, failures: Sequence[tuple[int, str, str]]) -> None:
        """Give rows up: their numbers, reasons and details."""
        if not failures:
            return
        with self._transaction():
            self._sql.executemany(
                "UPDATE rows SET state = 'parked', reason = ?, detail = ? WHERE number = ? AND state <> 'parked'",
                [(reason, detail, number) for number, reason, detail in failures],
            )

    def note_indexed(self, numbers: Sequence[int], *, how: str | None = None) -> None:
        """`how` they came to be so is counted as well."""
        if not numbers:
            return
        with self._transaction():
            gone = self._sql.executemany(
                "DELETE FROM rows WHERE number = ? AND state <> 'parked'", [(number,) for number in numbers]
            )
            self._add(Counter({"indexed": gone.rowcount, **({how: gone.rowcount} if how else {})}))

    def unpark(self) -> int:
        """What was given up is tried again, but for rows that name nothing. Returns how many."""
        with self._transaction():
            changed = self._sql.execute(
                "UPDATE rows SET state = CASE kind WHEN 'lying' THEN 'lying' ELSE 'waiting' END, reason = NULL, detail = NULL,"
                " image_id = NULL, since = ? WHERE state = 'parked' AND kind <> 'none'",
                (time.time(),),
            )
        return changed.rowcount

    def followed(self, state: str, after: int) -> list[Followed]:
        """A page of rows in state `sent` or `lying`, beyond this number."""
        key = "image_id" if state == "sent" else "place"
        found = self._sql.execute(
            f"SELECT number, {key}, since FROM rows WHERE state = ? AND number > ? ORDER BY number LIMIT ?",  # noqa: S608 - ours
            (state, after, _PAGE),
        )
        return [Followed(*row) for row in found]

    def touch(self, state: str) -> None:
        """Time in which nobody asked does not count."""
        self._sql.execute("UPDATE rows SET since = ? WHERE state = ?", (time.time(), state))

    # --- counts

    def count(self, name: str) -> int:
        found = self._sql.execute("SELECT n FROM counts WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found else 0

    def counts(self) -> dict[str, int]:
        """Of `rows`, those that were `uploaded`, `known`, `indexed`, and are `parked`."""
        (parked,) = self._sql.execute("SELECT n FROM states WHERE state = 'parked'").fetchone()
        return {**dict(self._sql.execute("SELECT name, n FROM counts").fetchall()), "parked": parked}

    def left(self) -> dict[str, int]:
        """Rows that have not ended, by state."""
        return dict(self._sql.execute("SELECT state, n FROM states WHERE state <> 'parked' AND n > 0").fetchall())

    def reasons(self) -> dict[str, int]:
        """Parked rows by reason."""
        return dict(
            self._sql.execute(
                "SELECT reason, count(*) AS n FROM rows WHERE state = 'parked' GROUP BY reason ORDER BY n DESC"
            ).fetchall()
        )

    def parked(self, limit: int) -> list[Parked]:
        """The first ones."""
        found = self._sql.execute(
            "SELECT number, place, reason, detail FROM rows WHERE state = 'parked' ORDER BY number LIMIT ?", (limit,)
        )
        return [Parked(number, place, reason, detail or "") for number, place, reason, detail in found]

    @property
    def spent_s(self) -> float:
        """This run and those before that ended by themselves."""
        (before,) = self._sql.execute("SELECT spent_s FROM source").fetchone()
        return float(before) + time.monotonic() - self._begun_at

    def _add(self, counts: Counter[str]) -> None:
        self._sql.executemany(
            "INSERT INTO counts (name, n) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET n = n + excluded.n",
            [(name, n) for name, n in counts.items() if n],
        )

    def _transaction(self) -> _Transaction:
        return _Transaction(self._sql)


class _Transaction:
    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def __enter__(self) -> None:
        self._sql.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._sql.execute("COMMIT")
        finally:
            if self._sql.in_transaction:  # SQLite has rolled back by itself where the disk is full
                self._sql.execute("ROLLBACK")


def _stored(number: int, row: Row, now: float) -> tuple[object, ...]:
    state = {Kind.NONE: "parked", Kind.LYING: "lying"}.get(row.kind, "waiting")
    reason, detail = ("bad_row", row.place) if row.kind is Kind.NONE else (None, None)
    return (number, state, row.kind.value, row.place, row.folder, row.name, row.sha256, reason, detail, now)
