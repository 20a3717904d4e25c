"""A model service that is told to end says so first, and answers what it took."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from core.model_client import ModelClient
from core.schemas import Health
from model_service.app import create_app
from model_service.draining import serve
from model_service.metrics import BusyTime
from model_service.parts import Parts
from model_service.settings import ModelSettings
from tests.unit.model_service.fakes import FakeTexts, fake_parts


class _Running:
    def __init__(self, port: int, told: asyncio.Event, serving: asyncio.Task[None]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.told = told
        self.serving = serving


@asynccontextmanager
async def _running(parts: Parts, *, drain_s: float, grace_s: float = 5.0) -> AsyncIterator[_Running]:
    settings = ModelSettings(drain_s=drain_s, shutdown_grace_s=grace_s, decode_isolation=False)
    told = asyncio.Event()

    async def until() -> None:
        await told.wait()

    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings, load=lambda _: parts)
    serving = asyncio.create_task(serve(app, listener, settings, until=until))
    running = _Running(listener.getsockname()[1], told, serving)
    try:
        async with ModelClient(running.url) as client, asyncio.timeout(10):
            while (await client.health()).status != "ok":
                await asyncio.sleep(0.01)
        yield running
    finally:
        told.set()
        await serving


async def test_what_it_is_about_to_do_is_told_while_it_still_answers() -> None:
    async with _running(fake_parts(), drain_s=1.0) as service, ModelClient(service.url) as client:
        health = await client.health()
        assert (health.status, health.checks) == ("ok", {"models": "ready", "fingerprint": "f1"})
        service.told.set()
        await asyncio.sleep(0)
        health = await client.health()
        assert (health.status, health.detail) == ("unavailable", "it is about to end")
        assert health.checks["fingerprint"] == "f1"
        assert len((await client.embed_texts(["still here"])).vectors) == 1
        assert not service.serving.done()


async def test_answers_close_their_connection_so_that_none_breaks_in_a_later_request() -> None:
    async with _running(fake_parts(), drain_s=1.0) as service, aiohttp.ClientSession() as session:
        async with session.get(f"{service.url}/health/ready") as answer:
            assert "Connection" not in answer.headers
        service.told.set()
        await asyncio.sleep(0)
        async with session.get(f"{service.url}/health/ready") as answer:
            assert answer.status == 503
            assert answer.headers["Connection"] == "close"
            assert Health.model_validate_json(await answer.read()).status == "unavailable"


@pytest.mark.parametrize("drain_s", [0.0, 0.3])
async def test_what_it_took_is_answered_however_long_it_drains(drain_s: float) -> None:
    parts = fake_parts()
    texts = parts.text_tower
    assert isinstance(texts, FakeTexts)
    async with _running(parts, drain_s=drain_s) as service, ModelClient(service.url) as client:
        texts.gate.clear()
        asked = asyncio.create_task(client.embed_texts(["taken"]))
        await asyncio.sleep(0.1)
        service.told.set()
        await asyncio.sleep(drain_s + 0.2)
        assert not asked.done()
        texts.gate.set()
        assert (await asked).vectors[0][0] == len("taken")
        async with asyncio.timeout(5):
            await service.serving


async def test_draining_is_a_part_of_the_time_that_an_end_may_take() -> None:
    async with _running(fake_parts(), drain_s=60.0, grace_s=0.3) as service:
        service.told.set()
        async with asyncio.timeout(5):
            await service.serving


def test_saturation_is_the_share_of_the_last_seconds_in_which_anything_was_computed() -> None:
    now = 0.0
    busy = BusyTime(window_s=10.0, clock=lambda: now)
    assert busy.share() == 0
    now = 4.0
    busy.note(2.0)
    assert busy.share() == pytest.approx(0.2)
    now = 5.0
    busy.note(2.0)  # a half of it beside the one before
    assert busy.share() == pytest.approx(0.3)
    now = 13.0
    assert busy.share() == pytest.approx(0.2), "what lies longer ago than the window counts no more"
    now = 30.0
    busy.note(25.0)
    assert busy.share() == 1.0
    now = 100.0
    assert busy.share() == 0
