"""Files with several names: what happens to one through a name happens to all, and events tell of that one alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.watcher.fakes import House, jpeg, until


@pytest.fixture
def named_twice(house: House) -> House:
    """Nothing but events tells of changes."""
    house.options["reconcile_interval_s"] = 3600
    house.write("a.jpg", jpeg("first 1"))
    (house.images / "sub").mkdir()
    os.link(house.images / "a.jpg", house.images / "sub" / "hard.jpg")
    (house.images / "soft.jpg").symlink_to("a.jpg")
    return house


async def test_what_is_written_through_one_name_is_found_by_all(named_twice: House) -> None:
    house = named_twice
    async with house.running():
        await house.agreed()
        house.write("a.jpg", jpeg("second 2"))
        await house.agreed()
        house.write("sub/hard.jpg", jpeg("third 3"))
        await house.agreed()
        house.write("soft.jpg", b"")
        await until(lambda: house.ledger_rows("SELECT DISTINCT reason FROM paths") == [("empty_file",)])
        house.write("soft.jpg", jpeg("fourth 1"))
        await house.agreed()
    assert house.embedder.analysed.total() == 4


async def test_one_of_several_names_may_go_move_or_be_taken_by_another_file(named_twice: House, tmp_path: Path) -> None:
    house = named_twice
    async with house.running():
        await house.agreed()
        (house.images / "sub" / "hard.jpg").rename(house.images / "moved.jpg")
        await house.agreed()
        os.link(house.images / "moved.jpg", house.images / "sub" / "again.jpg")
        await house.agreed()
        (house.images / "moved.jpg").unlink()
        await house.agreed()
        (tmp_path / "other.jpg").write_bytes(jpeg("other 2"))
        (tmp_path / "other.jpg").replace(house.images / "a.jpg")
        await house.agreed()
        (house.images / "a.jpg").unlink()
        await house.agreed()
        assert list(house.truth().values()) == [{"sub/again.jpg"}]


async def test_a_name_that_is_new_tells_of_what_was_written_through_it(named_twice: House) -> None:
    house = named_twice
    async with house.running():
        await house.agreed()
        os.link(house.images / "a.jpg", house.images / "new.jpg")
        house.write("new.jpg", jpeg("second 2"))
        await house.agreed()
