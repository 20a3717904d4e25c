"""The model service, or Qdrant, is slow, hangs, refuses, or answers garbage or half a body: pictures wait, and none is blamed for it."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from core.model_client import ModelClient
from core.schemas import IngestionStatus
from core.serving import serving
from core.vectors.server import ServerStore
from model_service.app import create_app
from model_service.settings import ModelSettings
from tests.e2e.agreement import disagreements
from tests.faults.proxy import Proxy, Sickness, proxy
from tests.faults.rig import some_picture
from tests.qdrant_rest import qdrant_rest
from tests.unit.model_service.fakes import fake_parts
from watcher.app import RunningWatcher, running_watcher
from watcher.settings import WatcherSettings

pytestmark = pytest.mark.serial

_SICKNESSES = [one for one in Sickness if one is not Sickness.NONE]


class _Ward:
    """A watcher between two services, each behind a proxy."""

    def __init__(self, root: Path, watcher: RunningWatcher, models: Proxy, qdrant: Proxy, qdrant_url: str) -> None:
        self.images, self._state = root / "images", root / "state"
        self._watcher = watcher
        self.models, self.qdrant = models, qdrant
        self._qdrant_url = qdrant_url

    async def status(self) -> IngestionStatus:
        return await self._watcher.catalog.status()

    async def agree(self, timeout_s: float = 30.0) -> None:
        wrong: list[str] = []
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    counts = (await self.status()).images
                    if counts.pending == counts.running == 0:
                        wrong = await asyncio.to_thread(self._disagreements)
                        if not wrong:
                            return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{await self.status()}: {wrong}") from None

    def _disagreements(self) -> list[str]:
        return disagreements(self.images, self._state, vectors=ServerStore(self._qdrant_url, prefer_grpc=False))


@asynccontextmanager
async def _ward(root: Path) -> AsyncIterator[_Ward]:
    (root / "images").mkdir()
    settings = WatcherSettings(
        images_dir=root / "images",
        data_dir=root / "state",
        settle_s=0.2,
        orphan_grace_s=0.15,
        retry_min_s=0.05,
        outage_retry_max_s=0.3,
        shutdown_grace_s=1,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    models = create_app(ModelSettings(), load=lambda _: fake_parts())
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with (
        serving(models, listener, shutdown_grace_s=0.1),
        qdrant_rest() as qdrant_url,
        proxy(url) as (model_proxy, model_url),
        proxy(qdrant_url) as (qdrant_proxy, between_url),
        ModelClient(model_url, timeout_s=1.0) as embedder,
        ServerStore(between_url, prefer_grpc=False, timeout_s=1.0) as vectors,
        running_watcher(settings, embedder, vectors) as watcher,
    ):
        yield _Ward(root, watcher, model_proxy, qdrant_proxy, qdrant_url)


@pytest.mark.parametrize("who", ["models", "qdrant"])
async def test_pictures_wait_for_a_sick_service_and_none_is_blamed(tmp_path: Path, rng: random.Random, who: str) -> None:
    await _suffer(tmp_path, rng, who, rng.sample(_SICKNESSES, 3))


@pytest.mark.long
@pytest.mark.parametrize("who", ["models", "qdrant"])
async def test_pictures_wait_out_every_sickness_three_times(tmp_path: Path, rng: random.Random, who: str) -> None:
    await _suffer(tmp_path, rng, who, rng.sample(_SICKNESSES * 3, len(_SICKNESSES) * 3))


async def _suffer(tmp_path: Path, rng: random.Random, who: str, sicknesses: list[Sickness]) -> None:
    async with _ward(tmp_path) as ward:
        sick: Proxy = getattr(ward, who)
        (ward.images / "first.jpg").write_bytes(some_picture(rng))
        await ward.agree()
        for number, sickness in enumerate(sicknesses):
            await _fall_ill_and_recover(ward, sick, sickness, rng, number)
        status = await ward.status()
        assert (status.images.indexed, status.images.failed) == (1 + 2 * len(sicknesses), 0)


async def _fall_ill_and_recover(ward: _Ward, sick: Proxy, sickness: Sickness, rng: random.Random, nth: int) -> None:
    structlog.get_logger().info("fell_ill", sickness=sickness.value)
    await sick.fall(sickness)
    with capture_logs() as told:
        for number in range(3):
            (ward.images / f"{nth} {sickness} {number}.jpg").write_bytes(some_picture(rng))
        oldest = min(ward.images.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        oldest.unlink()
        oldest = min(ward.images.iterdir(), key=lambda file: file.stat().st_mtime_ns)
        oldest.rename(oldest.with_name(f"renamed {oldest.name}"))
        async with asyncio.timeout(15):
            while sickness is not Sickness.SLOW and not (await ward.status()).watcher.waiting_for:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        assert sickness is Sickness.SLOW or [line for line in told if line["event"] == "ingestion_paused"]
        assert sick.met
        await sick.fall(Sickness.NONE)
        await ward.agree()
    assert not [line for line in told if line["log_level"] in {"error", "critical"}]
