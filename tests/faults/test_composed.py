"""One process a service, and a Qdrant server: `kill -9` of each alone, Qdrant with all that it held, and of all at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from core.errors import VectorsUnavailable
from core.vectors.server import ServerStore
from tests.e2e.agreement import disagreements
from tests.e2e.product import REPOSITORY, wait_for
from tests.faults.rig import QUICK, some_picture, under_test
from tests.ports import free_port
from tests.ram import ram_folder

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_MODULES = {"qdrant": "tests.qdrant_rest", "model": "model_service", "watcher": "watcher", "search": "searchsvc"}


class _Composed:
    """The four of them, which find each other by their ports."""

    def __init__(self, root: Path) -> None:
        self.images, self._state = root / "images", root / "state"
        self.images.mkdir()
        self._log = root / "log.jsonl"
        self._ports = {name: free_port() for name in _MODULES}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in self._ports.items()}
        self._environment = {
            **os.environ,
            **QUICK,
            **under_test(root / "faults"),
            "IMAGES_DIR": str(self.images),
            "DATA_DIR": str(self._state),
            "QDRANT_URL": self.urls["qdrant"],
            "QDRANT_PREFER_GRPC": "false",
            "MODEL_URL": self.urls["model"],
            "WATCHER_URL": self.urls["watcher"],
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.api = httpx.Client(base_url=self.urls["search"], trust_env=False, timeout=30)

    def start(self, *names: str) -> None:
        for name in names:
            port = ("--port", str(self._ports[name])) if name == "qdrant" else ()
            environment = {**self._environment, "PORT": str(self._ports[name])}
            with self._log.open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-m", _MODULES[name], *port], cwd=REPOSITORY, env=environment, stdout=log, stderr=log
                )

    def kill(self, *names: str) -> None:
        for name in names:
            if (process := self._processes.pop(name, None)) is not None:
                process.send_signal(signal.SIGKILL)
                process.wait(10)

    def agree(self) -> None:
        try:
            wait_for("agreement", self._agrees, timeout_s=60, every_s=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log.read_text()[-3000:]}") from None

    def _agrees(self) -> bool:
        with suppress(httpx.TransportError, KeyError, VectorsUnavailable):
            images = self.api.get("/api/v1/status").json()["images"]
            if images["pending"] == images["running"] == images["failed"] == 0:
                store = ServerStore(self.urls["qdrant"], prefer_grpc=False)
                return not disagreements(self.images, self._state, vectors=store)
        return False


@pytest.fixture
def composed() -> Iterator[_Composed]:
    with ram_folder() as root:
        services = _Composed(root)
        try:
            yield services
        finally:
            services.kill(*_MODULES)
            services.api.close()


@pytest.mark.long
def test_each_service_may_be_killed_alone_and_all_together(composed: _Composed, rng: random.Random) -> None:
    composed.start(*_MODULES)
    number = 0
    for victims in [(), *((name,) for name in rng.sample(sorted(_MODULES), len(_MODULES))), tuple(_MODULES)]:
        print("killed:", victims)
        for _ in range(5):
            (composed.images / f"{number}.jpg").write_bytes(some_picture(rng))
            number += 1
        composed.kill(*victims)
        if number > 5:
            (composed.images / f"{number - 9}.jpg").rename(composed.images / f"renamed {number - 9}.jpg")
            (composed.images / f"{number - 10}.jpg").unlink()
        composed.start(*victims)
        composed.agree()
    found = composed.api.post("/api/v1/search-image", json={"text": "anything", "top_k": 100}).json()["matches"]
    assert len(found) == len(list(composed.images.iterdir()))
