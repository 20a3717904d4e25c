"""Ledger and collection, compared range by range: what was lost and what came back is found, whatever lies beside it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from core import points
from core.ports import ANYTHING, Match, Point, Prefix, Record, Where
from core.schemas import EngineState, ImageState, ModelsInfo, Space
from core.sql.connection import Connection
from tests.fakes import FakeVectorStore
from watcher import jobs, locations, ranges, views
from watcher.comparison import Compared, Comparison, ids_of
from watcher.jobs import Outcome
from watcher.ledger import FileLedger, Ledger
from watcher.locations import Admission, FileStat
from watcher.locks import ImageLocks
from watcher.reconcile import Mended, Reconciler, VectorCheck
from watcher.shared_ledger import SharedLedger
from watcher.views import Expected

P = ParamSpec("P")
R = TypeVar("R")

NAME = "clip-test"
MODELS = ModelsInfo(
    state=EngineState.READY,
    profile="p",
    requested_profile="p",
    spaces=(Space(collection=NAME, model_name="CLIP", dim=4, text=True),),
    fingerprint="f",
)
_VECTOR = np.ones(4, np.float32)


@pytest.fixture(params=["sqlite", "postgresql"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    home: Ledger = FileLedger(tmp_path) if request.param == "sqlite" else SharedLedger(request.getfixturevalue("database"))
    async with home:
        yield home


@pytest.fixture
async def file_ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    async with FileLedger(tmp_path) as home:
        yield home


def images_of(count: int, seed: int = 0) -> list[Expected]:
    """With 0 to 4 segments."""
    return [Expected(hashlib.sha256(f"{seed}/{n}".encode()).hexdigest(), n % 5) for n in range(count)]


def points_of(image: Expected) -> list[Point]:
    kinds = ["image"] + ["segment"] * image.segments
    return [
        Point(point_id, _VECTOR, {"image_id": image.image_id, "kind": kind, "n": n - 1})
        for n, (point_id, kind) in enumerate(zip(ids_of(image), kinds, strict=True))
    ]


async def index(ledger: Ledger, images: Sequence[Expected]) -> None:
    """In the ledger alone."""
    stat = FileStat(1, 2, 3)
    await ledger.run(locations.admit, [Admission(f"{one.image_id}.jpg", stat, one.image_id, 1.0, 0) for one in images], 1.0)
    for one in images:
        job = await ledger.run(jobs.claim_image, one.image_id, 1.0, 60.0)
        assert job is not None
        version = (await ledger.run(jobs.places, one.image_id)).version
        assert await ledger.run(jobs.complete, job, Outcome("f", 1, 1, one.segments, version), 1.0)


async def whole(images: Sequence[Expected]) -> FakeVectorStore:
    store = FakeVectorStore()
    await store.upsert(NAME, [point for image in images for point in points_of(image)])
    return store


async def all_of(walk: AsyncGenerator[Compared, None]) -> list[Compared]:
    return [compared async for compared in walk]


def comparison(ledger: Ledger, store: FakeVectorStore, *, points_per_range: int = 20) -> Comparison:
    return Comparison(ledger, store, points_per_range=points_per_range)


async def test_where_all_agrees_every_point_is_looked_at_once_and_counts_ask_nothing_more(ledger: Ledger) -> None:
    images = images_of(100)
    await index(ledger, images)
    store = await whole(images)
    compared = comparison(ledger, store)
    assert await all_of(compared.differing(NAME)) == []
    looked = await all_of(compared.every_point(NAME, until=float("inf")))
    assert all(not one.lacking and not one.unexplained for one in looked)
    found = [image for one in looked for image in await ledger.run(ranges.expected, one.beginning)]
    assert found == sorted(images, key=lambda image: image.image_id)
    assert not compared.is_under_way(NAME)


@dataclass(frozen=True)
class Damage:
    seed: int
    images: int
    lost: int
    revived: int
    stale: int


@given(
    st.builds(
        Damage,
        seed=st.integers(0, 2**32 - 1),
        images=st.integers(0, 60),
        lost=st.integers(0, 40),
        revived=st.integers(0, 40),
        stale=st.integers(0, 10),
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_was_lost_and_what_came_back_is_found_exactly(
    tmp_path_factory: pytest.TempPathFactory, damage: Damage
) -> None:
    chance = random.Random(damage.seed)
    images = images_of(damage.images, damage.seed)
    async with FileLedger(tmp_path_factory.mktemp("ledger")) as ledger:
        await index(ledger, images)
        store = await whole(images)
        held = sorted(store.stored.setdefault(NAME, {}))
        gone = set(chance.sample(held, min(damage.lost, len(held))))
        for point_id in gone:
            del store.stored[NAME][point_id]
        back = [point for image in images_of(damage.revived, damage.seed + 1) for point in points_of(image)]
        beyond = chance.sample(images, min(damage.stale, len(images)))
        back += [points_of(Expected(image.image_id, image.segments + 1))[-1] for image in beyond]
        await store.upsert(NAME, back)

        looked = await all_of(comparison(ledger, store).every_point(NAME, until=float("inf")))
        lacking = {image_id for one in looked for image_id in one.lacking}
        assert lacking == {image.image_id for image in images if gone & set(ids_of(image))}
        assert {point_id for one in looked for point_id in one.unexplained} == {point.id for point in back}

        by_counts = await all_of(comparison(ledger, store).differing(NAME))
        assert {image_id for one in by_counts for image_id in one.lacking} <= lacking
        if not back:
            assert {image_id for one in by_counts for image_id in one.lacking} == lacking


@pytest.mark.parametrize("every_point", [True, False])
async def test_lost_points_start_their_images_anew_and_revived_ones_go(ledger: Ledger, *, every_point: bool) -> None:
    images = images_of(30)
    await index(ledger, images)
    store = await whole(images)
    lost = images[7]
    await store.delete(NAME, Where(must=(Match("image_id", (lost.image_id,)), Match("kind", ("image",)))))
    [stranger] = images_of(1, seed=9)
    await store.upsert(NAME, points_of(Expected(stranger.image_id, 3)))
    stale = images[11]
    await store.upsert(NAME, points_of(Expected(stale.image_id, stale.segments + 2)))

    with capture_logs() as logs:
        mended = await VectorCheck(ledger, store, ImageLocks()).mend(MODELS, every_point=every_point)
    assert (mended.missing, mended.stray, mended.complete) == (1, 4 + 2, True)
    assert {entry["event"] for entry in logs} == {"points_missing", "points_removed"}
    record = await ledger.run(views.image, lost.image_id)
    assert record is not None
    assert record.state is ImageState.PENDING
    kept = {point.id for image in images for point in points_of(image)} - {points.image_point_id(lost.image_id)}
    assert set(store.stored[NAME]) == kept


async def test_lost_and_revived_in_equal_numbers_are_found_when_every_point_is_looked_at(file_ledger: Ledger) -> None:
    images, [stranger] = images_of(30), images_of(1, seed=9)
    await index(file_ledger, images)
    store = await whole(images)
    await store.delete(NAME, points.of_image(images[3].image_id))
    await store.upsert(NAME, points_of(Expected(stranger.image_id, images[3].segments)))
    check = VectorCheck(file_ledger, store, ImageLocks())
    assert await check.counts_agree(MODELS)
    mended = await check.mend(MODELS)
    assert (mended.missing, mended.stray) == (1, 1 + images[3].segments)


async def test_a_look_at_every_point_goes_on_after_its_time_and_after_a_restart_until_it_was_everywhere(ledger: Ledger) -> None:
    images = images_of(120)
    await index(ledger, images)
    store = await whole(images)
    chance = random.Random(seed := random.randrange(2**32))
    print(f"seed {seed}")
    looked: list[Compared] = []
    compared = comparison(ledger, store)
    restarts = sorted(chance.sample(range(60), 5))
    for step in range(1000):
        looked += await all_of(compared.every_point(NAME, until=time.monotonic()))  # one range, then its time is over
        if not compared.is_under_way(NAME):
            break
        if step in restarts:  # a restart: what is held in memory is gone, and a round begins there
            looked.clear()
            compared = comparison(ledger, store)
    found = {image.image_id for one in looked for image in await ledger.run(ranges.expected, one.beginning)}
    assert found == {image.image_id for image in images}
    assert len({one.beginning for one in looked}) == len(looked)
    assert await ledger.run(ranges.compared_to, NAME) == ""


async def test_a_round_that_a_restart_broke_off_begins_where_it_was(file_ledger: Ledger) -> None:
    images = images_of(120)
    await index(file_ledger, images)
    store = await whole(images)
    first = comparison(file_ledger, store)
    begun = [one for _ in range(3) for one in await all_of(first.every_point(NAME, until=time.monotonic()))]
    again = await all_of(comparison(file_ledger, store).every_point(NAME, until=float("inf")))
    assert again[0].beginning > begun[-1].beginning
    assert {one.beginning for one in begun} <= {one.beginning for one in again}


class Counted(FakeVectorStore):
    """Makes its points as they are asked for: two segments an image, one image in a thousand lost. Tells how many a call returned."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.ids = sorted(hashlib.sha256(str(n).encode()).hexdigest() for n in range(images))
        self.most = self.read = 0

    def _within(self, where: Where) -> list[str]:
        beginning = "".join(condition.beginning for condition in where.must if isinstance(condition, Prefix))
        return [one for one in self.ids if one.startswith(beginning) and not self.is_lost(one)]

    def is_lost(self, image_id: str) -> bool:
        return int(image_id[-4:], 16) % 1000 == 7

    async def count(self, collection: str, *, where: Where = ANYTHING) -> int:
        images = len(self._within(where))
        return images if any(isinstance(condition, Match) for condition in where.must) else 3 * images

    async def scroll(
        self,
        collection: str,
        *,
        where: Where = ANYTHING,
        with_payload: bool = True,
        with_vectors: bool = False,
        first: str | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[Record]:
        yielded = 0
        for image_id in self._within(where):
            for point_id in ids_of(Expected(image_id, 2)):
                yielded += 1
                yield Record(point_id, {})
        self.most, self.read = max(self.most, yielded), self.read + yielded


async def test_memory_holds_one_range_however_many_points_there_are(file_ledger: Ledger) -> None:
    store = Counted(20_000)

    def fill(connection: object) -> None:
        with connection.transaction():  # type: ignore[attr-defined]
            connection.executemany(  # type: ignore[attr-defined]
                "INSERT INTO images (image_id, state, bytes, segments, noticed_at) VALUES (?, 'indexed', 1, 2, 1)",
                [(one,) for one in store.ids],
            )

    await file_ledger.run(fill)
    lost = {one for one in store.ids if store.is_lost(one)}
    tracemalloc.start()
    try:
        found: set[str] = set()
        async with aclosing(Comparison(file_ledger, store).every_point(NAME, until=float("inf"))) as walk:
            async for compared in walk:
                found.update(compared.lacking)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == lost
    assert found
    assert store.read == 3 * (20_000 - len(lost))
    assert store.most <= 4000
    assert peak < 6 * 2**20  # all ids of the collection alone are 60,000 texts, 10 MB with the set that holds them


async def test_a_rate_is_kept(file_ledger: Ledger) -> None:
    images = images_of(100)
    await index(file_ledger, images)
    store = await whole(images)
    began = time.monotonic()
    await all_of(Comparison(file_ledger, store, points_per_s=600, points_per_range=20).every_point(NAME, until=float("inf")))
    assert time.monotonic() - began >= 300 / 600 * 0.9


async def scan() -> None:
    return None


async def models() -> ModelsInfo:
    return MODELS


async def never() -> bool:
    return False


async def always() -> bool:
    return True


def reconciling(
    ledger: Ledger,
    check: VectorCheck,
    *,
    is_settling: Callable[[], bool] = lambda: False,
    is_backlog: Callable[[], Awaitable[bool]] = never,
) -> Reconciler:
    """With nothing to scan, and calm."""
    return Reconciler(
        ledger,
        check,
        interval_s=60,
        scan=scan,
        is_calm=lambda: True,
        is_settling=is_settling,
        is_backlog=is_backlog,
        models=models,
        mended=lambda: None,
    )


async def test_a_look_at_every_point_is_made_in_slices_and_once_more_when_models_changed_meanwhile(file_ledger: Ledger) -> None:
    images = images_of(30)
    await index(file_ledger, images)
    store = await whole(images)
    looks: list[bool] = []

    class Sliced(VectorCheck):
        """Has time for one range at a time."""

        async def mend(self, info: ModelsInfo, *, every_point: bool = True, for_s: float = 0.0) -> Mended:
            mended = await super().mend(info, every_point=every_point, for_s=0.0)
            looks.append(mended.complete)
            if len(looks) == 2:
                reconciler.models_changed()
            return mended

    check = Sliced(file_ledger, store, ImageLocks(), points_per_range=20)
    reconciler = reconciling(file_ledger, check)
    running = asyncio.create_task(reconciler.run())
    async with asyncio.timeout(30):
        while looks.count(True) < 2 or reconciler.is_busy:
            await asyncio.sleep(0.005)
    running.cancel()
    first = looks.index(True)
    assert first >= 3
    assert looks == [*[False] * first, True, *[False] * first, True]


async def test_while_pictures_wait_a_look_takes_a_tenth_of_the_time_and_comes_to_its_end(file_ledger: Ledger) -> None:
    slices: list[tuple[float, float, float]] = []

    class Slow(VectorCheck):
        """Three slices of 30 ms."""

        async def mend(self, info: ModelsInfo, *, every_point: bool = True, for_s: float = 0.0) -> Mended:
            began = time.monotonic()
            time.sleep(0.03)  # noqa: ASYNC251 - work
            slices.append((began, time.monotonic(), for_s))
            return Mended(0, 0, complete=len(slices) == 3)

    reconciler = reconciling(file_ledger, Slow(file_ledger, FakeVectorStore(), ImageLocks()), is_backlog=always)
    running = asyncio.create_task(reconciler.run())
    async with asyncio.timeout(30):
        while len(slices) < 3:
            await asyncio.sleep(0.005)
    running.cancel()
    for (began, ended, _), (after, *_) in itertools.pairwise(slices):
        assert after - ended >= 9 * (ended - began) - 0.01
    assert all(for_s <= 2 for *_, for_s in slices)


async def test_a_look_waits_for_files_that_are_not_identified_and_not_for_ever(
    file_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watcher.reconcile._LONGEST_SETTLING_S", 1.2)
    settling, looks = True, 0

    class Counted(VectorCheck):
        async def mend(self, info: ModelsInfo, *, every_point: bool = True, for_s: float = 0.0) -> Mended:
            nonlocal looks
            looks += 1
            return Mended(0, 0, complete=True)

    reconciler = reconciling(file_ledger, Counted(file_ledger, FakeVectorStore(), ImageLocks()), is_settling=lambda: settling)
    running = asyncio.create_task(reconciler.run())
    await asyncio.sleep(0.7)
    assert looks == 0
    settling = False
    async with asyncio.timeout(30):
        while looks < 1:
            await asyncio.sleep(0.005)
        settling = True
        reconciler.models_changed()
        await asyncio.sleep(0.7)
        assert looks == 1
        while looks < 2:
            await asyncio.sleep(0.005)
    running.cancel()


class Asked:
    """A ledger that counts what it is asked, by the operation's name and first argument."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.asked: Counter[tuple[str, object]] = Counter()

    async def run(self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        first = args[0] if args and isinstance(args[0], str) else None
        self.asked[operation.__name__, first] += 1
        return await self._ledger.run(operation, *args, **kwargs)

    def now(self) -> float:
        return self._ledger.now()


async def test_what_other_models_made_is_looked_through_by_pages_in_slices_and_only_what_is_unknown_goes(ledger: Ledger) -> None:
    images, strangers = images_of(1200), images_of(3, seed=9)
    await index(ledger, images[:5])
    await ledger.run(
        locations.admit, [Admission(f"{one.image_id}.jpg", FileStat(1, 2, 3), one.image_id, 1.0, 0) for one in images[5:]], 1.0
    )
    store = await whole(images[:5])
    former = [point for image in (*images, *strangers) for point in points_of(image)]
    await store.upsert("former", former)
    asked = Asked(ledger)
    check = VectorCheck(asked, store, ImageLocks())

    slices = [await check.mend(MODELS, for_s=0.0)]
    while not slices[-1].complete:
        slices.append(await check.mend(MODELS, for_s=0.0))
    assert len(slices) >= 3
    assert sum(one.stray for one in slices) == 3
    assert {point.payload["image_id"] for point in store.stored["former"].values()} == {one.image_id for one in images}
    assert asked.asked["states", None] <= 3 + 2 * 3  # pages, and each stranger under its lock
    assert not check.is_under_way


async def test_a_collection_of_other_models_that_is_dropped_midway_holds_nothing_up(file_ledger: Ledger) -> None:
    images = images_of(1100)
    await index(file_ledger, images[:5])
    store = await whole(images[:5])
    await store.upsert("former", [points_of(Expected(image.image_id, 0))[0] for image in images[5:]])
    check = VectorCheck(file_ledger, store, ImageLocks())
    assert not (await check.mend(MODELS, for_s=0.0)).complete
    await store.drop("former")
    assert (await check.mend(MODELS)).complete


async def test_a_look_that_goes_on_counts_nothing_of_what_it_divided_before(file_ledger: Ledger) -> None:
    images = images_of(120)
    await index(file_ledger, images)
    asked = Asked(file_ledger)
    compared = Comparison(asked, await whole(images), points_per_range=20)
    while compared.is_under_way(NAME) or not asked.asked:
        await all_of(compared.every_point(NAME, until=time.monotonic()))
    assert asked.asked["settled", ""] == 1
    assert max(count for (name, _), count in asked.asked.items() if name == "settled") == 1
