"""Near-duplicates and variety, on vectors whose angles are known."""

from __future__ import annotations

import numpy as np
import pytest

from core.schemas import Vector
from searchsvc.arrangement import Group, arranged


def at(*degrees: float) -> list[Vector]:
    return [np.array([np.cos(angle), np.sin(angle)], np.float32) for angle in np.deg2rad(degrees)]


ALIKE = 15.0
"""The largest angle between near-duplicates, in degrees."""

FROM = float(np.cos(np.deg2rad(ALIKE)))


def test_without_either_everything_stays_in_its_order() -> None:
    assert arranged([3, 2, 1], at(0, 0, 0), [], collapse_from=None, diversity=0) == [Group(0), Group(1), Group(2)]
    assert arranged([], [], [], collapse_from=FROM, diversity=0.5) == []


def test_each_joins_the_best_that_it_is_like_and_nothing_joins_by_way_of_another() -> None:
    step = 0.9 * ALIKE
    vectors = at(0, 90, step, 2 * step, 90 + step)
    found = arranged([5, 4, 3, 2, 1], vectors, [], collapse_from=FROM, diversity=0)
    assert found == [Group(0, (2,)), Group(1, (4,)), Group(3)]


def test_what_was_shown_stays_away_with_all_that_it_stands_for() -> None:
    step = 0.9 * ALIKE
    vectors = at(0, 90, step, 180)
    assert arranged([4, 3, 2, 1], vectors, [0], collapse_from=FROM, diversity=0) == [Group(1), Group(3)]
    assert arranged([4, 3, 2, 1], vectors, [0], collapse_from=None, diversity=0) == [Group(1), Group(2), Group(3)]


@pytest.mark.parametrize(
    ("diversity", "order"),
    [(0.05, [0, 1, 2, 3]), (0.5, [0, 3, 1, 2]), (1, [0, 3, 2, 1])],
)
def test_variety_trades_score_for_difference(diversity: float, order: list[int]) -> None:
    """The second is nearly the first; the third lies apart, the fourth further."""
    found = arranged([0.9, 0.89, 0.7, 0.65], at(0, 5, 40, 90), [], collapse_from=None, diversity=diversity)
    assert [group.index for group in found] == order


def test_variety_means_the_same_for_scores_of_any_scale() -> None:
    vectors = at(0, 5, 40, 90)
    scores = np.array([0.9, 0.89, 0.7, 0.65])
    orders = [
        [group.index for group in arranged(list(scale * scores + shift), vectors, [], collapse_from=None, diversity=0.3)]
        for scale, shift in ((1, 0), (0.1, 0.2), (0.5, -0.9))
    ]
    assert orders[0] == orders[1] == orders[2]


def test_what_was_shown_counts_as_seen() -> None:
    found = arranged([0.9, 0.89, 0.88], at(0, 1, 60), [0], collapse_from=None, diversity=0.5)
    assert [group.index for group in found] == [2, 1]
