"""Vectors that were made elsewhere, taken in by the real watcher: over SQLite and PostgreSQL, in the process and over HTTP."""

from __future__ import annotations

import asyncio
import io
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestServer
from PIL import Image

from core import points
from core.catalog_client import CatalogClient
from core.errors import Conflict, InvalidRequest
from core.ports import Catalog
from core.schemas import (
    BBox,
    Embedding,
    GivenEmbeddings,
    ImageAnalysis,
    ImageState,
    ImportAnswer,
    ImportOutcome,
    ImportRequest,
    ModelCard,
    ModelsInfo,
    Priority,
    SegmentMode,
)
from tests.unit.watcher.fakes import DIM, FakeEmbedder, House, KillableLedger, Killed, KillSwitch, image_id_of, models, until
from watcher.importing import WHOLE_ALONE

UNKNOWN = "0" * 64
PATIENCE_S = 20.0
TRUE = np.full(DIM, 0.5, dtype=np.float32)
"""What the fake models make of every picture."""

DECOY = b"\xff\xd8\xff\xe0 decoy 1 \xff\xd9"
HELD = points.image_point_id(image_id_of(DECOY))

SEGMENTER = ModelCard(role="segmenter", model_name="S", source="s", revision="1", runtime="r", device="cpu", precision="fp32")


def with_segmenter(*names: str) -> ModelsInfo:
    return models("f1", *names).model_copy(update={"models": (SEGMENTER,)})


class Held(FakeEmbedder):
    """What is ingested waits until it is released; comparisons do not."""

    def __init__(self, info: ModelsInfo) -> None:
        super().__init__(info)
        self.released = asyncio.Event()
        self.waiting = False

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        if segments is not SegmentMode.NONE:
            self.waiting = True
            await self.released.wait()
        return await super().analyse(image, segments=segments, priority=priority, region=region, fingerprint=fingerprint)


def photo(n: int) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (8, 6), (n % 256, n // 256, 77)).save(written, "JPEG", comment=f"photo {n}")
    return written.getvalue()


def house_in(root: Path, **options: Any) -> House:
    house = House(root)
    house.embedder = Held(with_segmenter("clip"))
    house.options |= {"ingest_concurrency": 1, "shutdown_grace_s": 0.01, **options}
    house.write("decoy.jpg", DECOY)
    return house


@pytest.fixture(params=["sqlite", "postgresql over http"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    options = {} if request.param == "sqlite" else {"database_url": request.getfixturevalue("database").url}
    return house_in(tmp_path, **options)


@pytest.fixture
async def catalog(house: House) -> AsyncIterator[Catalog]:
    async with AsyncExitStack() as stack:
        watcher = await stack.enter_async_context(house.running())
        await held(house)
        if "database_url" not in house.options:
            yield watcher.catalog
            return
        server = TestServer(watcher.app)
        await server.start_server()
        stack.push_async_callback(server.close)
        yield await stack.enter_async_context(CatalogClient(str(server.make_url(""))))


def given(
    picture: str, *, path: bool = False, vector: Any = TRUE, spaces: Sequence[str] = ("clip",), **more: Any
) -> GivenEmbeddings:
    embeddings = tuple(Embedding(collection=space, vector=np.asarray(vector, dtype=np.float32)) for space in spaces)
    return GivenEmbeddings(**{"path" if path else "image_id": picture}, embeddings=embeddings, **more)


async def take(catalog: Catalog, *records: GivenEmbeddings, **options: Any) -> ImportAnswer:
    """As the command does: what is busy is given again."""
    answer = await catalog.take_embeddings(ImportRequest(given=records, **options))
    results, checked = list(answer.results), answer.checked
    async with asyncio.timeout(PATIENCE_S):
        while busy := [n for n, result in enumerate(results) if result.outcome is ImportOutcome.BUSY]:
            await asyncio.sleep(0.02)
            again = await catalog.take_embeddings(ImportRequest(given=tuple(records[n] for n in busy), **options))
            checked += again.checked
            for n, result in zip(busy, again.results, strict=True):
                results[n] = result
    return answer.model_copy(update={"results": tuple(results), "checked": checked})


async def held(house: House) -> None:
    """The one worker waits for the decoy, so nothing else is ingested."""
    await until(lambda: isinstance(house.embedder, Held) and house.embedder.waiting, timeout_s=PATIENCE_S)


async def noticed(house: House, *image_ids: str) -> None:
    await until(
        lambda: {row[0] for row in house.ledger_rows("SELECT image_id FROM images")} >= set(image_ids), timeout_s=PATIENCE_S
    )


def state_of(house: House, image_id: str) -> str:
    states: dict[str, str] = dict(house.ledger_rows("SELECT image_id, state FROM images"))
    return states[image_id]


def release(house: House) -> None:
    assert isinstance(house.embedder, Held)
    house.embedder.released.set()


async def analysed_whole(house: House, content: bytes, *, elsewhere: FakeEmbedder | None = None) -> GivenEmbeddings:
    """As another installation with the same models exports it."""
    made = await (elsewhere or FakeEmbedder(house.embedder.models)).analyse(content)
    return GivenEmbeddings(
        image_id=made.content_hash, fingerprint=made.fingerprint, embeddings=made.embeddings, segments=made.segments
    )


async def test_a_picture_is_found_by_a_given_vector_at_once_and_the_rest_follows_after_all_others(
    catalog: Catalog, house: House
) -> None:
    one, two = house.write("a.jpg", photo(1)), house.write("sub/b.jpg", photo(2))
    await noticed(house, one, two)
    answer = await take(catalog, given(one), given("sub/b.jpg", path=True, vector=3 * TRUE))
    assert [(result.outcome, result.image_id) for result in answer.results] == [("found", one), ("found", two)]
    assert answer.checked == 1
    assert answer.least_agreement == pytest.approx(1)
    record = await catalog.image(two)
    assert (record.state, record.segments, record.width, record.height) == (ImageState.INDEXED, 0, 8, 6)
    stored = house.store.points["clip"][points.image_point_id(two)]
    assert (stored.payload["paths"], stored.payload["fingerprint"]) == (["sub/b.jpg"], "")
    assert np.linalg.norm(stored.vector) == pytest.approx(1)
    assert {row[0] for row in house.ledger_rows("SELECT priority FROM images WHERE state = 'pending'")} == {-2}
    assert [result.outcome for result in (await take(catalog, given(one), given(two))).results] == ["known", "known"]
    release(house)
    await house.agreed(timeout_s=PATIENCE_S)
    assert sum(house.embedder.analysed.values()) == 4, "both and the decoy in full, and one to compare"
    assert [result.outcome for result in (await take(catalog, given(one))).results] == ["known"]


async def test_what_another_installation_made_is_taken_whole_and_nothing_is_analysed(catalog: Catalog, house: House) -> None:
    contents = [photo(n) for n in range(12)]
    ids = [house.write(f"{n}.jpg", content) for n, content in enumerate(contents)]
    await noticed(house, *ids)
    answer = await take(catalog, *[await analysed_whole(house, content) for content in contents])
    assert {result.outcome for result in answer.results} == {ImportOutcome.INDEXED}
    release(house)
    await house.agreed(timeout_s=PATIENCE_S)
    assert sorted(mode for mode, _ in house.embedder.modes) == [SegmentMode.NONE, SegmentMode.STANDARD], "one compared; the decoy"


async def test_a_vector_without_a_picture_is_never_written(catalog: Catalog, house: House) -> None:
    one = house.write("a.jpg", photo(1))
    await noticed(house, one)
    answer = await take(catalog, given(UNKNOWN), given("nothing.jpg", path=True), given(one))
    assert [result.outcome for result in answer.results] == ["unknown", "unknown", "found"]
    assert set(house.store.points["clip"]) == {points.image_point_id(one)}
    (house.images / "a.jpg").unlink()
    await until(lambda: not set(house.store.points["clip"]) - {HELD}, timeout_s=PATIENCE_S)
    assert [result.outcome for result in (await take(catalog, given(one))).results] == ["unknown"]
    assert not set(house.store.points["clip"]) - {HELD}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (given(UNKNOWN, vector=[1.0] * (DIM + 1)), "numbers"),
        (given(UNKNOWN, spaces=["other"]), "no such space"),
        (given(UNKNOWN, spaces=["clip", "clip"]), "one a space"),
        (given(UNKNOWN, spaces=[]), "one a space"),
        (given(UNKNOWN, fingerprint="f2"), "other models"),
        (GivenEmbeddings(embeddings=(Embedding(collection="clip", vector=TRUE),)), "either"),
    ],
)
async def test_what_fits_no_space_of_these_models_is_refused_as_a_whole(
    catalog: Catalog, house: House, wrong: GivenEmbeddings, says: str
) -> None:
    one = house.write("a.jpg", photo(1))
    await noticed(house, one)
    with pytest.raises(InvalidRequest, match=says) as refused:
        await take(catalog, given(one), wrong)
    assert refused.value.field == "given.1"
    assert not set(house.store.points["clip"]) - {HELD}


async def test_a_vector_that_is_no_direction_is_refused_alone(catalog: Catalog, house: House) -> None:
    ids = [house.write(f"{n}.jpg", photo(n)) for n in range(4)]
    await noticed(house, *ids)
    nan, inf = [np.nan, 0, 0, 1], [np.inf, 0, 0, 1]
    wrong = [given(one, vector=vector) for one, vector in zip(ids, (nan, inf, [0.0] * DIM), strict=False)]
    answer = await take(catalog, *wrong, given(ids[3]))
    assert [result.outcome for result in answer.results] == ["refused"] * 3 + ["found"]
    assert set(house.store.points["clip"]) == {points.image_point_id(ids[3])}


async def test_vectors_of_another_model_never_enter(catalog: Catalog, house: House) -> None:
    ids = [house.write(f"{n}.jpg", photo(n)) for n in range(5)]
    await noticed(house, *ids)
    with pytest.raises(InvalidRequest, match=r"cosine 0\.\d+.*nothing was taken"):
        await take(catalog, *[given(one, vector=[1, 0.2, 0, 0]) for one in ids])
    assert not set(house.store.points["clip"]) - {HELD}
    with pytest.raises(InvalidRequest, match="cosine"):
        await take(catalog, *map(given, ids[1:]), given(ids[0], vector=[-1, 0.2, 0, 0]), checks=5)
    assert not set(house.store.points["clip"]) - {HELD}


async def test_all_that_is_there_is_given_or_asked_for_no_more(tmp_path: Path) -> None:
    house = house_in(tmp_path)
    house.embedder.models = models("f1", "clip", "resnet")
    async with house.running() as watcher:
        await held(house)
        one = house.write("a.jpg", photo(1))
        await noticed(house, one)
        both = given(one, spaces=["clip", "resnet"])
        assert [result.outcome for result in (await take(watcher.catalog, given(one))).results] == ["found"]
        assert set(house.store.points["resnet"]) == set()
        assert [result.outcome for result in (await take(watcher.catalog, both)).results] == ["indexed"], (
            "no segmenter: all is there"
        )
        house.embedder.models = with_segmenter("clip", "resnet")
        two = house.write("b.jpg", photo(2))
        await noticed(house, two)
        with pytest.raises(InvalidRequest, match="missing"):
            await take(watcher.catalog, given(two), whole_alone=True)


async def test_a_picture_may_stay_without_regions_and_says_so(catalog: Catalog, house: House) -> None:
    one = house.write("a.jpg", photo(1))
    await noticed(house, one)
    assert [result.outcome for result in (await take(catalog, given(one), whole_alone=True)).results] == ["indexed"]
    release(house)
    two = house.write("b.jpg", photo(2))
    await until(lambda: state_of(house, two) == "indexed", timeout_s=PATIENCE_S)
    record = await catalog.image(one)
    assert (record.state, record.segments, record.detail) == (ImageState.INDEXED, 0, WHOLE_ALONE)
    assert house.embedder.analysed[one] == 1, "to compare"
    assert len(await catalog.resegment(one, SegmentMode.FULL)) == (await catalog.image(one)).segments
    assert (await catalog.image(one)).detail is None


async def test_a_file_that_is_no_whole_picture_is_not_found_by_a_vector(catalog: Catalog, house: House) -> None:
    broken, whole = b"\xff\xd8\xff\xe0 broken \xff\xd9", photo(2)
    ids = [house.write("a.jpg", broken), house.write("b.jpg", whole)]
    await noticed(house, *ids)
    answer = await take(catalog, *map(given, ids))
    assert [result.outcome for result in answer.results] == ["refused", "found"]
    release(house)
    await until(lambda: state_of(house, ids[0]) == "failed", timeout_s=PATIENCE_S)
    assert [result.outcome for result in (await take(catalog, given(ids[0]))).results] == ["refused"]
    assert set(house.store.points["clip"]) & {points.image_point_id(ids[0])} == set()


async def test_what_the_models_refuse_later_is_found_no_more(tmp_path: Path) -> None:
    house = house_in(tmp_path, max_attempts=1)
    async with house.running() as watcher:
        await held(house)
        one = house.write("a.jpg", photo(1))
        await noticed(house, one)
        await take(watcher.catalog, given(one))
        assert house.store.points["clip"]
        house.embedder.trouble = lambda _: RuntimeError("poison")
        release(house)
        await until(lambda: state_of(house, one) == "failed", timeout_s=PATIENCE_S)
        assert not set(house.store.points["clip"]) - {HELD}


async def test_regions_that_no_decoder_should_see_are_refused(tmp_path: Path) -> None:
    house = house_in(tmp_path)
    contents = [photo(n) for n in range(1, 5)]
    async with house.running() as watcher:
        await held(house)
        ids = [house.write(f"{n}.jpg", content) for n, content in enumerate(contents)]
        await noticed(house, *ids)
        records = [await analysed_whole(house, content) for content in contents]

        def bent(record: GivenEmbeddings, **change: Any) -> GivenEmbeddings:
            assert record.segments, "the fake found nothing in this one"
            first = record.segments[0].model_copy(update=change)
            return record.model_copy(update={"segments": (first, *record.segments[1:])})

        mask = records[0].segments[0].mask
        wrong = [
            bent(records[0], mask=mask.model_copy(update={"counts": "0" * 50})),
            bent(records[1], bbox=(0.0, 0.0, float("nan"), 1.0)),
        ]
        answer = await take(watcher.catalog, *wrong)
        assert {result.outcome for result in answer.results} == {ImportOutcome.REFUSED}
        with pytest.raises(InvalidRequest, match="wrong number"):
            await take(watcher.catalog, bent(records[2], n=7))
        assert not set(house.store.points["clip"]) - {HELD}


async def test_while_the_models_change_nothing_is_taken(tmp_path: Path) -> None:
    house = house_in(tmp_path)
    release(house)
    async with house.running() as watcher:
        await house.agreed(timeout_s=PATIENCE_S)
        house.embedder.before["f1"] = house.embedder.models
        assert isinstance(house.embedder, Held)
        house.embedder.released.clear()
        house.embedder.models = with_segmenter("other").model_copy(update={"fingerprint": "f2"})
        watcher.catalog._parts.worker.models_turned()  # type: ignore[attr-defined]
        two = house.write("b.jpg", photo(2))
        await noticed(house, two)
        with pytest.raises(Conflict):
            await take(watcher.catalog, given(two, spaces=["other"]))


async def test_an_import_beside_ordinary_ingestion_ends_with_every_picture_whole(catalog: Catalog, house: House) -> None:
    contents = [photo(n) for n in range(40)]
    ids = [image_id_of(content) for content in contents]
    records = [await analysed_whole(house, content) if n % 2 else given(ids[n]) for n, content in enumerate(contents)]
    random.shuffle(records)

    async def copy() -> None:
        for n, content in enumerate(contents):
            house.write(f"{n % 3}/{n}.jpg", content)
            if n == 20:
                release(house)
            await asyncio.sleep(0.005)

    async def give() -> None:
        left = records
        while left:
            answer = await catalog.take_embeddings(ImportRequest(given=tuple(left), checks=2))
            again = {ImportOutcome.UNKNOWN, ImportOutcome.BUSY}
            left = [one for one, result in zip(left, answer.results, strict=True) if result.outcome in again]
            assert all(result.outcome is not ImportOutcome.REFUSED for result in answer.results)
            await asyncio.sleep(0.02)

    await asyncio.gather(copy(), give())
    await house.agreed(timeout_s=PATIENCE_S)


Give = Callable[[House], Any]


async def _given_until_killed(house: House, switch: KillSwitch, records: Sequence[GivenEmbeddings]) -> bool:
    """True if it was killed. What was written by then stays."""
    house.store.switch = house.embedder.switch = switch

    async def live() -> None:
        async with house.running(KillableLedger(house.state, switch)) as watcher:
            await held(house)
            for n in range(3):
                house.write(f"{n}.jpg", photo(n))
            await noticed(house, *[record.image_id or "" for record in records])
            await take(watcher.catalog, *records)

    living, dying = asyncio.create_task(live()), asyncio.create_task(switch.dead.wait())
    await asyncio.wait([living, dying], return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if switch.dead.is_set():
        living.cancel()
    with suppress(Killed, asyncio.CancelledError):
        await living
    house.store.switch = house.embedder.switch = KillSwitch()
    return switch.dead.is_set()


@pytest.mark.timeout(3600)
async def test_a_kill_at_any_operation_of_an_import_ends_as_if_there_was_none(tmp_path: Path) -> None:
    stride, at, kills = int(os.environ.get("CRASH_STRIDE", "29")), 1, 0
    killed = True
    while killed:
        root = tmp_path / str(at)
        root.mkdir()
        house = house_in(root, shutdown_grace_s=0.001)
        contents = [photo(n) for n in range(3)]
        ids = list(map(image_id_of, contents))
        records = [await analysed_whole(house, contents[0]), await analysed_whole(house, contents[1]), given(ids[2])]
        killed = await _given_until_killed(house, KillSwitch(at), records)
        for n, content in enumerate(contents):
            house.write(f"{n}.jpg", content)
        assert isinstance(house.embedder, Held)
        house.embedder.waiting = False
        async with house.running() as watcher:
            await noticed(house, *ids)
            release(house)
            answer = await take(watcher.catalog, *records)
            assert {result.outcome for result in answer.results} <= {"indexed", "found", "known"}, (at, answer)
            told = {one: (await watcher.catalog.image(one)).state for one in ids}
            assert set(told.values()) == {ImageState.INDEXED}, (at, told)
            await house.agreed(timeout_s=PATIENCE_S)
        at, kills = at + stride, kills + killed
    assert kills > 1
