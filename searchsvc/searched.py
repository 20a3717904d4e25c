"""The models that answer: those that the watcher says are searched, which while others are being indexed for are not the newest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from core.errors import Unavailable
from core.ports import Catalog, Embedder
from core.schemas import BBox, ImageAnalysis, ModelsCourse, ModelsInfo, Priority, SegmentMode, TextEmbeddings

_COURSE_AGE_S = 0.5
_PATIENCE_S = 1.0
_PAUSE_S = 5.0


class SearchedModels:
    """An `Embedder` whose models are the searched ones where no others are named.

    What the watcher said last holds while it is away; until it said anything, the models of the settings are taken for the searched ones.
    """

    def __init__(self, embedder: Embedder, catalog: Catalog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._embedder = embedder
        self._catalog = catalog
        self._clock = clock
        self._course = ModelsCourse(searched=None, profile=None)
        self._ask_at = float("-inf")

    async def info(self, fingerprint: str | None = None) -> ModelsInfo:
        if fingerprint is not None:
            return await self._embedder.info(fingerprint)
        course = await self._known_course()
        info = await self._embedder.info(course.searched)
        if course.notice is None:
            return info
        return info.model_copy(update={"notice": " ".join(filter(None, (course.notice, info.notice)))})

    async def _known_course(self) -> ModelsCourse:
        if self._clock() >= self._ask_at:
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    self._course = await self._catalog.models()
                self._ask_at = self._clock() + _COURSE_AGE_S
            except (Unavailable, TimeoutError):
                self._ask_at = self._clock() + _PAUSE_S
        return self._course

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        return await self._embedder.embed_texts(texts, priority=priority, fingerprint=fingerprint)

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        return await self._embedder.analyse(image, segments=segments, priority=priority, region=region, fingerprint=fingerprint)
