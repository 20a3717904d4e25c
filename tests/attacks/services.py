"""All three services, as they listen, with every route that their routers know: an attack on each needs no list of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from core.gate import Gate
from core.hosts import KnownHosts
from core.metrics import service_registry
from core.pace import PaceLimits
from core.serving import MOST_CONNECTIONS, serving
from model_service.app import create_app as create_model_app
from model_service.settings import ModelSettings
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore, index, picture
from tests.unit.model_service.fakes import fake_parts
from tests.unit.searchsvc.conftest import SECRET
from watcher.metrics import IndexMetrics, IngestionMetrics
from watcher.routes import make_app

SERVICES = ("searchsvc", "watcher", "model_service")


class WatchersCatalog(FakeCatalog):
    """What the watcher's own routes ask beside the port."""

    async def oldest_pending_s(self) -> float:
        return 0.0


@dataclass
class Attacked:
    """One service that listens on loopback, and what could be changed through it."""

    app: web.Application
    address: str
    images: Path
    data: Path
    catalog: FakeCatalog
    embedder: FakeEmbedder
    image_id: str
    session: ClientSession

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def routes(self) -> Iterator[tuple[str, str]]:
        """Method and path of every route, with an image that is there."""
        names = {"image_id": self.image_id, "id": self.image_id, "n": "0", "name": "main.js"}
        for route in self.app.router.routes():
            assert route.resource is not None
            yield route.method, route.resource.canonical.format(**names)

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, and the beginning of the content: some answers never end."""
        async with asyncio.timeout(20), self.session.request(method, self.address + path, **options) as answer:
            return answer.status, dict(answer.headers), await answer.content.read(4096)

    async def raw(self, request: bytes, *, first_line: bool = False) -> bytes:
        """What comes back for these bytes, until the service closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                return await (reader.readline() if first_line else reader.read())
        finally:
            writer.close()

    def state(self) -> tuple[Any, ...]:
        """All that a request could change."""
        files = sorted((str(path), path.stat().st_size) for path in self.images.rglob("*"))
        ratings = self.data / "feedback.sqlite-wal"
        written = ratings.stat().st_size if ratings.exists() else 0
        asked = (self.embedder.text_calls, len(self.embedder.analysed))
        return files, written, asked, sorted(self.catalog.records), list(self.catalog.noticed), list(self.catalog.resegmented)


MakeApp = Callable[..., Awaitable[web.Application]]


@asynccontextmanager
async def attacked(
    name: str, root: Path, *, pace: PaceLimits | None = None, most_connections: int = MOST_CONNECTIONS, **settings: Any
) -> AsyncIterator[Attacked]:
    """A service over fakes, served as the product serves it."""
    images, data = root / "images", root / "state"
    images.mkdir(exist_ok=True)
    embedder, vectors, catalog = FakeEmbedder(), FakeVectorStore(), WatchersCatalog()
    (images / "red.png").write_bytes(picture("red"))
    image_id = await index(embedder, vectors, catalog, picture("red"), "red.png")
    given = {"images_dir": images, "data_dir": data, **settings}
    match name:
        case "searchsvc":
            app = create_app(
                SearchSettings(**{"jwt_secret": SECRET, **given}), embedder=embedder, vectors=vectors, catalog=catalog
            )
        case "watcher":
            gate = Gate(KnownHosts(listens_on=given.get("host", "127.0.0.1"), allowed=given.get("allowed_hosts", ())))
            registry = service_registry()
            app = make_app(catalog, IngestionMetrics(registry), IndexMetrics(registry, vectors), gate)  # type: ignore[arg-type]
        case _:
            app = create_model_app(ModelSettings(**given), load=lambda _: fake_parts())
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        await stack.enter_async_context(serving(app, listener, shutdown_grace_s=1, pace=pace, most_connections=most_connections))
        session = await stack.enter_async_context(ClientSession())
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        service = Attacked(app, address, images, data, catalog, embedder, image_id, session)
        async with asyncio.timeout(20):
            while (await service.ask("GET", "/health/ready"))[0] != 200:
                await asyncio.sleep(0.02)
        yield service
