"""How often copies fail together, in closed form; `benchmarks.sizing.losses` plays it, and has to come to the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

YEAR_H = 8766.0


@dataclass(frozen=True, slots=True)
class Node:
    """How a node fails, on its own: it goes away and comes back with its disk, or its disk is gone.

    The defaults are guesses of the careful kind: away once a month for a quarter of an hour, a disk in ten years, a new machine in four hours.
    """

    away_a_year: float = 12.0
    away_h: float = 0.25
    """Until it has caught up."""
    lost_a_year: float = 0.1
    replaced_h: float = 4.0
    copied_mb_per_s: float = 100.0
    """As fast as the others give it its shards back."""

    def lost_h(self, held_bytes: float) -> float:
        """From the loss of a disk until all that was on it is there again."""
        return self.replaced_h + held_bytes / (self.copied_mb_per_s * 1e6) / 3600

    def down_share(self, held_bytes: float) -> float:
        """Of the time."""
        up_h = YEAR_H / (self.away_a_year + self.lost_a_year)
        down_h = (self.away_a_year * self.away_h + self.lost_a_year * self.lost_h(held_bytes)) / (
            self.away_a_year + self.lost_a_year
        )
        return down_h / (up_h + down_h)


def fewer_than(needed: int, copies: int, down_share: float) -> float:
    """The share of the time in which fewer than `needed` of independent copies are there."""
    total = 0.0
    for there in reversed(range(needed)):
        term = _chance_of(there, copies, 1 - down_share)
        total += term
        if term <= total * 1e-12:  # each further one is less likely still
            break
    return total


def _chance_of(there: int, copies: int, up: float) -> float:
    """By logarithms: of thousands, the numbers of ways are no float."""
    ways = math.lgamma(copies + 1) - math.lgamma(there + 1) - math.lgamma(copies - there + 1)
    return math.exp(ways + there * math.log(up) + (copies - there) * math.log1p(-up))


def without_majority(nodes: int, down_share: float) -> float:
    """The share of the time in which the nodes cannot agree: no collection is made or changed, no copy is declared dead."""
    return fewer_than(nodes // 2 + 1, nodes, down_share)


def losses_a_year(copies: int, lost_a_year: float, lost_h: float, *, sets: int = 1) -> float:
    """How often all copies of something are gone before one was restored, each being restored by itself.

    A birth-death chain: with `k` gone, another goes at (copies - k) rates and one comes back at k. `sets` are those nodes that hold something
    together; chances this small add up.
    """
    return sets / _years_to_loss(copies, lost_a_year, YEAR_H / lost_h)


def _years_to_loss(copies: int, failing: float, restored: float) -> float:
    """The mean first passage from none gone to all: the sum of those from each number to the next."""
    step, total = 0.0, 0.0
    for gone in range(copies):
        step = (1 + gone * restored * step) / ((copies - gone) * failing)
        total += step
    return total
