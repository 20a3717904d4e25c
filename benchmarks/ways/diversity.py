"""What variety costs, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.ways.photos import Models, Rows, Vectors
from benchmarks.ways.phrasing import by_labels
from benchmarks.ways.questions import Asked, Flags, Scores
from benchmarks.ways.scopes import captions, names, nouns
from benchmarks.ways.tables import markdown
from benchmarks.ways.worlds import Clothes, Coco, Flickr
from searchsvc.arrangement import POOL, arranged

DIVERSITIES = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75)
MOST_LOST = 0.02
"""Of the captions' photos, those that variety may push out of the first ten."""
_CAPTIONS = 1000


def varied(scores: Scores, vectors: Vectors, diversity: float) -> Rows:
    """The first ten, as the service arranges the best."""
    rows: Rows = np.argsort(-scores, kind="stable")[:POOL]
    order = arranged([float(score) for score in scores[rows]], list(vectors[rows]), (), collapse_from=None, diversity=diversity)
    return rows[[group.index for group in order[:10]]]


def alikeness(vectors: Vectors) -> float:
    """The mean cosine of any two of them."""
    return float((np.sum(vectors @ vectors.T) - len(vectors)) / (len(vectors) * (len(vectors) - 1)))


def most_varied(found: Mapping[float, Flags]) -> float:
    """The most diversity that leaves all but `MOST_LOST` of what is found without any; `found` has one flag a question."""
    return max(diversity for diversity, flags in found.items() if flags.mean() >= found[0.0].mean() - MOST_LOST)


def section(coco: Coco, flickr: Flickr, clothes: Clothes, models: Models, seed: int) -> list[str]:
    kinds = {
        "clothing labels": by_labels(clothes, models.words(clothes.names)),
        "COCO names": names(coco, models.words(coco.categories)),
        "Flickr8k nouns": nouns(flickr, models.words(flickr.nouns)),
    }
    told = captions(flickr.library, flickr.captions, models, within=10)
    some = np.sort(np.random.default_rng(seed).permutation(len(told.queries))[:_CAPTIONS])
    found = {
        diversity: np.asarray([told.group[row] in _first_ten(told, row, diversity) for row in some]) for diversity in DIVERSITIES
    }
    rows = []
    for diversity in DIVERSITIES:
        tops = {kind: [_first_ten(asked, row, diversity) for row in range(len(asked.queries))] for kind, asked in kinds.items()}
        labels = np.mean([len(np.unique(clothes.labels[top])) for top in tops["clothing labels"]])
        cells = [_cell(asked, tops[kind]) for kind, asked in kinds.items()]
        rows.append([f"{diversity:g}", *cells, f"{labels:.1f}", f"{found[diversity].mean():.1%}"])
    return [
        "## Diversity",
        "",
        *_held_out(found, told.half(seed)[some]),
        "Right of the first ten, and the mean cosine between those ten.",
        "",
        *markdown(
            ["diversity", *kinds, "clothing: labels among the ten", f"{_CAPTIONS:,} Flickr8k captions: found in ten"], rows
        ),
    ]


def _first_ten(asked: Asked, row: int, diversity: float) -> Rows:
    return varied(asked.library.whole @ asked.queries[row], asked.library.whole, diversity)


def _cell(asked: Asked, tops: Sequence[Rows]) -> str:
    """Photos that count neither way are left out."""
    known = zip(asked.right, ~asked.ignored, tops, strict=True)
    right = np.mean([right[top].sum() / max(1, sure[top].sum()) for right, sure, top in known])
    return f"{right:.1%}, {np.mean([alikeness(asked.library.whole[top]) for top in tops]):.3f}"


def _held_out(found: Mapping[float, Flags], half: Flags) -> list[str]:
    chosen, lost = list[str](), list[str]()
    for side in (half, ~half):
        best = most_varied({diversity: flags[side] for diversity, flags in found.items()})
        chosen.append(f"{best:g}")
        lost.append(f"{found[0.0][~side].mean() - found[best][~side].mean():.1%}")
    return [
        f"Chosen on one half of the captions and on the other: {' and '.join(chosen)}. Lost on what is left: {' and '.join(lost)}.",
        "",
    ]
