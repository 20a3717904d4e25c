"""Files of a bucket: by a link that runs out, or through the service; uploads go into the bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from core.ports import ShownAs
from tests.attacks.test_headers import ACTIVE, POLYGLOTS
from tests.buckets import KEYS, Bucket, FakeS3
from tests.fakes import index, picture
from tests.unit.searchsvc.conftest import MakeWorld, World

_AS_IT_IS = ShownAs("image/png", "inline", 60)


@pytest.fixture(scope="module")
def service() -> Iterator[FakeS3]:
    with FakeS3() as service:
        yield service


@pytest.fixture
def bucket(service: FakeS3, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bucket:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_access_key)
    return service.bucket(f"b{abs(hash(request.node.nodeid))}", "my photos")


def _fetched(link: str, method: str = "GET") -> httpx.Response:
    """As a browser does, without any key."""
    return httpx.request(method, link)


async def _world(make_world: MakeWorld, bucket: Bucket, **settings: Any) -> World:
    return await make_world(images_url=bucket.url, images_s3_endpoint=bucket.service.endpoint, **settings)


async def _added(world: World, bucket: Bucket, content: bytes, path: str) -> str:
    bucket.put(path, content, "text/html")
    image_id = await index(world.embedder, world.vectors, world.catalog, picture("red"), path)
    world.catalog.records[image_id] = world.catalog.records[image_id].model_copy(update={"bytes": len(content)})
    return image_id


async def test_a_file_is_fetched_from_the_bucket_by_a_link_that_runs_out(make_world: MakeWorld, bucket: Bucket) -> None:
    world = await _world(make_world, bucket, images_link_s=77)
    image_id = await _added(world, bucket, picture("red"), "2024/ü b+.png")
    answer = await world.client.get(f"/api/v1/images/{image_id}/file", allow_redirects=False)
    link = answer.headers["Location"]
    assert (answer.status, answer.headers["Cache-Control"]) == (302, "private, no-cache")
    query = parse_qs(urlsplit(link).query)
    assert (query["X-Amz-Expires"], query["response-content-type"]) == (["77"], ["image/png"])
    assert KEYS.secret_access_key not in link
    fetched = _fetched(link)
    assert (fetched.status_code, fetched.content, fetched.headers["Content-Type"]) == (200, picture("red"), "image/png")
    assert fetched.headers["Content-Disposition"] == "inline; filename*=UTF-8''%C3%BC%20b%2B.png"
    held = await world.client.get(
        f"/api/v1/images/{image_id}/file", headers={"If-None-Match": f'"{image_id}"'}, allow_redirects=False
    )
    assert held.status == 304
    head = await world.client.head(f"/api/v1/images/{image_id}/file", allow_redirects=False)
    assert _fetched(head.headers["Location"], "HEAD").status_code == 200


@pytest.mark.parametrize("kind", POLYGLOTS)
async def test_a_link_never_leads_to_something_that_runs(make_world: MakeWorld, bucket: Bucket, kind: str) -> None:
    world = await _world(make_world, bucket)
    image_id = await _added(world, bucket, POLYGLOTS[kind], "x.html")
    answer = await world.client.get(f"/api/v1/images/{image_id}/file", allow_redirects=False)
    if answer.status == 302:
        told = _fetched(answer.headers["Location"]).headers["Content-Type"]
        assert told.startswith("image/")
        assert not ACTIVE.search(told)
    else:
        assert (answer.status, await answer.read()) == (200, POLYGLOTS[kind])
        assert answer.content_type == "application/octet-stream"
        assert "sandbox" in answer.headers["Content-Security-Policy"]


async def test_files_can_be_sent_through_the_service_with_ranges(make_world: MakeWorld, bucket: Bucket) -> None:
    world = await _world(make_world, bucket, images_links="stream")
    content = picture("red") + bytes(100_000)
    image_id = await _added(world, bucket, content, "a.png")
    address = f"/api/v1/images/{image_id}/file"
    whole = await world.client.get(address, allow_redirects=False)
    assert (whole.status, await whole.read(), whole.content_type) == (200, content, "image/png")
    part = await world.client.get(address, headers={"Range": "bytes=5-9"})
    assert (part.status, await part.read()) == (206, content[5:10])
    page = await world.client.get("/")
    assert bucket.service.endpoint not in page.headers["Content-Security-Policy"]


async def test_the_page_may_show_pictures_of_the_bucket_and_of_nowhere_else(make_world: MakeWorld, bucket: Bucket) -> None:
    world = await _world(make_world, bucket, images_link_endpoint="https://S3.example.org:443/")
    policy = (await world.client.get("/")).headers["Content-Security-Policy"]
    assert "img-src 'self' blob: data: https://s3.example.org;" in policy
    image_id = await _added(world, bucket, picture("red"), "a.png")
    answer = await world.client.get(f"/api/v1/images/{image_id}/file", allow_redirects=False)
    assert answer.headers["Location"].startswith(f"https://s3.example.org/{bucket.place.bucket}/my%20photos/a.png?")


async def test_a_thumbnail_fetches_the_object_once(make_world: MakeWorld, bucket: Bucket) -> None:
    world = await _world(make_world, bucket)
    image_id = await _added(world, bucket, picture("red"), "a.png")
    bucket.service.requests.clear()
    for size in (128, 256, 512, 128):
        answer = await world.client.get(f"/api/v1/images/{image_id}/thumbnail?size={size}")
        assert (answer.status, answer.content_type) == (200, "image/webp")
    assert [method for method, _ in bucket.service.requests].count("GET") == 1


async def test_an_upload_lands_in_the_bucket_and_never_over_another(make_world: MakeWorld, bucket: Bucket) -> None:
    world = await _world(make_world, bucket)
    for colour in ("red", "blue", "red"):
        answer = await world.upload(picture(colour), "a b.png", folder="2024/new")
        assert answer.status == 202, await answer.text()
    first, second = sorted(bucket.names())
    assert first.startswith("2024/new/a b")
    assert second == "2024/new/a b.png"
    assert world.catalog.noticed[0] == "2024/new/a b.png"
    fetched = _fetched(bucket.opened(world.settings.data_dir / "c").link("2024/new/a b.png", _AS_IT_IS) or "")
    assert fetched.content == picture("red")


async def test_of_a_deleted_picture_nothing_stays_in_the_service(make_world: MakeWorld, bucket: Bucket) -> None:
    world = await _world(make_world, bucket, images_links="stream")
    image_id = await _added(world, bucket, picture("red"), "a.png")
    assert (await world.client.get(f"/api/v1/images/{image_id}/file")).status == 200
    assert (await world.client.get(f"/api/v1/images/{image_id}/thumbnail")).status == 200
    kept = [
        path
        for path in world.settings.data_dir.rglob("*")
        if path.is_file() and path.parent.parent.name in {"pictures", "thumbnails"}
    ]
    assert len(kept) == 2
    assert (await world.client.delete(f"/api/v1/images/{image_id}")).status == 204
    assert not [path for path in kept if path.exists()]


async def test_a_home_that_is_away_is_degraded_and_no_upload_is_taken(make_world: MakeWorld, bucket: Bucket) -> None:
    world = await _world(make_world, bucket)
    world.catalog.watching = "folder_missing"
    health = await (await world.client.get("/health")).json()
    assert health["status"] == "degraded"
    assert "bucket" in health["checks"]["pictures"]
    assert (await world.client.get("/health/ready")).status == 200
    assert (await world.upload(picture("red"))).status == 503
    assert bucket.names() == []


async def test_what_is_no_longer_there_is_404_and_a_bucket_that_is_away_is_503(make_world: MakeWorld, bucket: Bucket) -> None:
    world = await _world(make_world, bucket)
    image_id = await _added(world, bucket, picture("red"), "a.png")
    bucket.delete("a.png")
    assert (await world.client.get(f"/api/v1/images/{image_id}/file")).status == 404
    assert (await world.client.get(f"/api/v1/images/{image_id}/thumbnail")).status == 404
    bucket.service.go()
    try:
        for answer in (
            await world.client.get(f"/api/v1/images/{image_id}/file"),
            await world.client.get(f"/api/v1/images/{image_id}/thumbnail"),
            await world.upload(picture("green"), "b.png"),
        ):
            assert answer.status == 503
            told = await answer.text()
            assert KEYS.access_key_id not in told
            assert bucket.service.endpoint not in told
    finally:
        bucket.service.come()
