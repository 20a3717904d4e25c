"""Whom the breaker leaves alone, and for how long, by a clock that stands until it is set."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.replicas.allowance import Allowance
from core.replicas.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, OPENS_AFTER, Breaker, Circuit
from core.replicas.times import RecentTimes


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock, rng: random.Random) -> Breaker:
    return Breaker(clock=clock, rng=rng)


def _fail(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(trial=breaker.begin())


def test_it_opens_after_a_run_of_failures_and_not_after_as_many_with_a_success_among_them(breaker: Breaker) -> None:
    _fail(breaker, OPENS_AFTER - 1)
    breaker.succeeded(trial=breaker.begin())
    _fail(breaker, OPENS_AFTER - 1)
    assert (breaker.circuit, breaker.admits) == (Circuit.CLOSED, True)
    _fail(breaker)
    assert (breaker.circuit, breaker.admits) == (Circuit.OPEN, False)
    assert FIRST_PAUSE_S / 2 <= breaker.opens_in_s <= FIRST_PAUSE_S


def test_after_the_pause_one_trial_is_admitted_and_its_success_closes_it(breaker: Breaker, clock: Clock) -> None:
    _fail(breaker, OPENS_AFTER)
    clock.now += FIRST_PAUSE_S
    assert (breaker.circuit, breaker.admits, breaker.opens_in_s) == (Circuit.HALF_OPEN, True, 0.0)
    trial = breaker.begin()
    assert trial
    assert not breaker.admits, "one at a time"
    breaker.succeeded(trial=trial)
    assert (breaker.circuit, breaker.admits) == (Circuit.CLOSED, True)


def test_each_trial_that_fails_doubles_the_pause_up_to_the_longest_and_a_success_makes_it_short_again(
    breaker: Breaker, clock: Clock
) -> None:
    _fail(breaker, OPENS_AFTER)
    expected_s = FIRST_PAUSE_S
    for _ in range(10):
        assert expected_s / 2 <= breaker.opens_in_s <= expected_s
        clock.now += breaker.opens_in_s
        _fail(breaker)
        expected_s = min(2 * expected_s, LONGEST_PAUSE_S)
    clock.now += LONGEST_PAUSE_S
    breaker.succeeded(trial=breaker.begin())
    _fail(breaker, OPENS_AFTER)
    assert breaker.opens_in_s <= FIRST_PAUSE_S


def test_pauses_differ_by_chance_so_that_callers_do_not_come_all_at_once(clock: Clock, rng: random.Random) -> None:
    breakers = [Breaker(clock=clock, rng=rng) for _ in range(20)]
    for breaker in breakers:
        _fail(breaker, OPENS_AFTER)
    assert len({breaker.opens_in_s for breaker in breakers}) > 15


def test_what_began_before_it_opened_neither_prolongs_the_pause_nor_closes_it(breaker: Breaker, clock: Clock) -> None:
    early = [breaker.begin() for _ in range(OPENS_AFTER + 5)]
    for trial in early[:OPENS_AFTER]:
        breaker.failed(trial=trial)
    until = breaker.opens_in_s
    for trial in early[OPENS_AFTER:]:
        breaker.failed(trial=trial)
    assert breaker.opens_in_s == until
    breaker.succeeded(trial=early[-1])
    assert breaker.circuit is Circuit.OPEN
    clock.now += until
    assert breaker.admits


def test_a_trial_that_nobody_waits_for_makes_room_for_the_next(breaker: Breaker, clock: Clock) -> None:
    _fail(breaker, OPENS_AFTER)
    clock.now += FIRST_PAUSE_S
    breaker.abandoned(trial=breaker.begin())
    assert (breaker.circuit, breaker.admits) == (Circuit.HALF_OPEN, True)


def test_one_that_was_seen_whole_is_tried_at_once(breaker: Breaker) -> None:
    _fail(breaker, OPENS_AFTER)
    breaker.came_back()
    assert (breaker.circuit, breaker.admits) == (Circuit.HALF_OPEN, True)


@given(st.lists(st.sampled_from(["begin", "succeed", "fail", "abandon", "wait", "back"])), st.randoms(use_true_random=False))
def test_whatever_happens_there_is_one_trial_at_a_time_and_no_pause_beyond_the_longest(
    events: list[str], rng: random.Random
) -> None:
    clock = Clock()
    breaker = Breaker(clock=clock, rng=rng)
    begun: list[bool] = []
    ends = {"succeed": breaker.succeeded, "fail": breaker.failed, "abandon": breaker.abandoned}
    for event in events:
        if event == "begin" and breaker.admits:
            begun.append(breaker.begin())
        elif event in ends and begun:
            ends[event](trial=begun.pop())
        elif event == "wait":
            clock.now += rng.uniform(0, LONGEST_PAUSE_S)
        elif event == "back":
            breaker.came_back()
        assert sum(begun) <= 1
        assert breaker.opens_in_s <= LONGEST_PAUSE_S
    for trial in begun:
        breaker.failed(trial=trial)
    clock.now += LONGEST_PAUSE_S
    assert breaker.admits, "nothing is left alone for ever"


@given(st.lists(st.sampled_from(["request", "take", "second"])))
def test_no_more_is_allowed_than_its_share_of_what_is_asked_and_of_the_time(events: list[str]) -> None:
    clock = Clock()
    allowance = Allowance(share=0.2, most=3.0, left=1.0, per_s=0.5, clock=clock)
    taken = 0
    for event in events:
        match event:
            case "request":
                allowance.note_request()
            case "take":
                taken += allowance.take()
            case "second":
                clock.now += 1
    assert taken <= 1.0 + 0.2 * events.count("request") + 0.5 * events.count("second") + 1e-9


def test_what_is_not_taken_is_kept_up_to_a_bound() -> None:
    allowance = Allowance(share=0.5, most=3.0, left=0.0, clock=Clock())
    assert not allowance.take()
    for _ in range(100):
        allowance.note_request()
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_what_is_usual_is_known_after_some_answers_and_follows_them() -> None:
    times = RecentTimes()
    for _ in range(19):
        times.note(1.0)
    assert times.p95_s is None
    for number in range(200):
        times.note(number / 100)
    assert times.p95_s == pytest.approx(1.9, abs=0.1)
    for _ in range(300):
        times.note(0.1)
    assert times.p95_s == 0.1
