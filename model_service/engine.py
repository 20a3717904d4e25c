"""Admit, analyse: what the model service does, without HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from core import masks
from core.decode import Facts, Pixels
from core.decoding import decoder_of
from core.errors import Overloaded
from core.schemas import (
    AnalysedSegment,
    BBox,
    Embedding,
    ImageAnalysis,
    Location,
    ModelsInfo,
    Priority,
    SegmentMode,
    TextEmbeddings,
)
from core.threads import ThreadBudget, usable_cores
from model_service.batching import Dispatcher
from model_service.crops import WORKING_SIDE, crop, part, scaled, working_copy
from model_service.metrics import InferenceMetrics
from model_service.parts import Instance, Parts, Tensor
from model_service.residence import Loaded
from model_service.residents import Residents
from model_service.served import Load
from model_service.settings import ModelSettings

T = TypeVar("T")

_INGEST_SHARE = 0.75  # of the admitted requests; the rest is kept for queries


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded picture with what the towers want of it."""

    content_hash: str
    facts: Facts
    pixels: Pixels
    prepared: tuple[Tensor, ...]


class Engine:
    """Answers with models once they are loaded; before that, and without weights, it says so.

    `load` blocks; it raises NoModel while there are no weights, and is asked again every ten seconds.
    """

    def __init__(self, settings: ModelSettings, *, load: Load, metrics: InferenceMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._decoder = decoder_of(settings, on_death=metrics.decoder_deaths.inc)
        self._in_flight = dict.fromkeys(Priority, 0)
        self._dispatcher = Dispatcher(metrics, longest_pass_s=settings.pass_timeout_s)
        self._residents = Residents(settings, load, when_ready=lambda: metrics.ready.set(1))
        self._decoding_threads = ThreadPoolExecutor(
            ThreadBudget.of(settings.model_threads or usable_cores()).decoding, thread_name_prefix="decode"
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._dispatcher)
        self._stack.callback(self._decoding_threads.shutdown, wait=False, cancel_futures=True)
        self._stack.enter_context(self._decoder)
        await self._stack.enter_async_context(self._residents)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    # --- state

    async def info(self, fingerprint: str | None = None) -> ModelsInfo:
        """Of the settings' models, or of others that were served before, which are then loaded."""
        return (await self._residents.of(fingerprint)).info(self._settings.model_profile)

    async def _ready(self, fingerprint: str | None) -> Loaded:
        return (await self._residents.of(fingerprint)).ready()

    # --- work

    @asynccontextmanager
    async def admitted(self, priority: Priority, fingerprint: str | None = None) -> AsyncIterator[None]:
        """Count one request in, or refuse it before any work. Raises Overloaded, and NoModel or ModelUnavailable without models."""
        await self._ready(fingerprint)
        limit = self._settings.queue_limit
        if priority is Priority.INGEST:
            limit = max(1, int(limit * _INGEST_SHARE))
        if sum(self._in_flight.values()) >= limit:
            self._metrics.refused.labels(priority).inc()
            raise Overloaded("too many requests wait for the models", retry_after_s=1)
        self._in_flight[priority] += 1
        self._metrics.in_flight.labels(priority).inc()
        try:
            yield
        finally:
            self._in_flight[priority] -= 1
            self._metrics.in_flight.labels(priority).dec()

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        loaded = await self._ready(fingerprint)
        vectors = await self._dispatcher.submit(loaded.texts, texts, priority)
        return TextEmbeddings(space=loaded.parts.spaces[0], vectors=tuple(vectors))

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        """Raises ImageRejected, InvalidRequest for a region outside the picture, and whatever a model raises on this very picture."""
        loaded = await self._ready(fingerprint)
        picture = await self._in_decoder(self._read, image, loaded, region)
        instances = [] if region else await self._instances(loaded, picture.pixels, segments, priority)
        crops = await self._in_decoder(_prepared_crops, loaded.parts, picture.pixels, instances)
        rows = await asyncio.gather(
            *(self._dispatcher.submit(tower, [picture.prepared[n], *crops[n]], priority) for n, tower in enumerate(loaded.towers))
        )
        return await self._in_decoder(_analysis, loaded.parts, picture, instances, rows)

    async def _instances(self, loaded: Loaded, pixels: Pixels, mode: SegmentMode, priority: Priority) -> list[Instance]:
        segmenter = loaded.segmenters.get(mode)
        if segmenter is None:
            return []
        return (await self._dispatcher.submit(segmenter, [pixels], priority))[0]

    async def _in_decoder(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoding_threads, call, *arguments)

    def _read(self, image: bytes, loaded: Loaded, region: BBox | None) -> _Picture:
        with self._metrics.decoding.time():
            if region is None:
                decoded = self._decoder.decode(image, min_side=loaded.least_side, max_side=WORKING_SIDE)
                pixels = decoded.pixels
            else:
                decoded = self._decoder.decode(image)
                pixels = working_copy(part(decoded.pixels, region))
            prepared = tuple(tower.prepare(pixels) for tower in loaded.parts.image_towers)
        return _Picture(hashlib.sha256(image).hexdigest(), decoded.facts, pixels, prepared)


def _prepared_crops(parts: Parts, pixels: Pixels, instances: Sequence[Instance]) -> list[list[Tensor]]:
    """For each tower, its input for each instance."""
    crops = [crop(pixels, instance) for instance in instances]
    return [[tower.prepare(one) for one in crops] for tower in parts.image_towers]


def _analysis(parts: Parts, picture: _Picture, instances: Sequence[Instance], rows: Sequence[Sequence[Tensor]]) -> ImageAnalysis:
    """`rows[t]` are tower t's embeddings: of the whole picture, then of each instance."""
    collections = [space.collection for space in parts.spaces]

    def embeddings(row: int) -> tuple[Embedding, ...]:
        return tuple(Embedding(collection=name, vector=of_tower[row]) for name, of_tower in zip(collections, rows, strict=True))

    facts = picture.facts
    segments = tuple(
        AnalysedSegment(
            n=n,
            label=instance.label,
            score=min(1.0, max(0.0, instance.score)),
            bbox=scaled(instance.bbox, picture.pixels, width=facts.width, height=facts.height),
            area=min(1.0, instance.area),
            mask=masks.encode(instance.mask),
            embeddings=embeddings(n + 1),
        )
        for n, instance in enumerate(instances)
    )
    return ImageAnalysis(
        content_hash=picture.content_hash,
        width=facts.width,
        height=facts.height,
        format=facts.format,
        taken_at=facts.taken_at,
        location=Location(lat=facts.location.lat, lon=facts.location.lon) if facts.location else None,
        fingerprint=parts.fingerprint,
        embeddings=embeddings(0),
        segments=segments,
    )
