"""Filters in the words of a Qdrant server."""

from __future__ import annotations

from qdrant_client import models

from core.ports import Condition, Prefix, Range, Substring, Where
from core.vectors.checks import checked_where


def server_filter(where: Where) -> models.Filter:
    checked_where(where)
    return models.Filter(
        must=[_condition(condition) for condition in where.must],
        must_not=[_condition(condition) for condition in where.must_not],
    )


def _condition(condition: Condition) -> models.FieldCondition | models.Filter:
    if isinstance(condition, Range):
        return models.FieldCondition(key=condition.key, range=models.Range(gte=condition.gte, lte=condition.lte))
    if isinstance(condition, Substring):
        return models.FieldCondition(key=condition.key, match=models.MatchSubstring(substring=condition.part))
    if isinstance(condition, Prefix):
        return models.FieldCondition(key=condition.key, match=models.MatchPrefix(prefix=condition.beginning))
    words = [value for value in condition.any_of if isinstance(value, str)]
    numbers = [value for value in condition.any_of if isinstance(value, int)]
    if words and numbers:  # one Match of the server holds one type
        return models.Filter(should=[_any_of(condition.key, words), _any_of(condition.key, numbers)])
    return _any_of(condition.key, numbers or words)


def _any_of(key: str, values: list[str] | list[int]) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=values))
