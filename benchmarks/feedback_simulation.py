"""Do ratings make results better, and how much can hostile ones spoil? Simulated people search, rate with noise, and search again.

    python -m benchmarks.feedback_simulation [--shared ../shared] [--seeds 3]

Each round, some of 40 people ask each question in one of its first three phrasings, among half of the pictures, and rate three of the ten that
they see: what they really think, off by 1.5 on average. What the service learns from it is measured by what nobody was asked: the
other phrasings, the true grades, and in the last columns only pictures that no search ever showed. Hostile people rate the three best of what
they see with 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.feedback_worlds import World, clothing, flickr, synthetic
from core.schemas import Vector
from searchsvc.relevance import NEAR, Judgement, Judgements, bound, direction

_ASKED_PHRASINGS = 3
_SHOWN = 10
_RATED = 3
_NOISE = 1.5
_PEOPLE = 40


@dataclass(frozen=True, slots=True)
class Options:
    rounds: int = 5
    raters: int = 4
    hostile: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """Means over held-out phrasings. `moved` and `allowed`: degrees by which hostile ratings moved queries, and the bound for each."""

    ratings: int
    ndcg: float
    ndcg_never_shown: float
    rotation: float
    moved: NDArray[np.float64]
    allowed: NDArray[np.float64]


class Simulation:
    def __init__(self, world: World, options: Options) -> None:
        self._world = world
        self._options = options
        self._chance = np.random.default_rng(options.seed)
        shown = self._chance.random(len(world.pictures)) < 0.5
        self._searched, self._withheld = np.flatnonzero(shown), np.flatnonzero(~shown)
        hostile = self._chance.permutation(_PEOPLE)[: round(options.hostile * _PEOPLE)]
        self._hostile = {f"person {n}" for n in hostile}
        self._given: list[Judgement] = []
        self._all, self._honest = self._empty(), self._empty()

    def run(self) -> list[Round]:
        """The state before any rating, and after each round."""
        rounds = [self._measured()]
        for _ in range(self._options.rounds):
            for question in range(self._world.questions):
                for person in self._chance.permutation(_PEOPLE)[: self._options.raters]:
                    self._search_and_rate(question, f"person {person}")
            rounds.append(self._measured())
        return rounds

    def _empty(self) -> Judgements:
        return Judgements(self._world.pictures.shape[1], 16_384)

    def _search_and_rate(self, question: int, person: str) -> None:
        asked = int(self._chance.integers(_ASKED_PHRASINGS))
        query = self._world.phrasings[question, asked]
        seen = self._found(self._all.turn(query).vector, self._searched)[:_SHOWN]
        liked = self._world.grades[question, seen] / 3
        if person in self._hostile:
            chosen = np.argsort(-liked, kind="stable")[:_RATED]
            ratings = np.ones(_RATED)
        else:
            chosen = self._chance.permutation(_SHOWN)[:_RATED]
            ratings = np.clip(np.rint(1 + 9 * liked[chosen] + _NOISE * self._chance.normal(size=_RATED)), 1, 10)
        vectors = self._world.pictures[seen]
        for place, rating in zip(chosen, ratings, strict=True):
            pulls = direction(vectors[place], list(vectors))
            self._learn(Judgement(person, f"{question}/{asked}", query, str(seen[place]), int(rating), pulls))

    def _learn(self, judgement: Judgement) -> None:
        self._given.append(judgement)
        self._all.add(judgement)
        if judgement.client not in self._hostile:
            self._honest.add(judgement)

    def _found(self, query: Vector, among: NDArray[np.int64]) -> NDArray[np.int64]:
        return among[np.argsort(-(self._world.pictures[among] @ query), kind="stable")]

    def _measured(self) -> Round:
        everything = np.arange(len(self._world.pictures))
        rows = []
        for question, phrasings in enumerate(self._world.phrasings):
            grades = self._world.grades[question]
            for query in phrasings[_ASKED_PHRASINGS:]:
                turned = self._all.turn(query)
                rows.append(
                    (
                        ndcg_at_10(grades[self._found(turned.vector, everything)]),
                        ndcg_at_10(grades[self._found(turned.vector, self._withheld)]),
                        turned.degrees,
                        np.rad2deg(_angle(turned.vector, self._honest.turn(query).vector)),
                        np.rad2deg(self._bound(query)),
                    )
                )
        ndcg, never_shown, rotation, moved, allowed = np.array(rows, dtype=np.float64).T
        return Round(len(self._given), float(ndcg.mean()), float(never_shown.mean()), float(rotation.mean()), moved, allowed)

    def _bound(self, query: Vector) -> float:
        """`bound` for the voices that are heard at this query, each by its nearness."""
        if not self._given:
            return 0.0
        weights = np.clip((np.stack([judgement.query for judgement in self._given]) @ query - NEAR) / (1 - NEAR), 0, 1)
        people, voice = np.unique([judgement.client for judgement in self._given], return_inverse=True)
        voices = np.zeros(len(people))
        np.maximum.at(voices, voice, weights)
        return bound(float(voices.sum()), float(voices[[str(person) in self._hostile for person in people]].sum()))


def ndcg_at_10(grades: NDArray[np.int64]) -> float:
    """Of all pictures in the order in which they were found; every picture is judged."""
    gains, discounts = 2.0**grades - 1, 1 / np.log2(np.arange(2, 12))
    best = np.sort(gains)[::-1][:10] @ discounts
    return float(gains[:10] @ discounts / best) if best else 1.0


def _angle(one: Vector, other: Vector) -> float:
    return float(2 * np.arcsin(min(1.0, np.linalg.norm(one.astype(np.float64) - other.astype(np.float64)) / 2)))


# --- the table -------------------------------------------------------------------------------------------------------


def table(world: World, seeds: int) -> str:
    """Markdown: rounds without hostile people, then the last round with them; means over seeds."""
    runs = {share: [Simulation(world, Options(hostile=share, seed=seed)).run() for seed in range(seeds)] for share in _SHARES}
    pictures, questions = len(world.pictures), world.questions
    lines = [
        f"\n### {world.name}: {pictures:,} pictures, {questions} questions\n",
        _row(_ROUND_HEAD),
        _row(["---"] * len(_ROUND_HEAD)),
    ]
    lines += [_row([str(number), *_cells(list(of_runs))]) for number, of_runs in enumerate(zip(*runs[0.0], strict=True))]
    lines += ["", _row(_HOSTILE_HEAD), _row(["---"] * len(_HOSTILE_HEAD))]
    for share, of_share in runs.items():
        last = [run[-1] for run in of_share]
        moved, allowed = (np.concatenate([getattr(one, name) for one in last]) for name in ("moved", "allowed"))
        if (moved > allowed + 1e-3).any():
            raise AssertionError("a query moved further than the bound")
        spoiled = [f"{moved.mean():.1f}", f"{moved.max():.1f}", f"{allowed.mean():.1f}", f"{allowed.max():.1f}"]
        lines.append(_row([f"{share:.0%}", *_cells(last)[1:3], *spoiled]))
    return "\n".join(lines)


_SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
_ROUND_HEAD = ["round", "ratings", "nDCG@10", "of pictures never shown", "mean rotation"]
_HOSTILE_HEAD = ["hostile", "nDCG@10", "of pictures never shown", "moved by them, mean", "most", "bound, mean", "largest"]


def _cells(rounds: list[Round]) -> list[str]:
    mean: Callable[[str], float] = lambda name: float(np.mean([getattr(one, name) for one in rounds]))  # noqa: E731
    return [f"{mean('ratings'):.0f}", f"{mean('ndcg'):.3f}", f"{mean('ndcg_never_shown'):.3f}", f"{mean('rotation'):.1f}°"]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="the shared data folder: also measure on real pictures")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(table(synthetic(), options.seeds))
    for world in (clothing, flickr) if options.shared else ():
        print(table(world(options.shared), options.seeds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
