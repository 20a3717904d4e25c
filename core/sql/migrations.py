"""Schemas in PostgreSQL: numbered steps as in SQLite, counted in a table, each one transaction, by one process at a time."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from core.databases import NewerRelease
from core.sql.postgres import Row

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('imagesearch migration', 0))"
_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_versions (part TEXT PRIMARY KEY, version INTEGER NOT NULL)"


def migrate(session: psycopg.Connection[Row], steps: Sequence[str], *, part: str) -> None:
    """Step n leads from schema n to n + 1 of this part; one that was released is never changed. Raises NewerRelease.

    A kill leaves the schema before a step, or the one after. Whoever else starts meanwhile waits, and finds it done.
    """
    while _stepped(session, steps, part):
        pass


def _stepped(session: psycopg.Connection[Row], steps: Sequence[str], part: str) -> bool:
    with session.transaction():
        session.execute("SET LOCAL statement_timeout = 0")
        session.execute(_LOCK)
        session.execute("SET LOCAL client_min_messages = warning")
        session.execute(_VERSIONS)
        row = session.execute("SELECT version FROM schema_versions WHERE part = %s", (part,)).fetchone()
        version: int = row["version"] if row else 0
        if version > len(steps):
            raise NewerRelease(f"the {part} was written by a newer release (schema {version}, this one knows {len(steps)})")
        if version == len(steps):
            return False
        session.execute(steps[version].encode())
        session.execute(
            "INSERT INTO schema_versions (part, version) VALUES (%s, %s)"
            " ON CONFLICT (part) DO UPDATE SET version = excluded.version",
            (part, version + 1),
        )
    return True
