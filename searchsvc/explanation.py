"""What a match's score is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from core.schemas import Vector
from searchsvc.matches import matched_segment
from searchsvc.question import Question
from searchsvc.ranking import Ranked, Ranking, cosine
from searchsvc.search_schema import Explanation, TermView


class Explainer:
    def __init__(self, ranking: Ranking) -> None:
        self._ranking = ranking

    async def explain(self, question: Question, matches: Sequence[Ranked]) -> Mapping[str, Explanation]:
        """By key; without a match that went in the meantime. Raises VectorsUnavailable."""
        vectors = await self._ranking.vectors(question, [one.hit.id for one in matches])
        by_whole = [one for one in matches if question.scope == "both" and one.region is None]
        found = await asyncio.gather(*(self._ranking.best_region(question, one.hit.payload["image_id"]) for one in by_whole))
        regions = {one.key: region for one, region in zip(by_whole, found, strict=True)}
        return {
            one.key: _explanation(question, one, vectors[one.hit.id], regions.get(one.key))
            for one in matches
            if one.hit.id in vectors
        }


def _explanation(question: Question, one: Ranked, vector: Vector, looked_up: tuple[float, int] | None) -> Explanation:
    segment = matched_segment(one.hit.payload)
    region, region_n = looked_up or (one.region, segment.n if segment else None)
    return Explanation(
        collection=question.space.collection,
        point_id=one.hit.id,
        whole=one.whole,
        region=region,
        region_n=region_n,
        terms=tuple(_terms(question, vector)),
    )


def _terms(question: Question, vector: Vector) -> Iterable[TermView]:
    for term in question.terms:
        yield TermView(of=term.of, ref=term.ref, weight=term.weight, similarity=cosine(term.vector, vector))
    if question.turned is not None:
        turn = question.turned - question.vector
        length = float(np.linalg.norm(turn))
        if length > 0:
            yield TermView(of="feedback", ref="", weight=length, similarity=cosine(turn / np.float32(length), vector))
