"""Ledger and ratings in PostgreSQL, as one end of a move."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from core.schemas import StatePart
from core.sql.migrations import migrate
from core.sql.place import DatabasePlace
from core.sql.postgres import PostgresConnection, connected
from core.sql.postgres import Row as NamedRow
from searchsvc import feedback_schema
from standalone.moves.state.tables import PASSING, TABLES, CannotMoveState, Row, Table
from watcher import database
from watcher.shared_ledger import WATCH

_BATCH = 2000
_GOING_S = 3.0
"""A process that just ended may seem to be connected for so long."""

_LOOK_S = 0.05

_UNHURRIED = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '10s'"


_TABLES_OF = {part: [table.name for table in TABLES if table.part is part] + list(PASSING[part]) for part in PASSING}


class DatabaseHome:
    """Within one transaction, whose commit is that of all."""

    is_half = False

    def __init__(self, session: psycopg.Connection[NamedRow], parts: frozenset[StatePart], name: str) -> None:
        self.name = name
        self.parts = parts
        self._session = session

    def columns(self, table: Table) -> list[str]:
        found = self._session.execute(f"SELECT * FROM {table.name} LIMIT 0".encode())  # noqa: S608 - our own words
        return [column.name for column in found.description or ()]

    def count(self, table: Table) -> int:
        return self._number(f"SELECT count(*) FROM {table.name}")  # noqa: S608 - our own words

    def rows(self, table: Table, columns: Sequence[str]) -> Iterator[Row]:
        order = table.key if table.part is StatePart.FEEDBACK or table.key == "only_one" else f'{table.key} COLLATE "C"'
        reading = f"SELECT {', '.join(columns)} FROM {table.name} ORDER BY {order}"  # noqa: S608 - our own words
        with self._session.cursor(f"move_{table.name}", row_factory=tuple_row) as cursor:
            cursor.itersize = _BATCH
            yield from cursor.execute(reading.encode())

    def clear(self, parts: frozenset[StatePart]) -> None:
        """Passing tables too."""
        names = [name for part in parts for name in _TABLES_OF[part]]
        self._session.execute(f"TRUNCATE {', '.join(names)}".encode())

    def write(self, table: Table, columns: Sequence[str], rows: Iterable[Row]) -> None:
        filling = f"COPY {table.name} ({', '.join(columns)}) FROM STDIN"
        with self._session.cursor() as cursor, cursor.copy(filling.encode()) as copy:
            for row in rows:
                copy.write_row(row)
        self._session.execute(f"ANALYZE {table.name}".encode())

    def last_number(self) -> int:
        given = self._number("SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM feedback_sequence_seq")
        return max(given, self._number("SELECT coalesce(max(sequence), 0) FROM feedback"))

    def number_after(self, last: int) -> None:
        if (last := max(last, self.last_number())) > 0:
            self._session.execute("SELECT setval('feedback_sequence_seq', %s)", (last,))

    def check_alone(self) -> None:
        given_up_at = time.monotonic() + _GOING_S
        while others := self._others():
            if time.monotonic() > given_up_at:
                raise CannotMoveState(
                    f"parts of the product are connected to {self.name} ({others} connections): stop them first"
                )
            time.sleep(0.1)

    def commit(self) -> None:
        self._session.execute("COMMIT")

    def _others(self) -> int:
        """Connections of the product beside this one, by the name that each of them gives itself."""
        self._session.execute("SELECT pg_stat_clear_snapshot()")
        return self._number(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND application_name IN ('imagesearch', current_setting('application_name'))"
        )

    def _number(self, asking: str) -> int:
        (number,) = self._session.execute(asking.encode()).fetchone() or (0,)
        return int(number)


@contextmanager
def database_to_leave(place: DatabasePlace) -> Iterator[DatabaseHome]:
    """Raises CannotMoveState, NewerRelease, UnreadableUrl."""
    with _opened(place) as session:
        there = session.execute(
            "SELECT to_regclass('images') IS NOT NULL AS ledger, to_regclass('feedback') IS NOT NULL AS feedback"
        )
        found = there.fetchone()
        parts = frozenset(part for part in PASSING if found is not None and found[part.value])
        if not parts:
            raise CannotMoveState(f"there is no state in {_name_of(place)}: is DATABASE_URL what it is when the product runs?")
        yield _begun(session, place, parts, "BEGIN ISOLATION LEVEL REPEATABLE READ")


@contextmanager
def database_to_fill(place: DatabasePlace, parts: frozenset[StatePart]) -> Iterator[DatabaseHome]:
    """Raises as `database_to_leave`. Its tables are made; without a commit nothing else is changed."""
    with _opened(place) as session:
        home = _begun(session, place, parts, "BEGIN")
        locked = ", ".join(name for part in parts for name in _TABLES_OF[part])
        session.execute(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE".encode())
        yield home


@contextmanager
def _opened(place: DatabasePlace) -> Iterator[psycopg.Connection[NamedRow]]:
    """With the watch, so that no watcher notices meanwhile. What was not committed is rolled back with the connection."""
    try:
        with closing(connected(place, durable=True)) as session:
            if not _soon(lambda: PostgresConnection(session).try_lock(WATCH)):
                raise CannotMoveState(f"a watcher works with {_name_of(place)}: stop the product first, its workers too")
            yield session
    except psycopg.Error as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise CannotMoveState(f"{_name_of(place)}: {said}") from error


def _begun(
    session: psycopg.Connection[NamedRow], place: DatabasePlace, parts: frozenset[StatePart], beginning: str
) -> DatabaseHome:
    home = DatabaseHome(session, parts, _name_of(place))
    home.check_alone()
    for part in parts:
        steps = database.postgres_steps() if part is StatePart.LEDGER else feedback_schema.POSTGRES_STEPS
        migrate(session, steps, part=part.value)
    session.execute(beginning.encode())
    session.execute(_UNHURRIED.encode())
    return home


def _soon(true: Callable[[], bool]) -> bool:
    given_up_at = time.monotonic() + _GOING_S
    while not (found := true()) and time.monotonic() < given_up_at:
        time.sleep(_LOOK_S)
    return found


def _name_of(place: DatabasePlace) -> str:
    given = conninfo_to_dict(place.url)
    return f"PostgreSQL ({given.get('dbname') or 'its default database'} at {given.get('host') or 'localhost'}:{given.get('port') or 5432})"
