"""What the table of ways to ask is counted with; its numbers are in docs/explanation/ways-to-ask.md."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from benchmarks.ways import fusion
from benchmarks.ways.diversity import alikeness, most_varied, varied
from benchmarks.ways.duplicates import CHANGES, changed, nearest_other, threshold
from benchmarks.ways.examples import with_unlike
from benchmarks.ways.pairs import Known, picture_and_word, picture_without, word_without
from benchmarks.ways.photos import Library, Vectors
from benchmarks.ways.questions import Asked, Measure, asked_apart, best_on_each_half, outcomes
from benchmarks.ways.scopes import overlap
from benchmarks.ways.tables import Compared

_FOUR = np.eye(4, dtype=np.float32)


def _library(whole: Vectors = _FOUR, owner: tuple[int, ...] = (), regions: Vectors | None = None) -> Library:
    found = np.zeros((0, whole.shape[1]), dtype=np.float32) if regions is None else regions
    return Library(whole, found, np.asarray(owner, dtype=np.int64), np.zeros((len(owner), 4), dtype=np.float32))


def _asked(
    right: list[list[int]], ignored: list[list[int]] | None = None, *, groups: list[int] | None = None, within: int = 1
) -> Asked:
    flags = np.asarray(right, dtype=np.bool_)
    unsure = np.zeros_like(flags) if ignored is None else np.asarray(ignored, dtype=np.bool_)
    queries = np.full((len(flags), 4), 0.5, dtype=np.float32)
    return Asked(_library(), queries, flags, unsure, np.asarray(groups or range(len(flags))), within)


def _scores(*rows: list[float]) -> Vectors:
    return np.asarray(rows, dtype=np.float32)


# --- what is counted -------------------------------------------------------------------------------------------------


def test_other_right_photos_above_do_not_count_against_one() -> None:
    found = outcomes(_asked([[1, 1, 0, 0]]), _scores([0.9, 0.8, 0.7, 0.1]))[0]
    assert found[Measure.FOUND] == 1
    assert found[Measure.NEARNESS] == 1
    assert found[Measure.OF_TEN] == 0.5


def test_a_wrong_photo_above_costs_a_rank() -> None:
    found = outcomes(_asked([[1, 1, 0, 0]]), _scores([0.9, 0.6, 0.7, 0.1]))[0]
    assert found[Measure.FOUND] == 0.5
    assert found[Measure.NEARNESS] == 0.75


def test_what_counts_neither_way_is_as_if_it_were_not_there() -> None:
    found = outcomes(_asked([[0, 1, 0, 0]], [[1, 0, 0, 0]]), _scores([0.9, 0.6, 0.5, 0.1]))[0]
    assert found.tolist() == [1, 1, pytest.approx(1 / 3)]


def test_questions_of_one_group_stay_in_one_half_whatever_else_is_asked() -> None:
    many, few = _asked([[1, 0, 0, 0]] * 40, groups=[n // 4 for n in range(40)]), _asked([[1, 0, 0, 0]] * 3, groups=[2, 5, 6])
    halves = [many.half(seed) for seed in range(5)]
    assert all(half[start : start + 4].sum() in {0, 4} for half in halves for start in range(0, 40, 4))
    assert all(few.half(seed).tolist() == half[[8, 20, 24]].tolist() for seed, half in enumerate(halves))
    assert any((half != halves[0]).any() for half in halves)


def test_a_way_is_chosen_on_other_questions_than_it_is_told_for() -> None:
    half = np.asarray([True, True, False, False])
    found = {"good on the half": [_column(1, 1, 0, 0)], "good on what is left": [_column(0, 0, 1, 1)]}
    chosen = best_on_each_half(found, [half], Measure.FOUND)
    assert chosen == ("good on the half", "good on what is left")
    assert asked_apart(found, [half], chosen)[0][:, Measure.FOUND].tolist() == [0, 0, 0, 0]
    assert asked_apart(found, [half], (chosen[1], chosen[0]))[0][:, Measure.FOUND].tolist() == [1, 1, 1, 1]


def _column(*values: float) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.repeat(np.asarray(values, dtype=np.float64)[:, None], len(Measure), axis=1)


def test_a_table_has_the_mean_of_each_way_and_what_it_gains() -> None:
    asked = _asked([[1, 0, 0, 0]] * 4)
    worse, better = _scores(*[[0.1, 0.2, 0.3, 0.4]] * 4), _scores(*[[0.9, 0.2, 0.3, 0.4]] * 4)
    table = Compared.of({"names": asked}, {"old": [worse], "new": [better]}, 0).table("way", base="old")
    assert table[0] == "| way | names (4) |"
    assert table[2:4] == ["| old | 0.0 [0.0 to 0.0] |", "| new | 100.0 (+100.0 to +100.0) |"]


# --- one score from two ----------------------------------------------------------------------------------------------


def test_a_photo_counts_by_its_best_region_and_one_without_regions_by_its_whole() -> None:
    library = _library(_FOUR[:3], (0, 0, 2), _FOUR[[1, 3, 3]])
    w, s = fusion.whole_and_best(library, _scores([0.1, 0.2, 0.3, 0.4]))
    assert w[0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert s[0].tolist() == pytest.approx([0.4, 0.2, 0.4])


_cosines = arrays(np.float32, (3, 5), elements=st.floats(-1, 1, width=32))


@given(_cosines, _cosines, st.floats(0, 1), st.floats(0, 0.5))
def test_the_served_score_lies_between_the_whole_and_the_better_and_rises_with_both(
    w: Vectors, s: Vectors, more_w: float, more_s: float
) -> None:
    score = fusion.SERVED(w, s)
    assert (score >= w).all()
    assert (score <= np.maximum(w, s) + 1e-6).all()
    assert (fusion.SERVED(w + np.float32(more_w), s + np.float32(more_s)) >= score - 1e-6).all()


def test_the_other_ways_to_one_score_are_what_they_are_called() -> None:
    w, s = _scores([0.2, 0.5]), _scores([0.4, 0.3])
    expected: dict[str, list[list[float]] | Vectors] = {
        "images": w,
        "segments": s,
        "max(w, s)": [[0.4, 0.5]],
        "w + 0.5 (s − w)": [[0.3, 0.4]],
        "max(w, 0.7 s)": [[0.28, 0.5]],
    }
    assert all(np.allclose(fusion.WAYS[name](w, s), scores) for name, scores in expected.items())
    assert np.allclose(fusion.WAYS["z(w) + z(s)"](w, s), 0, atol=1e-5)


# --- questions of several terms --------------------------------------------------------------------------------------

_THERE = np.asarray([[1, 1, 1, 0], [1, 0, 1, 1]], dtype=np.bool_)
_KNOWN = Known(_library(), _THERE, np.zeros_like(_THERE), _FOUR[:2])


def test_a_picture_of_one_thing_and_the_word_of_another_ask_for_both() -> None:
    composed = picture_and_word(_KNOWN, least=2, seed=0)
    assert composed.asked.queries.tolist() == _FOUR[[1, 3]].tolist()
    assert composed.second.tolist() == _FOUR[[1, 0]].tolist()
    assert composed.asked.right.tolist() == [[True, False, True, False]] * 2
    assert composed.asked.ignored.tolist() == [[False, True, False, False], [False, False, False, True]]


def test_a_word_without_another_asks_for_photos_with_the_one_alone() -> None:
    composed = word_without(_KNOWN, least=1)
    assert composed.asked.right.tolist() == [[False, True, False, False], [False, False, False, True]]
    assert composed.has_second.tolist() == [_THERE[1].tolist(), _THERE[0].tolist()]


def test_a_picture_of_both_without_the_word_of_one_is_not_its_own_answer() -> None:
    composed = picture_without(_KNOWN, least=1, seed=0)
    assert not (composed.asked.right & composed.has_second).any()
    assert composed.asked.ignored.any(axis=1).all()
    assert sorted(composed.asked.queries.argmax(axis=1).tolist()) == [0, 0, 2, 2]


def test_the_first_wrong_hits_are_named_as_unlike_and_count_no_more() -> None:
    asked = Asked(
        _library(),
        _scores([0.4, 0.8, 0.3, 0.2]),
        np.asarray([[1, 0, 0, 0]], dtype=np.bool_),
        np.zeros((1, 4), dtype=np.bool_),
        np.zeros(1, dtype=np.int64),
        1,
    )
    named, away = with_unlike(asked, 1)
    assert named.ignored.tolist() == [[False, True, False, False]]
    assert away.tolist() == [[0, 1, 0, 0]]


# --- duplicates and diversity ----------------------------------------------------------------------------------------


def test_the_nearest_other_photo_is_never_the_photo_itself() -> None:
    assert nearest_other(_scores([1, 0], [0.6, 0.8], [0, 1])).tolist() == pytest.approx([0.6, 0.8, 0.8])


def test_the_threshold_is_the_lowest_at_which_every_set_is_right() -> None:
    quiet, crowded = np.full(200, 0.5, dtype=np.float32), np.full(200, 0.5, dtype=np.float32)
    crowded[:3] = 0.915
    assert threshold({"quiet": quiet}) == 0.85
    assert threshold({"quiet": quiet, "crowded": crowded}) == 0.92
    assert threshold({"same": np.ones(10, dtype=np.float32)}) == 1.0


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_photo_is_still_a_photo(change: str) -> None:
    stored = io.BytesIO()
    Image.linear_gradient("L").resize((120, 90)).convert("RGB").save(stored, "JPEG")
    with Image.open(io.BytesIO(changed(stored.getvalue(), change))) as image:
        assert image.format == "JPEG"
        assert min(image.size) >= 45
    assert changed(stored.getvalue(), change) != stored.getvalue()


def test_without_diversity_the_order_is_that_of_the_scores_and_with_much_a_twin_comes_last() -> None:
    vectors = _scores([1, 0], [1, 0], [0, 1])
    scores = np.asarray([0.9, 0.8, 0.3], dtype=np.float32)
    assert varied(scores, vectors, 0).tolist() == [0, 1, 2]
    assert varied(scores, vectors, 0.5).tolist() == [0, 2, 1]
    assert alikeness(vectors[[0, 1]]) == 1
    assert alikeness(vectors[[0, 2]]) == 0


def test_as_much_variety_is_chosen_as_loses_little() -> None:
    all_found, few_lost, many_lost = np.ones(100, dtype=np.bool_), np.arange(100) >= 2, np.arange(100) >= 10
    assert most_varied({0.0: all_found, 0.2: few_lost, 0.5: many_lost}) == 0.2


def test_boxes_overlap_by_what_they_share() -> None:
    one = np.asarray([0, 0, 2, 2])
    assert overlap(one, one) == 1
    assert overlap(one, np.asarray([1, 0, 3, 2])) == pytest.approx(1 / 3)
    assert overlap(one, np.asarray([5, 5, 6, 6])) == 0
