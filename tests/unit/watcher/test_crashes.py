"""The process ends at every single operation in turn; the next one always ends with disk, ledger and vectors in agreement."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from core.errors import ModelCrashed
from core.points import segment_point_id
from core.ports import Point, Where
from core.schemas import SegmentMode
from tests.unit.watcher.fakes import (
    DIM,
    FakeEmbedder,
    FakeStore,
    House,
    KillableLedger,
    Killed,
    KillSwitch,
    image_id_of,
    jpeg,
    models,
)

Change = Callable[[House], None]


def _nothing(_: House) -> None:
    """The first ingestion."""


def _move_delete_replace(house: House) -> None:
    (house.images / "one.jpg").rename(house.images / "moved.jpg")
    (house.images / "two.jpg").unlink()
    house.write("three.jpg", jpeg("replaced 1"))
    shutil.copy(house.images / "moved.jpg", house.images / "copy.jpg")


def _other_models(house: House) -> None:
    house.embedder.models = models("f2", "clip", "siglip")
    house.embedder.extra_segments = -1


def _earlier_release(house: House) -> None:
    house.age()


async def _run_until_killed(house: House, switch: KillSwitch) -> bool:
    """Run until the switch ends it, or all is done. True if it was killed. Everything written by then stays, nothing after."""
    house.store.switch = house.embedder.switch = switch

    async def live() -> None:
        async with house.running(KillableLedger(house.state, switch)):
            await house.agreed(timeout_s=20)

    living = asyncio.create_task(live())
    dying = asyncio.create_task(switch.dead.wait())
    await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    killed = switch.dead.is_set()
    if killed:
        living.cancel()
    with suppress(Killed, asyncio.CancelledError):
        await living
    house.store.switch = house.embedder.switch = KillSwitch()
    return killed


def _house_with_pictures(root: Path) -> House:
    root.mkdir()
    house = House(root)
    house.options |= {"orphan_grace_s": 0.0, "ingest_concurrency": 2, "shutdown_grace_s": 0.001}
    house.write("one.jpg", jpeg("one 3"))
    house.write("two.jpg", jpeg("two 1"))
    house.write("three.jpg", jpeg("broken"))
    return house


@pytest.mark.timeout(600)
@pytest.mark.parametrize("change", [_nothing, _move_delete_replace, _other_models, _earlier_release])
async def test_a_kill_at_any_operation_is_mended_by_the_next_start(tmp_path: Path, change: Change) -> None:
    stride = int(os.environ.get("CRASH_STRIDE", "9"))  # 1 tries every operation: three minutes
    template = _house_with_pictures(tmp_path / "template")
    if change is not _nothing:
        async with template.running():
            await template.agreed()
    at = random.randint(1, stride)
    while True:
        house = _copy_of(template, tmp_path / str(at))
        change(house)
        inferences_before = dict(house.embedder.analysed)
        killed = await _run_until_killed(house, KillSwitch(at))
        async with house.running():
            await house.agreed(timeout_s=20)
        extra = {one: count - inferences_before.get(one, 0) for one, count in house.embedder.analysed.items()}
        most = 0 if change is _earlier_release else 2
        assert all(count <= most for count in extra.values()), f"killed at {at}: {extra}"
        shutil.rmtree(tmp_path / str(at))
        if not killed:
            break
        at += stride
    assert at > 50, "it was over too soon to prove anything"


def _copy_of(template: House, root: Path) -> House:
    root.mkdir()
    house = House(root)
    house.options = template.options
    shutil.copytree(template.images, house.images, dirs_exist_ok=True)
    if template.state.exists():
        shutil.copytree(template.state, house.state)
    house.store = FakeStore()
    house.store.points = {collection: dict(held) for collection, held in template.store.points.items()}
    return house


async def test_a_picture_that_crashes_the_models_fails_alone_after_four_attempts(house: House) -> None:
    for number in range(12):
        house.write(f"{number:02}.jpg", jpeg(f"p{number}"))
    poison = house.write("05.jpg", jpeg("poison"))
    embedder = house.embedder
    embedder.delay_s = 0.02
    embedder.trouble = lambda image: _crash_all(embedder) if b"poison" in image else _crash_of_company(embedder)
    house.options["retry_min_s"] = 0.01
    async with house.running() as watcher:
        await _until_done(house)
        record = await watcher.catalog.image(poison)
        assert (record.state.value, record.reason) == ("failed", "crashes_model")
        assert (await watcher.catalog.status()).images.indexed == 11
    assert embedder.crashes == 4


class _CrashingEmbedder(FakeEmbedder):
    crashes = 0
    company = 0


def _crash_all(embedder: FakeEmbedder) -> ModelCrashed:
    assert isinstance(embedder, _CrashingEmbedder)
    embedder.crashes += 1
    embedder.company = embedder.in_flight - 1
    return ModelCrashed("the model service died")


def _crash_of_company(embedder: FakeEmbedder) -> ModelCrashed | None:
    """Whatever was in flight beside the poison fails with it."""
    assert isinstance(embedder, _CrashingEmbedder)
    if embedder.company > 0:
        embedder.company -= 1
        return ModelCrashed("the model service died")
    return None


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(tmp_path)
    made.embedder = _CrashingEmbedder()
    return made


async def _until_done(house: House) -> None:
    async with asyncio.timeout(15):
        while True:
            await asyncio.sleep(0.05)
            states = [state for (state,) in house.ledger_rows("SELECT state FROM images")]
            if len(states) == 12 and set(states) <= {"indexed", "failed"}:
                return


class _Deleting(FakeStore):
    """Tells where something was deleted."""

    def __init__(self) -> None:
        super().__init__()
        self.deletions: list[str] = []

    async def delete(self, collection: str, where: Where) -> None:
        self.deletions.append(collection)
        await super().delete(collection, where)


async def test_a_picture_of_which_nothing_lies_there_costs_no_deletion_and_what_a_run_left_without_a_seal_goes(
    house: House,
) -> None:
    house.store = store = _Deleting()
    house.write("new.jpg", jpeg("new 2"))
    content = jpeg("left 1")
    left = image_id_of(content)
    async with house.running():
        await house.agreed()
        assert store.deletions == []
        point_id = segment_point_id(left, 4)
        payload = {"image_id": left, "kind": "segment", "n": 4, "fingerprint": "f1"}
        store.points["clip"][point_id] = Point(point_id, np.ones(DIM, np.float32), payload)
        house.write("left.jpg", content)
        await house.agreed()
    assert store.deletions == ["clip"]


async def test_a_segmentation_on_request_replaces_the_segments(house: House) -> None:
    image_id = house.write("a.jpg", jpeg("a 4"))
    async with house.running() as watcher:
        await house.agreed()
        house.embedder.extra_segments = -2
        assert len(await watcher.catalog.resegment(image_id, SegmentMode.FULL)) == 2
        await house.agreed()
        assert (await watcher.catalog.image(image_id)).segments == 2
    assert house.embedder.modes[-1] == (SegmentMode.FULL, "query")


async def test_pictures_that_all_came_back_from_one_outage_are_taken_up_again_at_once(house: House) -> None:
    """None was left to claim when they came back, so that nothing else would wake the worker for a minute."""
    tried: set[bytes] = set()

    def fail_once(image: bytes) -> ModelCrashed | None:
        if image in tried:
            return None
        tried.add(image)
        return ModelCrashed("the model service died")

    house.embedder.delay_s = 0.05
    house.embedder.trouble = fail_once
    house.write("a.jpg", jpeg("a"))
    house.write("b.jpg", jpeg("b"))
    async with house.running():
        await house.agreed(timeout_s=5)
