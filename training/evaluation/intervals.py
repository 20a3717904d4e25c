"""A mean and how sure it is: 95 % intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Outcomes = NDArray[np.float64]
Rows = NDArray[np.int64]

RESAMPLES = 1000
_LEVEL = 0.95
_AT_ONCE = 4_000_000  # numbers drawn at once: 32 MB


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean in per cent with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f}"


def draws(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that a measure more or less changes no other."""
    return np.random.default_rng([seed, *purpose.encode()])


def of_resampled(outcomes: Outcomes, groups: Rows, rng: np.random.Generator) -> list[Estimate]:
    """The mean of each column of `outcomes` (n, measures), 0 to 1, by the percentile bootstrap.

    `groups` (n,) says which outcomes belong together, as the captions of one picture do: they are drawn together, since five
    sentences about one picture are not five pictures.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), outcomes.shape[1]))
    np.add.at(sums, group, outcomes)
    means = np.concatenate([_resampled(sums, sizes, count, rng) for count in _portions(len(sizes))])
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], axis=0) * 100
    return [Estimate(*map(float, column)) for column in zip(outcomes.mean(0) * 100, low, high, strict=True)]


def of_repeated(outcomes: Outcomes) -> Estimate:
    """The mean of independent repetitions (n,), 0 to 1, by Student's t."""
    mean = float(outcomes.mean())
    half = float(stats.sem(outcomes) * stats.t.ppf((1 + _LEVEL) / 2, len(outcomes) - 1))
    return Estimate(mean * 100, (mean - half) * 100, (mean + half) * 100)


def _resampled(sums: Outcomes, sizes: Rows, count: int, rng: np.random.Generator) -> Outcomes:
    """(count, measures): means of resamples."""
    drawn = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=count).astype(np.float64)
    means: Outcomes = (drawn @ sums) / (drawn @ sizes.astype(np.float64))[:, None]
    return means


def _portions(groups: int) -> list[int]:
    most = max(1, _AT_ONCE // groups)
    return [min(most, RESAMPLES - start) for start in range(0, RESAMPLES, most)]
