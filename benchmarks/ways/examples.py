"""Several examples of a label, and examples of what is not wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.ways.fusion import images
from benchmarks.ways.pairs import summed
from benchmarks.ways.photos import Models, Rows, Vectors
from benchmarks.ways.phrasing import unit
from benchmarks.ways.questions import Asked, Measure
from benchmarks.ways.tables import Compared
from benchmarks.ways.worlds import Clothes

_EXAMPLES = (1, 2, 4, 8)
_DRAWS = 30
"""Of examples, for each label."""
_WEIGHTS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Of what is not wanted."""


def of_label(searched: Clothes, drawn: Sequence[Rows], shown: Vectors | None, words: Vectors | None, count: int) -> Asked:
    """Asks for each draw of a label by its first `count` pictures out of `shown`, by `words`, or by both: a word counts as two pictures."""
    labels = np.repeat(np.arange(len(searched.names)), len(drawn) // len(searched.names))
    pictures = 0 if shown is None else np.stack([shown[rows[:count]].sum(axis=0) for rows in drawn])
    text = 0 if words is None else words[labels] * (1 if shown is None else 2)
    right = labels[:, None] == searched.labels
    return Asked(searched.library, unit(np.asarray(pictures + text)), right, np.zeros_like(right), labels, 10)


def with_unlike(asked: Asked, count: int) -> tuple[Asked, Vectors]:
    """The first `count` wrong ones among the first twenty are named as not wanted, and left out; their direction, 0 where there are none."""
    ignored, away = asked.ignored.copy(), np.zeros_like(asked.queries)
    for row, scores in enumerate(asked.queries @ asked.library.whole.T):
        wrong = [place for place in np.argsort(-scores, kind="stable")[:20] if not asked.right[row, place]][:count]
        if wrong:
            ignored[row, wrong] = True
            away[row] = unit(asked.library.whole[wrong].sum(axis=0))
    return replace(asked, ignored=ignored), away


def section(shown: Clothes, searched: Clothes, models: Models, seed: int) -> list[str]:
    """The label's pictures come from another split than what is searched."""
    chance, words = np.random.default_rng(seed), models.words(searched.names)
    drawn = [
        chance.permutation(np.flatnonzero(shown.labels == label))[: max(_EXAMPLES)]
        for label in range(len(shown.names))
        for _ in range(_DRAWS)
    ]
    pictures = {count: of_label(searched, drawn, shown.library.whole, None, count) for count in _EXAMPLES}
    told = of_label(searched, drawn, None, words, 0)
    both = {count: of_label(searched, drawn, shown.library.whole, words, count) for count in _EXAMPLES}
    ways = {"words": told}
    ways |= {f"{count} examples": asked for count, asked in pictures.items()}
    ways |= {f"{count} examples and words": asked for count, asked in both.items()}
    asking = Compared.of(
        {"right of the first ten": told}, {way: [asked.queries @ asked.library.whole.T] for way, asked in ways.items()}, seed
    )
    kinds = {
        f"{way}, {count} unlike": with_unlike(asked, count)
        for way, asked in (("words", told), ("1 example", pictures[1]), ("4 examples", pictures[4]), ("1 and words", both[1]))
        for count in (1, 4)
    }
    unlike = Compared.of(
        {kind: asked for kind, (asked, _) in kinds.items()},
        {f"{weight:g}": [summed(asked, away, -weight, images) for asked, away in kinds.values()] for weight in _WEIGHTS},
        seed,
    )
    wordy = [kind for kind in kinds if kind.startswith("words")]
    return [
        "## Examples of a label",
        "",
        *asking.table("asked by", base="1 examples", shown=Measure.OF_TEN),
        "## Examples that are not wanted",
        "",
        *unlike.table("their weight", base="0", shown=Measure.OF_TEN),
        *unlike.of_kinds(wordy).held_out(bases=("0", "0.5"), by=Measure.OF_TEN, shown=Measure.OF_TEN),
        *unlike.of_kinds([kind for kind in kinds if kind not in wordy]).held_out(
            bases=("0", "0.5"), by=Measure.OF_TEN, shown=Measure.OF_TEN
        ),
    ]
