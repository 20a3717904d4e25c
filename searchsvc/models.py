"""The model service as a search sees it: which model answers, and words and pictures as vectors of its space."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from cachetools import LRUCache

from core.errors import InvalidRequest, ModelUnavailable, NoModel
from core.ports import Embedder
from core.schemas import BBox, EngineState, ModelsInfo, Priority, SegmentMode, Space, Vector
from searchsvc.metrics import SearchMetrics

_INFO_AGE_S = 1.0
_KEPT_TEXTS = 4096
"""At 512 float32 numbers each: 8 MiB."""


@dataclass(frozen=True, slots=True)
class QueryPicture:
    content_hash: str
    vector: Vector


class QueryModels:
    """Embeds queries. Remembers what is loaded for a second, and the vectors of recent words for as long as the models stay the same."""

    def __init__(self, embedder: Embedder, metrics: SearchMetrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._embedder = embedder
        self._metrics = metrics
        self._clock = clock
        self._info: ModelsInfo | None = None
        self._info_at = 0.0
        self._texts: LRUCache[tuple[str, str, str], Vector] = LRUCache(_KEPT_TEXTS)

    async def info(self) -> ModelsInfo:
        """What is ready. Raises NoModel, ModelUnavailable while there is nothing to search with."""
        if self._info is None or self._clock() - self._info_at > _INFO_AGE_S:
            self._info, self._info_at = await self._embedder.info(), self._clock()
        info = self._info
        if info.state is not EngineState.READY or not info.spaces:
            self._info = None  # ask again next time: it may have changed
            raise _not_ready(info)
        return info

    async def embed_text(self, text: str, space: Space, fingerprint: str) -> Vector:
        """Embed words into `space`. Raises ModelUnavailable when the models changed under the search."""
        key = (fingerprint, space.collection, text)
        known = self._texts.get(key)
        self._metrics.note_lookup("text_embeddings", hit=known is not None)
        if known is not None:
            return known
        embeddings = await self._embedder.embed_texts([text], priority=Priority.QUERY, fingerprint=fingerprint)
        if embeddings.space.collection != space.collection:
            self._info = None
            raise ModelUnavailable("the models have just changed: search again", retry_after_s=1)
        vector = unit(embeddings.vectors[0])
        self._texts[key] = vector
        return vector

    async def embed_picture(self, picture: bytes, space: Space, fingerprint: str, *, region: BBox | None = None) -> QueryPicture:
        """Embed a query picture, or a part of it, into `space`. Raises ImageRejected, InvalidRequest, ModelUnavailable, ModelCrashed."""
        analysis = await self._embedder.analyse(
            picture, segments=SegmentMode.NONE, priority=Priority.QUERY, region=region, fingerprint=fingerprint
        )
        for embedding in analysis.embeddings:
            if embedding.collection == space.collection:
                return QueryPicture(analysis.content_hash, unit(embedding.vector))
        self._info = None
        raise ModelUnavailable("the models have just changed: search again", retry_after_s=1)


def choose_space(info: ModelsInfo, wanted: str | None, *, needs_text: bool) -> Space:
    """The space that a query is asked in. Raises InvalidRequest for an unknown model, or one that does not understand words."""
    if wanted is None:
        space = next((space for space in info.spaces if space.text), info.spaces[0]) if needs_text else info.spaces[0]
    else:
        name = wanted.strip().casefold()
        named = [space for space in info.spaces if name in {space.model_name.casefold(), space.collection.casefold()}]
        if not named:
            known = ", ".join(space.model_name for space in info.spaces)
            raise InvalidRequest(f"there is no model of that name; known: {known}", field="model")
        space = next((space for space in named if space.text), named[0]) if needs_text else named[0]
    if needs_text and not space.text:
        raise InvalidRequest(f"{space.model_name} compares pictures and does not understand words", field="model")
    return space


def unit(vector: Vector) -> Vector:
    """The vector's direction. Raises InvalidRequest where it has none."""
    return np.asarray(vector / length(vector), dtype=np.float32)


def length(vector: Vector) -> float:
    """Raises InvalidRequest where there is none to speak of."""
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm < 1e-6:
        raise InvalidRequest("what is asked for and what is not cancel each other out")
    return norm


def _not_ready(info: ModelsInfo) -> ModelUnavailable:
    if info.state is EngineState.NO_MODEL:
        return NoModel(info.notice or "no model weights are to be had: put them into MODELS_DIR", retry_after_s=30)
    return ModelUnavailable("the models are still loading", retry_after_s=5)
