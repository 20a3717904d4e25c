"""Model services come, go and fall ill while queries are asked at a steady rate: not one of them fails."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from core.errors import ModelCrashed
from core.replicas.metrics import ReplicaMetrics
from core.replicas.models import ReplicatedModels
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeVectorStore, picture
from tests.ports import free_ports
from tests.unit.core.replicas.fakes import Ailment, ward

_PERIOD_S = 0.02
"""50 queries a second."""


@dataclass
class _Asked:
    """What became of a stream of queries."""

    took: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def within(self, share: float) -> float:
        return sorted(self.took)[int(share * len(self.took))]


@asynccontextmanager
async def _asking(query: Callable[[int], Awaitable[None]], *, period_s: float = _PERIOD_S) -> AsyncIterator[_Asked]:
    """Ask at a steady rate, whether answers come or not, for as long as the context lasts; on leaving it all have ended."""
    asked = _Asked()

    async def one(number: int) -> None:
        started = time.monotonic()
        try:
            await query(number)
        except Exception as error:  # noqa: BLE001 - told by the test
            asked.failed.append(repr(error))
        else:
            asked.took.append(time.monotonic() - started)

    async def ask() -> None:
        async with asyncio.TaskGroup() as group:
            number = 0
            while not ended.is_set():
                group.create_task(one(number))
                number += 1
                await asyncio.sleep(period_s)

    ended = asyncio.Event()
    asking = asyncio.create_task(ask())
    try:
        yield asked
    finally:
        ended.set()
        await asking
    print(
        f"{len(asked.took)} answered, {len(asked.failed)} failed; 50 %: {asked.within(0.5):.3f} s, 99 %: {asked.within(0.99):.3f} s"
    )


class _Process:
    """A model service of its own, on a port that it gets again when it is started anew."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self._environment = {
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "MODELS_DIR": str(folder),
            "DECODE_ISOLATION": "false",
            "LOG_LEVEL": "error",
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.unit.core.replicas.served", env=self._environment, stdout=asyncio.subprocess.DEVNULL
        )

    async def stop(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None
        if process.returncode is None:
            process.send_signal(number)
        return await process.wait()


async def _until_ready(models: ReplicatedModels, ready: int) -> None:
    async with asyncio.timeout(60):
        while sum(replica.is_ready and replica.own is not None for replica in models.replicas) != ready:
            await asyncio.sleep(0.05)


@pytest.mark.e2e
@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.long)], ids=lambda how: how.name)
async def test_three_services_are_restarted_one_by_one_under_load_and_no_query_fails(
    tmp_path: Path, rng: random.Random, how: signal.Signals
) -> None:
    registry = CollectorRegistry()
    crashed = 0
    async with AsyncExitStack() as stack:
        processes = [_Process(port, tmp_path) for port in free_ports(3)]
        for process in processes:
            await process.start()
            stack.push_async_callback(process.stop, signal.SIGKILL)
        urls = [f"http://127.0.0.1:{process.port}" for process in processes]
        models = await stack.enter_async_context(ReplicatedModels(urls, metrics=ReplicaMetrics(registry), rng=rng))
        await _until_ready(models, 3)

        async def query(number: int) -> None:
            answer = await models.embed_texts(["x" * (number % 90 + 1)], fingerprint="f1")
            assert answer.vectors[0][0] == number % 90 + 1

        async def ingest() -> None:
            nonlocal crashed
            while True:
                try:
                    await models.analyse(picture("red"), fingerprint="f1")
                except ModelCrashed:
                    crashed += 1

        ingesting = asyncio.create_task(ingest())
        async with _asking(query) as asked:
            for process, replica in zip(processes, models.replicas, strict=True):
                code = await process.stop(how)
                assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL)
                replica.own = None
                await process.start()
                await _until_ready(models, 3)
        ingesting.cancel()
        await asyncio.gather(ingesting, return_exceptions=True)
    assert asked.failed == []
    assert len(asked.took) > 80
    if how is signal.SIGTERM:
        assert crashed == 0, "what was taken is answered, so no picture is held to have ended a service"


async def test_people_who_search_notice_nothing_of_services_that_come_and_go(tmp_path: Path, rng: random.Random) -> None:
    (tmp_path / "images").mkdir()
    settings = SearchSettings(images_dir=tmp_path / "images", data_dir=tmp_path / "state", searches_per_s=1000)
    async with ward(3, rng, look_every_s=0.2) as among:
        app = create_app(settings, embedder=among.models, vectors=FakeVectorStore(), catalog=FakeCatalog())
        async with TestClient(TestServer(app)) as client:

            async def query(number: int) -> None:
                async with client.post("/api/v1/search-image", json={"text": str(number + 1)}) as answer:
                    assert answer.status == 200, await answer.text()
                    assert (await answer.json())["model_name"] == "CLIP"

            async with _asking(query) as asked:
                for replica in among.replicas:
                    for ailment in (Ailment.DRAINS, Ailment.REFUSES, Ailment.NONE):
                        await replica.fall(ailment)
                        await asyncio.sleep(0.5)
    assert asked.failed == []
    assert len(asked.took) > 100
    assert asked.within(0.99) < 3.0


async def _chaos(rng: random.Random, *, lasting_s: float) -> None:
    async with ward(4, rng, look_every_s=0.5) as among:
        for replica in among.replicas:
            replica.delay_s = 0.005
        await among.embed_many(100)
        ended = time.monotonic() + lasting_s
        met: set[Ailment] = set()

        async def query(number: int) -> None:
            number += 1000
            assert (await among.models.info("f1")).fingerprint == "f1"
            await among.embed(number)

        async with _asking(query) as asked:
            while time.monotonic() < ended:
                replica = rng.choice(among.replicas)
                ailment = rng.choice(list(Ailment))
                others_well = [one for one in among.replicas if one is not replica and one.ailment is Ailment.NONE]
                await replica.fall(ailment if others_well else Ailment.NONE)
                met.add(replica.ailment)
                await asyncio.sleep(rng.uniform(0.05, 0.5))
            for replica in among.replicas:
                await replica.fall(Ailment.NONE)
        assert asked.failed == []
        assert asked.within(0.99) < 3.0
        assert len(met) > 4
        assert [replica.outstanding for replica in among.models.replicas] == [0] * 4
        assert max(max(replica.texts.values()) for replica in among.replicas) == 1, "none is asked the same twice"
        retried = among.told("model_retries_total", result="moved")
        hedged = among.told("model_hedges_total", result="won") + among.told("model_hedges_total", result="lost")
        print(f"{retried:.0f} retried, {hedged:.0f} hedged, of {len(asked.took)}")


async def test_four_services_fall_ill_at_random_and_every_query_is_answered(rng: random.Random) -> None:
    await _chaos(rng, lasting_s=10)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_four_services_fall_ill_at_random_for_ten_minutes(rng: random.Random) -> None:
    await _chaos(rng, lasting_s=600)
