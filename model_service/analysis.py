"""One picture through a loaded profile: decode, segment, crop, embed. Each step runs in a named batcher, none on the event loop."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from core import masks
from core.decode import DecodedImage, DecodeLimits, Pixels, decode
from core.schemas import AnalysedSegment, BBox, Embedding, ImageAnalysis, Priority, SegmentMode, Vector
from model_service.batching import Batcher, BatchObserver
from model_service.crops import crop
from model_service.parts import ImageTower, Instance, Parts, Segmenter, Tensor

InputT = TypeVar("InputT")

WORKING_SIDES = {SegmentMode.NONE: 448, SegmentMode.QUICK: 640, SegmentMode.STANDARD: 1024, SegmentMode.FULL: 1600}
"""Short side that a picture is reduced to before anything else: finer than any model's input, so that small crops keep their detail."""
_LONGEST_FACTOR = 4
"""Of a panorama the long side is bounded too, at this multiple."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be asked at once, and how much is computed at once."""

    limits: DecodeLimits
    embed_batch: int
    segment_batch: int
    queue_limit: int
    max_segments: int
    cpu_threads: int


@dataclass(frozen=True, slots=True)
class _Opened:
    """A picture ready for the models; `pixels` are a reduction of the `decoded` one's full size."""

    content_hash: str
    decoded: DecodedImage
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class _TowerQueue:
    tower: ImageTower
    batcher: Batcher[Tensor, Vector]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The batchers of one loaded profile."""

    parts: Parts
    limits: DecodeLimits
    cpu: Batcher[Callable[[], Any], Any]
    texts: Batcher[str, Vector]
    towers: tuple[_TowerQueue, ...]
    segmenter: Batcher[tuple[Pixels, SegmentMode], list[Instance]] | None

    @property
    def busy_s(self) -> float:
        """How long the longest batch in progress has been running, in any model."""
        longest = max(self.cpu.busy_s, self.texts.busy_s, *(queue.batcher.busy_s for queue in self.towers))
        return max(longest, self.segmenter.busy_s) if self.segmenter else longest

    async def embed_texts(self, texts: Sequence[str], priority: Priority) -> list[Vector]:
        """In input order. Raises Overloaded."""
        return await asyncio.gather(*(self.texts.submit(text, priority) for text in texts))

    async def analyse(self, image: bytes, mode: SegmentMode, priority: Priority) -> ImageAnalysis:
        """Raises ImageRejected."""
        opened = await self.cpu.submit(lambda: _opened(image, self.limits, mode), priority)
        instances: list[Instance] = []
        if self.segmenter is not None and mode is not SegmentMode.NONE:
            instances = await self.segmenter.submit((opened.pixels, mode), priority)
        whole, *segments = await asyncio.gather(
            self._embedded(lambda: opened.pixels, priority),
            *(self._embedded(_cropping(opened.pixels, instance), priority) for instance in instances),
        )
        encoded = await self.cpu.submit(lambda: [masks.encode(instance.mask) for instance in instances], priority)
        scale = (opened.decoded.width / opened.pixels.shape[1], opened.decoded.height / opened.pixels.shape[0])
        return ImageAnalysis(
            content_hash=opened.content_hash,
            width=opened.decoded.width,
            height=opened.decoded.height,
            format=opened.decoded.format,
            taken_at=opened.decoded.taken_at,
            fingerprint=self.parts.fingerprint,
            embeddings=whole,
            segments=tuple(
                AnalysedSegment(
                    n=n,
                    label=instance.label,
                    score=instance.score,
                    bbox=_scaled(instance.bbox, scale),
                    area=instance.area,
                    mask=mask,
                    embeddings=embeddings,
                )
                for n, (instance, mask, embeddings) in enumerate(zip(instances, encoded, segments, strict=True))
            ),
        )

    async def _embedded(self, pixels: Callable[[], Pixels], priority: Priority) -> tuple[Embedding, ...]:
        """One picture in every space."""
        towers = [queue.tower for queue in self.towers]

        def prepare() -> list[Tensor]:
            picture = pixels()
            return [tower.prepare(picture) for tower in towers]

        prepared = await self.cpu.submit(prepare, priority)
        vectors = await asyncio.gather(
            *(queue.batcher.submit(tensor, priority) for queue, tensor in zip(self.towers, prepared, strict=True))
        )
        return tuple(
            Embedding(collection=tower.space.collection, vector=vector) for tower, vector in zip(towers, vectors, strict=True)
        )


@asynccontextmanager
async def running_pipeline(parts: Parts, bounds: Bounds, observer: BatchObserver) -> AsyncIterator[Pipeline]:
    """The batchers' threads run for as long as the context lasts.

    Texts are bounded by their queue. Pictures are bounded before they come here, so the queues behind have room for all their parts.
    """
    parts_limit = 2 * bounds.queue_limit * (bounds.max_segments + 2)
    async with AsyncExitStack() as stack:
        towers = []
        for tower in parts.image_towers:
            batcher = Batcher(
                f"image {tower.space.collection}",
                _as_rows(tower.embed),
                max_batch=bounds.embed_batch,
                limit=parts_limit,
                observer=observer,
            )
            towers.append(_TowerQueue(tower, await stack.enter_async_context(batcher)))
        segmenter = None
        if parts.segmenter is not None:
            segmenter = await stack.enter_async_context(_segment_batcher(parts.segmenter, bounds, parts_limit, observer))
        texts = Batcher(
            f"text {parts.text_tower.space.collection}",
            _as_rows(parts.text_tower.embed_texts),
            max_batch=bounds.embed_batch,
            limit=max(bounds.queue_limit, 64),  # the most texts of one request
            observer=observer,
        )
        await stack.enter_async_context(texts)
        cpu = Batcher("decode", _called, max_batch=1, limit=parts_limit, observer=observer, threads=bounds.cpu_threads)
        await stack.enter_async_context(cpu)
        yield Pipeline(parts, bounds.limits, cpu, texts, tuple(towers), segmenter)


def _segment_batcher(
    segmenter: Segmenter, bounds: Bounds, limit: int, observer: BatchObserver
) -> Batcher[tuple[Pixels, SegmentMode], list[Instance]]:
    def segment(wanted: Sequence[tuple[Pixels, SegmentMode]]) -> list[list[Instance]]:
        found: dict[int, list[Instance]] = {}
        for mode in {mode for _, mode in wanted}:
            numbers = [n for n, (_, each) in enumerate(wanted) if each is mode]
            answers = segmenter.segment([wanted[n][0] for n in numbers], mode)
            found.update(zip(numbers, answers, strict=True))
        return [found[n] for n in range(len(wanted))]

    name = f"segment {segmenter.card.source}"
    return Batcher(name, segment, max_batch=bounds.segment_batch, limit=limit, observer=observer)


def _as_rows(embed: Callable[[Sequence[InputT]], Tensor]) -> Callable[[Sequence[InputT]], list[Vector]]:
    return lambda inputs: list(embed(inputs))


def _called(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    return [job() for job in jobs]


def _opened(image: bytes, limits: DecodeLimits, mode: SegmentMode) -> _Opened:
    side = WORKING_SIDES[mode]
    decoded = decode(image, limits, min_side=side)
    return _Opened(hashlib.sha256(image).hexdigest(), decoded, _reduced(decoded.pixels, side))


def _reduced(pixels: Pixels, side: int) -> Pixels:
    height, width = pixels.shape[:2]
    scale = min(side / min(width, height), _LONGEST_FACTOR * side / max(width, height))
    if scale >= 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def _cropping(pixels: Pixels, instance: Instance) -> Callable[[], Pixels]:
    return lambda: crop(pixels, instance)


def _scaled(bbox: BBox, scale: tuple[float, float]) -> BBox:
    x, y, width, height = bbox
    return round(x * scale[0], 2), round(y * scale[1], 2), round(width * scale[0], 2), round(height * scale[1], 2)
