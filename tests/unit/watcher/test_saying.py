"""What the log says of ingestion that waits: loud enough, and once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from core.errors import ModelUnavailable, NoModel, StorageFull, Unavailable, VectorsUnavailable
from core.schemas import StateCounts
from watcher.ledger import Operations
from watcher.metrics import IngestionMetrics
from watcher.outage import Outage
from watcher.vigil import report_progress


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ModelUnavailable("the models are being loaded"), "info"),
        (NoModel("there are no weights"), "warning"),
        (StorageFull("the disk that holds the vectors is full"), "warning"),
        (VectorsUnavailable("Qdrant does not answer"), "warning"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_whoever_searches_the_log_for_warnings_finds_what_ingestion_waits_for(error: Unavailable, level: str) -> None:
    outage = Outage(5.0)
    with capture_logs() as told:
        for _ in range(3):
            outage.note(error)
    assert [(line["event"], line["log_level"]) for line in told] == [("ingestion_paused", level)]


async def test_progress_is_told_when_there_is_some() -> None:
    counts = [StateCounts(pending=pending, running=0, indexed=9 - pending, failed=0) for pending in (9, 9, 9, 4, 4, 0, 0)]
    over = asyncio.Event()

    class Told:
        async def run(self, _: object) -> Any:
            if len(counts) == 1:
                over.set()
            return SimpleNamespace(images=counts.pop(0) if len(counts) > 1 else counts[0])

    with capture_logs() as told:
        reporting = asyncio.create_task(
            report_progress(cast("Operations", Told()), IngestionMetrics(CollectorRegistry()), period_s=0.001)
        )
        await asyncio.wait_for(over.wait(), 10)
        reporting.cancel()
        with suppress(asyncio.CancelledError):
            await reporting
    assert [line["pending"] for line in told] == [9, 4]
