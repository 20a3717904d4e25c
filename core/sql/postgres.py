"""PostgreSQL behind the connection port: its rows, its dialect, its locks, and what its refusals mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, overload

import psycopg
from psycopg import conninfo, errors

from core.errors import ImageSearchError, Unavailable
from core.room import storage_full
from core.sql.connection import Turn
from core.sql.place import DatabasePlace

_RETRY_AFTER_S = 2.0
_DEAD_PEER_S = 10
"""After so long without a sign a connection counts as lost, on either end: its locks are free then."""

_FOR_SQLITE = re.compile(r" INDEXED BY \w+| WITHOUT ROWID| STRICT\b")
_FOR_POSTGRES = re.compile(r"/\*pg (.*?)\*/")
_PARAMETER = re.compile(r"\?|(?<!:):([a-z_]+)")


class UnreadableUrl(ImageSearchError):
    """DATABASE_URL is not the address of a database."""


class Row(Sequence[Any]):
    """By name and by position, as `sqlite3.Row`."""

    __slots__ = ("_places", "_values")

    def __init__(self, values: Sequence[Any], places: Mapping[str, int]) -> None:
        self._values = values
        self._places = places

    @overload
    def __getitem__(self, key: int | str) -> Any: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[Any]: ...
    def __getitem__(self, key: int | str | slice) -> Any:
        return self._values[self._places[key] if isinstance(key, str) else key]

    def __len__(self) -> int:
        return len(self._values)


def rows(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Row]:
    """psycopg's row factory."""
    places = {column.name: place for place, column in enumerate(cursor.description or ())}
    return lambda values: Row(values, places)


@lru_cache(maxsize=512)
def translated(sql: str) -> bytes:
    """The same statement as PostgreSQL and psycopg want it."""
    own = _FOR_POSTGRES.sub(r"\1", _FOR_SQLITE.sub("", sql)).replace("%", "%%")
    own = own.replace("temp.", "pg_temp.").replace("json_each(", "json_array_elements_text(")
    return _PARAMETER.sub(lambda found: f"%({found[1]})s" if found[1] else "%s", own).encode()


class PostgresConnection:
    """See `core.sql.connection.Connection`. Each statement sees what was committed before it began (READ COMMITTED)."""

    def __init__(self, session: psycopg.Connection[Row]) -> None:
        self.session = session

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> psycopg.Cursor[Row]:
        return self.session.execute(translated(sql), parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> psycopg.Cursor[Row]:
        cursor = self.session.cursor()
        cursor.executemany(translated(sql), parameters)
        return cursor

    @contextmanager
    def transaction(self, *, turn: Turn | None = None, patient: bool = False) -> Iterator[None]:
        with self.session.transaction():
            if patient:
                self.session.execute("SET LOCAL statement_timeout = 0")
            if turn is not None:
                self.session.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"imagesearch turn {turn}",))
            yield

    def try_lock(self, name: str) -> bool:
        """Take the lock of this name for as long as the connection lasts, unless another one has it."""
        (taken,) = self.execute("SELECT pg_try_advisory_lock(hashtextextended(?, 0))", (name,)).fetchone() or (False,)
        return bool(taken)

    def unlock(self, name: str) -> None:
        self.execute("SELECT pg_advisory_unlock(hashtextextended(?, 0))", (name,))

    def close(self) -> None:
        """On return its locks are free; the server by itself would take a moment to see that the connection is gone."""
        with suppress(psycopg.Error):
            self.execute("SELECT pg_advisory_unlock_all()")
        self.session.close()


def connected(place: DatabasePlace, *, durable: bool) -> psycopg.Connection[Row]:
    """A connection of its own. Raises psycopg.OperationalError."""
    return psycopg.connect(place.url, row_factory=rows, **options_of(place, durable=durable))


def options_of(place: DatabasePlace, *, durable: bool) -> dict[str, Any]:
    """`durable`: what was committed survives the server's crash; otherwise its last half second may not, though nothing is ever half there."""
    try:
        given = conninfo.conninfo_to_dict(place.url)
    except psycopg.ProgrammingError:  # whose words may hold the password
        raise UnreadableUrl("DATABASE_URL cannot be read: write postgresql://user:password@host:5432/database") from None
    milliseconds = round(place.timeout_s * 1000)
    ours = {
        "statement_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds,
        "tcp_keepalives_idle": _DEAD_PEER_S // 2,
        "tcp_keepalives_interval": 1,
        "tcp_keepalives_count": _DEAD_PEER_S // 2,
        "tcp_user_timeout": _DEAD_PEER_S * 1000,
        "synchronous_commit": "on" if durable else "off",
    }
    return {
        "autocommit": True,
        "application_name": given.get("application_name") or "imagesearch",
        "options": " ".join([*(f"-c {name}={value}" for name, value in ours.items()), str(given.get("options") or "")]).strip(),
        "connect_timeout": max(2, round(place.connect_timeout_s)),  # libpq takes less for 2
        "keepalives_idle": _DEAD_PEER_S // 2,
        "keepalives_interval": 1,
        "keepalives_count": _DEAD_PEER_S // 2,
        "tcp_user_timeout": _DEAD_PEER_S * 1000,
    }


AGAIN = (errors.SerializationFailure, errors.DeadlockDetected)
"""Nothing of the transaction was done: it is made again."""

_AWAY = frozenset({"08", "40", "53", "55", "57", "58"})
"""Classes of SQLSTATE in which the server, its room or its load is to blame; without one, the connection is."""

_AWAY_CODES = frozenset({"25006", "25P03"})
"""A standby that was written to, and a transaction that waited too long for its own end."""


def refusal_of(error: psycopg.Error, what: str) -> Unavailable | None:
    """What it means that the database did not do it; None if the statement is to blame."""
    if isinstance(error, errors.DiskFull):
        return storage_full(what)
    if isinstance(error, psycopg.InterfaceError) or (error.sqlstate is None and isinstance(error, psycopg.OperationalError)):
        return away(what)
    if error.sqlstate is not None and (error.sqlstate[:2] in _AWAY or error.sqlstate in _AWAY_CODES):
        return away(what)
    return None


def away(what: str) -> Unavailable:
    return Unavailable(f"the database that holds {what} does not answer now", retry_after_s=_RETRY_AFTER_S)
