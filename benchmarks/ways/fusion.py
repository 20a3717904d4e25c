"""One score of a photo from two: that of the whole picture, w, and that of its best region, s."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.ways.photos import Library, Vectors
from benchmarks.ways.questions import Scores
from searchsvc.ranking import REGION_SHARE

Fusion = Callable[[Scores, Scores], Scores]


def whole_and_best(library: Library, queries: Vectors) -> tuple[Scores, Scores]:
    """Each (queries, photos). A photo without regions has its whole as its best."""
    whole: Scores = queries @ library.whole.T
    best = np.full(whole.T.shape, -np.inf, dtype=np.float32)
    np.maximum.at(best, library.owner, library.regions @ queries.T)
    return whole, np.where(np.isinf(best.T), whole, best.T)


def images(w: Scores, s: Scores) -> Scores:
    return w


def segments(w: Scores, s: Scores) -> Scores:
    return s


def raised(share: float) -> Fusion:
    """That share of the way from w to s where s is more; else w."""
    return lambda w, s: w + np.float32(share) * np.maximum(s - w, 0)


def mixed(share: float) -> Fusion:
    """That share of the way from w to s."""
    return lambda w, s: w + np.float32(share) * (s - w)


def better(less: float) -> Fusion:
    """The better of w and s - less."""
    return lambda w, s: np.maximum(w, s - np.float32(less))


def scaled(by: float) -> Fusion:
    """The better of w and by x s."""
    return lambda w, s: np.maximum(w, np.float32(by) * s)


def normalised(w: Scores, s: Scores) -> Scores:
    """The sum of both, each in standard deviations of what the question sees among all photos."""
    return _standard(w) + _standard(s)


def _standard(scores: Scores) -> Scores:
    return np.asarray((scores - scores.mean(1, keepdims=True)) / scores.std(1, keepdims=True), dtype=np.float32)


SERVED = raised(REGION_SHARE)
"""That of `scope: both`."""

WAYS: dict[str, Fusion] = {
    "images": images,
    "segments": segments,
    "max(w, s)": better(0),
    **{f"max(w, s − {less})": better(less) for less in (0.02, 0.04, 0.06, 0.08, 0.1)},
    **{f"max(w, {by} s)": scaled(by) for by in (0.9, 0.8, 0.7)},
    **{f"w + {share} (s − w)": mixed(share) for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)},
    "z(w) + z(s)": normalised,
    **{f"w + {share} max(0, s − w)": raised(share) for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)},
}
