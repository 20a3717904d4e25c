"""How many requests are under way: more with good answers, half with a refusal, none while told to wait."""

from __future__ import annotations

import asyncio

import pytest

from imagesearch.backfill.asking import Asking
from imagesearch.backfill.pace import OutOfPatience, Pace
from imagesearch.backfill.talking import KeepsFailing, patiently
from imagesearch.errors import Unavailable


def busy(status: int | None = 503, *, retry_after_s: float = 0.0) -> Unavailable:
    return Unavailable("busy", status=status, retry_after_s=retry_after_s)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that goes on by sleeping alone."""
    now = [1000.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("imagesearch.backfill.pace.asyncio.sleep", sleep)
    return now


async def test_it_grows_by_one_a_round_and_is_halved_once_for_what_was_refused_together(now: list[float]) -> None:
    pace = Pace(most=8, rate=None, patience_s=60, clock=lambda: now[0])
    for _ in range(60):
        pace.well()
    assert pace.limit == 8
    began_at = now[0]
    now[0] += 1
    for _ in range(8):
        pace.refused(busy(), began_at)
    assert pace.limit == 4
    for _ in range(4):
        pace.well()
    assert 4.8 < pace.limit <= 5


async def test_all_wait_as_long_as_the_service_says_or_longer_with_each_refusal(now: list[float]) -> None:
    pace = Pace(most=8, rate=None, patience_s=1e6, clock=lambda: now[0])
    async with pace.place() as began_at:
        pace.refused(busy(retry_after_s=17), began_at)
    async with pace.place() as then:
        assert then == began_at + 17
    waits = []
    for _ in range(12):
        async with pace.place() as began_at:
            pace.refused(busy(), began_at)
        async with pace.place() as then:
            waits.append(then - began_at)
    assert waits[0] <= 1.0
    assert 30 <= waits[-1] <= 60


async def test_a_rate_holds_pictures_apart_and_nothing_else(now: list[float]) -> None:
    pace = Pace(most=8, rate=4, patience_s=60, clock=lambda: now[0])
    begun = []
    for counted in (True, False, True, False, True):
        async with pace.place(counted=counted) as began_at:
            begun.append(began_at - 1000)
    assert begun == [0, 0, 0.25, 0.25, 0.5]


async def test_patience_ends_where_nothing_is_taken_and_never_while_something_is(now: list[float]) -> None:
    pace = Pace(most=8, rate=None, patience_s=100, clock=lambda: now[0])

    async def refuse() -> None:
        raise busy(429, retry_after_s=30)

    with pytest.raises(OutOfPatience):
        await patiently(pace, refuse)
    assert 100 < now[0] - 1000 < 200
    answers = iter([busy(), busy(), None])

    async def at_last() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "taken"

    pace.well()
    assert await patiently(pace, at_last) == "taken"


@pytest.mark.parametrize(("status", "others_are_taken"), [(500, False), (None, True)])
async def test_what_fails_by_itself_is_given_up(now: list[float], status: int | None, others_are_taken: bool) -> None:
    pace = Pace(most=8, rate=None, patience_s=1e6, clock=lambda: now[0])
    tries = 0

    async def fail() -> None:
        nonlocal tries
        tries += 1
        now[0] += 1
        if others_are_taken:
            pace.well()
        raise busy(status)

    with pytest.raises(KeepsFailing):
        await patiently(pace, fail)
    assert tries == 5


async def test_questions_of_one_moment_are_asked_together_and_an_error_is_theirs_who_asked() -> None:
    rounds: list[list[str]] = []

    async def known(ids: object) -> set[str]:
        rounds.append(sorted(ids))  # type: ignore[call-overload]
        if len(rounds) == 2:
            raise busy()
        return {"a"}

    asking = Asking(known)
    assert await asyncio.gather(*(asking.is_known(one) for one in "abab")) == [True, False, True, False]
    told = await asyncio.gather(*(asking.is_known(one) for one in "cd"), return_exceptions=True)
    assert [type(one) for one in told] == [Unavailable, Unavailable]
    assert await asking.is_known("a")
    assert rounds == [["a", "b"], ["c", "d"], ["a"]]


@pytest.mark.parametrize("retry_after_s", [1e9, float("inf")])
async def test_patience_ends_however_late_it_is_told_to_ask_again(now: list[float], retry_after_s: float) -> None:
    pace = Pace(most=8, rate=None, patience_s=60, clock=lambda: now[0])
    began_at = now[0]

    async def refuse() -> None:
        raise busy(retry_after_s=retry_after_s)

    with pytest.raises(OutOfPatience, match="busy"):
        await patiently(pace, refuse)
    assert 60 < now[0] - began_at <= 2 * 60
