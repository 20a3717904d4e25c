"""What the three services really expose at /metrics, after each did a little of everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from core.metrics import service_registry
from core.replicas.addresses import embedder_at
from core.schemas import EmbedTextRequest
from model_service.app import create_app as create_model_app
from model_service.parts import Parts
from model_service.settings import ModelSettings
from searchsvc.app import create_app as create_search_app
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore, index, picture
from tests.unit.model_service.fakes import fake_parts
from tests.unit.watcher.fakes import House, jpeg
from watcher.app import running_watcher
from watcher.queue.metrics import QueueMetrics

Client = TestClient[web.Request, web.Application]


@dataclass(frozen=True)
class Metric:
    """One family: its name as a query would write it, without the endings of its samples."""

    name: str
    kind: str
    help: str
    services: frozenset[str]
    samples: tuple[Sample, ...] = field(repr=False)

    @property
    def labels(self) -> set[str]:
        return {label for sample in self.samples for label in sample.labels} - {"le"}


def scrape(folder: Path) -> list[Metric]:
    """All metrics of all services, by name."""
    found: dict[str, Metric] = {}
    for service, text in asyncio.run(_expositions(folder)).items():
        for family in text_string_to_metric_families(text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            known = found.get(name)
            services, samples = {service}, tuple(family.samples)
            if known is not None:
                assert (known.kind, known.help) == (family.type, family.documentation), f"{name} is two things"
                services, samples = {*known.services, service}, known.samples + samples
            found[name] = Metric(name, family.type, family.documentation, frozenset(services), samples)
    return sorted(found.values(), key=lambda metric: metric.name)


async def _expositions(folder: Path) -> dict[str, str]:
    return {
        "searchsvc": await _searchsvc(folder),
        "watcher": await _watcher(folder),
        "model_service": await _model_service(lambda _: fake_parts()),
    }


async def _text(client: Client) -> str:
    await client.get("/health/live")
    await client.get("/nowhere")
    answer = await client.get("/metrics")
    assert answer.status == 200
    return await answer.text()


def _registry_of_a_balancer() -> CollectorRegistry:
    """What a service that is told of several model services counts of them."""
    registry = service_registry()
    embedder_at(("http://one:8001", "http://two:8001"), registry)
    return registry


async def _model_service(load: Callable[[ModelSettings], Parts]) -> str:
    async with TestClient(TestServer(create_model_app(ModelSettings(), load=load))) as client:
        while (await client.get("/health/ready")).status != 200:
            await asyncio.sleep(0.01)
        for priority in ("query", "ingest"):
            answer = await client.post("/v1/analyse", params={"priority": priority}, data=picture("red"))
            assert answer.status == 200, await answer.text()
        asked = EmbedTextRequest(texts=("a", "b")).model_dump_json()
        await client.post("/v1/embed-texts", data=asked, headers={"Content-Type": "application/json"})
        return await _text(client)


async def _watcher(folder: Path) -> str:
    root = folder / "house"
    root.mkdir()
    house = House(root)
    house.write("good.jpg", jpeg("2 things"))
    house.write("bad.jpg", jpeg("broken"))
    registry = _registry_of_a_balancer()
    QueueMetrics(registry)  # as where there is a broker
    async with running_watcher(house.settings(), house.embedder, house.store, registry=registry) as watcher:
        await house.agreed()
        async with TestClient(TestServer(watcher.app)) as client:
            return await _text(client)


async def _searchsvc(folder: Path) -> str:
    embedder, vectors, catalog = FakeEmbedder(), FakeVectorStore(), FakeCatalog()
    images = folder / "images"
    images.mkdir()
    settings = SearchSettings(images_dir=images, data_dir=folder / "state")
    registry = _registry_of_a_balancer()
    app = create_search_app(settings, embedder=embedder, vectors=vectors, catalog=catalog, registry=registry)
    (images / "red.png").write_bytes(picture("red"))
    image_id = await index(embedder, vectors, catalog, picture("red"), "red.png")
    async with TestClient(TestServer(app)) as client:
        asked: dict[str, Any] = {"text": "red", "explain": True}
        found = await (await client.post("/api/v1/search-image", json=asked)).json()
        for token in (found["jwt"], found["matches"][0]["jwt"]):
            await client.post("/api/v1/create-feedback", json={"user_feedback": 9, "jwt": token})
        await client.get(f"/api/v1/images/{image_id}/thumbnail")
        return await _text(client)
