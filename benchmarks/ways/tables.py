"""What was found, as Markdown: one row a way to ask, one column a kind of question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.ways.questions import Asked, Flags, Measure, Outcomes, Scores, asked_apart, best_on_each_half, estimates, outcomes


@dataclass(frozen=True, slots=True)
class Compared:
    """Ways to ask the same questions. `found[way]` has one array a kind, in the order of `kinds`."""

    kinds: Mapping[str, Asked]
    found: Mapping[str, Sequence[Outcomes]]
    seed: int

    @classmethod
    def of(cls, kinds: Mapping[str, Asked], scores: Mapping[str, Sequence[Scores]], seed: int) -> Compared:
        found = {
            way: [outcomes(asked, each) for asked, each in zip(kinds.values(), scored, strict=True)]
            for way, scored in scores.items()
        }
        return cls(kinds, found, seed)

    def of_kinds(self, names: Sequence[str]) -> Compared:
        places = [list(self.kinds).index(name) for name in names]
        found = {way: [each[place] for place in places] for way, each in self.found.items()}
        return Compared({name: self.kinds[name] for name in names}, found, self.seed)

    def table(self, title: str, *, base: str, shown: Measure = Measure.FOUND, ways: Sequence[str] = ()) -> list[str]:
        """Each way's mean and the interval of what it gains over `base`; where that is nothing, of the mean itself, in brackets."""
        rows = [[way, *self._cells(self.found[way], base, shown)] for way in ways or self.found]
        counts = [f"{name} ({len(asked.right):,})" for name, asked in self.kinds.items()]
        return markdown([title, *counts], rows)

    def held_out(
        self, *, bases: Sequence[str], by: Measure, shown: Measure = Measure.FOUND, deciding: Sequence[str] = ()
    ) -> list[str]:
        """Each half asked in the way that is best on the other half of the `deciding` kinds; what that gains over each of `bases`."""
        judges = self.of_kinds(deciding or list(self.kinds))
        chosen = best_on_each_half(judges.found, judges.halves(), by)
        apart = asked_apart(self.found, self.halves(), chosen)
        rows = [[f"over {base}", *self._cells(apart, base, shown)] for base in bases]
        return [f"Chosen on one half and on the other: {' and '.join(chosen)}.", "", *markdown(["held out", *self.kinds], rows)]

    def halves(self) -> list[Flags]:
        return [asked.half(self.seed) for asked in self.kinds.values()]

    def _cells(self, found: Sequence[Outcomes], base: str, shown: Measure) -> list[str]:
        cells = []
        for asked, here, there in zip(self.kinds.values(), found, self.found[base], strict=True):
            mean, gain = estimates(asked, np.stack([here[:, shown], (here - there)[:, shown]], axis=1), self.seed)
            same = not (here - there)[:, shown].any()
            cells.append(
                f"{mean} [{mean.low:.1f} to {mean.high:.1f}]" if same else f"{mean} ({gain.low:+.1f} to {gain.high:+.1f})"
            )
        return cells


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows), ""]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
