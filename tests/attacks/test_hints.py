"""Hints come from callers: they name files of the folder, or lead nowhere."""

from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from tests.unit.watcher.fakes import House, jpeg, until


async def test_no_hint_brings_a_picture_that_lies_outside(tmp_path: Path) -> None:
    house = House(tmp_path)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "private.jpg").write_bytes(jpeg("private 1"))
    (house.images / "link").symlink_to(outside)
    spellings = [
        "../elsewhere/private.jpg",
        "a/../../elsewhere/private.jpg",
        str(outside / "private.jpg"),
        f"/{outside}/private.jpg",
        "link/private.jpg",
        "./../elsewhere/private.jpg",
        "",
        "/",
        "..",
        "a\x00b.jpg",
        "x" * 5000,
        "\udce9.jpg",
    ]
    async with house.running() as watcher:
        with capture_logs() as logs:
            assert await watcher.catalog.hint(spellings) == 1, "the name that is too long for any file alone"
            house.write("last.jpg", jpeg("last 1"))
            await watcher.catalog.hint(["last.jpg"])
            await until(lambda: bool(house.ledger_rows("SELECT 1 FROM images WHERE state = 'indexed'")))
        assert house.ledger_rows("SELECT path FROM paths") == [("last.jpg",)]
        assert [event["event"] for event in logs if event["log_level"] in {"error", "critical"}] == []
