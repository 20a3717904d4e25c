"""Simulated people: ratings make results better from round to round, and hostile ones spoil no more than the bound allows.

The numbers on real pictures are in docs/explanation/feedback-that-counts.md.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from benchmarks.feedback_simulation import Options, Round, Simulation, ndcg_at_10
from benchmarks.feedback_worlds import clothing, synthetic

_SEEDS = (0, 1, 2)


@cache
def _runs(hostile: float) -> list[list[Round]]:
    world = synthetic()
    return [Simulation(world, Options(rounds=4, hostile=hostile, seed=seed)).run() for seed in _SEEDS]


def _mean(name: str, hostile: float = 0.0) -> list[float]:
    """By round, over seeds."""
    return [float(np.mean([getattr(run[number], name) for run in _runs(hostile)])) for number in range(5)]


def test_results_get_better_from_round_to_round_for_phrasings_that_nobody_rated() -> None:
    by_round = _mean("ndcg")
    assert by_round == sorted(by_round)
    assert by_round[-1] > by_round[0] + 0.15


def test_pictures_that_no_search_ever_showed_are_found_better_too() -> None:
    by_round = _mean("ndcg_never_shown")
    assert all(later > by_round[0] + 0.1 for later in by_round[1:])


def test_one_hostile_person_in_five_leaves_results_better_than_without_feedback() -> None:
    assert min(_mean("ndcg", 0.2)[1:]) > _mean("ndcg")[0] + 0.1


@pytest.mark.parametrize("hostile", [0.1, 0.2, 0.5])
def test_hostile_people_move_no_query_beyond_the_bound(hostile: float) -> None:
    for run in _runs(hostile):
        for measured in run:
            assert (measured.moved <= measured.allowed + 1e-3).all()
    assert max(measured.moved.max() for run in _runs(hostile) for measured in run) > 1


def test_without_hostile_people_nothing_is_moved_by_them() -> None:
    assert all(measured.moved.max() == 0 for run in _runs(0.0) for measured in run)


def test_ndcg_is_one_for_the_best_order_and_falls_with_each_mistake() -> None:
    assert ndcg_at_10(np.array([3, 2, 1, *[0] * 9])) == 1
    assert ndcg_at_10(np.array([2, 3, 1, *[0] * 9])) == pytest.approx(0.8428, abs=1e-4)
    assert ndcg_at_10(np.array([0] * 10 + [3])) == 0


@pytest.mark.shared
def test_ratings_make_the_starter_model_better_at_real_clothes(shared: Path) -> None:
    rounds = Simulation(clothing(shared), Options(rounds=2)).run()
    assert rounds[2].ndcg > rounds[0].ndcg + 0.05
