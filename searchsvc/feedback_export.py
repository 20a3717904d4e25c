"""Ratings for others to work with, line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import TypeVar

from searchsvc.feedback import FeedbackStore, KeptRating
from searchsvc.feedback_report import ReportBuilder
from searchsvc.feedback_views import FeedbackRecord, FeedbackReport, ShownImage
from searchsvc.topics import JudgedPool, topic_of

_ResultT = TypeVar("_ResultT")

_CHUNK_LINES = 2000


class ExportFormat(StrEnum):
    JSONL = "jsonl"
    QRELS = "qrels"
    TOPICS = "topics"


class FeedbackExport:
    """Reads the store page by page; lines are made on `executor`."""

    def __init__(self, store: FeedbackStore, executor: Executor) -> None:
        self._store = store
        self._executor = executor

    async def records(self, *, after: int, since: datetime | None, limit: int | None) -> AsyncIterator[bytes]:
        """JSON Lines in the order in which ratings came, in chunks; at most `limit` lines."""
        async for page in self._store.pages(after=after, since=since):
            yield await self._compute(partial(_records, page[:limit]))
            if limit is not None:
                limit -= len(page)
                if limit <= 0:
                    return

    async def judged(self, export_format: ExportFormat, *, since: datetime | None) -> AsyncIterator[bytes]:
        """TREC's qrels, or the topics that they are about, in chunks."""
        pool = JudgedPool()
        async for page in self._store.pages(since=since):
            await self._compute(partial(_add_all, pool, page))
        lines = pool.qrels() if export_format is ExportFormat.QRELS else pool.topics()
        while chunk := await self._compute(partial(_joined, lines)):
            yield chunk

    async def report(self, *, since: datetime | None) -> FeedbackReport:
        builder = ReportBuilder()
        async for page in self._store.pages(since=since):
            await self._compute(partial(_add_all, builder, page))
        return await self._compute(builder.report)

    async def _compute(self, work: Callable[[], _ResultT]) -> _ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _records(page: list[KeptRating]) -> bytes:
    return "".join(record_of(kept).model_dump_json() + "\n" for kept in page).encode()


def _add_all(into: JudgedPool | ReportBuilder, page: list[KeptRating]) -> None:
    for kept in page:
        into.add(kept)


def _joined(lines: Iterator[str]) -> bytes:
    return "".join(islice(lines, _CHUNK_LINES)).encode()


def record_of(kept: KeptRating) -> FeedbackRecord:
    rating = kept.rating
    scores = [*rating.scores, *[None] * (len(rating.shown) - len(rating.scores))]
    shown = enumerate(zip(rating.shown, scores, strict=True), start=rating.first_rank)
    return FeedbackRecord(
        cursor=str(kept.sequence),
        feedback_id=kept.feedback_id,
        created_at=datetime.fromisoformat(kept.created_at),
        search_id=rating.search_id,
        topic=topic_of(rating),
        asked=dict(rating.query),
        model_name=rating.model_name,
        collection=rating.model,
        shown=tuple(ShownImage(rank=rank, image_id=image_id, score=score) for rank, (image_id, score) in shown),
        image_id=rating.image_id,
        segment=rating.segment,
        rating=rating.rating,
        client=rating.client,
        rotation_degrees=rating.rotation,
    )
