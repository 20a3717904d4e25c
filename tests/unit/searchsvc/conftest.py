"""A running search service over fakes."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient, TestServer
from pytest_aiohttp.plugin import AiohttpClient

from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore, index

SECRET = "0123456789abcdef0123456789abcdef-test"


@dataclass
class World:
    """The service, what it stands on, and the shortest way to ask it something."""

    client: TestClient[Any, Any]
    settings: SearchSettings
    embedder: FakeEmbedder
    vectors: FakeVectorStore
    catalog: FakeCatalog

    @property
    def images(self) -> Path:
        return self.settings.images_dir

    async def add(self, content: bytes, *paths: str, **options: Any) -> str:
        """Put a picture into the folder and index it."""
        for path in paths:
            target = self.images / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return await index(self.embedder, self.vectors, self.catalog, content, *paths, **options)

    async def search(self, **question: Any) -> dict[str, Any]:
        answer = await self.client.post("/api/v1/search-image", json=question)
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
        return found

    async def refused(self, **question: Any) -> tuple[int, dict[str, Any]]:
        answer = await self.client.post("/api/v1/search-image", json=question)
        problem: dict[str, Any] = await answer.json(content_type="application/problem+json")
        return answer.status, problem

    async def upload(self, content: bytes, name: str = "picture.png", **fields: str) -> Any:
        form = FormData(quote_fields=False)  # as browsers do
        form.add_field("file", io.BytesIO(content), filename=name, content_type="application/octet-stream")
        for field, value in fields.items():
            form.add_field(field, value)
        return await self.client.post("/api/v1/images", data=form)


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
def make_world(aiohttp_client: AiohttpClient, tmp_path: Path) -> MakeWorld:
    """Start a service with other settings than the usual."""

    async def make(**settings: Any) -> World:
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        chosen = SearchSettings(**{"images_dir": images, "data_dir": tmp_path / "state", "jwt_secret": SECRET, **settings})
        embedder, vectors, catalog = FakeEmbedder(), FakeVectorStore(), FakeCatalog()
        app = create_app(chosen, embedder=embedder, vectors=vectors, catalog=catalog)
        client: TestClient[Any, Any] = await aiohttp_client(TestServer(app))
        return World(client, chosen, embedder, vectors, catalog)

    return make


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()
