"""Queries with their first hits: some that went well, and those that went worst."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.evaluation.intervals import Rows
from training.evaluation.scores import Ranking

EACH = 4


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture, words, or a picture with its label."""

    picture: Path | None
    words: str | None


@dataclass(frozen=True, slots=True)
class Hit:
    """`score` is the similarity of query and hit."""

    shown: Shown
    right: bool
    score: float


@dataclass(frozen=True, slots=True)
class Example:
    """`rank` is that of the first right answer, which is `wanted`."""

    query: Shown
    wanted: Shown
    rank: int
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    title: str
    best: tuple[Example, ...]
    worst: tuple[Example, ...]


def of(
    title: str,
    ranking: Ranking,
    wanted: Rows,
    keys: Rows,
    rng: np.random.Generator,
    *,
    query: Callable[[int], Shown],
    candidate: Callable[[int], Shown],
    spread: Rows,
) -> Examples:
    """The best and worst queries by rank, then by average precision, then by lot; no two of the same `spread` (asked,)."""

    def example(place: int) -> Example:
        row = int(ranking.rows[place])
        hits = zip(ranking.top[place].tolist(), ranking.top_scores[place].tolist(), strict=True)
        return Example(
            query=query(row),
            wanted=candidate(int(ranking.first_right[place])),
            rank=int(ranking.first_rank[place]),
            hits=tuple(Hit(candidate(hit), bool(keys[hit] == wanted[row]), round(score, 4)) for hit, score in hits),
        )

    order = np.lexsort((rng.random(len(ranking.rows)), -ranking.average_precision, ranking.first_rank))
    best = _first_of_each(order, spread[ranking.rows])
    worst = [place for place in _first_of_each(order[::-1], spread[ranking.rows]) if place not in best]
    return Examples(title, tuple(map(example, best)), tuple(map(example, worst)))


def _first_of_each(order: Rows, spread: Rows) -> list[int]:
    """The first places in that order, of different `spread` as long as there are such."""
    chosen: dict[int, int] = {}
    for place in order.tolist():
        chosen.setdefault(int(spread[place]), place)
        if len(chosen) == EACH:
            break
    return list(chosen.values())
