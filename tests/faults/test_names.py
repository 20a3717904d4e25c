"""Names, links and moves that trip up programs which keep paths: each file is one image, found under its very name."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.unit.watcher.fakes import House, jpeg, until

_NAMES: dict[str, bytes] = {
    "newlines": b"two\nlines\r\n.jpg",
    "invalid UTF-8": b"caf\xe9 \xff\xfe.jpg",
    "its own escapes": "\uef80\uefff.jpg".encode(),
    "255 bytes": b"x" * 251 + b".jpg",
    "255 bytes of emoji": "🐘".encode() * 62 + b"abc.jpg",
    "emoji with joiners": "👩‍👩‍👧‍👦 🏳️‍🌈.jpg".encode(),
    "two normal forms": "e\u0301.jpg".encode(),
    "the other normal form": "\u00e9.jpg".encode(),
    "right to left": "\u202egpj.exe\u202c.jpg".encode(),
    "SQL": b"a'; DROP TABLE images; --.jpg",
    "globs": b"[*?]{a,b}$(x)`y`.jpg",
    "backslashes": b"a\\b\\c.jpg",
    "spaces at its ends": b" a .jpg ",
    "percent": b"%2e%2e%2f%00.jpg",
    "control characters": bytes(range(1, 32)) + b"\x7f.jpg",
    "no name at all": b"0",
    "upper case": b"A.JPEG",
    "lower case": b"a.jpeg",
}


@pytest.fixture(params=["auto", "polling"])
def house(tmp_path: Path, request: pytest.FixtureRequest) -> House:
    """Once with the system's events, and once as on a network drive, which sends none."""
    made = House(tmp_path)
    made.options |= {"watch_mode": request.param, "poll_interval_s": 0.1, "reconcile_interval_s": 3600}
    return made


def _write(house: House, name: bytes, content: bytes) -> Path:
    file = house.images / os.fsdecode(name)
    file.write_bytes(content)
    return file


async def test_every_name_that_the_disk_takes_is_indexed_and_followed(house: House) -> None:
    there = {what: _write(house, name, jpeg(f"before {what} 1")) for what, name in list(_NAMES.items())[::2]}
    async with house.running() as watcher:
        await house.agreed()
        there |= {what: _write(house, name, jpeg(f"later {what} 1")) for what, name in list(_NAMES.items())[1::2]}
        await house.agreed()
        assert len(house.truth()) == len(_NAMES)
        (house.images / "elsewhere").mkdir()
        for file in there.values():
            file.rename(house.images / "elsewhere" / file.name)
        await house.agreed()
        for image_id in house.truth():
            record = await watcher.catalog.image(image_id)
            record.model_dump_json().encode()
            await watcher.catalog.delete(image_id)
        await house.agreed()
    assert list((house.images / "elsewhere").iterdir()) == []
    assert set(house.embedder.analysed.values()) == {1}


async def test_links_that_lead_nowhere_round_in_circles_or_out_are_no_trap(house: House, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(jpeg("secret"))
    house.write("real.jpg", jpeg("real 2"))
    house.write("deep/real.jpg", jpeg("deep 1"))
    links = {
        "itself": "itself",
        "there.jpg": "back.jpg",
        "back.jpg": "there.jpg",
        "deep/up": "..",
        "deep/here": ".",
        "nowhere.jpg": "gone.jpg",
        "alias.jpg": "real.jpg",
        "folder": str(outside),
    }
    async with house.running():
        await until(lambda: bool(house.store.points))
        for name, target in links.items():
            (house.images / name).symlink_to(target)
        await house.agreed()
        assert house.truth().keys() == {key for key, paths in house.truth().items() if paths & {"real.jpg", "deep/real.jpg"}}
        (house.images / "alias.jpg").unlink()
        (house.images / "deep" / "up").unlink()
        house.write("later.jpg", jpeg("later"))
        await house.agreed()


async def test_a_rename_that_changes_only_the_case_is_a_move(house: House) -> None:
    house.write("Holiday/Beach.jpg", jpeg("beach"))
    async with house.running():
        await house.agreed()
        for before, after in (("Holiday/Beach.jpg", "Holiday/BEACH.JPG"), ("Holiday", "holiday"), ("holiday", "HOLIDAY")):
            (house.images / before).rename(house.images / after)
            await house.agreed()
    assert house.embedder.analysed.total() == 1


async def test_the_same_picture_twice_at_once_is_one_image_with_two_paths(house: House) -> None:
    house.embedder.delay_s = 0.05
    async with house.running():
        await until(lambda: bool(house.store.points))
        for number in range(10):
            content = jpeg(f"twin {number} 2")
            await asyncio.gather(*(asyncio.to_thread(house.write, f"{where}/{number}.jpg", content) for where in "abc"))
        os.link(house.images / "a" / "0.jpg", house.images / "hard link.jpg")
        await house.agreed()
    assert len(house.truth()) == 10
    assert set(house.embedder.analysed.values()) == {1}


async def test_a_folder_that_goes_in_and_out_again_and_again_ends_where_it_is(house: House, tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", house.images / "inside"
    for number in range(20):
        (outside / f"{number % 4}").mkdir(parents=True, exist_ok=True)
        (outside / f"{number % 4}" / f"{number}.jpg").write_bytes(jpeg(f"wanderer {number} 1"))
    async with house.running():
        await until(lambda: bool(house.store.points))
        for pause_s in (0.0, 0.02, 0.15, 0.3, 0.05):
            outside.rename(inside)
            await asyncio.sleep(pause_s)
            inside.rename(outside)
            await asyncio.sleep(pause_s)
        await house.agreed()
        assert house.truth() == {}
        outside.rename(inside)
        await house.agreed(8)
        assert len(house.truth()) == 20
