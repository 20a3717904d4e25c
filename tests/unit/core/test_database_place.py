"""DATABASE_URL: what is refused at the start, in words that hold no password."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.settings import FolderSettings
from core.sql import place
from core.sql.place import DatabasePlace, DriverMissing
from standalone.compose import SharedByHalf, _vectors
from watcher.ledger import FileLedger, ledger_of
from watcher.settings import WatcherSettings

SECRET = "hunter2-is-the-password"
URL = f"postgresql://me:{SECRET}@db.example:5432/pictures"


@pytest.mark.parametrize("url", [f"mysql://me:{SECRET}@db/x", f"me:{SECRET}@db/x", SECRET])
def test_what_is_no_address_of_postgresql_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError, match="postgresql://user:password@host") as refused:
        FolderSettings(database_url=url)
    assert SECRET not in str(refused.value)


def test_nothing_that_is_printed_holds_the_password() -> None:
    settings = FolderSettings(database_url=URL)
    assert SECRET not in repr(settings)
    assert SECRET not in repr(settings.database)


def test_without_the_driver_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(place, "find_spec", lambda _: None)
    with pytest.raises(DriverMissing, match=r"psycopg and psycopg_pool, which are not installed: pip install '\.\[postgres\]'"):
        ledger_of(FolderSettings(database_url=URL))
    assert isinstance(ledger_of(FolderSettings(data_dir=tmp_path)), FileLedger)


def test_an_address_that_cannot_be_read_is_not_repeated() -> None:
    pytest.importorskip("psycopg")
    from core.sql.postgres import UnreadableUrl, options_of

    with pytest.raises(UnreadableUrl) as refused:
        options_of(DatabasePlace(f"postgresql://me:{SECRET}@[broken"), durable=True)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__


def test_options_of_the_address_hold_beside_ours() -> None:
    pytest.importorskip("psycopg")
    from core.sql.postgres import options_of

    options = options_of(DatabasePlace(f"{URL}?options=-csearch_path%3Dpictures&application_name=mine"), durable=False)
    assert options["options"].endswith("-csearch_path=pictures")
    assert "-c synchronous_commit=off" in options["options"]
    assert options["application_name"] == "mine"


def test_a_shared_ledger_beside_vectors_of_this_process_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SharedByHalf, match="QDRANT_URL"):
        _vectors(WatcherSettings(data_dir=tmp_path, database_url=URL))
