"""The whole watcher on a real folder with real file events; models and vectors are fakes at their ports."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from core import tracing
from core.errors import ModelUnavailable, VectorsUnavailable
from core.points import LAYOUT
from core.schemas import ImageState
from core.tracing import Span
from tests.unit.watcher.fakes import LOADING, NO_MODEL, FakeStore, House, image_id_of, jpeg, models, until
from watcher.database import LedgerInUse
from watcher.locks import ImageLocks


async def test_pictures_that_were_there_before_are_indexed(house: House) -> None:
    for number in range(20):
        house.write(f"a/b{number % 3}/{number}.jpg", jpeg(f"p{number}"))
    async with house.running():
        await house.agreed()
    assert set(house.embedder.analysed.values()) == {1}


@pytest.mark.serial
async def test_a_new_file_is_searchable_within_half_a_second(house: House) -> None:
    async with house.running() as watcher:
        await until(lambda: bool(house.store.points))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        image_id = house.write("new.jpg", jpeg("3 things"))
        await until(lambda: any(house.store.points["resnet"]))
        await house.agreed()
        assert time.monotonic() - started < 0.5
        record = await watcher.catalog.image(image_id)
        assert (record.state, record.segments, record.paths) == (ImageState.INDEXED, 3, ("new.jpg",))


async def test_each_picture_has_a_trace_of_its_own_which_the_models_are_told(house: House) -> None:
    spans: list[Span] = []

    def remember(_: bytes) -> None:
        if (span := tracing.current()) is not None:
            spans.append(span)

    house.embedder.trouble = remember
    for number in range(5):
        house.write(f"{number}.jpg", jpeg(f"p{number}"))
    async with house.running():
        await house.agreed()
    assert len(spans) == 5
    assert len({span.trace_id for span in spans}) == 5
    assert {span.parent_span_id for span in spans} == {None}


async def test_a_slow_writer_that_pauses_is_never_read_half(house: House) -> None:
    content = jpeg("slow " * 2000)
    async with house.running():
        with (house.images / "slow.jpg").open("wb") as writer:
            for start in range(0, len(content), 2500):
                writer.write(content[start : start + 2500])
                writer.flush()
                await asyncio.sleep(0.4)
                assert house.ledger_rows("SELECT * FROM images") == []
        await house.agreed()
    assert house.embedder.analysed == {image_id_of(content): 1}


async def test_a_rename_a_move_and_a_copy_cost_no_inference(house: House) -> None:
    house.write("one.jpg", jpeg("one"))
    async with house.running():
        await house.agreed()
        (house.images / "one.jpg").rename(house.images / "renamed.jpg")
        await house.agreed()
        (house.images / "sub").mkdir()
        (house.images / "renamed.jpg").rename(house.images / "sub" / "moved.jpg")
        await house.agreed()
        shutil.copy(house.images / "sub" / "moved.jpg", house.images / "copy.jpg")
        await house.agreed()
        (house.images / "sub" / "moved.jpg").unlink()
        await house.agreed()
    assert sum(house.embedder.analysed.values()) == 1


async def test_a_renamed_tree_costs_no_inference(house: House) -> None:
    for number in range(60):
        house.write(f"tree/{number % 5}/{number}.jpg", jpeg(f"t{number}"))
    async with house.running():
        await house.agreed()
        (house.images / "tree").rename(house.images / "other")
        await house.agreed()
    assert set(house.embedder.analysed.values()) == {1}


async def test_a_tree_moved_in_and_out_again_comes_and_goes(house: House, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for number in range(10):
        (outside / str(number)).mkdir(parents=True)
        (outside / str(number) / "x.jpg").write_bytes(jpeg(f"m{number}"))
    async with house.running():
        await until(lambda: bool(house.store.points))
        outside.rename(house.images / "inside")
        await house.agreed()
        assert len(house.truth()) == 10
        (house.images / "inside").rename(outside)
        await house.agreed()
    assert house.store.points == {"clip": {}, "resnet": {}}


async def test_a_replaced_file_is_a_new_image_and_the_old_one_goes(house: House) -> None:
    house.write("x.jpg", jpeg("old 5"))
    async with house.running():
        await house.agreed()
        house.write("x.jpg", jpeg("new 1"))
        await house.agreed()
        replacement = house.images / ".tmp"
        replacement.write_bytes(jpeg("newer 2"))
        replacement.replace(house.images / "x.jpg")
        await house.agreed()


async def test_what_happens_while_it_is_down_is_caught_up(house: House) -> None:
    for name in ("stays", "moves", "goes", "changes"):
        house.write(f"{name}.jpg", jpeg(name))
    async with house.running():
        await house.agreed()
    (house.images / "sub").mkdir()
    (house.images / "moves.jpg").rename(house.images / "sub" / "moved.jpg")
    (house.images / "goes.jpg").unlink()
    house.write("changes.jpg", jpeg("changed"))
    house.write("new.jpg", jpeg("new"))
    async with house.running():
        await house.agreed()
    assert sum(house.embedder.analysed.values()) == 6


async def test_hidden_temporary_and_other_files_are_left_alone_and_listed(house: House) -> None:
    house.write(".hidden.jpg", jpeg("a"))
    house.write(".folder/x.jpg", jpeg("b"))
    house.write("~$office.jpg", jpeg("c"))
    house.write("copy.jpg.part", jpeg("d"))
    house.write("notes.txt", b"no picture at all")
    house.write("empty.jpg", b"")
    kept = house.write("no suffix", jpeg("e"))
    async with house.running() as watcher:
        await until(lambda: len(house.ledger_rows("SELECT * FROM paths")) == 4)
        await until(lambda: house.ledger_rows("SELECT image_id, state FROM images") == [(kept, "indexed")])
        listed = await watcher.catalog.failures(ignored=True)
        reasons = {failure.path: failure.reason.value for failure in listed.failures}
        assert reasons == {"copy.jpg.part": "ignored", "notes.txt": "ignored", "empty.jpg": "empty_file"}
        assert (await watcher.catalog.failures()).total == 1
        assert (await watcher.catalog.status()).images.failed == 1
        (house.images / "copy.jpg.part").rename(house.images / "copy.jpg")
        await until(lambda: len(house.ledger_rows("SELECT * FROM images WHERE state = 'indexed'")) == 2)


async def test_a_name_that_is_not_utf8_is_indexed_like_any_other(house: House) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (house.images / name).write_bytes(jpeg("latin"))
    async with house.running() as watcher:
        await until(lambda: len(house.ledger_rows("SELECT * FROM images WHERE state = 'indexed'")) == 1)
        record = await watcher.catalog.image(image_id_of(jpeg("latin")))
        record.model_dump_json().encode()
        await watcher.catalog.delete(record.image_id)
    assert list(house.images.iterdir()) == []


async def test_deleting_a_picture_spares_a_file_that_took_its_place_unseen(house: House) -> None:
    deleted = house.write("a.jpg", jpeg("a"))
    house.write("sub/copy.jpg", jpeg("a"))
    async with house.running() as watcher:
        await house.agreed()
        (house.images / "new.jpg").write_bytes(jpeg("b"))
        (house.images / "new.jpg").replace(house.images / "a.jpg")
        await watcher.catalog.delete(deleted)
        assert (house.images / "a.jpg").read_bytes() == jpeg("b")
        assert not (house.images / "sub" / "copy.jpg").exists()
        await house.agreed()


async def test_a_lost_mount_keeps_everything_and_comes_back_by_itself(house: House, tmp_path: Path) -> None:
    for number in range(5):
        house.write(f"{number}.jpg", jpeg(f"m{number}"))
    async with house.running() as watcher:
        await house.agreed()
        house.images.rename(tmp_path / "away")
        await _reaches(watcher, "folder_missing")
        await asyncio.sleep(0.5)
        assert len(house.ledger_rows("SELECT * FROM images WHERE state = 'indexed'")) == 5
        (tmp_path / "away").rename(house.images)
        await _reaches(watcher, "watching")
        house.write("later.jpg", jpeg("later"))
        await house.agreed(8)
    assert set(house.embedder.analysed.values()) == {1}


async def _reaches(watcher: object, state: str) -> None:
    async with asyncio.timeout(8):
        while (await watcher.catalog.status()).watcher.state != state:  # type: ignore[attr-defined]
            await asyncio.sleep(0.02)


async def test_an_outage_of_models_or_vectors_loses_nothing_and_counts_against_no_picture(house: House) -> None:
    house.options["max_attempts"] = 1
    house.embedder.away = ModelUnavailable("the model service does not answer")
    house.write("a.jpg", jpeg("a"))
    async with house.running() as watcher:
        await until(lambda: bool(house.ledger_rows("SELECT * FROM images")))
        await asyncio.sleep(0.4)
        status = await watcher.catalog.status()
        assert (status.images.pending, status.watcher.waiting_for) == (1, "the model service does not answer")
        house.embedder.away, house.store.away = None, VectorsUnavailable("Qdrant does not answer")
        await asyncio.sleep(0.4)
        assert (await watcher.catalog.status()).watcher.waiting_for == "Qdrant does not answer"
        house.store.away = None
        await house.agreed()
        assert (await watcher.catalog.status()).watcher.waiting_for is None
        house.store.away = VectorsUnavailable("Qdrant does not answer")
        house.write("b.jpg", jpeg("b"))
        (house.images / "a.jpg").unlink()
        await asyncio.sleep(0.5)
        house.store.away = None
        await house.agreed(8)


@pytest.mark.parametrize("before", [LOADING, NO_MODEL])
async def test_models_that_come_later_are_taken_up_without_a_restart(house: House, before: object) -> None:
    house.embedder.models = before  # type: ignore[assignment]
    house.write("a.jpg", jpeg("a"))
    async with house.running() as watcher:
        await until(lambda: house.ledger_rows("SELECT state FROM images") == [("pending",)])
        async with asyncio.timeout(3):
            while not (await watcher.catalog.status()).watcher.waiting_for:
                await asyncio.sleep(0.01)
        house.embedder.models = models()
        await house.agreed()


async def test_other_models_index_everything_again_and_the_way_back_costs_nothing(house: House) -> None:
    house.write("a.jpg", jpeg("a 1"))
    house.write("b.jpg", jpeg("b 4"))
    house.embedder.models = models("f1", "clip")
    async with house.running():
        await house.agreed()
    house.embedder.models = models("f2", "siglip")
    async with house.running():
        await house.agreed()
        (house.images / "a.jpg").rename(house.images / "c.jpg")
        await house.agreed()
    assert set(house.embedder.analysed.values()) == {2}
    house.embedder.models = models("f1", "clip")
    async with house.running():
        await house.agreed()
    assert set(house.embedder.analysed.values()) == {2}


async def test_points_of_an_earlier_release_get_the_fields_that_they_lack_without_inference(house: House) -> None:
    """And are to be found meanwhile: nothing is removed."""
    image = Image.new("RGB", (4, 3))
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "S", 2: (1.0, 30.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0)})
    exif[ExifTags.Base.Make] = "Camera"
    image.save(written := io.BytesIO(), "JPEG", exif=exif)
    placed = house.write("placed.jpg", written.getvalue())
    house.write("plain.jpg", jpeg("3"))
    async with house.running():
        await house.agreed()
    before = {(collection, point.id): point.payload for collection, held in house.store.points.items() for point in held.values()}
    house.age()
    analysed = house.embedder.analysed.total()
    async with house.running():
        await until(lambda: house.ledger_rows("SELECT DISTINCT layout, state FROM images") == [(LAYOUT, "indexed")])
    assert house.embedder.analysed.total() == analysed
    assert house.disagreements() == []
    for (collection, point_id), payload in before.items():
        place = {"lat": -1.5, "lon": 2.0} if payload["image_id"] == placed else {}
        assert house.store.points[collection][point_id].payload == {**payload, **place}


async def test_points_that_were_lost_are_made_again_and_stray_ones_go(house: House) -> None:
    kept = house.write("a.jpg", jpeg("a 3"))
    house.write("b.jpg", jpeg("b 3"))
    async with house.running():
        await house.agreed()
    lost = next(iter(house.store.points["clip"]))
    stray = house.store.points["clip"].pop(lost)
    house.store.points["resnet"]["00000000-0000-0000-0000-000000000000"] = type(stray)(
        "00000000-0000-0000-0000-000000000000", stray.vector, {**stray.payload, "image_id": "f" * 64}
    )
    async with house.running():
        await house.agreed()
    assert sum(house.embedder.analysed.values()) == 3
    assert kept in house.embedder.analysed


async def test_a_lost_ledger_is_made_again_without_inference(house: House) -> None:
    for number in range(5):
        house.write(f"{number}.jpg", jpeg(f"m{number}"))
    async with house.running():
        await house.agreed()
    shutil.rmtree(house.state)
    async with house.running():
        await house.agreed()
    assert set(house.embedder.analysed.values()) == {1}


async def test_a_lost_ledger_takes_no_file_that_is_open_for_one_that_is_gone(house: House) -> None:
    for number in range(5):
        house.write(f"{number}.jpg", jpeg(f"m{number}"))
    async with house.running():
        await house.agreed()
    shutil.rmtree(house.state)
    long_ago = time.time() - 100
    for number in range(5):
        os.utime(house.images / f"{number}.jpg", (long_ago, long_ago))
    async with house.running():
        with (house.images / "3.jpg").open("ab"):
            await until(lambda: len(house.ledger_rows("SELECT * FROM images WHERE state = 'indexed'")) == 4)
            await asyncio.sleep(1)
        await house.agreed()
    assert set(house.embedder.analysed.values()) == {1}


async def test_lost_vectors_are_made_again(house: House) -> None:
    for number in range(5):
        house.write(f"{number}.jpg", jpeg(f"m{number}"))
    async with house.running():
        await house.agreed()
    house.store = FakeStore()
    async with house.running():
        await house.agreed()
    assert set(house.embedder.analysed.values()) == {2}


async def test_a_deletion_during_ingestion_leaves_nothing_behind(house: House) -> None:
    house.embedder.delay_s = 0.6
    house.write("a.jpg", jpeg("a 3"))
    async with house.running():
        await until(lambda: house.embedder.in_flight == 1)
        (house.images / "a.jpg").unlink()
        await asyncio.sleep(0.3)
        await house.agreed()
        await asyncio.sleep(0.5)
        assert house.disagreements() == []


async def test_a_second_watcher_on_the_same_ledger_is_refused(house: House) -> None:
    async with house.running():
        with pytest.raises(LedgerInUse):
            async with house.running():
                pass


async def test_polling_finds_what_events_would(house: House) -> None:
    house.options |= {"watch_mode": "polling", "poll_interval_s": 0.1}
    async with house.running() as watcher:
        await until(lambda: bool(house.store.points))
        house.write("a/x.jpg", jpeg("x"))
        await house.agreed()
        (house.images / "a").rename(house.images / "b")
        await house.agreed()
        shutil.rmtree(house.images / "b")
        await house.agreed()
        assert (await watcher.catalog.status()).watcher.observer == "polling"


async def test_stopping_gives_work_in_flight_back_within_the_grace(house: House) -> None:
    house.embedder.delay_s = 30
    house.options["shutdown_grace_s"] = 0.5
    house.write("a.jpg", jpeg("a"))
    started = time.monotonic()
    async with house.running():
        await until(lambda: house.embedder.in_flight == 1)
    assert time.monotonic() - started < 4
    assert house.ledger_rows("SELECT state, attempts FROM images") == [("pending", 0)]


async def test_stopping_gives_back_what_only_waits_for_its_picture_as_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def in_other_hands(_: ImageLocks, __: str) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(ImageLocks, "hold", in_other_hands)
    house.options["shutdown_grace_s"] = 0.1
    house.write("a.jpg", jpeg("a"))
    async with house.running():
        await until(lambda: house.ledger_rows("SELECT state FROM images") == [("running",)])
    assert house.ledger_rows("SELECT state, attempts FROM images") == [("pending", 0)]
