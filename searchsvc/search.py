"""Finding: from a question to ranked, signed matches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any
from uuid import uuid4

from prometheus_client import CollectorRegistry, Histogram

from core.errors import Conflict, InvalidRequest
from core.points import Kind, image_point_id, location_of, segment_of, taken_at_of
from core.ports import Catalog, Hit, VectorStore, Where
from core.schemas import ModelsInfo, Orientation, Segment, Space, Vector
from searchsvc import urls
from searchsvc.filter_schema import SearchFilter
from searchsvc.filters import shown_path, where_of
from searchsvc.models import QueryModels, choose_space, combine
from searchsvc.relevance import Turned
from searchsvc.reranking import RecentSearch, Reranking
from searchsvc.schemas import FeedbackUse, MatchView, SearchAnswer, SearchOptions, SegmentView
from searchsvc.tokens import ShownSearch, TokenSigner

_GROUPING_ROUNDS = 4
_GROUPING_FACTOR = 4
"""Enough for 256 points an image; the first round, four an image asked for, is nearly always the last."""


class SearchMetrics:
    """How long each part of a search takes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        buckets = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
        self._seconds = Histogram(
            "search_stage_seconds", "Time of a search by stage", ("stage",), buckets=buckets, registry=registry
        )

    def observe(self, stage: str, started: float) -> float:
        """Count the time since `started` to `stage`; returns now, the start of the next."""
        now = time.perf_counter()
        self._seconds.labels(stage).observe(now - started)
        return now


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question in the terms of one space."""

    space: Space
    vector: Vector
    where: Where
    picture_hash: str | None = None
    turned: Turned | None = None

    @property
    def searched(self) -> Vector:
        """The vector as feedback has it."""
        return self.vector if self.turned is None else self.turned.vector


class Searcher:
    def __init__(
        self,
        *,
        models: QueryModels,
        vectors: VectorStore,
        catalog: Catalog,
        signer: TokenSigner,
        reranking: Reranking,
        metrics: SearchMetrics,
    ) -> None:
        self._models = models
        self._vectors = vectors
        self._catalog = catalog
        self._signer = signer
        self._reranking = reranking
        self._metrics = metrics

    async def search(self, options: SearchOptions, picture: bytes | None = None) -> SearchAnswer:
        """Answer a question. Raises InvalidRequest, NotFound, Conflict (not indexed yet), ImageRejected, NoModel, Unavailable."""
        if options.text is None and options.image_id is None and picture is None:
            raise InvalidRequest("say what to look for: `text`, `image_id` or a `file`", field="text")
        started = at = time.perf_counter()
        info = await self._models.info()
        asked = await self._understand(options, picture, info)
        at = self._metrics.observe("embed", at)
        if options.feedback:
            asked = replace(asked, turned=await self._reranking.turn(asked.space.collection, asked.vector))
            at = self._metrics.observe("feedback", at)
        hits = await self._best_of_each_image(asked, options) if options.scope == "both" else await self._nearest(asked, options)
        at = self._metrics.observe("vectors", at)
        answer = self._answer(options, asked, hits, notice=info.notice)
        self._metrics.observe("render", at)
        return answer.model_copy(update={"took_ms": round((time.perf_counter() - started) * 1000, 2)})

    async def _understand(self, options: SearchOptions, picture: bytes | None, info: ModelsInfo) -> _Asked:
        needs_text = options.text is not None or options.negative_text is not None
        space = choose_space(info, options.model, needs_text=needs_text)
        wanted, embedded = list[Vector](), None
        if options.image_id is not None:
            wanted.append(await self._stored_vector(options.image_id, space))
        if options.text is not None:
            wanted.append(await self._models.embed_text(options.text, space, info.fingerprint))
        if picture is not None:
            embedded = await self._models.embed_picture(picture, space)
            wanted.append(embedded.vector)
        unwanted = None
        if options.negative_text is not None:
            unwanted = await self._models.embed_text(options.negative_text, space, info.fingerprint)
        where = where_of(options.scope, options.filter, without_image=options.image_id)
        return _Asked(space, combine(wanted, unwanted), where, picture_hash=embedded.content_hash if embedded else None)

    async def _stored_vector(self, image_id: str, space: Space) -> Vector:
        for record in await self._vectors.retrieve(space.collection, [image_point_id(image_id)], with_vectors=True):
            if record.vector is not None:
                return record.vector
        known = await self._catalog.image(image_id)
        raise Conflict(f"this image is {known.state.value} and not searchable by {space.model_name}: look at its state first")

    async def _nearest(self, asked: _Asked, options: SearchOptions) -> list[Hit]:
        return await self._vectors.query(
            asked.space.collection,
            asked.searched,
            where=asked.where,
            limit=options.top_k,
            offset=options.offset,
            min_score=options.min_score,
        )

    async def _best_of_each_image(self, asked: _Asked, options: SearchOptions) -> list[Hit]:
        """The best hit of each image, be it the whole or a region. Looks at more points until there are enough images."""
        enough = options.offset + options.top_k
        limit = enough * _GROUPING_FACTOR
        best: dict[str, Hit] = {}
        for _ in range(_GROUPING_ROUNDS):
            hits = await self._vectors.query(
                asked.space.collection, asked.searched, where=asked.where, limit=limit, min_score=options.min_score
            )
            best = {}
            for hit in hits:
                best.setdefault(hit.payload["image_id"], hit)
            if len(best) >= enough or len(hits) < limit:
                break
            limit *= _GROUPING_FACTOR
        return list(best.values())[options.offset : enough]

    def _answer(self, options: SearchOptions, asked: _Asked, hits: Sequence[Hit], *, notice: str | None) -> SearchAnswer:
        query = _what_was_asked(options, asked.picture_hash)
        matches = [match for hit in hits if (match := _match(hit, options.filter)) is not None]
        scores: dict[str, float] = {}
        for match in matches:
            scores.setdefault(match.image_id, match.score)
        search = ShownSearch(
            search_id=str(uuid4()),
            query=query,
            model=asked.space.collection,
            shown=list(scores),
            model_name=asked.space.model_name,
            scores=list(scores.values()),
            first_rank=options.offset + 1,
            rotation=asked.turned.degrees if asked.turned else 0.0,
        )
        self._reranking.remember(search.search_id, RecentSearch(asked.vector, search.shown, search.scores, search.first_rank))
        return SearchAnswer(
            text=options.text or "",
            model_name=asked.space.model_name,
            matches=tuple(self._signed(match, search) for match in matches),
            jwt=self._signer.issue(search),
            search_id=search.search_id,
            took_ms=0.0,
            notice=notice,
            feedback=_use_of(asked.turned),
        )

    def _signed(self, match: MatchView, search: ShownSearch) -> MatchView:
        """With a token of its own."""
        place = search.shown.index(match.image_id)
        about = replace(
            search,
            shown=[match.image_id],
            scores=[match.score],
            first_rank=search.first_rank + place,
            about="match",
            segment=match.segment.n if match.segment else None,
        )
        return match.model_copy(update={"jwt": self._signer.issue(about)})


def _use_of(turned: Turned | None) -> FeedbackUse | None:
    if turned is None:
        return None
    return FeedbackUse(ratings=turned.judgements, clients=turned.clients, rotation_degrees=round(turned.degrees, 3))


def _what_was_asked(options: SearchOptions, picture_hash: str | None) -> dict[str, Any]:
    asked = options.model_dump(mode="json", by_alias=True, include={"text", "image_id", "negative_text", "scope", "filter"})
    asked["picture"] = picture_hash
    return {name: value for name, value in asked.items() if value is not None}


def _match(hit: Hit, wanted: SearchFilter | None) -> MatchView | None:
    """None for an image whose last path went while it was being found."""
    payload = hit.payload
    path = shown_path(list(payload["paths"]), wanted)
    if path is None:
        return None
    image_id = payload["image_id"]
    segment = segment_of(payload) if payload["kind"] == Kind.SEGMENT.value else None
    return MatchView(
        image_name=PurePosixPath(path).name,
        score=hit.score,
        image_id=image_id,
        path=path,
        image_url=urls.image_file(image_id),
        thumbnail_url=urls.thumbnail(image_id),
        width=payload["width"],
        height=payload["height"],
        orientation=Orientation.of(payload["width"], payload["height"]),
        taken_at=taken_at_of(payload),
        location=location_of(payload),
        segment=segment_view(image_id, segment) if segment else None,
        jwt="",
    )


def segment_view(image_id: str, segment: Segment) -> SegmentView:
    """A segment as the API shows it: with the address of its mask instead of the mask."""
    return SegmentView(
        n=segment.n,
        label=segment.label,
        score=segment.score,
        bbox=segment.bbox,
        area=segment.area,
        mask_url=urls.mask(image_id, segment.n),
    )
