"""The scaled form by hand: what docker-compose.scale.yml tells its services, told to processes beside real PostgreSQL, Redis and S3."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.sql.place import DatabasePlace
from tests.buckets import FakeS3
from tests.checkpoints import synthetic_picture
from tests.e2e.product import wait_for
from tests.ports import free_port
from tests.queue.rig import Process, Redis, why_not
from tests.unit.deploy.test_dockerfile import MODULES
from tests.unit.deploy.test_scale import OURS, SECRETS, environment, target_of

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

COPIES = {"searchsvc": 2, "worker": 2}
QUICK = {"MODEL_PROFILE": "starter", "QDRANT_PREFER_GRPC": "false", "RETRY_MIN_S": "0.1", "OUTAGE_RETRY_MAX_S": "0.5"}


class Scaled:
    """A context manager. `api` has a client of each search service."""

    def __init__(self, root: Path, database: DatabasePlace, service: FakeS3) -> None:
        self.root = root
        self.bucket = service.bucket()
        self.redis = Redis(root / "redis.log")
        self._places = {
            "postgres:5432": re.sub(r"^.*@|/.*$", "", database.url.partition("://")[2]),
            "redis:6379": self.redis.url.split("/")[2],
            "minio:9000": service.endpoint.partition("://")[2],
            **{name: f"127.0.0.1:{free_port()}" for name in ("qdrant:6333", "watcher:8002")},
            **{f"{name}:8001": f"127.0.0.1:{free_port()}" for name in ("model_service", "model_service_2")},
        }
        self._database_url = database.url
        self._stack = ExitStack()
        self.api: list[httpx.Client] = []
        self.running: dict[str, list[Process]] = {}

    def __enter__(self) -> Scaled:
        self._start(self.redis, "redis")
        port = self._places["qdrant:6333"].partition(":")[2]
        self._start(Process(self.root / "qdrant.log", sys.executable, "-m", "tests.qdrant_rest", "--port", port), "qdrant")
        for name in sorted(OURS, key=["model_service", "model_service_2", "watcher", "worker", "searchsvc"].index):
            for number in range(COPIES.get(name, 1)):
                self._start_ours(name, number)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_ours(self, name: str, number: int) -> None:
        told = self._told(name)
        port = next((at.partition(":")[2] for of, at in self._places.items() if of.partition(":")[0] == name), str(free_port()))
        given = {
            **QUICK,
            **told,
            "MODEL_PROFILE": "starter",
            "HOST": "127.0.0.1",
            "PORT": port,
            "DATA_DIR": str(self.root / "cache"),
        }
        command = (sys.executable, "-m", MODULES[target_of(OURS[name])])
        self._start(Process(self.root / f"{name}-{number}.log", *command, environment=given), name)
        if name == "searchsvc":
            key = {"Authorization": f"Bearer {SECRETS['EVENTS_KEY']}"}
            self.api.append(
                self._stack.enter_context(
                    httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30, headers=key)
                )
            )

    def _told(self, name: str) -> Mapping[str, str]:
        """As in the file, at other addresses."""
        told = dict(environment(name))
        told["DATABASE_URL"] = self._database_url
        if "QDRANT_URL" in told:
            told["QDRANT_URL"] = "http://qdrant:6333"  # the stand-in is one node
            del told["QDRANT_REPLICAS"]
        for of, at in self._places.items():
            told = {variable: re.sub(rf"(?<=[/@]){of}\b", at, value) for variable, value in told.items()}
        left = [
            value for value in told.values() for host in re.findall(r"://([a-z][a-z0-9_-]*):\d", value) if host != "localhost"
        ]
        assert left == []
        return told

    def _start(self, process: Process, name: str) -> None:
        self.running.setdefault(name, []).append(process)
        process.start()
        self._stack.callback(lambda: process.is_running and process.end(signal.SIGKILL))

    def status(self, which: int = 0) -> dict[str, Any]:
        try:
            answer = self.api[which].get("/api/v1/status")
        except httpx.TransportError:
            return {}
        return dict(answer.json()) if answer.status_code == 200 else {}

    def indexed(self) -> int:
        return int(self.status().get("images", {}).get("indexed", 0))

    def tails(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self.root.glob("*.log")))


@pytest.fixture
def scaled(tmp_path: Path, database: DatabasePlace) -> Iterator[Scaled]:
    with FakeS3() as service, Scaled(tmp_path, database, service) as scaled:
        yield scaled


def _wait(scaled: Scaled, count: int) -> None:
    try:
        wait_for(f"{count} indexed", lambda: scaled.indexed() >= count, timeout_s=120)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{scaled.tails()}") from None


def test_pictures_come_by_the_bucket_and_by_upload_and_any_search_service_answers_for_the_other(scaled: Scaled) -> None:
    for number, colour in enumerate(("red", "green", "blue", "yellow")):
        scaled.bucket.put(f"{colour}.jpg", synthetic_picture(colour, "circle", 320, seed=number))
    _wait(scaled, 4)
    first, second = scaled.api
    wait_for("both ready", lambda: all(one.get("/health/ready").status_code == 200 for one in scaled.api), timeout_s=60)
    asked = {"text": "a red circle", "top_k": 4}
    found, other = (one.post("/api/v1/search-image", json=asked).json() for one in scaled.api)
    ids = [match["image_id"] for match in found["matches"]]
    assert len(ids) == 4
    assert [match["image_id"] for match in other["matches"]] == ids

    rating = {"user_feedback": 9, "jwt": found["jwt"]}
    assert second.post("/api/v1/create-feedback", json=rating).status_code == 201
    assert first.post("/api/v1/create-feedback", json=rating).status_code == 409

    uploaded = second.post("/api/v1/images", files={"file": ("up.jpg", synthetic_picture("white", "square", 320, seed=9))})
    assert uploaded.status_code == 202, uploaded.text
    _wait(scaled, 5)
    image = first.get(uploaded.json()["status_url"]).json()
    assert image["state"] == "indexed"
    assert image["paths"][0] in scaled.bucket.names()
    file = first.get(f"{uploaded.json()['status_url']}/file")
    assert (file.status_code, file.headers["content-type"]) == (200, "image/jpeg"), "sent through the service, not by a link"

    scaled.bucket.put("told.jpg", synthetic_picture("black", "square", 320, seed=10))
    event, kind = scaled.bucket.event("ObjectCreated:Put", "told.jpg"), {"Content-Type": "application/json"}
    told = second.post("/api/v1/image-events", content=event, headers=kind)
    assert told.is_success, told.text
    _wait(scaled, 6)

    for processes in scaled.running.values():
        assert all(process.is_running for process in processes)

    for name in OURS:
        for process in scaled.running[name]:
            assert process.end(within_s=30) == 0, name
    assert not [log.name for log in scaled.root.glob("*.log") if "Traceback" in log.read_text()], scaled.tails()
