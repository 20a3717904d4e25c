"""Scores from L2-normalised vectors and the keys of what belongs together. All shares are in per cent; ranks count from 1.

The numbers are those of `torchmetrics.functional.retrieval`, which takes one query at a time and a cosine below 0 for not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from training.evaluation.intervals import Estimate, Rows, of_repeated, of_resampled

Vectors = NDArray[np.float32]

CUT_OFFS = (1, 5, 10)
SHOWN = 5
_AT_ONCE = 4_000_000  # similarities in memory at once


class NothingRight(Exception):
    """There is nothing to find for any query."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Each query's candidates in order, as far as scores and examples want them.

    `rows` (q,) are the queries that have a right candidate. For each: the rank of the first right one, its row, the average
    precision (0 to 1), and rows and similarities of the first five.
    """

    rows: Rows
    first_rank: Rows
    first_right: Rows
    average_precision: NDArray[np.float64]
    top: Rows
    top_scores: Vectors
    asked: int
    candidates: int


@dataclass(frozen=True, slots=True)
class Retrieval:
    """`recall_at[k]`: queries with a right candidate among the first k. `first_ranks` has each query's first right rank."""

    queries: int
    candidates: int
    unanswerable: int
    recall_at: dict[int, Estimate]
    mean_average_precision: Estimate
    mean_reciprocal_rank: Estimate
    median_rank: float
    first_ranks: Rows


@dataclass(frozen=True, slots=True)
class LabelAccuracy:
    """Of the pictures of one label; `mistaken_for` is the wrong name that they were given most often."""

    label: int
    pictures: int
    top_1: float
    mistaken_for: int | None


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """`confusion[i, j]`: pictures of label i whose nearest name is that of j."""

    top_1: Estimate
    top_5: Estimate
    by_label: tuple[LabelAccuracy, ...]
    confusion: Rows


@dataclass(frozen=True, slots=True)
class FewShot:
    """Accuracy over episodes; `accuracies` (episodes,) has each one's, 0 to 1. `labels` had pictures enough to be drawn."""

    labels: int
    accuracy: Estimate
    accuracies: NDArray[np.float64]


def rank(queries: Vectors, candidates: Vectors, wanted: Rows, keys: Rows, *, leave_one_out: bool = False) -> Ranking:
    """A candidate is right when its key is the one that the query wants. Equal similarities rank by row.

    With `leave_one_out` query i is candidate i, and is not among its own. Queries without a right candidate are left out.
    Raises NothingRight when that leaves none.
    """
    found, counts = np.unique(keys, return_counts=True)
    rows = np.flatnonzero(np.isin(wanted, found[counts > leave_one_out]))
    if not len(rows):
        raise NothingRight("no query has a right candidate")
    blocks = [
        _ranked(queries[block] @ candidates.T, wanted[block], keys, block if leave_one_out else None)
        for block in _blocks(rows, len(candidates))
    ]
    first, right, precision, top, scores = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return Ranking(rows, first, right, precision, top, scores, len(queries), len(candidates) - leave_one_out)


def retrieval(ranking: Ranking, groups: Rows, rng: np.random.Generator) -> Retrieval:
    """`groups` (asked,) says which queries belong together in the intervals' draws."""
    outcomes = [ranking.first_rank <= k for k in CUT_OFFS] + [ranking.average_precision, 1 / ranking.first_rank]
    estimates = of_resampled(np.stack(outcomes, axis=1).astype(np.float64), groups[ranking.rows], rng)
    return Retrieval(
        queries=len(ranking.rows),
        candidates=ranking.candidates,
        unanswerable=ranking.asked - len(ranking.rows),
        recall_at=dict(zip(CUT_OFFS, estimates, strict=False)),
        mean_average_precision=estimates[-2],
        mean_reciprocal_rank=estimates[-1],
        median_rank=float(np.median(ranking.first_rank)),
        first_ranks=ranking.first_rank,
    )


def zero_shot(pictures: Vectors, names: Vectors, labels: Rows, rng: np.random.Generator) -> ZeroShot:
    """Each picture against all names; `labels` (n,) are rows of `names`."""
    order = np.argsort(-(pictures @ names.T), axis=1, kind="stable")
    place = (order == labels[:, None]).argmax(1)
    top_1, top_5 = of_resampled(np.stack([place < 1, place < 5], axis=1).astype(np.float64), np.arange(len(labels)), rng)
    confusion: Rows = confusion_matrix(labels, order[:, 0], labels=np.arange(len(names)))
    by_label = tuple(_accuracy(label, row) for label, row in enumerate(confusion) if row.any())
    return ZeroShot(top_1, top_5, by_label, confusion)


def few_shot(
    pictures: Vectors, labels: Rows, rng: np.random.Generator, *, ways: int, shots: int, queries: int, episodes: int
) -> FewShot | None:
    """Prototypical classification (Snell et al., 2017) of frozen vectors: the nearest mean of the shots by Euclidean distance.

    A label takes part that has `shots + queries` pictures; None where fewer than `ways` have.
    """
    of_label = [rows for label in np.unique(labels) if len(rows := np.flatnonzero(labels == label)) >= shots + queries]
    if len(of_label) < ways:
        return None
    accuracies = np.array([_episode(pictures, of_label, rng, (ways, shots, queries)) for _ in range(episodes)])
    return FewShot(len(of_label), of_repeated(accuracies), accuracies)


def nearest_prototype(support: Vectors, query: Vectors) -> Rows:
    """`support` (ways, shots, dim), `query` (n, dim): the way of each query (n,)."""
    prototypes = support.mean(1)
    distances: Vectors = (prototypes**2).sum(1) - 2 * query @ prototypes.T  # less the query's own length
    return np.asarray(distances.argmin(1))


def _episode(pictures: Vectors, of_label: list[Rows], rng: np.random.Generator, shape: tuple[int, int, int]) -> float:
    ways, shots, queries = shape
    chosen = rng.choice(len(of_label), ways, replace=False)
    drawn = np.stack([rng.choice(of_label[label], shots + queries, replace=False) for label in chosen])
    query = pictures[drawn[:, shots:].reshape(-1)]
    return float((nearest_prototype(pictures[drawn[:, :shots]], query) == np.repeat(np.arange(ways), queries)).mean())


def _accuracy(label: int, row: Rows) -> LabelAccuracy:
    wrong = row.copy()
    wrong[label] = 0
    mistaken_for = int(wrong.argmax()) if wrong.any() else None
    return LabelAccuracy(label, int(row.sum()), float(row[label] / row.sum() * 100), mistaken_for)


def _ranked(
    similar: Vectors, right_of: Rows, keys: Rows, own: Rows | None
) -> tuple[Rows, Rows, NDArray[np.float64], Rows, Vectors]:
    """For a block of queries: the columns of a Ranking. `own` are their rows among the candidates, to be left out."""
    if own is not None:
        similar[np.arange(len(own)), own] = -np.inf
    order = np.argsort(-similar, axis=1, kind="stable")[:, : len(keys) - (own is not None)]
    right = keys[order] == right_of[:, None]
    precision = np.cumsum(right, axis=1) / np.arange(1, right.shape[1] + 1)
    first = right.argmax(1)
    top = order[:, :SHOWN]
    return (
        first + 1,
        np.take_along_axis(order, first[:, None], axis=1)[:, 0],
        (precision * right).sum(1) / right.sum(1),
        top,
        np.take_along_axis(similar, top, axis=1),
    )


def _blocks(rows: Rows, candidates: int) -> Iterator[Rows]:
    most = max(1, _AT_ONCE // candidates)
    return (rows[start : start + most] for start in range(0, len(rows), most))
