"""What the sizing page is played with, against closed forms; and the page against what it is made of."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.sizing import losses, page
from benchmarks.sizing.losses import Cluster
from benchmarks.sizing.waiting import Outage, Service, caught_up_s, waited
from imagesearch.sizing import chances
from imagesearch.sizing.chances import YEAR_H, Node

_FRAIL = Node(away_a_year=20, away_h=5, lost_a_year=8, replaced_h=20)
_SEED = 11


@pytest.mark.parametrize(("copies", "needed"), [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_copies_are_away_together_as_often_as_independent_ones(copies: int, needed: int) -> None:
    seen = losses.played(Cluster(copies, 1, copies, needed, 0, _FRAIL), years=500, seed=_SEED)
    down = _FRAIL.down_share(0)
    assert seen.one_shard_refused_h / YEAR_H == pytest.approx(chances.fewer_than(needed, copies, down), rel=0.15)
    if copies < 3:
        assert seen.one_shard_unsearchable_h / YEAR_H == pytest.approx(chances.fewer_than(1, copies, down), rel=0.25)


def test_a_majority_is_missing_as_often_as_closed_form_says() -> None:
    seen = losses.played(Cluster(5, 10, 1, 1, 0, _FRAIL), years=500, seed=_SEED)
    assert seen.no_majority_h / YEAR_H == pytest.approx(chances.without_majority(5, _FRAIL.down_share(0)), rel=0.35)


@pytest.mark.parametrize(("copies", "years"), [(1, 2_000), (2, 20_000), (3, 30_000)])
def test_all_copies_are_lost_as_often_as_a_birth_death_chain_says(copies: int, years: int) -> None:
    cluster = Cluster(copies, 4, copies, 1, 0, _FRAIL, memoryless=True)
    moments, shards = losses.lost(cluster, years=years, seed=_SEED)
    expected = chances.losses_a_year(copies, _FRAIL.lost_a_year, _FRAIL.lost_h(0)) * years
    assert abs(moments - expected) < 4 * math.sqrt(expected) + 0.02 * expected
    assert shards == 4 * moments


def test_each_set_of_nodes_is_a_risk_of_its_own_and_takes_its_shards_along() -> None:
    cluster = Cluster(6, 12, 2, 1, 0, _FRAIL, memoryless=True)
    moments, shards = losses.lost(cluster, years=5_000, seed=_SEED)
    expected = chances.losses_a_year(2, _FRAIL.lost_a_year, _FRAIL.lost_h(0), sets=6) * 5_000
    assert moments == pytest.approx(expected, rel=0.1)
    assert shards == pytest.approx(2 * moments, rel=0.03)
    assert sum(cluster.holders().values()) == 12


def test_more_to_copy_takes_longer_and_risks_more() -> None:
    few, much = (losses.lost(Cluster(3, 6, 2, 1, held, _FRAIL), years=2_000, seed=_SEED)[0] for held in (0, 3e13))
    assert much > 2 * few


def test_parts_of_a_game_come_to_the_same_as_the_whole_seed_by_seed() -> None:
    cluster = Cluster(3, 6, 2, 1, 0, _FRAIL)
    assert losses.played(cluster, years=300, seed=1) == losses.played(cluster, years=300, seed=1)
    assert losses.played(cluster, years=300, seed=1) != losses.played(cluster, years=300, seed=2)


def _erlang_s(arrivals_per_s: float, served_s: float, servers: int) -> float:
    """The mean wait of an M/M/c queue (Erlang C), without the service itself. Infinite where it never empties."""
    busy = arrivals_per_s * served_s
    if busy >= servers:
        return math.inf
    blocked = 1.0
    for n in range(1, servers + 1):
        blocked = busy * blocked / (n + busy * blocked)  # Erlang B, by its recursion
    waits = blocked / (1 - busy / servers * (1 - blocked))
    return waits * served_s / (servers - busy)


def test_waiting_is_as_erlang_has_it() -> None:
    assert _erlang_s(0.5, 1, 1) == pytest.approx(1)  # M/M/1: rho / (1 - rho)
    assert _erlang_s(1, 1, 2) == pytest.approx(1 / 3)
    assert _erlang_s(2, 1, 2) == math.inf


def test_what_waited_is_caught_up_by_what_is_to_spare() -> None:
    assert caught_up_s(600, 10, 20) == 600
    assert caught_up_s(600, 20, 20) == math.inf


@pytest.mark.parametrize(("places", "share"), [(1, 0.5), (4, 0.7)])
def test_pictures_wait_as_long_as_erlang_says(places: int, share: float) -> None:
    means = [waited(Service(share * places, 1.0, places), pictures=6_000, seed=_SEED + n).mean for n in range(3)]
    assert np.mean(means) == pytest.approx(_erlang_s(share * places, 1.0, places), rel=0.2)


def test_an_outage_of_all_is_caught_up_by_what_is_to_spare() -> None:
    even = Service(4.0, 1.0, 10, even=True)
    seen = waited(even, pictures=1_000, seed=0, outage=Outage(50.1, 30.0, 10, 0.0))
    assert seen.longest == pytest.approx(30.0, abs=1.5)
    assert seen.caught_up == pytest.approx(caught_up_s(30.0, 4.0, 10.0), abs=2.0)
    assert seen.redone == 4


def test_what_a_killed_worker_had_in_hand_waits_for_its_lease() -> None:
    even = Service(4.0, 1.0, 10, even=True)
    calm = waited(even, pictures=1_000, seed=0)
    killed = waited(even, pictures=1_000, seed=0, outage=Outage(50.1, 10.0, 2, 60.0))
    assert calm.longest == 0
    assert killed.longest == pytest.approx(60.0, abs=1.0)
    assert killed.redone == 1
    assert waited(even, pictures=1_000, seed=0, outage=Outage(50.1, 10.0, 2)).redone == 0


def test_the_page_is_what_was_measured_and_played() -> None:
    docs = Path("docs/explanation")
    assert (docs / "sizing.md").read_text() == page.made(docs)
