"""How ratings turn a query vector: Rocchio's feedback on the unit sphere, with a bound on what anybody can do by rating.

Rocchio, in Salton (ed.), The SMART Retrieval System, 1971, adds liked pictures to the query and subtracts disliked ones. Here each
*client* is one voice, however much it rates: a tangent at the query of length 1 at most. The voices' sum S turns the query along the
great circle by `LARGEST_ROTATION * S / (n + SHRINKAGE)`, n being the voices heard. Therefore, whatever was rated,

- no query turns by `LARGEST_ROTATION` or more, and one that is not near a rated query does not turn at all;
- h of n clients, taken away or made hostile, move it by at most `2 * LARGEST_ROTATION * h / (n + SHRINKAGE)` (`bound`);
- moved by d, a picture's score changes by at most `2 * sin(d / 2)`, which is the chord.

The second holds since S and n change by h at most each, and great circles part no faster than straight lines do. The
direction of a rating is the rated picture less the middle of those it was shown among (`direction`), so that what all pictures share, such
as the cone that they lie in apart from words, turns nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.schemas import Vector

LARGEST_ROTATION = float(np.deg2rad(30.0))
SHRINKAGE = 2.0
"""A lone client turns a query by a third of the largest rotation at most, ten by five sixths of it."""

NEAR = 0.85
"""Least cosine of a rated query to the one asked. The weight rises from 0 there to 1 at the same query, so that nothing jumps."""

DISLIKE = 0.5
"""Weight of the lowest rating against 1 for the highest: what people look for lies together, what they don't lies all around."""

_NEUTRAL = 5.5
_SPREAD = 4.5


def preference(rating: int) -> float:
    """1..10 as -DISLIKE..1, without a zero: every rating says something."""
    liked = (rating - _NEUTRAL) / _SPREAD
    return liked if liked > 0 else liked * DISLIKE


def bound(clients: float, hostile: float) -> float:
    """Radians by which `hostile` of `clients` voices can move a query."""
    return float(min(2 * LARGEST_ROTATION * hostile / (clients + SHRINKAGE), 2 * LARGEST_ROTATION))


def direction(rated: Vector, shown: Sequence[Vector]) -> Vector:
    """Where a liked picture turns the query to; `shown` includes the rated one. A picture shown alone stands for itself."""
    if len(shown) < 2:
        return rated
    return np.asarray(rated - np.mean(shown, axis=0), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A client's rating of one picture for what it `asked`. `query` and `direction` are of the same space; `query` has length 1."""

    client: str
    asked: str
    query: Vector
    picture: str
    rating: int
    direction: Vector


@dataclass(frozen=True, slots=True)
class Turned:
    """A query after feedback: how far it came, in radians, and by how many judgements of how many clients."""

    vector: Vector
    rotation: float = 0.0
    judgements: int = 0
    clients: int = 0

    @property
    def degrees(self) -> float:
        return float(np.rad2deg(self.rotation))


class Judgements:
    """The judgements of one space, the latest one a client, query and picture. One thread at a time.

    At most `capacity` are held: then the client that holds most gives up its oldest, so that nobody pushes others out by rating more.
    """

    def __init__(self, dim: int, capacity: int) -> None:
        self._capacity = capacity
        self._queries = np.zeros((capacity, dim), dtype=np.float32)
        self._directions = np.zeros((capacity, dim), dtype=np.float32)
        self._preferences = np.zeros(capacity, dtype=np.float32)
        self._voices = np.zeros(capacity, dtype=np.int64)
        self._rows: dict[str, OrderedDict[tuple[str, str], int]] = {}
        self._used = 0
        self._numbers: dict[str, int] = {}
        self._next_number = 0

    def __len__(self) -> int:
        return self._used

    def add(self, judgement: Judgement) -> None:
        """Hear a judgement; it replaces the client's earlier one of the same picture for the same query."""
        key = (judgement.asked, judgement.picture)
        held = self._rows.get(judgement.client, OrderedDict())
        row = held.pop(key, None)
        if row is None:
            row = self._free_row()
        self._rows.setdefault(judgement.client, OrderedDict())[key] = row
        self._queries[row] = judgement.query
        self._directions[row] = judgement.direction
        self._preferences[row] = preference(judgement.rating)
        self._voices[row] = self._number(judgement.client)

    def turn(self, query: Vector) -> Turned:
        """Turn a query of length 1 by what was judged near it."""
        nearness = self._queries[: self._used] @ query
        near = np.flatnonzero(nearness > NEAR)
        if not len(near):
            return Turned(query)
        near = near[np.argsort(self._voices[near], kind="stable")]
        first = np.flatnonzero(np.diff(self._voices[near], prepend=-1))  # of each voice
        weights = np.minimum((nearness[near] - NEAR) / (1 - NEAR), 1.0).astype(np.float32)
        heard = np.maximum.reduceat(weights, first).astype(np.float64)
        pulls = (weights * self._preferences[near])[:, None] * self._directions[near]
        voices = np.add.reduceat(pulls, first, axis=0).astype(np.float64)
        voices -= np.outer(voices @ query, query)
        voices *= np.minimum(1.0, heard / np.maximum(np.linalg.norm(voices, axis=1), 1e-12))[:, None]
        step = LARGEST_ROTATION * voices.sum(axis=0) / (heard.sum() + SHRINKAGE)
        return _moved(query, step, judgements=len(near), clients=len(first))

    def _free_row(self) -> int:
        if self._used < self._capacity:
            self._used += 1
            return self._used - 1
        most = max(self._rows, key=lambda client: len(self._rows[client]))
        _, row = self._rows[most].popitem(last=False)
        if not self._rows[most]:
            del self._rows[most], self._numbers[most]
        return row

    def _number(self, client: str) -> int:
        if client not in self._numbers:
            self._numbers[client] = self._next_number
            self._next_number += 1
        return self._numbers[client]


def _moved(query: Vector, step: NDArray[np.float64], *, judgements: int, clients: int) -> Turned:
    """Along the great circle that leaves `query` in the direction of `step`, as far as `step` is long."""
    rotation = float(np.linalg.norm(step))
    if rotation < _STILL:
        return Turned(query, 0.0, judgements, clients)
    moved = np.cos(rotation) * query + np.sin(rotation) * step / rotation
    return Turned(np.asarray(moved / np.linalg.norm(moved), dtype=np.float32), rotation, judgements, clients)


_STILL = 1e-6
