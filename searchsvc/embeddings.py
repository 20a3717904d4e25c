"""What the models made of the pictures, for others to work with, page by page."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from contextlib import aclosing

from core.points import Kind
from core.ports import ANYTHING, Match, Record, VectorStore, Where
from core.schemas import Space
from searchsvc.models import QueryModels, choose_space
from searchsvc.schemas import EmbeddingsPage, EmbeddingView

MAX_EMBEDDINGS, DEFAULT_EMBEDDINGS = 1000, 500
_IMAGES = Where(must=(Match("kind", (Kind.IMAGE.value,)),))


class Embeddings:
    """Text of many vectors takes milliseconds: it is made on `executor`."""

    def __init__(self, models: QueryModels, vectors: VectorStore, executor: Executor) -> None:
        self._models = models
        self._vectors = vectors
        self._executor = executor

    async def page(self, model: str | None, *, first: str | None, limit: int, segments: bool) -> bytes:
        """An `EmbeddingsPage` as JSON, in order of the points' ids from `first` on. Raises InvalidRequest for an unknown model."""
        space = choose_space(await self._models.info(), model, needs_text=False)
        found: list[Record] = []
        where = ANYTHING if segments else _IMAGES
        scroll = self._vectors.scroll(space.collection, where=where, with_vectors=True, first=first, batch=limit + 1)
        async with aclosing(scroll) as records:  # type: ignore[type-var]
            async for record in records:
                found.append(record)
                if len(found) > limit:
                    break
        return await asyncio.get_running_loop().run_in_executor(self._executor, _json, space, found, limit)


def _json(space: Space, found: list[Record], limit: int) -> bytes:
    cursor = found[limit].id if len(found) > limit else None
    views = tuple(_view(record) for record in found[:limit])
    return EmbeddingsPage(space=space, embeddings=views, cursor=cursor).model_dump_json().encode()


def _view(record: Record) -> EmbeddingView:
    payload, vector = record.payload, record.vector
    if vector is None:
        raise RuntimeError("vectors were asked for")
    return EmbeddingView(
        image_id=payload["image_id"],
        segment=payload["n"] if payload["kind"] == Kind.SEGMENT else None,
        paths=tuple(payload["paths"]),
        fingerprint=payload["fingerprint"],
        vector=vector,
    )
