"""What the models made of the pictures, for others to work with, page by page."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from contextlib import aclosing

from core.errors import Conflict
from core.points import Kind, image_point_id, segment_of, segment_point_id
from core.ports import ANYTHING, Match, Payload, Record, VectorStore, Where
from core.schemas import AnalysedSegment, Embedding, GivenEmbeddings, Space
from searchsvc.models import QueryModels, choose_space
from searchsvc.schemas import AnalysesPage, EmbeddingsPage, EmbeddingView

MAX_EMBEDDINGS, DEFAULT_EMBEDDINGS = 1000, 500
MAX_ANALYSES, DEFAULT_ANALYSES = 100, 20
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
        found = await self._some(space, ANYTHING if segments else _IMAGES, first=first, limit=limit)
        return await asyncio.get_running_loop().run_in_executor(self._executor, _json, space, found, limit)

    async def analyses(self, *, first: str | None, limit: int, fingerprint: str | None) -> bytes:
        """An `AnalysesPage` as JSON; what is being written has its page another time. Raises Conflict where other models answer than
        those of this `fingerprint`."""
        info = await self._models.info()
        if fingerprint not in {None, info.fingerprint}:
            raise Conflict("other models answer by now: begin anew")
        found = await self._some(info.spaces[0], _IMAGES, first=first, limit=limit)
        seals = [seal.payload for seal in found[:limit] if seal.payload["fingerprint"] == info.fingerprint]
        ids = [point_id for seal in seals for point_id in _point_ids(seal)]
        held: dict[str, dict[str, Record]] = {}
        for space in info.spaces:
            records = await self._vectors.retrieve(space.collection, ids, with_vectors=True) if ids else []
            held[space.collection] = {record.id: record for record in records}
        cursor = found[limit].id if len(found) > limit else None
        return await asyncio.get_running_loop().run_in_executor(self._executor, _analyses, info.fingerprint, seals, held, cursor)

    async def _some(self, space: Space, where: Where, *, first: str | None, limit: int) -> list[Record]:
        """One more than the limit where there are more."""
        found: list[Record] = []
        scroll = self._vectors.scroll(space.collection, where=where, with_vectors=True, first=first, batch=limit + 1)
        async with aclosing(scroll) as records:  # type: ignore[type-var]
            async for record in records:
                found.append(record)
                if len(found) > limit:
                    break
        return found


def _point_ids(seal: Payload) -> list[str]:
    """Of the whole picture and of its segments by number."""
    image_id = str(seal["image_id"])
    return [image_point_id(image_id), *(segment_point_id(image_id, n) for n in range(seal["segments"]))]


def _analyses(fingerprint: str, seals: list[Payload], held: dict[str, dict[str, Record]], cursor: str | None) -> bytes:
    whole = [made for seal in seals if (made := _analysis(seal, held)) is not None]
    return AnalysesPage(fingerprint=fingerprint, analyses=tuple(whole), cursor=cursor).model_dump_json().encode()


def _analysis(seal: Payload, held: dict[str, dict[str, Record]]) -> GivenEmbeddings | None:
    """None where a point is missing or was made by other models: it is just being written."""
    ids = _point_ids(seal)
    rows = {name: [found[one] for one in ids if one in found] for name, found in held.items()}
    if any(
        len(row) != len(ids) or any(one.payload["fingerprint"] != seal["fingerprint"] for one in row) for row in rows.values()
    ):
        return None
    embeddings = [
        tuple(Embedding(collection=name, vector=vector) for name, row in rows.items() if (vector := row[n].vector) is not None)
        for n in range(len(ids))
    ]
    described = [segment_of(record.payload) for record in next(iter(rows.values()))[1:]]
    return GivenEmbeddings(
        image_id=seal["image_id"],
        fingerprint=seal["fingerprint"],
        embeddings=embeddings[0],
        segments=tuple(
            AnalysedSegment(**dict(segment), embeddings=made) for segment, made in zip(described, embeddings[1:], strict=True)
        ),
    )


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
