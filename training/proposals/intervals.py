"""Means with 95 % intervals, by drawing whole photos (or questions) anew: what one of them holds is not independent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
Groups = Sequence[NDArray[np.float64]]
"""The values of each photo or question; some may have none."""


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def over_values(groups: Groups, seed: int) -> Interval:
    """The mean of all values. NaN where there are none."""
    sums = np.asarray([group.sum() for group in groups])
    return _drawn(sums, np.asarray([float(len(group)) for group in groups]), seed)


def over_groups(groups: Groups, seed: int) -> Interval:
    """The mean of the groups' means; groups without values are left out."""
    means = np.asarray([group.mean() for group in groups if len(group)])
    return _drawn(means, np.ones(len(means)), seed)


def _drawn(sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int) -> Interval:
    if counts.sum() == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    rows = np.random.default_rng(seed).integers(len(sums), size=(DRAWS, len(sums)))
    totals = counts[rows].sum(axis=1)
    means = sums[rows].sum(axis=1)[totals > 0] / totals[totals > 0]
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))
