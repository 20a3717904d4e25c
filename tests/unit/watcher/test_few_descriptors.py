"""While no descriptor is left nothing is known of any file: pictures wait, and none is blamed."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.errors import Unavailable
from tests.unit.watcher.fakes import House, image_id_of, jpeg, until
from watcher import probe
from watcher.folder import Folder
from watcher.watched_folder import WatchedFolder


@contextmanager
def _no_descriptor_left() -> Iterator[None]:
    """By the real limit of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.open(os.devnull, os.O_RDONLY)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _look(pictures: WatchedFolder) -> object:
    (stat,) = pictures.stats(["a.jpg"])
    assert not isinstance(stat, probe.Absence)
    return pictures.looks([("a.jpg", stat)], now=0.0)


def _hash(pictures: WatchedFolder) -> object:
    (stat,) = pictures.stats(["a.jpg"])
    assert not isinstance(stat, probe.Absence)
    return pictures.content_hash("a.jpg", stat)


@pytest.mark.parametrize("ask", [_look, _hash, lambda pictures: pictures.read("a.jpg", image_id_of(jpeg("a")))])
def test_a_file_is_not_told_to_be_unreadable(tmp_path: Path, ask: Callable[[WatchedFolder], object]) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg("a"))
    pictures = WatchedFolder(Folder(tmp_path), max_image_bytes=1 << 20)
    with _no_descriptor_left(), pytest.raises(Unavailable):
        ask(pictures)
    assert ask(pictures)


async def test_pictures_wait_and_none_fails(house: House) -> None:
    house.options["reconcile_interval_s"] = 3600
    house.embedder.away = Unavailable("later")
    for number in range(3):
        house.write(f"{number}.jpg", jpeg(f"p{number}"))
    async with house.running() as watcher:
        await until(lambda: len(house.ledger_rows("SELECT * FROM images")) == 3)
        with _no_descriptor_left():
            house.embedder.away = None
            async with asyncio.timeout(5):
                while "no file can be opened" not in ((await watcher.catalog.status()).watcher.waiting_for or ""):
                    await asyncio.sleep(0.01)
        await house.agreed()
        assert house.ledger_rows("SELECT max(attempts) FROM images") == [(0,)]


async def test_a_file_that_comes_meanwhile_is_looked_at_when_there_is_one(house: House) -> None:
    """Nothing but the event tells of it."""
    house.options["reconcile_interval_s"] = 3600
    async with house.running():
        house.write("first.jpg", jpeg("first"))
        await house.agreed()
        with capture_logs() as told, _no_descriptor_left():
            (house.images / "first.jpg").rename(house.images / "second.jpg")
            os.utime(house.images / "second.jpg", ns=(1, 1))
            await until(lambda: any(line["event"] == "file_refused" or line["event"] == "intake_paused" for line in told))
        await house.agreed()
    assert "file_refused" not in {line["event"] for line in told}
