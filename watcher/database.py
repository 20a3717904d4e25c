"""The ledger's schema, and its SQLite file: opened by one process, used by one thread."""

from __future__ import annotations

import fcntl
import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import IO

from core.databases import KeptDatabase
from core.errors import ImageSearchError
from core.schemas import StatePart
from core.sql.connection import SqliteConnection

LEDGER_NAME = "ledger.sqlite3"
_SCRIPTS = ("schema.sql", "schema_2.sql", "schema_3.sql", "schema_4.sql")
_POSTGRES_SCRIPTS = ("schema_postgres.sql", "schema_postgres_2.sql", "schema_postgres_3.sql")
_KEPT_DAMAGED = 2


class LedgerInUse(ImageSearchError):
    """Another process works with this ledger."""


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


def steps() -> list[str]:
    """The schema's versions, as SQL."""
    return _read(_SCRIPTS)


def postgres_steps() -> list[str]:
    """The same for PostgreSQL, whose numbers are its own."""
    return _read(_POSTGRES_SCRIPTS)


def _read(scripts: tuple[str, ...]) -> list[str]:
    return [files("watcher").joinpath(script).read_text("utf-8") for script in scripts]


def kept(data_dir: Path) -> KeptDatabase:
    """The ledger's file. After a power cut the last transactions may be missing, which the reconcile mends."""
    return KeptDatabase(data_dir / LEDGER_NAME, steps(), part=StatePart.LEDGER, synchronous="NORMAL")


def opened(database: KeptDatabase) -> SqliteConnection:
    """Made anew where it is damaged: the scan fills it, and pictures whose points are whole are adopted. Raises NewerRelease."""
    connection = database.open(_lost, keep=_KEPT_DAMAGED)
    connection.row_factory = sqlite3.Row
    return connection


def _lost(_: Path, __: sqlite3.Connection) -> str:
    return "the ledger is made anew from the folder; pictures whose vectors are whole are not analysed again"
