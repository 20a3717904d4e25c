"""Files whose `stat` or whose place tells less than what became of them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import tracemalloc
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from core.errors import Unavailable
from tests.unit.watcher.fakes import House, image_id_of, jpeg, models, until
from watcher import mounts
from watcher.database import LEDGER_NAME
from watcher.folder import Folder
from watcher.watched_folder import WatchedFolder


def overwrite_unseen(file: Path, content: bytes) -> None:
    """Other bytes of the same length in the same file, with the times of before: as `exiftool -P -overwrite_original_in_place`, or rot."""
    before = file.stat()
    assert len(content) == before.st_size
    with file.open("r+b") as opened:
        opened.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_other_bytes_under_the_same_stat_are_indexed_instead_of_waited_for(house: House) -> None:
    house.embedder.away = Unavailable("later")
    house.write("x.jpg", jpeg("old 5"))
    async with house.running():
        await until(lambda: house.ledger_rows("SELECT state FROM images") == [("pending",)])
        overwrite_unseen(house.images / "x.jpg", jpeg("new 3"))
        house.embedder.away = None
        await house.agreed()


async def test_other_bytes_under_the_same_stat_keep_no_change_of_models_from_its_end(house: House) -> None:
    house.write("x.jpg", jpeg("old 5"))
    house.write("y.jpg", jpeg("other"))
    async with house.running():
        await house.agreed()
    overwrite_unseen(house.images / "x.jpg", jpeg("new 3"))
    house.embedder.models = models("f2", "later")
    async with house.running() as watcher:
        await house.agreed()
        await until(lambda: house.ledger_rows("SELECT searched FROM course") == [("f2",)])
        assert (await watcher.catalog.status()).model_change is None


async def test_what_is_out_of_sight_is_tried_less_and_less_so_that_others_have_their_turn(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.options["retry_max_s"] = 60.0
    house.embedder.away = Unavailable("later")
    house.write("drive/x.jpg", jpeg("x"))
    async with house.running():
        await until(lambda: bool(house.ledger_rows("SELECT image_id FROM images")))
    shutil.rmtree(house.images / "drive")
    with closing(sqlite3.connect(house.state / LEDGER_NAME)) as ledger, ledger:
        ledger.execute("UPDATE images SET noticed_at = noticed_at - 3600")
    monkeypatch.setattr(mounts, "lost_mounts", lambda *_: {"drive"})
    house.embedder.away = None
    async with house.running():
        await until(lambda: house.ledger_rows("SELECT next_attempt_at FROM images")[0][0] > time.time())
        assert house.ledger_rows("SELECT next_attempt_at FROM images")[0][0] > time.time() + 30
        house.write("y.jpg", jpeg("y"))
        await until(lambda: ("indexed",) in house.ledger_rows("SELECT state FROM images"))
    assert house.ledger_rows("SELECT path FROM paths ORDER BY path") == [("drive/x.jpg",), ("y.jpg",)]


async def test_a_folder_whose_place_a_file_takes_takes_its_pictures_along(house: House, tmp_path: Path) -> None:
    house.write("place/inner/x.jpg", jpeg("x"))
    house.write("place/y.jpg", jpeg("y"))
    file = tmp_path / "file"
    file.write_bytes(jpeg("file"))
    async with house.running():
        await house.agreed()
        (house.images / "place").rename(tmp_path / "away")
        file.rename(house.images / "place")
        await house.agreed()
        (house.images / "place").unlink()
        (tmp_path / "away").rename(house.images / "place")
        await house.agreed()


async def test_a_folder_whose_place_a_link_takes_takes_its_pictures_along(house: House, tmp_path: Path) -> None:
    house.write("place/x.jpg", jpeg("x"))
    house.write("y.jpg", jpeg("y"))
    async with house.running():
        await house.agreed()
        (house.images / "place").rename(tmp_path / "away")
        (tmp_path / "away" / "z.jpg").write_bytes(jpeg("z"))
        (house.images / "place").symlink_to(tmp_path / "away")
        await until(
            lambda: house.ledger_rows("SELECT path FROM paths ORDER BY path") == [("y.jpg",)],
            why=lambda: house.ledger_rows("SELECT path FROM paths"),
        )


async def test_deleting_a_picture_follows_no_link_that_took_the_place_of_its_folder(house: House, tmp_path: Path) -> None:
    image_id = house.write("place/x.jpg", jpeg("x"))
    (tmp_path / "elsewhere").mkdir()
    async with house.running() as watcher:
        await house.agreed()
        (house.images / "place").rename(tmp_path / "away")
        (tmp_path / "elsewhere" / "x.jpg").write_bytes(jpeg("x"))
        (house.images / "place").symlink_to(tmp_path / "elsewhere")
        await watcher.catalog.delete(image_id)
        assert (tmp_path / "elsewhere" / "x.jpg").exists()
        await until(lambda: house.ledger_rows("SELECT * FROM images") == [])


def test_of_a_file_that_grew_no_more_is_read_than_a_picture_may_have(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as grown:
        grown.truncate(64 << 20)
    pictures = WatchedFolder(Folder(tmp_path), max_image_bytes=1 << 20)
    tracemalloc.start()
    try:
        assert pictures.read("a.jpg", image_id_of(jpeg("a"))) is None
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("mtime_s", [15_000_000_000, -15_000_000_000, 10**12, -(10**12)])
async def test_a_file_whose_time_no_calendar_and_no_database_has_keeps_no_other_from_being_indexed(mtime_s: int) -> None:
    with TemporaryDirectory(dir="/dev/shm") as memory:  # other file systems bend such times into what they can keep
        house = House(Path(memory))
        house.write("b.jpg", jpeg("b"))
        for name in ("a.jpg", "c.jpg"):
            async with house.running():
                house.write(name, jpeg(name))
                os.utime(house.images / name, (mtime_s, mtime_s))
                await house.agreed()
        assert set(house.embedder.analysed.values()) == {1}
