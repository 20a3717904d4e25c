"""In which order a question's matches come, and how to go on behind one of them while pictures come and go.

The order is by score, then by key, and nothing but the question and the point decides either: so the place behind a match is the
same before and after others arrived or left (keyset pagination), whatever number it has by then. Engines repeat a score to the last
bit only on the same processor and for the same batch, so a place also knows which matches of about its score were shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.points import Kind, image_point_id, segments_of
from core.ports import Hit, VectorStore
from core.schemas import Vector, Wire
from searchsvc.question import Question

REGION_SHARE = 0.6
"""How far a best region that is better raises the score of its picture, of the way up to its own: measured, see docs/explanation/ways-to-ask.md."""

NOISE = 1e-5
"""By how much the score of the same point and question may differ from one time to the next."""

_MOST_NEAR = 1000
_SLACK = 16
_FEW_MORE = 2
"""On a first page: one tells that there are more, and the last of an answer that is full may have equals beyond it."""

_HITS_AN_IMAGE = 4
_MOST_HITS = 2**16


@dataclass(frozen=True, slots=True)
class Ranked:
    """A match in its place: the point to show, and the scores of the whole picture and of its best region as far as they were looked at."""

    score: float
    key: str
    hit: Hit
    whole: float | None
    region: float | None

    @property
    def order(self) -> tuple[float, str]:
        return -self.score, self.key


class Place(Wire):
    """Behind which match to go on. `rank` is how many were before it and with it, when it was shown.

    `near` are the keys of all shown matches that a repeated search might score like it; None where they are not known, or too
    many: then the order alone decides.
    """

    score: float
    key: str
    rank: int
    near: frozenset[str] | None = None

    @classmethod
    def behind(cls, shown: Sequence[Ranked], before: Place | None, *, rank: int) -> Place:
        """Behind the last of the matches shown now, the others having been shown up to `before`."""
        last = shown[-1]
        reach = last.score + 2 * NOISE
        near: frozenset[str] | None = frozenset(one.key for one in shown if one.score <= reach)
        if before is not None and before.score <= reach:
            near = None if before.near is None or near is None else near | before.near
        if near is not None and len(near) > _MOST_NEAR:
            near = None
        return cls(score=last.score, key=last.key, rank=rank, near=near)

    def precedes(self, one: Ranked) -> bool:
        if self.near is None:
            return (-self.score, self.key) < one.order
        return one.score <= self.score + NOISE and one.key not in self.near


class Ranking:
    """Of the points that the vectors hold. Every method raises VectorsUnavailable."""

    def __init__(self, vectors: VectorStore) -> None:
        self._vectors = vectors

    async def behind(
        self, question: Question, place: Place | None, count: int, *, with_vectors: bool = False
    ) -> tuple[list[Ranked], bool]:
        """The next matches behind a place, or the first; and whether there are more."""
        find = self._fused if question.scope == "both" else self._nearest
        return await find(question, place, count, with_vectors)

    async def skipping(self, question: Question, offset: int, count: int) -> tuple[list[Ranked], bool]:
        """As many matches behind that number of others."""
        if question.scope == "both":
            found, more = await self._fused(question, None, offset + count, False)
            return found[offset:], more
        hits = await self._query(question, limit=count + 1, offset=offset)
        return [_plain(hit) for hit in hits[:count]], len(hits) > count

    async def _nearest(
        self, question: Question, place: Place | None, count: int, with_vectors: bool
    ) -> tuple[list[Ranked], bool]:
        """Looks around where the place was; earlier if it has moved up since, and further until its page is full."""
        start = max(0, place.rank - _SLACK) if place else 0
        limit = count + (2 * _SLACK if place else _FEW_MORE)
        while True:
            hits = await self._query(question, limit=limit, offset=start, with_vectors=with_vectors)
            if place is not None and start > 0 and (not hits or hits[0].score <= place.score + 2 * NOISE):
                start, limit = max(0, start - limit), 2 * limit
                continue
            ended = len(hits) < limit or limit >= _MOST_HITS
            ranked = [_plain(hit) for hit in hits]
            page = _page(ranked, place, above=None if ended else hits[-1].score)
            if ended or len(page) > count:
                return page[:count], len(page) > count
            limit *= 2

    async def _fused(self, question: Question, place: Place | None, count: int, with_vectors: bool) -> tuple[list[Ranked], bool]:
        """Each picture once. None is better than its best point, so those that beat the last point seen are settled."""
        limit = _HITS_AN_IMAGE * (count + _SLACK + (place.rank if place else 0))
        while True:
            hits = await self._query(question, limit=limit, with_vectors=with_vectors)
            ended = len(hits) < limit or limit >= _MOST_HITS
            best: dict[str, Hit] = {}
            for hit in hits:
                best.setdefault(hit.payload["image_id"], hit)
            ranked = await self._with_their_wholes(question, list(best.values()))
            page = _page(ranked, place, above=None if ended else hits[-1].score)
            if ended or len(page) > count:
                return page[:count], len(page) > count
            limit *= 2

    async def _with_their_wholes(self, question: Question, best: Sequence[Hit]) -> list[Ranked]:
        """A picture that was found by a region has its whole looked up; without one it is not indexed yet."""
        by_region = [hit for hit in best if _is_region(hit)]
        wholes = await self.vectors(question, [image_point_id(hit.payload["image_id"]) for hit in by_region])
        ranked: list[Ranked] = []
        for hit in best:
            key = hit.payload["image_id"]
            if not _is_region(hit):
                ranked.append(Ranked(hit.score, key, hit, whole=hit.score, region=None))
            elif (whole := wholes.get(image_point_id(key))) is not None:
                score = cosine(question.searched, whole)
                ranked.append(Ranked(fused(score, hit.score), key, hit, whole=score, region=hit.score))
        least = question.min_score
        return ranked if least is None else [one for one in ranked if one.score >= least]

    async def vectors(self, question: Question, ids: Sequence[str]) -> dict[str, Vector]:
        """Of these points, by id; without those that are not there."""
        records = await self._vectors.retrieve(question.space.collection, ids, with_vectors=True) if ids else []
        return {record.id: record.vector for record in records if record.vector is not None}

    async def best_region(self, question: Question, image_id: str) -> tuple[float, int] | None:
        """Score and number of the region of an image that answers best; None where it has none."""
        hits = await self._vectors.query(question.space.collection, question.searched, where=segments_of(image_id), limit=1)
        return (hits[0].score, hits[0].payload["n"]) if hits else None

    async def _query(self, question: Question, *, limit: int, offset: int = 0, with_vectors: bool = False) -> list[Hit]:
        """Best first, and of equal ones the smaller key: as far as one answer goes."""
        return await self._vectors.query(
            question.space.collection,
            question.searched,
            where=question.where(),
            limit=limit,
            offset=offset,
            min_score=None if question.min_score is None else _just_below(question.min_score),
            with_vectors=with_vectors,
        )


def _just_below(score: float) -> float:
    """Qdrant lets through what lies above its threshold alone, and counts in float32."""
    return float(np.nextafter(np.float32(score), np.float32(-np.inf)))


def fused(whole: float, region: float) -> float:
    """The score of a picture by that of its whole and that of its best region."""
    return whole + REGION_SHARE * max(0.0, region - whole)


def cosine(one: Vector, other: Vector) -> float:
    """Of vectors of length 1."""
    return float(np.dot(one, other))


def _page(ranked: Sequence[Ranked], place: Place | None, *, above: float | None) -> list[Ranked]:
    """Those behind the place, in order; with `above`, as far as no match that was not seen can come between them."""
    settled = [one for one in ranked if above is None or one.score > above + NOISE]
    return sorted((one for one in settled if place is None or place.precedes(one)), key=lambda one: one.order)


def _is_region(hit: Hit) -> bool:
    return bool(hit.payload["kind"] == Kind.SEGMENT.value)


def _plain(hit: Hit) -> Ranked:
    region = _is_region(hit)
    return Ranked(hit.score, hit.id, hit, whole=None if region else hit.score, region=hit.score if region else None)
