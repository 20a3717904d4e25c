"""What is asked on top of what can be answered is refused at once, and nothing is kept of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from core.schemas import Priority, TextEmbeddings
from tests.fakes import picture
from tests.unit.searchsvc.conftest import MakeWorld


async def test_beyond_its_places_it_refuses_at_once_and_then_goes_on(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(max_requests=2)
    await world.add(picture("red"), "a.png")
    rated = await world.search(text="before")
    begun, release, embed = asyncio.Semaphore(0), asyncio.Event(), world.embedder.embed_texts

    async def held(
        texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        begun.release()
        await release.wait()
        return await embed(texts, priority=priority, fingerprint=fingerprint)

    monkeypatch.setattr(world.embedder, "embed_texts", held)
    taken = [asyncio.create_task(world.search(text=f"question {n}")) for n in range(2)]
    async with asyncio.timeout(10):
        for _ in taken:
            await begun.acquire()
    rating = {"jwt": rated["jwt"], "user_feedback": 8}
    for path, asked in (
        ("search-image", {"text": "a third"}),
        ("compare-models", {"text": "x", "models": ["words", "words"]}),
        ("create-feedback", rating),
    ):
        refused = await world.client.post(f"/api/v1/{path}", json=asked)
        assert (refused.status, (await refused.json(content_type=None))["code"]) == (503, "overloaded"), path
        assert refused.headers["Retry-After"] == "1"
    assert (await world.client.get("/health/live")).status == 200
    release.set()
    for answer in await asyncio.gather(*taken):
        assert answer["matches"]
    assert (await world.client.post("/api/v1/create-feedback", json=rating)).status == 201, "its token was not spent"
    assert (await world.search(text="a fourth"))["matches"]
