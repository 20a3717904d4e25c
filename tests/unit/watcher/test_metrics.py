"""What the watcher's /metrics says, after it did something."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient
from prometheus_client.parser import text_string_to_metric_families

from core.errors import ModelUnavailable, VectorsUnavailable
from tests.unit.watcher.fakes import House, jpeg, models, until

ClientFactory = Callable[[web.Application], Awaitable[TestClient[Any, Any]]]
Sample = Callable[..., Awaitable[float | None]]


async def _sampler(aiohttp_client: ClientFactory, app: web.Application) -> Sample:
    client = await aiohttp_client(app)

    async def sample(name: str, **labels: str) -> float | None:
        answer = await client.get("/metrics")
        assert answer.status == 200
        families = text_string_to_metric_families(await answer.text())
        found = [one.value for family in families for one in family.samples if (one.name, one.labels) == (name, labels)]
        return found[0] if found else None

    return sample


async def test_ingestion_is_counted_by_state_reason_and_stage(house: House, aiohttp_client: ClientFactory) -> None:
    for number in range(3):
        house.write(f"{number}.jpg", jpeg(f"{number} p"))
    house.write("broken.jpg", jpeg("broken"))
    async with house.running() as watcher:
        await house.agreed()
        sample = await _sampler(aiohttp_client, watcher.app)
        assert await sample("ingestion_images", state="indexed") == 3
        assert await sample("ingestion_images", state="failed") == 1
        assert await sample("ingestion_segments") == 0 + 1 + 2
        assert await sample("ingestion_indexed_total", how="analysed") == 3
        assert await sample("ingestion_indexed_total", how="adopted") == 0
        assert await sample("ingestion_failures_total", reason="truncated") == 1
        assert await sample("ingestion_failures_total", reason="crashes_model") == 0
        assert await sample("ingestion_time_to_searchable_seconds_count") == 3
        assert [await sample("ingestion_stage_seconds_count", stage=stage) for stage in ("read", "analyse", "write")] == [4, 4, 3]
        assert await sample("ingestion_queue_age_seconds") == 0
        assert await sample("ingestion_last_reconcile_timestamp_seconds") != 0


async def test_the_size_of_the_index_is_told_and_left_out_while_nobody_knows_it(
    house: House, aiohttp_client: ClientFactory
) -> None:
    house.write("one.jpg", jpeg("2 things"))
    async with house.running() as watcher:
        await house.agreed()
        sample = await _sampler(aiohttp_client, watcher.app)
        assert await sample("index_points", collection="clip") == 3
        assert await sample("index_disk_bytes", collection="clip") == 4096
        house.store.away = VectorsUnavailable("away")
        assert await sample("index_points", collection="clip") is None
        assert await sample("ingestion_images", state="indexed") == 1


async def test_an_image_that_was_searchable_before_says_nothing_of_the_time_to_searchable(
    house: House, aiohttp_client: ClientFactory
) -> None:
    house.write("one.jpg", jpeg("one"))
    async with house.running():
        await house.agreed()
    house.embedder.models = models("other")
    async with house.running() as watcher:
        await until(lambda: sum(house.embedder.analysed.values()) == 2)
        await house.agreed()
        sample = await _sampler(aiohttp_client, watcher.app)
        assert await sample("ingestion_indexed_total", how="analysed") == 1
        assert await sample("ingestion_time_to_searchable_seconds_count") == 0


async def test_what_keeps_ingestion_from_going_on_is_seen(house: House, aiohttp_client: ClientFactory, tmp_path: Path) -> None:
    house.embedder.away = ModelUnavailable("away")
    house.write("one.jpg", jpeg("one"))
    async with house.running() as watcher:
        sample = await _sampler(aiohttp_client, watcher.app)
        await until(lambda: house.ledger_rows("SELECT state FROM images") == [("pending",)])
        assert await sample("ingestion_queue_age_seconds") != 0
        assert await sample("ingestion_paused") == 1
        house.embedder.away = None
        await house.agreed()
        assert await sample("ingestion_paused") == 0
        house.images.rename(tmp_path / "away")
        async with asyncio.timeout(8):
            while await sample("ingestion_folder_missing") != 1:
                await asyncio.sleep(0.05)
