"""The ledger's SQLite file: opened by one process, used by one thread."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import IO

LEDGER_NAME = "ledger.sqlite3"
_MIGRATIONS: tuple[str, ...] = ("schema.sql", "schema_2.sql")
"""Scripts in order; `PRAGMA user_version` counts those that ran."""


class LedgerInUse(Exception):
    """Another process works with this ledger."""


class LedgerTooNew(Exception):
    """A later release wrote this ledger."""


def lock(data_dir: Path) -> IO[bytes]:
    """Take the ledger for this process; closing the answer, or any death, gives it back. Raises LedgerInUse."""
    data_dir.mkdir(parents=True, exist_ok=True)
    holder = (data_dir / f"{LEDGER_NAME}.lock").open("wb")
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder.close()
        raise LedgerInUse(f"another watcher works with the ledger in {data_dir}") from None
    return holder


def connect(path: Path | str) -> sqlite3.Connection:
    """Open the ledger and bring its schema up to date. Raises LedgerTooNew.

    `synchronous=NORMAL` survives `kill -9`; after a power cut the last transactions may be missing, which the reconcile mends.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON", "busy_timeout = 5000"):
            connection.execute(f"PRAGMA {pragma}")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise LedgerTooNew(f"the ledger has schema {version}, this release knows {len(_MIGRATIONS)}")
    for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
        statements = files("watcher").joinpath(script).read_text("utf-8")
        connection.executescript(f"BEGIN IMMEDIATE;\n{statements}\nPRAGMA user_version = {number};\nCOMMIT;")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing, whatever ends the block."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
