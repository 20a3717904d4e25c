"""Filters in the words of Qdrant Edge."""

from __future__ import annotations

import qdrant_edge as edge

from core.ports import Condition, Prefix, Range, Substring, Where
from core.vectors.checks import checked_where


def edge_filter(where: Where) -> edge.Filter:
    checked_where(where)
    return edge.Filter(
        must=[_condition(condition) for condition in where.must],
        must_not=[_condition(condition) for condition in where.must_not],
    )


def _condition(condition: Condition) -> edge.FieldCondition | edge.Filter:
    if isinstance(condition, Range):
        return edge.FieldCondition(condition.key, range=edge.RangeFloat(gte=condition.gte, lte=condition.lte))
    if isinstance(condition, Substring):
        return edge.FieldCondition(condition.key, match=edge.MatchSubstring(condition.part))
    if isinstance(condition, Prefix):
        return edge.FieldCondition(condition.key, match=edge.MatchPrefix(condition.beginning))
    words = [value for value in condition.any_of if isinstance(value, str)]
    numbers = [value for value in condition.any_of if isinstance(value, int)]
    if words and numbers:  # one Match of the engine holds one type
        return edge.Filter(should=[_any_of(condition.key, words), _any_of(condition.key, numbers)])
    return _any_of(condition.key, numbers or words)


def _any_of(key: str, values: list[str] | list[int]) -> edge.FieldCondition:
    return edge.FieldCondition(key, match=edge.MatchAny(values))
