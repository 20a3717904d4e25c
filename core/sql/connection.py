"""The SQL of ledger and feedback: one text for SQLite and PostgreSQL, through a connection that knows the few differences.

Parameters are `?` or `:name`. `INDEXED BY ...`, `WITHOUT ROWID` and `STRICT` are for SQLite alone; `/*pg ... */` is a comment to it and
for PostgreSQL alone. A temporary table is written `temp.name`, a list of texts is one parameter as JSON: `IN (SELECT value FROM json_each(?))`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import Any, Protocol


class Turn(StrEnum):
    """Transactions of the same turn follow one another, on however many machines they are made."""

    PATHS = "paths"
    """Which image lies where: what a path says and what follows for its images is never mixed with another's word."""
    FEEDBACK = "feedback"
    """Ratings become visible in the order of their numbers, so that whoever reads on behind one misses none."""


class Result(Protocol):
    """What a statement came to. A row is had by name and by position, as `sqlite3.Row`."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """Used by one thread at a time. Each statement is a transaction of its own, unless it stands within `transaction`."""

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /) -> Result: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Result:
        """`rowcount` is that of all together."""
        ...

    def transaction(self, *, turn: Turn | None = None, patient: bool = False) -> AbstractContextManager[object]:
        """All or nothing, whatever ends the block. `patient`: it may touch every row, and takes as long as that takes."""
        ...


class SqliteConnection(sqlite3.Connection):
    """SQLite has one writer at a time: every transaction that writes is alone, and no turn is to be waited for."""

    @contextmanager
    def transaction(self, *, turn: Turn | None = None, patient: bool = False) -> Iterator[None]:
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self.in_transaction:  # a full disk may have ended it already
                self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")
