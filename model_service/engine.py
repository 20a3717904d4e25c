"""Load, admit, analyse: what the model service does, without HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
import structlog

from core import masks
from core.decode import Facts, Pixels
from core.decoding import decoder_of
from core.errors import ModelUnavailable, NoModel, Overloaded
from core.schemas import (
    AnalysedSegment,
    BBox,
    Embedding,
    EngineState,
    ImageAnalysis,
    Location,
    ModelsInfo,
    Priority,
    SegmentMode,
    TextEmbeddings,
)
from core.threads import ThreadBudget, usable_cores
from model_service.batching import BatchModel, Dispatcher
from model_service.crops import WORKING_SIDE, crop, part, scaled, working_copy
from model_service.metrics import InferenceMetrics
from model_service.parts import Instance, Parts, Tensor
from model_service.settings import ModelSettings

log = structlog.get_logger()

T = TypeVar("T")

_LOOK_AGAIN_S = 10.0
_TEXT_BATCH = 32
_SEGMENT_BATCH = 4
_ENOUGH = 1.5
_INGEST_SHARE = 0.75  # of the admitted requests; the rest is kept for queries


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A profile with its parts wrapped for the dispatcher."""

    parts: Parts
    texts: BatchModel[str, Tensor]
    towers: tuple[BatchModel[Tensor, Tensor], ...]
    segmenters: dict[SegmentMode, BatchModel[Pixels, list[Instance]]]
    least_side: int
    """Pixels that the short side of a picture keeps when a JPEG is decoded at a fraction of its size."""

    @classmethod
    def of(cls, parts: Parts, *, embed_batch: int) -> _Loaded:
        texts = BatchModel(f"{parts.text_tower.space.collection}/text", _rows(parts.text_tower.embed_texts), _TEXT_BATCH)
        towers = tuple(
            BatchModel(f"{tower.space.collection}/image", _rows(tower.embed), embed_batch) for tower in parts.image_towers
        )
        segmenters: dict[SegmentMode, BatchModel[Pixels, list[Instance]]] = {}
        if parts.segmenter is not None:
            for mode in (SegmentMode.QUICK, SegmentMode.STANDARD, SegmentMode.FULL):
                name = f"{parts.segmenter.card.model_name}/{mode}"
                segmenters[mode] = BatchModel(name, _segmenting(parts, mode), _SEGMENT_BATCH)
        return cls(parts, texts, towers, segmenters, _least_side(parts))


def _rows(embed: Callable[[Sequence[T]], Tensor]) -> Callable[[Sequence[T]], Sequence[Tensor]]:
    return lambda inputs: list(embed(inputs))


def _least_side(parts: Parts) -> int:
    """Segments are cut out of the picture, and small ones should not be blurred; towers alone look at a small copy of it.

    From one and a half times a tower's own input on, vectors are as near to those of the full picture as from twice: cosines of
    0.994 and 0.995 over photos that were reduced to exactly that, and 0.986 at once its input.
    """
    if parts.segmenter is not None:
        return WORKING_SIDE // 2
    grey = np.full((64, 64, 3), 114, dtype=np.uint8)
    sides = [max(tower.prepare(grey).shape[1:], default=WORKING_SIDE) for tower in parts.image_towers]
    return min(WORKING_SIDE // 2, int(_ENOUGH * max(sides)))


def _segmenting(parts: Parts, mode: SegmentMode) -> Callable[[Sequence[Pixels]], Sequence[list[Instance]]]:
    segmenter = parts.segmenter
    assert segmenter is not None  # noqa: S101 - the caller looked
    return lambda pictures: segmenter.segment(pictures, mode)


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

    def __init__(self, settings: ModelSettings, *, load: Callable[[ModelSettings], Parts], metrics: InferenceMetrics) -> None:
        self._settings = settings
        self._load = load
        self._metrics = metrics
        self._decoder = decoder_of(settings)
        self._loaded: _Loaded | None = None
        self._state = EngineState.LOADING
        self._missing: str | None = None
        self._in_flight = dict.fromkeys(Priority, 0)
        self._dispatcher = Dispatcher(metrics)
        self._loading_thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._decoding_threads = ThreadPoolExecutor(
            ThreadBudget.of(settings.model_threads or usable_cores()).decoding, thread_name_prefix="decode"
        )
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._dispatcher)
        for executor in (self._loading_thread, self._decoding_threads):
            self._stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        self._stack.enter_context(self._decoder)
        loading = asyncio.create_task(self._keep_loading(), name="load-models")
        self._stack.push_async_callback(_cancelled, loading)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    # --- state

    async def info(self) -> ModelsInfo:
        requested = self._settings.model_profile
        if self._loaded is None:
            return ModelsInfo(state=self._state, profile=requested, requested_profile=requested, notice=self._missing)
        parts = self._loaded.parts
        cards = [tower.card for tower in parts.image_towers] + ([parts.segmenter.card] if parts.segmenter else [])
        return ModelsInfo(
            state=EngineState.READY,
            profile=parts.profile,
            requested_profile=requested,
            notice=parts.notice,
            spaces=tuple(tower.space for tower in parts.image_towers),
            models=tuple(cards),
            fingerprint=parts.fingerprint,
        )

    def _ready(self) -> _Loaded:
        if self._loaded is not None:
            return self._loaded
        if self._state is EngineState.NO_MODEL:
            raise NoModel(self._missing or "no model is to be had", retry_after_s=_LOOK_AGAIN_S)
        raise ModelUnavailable("the models are still being loaded", retry_after_s=2)

    async def _keep_loading(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                parts = await loop.run_in_executor(self._loading_thread, self._load_and_warm_up)
            except NoModel as error:
                if self._missing != str(error):
                    log.warning("models_missing", detail=str(error))
                self._state, self._missing = EngineState.NO_MODEL, str(error)
            except Exception:
                log.exception("models_failed_to_load")
                self._state = EngineState.NO_MODEL
                self._missing = "the weights in MODELS_DIR cannot be loaded; the log of the model service says why"
            else:
                self._loaded = _Loaded.of(parts, embed_batch=self._settings.embed_batch)
                self._state = EngineState.READY
                self._metrics.ready.set(1)
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _load_and_warm_up(self) -> Parts:
        """The first pass of a runtime allocates and compiles; it is made before anybody waits for it."""
        parts = self._load(self._settings)
        grey = np.full((480, 640, 3), 114, dtype=np.uint8)
        parts.text_tower.embed_texts(["a picture"])
        for tower in parts.image_towers:
            tower.embed([tower.prepare(grey)])
        if parts.segmenter is not None:
            parts.segmenter.segment([grey], SegmentMode.STANDARD)
        log.info(
            "models_loaded",
            profile=parts.profile,
            models=[tower.card.source for tower in parts.image_towers],
        )
        return parts

    # --- work

    @contextmanager
    def admitted(self, priority: Priority) -> Iterator[None]:
        """Count one request in, or refuse it before any work. Raises Overloaded, and NoModel or ModelUnavailable without models."""
        self._ready()
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

    async def embed_texts(self, texts: Sequence[str], *, priority: Priority = Priority.QUERY) -> TextEmbeddings:
        loaded = self._ready()
        vectors = await self._dispatcher.submit(loaded.texts, texts, priority)
        return TextEmbeddings(space=loaded.parts.text_tower.space, vectors=tuple(vectors))

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
    ) -> ImageAnalysis:
        """Raises ImageRejected, InvalidRequest for a region outside the picture, and whatever a model raises on this very picture."""
        loaded = self._ready()
        picture = await self._in_decoder(self._read, image, loaded, region)
        instances = [] if region else await self._instances(loaded, picture.pixels, segments, priority)
        crops = await self._in_decoder(_prepared_crops, loaded.parts, picture.pixels, instances)
        rows = await asyncio.gather(
            *(self._dispatcher.submit(tower, [picture.prepared[n], *crops[n]], priority) for n, tower in enumerate(loaded.towers))
        )
        return await self._in_decoder(_analysis, loaded.parts, picture, instances, rows)

    async def _instances(self, loaded: _Loaded, pixels: Pixels, mode: SegmentMode, priority: Priority) -> list[Instance]:
        segmenter = loaded.segmenters.get(mode)
        if segmenter is None:
            return []
        return (await self._dispatcher.submit(segmenter, [pixels], priority))[0]

    async def _in_decoder(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._decoding_threads, call, *arguments)

    def _read(self, image: bytes, loaded: _Loaded, region: BBox | None) -> _Picture:
        with self._metrics.decoding.time():
            if region is None:
                decoded = self._decoder.decode(image, min_side=loaded.least_side, max_side=WORKING_SIDE)
                pixels = decoded.pixels
            else:
                decoded = self._decoder.decode(image)
                pixels = working_copy(part(decoded.pixels, region))
            prepared = tuple(tower.prepare(pixels) for tower in loaded.parts.image_towers)
        return _Picture(hashlib.sha256(image).hexdigest(), decoded.facts, pixels, prepared)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _prepared_crops(parts: Parts, pixels: Pixels, instances: Sequence[Instance]) -> list[list[Tensor]]:
    """For each tower, its input for each instance."""
    crops = [crop(pixels, instance) for instance in instances]
    return [[tower.prepare(one) for one in crops] for tower in parts.image_towers]


def _analysis(parts: Parts, picture: _Picture, instances: Sequence[Instance], rows: Sequence[Sequence[Tensor]]) -> ImageAnalysis:
    """`rows[t]` are tower t's embeddings: of the whole picture, then of each instance."""
    collections = [tower.space.collection for tower in parts.image_towers]

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
