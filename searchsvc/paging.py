"""A page of an answer, and where the next one begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchsvc.arrangement import POOL, Group, arranged
from searchsvc.cursors import Continuation
from searchsvc.ranking import NOISE, Place, Ranked, Ranking

_NEWCOMERS = 64
_MOST_NEWCOMERS = 1024
"""Matches that came into a pool between two pages. Were there more, the pool's tail would be cut off."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A match, and the images that it stands for."""

    ranked: Ranked
    near_duplicates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """The first match has rank `first_rank`; `further` is None where nothing follows."""

    matches: Sequence[Shown]
    first_rank: int
    further: Continuation | None


class Pager:
    """`near_duplicate` is the least cosine similarity of two matches that count as one."""

    def __init__(self, ranking: Ranking, *, near_duplicate: float) -> None:
        self._ranking = ranking
        self._near_duplicate = near_duplicate

    async def page(self, going: Continuation, *, skip: int = 0) -> Page:
        """The next matches, behind `skip` others. Raises VectorsUnavailable."""
        if going.question.collapse or going.question.diversity:
            return await self._of_pool(going, skip)
        if skip:
            found, more = await self._ranking.skipping(going.question, skip, going.top_k)
        else:
            found, more = await self._ranking.behind(going.question, going.place, going.top_k)
        first_rank = going.rank + skip + 1
        further = None
        if more and found:
            place = Place.behind(found, going.place, rank=first_rank + len(found) - 1)
            if skip:
                place = place.model_copy(update={"near": None})
            further = going.model_copy(update={"place": place})
        return Page([Shown(one) for one in found], first_rank, further)

    async def _of_pool(self, going: Continuation, skip: int) -> Page:
        pool, least = await self._pool(going)
        shown = set(going.shown)
        groups = arranged(
            [one.score for one in pool],
            [one.hit.vector for one in pool if one.hit.vector is not None],
            [n for n, one in enumerate(pool) if one.key in shown],
            collapse_from=self._near_duplicate if going.question.collapse else None,
            diversity=going.question.diversity,
        )
        end = skip + going.top_k
        further = None
        if len(groups) > end:
            keys = (pool[group.index].key for group in groups[:end])
            further = going.model_copy(update={"shown": (*going.shown, *keys), "least": least})
        return Page([_shown(pool, group) for group in groups[skip:end]], going.rank + skip + 1, further)

    async def _pool(self, going: Continuation) -> tuple[list[Ranked], float | None]:
        """The best matches, and the least score among them where there are more.

        Later pages have the pool of the first one, less what went, and with what came into it.
        """
        question, least = going.question, going.least
        if least is None:
            pool, more = await self._ranking.behind(question, None, POOL, with_vectors=True)
            return pool, pool[-1].score if more else None
        count = POOL + _NEWCOMERS
        while True:
            found, more = await self._ranking.behind(question, None, count, with_vectors=True)
            pool = [one for one in found if one.score >= least - NOISE]
            if not more or len(pool) < len(found) or count >= POOL + _MOST_NEWCOMERS:
                return pool, least
            count += _MOST_NEWCOMERS


def _shown(pool: Sequence[Ranked], group: Group) -> Shown:
    own = pool[group.index].hit.payload["image_id"]
    others = dict.fromkeys(pool[n].hit.payload["image_id"] for n in group.others)
    return Shown(pool[group.index], tuple(image_id for image_id in others if image_id != own))
