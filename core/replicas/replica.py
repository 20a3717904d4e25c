"""One of several model services, as a caller knows it: by its answers, and by what `/health/ready` says now and then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Generic, TypeVar

import structlog
from yarl import URL

from core.errors import ImageSearchError, ModelCrashed, ModelUnreachable, Overloaded, Rejected
from core.model_client import ModelClient
from core.replicas.breaker import Breaker, Circuit
from core.replicas.metrics import Outcome, ReplicaMetrics
from core.schemas import Health

log = structlog.get_logger()

AnswerT = TypeVar("AnswerT")

_LONGEST_BUSY_S = 2.0
"""A queue that is full empties within moments, whatever it says; whoever was told comes back to it no sooner."""

_AWAY_AFTER = 2


class Kind(StrEnum):
    """What is asked for: each has times of its own, and somebody waits for all but ingestion."""

    INFO = "info"
    TEXT = "text"
    PICTURE = "picture"
    INGEST = "ingest"


@dataclass(frozen=True, slots=True)
class Asked(Generic[AnswerT]):
    """A request that any replica may answer, with the models of `fingerprint`."""

    call: Callable[[ModelClient], Awaitable[AnswerT]]
    kind: Kind
    fingerprint: str | None


class Rank(IntEnum):
    """How suitable a replica is; lower is better."""

    FREE = 0
    ANSWERS = 1
    """Away when it was last looked at; it has answered since, which those that are busy may not."""
    BUSY = 2
    UNKNOWN = 3
    """Whether it has the models loaded is not known."""
    WITHOUT = 4
    """It loads them yet, or cannot have them."""
    AWAY = 5
    SUSPECT = 6
    """Its circuit is open: worth a try before a query is given up, and no sooner."""


class Replica:
    """Counts what it was asked, and judges by how it answered."""

    def __init__(self, client: ModelClient, *, clock: Callable[[], float], rng: random.Random, metrics: ReplicaMetrics) -> None:
        url = URL(client.base_url)
        self.name = f"{url.host}:{url.port}"
        self.client = client
        self.breaker = Breaker(clock=clock, rng=rng)
        self.outstanding = 0
        self.is_ready = True
        self._answers = False
        """Since it last said how it is, or failed to."""
        self.own: str | None = None
        """Fingerprint of the models of its settings, as it said at `own_at`."""
        self.own_at = float("-inf")
        self._clock = clock
        self._metrics = metrics
        self._missed = _AWAY_AFTER - 1  # one that was never seen may not be there at all
        self._busy_until: dict[bool, float] = {}
        self._beside: dict[str, bool] = {}
        metrics.follow(
            self.name,
            in_flight=lambda: self.outstanding,
            ready=lambda: self.is_ready,
            circuit_open=lambda: self.breaker.circuit is not Circuit.CLOSED,
        )

    # --- before it is asked

    def rank(self, kind: Kind, fingerprint: str | None) -> Rank:
        """Ingestion, which nobody waits for, tries no circuit while others are whole, and none that is about to go."""
        if not self.breaker.admits:
            return Rank.SUSPECT
        may_try = self.is_ready or (self._answers and kind is not Kind.INGEST)
        if not may_try or (kind is Kind.INGEST and self.breaker.circuit is Circuit.HALF_OPEN):
            return Rank.AWAY
        if fingerprint is not None and fingerprint != self.own:
            held = self._beside.get(fingerprint)
            if held is not True:
                return Rank.UNKNOWN if held is None else Rank.WITHOUT
        if self._busy_until.get(kind is Kind.INGEST, 0.0) > self._clock():
            return Rank.BUSY
        return Rank.FREE if self.is_ready else Rank.ANSWERS

    # --- while it is asked

    def start(self, asked: Asked[AnswerT], *, patience_s: float | None) -> asyncio.Task[AnswerT]:
        """`ask`, in a task that counts from now on: whoever chooses before it first runs knows of it."""
        self.outstanding += 1
        task = asyncio.create_task(self.ask(asked, patience_s=patience_s))
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[AnswerT]) -> None:
        self.outstanding -= 1
        if not task.cancelled():
            task.exception()  # a loser's is nobody's business

    async def ask(self, asked: Asked[AnswerT], *, patience_s: float | None) -> AnswerT:
        """Raises what its client raises. One that is given up after `patience_s` has failed; sooner, nothing is known."""
        suspect, trial = not self.breaker.admits, self.breaker.begin()
        started, outcome = self._clock(), Outcome.ABANDONED
        try:
            answer = await asked.call(self.client)
            outcome = Outcome.ANSWERED
        except ImageSearchError as error:
            outcome = self._outcome_of(error, asked)
            raise
        except asyncio.CancelledError:
            if patience_s is not None and self._clock() - started >= patience_s:
                outcome = Outcome.FAILED
            raise
        finally:
            self._judge(outcome, trial=trial)
        if suspect:
            self.breaker.came_back()
        self._answers = True
        if asked.fingerprint is not None and asked.fingerprint != self.own:
            self._beside[asked.fingerprint] = True
        return answer

    def _outcome_of(self, error: ImageSearchError, asked: Asked[AnswerT]) -> Outcome:
        match error:
            case Rejected():
                return Outcome.ANSWERED
            case Overloaded():
                self._busy_until[asked.kind is Kind.INGEST] = self._clock() + min(error.retry_after_s, _LONGEST_BUSY_S)
                return Outcome.REFUSED
            case ModelUnreachable() | ModelCrashed():
                return Outcome.FAILED
            case _:
                self._note_without(asked.fingerprint)
                return Outcome.REFUSED

    def _judge(self, outcome: Outcome, *, trial: bool) -> None:
        self._metrics.note_request(self.name, outcome)
        if outcome in {Outcome.FAILED, Outcome.REFUSED}:
            self._answers = False
        match outcome:
            case Outcome.FAILED:
                was_open = self.breaker.circuit is Circuit.OPEN
                self.breaker.failed(trial=trial)
                if self.breaker.circuit is Circuit.OPEN and not was_open:
                    log.info("model_replica_left_alone", replica=self.name, for_s=round(self.breaker.opens_in_s, 1))
            case Outcome.ABANDONED:
                self.breaker.abandoned(trial=trial)
            case _:
                self.breaker.succeeded(trial=trial)

    # --- what it says of itself

    def seen(self, health: Health) -> None:
        """It told how it is."""
        self._missed = 0
        own = health.checks.get("fingerprint")
        if own:
            if own != self.own:
                self._beside.clear()
            self.own, self.own_at = own, self._clock()
        self._turn(ready=health.status == "ok", why=health.detail)

    def missed(self) -> None:
        """It did not; once is an accident."""
        self._missed += 1
        if self._missed >= _AWAY_AFTER:
            self._turn(ready=False, why="does not answer")

    def holds(self, fingerprint: str, *, ready: bool) -> None:
        """Whether it has other models loaded beside those of its settings."""
        self._beside[fingerprint] = ready

    def _note_without(self, fingerprint: str | None) -> None:
        if fingerprint is None or fingerprint == self.own:
            self._turn(ready=False, why="has no models loaded")
        else:
            self._beside[fingerprint] = False

    def _turn(self, *, ready: bool, why: str | None) -> None:
        self._answers = False
        if ready and not self.is_ready:
            self.breaker.came_back()
            log.info("model_replica_ready", replica=self.name)
        elif self.is_ready and not ready:
            log.info("model_replica_away", replica=self.name, why=why)
        self.is_ready = ready


def chosen(
    replicas: Sequence[Replica], asked: Asked[AnswerT], tried: Collection[Replica], rng: random.Random, *, worst: Rank = Rank.AWAY
) -> Replica | None:
    """Of the most suitable ones two by chance, and of these the one that has less to do; None where all are tried, or worse than `worst`.

    Two choices spread nearly as evenly as a look at all, and callers who know nothing of each other do not all come to the same
    one: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, 2001.
    """
    ranked = [
        (rank, replica)
        for replica in replicas
        if replica not in tried and (rank := replica.rank(asked.kind, asked.fingerprint)) <= worst
    ]
    if not ranked:
        return None
    best = min(rank for rank, _ in ranked)
    equal = [replica for rank, replica in ranked if rank == best]
    if len(equal) == 1:
        return equal[0]
    one, other = rng.sample(equal, 2)
    return one if one.outstanding <= other.outstanding else other
