"""Copying ledger and ratings into another home, all or nothing, and reading back what was written before it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from core.schemas import StatePart
from core.settings import FolderSettings
from core.sql.place import SCHEMES, DatabasePlace, require_driver
from standalone.moves.state.files_home import files_to_fill, files_to_leave
from standalone.moves.state.tables import TABLES, CannotMoveState, Home, Row, StateDiffers, Table, Tally

SQLITE = "sqlite"
_TOLD_EVERY = 1000

Told = Callable[[str, int, int], None]
"""A table, how many rows of it were copied, and how many it has."""


@dataclass(frozen=True, slots=True)
class MovedTable:
    """`digest` is the SHA-256 of all rows in both homes."""

    name: str
    rows: int
    digest: str


@dataclass(frozen=True, slots=True)
class MovedState:
    tables: tuple[MovedTable, ...]
    source: str
    target: str
    left_out: frozenset[StatePart]
    """What the home that was left did not have."""


def move_state(settings: FolderSettings, to: str, *, replace: bool = False, told: Told = lambda *_: None) -> MovedState:
    """Copy ledger and ratings from the home that the settings name to `to`: `sqlite` (in DATA_DIR), or a database's URL. The original stays.

    Nobody sees any of it before all of it was read back and found the same. With `replace` what the target holds already is removed.
    Raises CannotMoveState, StateDiffers, LedgerInUse, NewerRelease, DriverMissing, UnreadableUrl, OSError, sqlite3.Error.
    """
    _check_asked(settings, to)
    with ExitStack() as stack:
        source = stack.enter_context(_source(settings))
        target = stack.enter_context(_target(settings, to, source.parts))
        if source.name == target.name:
            raise CannotMoveState(f"the state is in {source.name} already")
        _make_room(target, source.parts, replace=replace)
        moved = [_copied(table, source, target, told) for table in TABLES if table.part in source.parts]
        if StatePart.FEEDBACK in source.parts:
            target.number_after(source.last_number())
        for home in (source, target):
            home.check_alone()
        target.commit()
        return MovedState(tuple(moved), source.name, target.name, _PARTS - source.parts)


_PARTS = frozenset(table.part for table in TABLES)


def _check_asked(settings: FolderSettings, to: str) -> None:
    if to != SQLITE and not to.startswith(SCHEMES):
        raise CannotMoveState("--to is `sqlite`, or postgresql://user:password@host:5432/database")
    if to == (settings.database_url or SQLITE):
        raise CannotMoveState("the state is there already: settings of the home that it leaves, --to the new one")


def _source(settings: FolderSettings) -> AbstractContextManager[Home]:
    place = settings.database
    if place is None:
        return files_to_leave(settings.data_dir)
    from standalone.moves.state.database_home import database_to_leave  # noqa: PLC0415 - its package is there only where it is wanted

    return database_to_leave(place)


def _target(settings: FolderSettings, to: str, parts: frozenset[StatePart]) -> AbstractContextManager[Home]:
    if to == SQLITE:
        return files_to_fill(settings.data_dir, parts)
    require_driver()
    from standalone.moves.state.database_home import database_to_fill  # noqa: PLC0415 - as above

    place = DatabasePlace(to, timeout_s=settings.database_timeout_s, connect_timeout_s=settings.database_connect_timeout_s)
    return database_to_fill(place, parts)


def _make_room(target: Home, parts: frozenset[StatePart], *, replace: bool) -> None:
    there = {table.name: count for table in TABLES if table.part in parts and (count := target.count(table))}
    if there and not replace and not target.is_half:
        told = ", ".join(f"{count:,} rows in {name}" for name, count in there.items())
        raise CannotMoveState(f"{target.name} holds a state already ({told}); --replace (REPLACE=1) removes it")
    target.clear(parts)


def _copied(table: Table, source: Home, target: Home, told: Told) -> MovedTable:
    """Raises StateDiffers."""
    columns = source.columns(table)
    if sorted(columns) != sorted(target.columns(table)):
        raise StateDiffers(f"{table.name} has other columns in {source.name} than in {target.name}")
    read, written = Tally(), Tally()
    target.write(table, columns, _followed(read.over(source.rows(table, columns)), table, source.count(table), told))
    for _ in written.over(target.rows(table, columns)):
        pass
    if read != written:
        raise StateDiffers(
            f"{table.name}: {read.rows:,} rows were read and {written.rows:,} read back, or they differ; nothing was moved"
        )
    return MovedTable(table.name, read.rows, read.digest)


def _followed(rows: Iterable[Row], table: Table, count: int, told: Told) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        yield row
        if number % _TOLD_EVERY == 0 or number == count:
            told(table.name, number, count)
