"""How often words find their photos by one proposer's regions, beside search by the picture alone and by the grid of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_service.registry import DualEncoder
from training.proposals import intervals
from training.proposals.intervals import Interval
from training.proposals.search import NAMED_WITHIN, TOLD_WITHIN, WAYS, Asked, Embedded, Questions, Way, found


@dataclass(frozen=True, slots=True)
class Finding:
    """The part of the right photos that are found one way; the gains are on the same questions."""

    photos: Interval
    gain: Interval
    gain_over_grid: Interval


@dataclass(frozen=True, slots=True)
class Compared:
    """What every proposer is asked and compared with."""

    asked: Questions
    grid: Sequence[Embedded]
    encoder: DualEncoder
    seed: int

    def names(self, photos: Sequence[Embedded]) -> dict[Way, Finding]:
        return {way: self._finding(self.asked.names, NAMED_WITHIN, photos, way) for way in WAYS}

    def captions(self, photos: Sequence[Embedded]) -> dict[Way, Finding]:
        return {way: self._finding(self.asked.captions, TOLD_WITHIN, photos, way) for way in WAYS}

    def _finding(self, asked: Sequence[Asked], within: int, photos: Sequence[Embedded], way: Way) -> Finding:
        here, alone, by_grid = (
            _together(asked, found(asked, within, embeddings, self.encoder, by))
            for embeddings, by in ((photos, way), (photos, WAYS[0]), (self.grid, way))
        )
        return Finding(
            photos=intervals.over_values(here, self.seed),
            gain=intervals.over_values(_less(here, alone), self.seed),
            gain_over_grid=intervals.over_values(_less(here, by_grid), self.seed),
        )


def _together(asked: Sequence[Asked], answers: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Answers by what is right: the captions of one photo are not drawn apart."""
    by_photos: dict[tuple[int, ...], list[NDArray[np.float64]]] = {}
    for question, answer in zip(asked, answers, strict=True):
        by_photos.setdefault(question.photos, []).append(answer)
    return [np.concatenate(group) for group in by_photos.values()]


def _less(one: intervals.Groups, other: intervals.Groups) -> list[NDArray[np.float64]]:
    return [mine - theirs for mine, theirs in zip(one, other, strict=True)]
