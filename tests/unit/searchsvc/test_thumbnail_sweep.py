"""Thumbnails of pictures that the catalog knows no more are removed by and by, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from core.decode import DecodeLimits
from core.decoding import LocalDecoder
from core.errors import Unavailable
from core.file_cache import FileCache
from core.images.folder import ImageFolder
from core.schemas import ImageRecord, ImageState
from searchsvc.metrics import SearchMetrics
from searchsvc.originals import Originals
from searchsvc.thumbnail_sweep import ThumbnailSweep
from searchsvc.thumbnails import SIZES, Thumbnails
from tests.fakes import FakeCatalog

IDS = [f"{n % 256:02x}{n:062x}" for n in range(600)]


@pytest.fixture
def catalog() -> FakeCatalog:
    """It knows every other one, in whatever state."""
    at, states = datetime(2024, 6, 15, tzinfo=UTC), list(ImageState)
    known = [
        ImageRecord(image_id=one, state=states[n % len(states)], paths=(), bytes=1, noticed_at=at)
        for n, one in enumerate(IDS[::2])
    ]
    return FakeCatalog(records={record.image_id: record for record in known})


@pytest.fixture
def cache(tmp_path: Path) -> FileCache:
    """A thumbnail or two of each."""
    cache = FileCache(tmp_path / "thumbnails", max_bytes=2**20)
    for n, image_id in enumerate(IDS):
        for size in SIZES[: 1 + n % 2]:
            cache.keep(f"{image_id}-{size}.webp", b"RIFF")
    return cache


@pytest.fixture
async def thumbnails(cache: FileCache, tmp_path: Path) -> AsyncIterator[Thumbnails]:
    originals = Originals(ImageFolder(tmp_path), link_lifetime_s=None)
    render = LocalDecoder(DecodeLimits()).thumbnail
    metrics = SearchMetrics(CollectorRegistry())
    async with Thumbnails(cache, originals=originals, render=render, max_bytes=2**20, metrics=metrics) as thumbnails:
        yield thumbnails


def kept(folder: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in (folder / "thumbnails").rglob("*.webp")}


async def test_only_those_of_pictures_that_are_gone_go(thumbnails: Thumbnails, catalog: FakeCatalog, tmp_path: Path) -> None:
    assert kept(tmp_path) == set(IDS)
    async with ThumbnailSweep(thumbnails, catalog, pause_s=0.0), asyncio.timeout(30):
        while kept(tmp_path) != set(catalog.records):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    assert kept(tmp_path) == set(catalog.records)


async def test_while_nobody_can_say_which_are_gone_all_are_kept(
    thumbnails: Thumbnails, catalog: FakeCatalog, tmp_path: Path
) -> None:
    catalog.away = Unavailable("the watcher is away")
    async with ThumbnailSweep(thumbnails, catalog, pause_s=0.0), asyncio.timeout(30):
        await asyncio.sleep(0.3)
        assert kept(tmp_path) == set(IDS)
        catalog.away = None
        while kept(tmp_path) != set(catalog.records):
            await asyncio.sleep(0.01)
