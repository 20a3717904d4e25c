"""The whole watcher over a bucket of a real S3 service; models and vectors are fakes at their ports."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.schemas import ImageState
from tests.buckets import KEYS, Bucket, FakeS3
from tests.unit.watcher.fakes import House, image_id_of, jpeg, until
from watcher import bucket_vigil
from watcher.app import RunningWatcher
from watcher.settings import WatcherSettings


class BucketHouse(House):
    """`images` mirrors what lies in the bucket, for the oracle alone."""

    def __init__(self, root: Path, bucket: Bucket) -> None:
        super().__init__(root)
        self.bucket = bucket
        self.options = {"images_url": bucket.url, "images_s3_endpoint": bucket.service.endpoint}

    def settings(self) -> WatcherSettings:
        return super().settings().model_copy(update={"images_dir": Path("/nonexistent")})

    def put(self, path: str, content: bytes) -> str:
        self.bucket.put(path, content)
        return self.write(path, content)

    def fill(self, contents: dict[str, bytes]) -> None:
        self.bucket.fill(contents)
        for path, content in contents.items():
            self.write(path, content)

    def delete(self, path: str) -> None:
        self.bucket.delete(path)
        (self.images / path).unlink()

    def address(self, path: str) -> str:
        """As the service sees it."""
        return f"/{self.bucket.place.bucket}/{self.bucket.place.key(path)}"

    def asked(self, method: str) -> int:
        return [one for one, _ in self.bucket.service.requests].count(method)


@pytest.fixture(scope="module")
def service() -> Iterator[FakeS3]:
    with FakeS3() as service:
        yield service


@pytest.fixture
def house(
    service: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[BucketHouse]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_access_key)
    monkeypatch.setattr(bucket_vigil, "_PERIOD_S", 0.2)
    monkeypatch.setattr(bucket_vigil, "_LONGEST_PAUSE_S", 0.5)
    bucket = service.bucket(f"b{abs(hash(request.node.nodeid))}", "my photos")
    service.requests.clear()
    yield BucketHouse(tmp_path, bucket)
    service.refusing, service.hanging = None, False
    service.denied.clear()
    service.come_back()


async def _reaches(watcher: RunningWatcher, state: str) -> None:
    async with asyncio.timeout(30):
        while (await watcher.catalog.status()).watcher.state != state:
            await asyncio.sleep(0.02)


def indexed(house: BucketHouse) -> int:
    return len(house.ledger_rows("SELECT * FROM images WHERE state = 'indexed'"))


async def test_objects_that_were_there_before_are_each_read_once(house: BucketHouse) -> None:
    for number in range(20):
        house.put(f"a {number % 3}/ü{number}.jpg", jpeg(f"p{number}"))
    house.bucket.service.requests.clear()
    async with house.running() as watcher:
        await house.agreed(30)
        status = await watcher.catalog.status()
        assert (status.watcher.state, status.watcher.observer) == ("watching", "listing")
    assert set(house.embedder.analysed.values()) == {1}
    listings = sum(method == "GET" and path.count("/") == 1 for method, path in house.bucket.service.requests)
    assert house.asked("GET") - listings == 20


async def test_a_second_start_reads_no_object_again(house: BucketHouse) -> None:
    for number in range(5):
        house.put(f"{number}.jpg", jpeg(f"p{number}"))
    async with house.running():
        await house.agreed(30)
    house.bucket.service.requests.clear()
    async with house.running() as watcher:
        await _reaches(watcher, "watching")
        await house.agreed(30)
    assert {path.count("/") for method, path in house.bucket.service.requests if method == "GET"} == {1}
    assert house.asked("HEAD") == 0


async def test_hints_bring_new_replaced_and_removed_objects_at_once(house: BucketHouse) -> None:
    house.put("stays.jpg", jpeg("stays"))
    house.put("changes.jpg", jpeg("old 5"))
    house.put("goes.jpg", jpeg("goes"))
    house.options["reconcile_interval_s"] = 3600
    async with house.running() as watcher:
        await house.agreed(30)
        house.put("new b+.jpg", jpeg("new"))
        house.put("changes.jpg", jpeg("new 1"))
        house.delete("goes.jpg")
        await watcher.catalog.hint(
            ["goes.jpg", "new b+.jpg", "changes.jpg", "never/was.jpg", "../out.jpg", "a//b.jpg", "x/", "changes.jpg"]
        )
        await house.agreed(30)
    assert set(house.embedder.analysed.values()) == {1}


async def test_hints_that_lie_change_nothing(house: BucketHouse) -> None:
    for number in range(5):
        house.put(f"{number}.jpg", jpeg(f"p{number}"))
    async with house.running() as watcher:
        await house.agreed(30)
        for _ in range(10):
            await watcher.catalog.hint([f"{number}.jpg" for number in range(5)] + [f"no/{number}.jpg" for number in range(50)])
        async with asyncio.timeout(30):
            while (await watcher.catalog.status()).watcher.settling:
                await asyncio.sleep(0.02)
        assert house.disagreements() == []
    assert sum(house.embedder.analysed.values()) == 5


async def test_what_no_hint_told_of_is_found_by_the_next_comparison(house: BucketHouse) -> None:
    house.put("goes.jpg", jpeg("goes"))
    house.put("changes.jpg", jpeg("old 3"))
    house.options["reconcile_interval_s"] = 0.5
    async with house.running():
        await house.agreed(30)
        house.put("new.jpg", jpeg("new"))
        house.put("changes.jpg", jpeg("changed"))
        house.delete("goes.jpg")
        await house.agreed(30)


async def test_the_same_bytes_under_another_name_cost_no_inference(house: BucketHouse) -> None:
    house.put("one.jpg", jpeg("one"))
    async with house.running() as watcher:
        await house.agreed(30)
        house.put("copy.jpg", jpeg("one"))
        await watcher.catalog.hint(["copy.jpg"])
        await house.agreed(30)
        house.delete("one.jpg")
        await watcher.catalog.hint(["one.jpg"])
        await house.agreed(30)
    assert sum(house.embedder.analysed.values()) == 1


async def test_other_objects_are_left_alone_or_listed_with_their_reason(house: BucketHouse) -> None:
    kept = house.put("no suffix", jpeg("e"))
    house.bucket.fill(
        {".hidden.jpg": b"x", "copy.jpg.part": jpeg("d"), "notes.txt": b"no picture at all", "empty.jpg": b"", "folder/": b""}
    )
    async with house.running() as watcher:
        await until(lambda: len(house.ledger_rows("SELECT * FROM paths")) == 4, timeout_s=30)
        await until(lambda: house.ledger_rows("SELECT image_id, state FROM images") == [(kept, "indexed")], timeout_s=30)
        listed = await watcher.catalog.failures(ignored=True)
        reasons = {failure.path: failure.reason.value for failure in listed.failures}
        assert reasons == {"copy.jpg.part": "ignored", "notes.txt": "ignored", "empty.jpg": "empty_file"}


async def test_a_thousand_objects_with_odd_names_among_them_are_compared_page_by_page(house: BucketHouse) -> None:
    """Most of them are empty, so that the service of the tests has little to send."""
    house.bucket.fill({f"{number % 9}/{number:04}.jpg": b"" for number in range(1000)})
    house.fill({f"{number % 9}/x{number:04}.jpg": jpeg(f"many {number % 6}x") for number in range(50)})
    house.bucket.fill({"3//odd.jpg": jpeg("a"), "4/../up.jpg": jpeg("b"), "5/./x.jpg": jpeg("c"), "6/tab\t.jpg": jpeg("d")})
    async with house.running():
        await house.agreed(90)
        await until(lambda: len(house.ledger_rows("SELECT path FROM paths")) == 1050, timeout_s=60)
    assert sum(house.embedder.analysed.values()) == 6


async def test_a_service_that_goes_away_and_comes_back_loses_nothing(house: BucketHouse) -> None:
    for number in range(5):
        house.put(f"{number}.jpg", jpeg(f"m{number}"))
    async with house.running() as watcher:
        await house.agreed(30)
        house.bucket.service.go()
        await _reaches(watcher, "folder_missing")
        await watcher.catalog.hint([f"{number}.jpg" for number in range(5)])
        await asyncio.sleep(0.5)
        assert indexed(house) == 5
        house.bucket.service.come_back()
        house.put("later.jpg", jpeg("later"))
        await _reaches(watcher, "watching")
        await house.agreed(30)
    assert set(house.embedder.analysed.values()) == {1}


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_a_service_that_refuses_everything_loses_nothing(house: BucketHouse, status: int) -> None:
    for number in range(3):
        house.put(f"{number}.jpg", jpeg(f"m{number}"))
    async with house.running() as watcher:
        await house.agreed(30)
        house.bucket.service.refusing = status
        await watcher.catalog.hint([f"{number}.jpg" for number in range(3)])
        await _reaches(watcher, "folder_missing")
        assert indexed(house) == 3
        house.bucket.service.refusing = None
        await _reaches(watcher, "watching")
        await house.agreed(30)
    assert sum(house.embedder.analysed.values()) == 3


async def test_an_object_that_alone_is_refused_is_told_with_its_reason_until_it_is_not(house: BucketHouse) -> None:
    house.put("a/open.jpg", jpeg("open"))
    house.put("a/closed.jpg", jpeg("closed"))
    house.bucket.service.denied.add(house.address("a/closed.jpg"))
    house.options["reconcile_interval_s"] = 0.3
    async with house.running() as watcher:
        await until(lambda: indexed(house) == 1, timeout_s=30)
        await until(lambda: len(house.ledger_rows("SELECT path FROM paths")) == 2, timeout_s=30)
        (failure,) = (await watcher.catalog.failures()).failures
        assert (failure.path, failure.reason.value) == ("a/closed.jpg", "permission_denied")
        house.bucket.service.denied.clear()
        await house.agreed(30)


async def test_what_is_gone_is_forgotten_where_a_look_at_it_is_refused(house: BucketHouse) -> None:
    """As Amazon answers whoever may list names of the prefix alone: 403 of what is not there."""
    house.put("a/goes.jpg", jpeg("goes"))
    house.put("a/stays.jpg", jpeg("stays"))
    house.options["reconcile_interval_s"] = 0.3
    async with house.running():
        await house.agreed(30)
        house.delete("a/goes.jpg")
        house.bucket.service.denied |= {house.address("a/goes.jpg"), house.address("a/stays.jpg")}
        await house.agreed(30)
    assert sum(house.embedder.analysed.values()) == 2


async def test_a_service_that_hangs_holds_up_no_end(house: BucketHouse) -> None:
    house.put("a.jpg", jpeg("a"))
    async with house.running() as watcher:
        await house.agreed(30)
        house.bucket.service.requests.clear()
        house.bucket.service.hanging = True
        await watcher.catalog.hint(["a.jpg", "b.jpg"])
        await until(lambda: house.asked("HEAD") == 2, timeout_s=30)
        began_at = time.monotonic()
    assert time.monotonic() - began_at < 10  # as is promised; a call of its own would wait for 20 s


async def test_a_start_without_the_service_waits_for_it(house: BucketHouse) -> None:
    house.put("a.jpg", jpeg("a"))
    house.bucket.service.go()
    async with house.running() as watcher:
        await _reaches(watcher, "folder_missing")
        house.bucket.service.come_back()
        await house.agreed(30)


async def test_an_empty_listing_where_a_hundred_objects_were_is_not_believed(house: BucketHouse) -> None:
    names = [f"{number:03}.jpg" for number in range(120)]
    house.fill({name: jpeg(f"many {number % 5}x") for number, name in enumerate(names)})
    house.options["reconcile_interval_s"] = 0.3
    async with house.running() as watcher:
        await house.agreed(60)
        house.bucket.empty()
        await _reaches(watcher, "folder_missing")
        await asyncio.sleep(1.0)
        assert len(house.ledger_rows("SELECT path FROM paths")) == 120
        house.bucket.fill({name: jpeg(f"many {number % 5}x") for number, name in enumerate(names)})
        await _reaches(watcher, "watching")
        await house.agreed(60)
        house.bucket.empty()
        await _reaches(watcher, "folder_missing")
    for name in names:
        (house.images / name).unlink()
    house.options["accept_new_folder"] = True
    async with house.running():
        await house.agreed(60)
    assert house.store.points == {"clip": {}, "resnet": {}}


async def test_few_objects_that_are_gone_are_forgotten(house: BucketHouse) -> None:
    house.put("a.jpg", jpeg("a"))
    house.put("b.jpg", jpeg("b"))
    house.options["reconcile_interval_s"] = 0.3
    async with house.running():
        await house.agreed(30)
        house.delete("a.jpg")
        house.delete("b.jpg")
        await house.agreed(30)
    assert house.store.points == {"clip": {}, "resnet": {}}


async def test_another_bucket_without_any_known_object_is_not_believed(house: BucketHouse, service: FakeS3) -> None:
    house.put("a.jpg", jpeg("a"))
    async with house.running():
        await house.agreed(30)
    other = service.bucket(f"{house.bucket.place.bucket}x", "my photos")
    other.put("z.jpg", jpeg("z"))
    house.options["images_url"] = other.url
    async with house.running() as watcher:
        await _reaches(watcher, "folder_missing")
        await asyncio.sleep(0.5)
        assert indexed(house) == 1
        other.put("a.jpg", jpeg("a"))  # now it holds a known one
        house.write("z.jpg", jpeg("z"))
        await _reaches(watcher, "watching")
        await house.agreed(30)


async def test_an_object_that_goes_while_it_waits_is_no_failure(house: BucketHouse) -> None:
    """Known, claimed, and gone before it is read: from the cache nothing is believed that the bucket has no more."""
    house.embedder.delay_s = 0.3
    house.options["ingest_concurrency"] = 1
    for number in range(4):
        house.put(f"{number}.jpg", jpeg(f"m{number}"))
    async with house.running() as watcher:
        await until(lambda: len(house.ledger_rows("SELECT * FROM images")) == 4, timeout_s=30)
        house.delete("3.jpg")
        house.put("2.jpg", jpeg("another 1"))
        await watcher.catalog.hint(["3.jpg", "2.jpg"])
        await house.agreed(30)
        assert (await watcher.catalog.failures()).total == 0


async def test_a_deleted_image_leaves_the_bucket(house: BucketHouse) -> None:
    image_id = house.put("a.jpg", jpeg("a"))
    house.put("b/copy.jpg", jpeg("a"))
    house.put("c.jpg", jpeg("c"))
    async with house.running() as watcher:
        await house.agreed(30)
        await watcher.catalog.delete(image_id)
        assert house.bucket.names() == ["c.jpg"]
        (house.images / "a.jpg").unlink()
        (house.images / "b" / "copy.jpg").unlink()
        await house.agreed(30)


async def test_a_noticed_object_is_admitted_at_once(house: BucketHouse) -> None:
    async with house.running() as watcher:
        house.put("up/a b.jpg", jpeg("a 3"))
        record = await watcher.catalog.notice("up/a b.jpg")
        assert (record.image_id, record.paths) == (image_id_of(jpeg("a 3")), ("up/a b.jpg",))
        await house.agreed(30)
        assert (await watcher.catalog.image(record.image_id)).state is ImageState.INDEXED


async def test_what_the_cache_has_is_proven_before_it_is_believed(house: BucketHouse) -> None:
    house.put("a.jpg", jpeg("a"))
    house.embedder.delay_s = 0.2
    async with house.running():
        await house.agreed(30)
    for kept in (house.state / "pictures").rglob("*"):
        if kept.is_file():
            kept.write_bytes(bytes(kept.stat().st_size))
    with contextlib.suppress(FileNotFoundError):
        (house.state / "ledger.sqlite3").unlink()
    house.store.points.clear()
    async with house.running():
        await house.agreed(30)
    assert set(house.embedder.analysed) == {image_id_of(jpeg("a"))}
