"""What both homes of the vectors demand of their callers, so that neither is laxer than the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from core.errors import InvalidRequest
from core.points import PAYLOAD_INDEXES, IndexType
from core.ports import Prefix, Substring, Where
from core.schemas import Vector

T = TypeVar("T")

FLOATS_PER_CALL = 32_768
"""Numbers of one write call: 64 vectors of 512. Qdrant Edge holds the GIL for 2 ms with it, and a server's JSON encoder the loop for 4."""


def checked_where(where: Where) -> Where:
    """`where` itself. Raises ValueError if it names a payload field without an index: such a filter reads every payload."""
    for condition in (*where.must, *where.must_not):
        if condition.key not in PAYLOAD_INDEXES:
            raise ValueError(f"payload field {condition.key!r} has no index")
        if isinstance(condition, Substring | Prefix) and PAYLOAD_INDEXES[condition.key] is not IndexType.SUBSTRING:
            raise ValueError(f"payload field {condition.key!r} has no index for parts of its values")
    return where


def checked_facet(key: str) -> str:
    """`key` itself. Raises ValueError unless its index is one of keywords."""
    if PAYLOAD_INDEXES.get(key) not in {IndexType.KEYWORD, IndexType.SUBSTRING}:
        raise ValueError(f"payload field {key!r} has no index of keywords")
    return key


def narrowing_where(where: Where) -> Where:
    """`where` itself. Raises ValueError if it has no condition: a whole collection is never removed by a forgotten filter."""
    if not where.must and not where.must_not:
        raise ValueError("an empty filter would remove every point")
    return checked_where(where)


def checked_vector(vector: Vector, dim: int) -> list[float]:
    """The vector as the engines take it. Raises InvalidRequest unless it is `dim` finite numbers; an engine would store NaN."""
    if vector.shape != (dim,):
        raise InvalidRequest(f"The collection holds vectors of {dim} numbers, not of shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise InvalidRequest("A vector holds a number that is not finite")
    numbers: list[float] = vector.tolist()
    return numbers


def points_per_call(dim: int) -> int:
    return max(1, min(256, FLOATS_PER_CALL // dim))


def batches_of(points: Sequence[T], dim: int) -> Iterator[Sequence[T]]:
    """The points in the portions of one write call each, order kept."""
    size = points_per_call(dim)
    for start in range(0, len(points), size):
        yield points[start : start + size]
