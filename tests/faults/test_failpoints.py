"""`kill -9` between any two steps of the product: the next start mends it, and what was answered with success is there."""

from __future__ import annotations

import random

import pytest

from tests.e2e.product import wait_for
from tests.faults.injected import POINTS
from tests.faults.rig import Rig, some_picture
from tests.faults.workload import Workload

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_OF_MODELS = frozenset({"picture_received", "picture_segmented", "picture_embedded"})
_OF_INDEX = frozenset({"index_copied", "index_placed", "index_unswitched", "index_switched"})
_AT_FIRST = frozenset({"collection_made"})
_OF_USE = sorted(POINTS.keys() - _OF_MODELS - _OF_INDEX - _AT_FIRST)
_SHORT = 4


def test_a_kill_at_points_of_every_path_loses_nothing(rig: Rig, rng: random.Random) -> None:
    _kill_at(rig, rng, rng.sample(_OF_USE, _SHORT), most_calls=2)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_kill_at_each_point_again_and_again_loses_nothing(rig: Rig, rng: random.Random) -> None:
    _kill_at(rig, rng, [point for point in _OF_USE for _ in range(3)], most_calls=5)


def _kill_at(rig: Rig, rng: random.Random, points: list[str], *, most_calls: int) -> None:
    work = Workload(rig, rng)
    for _ in range(6):
        work.add()
    rig.start_and_wait()
    rig.agree()
    for point in points:
        call = rng.randint(1, most_calls)
        print(f"kill at {point}, call {call}")
        rig.arm(point, "kill", call)
        for _ in range(20):
            work.all_steps()
            if rig.died_within(0.3):
                break
        assert rig.died_within(10), f"{point} is never reached: the test proves nothing"
        rig.start_and_wait()
        rig.agree()
        assert work.promises.broken(rig) == []


def test_a_model_service_killed_with_pictures_in_its_hands_costs_time_and_nothing_else(rig: Rig, rng: random.Random) -> None:
    _kill_models_at(rig, rng, [rng.choice(sorted(_OF_MODELS))])


@pytest.mark.long
def test_a_model_service_killed_at_each_point_again_and_again(rig: Rig, rng: random.Random) -> None:
    _kill_models_at(rig, rng, sorted(_OF_MODELS))


def _kill_models_at(rig: Rig, rng: random.Random, points: list[str]) -> None:
    rig.start_and_wait()
    for point in points:
        rig.arm(point, "kill")
        for number in range(4):
            rig.add(f"{point} {number}.jpg", some_picture(rng))
        wait_for("a dead model service", lambda point=point: not (rig.faults / point).exists(), timeout_s=20)
        rig.agree()
    died = [event for event in rig.log_events() if event["event"] == "model_service_died"]
    assert len(died) == len(points)
    assert rig.status()["images"]["indexed"] == 4 * len(points)


@pytest.mark.long
def test_a_kill_while_the_first_collections_are_made_leaves_no_half_of_one(rig: Rig, rng: random.Random) -> None:
    rig.add("a.jpg", some_picture(rng))
    for call in (1, 2):
        rig.arm("collection_made", "kill", call)
        rig.start()
        assert rig.died_within(20)
    rig.start_and_wait()
    rig.agree()


@pytest.mark.parametrize(
    "point",
    ["index_unswitched", *(pytest.param(point, marks=pytest.mark.long) for point in sorted(_OF_INDEX - {"index_unswitched"}))],
)
def test_a_kill_while_an_index_is_built_and_taken_over_loses_nothing(rig: Rig, rng: random.Random, point: str) -> None:
    rig.environment["FAULTS_INDEX_FROM"] = "40"
    for number in range(40):
        rig.add(f"{number}.jpg", some_picture(rng))
    rig.arm(point, "kill")
    rig.start()
    wait_for("a kill", lambda: not (rig.faults / point).exists(), timeout_s=30)
    if point == "index_copied":  # that process is the builder: the product lives on, and says what happened
        wait_for("word of it", lambda: any(event["event"] == "index_not_built" for event in rig.log_events()), timeout_s=20)
    else:
        assert rig.died_within(10)
        rig.start_and_wait()
    rig.add("later.jpg", some_picture(rng))
    rig.agree()
    assert rig.status()["images"]["indexed"] == 41
