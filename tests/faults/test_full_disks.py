"""The disk of the ledger, the vectors, the thumbnails, or the folder is full: it is said, nothing is lost, and room ends it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.product import wait_for
from tests.faults.disks import Disk, small_disk
from tests.faults.rig import Rig, some_picture

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_VECTORS_MB = 420  # an empty collection takes 105, and 64 are kept free
_PLENTY_MB = 600


@pytest.fixture
def disk(request: pytest.FixtureRequest, rig: Rig) -> Iterator[Disk]:
    """A small disk for one of them alone; what else lies within has another."""
    with ExitStack() as stack:
        match request.param:
            case "ledger":
                yield stack.enter_context(small_disk(rig.state, megabytes=100))
            case "vectors":
                yield stack.enter_context(small_disk(rig.state / "vectors", megabytes=_VECTORS_MB))
            case "thumbnails":
                yield stack.enter_context(small_disk(rig.state / "thumbnails", megabytes=4))
            case _:
                yield stack.enter_context(small_disk(rig.images, megabytes=4))


@pytest.fixture
def apart(disk: Disk, rig: Rig) -> Iterator[None]:
    """The vectors have room of their own where they would lie on the small disk of the ledger."""
    with ExitStack() as stack:
        if disk.place == rig.state:
            stack.enter_context(small_disk(rig.state / "vectors", megabytes=_PLENTY_MB))
        yield


def _told(rig: Rig, event: str) -> Callable[[], bool]:
    return lambda: any(line["event"] == event for line in rig.log_events())


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(("disk", "what"), [("ledger", "the ledger"), ("vectors", "the vectors")], indirect=["disk"])
def test_while_the_index_has_no_room_it_searches_refuses_uploads_and_says_why(
    rig: Rig, rng: random.Random, disk: Disk, what: str
) -> None:
    for number in range(8):
        rig.add(f"{number}.jpg", some_picture(rng))
    rig.start_and_wait()
    rig.agree()
    disk.fill()

    for number in range(20):
        rig.add(f"more {number}.jpg", some_picture(rng))
    (rig.images / "0.jpg").unlink()
    (rig.images / "1.jpg").rename(rig.images / "renamed.jpg")
    wait_for("word of it", _told(rig, "intake_paused" if what == "the ledger" else "ingestion_paused"), timeout_s=15)
    refused = rig.upload(some_picture(rng))
    assert (refused.status_code, refused.json()["code"]) == (507, "insufficient_storage")
    assert what in refused.json()["detail"]
    health = rig.http.get("/health").json()
    assert (health["status"], health["checks"]["disk"]) == ("degraded", f"the disk that holds {what} is full")
    assert rig.http.get("/health/ready").status_code == 200
    matches = rig.search("anything")["matches"]
    assert len(matches) >= 7
    rated = rig.http.post("/api/v1/create-feedback", json={"user_feedback": 3, "jwt": matches[0]["jwt"]})
    assert rated.status_code == (507 if what == "the ledger" else 201)
    assert rig.process is not None
    assert rig.process.poll() is None
    assert not [line for line in rig.log_events() if line["level"] in {"error", "critical"}]

    disk.empty()
    rig.agree()
    assert rig.status()["images"] == {"pending": 0, "running": 0, "indexed": 27, "failed": 0}
    assert rig.upload(some_picture(rng)).status_code == 202
    assert rig.http.get("/health").json()["status"] == "ok"


@pytest.mark.parametrize("disk", ["vectors"], indirect=True)
def test_a_start_without_room_for_the_vectors_says_so_instead_of_dying_of_it(rig: Rig, rng: random.Random, disk: Disk) -> None:
    rig.add("a.jpg", some_picture(rng))
    rig.start_and_wait()
    rig.agree()
    rig.kill()
    disk.fill()
    rig.start()
    assert rig.died_within(20)
    assert rig.process is not None
    assert rig.process.returncode == 1
    assert "Cannot start: the disk that holds the vectors is full" in rig.log_tail()
    disk.empty()
    rig.start_and_wait()
    rig.agree()


@pytest.mark.parametrize("disk", ["thumbnails"], indirect=True)
def test_thumbnails_are_shown_though_none_can_be_kept(rig: Rig, rng: random.Random, disk: Disk) -> None:
    for number in range(6):
        rig.add(f"{number}.jpg", some_picture(rng))
    rig.start_and_wait()
    rig.agree()
    disk.fill()
    for match in rig.search("anything")["matches"]:
        answer = rig.http.get(match["thumbnail_url"])
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/webp")
    assert _told(rig, "file_unkept")()
    rig.agree()
    disk.empty()
    for match in rig.search("anything")["matches"]:
        assert rig.http.get(match["thumbnail_url"]).status_code == 200
    assert len(list(disk.place.rglob("*.webp"))) == 6
    rig.agree()


@pytest.mark.parametrize("disk", ["folder"], indirect=True)
def test_an_upload_to_a_full_folder_is_refused_and_leaves_nothing(rig: Rig, rng: random.Random, disk: Disk) -> None:
    rig.add("a.jpg", some_picture(rng))
    rig.start_and_wait()
    rig.agree()
    disk.fill()
    refused = rig.upload(some_picture(rng, 512))
    assert (refused.status_code, refused.json()["detail"]) == (507, "the disk that holds the watched folder is full")
    assert _told(rig, "upload_unwritable")()
    rig.agree()
    disk.empty()
    assert rig.upload(some_picture(rng, 512)).status_code == 202
    rig.agree()
    assert rig.status()["images"]["indexed"] == 2
