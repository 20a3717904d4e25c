"""Another order of the best matches: near-duplicates behind one of them, and variety instead of much of the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.schemas import Vector

POOL = 200
"""How many of the best matches are arranged anew; behind them nothing follows."""


@dataclass(frozen=True, slots=True)
class Group:
    """A match, by its index, and the near-duplicates that it stands for, best first."""

    index: int
    others: tuple[int, ...] = ()


def arranged(
    relevance: Sequence[float], vectors: Sequence[Vector], shown: Sequence[int], *, collapse_from: float | None, diversity: float
) -> list[Group]:
    """All that is still to be shown, in the order to show it; what `shown` matches already stand for is left out.

    `relevance` is in falling order, `vectors` have length 1, and indices are into both. Two whose cosine is `collapse_from` or
    more count as one; with None, each stands for itself.
    """
    similar = np.clip(np.stack(vectors) @ np.stack(vectors).T, -1.0, 1.0) if len(vectors) else np.zeros((0, 0), np.float32)
    groups = {n: list[int]() for n in range(len(relevance)) if n not in set(shown)}
    if collapse_from is not None:
        groups = _groups(similar >= collapse_from, shown)
    order = list(groups) if diversity == 0 else _varied(np.asarray(relevance), similar, list(groups), shown, diversity)
    return [Group(index, tuple(groups[index])) for index in order]


def _groups(same: NDArray[np.bool_], shown: Sequence[int]) -> dict[int, list[int]]:
    """By the best of each group, what else belongs to it. A match joins the first group whose best one it is like."""
    best, others = list(shown), dict[int, list[int]]()
    for n in range(len(same)):
        if n in shown:
            continue
        like = next((one for one in best if same[n, one]), None)
        if like is None:
            best.append(n)
            others[n] = []
        elif like in others:
            others[like].append(n)
    return others


def _varied(
    relevance: NDArray[np.float64], similar: NDArray[np.float32], left: list[int], shown: Sequence[int], diversity: float
) -> list[int]:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): next is what is relevant and unlike all before it.

    Both are stretched over 0..1 within the pool, because words and pictures have cosines of 0.1 to 0.4 where pictures among
    themselves have 0.3 to 1, and one number should mean the same variety for either.
    """
    worth = _stretched(relevance)
    alike = _stretched(similar)
    nearest = alike[:, list(shown)].max(axis=1) if shown else np.zeros(len(relevance))
    order: list[int] = []
    while left:
        gain = (1 - diversity) * worth[left] - diversity * nearest[left]
        chosen = left.pop(int(np.argmax(gain)))
        order.append(chosen)
        nearest = np.maximum(nearest, alike[chosen])
    return order


def _stretched(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Linearly to 0..1; all 1 where there is no difference."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if high <= low:
        return np.ones(values.shape)
    return np.asarray((values - low) / (high - low), dtype=np.float64)
