"""How often words find their photos by one proposer's regions, beside search by the picture alone and by the grid of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_service.parts import TextTower
from training.proposals import intervals
from training.proposals.intervals import Interval
from training.proposals.search import WAYS, Embedded, Questions, Way, found


@dataclass(frozen=True, slots=True)
class Finding:
    """The part of the right photos that are found one way; the gains are on the same questions."""

    photos: Interval
    gain: Interval
    gain_over_grid: Interval


class Compared:
    """Some questions, and what every proposer is compared with."""

    def __init__(self, asked: Questions, grid: Sequence[Embedded], encoder: TextTower, seed: int) -> None:
        self._asked = asked
        self._words = encoder.embed_texts(asked.texts)
        self._grid = grid
        self._seed = seed

    def findings(self, photos: Sequence[Embedded]) -> dict[Way, Finding]:
        return {way: self._finding(photos, way) for way in WAYS}

    def _finding(self, photos: Sequence[Embedded], way: Way) -> Finding:
        here, alone, by_grid = (
            _together(self._asked, found(self._asked, self._words, embeddings, by))
            for embeddings, by in ((photos, way), (photos, WAYS[0]), (self._grid, way))
        )
        return Finding(
            photos=intervals.over_values(here, self._seed),
            gain=intervals.over_values(_less(here, alone), self._seed),
            gain_over_grid=intervals.over_values(_less(here, by_grid), self._seed),
        )


def _together(asked: Questions, answers: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Answers by what is right: the captions of one photo are not drawn apart."""
    by_right: dict[tuple[int, ...], list[NDArray[np.float64]]] = {}
    for right, answer in zip(asked.right, answers, strict=True):
        by_right.setdefault(right, []).append(answer)
    return [np.concatenate(group) for group in by_right.values()]


def _less(one: intervals.Groups, other: intervals.Groups) -> list[NDArray[np.float64]]:
    return [mine - theirs for mine, theirs in zip(one, other, strict=True)]
