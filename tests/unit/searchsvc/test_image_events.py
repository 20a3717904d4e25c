"""What a bucket tells of its objects: hints to the watcher, whatever else is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.errors import CatalogUnavailable
from core.images.places import BucketPlace
from searchsvc.image_events import ImageEvents, hinted_paths
from tests.buckets import FakeS3
from tests.unit.searchsvc.conftest import MakeWorld

PLACE = BucketPlace("pictures", "my photos", "http://127.0.0.1:9", "us-east-1")


def record(name: str, key: str, bucket: str = "pictures") -> dict[str, Any]:
    return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 1, "eTag": "x"}}, "more": [1]}


def paths(*records: dict[str, Any]) -> list[str]:
    return hinted_paths(ImageEvents.model_validate({"Records": list(records)}), PLACE)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("my+photos/a.jpg", "a.jpg"),
        ("my%20photos/2024/a+b%2B%C3%BC.jpg", "2024/a b+ü.jpg"),
        ("my+photos/%2541.jpg", "%41.jpg"),
    ],
)  # fmt: skip
def test_keys_are_decoded_once_and_stripped_of_the_prefix(key: str, path: str) -> None:
    for name in (
        "ObjectCreated:Put",
        "s3:ObjectCreated:CompleteMultipartUpload",
        "s3:ObjectRemoved:Delete",
        "ObjectRemoved:DeleteMarkerCreated",
    ):
        assert paths(record(name, key)) == [path]


@pytest.mark.parametrize(
    "other",
    [
        record("ObjectCreated:Put", "other/a.jpg"),
        record("ObjectCreated:Put", "my+photosx/a.jpg"),
        record("ObjectCreated:Put", "my+photos/a.jpg", bucket="others"),
        record("s3:ObjectAccessed:Get", "my+photos/a.jpg"),
        record("ObjectCreated:Put", "my+photos/folder/"),
        record("ObjectCreated:Put", "my+photos/.hidden.jpg"),
        record("ObjectCreated:Put", "my+photos/%FF.jpg"),
        record("ObjectCreated:Put", ""),
        {},
        {"eventName": "ObjectCreated:Put"},
    ],
)
def test_what_is_told_of_anything_else_is_ignored(other: dict[str, Any]) -> None:
    assert paths(other, record("ObjectCreated:Put", "my+photos/a.jpg")) == ["a.jpg"]


def test_the_same_object_twice_is_one_hint() -> None:
    assert paths(*[record("ObjectCreated:Put", f"my+photos/{n % 3}.jpg") for n in range(9)]) == ["0.jpg", "1.jpg", "2.jpg"]


def bucket_settings() -> dict[str, Any]:
    pytest.importorskip("obstore", reason="needs the extra `s3`")
    return {"images_url": "s3://pictures/my photos", "images_s3_endpoint": "http://127.0.0.1:9"}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.usefixtures("keys")
async def test_a_batch_becomes_hints_for_the_watcher(make_world: MakeWorld) -> None:
    world = await make_world(**bucket_settings())
    records = [record("ObjectCreated:Put", f"my+photos/{n}.jpg") for n in range(1000)]
    records.append(record("ObjectCreated:Put", "elsewhere.jpg"))
    records.append(record("ObjectCreated:Put", "my+photos/../a.jpg"))
    batch = {"EventName": "s3:ObjectCreated:Put", "Key": "pictures/x", "Records": records}
    answer = await world.client.post("/api/v1/image-events", json=batch)
    assert (answer.status, await answer.json()) == (202, {"hints": 1000, "ignored": 2})
    assert world.catalog.hinted == [f"{n}.jpg" for n in range(1000)]


@pytest.mark.usefixtures("keys")
async def test_a_test_event_is_taken_and_hints_at_nothing(make_world: MakeWorld) -> None:
    world = await make_world(**bucket_settings())
    event = {
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": "2014-10-13T15:57:02.089Z",
        "Bucket": "pictures",
        "RequestId": "5",
        "HostId": "8",
    }
    answer = await world.client.post("/api/v1/image-events", json=event)
    assert (answer.status, await answer.json()) == (202, {"hints": 0, "ignored": 0})
    assert world.catalog.hinted == []


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    "body", [[], 1, {"Records": 1}, {"Records": [1]}, {"Records": [{"eventName": 5}]}, {"Records": [{}] * 10_001}]
)
async def test_what_is_no_notification_is_422_and_hints_at_nothing(make_world: MakeWorld, body: object) -> None:
    world = await make_world(**bucket_settings())
    answer = await world.client.post("/api/v1/image-events", data=json.dumps(body), headers={"Content-Type": "application/json"})
    assert (answer.status, answer.content_type) == (422, "application/problem+json")
    assert world.catalog.hinted == []


@pytest.mark.usefixtures("keys")
async def test_it_needs_a_key_where_writing_does(make_world: MakeWorld) -> None:
    key = "k" * 40
    world = await make_world(api_keys=key, **bucket_settings())
    event = {"Records": [record("ObjectCreated:Put", "my+photos/a.jpg")]}
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {key}"}):
        assert (await world.client.post("/api/v1/image-events", json=event, headers=headers)).status == 401
    assert world.catalog.hinted == []
    assert (await world.client.post("/api/v1/image-events", json=event, headers={"Authorization": f"Bearer {key}"})).status == 202


@pytest.mark.usefixtures("keys")
async def test_an_absent_watcher_is_told_so_that_the_service_sends_again(make_world: MakeWorld) -> None:
    world = await make_world(**bucket_settings())
    world.catalog.away = CatalogUnavailable("the watcher does not answer")
    event = {"Records": [record("ObjectCreated:Put", "my+photos/a.jpg")]}
    assert (await world.client.post("/api/v1/image-events", json=event)).status == 503


async def test_there_is_no_webhook_for_a_folder(make_world: MakeWorld) -> None:
    world = await make_world()
    assert (await world.client.post("/api/v1/image-events", json={"Records": []})).status == 404


def test_the_stand_in_service_sends_what_is_understood() -> None:
    with FakeS3() as service:
        bucket = service.bucket("pictures", "my photos")
        events = ImageEvents.model_validate_json(bucket.event("s3:ObjectCreated:Put", "a b+ü.jpg", "c.jpg"))
        assert hinted_paths(events, bucket.place) == ["a b+ü.jpg", "c.jpg"]
