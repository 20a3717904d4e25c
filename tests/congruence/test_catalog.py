"""The Catalog port: the same behaviour from the watcher in the process and from one behind HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from core.catalog_client import CatalogClient
from core.errors import CatalogUnavailable, ImageRejected, InvalidRequest, ModelUnavailable, NotFound, Reason, Unavailable
from core.ports import Catalog
from core.schemas import ImageRecord, ImageState, SegmentMode
from tests.unit.watcher.fakes import House, jpeg

UNKNOWN = "0" * 64


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture(params=["in process", "over http"])
async def catalog(request: pytest.FixtureRequest, house: House) -> AsyncIterator[Catalog]:
    async with AsyncExitStack() as stack:
        watcher = await stack.enter_async_context(house.running())
        if request.param == "in process":
            yield watcher.catalog
            return
        server = TestServer(watcher.app)
        await server.start_server()
        stack.push_async_callback(server.close)
        yield await stack.enter_async_context(CatalogClient(str(server.make_url(""))))


async def indexed(catalog: Catalog, image_id: str) -> ImageRecord:
    async with asyncio.timeout(5):
        while (record := await catalog.image(image_id)).state is not ImageState.INDEXED:
            await asyncio.sleep(0.01)
    return record


async def test_a_noticed_file_is_admitted_at_once_and_then_indexed(catalog: Catalog, house: House) -> None:
    image_id = house.write("sub/a b.jpg", jpeg("a 3"))
    record = await catalog.notice("sub/a b.jpg")
    assert (record.image_id, record.paths, record.bytes) == (image_id, ("sub/a b.jpg",), len(jpeg("a 3")))
    assert (await indexed(catalog, image_id)).segments == 3
    status = await catalog.status()
    assert (status.images.indexed, status.segments) == (1, 3)
    assert await catalog.notice("sub/a b.jpg") == await catalog.image(image_id)


async def test_states_of_many_are_told_at_once_and_a_backfill_is_noticed(catalog: Catalog, house: House) -> None:
    one, other = house.write("a.jpg", jpeg("a")), house.write("b/c.jpg", jpeg("c"))
    await catalog.notice("a.jpg", backfill=True)
    assert await catalog.hint(["b/c.jpg", "../not ours.jpg", ".hidden/x.jpg", "b/c.jpg"], backfill=True) == 1
    await indexed(catalog, one)
    async with asyncio.timeout(5):
        while len((await catalog.states([], ["b/c.jpg"])).paths) < 1:
            await asyncio.sleep(0.01)
    await indexed(catalog, other)
    told = await catalog.states([one, UNKNOWN, other], ["b/c.jpg", "nothing.jpg"])
    assert {image.image_id: image.state for image in told.images} == {one: ImageState.INDEXED, other: ImageState.INDEXED}
    assert [(file.path, file.image_id, file.state) for file in told.paths] == [("b/c.jpg", other, ImageState.INDEXED)]


async def test_a_deleted_image_is_gone_from_folder_catalog_and_vectors(catalog: Catalog, house: House) -> None:
    image_id = house.write("a.jpg", jpeg("a"))
    house.write("copy.jpg", jpeg("a"))
    await catalog.notice("a.jpg")
    await catalog.notice("copy.jpg")
    await indexed(catalog, image_id)
    await catalog.delete(image_id)
    with pytest.raises(NotFound):
        await catalog.image(image_id)
    with pytest.raises(NotFound):
        await catalog.delete(image_id)
    assert list(house.images.iterdir()) == []
    await house.agreed()


async def test_what_is_not_there_is_not_found(catalog: Catalog) -> None:
    for attempt in (catalog.image(UNKNOWN), catalog.delete(UNKNOWN), catalog.resegment(UNKNOWN, SegmentMode.QUICK)):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(NotFound):
        await catalog.notice("nothing.jpg")


async def test_a_path_outside_the_folder_is_refused(catalog: Catalog) -> None:
    for path in ("../a.jpg", "/a.jpg", ".hidden.jpg"):
        with pytest.raises(InvalidRequest) as refused:
            await catalog.notice(path)
        assert refused.value.field == "path"


@pytest.mark.parametrize(
    ("name", "content", "reason"), [("a.jpg", b"", Reason.EMPTY_FILE), ("a.txt", b"text", Reason.NOT_AN_IMAGE)]
)
async def test_what_cannot_be_a_picture_is_rejected(
    catalog: Catalog, house: House, name: str, content: bytes, reason: Reason
) -> None:
    house.write(name, content)
    with pytest.raises(ImageRejected) as rejected:
        await catalog.notice(name)
    assert rejected.value.reason is reason


async def test_failures_are_listed_with_their_reasons_page_by_page(catalog: Catalog, house: House) -> None:
    for number in range(3):
        house.write(f"{number}.jpg", jpeg(f"broken {number}"))
    house.write("notes.txt", b"some text")
    async with asyncio.timeout(5):
        while (await catalog.failures(ignored=True)).total < 4:
            await asyncio.sleep(0.02)
    page = await catalog.failures(limit=2, offset=1)
    assert page.total == 3
    assert {failure.reason for failure in page.failures} == {Reason.TRUNCATED}
    assert len(page.failures) == 2


async def test_segmenting_again_answers_with_the_new_segments(catalog: Catalog, house: House) -> None:
    image_id = house.write("a.jpg", jpeg("a 2"))
    await catalog.notice("a.jpg")
    await indexed(catalog, image_id)
    house.embedder.extra_segments = 1
    assert [segment.n for segment in await catalog.resegment(image_id, SegmentMode.FULL)] == [0, 1, 2]
    house.embedder.away = ModelUnavailable("the model service does not answer")
    with pytest.raises(Unavailable):
        await catalog.resegment(image_id, SegmentMode.QUICK)
    house.embedder.away = None
    await house.agreed()


async def test_a_watcher_that_is_not_there_is_unavailable() -> None:
    async with CatalogClient("http://127.0.0.1:9", timeout_s=1) as client:
        with pytest.raises(CatalogUnavailable):
            await client.status()
