"""A rolling update from one set of models to another: searches go on, nothing is mixed, and the course turns once."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from core.ports import Catalog
from core.replicas.metrics import ReplicaMetrics
from core.replicas.models import ReplicatedModels
from core.schemas import ModelsCourse
from model_service.app import create_app
from model_service.draining import serve
from model_service.parts import Parts
from model_service.settings import ModelSettings
from tests.fakes import picture
from tests.ports import free_ports
from tests.unit.model_service.fakes import fake_parts
from tests.unit.watcher.fakes import House
from watcher.app import running_watcher

_PICTURES = 6


def _parts(settings: ModelSettings) -> Parts:
    """The profile is the fingerprint, too, and the collections end with it."""
    profile = settings.model_profile
    parts = fake_parts(profile=profile, fingerprint=profile, segmenter=False)
    named = tuple(space.model_copy(update={"collection": f"{space.model_name}-{profile}"}) for space in parts.spaces)
    return replace(parts, spaces=named)


class _Service:
    """One model service on a port that it keeps; all share a MODELS_DIR."""

    def __init__(self, port: int, models_dir: Path) -> None:
        self._port = port
        self._models_dir = models_dir
        self._told = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    def start(self, profile: str) -> None:
        settings = ModelSettings(
            models_dir=self._models_dir, model_profile=profile, drain_s=0.5, shutdown_grace_s=2, decode_isolation=False
        )
        self._told = told = asyncio.Event()

        async def until() -> None:
            await told.wait()

        listener = socket.create_server(("127.0.0.1", self._port))
        self._serving = asyncio.create_task(serve(create_app(settings, load=_parts), listener, settings, until=until))

    async def stop(self) -> None:
        self._told.set()
        if self._serving is not None:
            await self._serving


async def _until_all_are(models: ReplicatedModels, own: list[str]) -> None:
    async with asyncio.timeout(20):
        while [replica.own for replica in models.replicas if replica.is_ready] != own:
            await asyncio.sleep(0.02)


class _Watcher:
    """One that can be started anew."""

    def __init__(self, house: House, models: ReplicatedModels) -> None:
        self._house = house
        self._models = models
        self._stack = AsyncExitStack()
        self.catalog: Catalog | None = None

    async def start(self) -> None:
        watcher = await self._stack.enter_async_context(running_watcher(self._house.settings(), self._models, self._house.store))
        self.catalog = watcher.catalog

    async def stop(self) -> None:
        self.catalog = None
        await self._stack.aclose()


class _Searcher:
    """Asks as the search service does, at a steady rate: by the models that the watcher said last are searched."""

    def __init__(self, models: ReplicatedModels, watcher: _Watcher) -> None:
        self._models = models
        self._watcher = watcher
        self.courses: list[ModelsCourse] = []
        self.failed: list[str] = []
        self.answered = 0

    async def run(self) -> None:
        while True:
            if self._watcher.catalog is not None:
                self.courses.append(await self._watcher.catalog.models())
            try:
                await self._search(self.courses[-1].searched)
                self.answered += 1
            except Exception as error:  # noqa: BLE001 - told by the test
                self.failed.append(repr(error))
            await asyncio.sleep(0.02)

    async def _search(self, searched: str | None) -> None:
        info = await self._models.info(searched)
        words = await self._models.embed_texts(["sea"], fingerprint=searched)
        assert info.fingerprint == searched
        assert words.space.collection == f"CLIP-{searched}"


async def _until_indexed_by(house: House, profile: str, pictures: int) -> None:
    async with asyncio.timeout(20):
        while len(house.store.points.get(f"CLIP-{profile}", {})) < pictures:
            await asyncio.sleep(0.02)


async def _update(services: Sequence[_Service], models: ReplicatedModels, house: House, watcher: _Watcher) -> None:
    now = ["one"] * len(services)
    for number, service in enumerate(services):
        await service.stop()
        service.start("two")
        now[number] = "two"
        await _until_all_are(models, now)
        if number == 0:
            await watcher.stop()
            await watcher.start()
            house.write("meanwhile.png", picture("blue"))
            await _until_indexed_by(house, "one", _PICTURES + 1)
    await watcher.stop()
    await watcher.start()  # or it would look for other models every half a minute


async def test_models_of_three_services_are_updated_one_by_one(tmp_path: Path, rng: random.Random) -> None:
    house = House(tmp_path)
    for number in range(_PICTURES):
        house.write(f"{number}.png", picture("red", mark=number))
    async with AsyncExitStack() as stack:
        ports = free_ports(3)
        services = [_Service(port, tmp_path / "models") for port in ports]
        for service in services:
            service.start("one")
            stack.push_async_callback(service.stop)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        models = ReplicatedModels(urls, metrics=ReplicaMetrics(CollectorRegistry()), look_every_s=0.1, rng=rng)
        await stack.enter_async_context(models)
        await _until_all_are(models, ["one"] * 3)
        watcher = _Watcher(house, models)
        await watcher.start()
        stack.push_async_callback(watcher.stop)
        await _until_indexed_by(house, "one", _PICTURES)

        searcher = _Searcher(models, watcher)
        searching = asyncio.create_task(searcher.run())
        await _update(services, models, house, watcher)
        await _until_indexed_by(house, "two", _PICTURES + 1)
        async with asyncio.timeout(20):
            while searcher.courses[-1].searched != "two" or searcher.courses[-1].change is not None:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        searching.cancel()
        await asyncio.gather(searching, return_exceptions=True)

    assert searcher.failed == []
    assert searcher.answered > 50
    turns = [course.searched for course in searcher.courses]
    assert turns == sorted(turns, key=str), "from one to two, once"
    assert {course.change.profile for course in searcher.courses if course.change is not None} <= {"two"}
    for collection, points in house.store.points.items():
        assert {point.payload["fingerprint"] for point in points.values()} == {collection.partition("-")[2]}
        assert len(points) == _PICTURES + 1


async def test_services_that_differ_at_the_very_start_are_waited_for_and_that_is_said(tmp_path: Path, rng: random.Random) -> None:
    house = House(tmp_path)
    house.write("0.png", picture("red"))
    async with AsyncExitStack() as stack:
        ports = free_ports(2)
        services = [_Service(port, tmp_path / "models") for port in ports]
        for service, profile in zip(services, ("one", "two"), strict=True):
            service.start(profile)
            stack.push_async_callback(service.stop)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        models = ReplicatedModels(urls, metrics=ReplicaMetrics(CollectorRegistry()), look_every_s=0.1, rng=rng)
        await stack.enter_async_context(models)
        await _until_all_are(models, ["one", "two"])
        watcher = _Watcher(house, models)
        await watcher.start()
        stack.push_async_callback(watcher.stop)
        assert watcher.catalog is not None
        async with asyncio.timeout(20):
            while "different models" not in ((await watcher.catalog.status()).watcher.waiting_for or ""):
                await asyncio.sleep(0.02)
        assert house.store.points == {}
        await services[1].stop()
        services[1].start("one")
        await _until_indexed_by(house, "one", 1)
