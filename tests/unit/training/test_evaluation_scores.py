from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import NearestCentroid
from torchmetrics.functional.retrieval import retrieval_average_precision, retrieval_hit_rate, retrieval_reciprocal_rank

from training.evaluation import scores
from training.evaluation.intervals import draws, of_repeated, of_resampled
from training.evaluation.scores import NothingRight, Vectors


def unit(*degrees: float) -> Vectors:
    """Vectors on the unit circle: the nearer the angles, the more similar."""
    angles = np.radians(np.array(degrees, dtype=np.float32))
    return np.array([np.cos(angles), np.sin(angles)], dtype=np.float32).T


def cloud(rng: np.random.Generator, count: int, dim: int = 8) -> Vectors:
    vectors = rng.normal(size=(count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def test_a_ranking_by_hand() -> None:
    ranking = scores.rank(unit(0, 50), unit(1, 4, 10, 60), np.array([7, 8]), np.array([8, 7, 8, 7]))

    assert ranking.rows.tolist() == [0, 1]
    assert ranking.first_rank.tolist() == [2, 2]
    assert ranking.first_right.tolist() == [1, 2]
    assert ranking.average_precision.tolist() == [(1 / 2 + 2 / 4) / 2, (1 / 2 + 2 / 4) / 2]
    assert ranking.top.tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]
    assert ranking.top_scores[0, 0] == pytest.approx(np.cos(np.radians(1)))
    assert (ranking.asked, ranking.candidates) == (2, 4)


def test_a_picture_is_never_its_own_hit_when_it_is_left_out() -> None:
    pictures, labels = unit(0, 1, 2, 90), np.array([5, 6, 5, 6])

    ranking = scores.rank(pictures, pictures, labels, labels, leave_one_out=True)

    assert ranking.candidates == 3
    assert all(row not in top for row, top in zip(ranking.rows.tolist(), ranking.top.tolist(), strict=True))
    assert ranking.first_rank.tolist() == [2, 3, 2, 2]


def test_queries_with_nothing_to_find_are_left_out_and_counted() -> None:
    pictures, labels = unit(0, 1, 2), np.array([5, 5, 6])

    ranking = scores.rank(pictures, pictures, labels, labels, leave_one_out=True)

    assert ranking.rows.tolist() == [0, 1]
    assert scores.retrieval(ranking, np.arange(3), draws(0, "")).unanswerable == 1
    with pytest.raises(NothingRight):
        scores.rank(pictures, pictures, np.array([1, 2, 3]), np.array([4, 5, 6]))


def test_retrieval_scores_by_hand() -> None:
    candidates = unit(*range(0, 40, 2))
    ranking = scores.rank(unit(0, 0, 0, 0), candidates, np.array([0, 4, 5, 19]), np.arange(20))

    found = scores.retrieval(ranking, np.arange(4), draws(0, ""))

    assert ranking.first_rank.tolist() == [1, 5, 6, 20]
    assert [share.mean for share in found.recall_at.values()] == [25, 50, 75]
    assert found.mean_reciprocal_rank.mean == pytest.approx((1 + 1 / 5 + 1 / 6 + 1 / 20) / 4 * 100)
    assert found.mean_average_precision.mean == pytest.approx(found.mean_reciprocal_rank.mean)  # one right answer each
    assert found.median_rank == 5.5
    assert (found.queries, found.candidates, found.unanswerable) == (4, 20, 0)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_ranks_agree_with_torchmetrics(leave_one_out: bool) -> None:
    rng = np.random.default_rng(3)
    pictures, labels = cloud(rng, 60), rng.integers(0, 7, 60)
    queries, wanted = (pictures, labels) if leave_one_out else (cloud(rng, 40), rng.integers(0, 7, 40))

    ranking = scores.rank(queries, pictures, wanted, labels, leave_one_out=leave_one_out)

    assert len(ranking.rows) == len(queries)
    for place, row in enumerate(ranking.rows):
        kept = np.arange(60) != row if leave_one_out else np.ones(60, dtype=bool)
        similar = torch.from_numpy(pictures[kept] @ queries[row]).double() + 2  # torchmetrics takes what is below 0 for not found
        right = torch.from_numpy(labels[kept] == wanted[row])
        assert ranking.average_precision[place] == pytest.approx(float(retrieval_average_precision(similar, right)), abs=1e-6)
        assert 1 / ranking.first_rank[place] == pytest.approx(float(retrieval_reciprocal_rank(similar, right)), abs=1e-6)
        for k in scores.CUT_OFFS:
            assert (ranking.first_rank[place] <= k) == bool(retrieval_hit_rate(similar, right, top_k=k))


def test_blocks_of_queries_are_ranked_as_if_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    pictures, labels = cloud(rng, 50), rng.integers(0, 5, 50)
    whole = scores.rank(pictures, pictures, labels, labels, leave_one_out=True)

    monkeypatch.setattr(scores, "_AT_ONCE", 7 * 50)
    blocks = scores.rank(pictures, pictures, labels, labels, leave_one_out=True)

    assert blocks.first_rank.tolist() == whole.first_rank.tolist()
    assert blocks.top.tolist() == whole.top.tolist()


def test_five_thousand_captions_and_a_thousand_pictures_take_seconds() -> None:
    rng = np.random.default_rng(5)
    texts, pictures, owner = cloud(rng, 5000, 512), cloud(rng, 1000, 512), np.repeat(np.arange(1000), 5)
    began = time.process_time()

    found = scores.retrieval(scores.rank(texts, pictures, owner, np.arange(1000)), owner, rng)

    assert found.recall_at[10].mean == pytest.approx(1, abs=0.7)  # chance
    assert time.process_time() - began < 10


def test_a_collapsed_model_scores_no_better_than_chance() -> None:
    same = unit(*[0] * 20)

    found = scores.retrieval(scores.rank(same, same, np.arange(20), np.arange(20)), np.arange(20), draws(0, ""))

    assert found.recall_at[1].mean == 5


def test_an_interval_is_that_of_scipys_bootstrap() -> None:
    outcomes = np.random.default_rng(6).random(300)

    (ours,) = of_resampled(outcomes[:, None], np.arange(300), draws(1, ""))
    theirs = stats.bootstrap((outcomes,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1))

    assert ours.mean == pytest.approx(outcomes.mean() * 100)
    assert ours.low == pytest.approx(theirs.confidence_interval.low * 100, abs=0.4)
    assert ours.high == pytest.approx(theirs.confidence_interval.high * 100, abs=0.4)


def test_what_belongs_together_is_drawn_together() -> None:
    once = np.random.default_rng(7).random(100)

    (alone,) = of_resampled(once[:, None], np.arange(100), draws(1, ""))
    (copied,) = of_resampled(np.repeat(once, 5)[:, None], np.repeat(np.arange(100), 5), draws(1, ""))
    (counted,) = of_resampled(np.repeat(once, 5)[:, None], np.arange(500), draws(1, ""))

    assert copied.low == pytest.approx(alone.low)
    assert copied.high == pytest.approx(alone.high)
    assert counted.high - counted.low < 0.6 * (copied.high - copied.low)


def test_the_interval_of_repetitions_is_students() -> None:
    found = of_repeated(np.array([0.5, 0.7, 0.9]))

    assert found.mean == pytest.approx(70)
    assert found.high - found.mean == pytest.approx(4.302653 * 20 / np.sqrt(3), abs=1e-4)  # t of two degrees of freedom


def test_zero_shot_by_hand() -> None:
    names = unit(0, 30, 60, 90, 120, 150, 180)

    found = scores.zero_shot(unit(2, 40, 50, 178), names, np.array([0, 1, 1, 0]), draws(0, ""))

    assert (found.top_1.mean, found.top_5.mean) == (50, 75)
    assert found.confusion[0].tolist() == [1, 0, 0, 0, 0, 0, 1]
    assert found.confusion[1].tolist() == [0, 1, 1, 0, 0, 0, 0]
    assert [(row.label, row.pictures, row.top_1, row.mistaken_for) for row in found.by_label] == [(0, 2, 50, 6), (1, 2, 50, 2)]


def test_prototypes_are_nearest_centroids() -> None:
    rng = np.random.default_rng(8)
    support, query = cloud(rng, 15).reshape(5, 3, 8), cloud(rng, 40)
    theirs = NearestCentroid().fit(support.reshape(15, 8), np.repeat(np.arange(5), 3))

    assert scores.nearest_prototype(support, query).tolist() == theirs.predict(query).tolist()


def test_few_shot_is_perfect_on_labels_apart_and_chance_on_noise() -> None:
    rng, labels = np.random.default_rng(9), np.repeat(np.arange(6), 8)
    apart = unit(*(labels * 60 + rng.uniform(-5, 5, 48)))

    easy = scores.few_shot(apart, labels, draws(0, ""), ways=3, shots=2, queries=4, episodes=20)
    noise = scores.few_shot(cloud(rng, 48), labels, draws(0, ""), ways=3, shots=2, queries=4, episodes=300)

    assert easy is not None
    assert (easy.labels, easy.accuracy.mean) == (6, 100)
    assert noise is not None
    assert noise.accuracy.mean == pytest.approx(100 / 3, abs=6)
    assert noise.accuracy.low < noise.accuracy.mean < noise.accuracy.high


def test_few_shot_takes_labels_with_pictures_enough_only() -> None:
    labels = np.array([0] * 6 + [1] * 6 + [2] * 5)

    def measured(ways: int) -> scores.FewShot | None:
        pictures = unit(*(labels * 90.0))
        return scores.few_shot(pictures, labels, draws(0, ""), ways=ways, shots=2, queries=4, episodes=5)

    two = measured(2)
    assert two is not None
    assert two.labels == 2
    assert measured(3) is None


def test_a_purpose_and_a_seed_have_draws_of_their_own() -> None:
    assert draws(1, "a").random() == draws(1, "a").random()
    assert len({draws(seed, purpose).random() for seed in (1, 2) for purpose in ("a", "b")}) == 4
