"""Ratings turn queries, and nobody turns them further than the bound says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.schemas import Vector
from searchsvc.relevance import (
    LARGEST_ROTATION,
    NEAR,
    SHRINKAGE,
    Judgement,
    Judgements,
    bound,
    direction,
    preference,
)

DIM = 8
_TOLERANCE = 1e-5
"""Radians: the vectors are float32."""


def _unit(numbers: NDArray[np.floating]) -> Vector:
    return np.asarray(numbers / np.linalg.norm(numbers), dtype=np.float32)


def _angle(one: Vector, other: Vector) -> float:
    """Exact for small angles, where the arc cosine of float32 is not."""
    return float(2 * np.arcsin(min(1.0, np.linalg.norm(one.astype(np.float64) - other.astype(np.float64)) / 2)))


def _near(query: Vector, chance: np.random.Generator, spread: float) -> Vector:
    return _unit(query + spread * chance.normal(size=DIM) / np.sqrt(DIM))


def _held(judgements: list[Judgement], capacity: int = 512) -> Judgements:
    held = Judgements(DIM, capacity)
    for judgement in judgements:
        held.add(judgement)
    return held


def _random(chance: np.random.Generator, query: Vector, client: str, ratings: int) -> list[Judgement]:
    return [
        Judgement(
            client=client,
            asked=f"question {chance.integers(3)}",
            query=_near(query, chance, chance.choice([0.0, 0.2, 0.5, 1.5])),
            picture=f"picture {chance.integers(5)}",
            rating=int(chance.integers(1, 11)),
            direction=np.asarray(chance.normal(size=DIM) * chance.choice([0.01, 0.3, 2.0]), dtype=np.float32),
        )
        for _ in range(ratings)
    ]


def _agreed(chance: np.random.Generator, query: Vector, towards: Vector, client: str, rating: int) -> list[Judgement]:
    """The strongest that one client can say: two of its ratings, all of them the same way."""
    return [Judgement(client, f"{client} {n}", query, f"{n}", rating, np.float32(2) * towards) for n in range(2)]


_SEED = st.integers(0, 2**32 - 1)


@given(seed=_SEED, clients=st.integers(0, 12), ratings=st.integers(1, 20))
@settings(max_examples=150, deadline=None)
def test_no_query_turns_as_far_as_the_largest_rotation(seed: int, clients: int, ratings: int) -> None:
    chance = np.random.default_rng(seed)
    query = _unit(chance.normal(size=DIM))
    judgements = [judgement for n in range(clients) for judgement in _random(chance, query, f"client {n}", ratings)]
    turned = _held(judgements).turn(query)
    assert np.linalg.norm(turned.vector) == pytest.approx(1, abs=1e-5)
    assert _angle(turned.vector, query) <= LARGEST_ROTATION * clients / (clients + SHRINKAGE) + _TOLERANCE
    assert turned.rotation == pytest.approx(_angle(turned.vector, query), abs=1e-4)
    assert turned.clients <= clients


@given(seed=_SEED, honest=st.integers(0, 8), hostile=st.integers(1, 8), ratings=st.integers(1, 10), agreed=st.booleans())
@settings(max_examples=200, deadline=None)
def test_hostile_clients_move_nobody_further_than_the_bound(
    seed: int, honest: int, hostile: int, ratings: int, agreed: bool
) -> None:
    """Whether the hostile rate at random, or all of them as one against what the honest agree on."""
    chance = np.random.default_rng(seed)
    query, towards = _unit(chance.normal(size=DIM)), _unit(chance.normal(size=DIM))
    if agreed:
        good = [judgement for n in range(honest) for judgement in _agreed(chance, query, towards, f"good {n}", 10)]
        bad = [judgement for n in range(hostile) for judgement in _agreed(chance, query, -towards, f"bad {n}", 10)]
    else:
        good = [judgement for n in range(honest) for judgement in _random(chance, query, f"good {n}", ratings)]
        bad = [judgement for n in range(hostile) for judgement in _random(chance, query, f"bad {n}", ratings)]
    without, with_them = _held(good), _held(good + bad)
    moved = _angle(with_them.turn(query).vector, without.turn(query).vector)
    heard = honest if agreed else _heard(good, query)
    assert moved <= bound(heard + hostile, hostile) + _TOLERANCE


def _heard(judgements: list[Judgement], query: Vector) -> float:
    """Voices by their nearness: what n means in the bound where ratings are of near-same queries only."""
    last = {(judgement.client, judgement.asked, judgement.picture): judgement for judgement in judgements}
    nearest: dict[str, float] = {}
    for judgement in last.values():
        weight = float(np.clip((judgement.query @ query - NEAR) / (1 - NEAR), 0, 1))
        nearest[judgement.client] = max(nearest.get(judgement.client, 0.0), weight)
    return sum(nearest.values())


def test_the_bound_is_nearly_reached_so_it_says_something() -> None:
    chance = np.random.default_rng(7)
    query = _unit(np.eye(DIM)[0])
    towards = _unit(np.eye(DIM)[1])
    good = [judgement for n in range(50) for judgement in _agreed(chance, query, towards, f"good {n}", 10)]
    bad = _agreed(chance, query, -towards, "bad", 10)
    moved = _angle(_held(good + bad).turn(query).vector, _held(good).turn(query).vector)
    assert 0.9 * bound(51, 1) < moved <= bound(51, 1)


@given(cosine=st.floats(-1, NEAR), seed=_SEED)
@settings(max_examples=50, deadline=None)
def test_a_query_that_is_not_near_a_rated_one_does_not_turn(cosine: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    held = _held([_one(picture=f"{n}", rating=int(chance.integers(1, 11)), axis=int(chance.integers(1, DIM))) for n in range(20)])
    asked = _unit(np.array([cosine - 1e-6, np.sqrt(max(0.0, 1 - cosine**2)), 0, 0, 0, 0, 0, 0]))
    turned = held.turn(asked)
    assert turned.vector is asked
    assert (turned.rotation, turned.judgements) == (0.0, 0)


@given(seed=_SEED)
@settings(max_examples=100, deadline=None)
def test_a_score_changes_by_no_more_than_the_chord_of_the_rotation(seed: int) -> None:
    chance = np.random.default_rng(seed)
    query, picture = _unit(chance.normal(size=DIM)), _unit(chance.normal(size=DIM))
    turned = _held([j for n in range(5) for j in _random(chance, query, f"{n}", 4)]).turn(query)
    assert abs(float(turned.vector @ picture) - float(query @ picture)) <= 2 * np.sin(turned.rotation / 2) + 1e-5


def _one(client: str = "a", *, rating: int = 10, picture: str = "p", asked: str = "q", axis: int = 1) -> Judgement:
    return Judgement(client, asked, _unit(np.eye(DIM)[0]), picture, rating, _unit(np.eye(DIM)[axis]))


QUERY = _unit(np.eye(DIM)[0])


def test_a_liked_picture_comes_nearer_and_a_disliked_one_goes() -> None:
    liked, disliked = _held([_one(rating=10)]).turn(QUERY), _held([_one(rating=1)]).turn(QUERY)
    assert liked.vector[1] > 0 > disliked.vector[1]
    assert liked.rotation > disliked.rotation
    assert (liked.judgements, liked.clients) == (1, 1)


def test_ratings_rise_in_what_they_say_and_the_middle_says_least() -> None:
    said = [preference(rating) for rating in range(1, 11)]
    assert said == sorted(said)
    assert (said[0], said[-1]) == (-0.5, 1.0)
    assert max(abs(said[4]), abs(said[5])) < 0.12


def test_the_last_rating_of_a_picture_for_a_question_counts_alone() -> None:
    twice = _held([_one(rating=1), _one(rating=10)])
    assert len(twice) == 1
    assert np.array_equal(twice.turn(QUERY).vector, _held([_one(rating=10)]).turn(QUERY).vector)


def test_a_client_has_one_voice_however_much_it_rates() -> None:
    many = _held([_one(picture=f"{n}", asked=f"{n % 7}") for n in range(300)])
    assert many.turn(QUERY).rotation == pytest.approx(LARGEST_ROTATION / (1 + SHRINKAGE), abs=1e-5)
    assert _held([_one("a"), _one("b")]).turn(QUERY).rotation > many.turn(QUERY).rotation


def test_nothing_jumps_where_a_query_ceases_to_be_near() -> None:
    held = _held([_one()])
    rotations = []
    for cosine in (1.0, 0.95, NEAR + 0.001, NEAR - 0.001):
        asked = _unit(np.array([cosine, 0, np.sqrt(1 - cosine**2), 0, 0, 0, 0, 0]))
        rotations.append(held.turn(asked).rotation)
    assert rotations == sorted(rotations, reverse=True)
    assert rotations[2] < np.deg2rad(0.1)
    assert rotations[3] == 0


def test_who_holds_most_gives_up_its_oldest_when_there_is_no_room() -> None:
    held = _held([_one("quiet"), *(_one("loud", picture=f"{n}") for n in range(20))], capacity=5)
    assert len(held) == 5
    assert held.turn(QUERY).clients == 2
    only_loud = _held([_one("loud", picture=f"{n}", axis=1 + (n == 9)) for n in range(10)], capacity=1)
    assert only_loud.turn(QUERY).vector[2] > 0
    assert only_loud.turn(QUERY).vector[1] == 0


def test_as_many_clients_as_there_is_room_for_may_come_and_go() -> None:
    held = _held([_one(f"client {n}") for n in range(50)], capacity=4)
    assert (len(held), held.turn(QUERY).clients) == (4, 4)


def test_what_all_shown_pictures_share_pulls_nothing() -> None:
    shared = np.array([0, 5, 0, 0, 0, 0, 0, 0], dtype=np.float32)
    one, other = (_unit(shared + np.eye(DIM)[axis]) for axis in (2, 3))
    assert direction(one, [one, other])[1] == pytest.approx(0, abs=1e-6)
    assert direction(one, [one, other])[2] > 0 > direction(one, [one, other])[3]
    assert np.array_equal(direction(one, [one]), one)


def test_ratings_that_cancel_out_leave_the_query_as_it_is() -> None:
    opposite = Judgement("b", "q", QUERY, "p", 10, -_unit(np.eye(DIM)[1]))
    turned = _held([_one("a"), opposite]).turn(QUERY)
    assert turned.vector is QUERY
    assert (turned.rotation, turned.judgements) == (0.0, 2)
