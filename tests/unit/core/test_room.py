"""Room on disks: what is refused before it is tried, and what a failure means."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from core.errors import StorageFull, Unavailable
from core.room import Rooms, check_room, lacks_room, refusal_of


def test_a_disk_with_less_than_the_least_is_refused_in_the_same_words_each_time(tmp_path: Path) -> None:
    check_room(tmp_path, "the vectors", least_bytes=1)
    for least in (2**60, 2**61):
        with pytest.raises(StorageFull, match=r"^the disk that holds the vectors is full$"):
            check_room(tmp_path, "the vectors", least_bytes=least)


def test_a_folder_that_is_not_there_yet_has_room(tmp_path: Path) -> None:
    Rooms({"the vectors": tmp_path / "later"}).check()


def test_a_full_database_is_told_from_one_that_cannot_be_written_and_from_a_mistake_of_ours() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA max_page_count = 3")
    connection.execute("CREATE TABLE t (x)")
    assert isinstance(_refused(connection, "INSERT INTO t VALUES (zeroblob(100000))"), StorageFull)
    connection.execute("PRAGMA query_only = ON")
    refused = _refused(connection, "INSERT INTO t VALUES (1)")
    assert type(refused) is Unavailable
    assert "SQLITE_READONLY" in str(refused)
    assert _refused(connection, "SELECT * FROM nothing") is None
    connection.close()


def _refused(connection: sqlite3.Connection, statement: str) -> Unavailable | None:
    with pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute(statement)
    return refusal_of(raised.value, "the ledger")


def test_only_want_of_room_is_want_of_room() -> None:
    assert lacks_room(OSError(errno.ENOSPC, ""))
    assert lacks_room(OSError(errno.EDQUOT, ""))
    assert not lacks_room(PermissionError(errno.EACCES, ""))
