from __future__ import annotations

import numpy as np
import pytest

from model_service.exporting import agreement
from model_service.exports import Agreement
from model_service.parts import Instance
from model_service.towers import normalised


def vectors(count: int = 200, dim: int = 32) -> np.ndarray:
    return normalised(np.random.default_rng(0).normal(size=(count, dim)))


def instance(left: int, *, label: str = "dog", score: float = 0.9) -> Instance:
    mask = np.zeros((40, 100), dtype=np.bool_)
    mask[:, left : left + 40] = True
    return Instance(label, score, (float(left), 0.0, 40.0, 40.0), mask, 0.4)


def test_small_noise_agrees_and_large_does_not() -> None:
    exact = vectors()
    noise = np.random.default_rng(1).normal(size=exact.shape) / np.sqrt(32)

    near = agreement.of_embeddings(exact, normalised(exact + 0.02 * noise))
    far = agreement.of_embeddings(exact, normalised(exact + 0.5 * noise))

    assert near.kept == 1
    assert agreement.refusal("images", near) is None
    assert "cosine" in (agreement.refusal("images", far) or "")


def test_cosines_near_one_are_no_excuse_when_neighbours_are_lost() -> None:
    """Embeddings of one model often lie in a narrow cone, where a cosine of 0.99 means little."""
    cone = normalised(np.ones(32) * 10 + np.random.default_rng(0).normal(size=(200, 32)))
    other = normalised(np.ones(32) * 10 + np.random.default_rng(1).normal(size=(200, 32)))

    found = agreement.of_embeddings(cone, other)

    assert found.mean > 0.98
    assert "neighbours" in (agreement.refusal("images", found) or "")


@pytest.mark.parametrize(
    ("compared", "lost", "agrees"), [(48, 1, True), (48, 2, False), (128, 1, True), (128, 2, False), (500, 5, True)]
)
def test_one_nearest_neighbour_in_a_hundred_may_be_lost_and_one_of_fewer(compared: int, lost: int, agrees: bool) -> None:
    found = Agreement(compared=compared, mean=0.999, least=0.99, kept=1 - lost / compared)

    assert (agreement.refusal("images", found) is None) is agrees


def test_numbers_that_are_none_are_refused() -> None:
    broken = np.full_like(vectors(), np.nan)

    assert agreement.refusal("images", agreement.of_embeddings(vectors(), broken)) is not None


def test_segments_agree_by_their_masks_and_labels_whatever_is_uncertain() -> None:
    exact = [[instance(0), instance(50, label="cat")], [instance(10)]]
    close = [[instance(0), instance(50, label="cat"), instance(20, score=0.3)], [instance(11)]]

    found = agreement.of_segments(exact, close)

    assert agreement.refusal("segments", found) is None
    assert found.kept == 1
    assert found.least == pytest.approx(39 / 41)


@pytest.mark.parametrize(
    "other", [[[instance(0)]], [[instance(0), instance(50)]], [[instance(0), instance(50, label="cat"), instance(60)]]]
)
def test_a_segment_that_is_lost_mislabelled_or_made_up_counts_against(other: list[list[Instance]]) -> None:
    found = agreement.of_segments([[instance(0), instance(50, label="cat")]], other)

    assert found.kept < 0.95
    assert "found again" in (agreement.refusal("segments", found) or "")


def test_pictures_without_segments_prove_nothing() -> None:
    assert agreement.refusal("segments", agreement.of_segments([[]], [[]])) == "there was nothing to compare"
