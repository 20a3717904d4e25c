"""Whom a request is asked of, by what is known of each; by a clock that stands until it is set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from core.errors import InvalidRequest, ModelUnavailable, ModelUnreachable, NoModel, Overloaded
from core.model_client import ModelClient
from core.replicas.breaker import OPENS_AFTER, Circuit
from core.replicas.metrics import ReplicaMetrics
from core.replicas.race import foremost
from core.replicas.replica import Asked, Kind, Rank, Replica, chosen
from core.schemas import Health


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replicas(clock: Clock, rng: random.Random) -> list[Replica]:
    metrics = ReplicaMetrics(CollectorRegistry())
    clients = [ModelClient(f"http://{name}:8001") for name in ("one", "two", "three")]
    found = [Replica(client, clock=clock, rng=rng, metrics=metrics) for client in clients]
    for replica in found:
        _say(replica, "f1")
    return found


def _say(replica: Replica, own: str, *, ready: bool = True) -> None:
    replica.seen(Health(status="ok" if ready else "unavailable", checks={"models": "ready", "fingerprint": own}))


def _asked(call: Callable[[ModelClient], Awaitable[None]], kind: Kind = Kind.TEXT) -> Asked[None]:
    return Asked(call, kind, "f1")


async def _answer(_: ModelClient) -> None:
    pass


def _raises(error: Exception) -> Callable[[ModelClient], Awaitable[None]]:
    async def call(_: ModelClient) -> None:
        raise error

    return call


async def _meet(replica: Replica, error: Exception, kind: Kind = Kind.TEXT) -> None:
    with pytest.raises(type(error)):
        await replica.ask(_asked(_raises(error), kind), patience_s=1.0)


def test_its_name_is_its_host_and_port_and_no_secret_of_its_address(clock: Clock, rng: random.Random) -> None:
    client = ModelClient("http://user:password@models-1:8001/path")
    assert Replica(client, clock=clock, rng=rng, metrics=ReplicaMetrics(CollectorRegistry())).name == "models-1:8001"


async def test_a_full_queue_for_ingestion_is_none_for_queries_and_passes(replicas: list[Replica], clock: Clock) -> None:
    await _meet(replicas[0], Overloaded("full", retry_after_s=1), Kind.INGEST)
    assert (replicas[0].rank(Kind.INGEST, "f1"), replicas[0].rank(Kind.TEXT, "f1")) == (Rank.BUSY, Rank.FREE)
    clock.now += 1
    assert replicas[0].rank(Kind.INGEST, "f1") is Rank.FREE
    await _meet(replicas[0], Overloaded("full", retry_after_s=3600))
    clock.now += 3
    assert replicas[0].rank(Kind.TEXT, "f1") is Rank.FREE, "whatever it says"


async def test_the_better_suited_come_first_and_of_equals_the_one_with_less_to_do(
    replicas: list[Replica], rng: random.Random
) -> None:
    one, two, three = replicas
    asked = _asked(_answer)
    two.outstanding = three.outstanding = 5
    assert {chosen([one, other], asked, [], rng) for other in (two, three) for _ in range(20)} == {one}
    await _meet(one, Overloaded("full", retry_after_s=1))
    assert chosen(replicas, asked, [], rng) in {two, three}
    _say(two, "f2")
    three.seen(Health(status="unavailable", checks={}))
    assert [replica.rank(Kind.TEXT, "f1") for replica in replicas] == [Rank.BUSY, Rank.UNKNOWN, Rank.AWAY]
    assert [chosen(replicas, asked, tried, rng) for tried in ([], [one], [one, two], replicas)] == [one, two, three, None]


async def test_what_a_replica_has_beside_its_own_models_is_learned_from_it(replicas: list[Replica]) -> None:
    replica = replicas[0]
    _say(replica, "f2")
    assert replica.rank(Kind.TEXT, "f1") is Rank.UNKNOWN
    await _meet(replica, NoModel("the models of before are not known here"))
    assert replica.rank(Kind.TEXT, "f1") is Rank.WITHOUT
    replica.holds("f1", ready=True)
    assert replica.rank(Kind.TEXT, "f1") is Rank.FREE
    await _meet(replica, ModelUnavailable("the models are still being loaded"))
    assert replica.rank(Kind.TEXT, "f1") is Rank.WITHOUT
    await replica.ask(_asked(_answer), patience_s=1.0)
    assert replica.rank(Kind.TEXT, "f1") is Rank.FREE
    _say(replica, "f3")
    assert replica.rank(Kind.TEXT, "f1") is Rank.UNKNOWN, "it was started anew"


async def test_one_that_says_it_has_no_models_is_asked_again_when_it_says_it_has(replicas: list[Replica]) -> None:
    await _meet(replicas[0], ModelUnavailable("the models are still being loaded"))
    assert replicas[0].rank(Kind.TEXT, "f1") is Rank.AWAY
    _say(replicas[0], "f1")
    assert replicas[0].rank(Kind.TEXT, "f1") is Rank.FREE


async def test_one_that_is_away_and_answers_comes_after_those_that_are_free_until_it_is_looked_at(
    replicas: list[Replica],
) -> None:
    one, two, three = replicas
    one.seen(Health(status="unavailable", checks={}))
    await one.ask(_asked(_answer), patience_s=1.0)
    await _meet(two, Overloaded("full", retry_after_s=1))
    ranks = [replica.rank(Kind.TEXT, "f1") for replica in (three, one, two)]
    assert ranks == [Rank.FREE, Rank.ANSWERS, Rank.BUSY]
    assert ranks == sorted(ranks)
    assert one.rank(Kind.INGEST, "f1") is Rank.AWAY, "which can wait for one that stays"
    assert one.rank(Kind.TEXT, "f2") is Rank.UNKNOWN
    one.seen(Health(status="unavailable", checks={}))
    assert one.rank(Kind.TEXT, "f1") is Rank.AWAY
    await one.ask(_asked(_answer), patience_s=1.0)
    await _meet(one, ModelUnreachable("gone"))
    assert one.rank(Kind.TEXT, "f1") is Rank.AWAY


async def test_ingestion_tries_no_circuit_while_others_are_whole(replicas: list[Replica], clock: Clock) -> None:
    for _ in range(OPENS_AFTER):
        await _meet(replicas[0], ModelUnreachable("gone"))
    assert replicas[0].rank(Kind.TEXT, "f1") is Rank.SUSPECT
    clock.now += 1
    assert replicas[0].breaker.circuit is Circuit.HALF_OPEN
    assert (replicas[0].rank(Kind.TEXT, "f1"), replicas[0].rank(Kind.INGEST, "f1")) == (Rank.FREE, Rank.AWAY)


async def test_one_whose_circuit_is_open_is_the_last_resort_and_an_answer_of_it_makes_room_for_a_trial(
    replicas: list[Replica], rng: random.Random
) -> None:
    one, *others = replicas
    for _ in range(OPENS_AFTER):
        await _meet(one, ModelUnreachable("gone"))
    asked = _asked(_answer)
    assert chosen(replicas, asked, others, rng) is None
    assert chosen(replicas, asked, others, rng, worst=Rank.SUSPECT) is one
    await _meet(one, ModelUnreachable("gone"))
    assert one.breaker.circuit is Circuit.OPEN
    await one.ask(asked, patience_s=1.0)
    assert one.breaker.circuit is Circuit.HALF_OPEN
    await one.ask(asked, patience_s=1.0)
    assert one.breaker.circuit is Circuit.CLOSED


async def test_a_refusal_and_a_fault_of_the_request_are_no_failures_of_the_replica(replicas: list[Replica]) -> None:
    for _ in range(2 * OPENS_AFTER):
        await _meet(replicas[0], InvalidRequest("outside the picture", field="region"))
        await _meet(replicas[1], Overloaded("full"))
    assert [replica.breaker.circuit for replica in replicas] == [Circuit.CLOSED] * 3


async def test_one_that_was_given_up_in_time_is_not_blamed_and_one_that_hung_is(replicas: list[Replica], clock: Clock) -> None:
    for replica, waited_s in ((replicas[0], 0.5), (replicas[1], 2.0)):
        for _ in range(OPENS_AFTER):
            asking = replica.start(_asked(lambda _: asyncio.sleep(3600)), patience_s=1.0)
            assert replica.outstanding == 1, "before it runs"
            await asyncio.sleep(0)
            clock.now += waited_s
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    assert [replica.breaker.circuit for replica in replicas] == [Circuit.CLOSED, Circuit.OPEN, Circuit.CLOSED]
    replicas[2].start(_asked(_answer), patience_s=1.0).cancel()  # before it ran
    await asyncio.sleep(0.01)
    assert [replica.outstanding for replica in replicas] == [0, 0, 0]


def test_one_that_is_not_there_at_the_first_look_is_asked_for_nothing(clock: Clock, rng: random.Random) -> None:
    absent = Replica(ModelClient("http://absent:8001"), clock=clock, rng=rng, metrics=ReplicaMetrics(CollectorRegistry()))
    assert absent.is_ready, "before anybody looked"
    absent.missed()
    assert not absent.is_ready


def test_one_missed_look_is_an_accident_and_two_are_not(replicas: list[Replica]) -> None:
    replicas[0].missed()
    assert replicas[0].is_ready
    replicas[0].missed()
    assert not replicas[0].is_ready


def test_of_what_several_said_the_most_telling_is_told() -> None:
    gone, loading, none = ModelUnreachable("gone"), ModelUnavailable("loading"), NoModel("no weights")
    busy, busier = Overloaded("full", retry_after_s=2), Overloaded("full", retry_after_s=9)
    assert foremost([gone, busier, busy, none]) is busy
    assert foremost([gone, none, loading]) is loading
    assert foremost([gone, none]) is none
    assert foremost([gone]) is gone
