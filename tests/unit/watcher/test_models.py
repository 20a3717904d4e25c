"""A change of models: another edition fills while the one before answers, whatever is done about it, and whenever the process ends."""

from __future__ import annotations

import asyncio
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from core.errors import Conflict
from core.ports import Catalog
from core.schemas import ImageState, ModelsAction, ModelsCourse, ModelsInfo, SegmentMode
from tests.unit.watcher.fakes import LOADING, FakeStore, House, KillableLedger, Killed, KillSwitch, jpeg, models, until

ONE, TWO, THREE = models("f1", "clip-f1"), models("f2", "clip-f2", "resnet-f2"), models("f3", "clip-f3")
PICTURES = 6


@pytest.fixture
async def house(tmp_path: Path) -> House:
    """Six pictures, indexed by the first models; the settings name the second by now, and the first are to be had yet."""
    made = House(tmp_path)
    made.options["ingest_concurrency"] = 1
    made.embedder.models = ONE
    for number in range(PICTURES):
        made.write(f"{number}.jpg", jpeg(f"picture {number}"))
    async with made.running():
        await made.agreed()
    _configure(made, TWO)
    return made


def _configure(house: House, info: ModelsInfo) -> None:
    house.embedder.before[house.embedder.models.fingerprint] = house.embedder.models
    house.embedder.models = info


async def _settled(catalog: Catalog, fingerprint: str) -> ModelsCourse:
    """Wait until these models answer, and no change is under way."""
    async with asyncio.timeout(10):
        while (course := await catalog.models()).searched != fingerprint or course.change is not None:
            await asyncio.sleep(0.01)
    return course


def _images_in(house: House, collection: str) -> int:
    return sum(1 for point in house.store.points.get(collection, {}).values() if point.payload["kind"] == "image")


async def test_the_first_models_answer_at_once_and_others_when_they_have_every_picture(house: House) -> None:
    house.embedder.delay_s = 0.05
    async with house.running() as watcher:
        await until(lambda: house.embedder.analysed_by["f2"] > 0)
        course = await watcher.catalog.models()
        assert (course.searched, course.previous) == ("f1", None)
        assert course.change is not None
        status = await watcher.catalog.status()
        assert (status.images.indexed, status.images.pending + status.images.running) == (PICTURES, 0), "all can be found"
        assert status.model_change is not None
        assert (await _settled(watcher.catalog, "f2")).previous == "fake"
        await house.agreed()
    assert house.embedder.analysed_by == {"f1": PICTURES, "f2": PICTURES}


async def test_new_pictures_go_into_both_and_come_first(house: House) -> None:
    async with house.running() as watcher:
        with suppress(Conflict):
            await _stopped(house, watcher.catalog)
        late = house.write("late.jpg", jpeg("late"))
        await until(lambda: _is_indexed(house, late))
        assert _images_in(house, "clip-f1") == PICTURES + 1, "it can be found by the models that answer"
        await watcher.catalog.turn_models(ModelsAction.RESUME)
        await _settled(watcher.catalog, "f2")
        assert _images_in(house, "clip-f2") == _images_in(house, "resnet-f2") == PICTURES + 1
    assert house.embedder.analysed_by == {"f1": PICTURES + 1, "f2": PICTURES + 1}


async def _stopped(house: House, catalog: Catalog) -> None:
    """Stop the change as soon as there is one; its models take their time."""
    house.embedder.delay_s = 0.05
    await until(lambda: bool(house.ledger_rows("SELECT 1 FROM course WHERE searched <> target")))
    await catalog.turn_models(ModelsAction.STOP)
    house.embedder.delay_s = 0.0


def _is_indexed(house: House, image_id: str) -> bool:
    return (image_id, "indexed") in house.ledger_rows("SELECT image_id, state FROM images")


async def test_deletions_and_moves_reach_both_editions_while_a_change_stands_still(house: House) -> None:
    async with house.running() as watcher:
        await _stopped(house, watcher.catalog)
        (house.images / "0.jpg").unlink()
        (house.images / "1.jpg").rename(house.images / "moved.jpg")
        await until(lambda: _images_in(house, "clip-f1") == PICTURES - 1)
        await until(lambda: any("moved.jpg" in point.payload["paths"] for point in house.store.points["clip-f1"].values()))
        await watcher.catalog.turn_models(ModelsAction.RESUME)
        await _settled(watcher.catalog, "f2")
        await house.agreed()


async def test_what_was_stopped_stays_stopped_over_a_restart_and_is_resumed_where_it_was(house: House) -> None:
    async with house.running() as watcher:
        await _stopped(house, watcher.catalog)
        with pytest.raises(Conflict):
            await watcher.catalog.turn_models(ModelsAction.DROP)
    made = house.embedder.analysed_by["f2"]
    async with house.running() as watcher:
        course = await watcher.catalog.models()
        assert (course.searched, course.change and course.change.stopped) == ("f1", True)
        late = house.write("late.jpg", jpeg("late"))
        await until(lambda: _is_indexed(house, late))
        assert house.embedder.analysed_by["f2"] == made + 1, "the new picture alone"
        await watcher.catalog.turn_models(ModelsAction.RESUME)
        await _settled(watcher.catalog, "f2")
    assert house.embedder.analysed_by["f2"] == PICTURES + 1


async def test_a_revert_midway_stays_with_the_models_before_and_can_be_taken_back(house: House) -> None:
    async with house.running() as watcher:
        await _stopped(house, watcher.catalog)
        await watcher.catalog.turn_models(ModelsAction.REVERT)
        await _settled(watcher.catalog, "f1")
    assert house.embedder.analysed_by["f1"] == PICTURES, "the way back costs nothing"
    async with house.running() as watcher:
        late = house.write("late.jpg", jpeg("late"))
        await until(lambda: _is_indexed(house, late))
        assert (await _settled(watcher.catalog, "f1")).change is None, "it holds against the settings"
        assert _images_in(house, "clip-f1") == PICTURES + 1
        await watcher.catalog.turn_models(ModelsAction.RESUME)
        await _settled(watcher.catalog, "f2")
        await house.agreed()
    assert house.embedder.analysed_by == {"f1": PICTURES + 1, "f2": PICTURES + 1}


async def test_a_revert_afterwards_embeds_only_what_came_since(house: House) -> None:
    async with house.running() as watcher:
        await _settled(watcher.catalog, "f2")
        house.write("late.jpg", jpeg("late"))
        await house.agreed()
        (house.images / "0.jpg").unlink()
        await house.agreed()
        assert house.embedder.analysed_by["f1"] == PICTURES
        await watcher.catalog.turn_models(ModelsAction.REVERT)
        assert (await _settled(watcher.catalog, "f1")).previous == "fake"
        assert _images_in(house, "clip-f1") == PICTURES
    assert house.embedder.analysed_by == {"f1": PICTURES + 1, "f2": PICTURES + 1}


async def test_the_edition_before_the_previous_goes_and_drop_takes_the_previous(house: House) -> None:
    async with house.running() as watcher:
        await _settled(watcher.catalog, "f2")
    _configure(house, THREE)
    async with house.running() as watcher:
        await _settled(watcher.catalog, "f3")
        await until(lambda: "clip-f1" not in house.store.points)
        assert {"clip-f2", "resnet-f2", "clip-f3"} <= house.store.points.keys()
        assert (await watcher.catalog.turn_models(ModelsAction.DROP)).previous is None
        await until(lambda: house.store.points.keys() == {"clip-f3"})
        with pytest.raises(Conflict):
            await watcher.catalog.turn_models(ModelsAction.REVERT)
        with pytest.raises(Conflict, match="nothing to drop"):
            await watcher.catalog.turn_models(ModelsAction.DROP)


async def test_third_models_in_the_middle_of_a_change_take_its_place(house: House) -> None:
    async with house.running() as watcher:
        await _stopped(house, watcher.catalog)
    _configure(house, THREE)
    async with house.running() as watcher:
        assert (await watcher.catalog.models()).searched == "f1"
        assert (await _settled(watcher.catalog, "f3")).previous == "fake"
        await until(lambda: house.store.points.keys() == {"clip-f1", "clip-f3"})


async def test_without_the_weights_before_the_new_models_answer_as_they_fill_and_it_is_said(house: House) -> None:
    house.embedder.before.clear()
    house.embedder.delay_s = 0.05
    async with house.running() as watcher:
        async with asyncio.timeout(5):
            while (course := await watcher.catalog.models()).notice is None:
                await asyncio.sleep(0.01)
        assert course.searched == "f2"
        assert course.change is not None
        assert "cannot be had any more" in course.notice
        assert (await _settled(watcher.catalog, "f2")).notice is None
        with pytest.raises(Conflict, match="cannot be had"):
            await watcher.catalog.turn_models(ModelsAction.REVERT)


async def test_new_pictures_wait_for_models_before_that_are_still_being_loaded(house: House) -> None:
    house.embedder.before["f1"] = LOADING
    async with house.running() as watcher:
        late = house.write("late.jpg", jpeg("late"))
        async with asyncio.timeout(5):
            while (await watcher.catalog.status()).watcher.waiting_for is None:
                await asyncio.sleep(0.01)
        assert (await watcher.catalog.models()).searched == "f1"
        assert (await watcher.catalog.image(late)).state in {ImageState.PENDING, ImageState.RUNNING}
        house.embedder.before["f1"] = ONE
        await _settled(watcher.catalog, "f2")
        assert _images_in(house, "clip-f1") == _images_in(house, "clip-f2") == PICTURES + 1


async def test_segmenting_again_in_the_middle_of_a_change_shows_in_both(house: House) -> None:
    image_id = house.write("many.jpg", jpeg("many 4"))
    async with house.running() as watcher:
        await _stopped(house, watcher.catalog)
        await until(lambda: _is_indexed(house, image_id))
        house.embedder.extra_segments = -2
        assert len(await watcher.catalog.resegment(image_id, SegmentMode.FULL)) == 2
        for collection in ("clip-f1", "clip-f2"):
            held = [point for point in house.store.points[collection].values() if point.payload["image_id"] == image_id]
            assert len(held) == 1 + 2


async def test_points_lost_from_the_edition_to_come_are_made_before_it_takes_over(house: House) -> None:
    async with house.running() as watcher:
        await _stopped(house, watcher.catalog)
        late = house.write("late.jpg", jpeg("late"))
        await until(lambda: _is_indexed(house, late))
        house.store.points["clip-f2"].clear()
        await watcher.catalog.turn_models(ModelsAction.RESUME)
        await _settled(watcher.catalog, "f2")
        await house.agreed()
        assert _images_in(house, "clip-f2") == PICTURES + 1


async def test_a_kill_at_any_operation_of_a_change_is_made_good_by_the_next_start(house: House, tmp_path: Path) -> None:
    """Until the take-over the models before have all pictures; after it the new ones; and no picture is embedded a third time."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, at, stride = random.Random(seed), 1, 40
    while True:
        copy = _copy_of(house, tmp_path / str(at))
        killed = await _run_until_killed(copy, KillSwitch(at))
        _assert_complete(copy)
        async with copy.running() as watcher:
            _assert_complete(copy)
            await _settled(watcher.catalog, "f2")
            await copy.agreed()
        late = len(copy.truth()) - PICTURES
        assert copy.embedder.analysed_by["f2"] <= PICTURES + late + copy.options["ingest_concurrency"], f"seed {seed}, at {at}"
        shutil.rmtree(tmp_path / str(at))
        if not killed:
            break
        at += rng.randint(1, stride)
    assert at > 100, "it was over too soon to prove anything"


def _copy_of(template: House, root: Path) -> House:
    root.mkdir()
    copy = House(root)
    copy.options = {"ingest_concurrency": 2, "shutdown_grace_s": 0.001, "orphan_grace_s": 0.0}
    shutil.copytree(template.images, copy.images, dirs_exist_ok=True)
    shutil.copytree(template.state, copy.state)
    copy.store = FakeStore()
    copy.store.points = {collection: dict(held) for collection, held in template.store.points.items()}
    copy.embedder.models, copy.embedder.before = TWO, {"f1": ONE}
    copy.write("late.jpg", jpeg("late 1"))
    return copy


async def _run_until_killed(house: House, switch: KillSwitch) -> bool:
    house.store.switch = house.embedder.switch = switch

    async def live() -> None:
        async with house.running(KillableLedger(house.state, switch)) as watcher:
            await _settled(watcher.catalog, "f2")
            await house.agreed()

    living, dying = asyncio.create_task(live()), asyncio.create_task(switch.dead.wait())
    await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if killed := switch.dead.is_set():
        living.cancel()
    with suppress(Killed, asyncio.CancelledError):
        await living
    house.store.switch = house.embedder.switch = KillSwitch()
    return killed


def _assert_complete(house: House) -> None:
    """Whatever the ledger says is searched holds every picture that was indexed before the change."""
    [(searched,)] = house.ledger_rows("SELECT searched FROM course")
    for space in {"f1": ONE, "f2": TWO}[searched].spaces:
        assert _images_in(house, space.collection) >= PICTURES
