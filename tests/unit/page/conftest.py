"""A search service whose folder is filled by hand, and a real browser to look at its page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, FilePayload, Page, async_playwright, expect

from core.errors import Reason
from core.ports import Point
from core.schemas import Failure, ImageState
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.browser import PATIENCE_MS, QUIET, chromium
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore, index


def query(content: bytes, name: str = "query.png") -> FilePayload:
    """A picture as a file field takes it."""
    return {"name": name, "mimeType": "image/png", "buffer": content}


class Site:
    """A search service whose folder is filled by hand, and a page of it."""

    def __init__(self, root: Path, browser: Browser) -> None:
        self.images = root / "images"
        self.images.mkdir()
        self.state = root / "state"
        self.browser = browser
        self.embedder, self.vectors, self.catalog = FakeEmbedder(), FakeVectorStore(), FakeCatalog()
        self.trouble: list[str] = []
        self.server: TestServer | None = None

    async def add(self, content: bytes, path: str) -> str:
        (self.images / path).write_bytes(content)
        return await index(self.embedder, self.vectors, self.catalog, content, path)

    def tell(self, image_id: str, **fields: Any) -> None:
        """Change what is told of an indexed picture."""
        for held in self.vectors.stored.values():
            for point in [point for point in held.values() if point.payload["image_id"] == image_id]:
                held[point.id] = Point(point.id, point.vector, {**point.payload, **fields})

    def fail(self, image_id: str, path: str) -> None:
        record = self.catalog.records[image_id].model_copy(update={"state": ImageState.FAILED, "reason": Reason.TRUNCATED})
        self.catalog.records[image_id] = record
        detail = "the file ends early"
        self.catalog.failed.append(
            Failure(path=path, reason=Reason.TRUNCATED, detail=detail, image_id=image_id, failed_at=record.noticed_at)
        )

    async def open(self, address: str = "/", **settings: Any) -> Page:
        chosen = SearchSettings(**{"images_dir": self.images, "data_dir": self.state, **settings})
        app = create_app(chosen, embedder=self.embedder, vectors=self.vectors, catalog=self.catalog)
        self.server = TestServer(app)
        await self.server.start_server()
        page = await self.browser.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("console", lambda message: self.trouble.append(message.text) if "Content Security" in message.text else None)
        await page.goto(str(self.server.make_url(address)))
        return page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = chromium()
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=program, args=QUIET)
        yield opened
        await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def site(browser: Browser, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path, browser)
    yield made
    for context in browser.contexts:
        await context.close()
    if made.server is not None:
        await made.server.close()
    assert made.trouble == []
