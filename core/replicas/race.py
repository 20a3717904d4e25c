"""One request, asked of as many replicas as it takes, and of no more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from core.errors import ImageSearchError, ModelCrashed, ModelUnreachable, NoModel, Overloaded, Unavailable
from core.replicas.allowance import Allowance
from core.replicas.metrics import ReplicaMetrics
from core.replicas.replica import AnswerT, Asked, Kind, Rank, Replica, chosen
from core.replicas.times import RecentTimes

HEDGE_SHARE = 0.05
RETRY_SHARE = 0.2
_MOST_RETRIES_KEPT = 30.0
_RETRIES_PER_S = 2.0

_PATIENCE_UNKNOWN_S = 5.0
_PATIENCE_S = (1.0, 10.0)
_PATIENCE_IN_P95 = 10

_MOST_CRASHES = 2
"""A picture that ends whoever looks at it must not go round."""


class Rules:
    """What all requests of one caller share: how much may be asked twice, and what is usual."""

    def __init__(self, *, clock: Callable[[], float], rng: random.Random, metrics: ReplicaMetrics) -> None:
        self.clock = clock
        self.rng = rng
        self.metrics = metrics
        self.hedges = Allowance(share=HEDGE_SHARE, most=10.0, left=1.0, clock=clock)
        self.retries = Allowance(
            share=RETRY_SHARE, most=_MOST_RETRIES_KEPT, left=_MOST_RETRIES_KEPT, per_s=_RETRIES_PER_S, clock=clock
        )
        self.times: Mapping[Kind, RecentTimes] = {kind: RecentTimes() for kind in Kind}

    def patience_s(self, kind: Kind) -> float | None:
        """After which a replica is taken for one that hangs; None where nobody waits, and the whole time-out holds."""
        if kind is Kind.INGEST:
            return None
        p95_s = self.times[kind].p95_s
        return _PATIENCE_UNKNOWN_S if p95_s is None else min(max(_PATIENCE_IN_P95 * p95_s, _PATIENCE_S[0]), _PATIENCE_S[1])


@dataclass(frozen=True, slots=True)
class _Attempt:
    replica: Replica
    since: float
    is_hedge: bool


class Race(Generic[AnswerT]):
    """Asks one replica; a second one, if a query is not answered within the time that 19 of 20 are; and others after failures.

    Whoever answers first wins, and the rest are cancelled. Each replica is asked once at most.
    """

    def __init__(self, replicas: Sequence[Replica], asked: Asked[AnswerT], rules: Rules) -> None:
        self._replicas = replicas
        self._asked = asked
        self._rules = rules
        self._patience_s = rules.patience_s(asked.kind)
        self._running: dict[asyncio.Task[AnswerT], _Attempt] = {}
        self._tried: list[Replica] = []
        self._errors: list[Unavailable] = []
        self._hedge_at: float | None = None
        self._widen_at: float | None = None

    async def run(self) -> AnswerT:
        """Raises Rejected at once; what all of them refused it for; ModelUnreachable where all are left alone."""
        rules = self._rules
        rules.retries.note_request()
        first = self._next()
        if first is None:
            wait_s = min(replica.breaker.opens_in_s for replica in self._replicas)
            raise ModelUnreachable("no model service answers", retry_after_s=max(1.0, wait_s))
        self._start(first)
        if self._patience_s is not None:
            rules.hedges.note_request()
            usual_s = rules.times[self._asked.kind].p95_s
            self._hedge_at = None if usual_s is None else rules.clock() + usual_s
        try:
            return await self._first_answer()
        finally:
            for task in self._running:
                task.cancel()

    async def _first_answer(self) -> AnswerT:
        while True:
            done, _ = await asyncio.wait(self._running, timeout=self._idle_s(), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                attempt = self._running.pop(task)
                try:
                    answer = task.result()
                except Unavailable as error:
                    self._note_failure(error)
                else:
                    self._note_winner(attempt)
                    return answer
            if not done:
                self._widen()
            elif not self._running and not self._retry():
                raise foremost(self._errors)

    def _next(self, *, worst: Rank = Rank.AWAY) -> Replica | None:
        return chosen(self._replicas, self._asked, self._tried, self._rules.rng, worst=worst)

    def _start(self, replica: Replica, *, is_hedge: bool = False) -> None:
        now = self._rules.clock()
        task = replica.start(self._asked, patience_s=self._patience_s)
        self._running[task] = _Attempt(replica, now, is_hedge)
        self._tried.append(replica)
        self._wait(now)

    def _wait(self, now: float) -> None:
        self._widen_at = None if self._patience_s is None else now + self._patience_s

    def _idle_s(self) -> float | None:
        due = [at for at in (self._hedge_at, self._widen_at) if at is not None]
        return max(0.0, min(due) - self._rules.clock()) if due else None

    def _widen(self) -> None:
        """Ask one more beside those that are still asked, if it is time."""
        now = self._rules.clock()
        if self._hedge_at is not None and now >= self._hedge_at:
            self._hedge_at = None
            self._hedge()
        elif self._widen_at is not None and now >= self._widen_at and not self._retry():
            self._wait(now)  # until more may be asked again, or another is there to be asked

    def _hedge(self) -> None:
        """Only of one that has nothing more to do than the first: where all are busy, a second question makes them busier."""
        other = self._next(worst=Rank.FREE)
        most = max(attempt.replica.outstanding for attempt in self._running.values())
        if other is not None and other.outstanding < most and self._rules.hedges.take():
            self._start(other, is_hedge=True)

    def _retry(self) -> bool:
        other = self._next(worst=Rank.AWAY if self._asked.kind is Kind.INGEST else Rank.SUSPECT)
        if other is None:
            return False
        allowed = self._rules.retries.take()
        self._rules.metrics.note_retry(allowed=allowed)
        if allowed:
            self._start(other)
        return allowed

    def _note_failure(self, error: Unavailable) -> None:
        self._errors.append(error)
        if isinstance(error, ModelCrashed):
            crashes = sum(isinstance(one, ModelCrashed) for one in self._errors)
            if self._asked.kind is Kind.INGEST or crashes >= _MOST_CRASHES:
                raise error

    def _note_winner(self, attempt: _Attempt) -> None:
        self._rules.times[self._asked.kind].note(self._rules.clock() - attempt.since)
        if attempt.is_hedge or any(other.is_hedge for other in self._running.values()):
            self._rules.metrics.note_hedge(won=attempt.is_hedge)


def foremost(errors: Sequence[Unavailable]) -> ImageSearchError:
    """The one that tells most of what several replicas said; busy ones are to be come back to when the first of them says so."""
    crashed = next((error for error in errors if isinstance(error, ModelCrashed)), None)
    if crashed is not None:
        return crashed
    busy = [error for error in errors if isinstance(error, Overloaded)]
    if busy:
        return min(busy, key=lambda error: error.retry_after_s)

    def tells(error: Unavailable) -> tuple[bool, bool, float]:
        return (isinstance(error, ModelUnreachable), isinstance(error, NoModel), error.retry_after_s)

    return min(errors, key=tells)
