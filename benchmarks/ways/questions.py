"""What is asked and what is right for it, and how well scores find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from benchmarks.ways.photos import Library, Rows, Vectors
from training.evaluation.intervals import Estimate, draws, of_resampled

Flags = NDArray[np.bool_]
Scores = NDArray[np.float32]
Outcomes = NDArray[np.float64]
"""(questions, measures), 0 to 1."""


class Measure(IntEnum):
    """A column of outcomes."""

    FOUND = 0
    """Of the right photos, those that fewer than `within` wrong ones stand above."""
    NEARNESS = 1
    """The mean over the right photos of 1 / rank, counted past wrong ones only: finer than FOUND, so ways are chosen by it."""
    OF_TEN = 2
    """Of the first ten, those that are right."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions of one kind to one library. `right` and `ignored` (questions, photos): what should be found, and what counts neither way.

    Questions of one `group` (questions,) are drawn together and stay in one half, as the captions of one photo do.
    """

    library: Library
    queries: Vectors
    right: Flags
    ignored: Flags
    group: Rows
    within: int

    def half(self, seed: int) -> Flags:
        """(questions,): those of about half of the groups, by lot; the same groups in every kind of question that numbers them alike."""
        return np.asarray(draws(seed, "half").random(int(self.group.max()) + 1)[self.group] < 0.5)


def outcomes(asked: Asked, scores: Scores) -> Outcomes:
    return np.stack(
        [_outcome(*each, asked.within) for each in zip(scores, asked.right, asked.ignored, strict=True)], dtype=np.float64
    )


def estimates(asked: Asked, found: Outcomes, seed: int) -> list[Estimate]:
    """Of each column, in per cent."""
    return of_resampled(found, asked.group, draws(seed, "ways to ask"))


def best_on_each_half(ways: Mapping[str, Sequence[Outcomes]], halves: Sequence[Flags], by: Measure) -> tuple[str, str]:
    """The way that finds most on the halves, and the one that does on what is left. Kinds of question count alike.

    `ways` has each way's outcomes, one array a kind, and `halves` one half of each kind.
    """

    def worth(way: str, side: Sequence[Flags]) -> float:
        return sum(float(found[kept, by].mean()) for found, kept in zip(ways[way], side, strict=True))

    first, second = (max(ways, key=lambda way: worth(way, side)) for side in (halves, [~half for half in halves]))
    return first, second


def asked_apart(ways: Mapping[str, Sequence[Outcomes]], halves: Sequence[Flags], chosen: tuple[str, str]) -> list[Outcomes]:
    """What is found where each question is asked in the way that was chosen on the half that it is not in."""
    first, second = chosen
    return [np.where(half[:, None], *found) for half, *found in zip(halves, ways[second], ways[first], strict=True)]


def _outcome(scores: Scores, right: Flags, ignored: Flags, within: int) -> Outcomes:
    wrong = np.sort(scores[~right & ~ignored])
    above = len(wrong) - np.searchsorted(wrong, scores[right], side="right")
    seen = right[~ignored][np.argsort(-scores[~ignored], kind="stable")[:10]]
    return np.asarray([(above < within).mean(), (1 / (above + 1)).mean(), seen.mean()])
