"""The real processes over a bucket of a real S3 service: used through and through, killed, and with the service coming and going."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.buckets import KEYS, Bucket, FakeS3
from tests.e2e.product import wait_for
from tests.faults.rig import Rig, some_picture
from tests.ram import ram_folder

pytestmark = [pytest.mark.e2e, pytest.mark.serial]


class BucketRig(Rig):
    """`images` mirrors what lies in the bucket, for the oracle alone."""

    bucket: Bucket

    def add(self, path: str, content: bytes) -> None:
        super().add(path, content)
        self.bucket.put(path, content)

    def remove(self, path: str) -> None:
        (self.images / path).unlink()
        self.bucket.delete(path)

    def tell(self, name: str, *paths: str) -> httpx.Response:
        """The bucket's notification."""
        headers = {"Content-Type": "application/json"}
        return self.http.post("/api/v1/image-events", content=self.bucket.event(name, *paths), headers=headers)

    def health(self) -> str:
        return str(self.http.get("/health").json()["status"])


@pytest.fixture
def rig() -> Iterator[BucketRig]:
    with FakeS3() as service, ram_folder() as root:
        bucket = service.bucket("pictures", "my photos")
        environment = {
            "IMAGES_URL": bucket.url,
            "IMAGES_S3_ENDPOINT": service.endpoint,
            "AWS_ACCESS_KEY_ID": KEYS.access_key_id,
            "AWS_SECRET_ACCESS_KEY": KEYS.secret_access_key,
            "IMAGES_CACHE_BYTES": str(2**20),
        }
        with BucketRig(root, environment=environment) as rig:
            rig.bucket = bucket
            yield rig


def test_pictures_of_a_bucket_are_found_linked_replaced_uploaded_and_deleted(rig: BucketRig) -> None:
    rng = random.Random(7)
    rig.environment["RECONCILE_INTERVAL_S"] = "3600"
    pictures = {f"{n % 2}/a b+{n}.jpg": some_picture(rng) for n in range(4)}
    for path, content in pictures.items():
        rig.add(path, content)
    rig.start_and_wait()
    rig.agree()
    assert "s3://pictures/my photos" in rig.log_tail(50_000)

    found = rig.search("anything", top_k=10)["matches"]
    assert {match["path"] for match in found} == set(pictures)
    for match in found:
        assert rig.http.get(match["image_url"], follow_redirects=True).content == pictures[match["path"]]
        assert rig.http.get(match["thumbnail_url"]).headers["Content-Type"] == "image/webp"

    rig.add("0/a b+0.jpg", some_picture(rng))
    rig.add("new.jpg", some_picture(rng))
    rig.remove("1/a b+1.jpg")
    assert rig.tell("s3:ObjectCreated:Put", "0/a b+0.jpg", "new.jpg").json() == {"hints": 2, "ignored": 0}
    assert rig.tell("ObjectRemoved:Delete", "1/a b+1.jpg").status_code == 202
    rig.agree()

    uploaded = some_picture(rng)
    assert rig.upload(uploaded, "mine.jpg").status_code == 202
    assert "mine.jpg" in rig.bucket.names()
    Rig.add(rig, "mine.jpg", uploaded)
    rig.agree()
    for match in rig.search("anything", top_k=10)["matches"]:
        if match["path"] == "mine.jpg":
            assert rig.http.delete(f"/api/v1/images/{match['image_id']}").status_code == 204
    (rig.images / "mine.jpg").unlink()
    rig.agree()
    assert "mine.jpg" not in rig.bucket.names()
    assert rig.interrupt() == 0
    assert KEYS.secret_access_key not in rig.log_path.read_text()


@pytest.mark.long
def test_a_service_that_goes_away_makes_it_degraded_and_loses_nothing(rig: BucketRig) -> None:
    rng = random.Random(8)
    for n in range(3):
        rig.add(f"{n}.jpg", some_picture(rng))
    rig.start_and_wait()
    rig.agree()
    rig.bucket.service.go()
    wait_for("degraded", lambda: rig.health() == "degraded", timeout_s=60, every_s=0.2)
    assert len(rig.search("anything")["matches"]) == 3
    assert rig.upload(some_picture(rng)).status_code == 503
    assert rig.http.get(rig.search("anything")["matches"][0]["image_url"]).status_code == 503
    rig.bucket.service.come_back()
    rig.add("later.jpg", some_picture(rng))
    wait_for("well again", lambda: rig.health() == "ok", timeout_s=60, every_s=0.2)
    rig.agree()


def test_kills_and_a_service_that_comes_and_goes_lose_nothing(rig: BucketRig) -> None:
    _kill_again_and_again(rig, rounds=1)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_hundreds_of_kills_over_a_bucket_lose_nothing(rig: BucketRig) -> None:
    _kill_again_and_again(rig, rounds=int(os.environ.get("FAULT_ROUNDS", "150")))


def _kill_again_and_again(rig: BucketRig, *, rounds: int) -> None:
    seed = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"FAULT_SEED={seed}")
    rng = random.Random(seed)
    names: list[str] = []
    rig.start_and_wait()
    for number in range(rounds):
        for step in range(12):
            _change(rig, rng, names, f"{number}/{step}.jpg")
            if rng.random() < 0.1:
                rig.bucket.service.go()
                time.sleep(rng.uniform(0, 0.3))
                rig.bucket.service.come_back()
        time.sleep(rng.uniform(0, 0.6))
        assert rig.process is not None
        os.kill(rig.process.pid, signal.SIGKILL)
        rig.process.wait(10)
        rig.start_and_wait()
        rig.agree(timeout_s=90)


def _change(rig: BucketRig, rng: random.Random, names: list[str], name: str) -> None:
    """Something happens in the bucket, of which a notification comes, or doesn't."""
    if names and rng.random() < 0.25:
        name = names.pop(rng.randrange(len(names)))
        rig.remove(name)
    else:
        name = rng.choice(names) if names and rng.random() < 0.2 else name
        rig.add(name, some_picture(rng))
        if name not in names:
            names.append(name)
    if rng.random() < 0.6:
        rig.tell(rng.choice(("ObjectCreated:Put", "ObjectRemoved:Delete")), name)
