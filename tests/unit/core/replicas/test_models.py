"""Several model services as one: whatever some of them suffer from, each query has its answer, and none is asked more than it can bear."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from core.errors import ImageRejected, ModelCrashed, ModelsDiffer, ModelUnavailable, ModelUnreachable, Overloaded, Reason
from core.model_client import ModelClient
from core.replicas.addresses import embedder_at
from core.replicas.models import ReplicatedModels
from core.replicas.race import HEDGE_SHARE, RETRY_SHARE
from core.schemas import Priority
from tests.unit.core.replicas.fakes import PICTURE, Ailment, Ward, ward

_QUICK = [one for one in Ailment if one not in {Ailment.NONE, Ailment.SLOW, Ailment.HANGS, Ailment.DRAINS}]


async def _until_seen(among: Ward, *, ready: int) -> None:
    """Wait until the client knows of so many that they are ready."""
    async with asyncio.timeout(10):
        while sum(replica.is_ready for replica in among.models.replicas) != ready:
            await asyncio.sleep(0.01)


def test_one_service_is_asked_without_any_of_this_and_several_are_balanced_over() -> None:
    assert type(embedder_at(("http://a:1",), CollectorRegistry())) is ModelClient
    assert type(embedder_at(("http://a:1", "http://b:1"), CollectorRegistry())) is ReplicatedModels


# --- balance


async def test_each_gets_about_as_much_as_the_others(rng: random.Random) -> None:
    async with ward(4, rng) as among:
        for replica in among.replicas:
            replica.delay_s = 0.002
        await among.embed_many(400, at_once=12)
        assert min(replica.asked for replica in among.replicas) > 50
        assert max(replica.most_in_flight for replica in among.replicas) <= 8


async def test_one_that_is_slower_gets_less_and_is_not_heaped_upon(rng: random.Random) -> None:
    async with ward(4, rng) as among:
        slow, *others = among.replicas
        slow.delay_s = 0.1
        for replica in others:
            replica.delay_s = 0.005
        await among.embed_many(600, at_once=24)
        assert slow.asked < min(replica.asked for replica in others) / 2
        assert slow.most_in_flight <= 12, "of the 24 at once, a half at most"


# --- ailments


@pytest.mark.parametrize("ailment", _QUICK)
async def test_what_one_of_three_suffers_from_is_seen_by_no_query(rng: random.Random, ailment: Ailment) -> None:
    async with ward(3, rng) as among:
        await among.embed_many(30)
        await among.replicas[0].fall(ailment)
        before = among.replicas[0].asked
        await among.embed_many(200)
        assert among.replicas[0].asked - before < 60, "it is found out, and asked less"
        await among.replicas[0].fall(Ailment.NONE)
        await _until_seen(among, ready=3)
        before = among.replicas[0].asked
        async with asyncio.timeout(10):
            while among.replicas[0].asked < before + 30:
                await among.embed_many(10)


async def test_one_that_is_about_to_end_is_left_before_it_is_gone(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        await among.embed_many(30)
        await among.replicas[0].fall(Ailment.DRAINS)
        await _until_seen(among, ready=2)
        before = among.replicas[0].asked
        await among.embed_many(100)
        assert among.replicas[0].asked == before
        for replica in among.replicas:
            await replica.fall(Ailment.DRAINS)
        await _until_seen(among, ready=0)
        await among.embed_many(20)


async def test_one_that_hangs_costs_a_moment_and_then_nothing(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        await among.embed_many(100)
        await among.replicas[0].fall(Ailment.HANGS)
        started = time.monotonic()
        await among.embed_many(100)
        assert time.monotonic() - started < 8, "where the time-out is 30 s"
        await _until_seen(among, ready=2)
        before = among.replicas[0].asked
        await among.embed_many(100)
        assert among.replicas[0].asked == before


async def test_a_query_is_answered_while_any_of_them_lives(rng: random.Random) -> None:
    async with ward(4, rng) as among:
        for replica, ailment in zip(among.replicas, [Ailment.REFUSES, Ailment.GARBAGE, Ailment.BUSY], strict=False):
            await replica.fall(ailment)
        await among.embed_many(60)


async def test_one_that_is_away_and_answers_is_asked_before_those_that_are_busy(rng: random.Random) -> None:
    async with ward(3, rng, look_every_s=0.3) as among:
        await among.embed_many(30)
        away, *others = among.replicas
        await away.fall(Ailment.DRAINS)
        await _until_seen(among, ready=2)
        for replica in others:
            await replica.fall(Ailment.BUSY)
        await among.embed_many(400, at_once=4)
        assert among.told("model_retries_total", result="denied") == 0
        assert sum(replica.asked for replica in others) < 130, "each look makes it away again, for a question or two"


async def test_where_none_is_left_that_is_said_and_then_at_once(rng: random.Random) -> None:
    async with ward(2, rng, look_every_s=30) as among:
        await among.models.info("f1")
        for replica in among.replicas:
            await replica.fall(Ailment.REFUSES)
        for _ in range(6):
            with pytest.raises(ModelUnreachable):
                await among.embed(1)
        with pytest.raises(ModelUnreachable, match="no model service answers") as refused:
            await among.embed(1)
        assert refused.value.retry_after_s >= 1
        assert among.told("model_replica_circuit_open", replica=among.replicas[0].name) == 1
        for replica in among.replicas:
            await replica.fall(Ailment.NONE)
        async with asyncio.timeout(10):
            while among.told("model_replica_circuit_open", replica=among.replicas[0].name):
                try:
                    await among.embed(1)
                except ModelUnreachable:
                    await asyncio.sleep(0.02)


# --- more is asked than can be answered


async def test_where_all_are_busy_that_is_said_with_the_least_time_to_come_back(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        for replica, after_s in zip(among.replicas, (7, 3, 9), strict=True):
            replica.ailment, replica.retry_after_s = Ailment.BUSY, after_s
        with pytest.raises(Overloaded) as refused:
            await among.embed(1)
        assert refused.value.retry_after_s == 3
        assert [replica.asked for replica in among.replicas] == [1, 1, 1]


async def test_an_overload_is_not_multiplied(rng: random.Random) -> None:
    async with ward(4, rng) as among:
        for replica in among.replicas:
            replica.ailment = Ailment.BUSY
        started, queries = time.monotonic(), 600
        for _ in range(queries):
            with pytest.raises(Overloaded):
                await among.embed(1)
        allowed = 30 + RETRY_SHARE * queries + 2 * (time.monotonic() - started)
        assert queries < among.asked <= queries + allowed + 1
        assert among.told("model_retries_total", result="denied") > 0


async def test_a_query_that_nobody_may_be_asked_for_yet_is_asked_again_as_soon_as_one_may(rng: random.Random) -> None:
    async with ward(2, rng, look_every_s=30) as among:
        await among.embed_many(100)
        for replica in among.replicas:
            replica.ailment = Ailment.BUSY
        while not among.told("model_retries_total", result="denied"):
            with pytest.raises(Overloaded):
                await among.embed(1)
        among.replicas[0].ailment = Ailment.HANGS
        among.replicas[1].ailment = Ailment.NONE
        async with asyncio.timeout(15):  # where the time-out of one is 30 s
            await among.embed_many(40, at_once=40)
        assert among.replicas[0].cancelled > 10


# --- hedges


async def test_a_slow_answer_is_asked_for_twice_and_no_more_than_a_share_of_them(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        for replica in among.replicas:
            replica.ailment, replica.slow_share, replica.slow_s = Ailment.SLOW, 0.02, 0.3
        queries = 500
        took: list[float] = []
        for number in range(queries):
            started = time.monotonic()
            await among.embed(number)
            took.append(time.monotonic() - started)
        extra = among.asked - queries
        won = among.told("model_hedges_total", result="won")
        assert 5 <= extra <= 1 + HEDGE_SHARE * queries
        assert won >= 3
        assert among.told("model_retries_total", result="moved") == 0
        assert sum(one >= 0.3 for one in took) < sum(replica.slowed for replica in among.replicas), "some were spared it"
        async with asyncio.timeout(5):
            while sum(replica.cancelled for replica in among.replicas) < won:
                await asyncio.sleep(0.01)


async def test_ingestion_is_asked_for_once_however_slow_it_is(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        for replica in among.replicas:
            replica.ailment, replica.slow_share, replica.slow_s = Ailment.SLOW, 0.1, 0.1
        await asyncio.gather(*(among.models.analyse(PICTURE, fingerprint="f1") for _ in range(100)))
        assert among.asked == 100


# --- what must not go round


@pytest.mark.parametrize("ailment", [Ailment.DIES, Ailment.BREAKS_OFF, Ailment.FAILS])
async def test_a_picture_that_ends_whoever_looks_at_it_does_not_go_round(rng: random.Random, ailment: Ailment) -> None:
    async with ward(4, rng, look_every_s=30) as among:
        await among.models.info("f1")
        for replica in among.replicas:
            replica.ailment = ailment
        with pytest.raises(ModelCrashed):
            await among.models.analyse(PICTURE, fingerprint="f1")
        assert among.asked == 1, "the ledger counts it, and asks again later"
        with pytest.raises(ModelCrashed):
            await among.models.analyse(PICTURE, priority=Priority.QUERY, fingerprint="f1")
        assert among.asked == 3


async def test_a_picture_that_is_at_fault_itself_is_refused_by_the_first(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        for replica in among.replicas:
            replica.problem = "not_an_image"
        with pytest.raises(ImageRejected) as refused:
            await among.models.analyse(PICTURE, priority=Priority.QUERY, fingerprint="f1")
        assert refused.value.reason is Reason.NOT_AN_IMAGE
        assert among.asked == 1
        assert among.told("model_replica_requests_total", replica=_asked_one(among), outcome="answered") == 1


def _asked_one(among: Ward) -> str:
    return next(replica.name for replica in among.replicas if replica.asked)


# --- deadlines


async def test_the_deadline_holds_over_all_that_is_asked(rng: random.Random) -> None:
    async with ward(3, rng, timeout_s=1.0) as among:
        for replica in among.replicas:
            replica.ailment = Ailment.HANGS
        started = time.monotonic()
        with pytest.raises(ModelUnavailable):
            await among.embed(1)
        with pytest.raises(ModelCrashed):
            await among.models.analyse(PICTURE, fingerprint="f1")
        assert time.monotonic() - started < 4


async def test_whoever_goes_away_leaves_nothing_behind(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        for replica in among.replicas:
            replica.ailment = Ailment.HANGS
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.gather(*(among.embed(number) for number in range(10)))
        async with asyncio.timeout(5):
            while any(replica.in_flight for replica in among.replicas):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        assert [replica.outstanding for replica in among.models.replicas] == [0, 0, 0]


# --- models


async def test_models_of_different_settings_are_told_of_and_neither_is_guessed(rng: random.Random) -> None:
    with capture_logs() as told:
        async with ward(3, rng) as among:
            assert (await among.models.info()).fingerprint == "f1"
            among.replicas[0].fingerprint = "f2"
            async with asyncio.timeout(5):
                while among.models.replicas[0].own != "f2":
                    await asyncio.sleep(0.01)
            for _ in range(3):
                with pytest.raises(ModelsDiffer):
                    await among.models.info()
            assert among.told("model_replicas_differ") == 1
            assert (await among.models.info("f1")).fingerprint == "f1"
            assert (await among.models.info("f2")).fingerprint == "f2"
    assert len([line for line in told if line["event"] == "models_differ"]) == 1


async def test_the_first_word_waits_until_all_were_looked_at(rng: random.Random) -> None:
    for _ in range(5):
        async with ward(2, rng) as among:
            among.replicas[1].fingerprint = "f2"
            with pytest.raises(ModelsDiffer):
                await among.models.info()


async def test_one_that_is_away_for_a_moment_still_counts(rng: random.Random) -> None:
    async with ward(2, rng) as among:
        assert (await among.models.info()).fingerprint == "f1"
        among.replicas[1].fingerprint = "f2"
        async with asyncio.timeout(5):
            while among.models.replicas[1].own != "f2":
                await asyncio.sleep(0.01)
        await among.replicas[0].fall(Ailment.REFUSES)
        await _until_seen(among, ready=1)
        with pytest.raises(ModelsDiffer):
            await among.models.info()
        among.replicas[0].fingerprint = "f2"
        await among.replicas[0].fall(Ailment.NONE)
        await _until_seen(among, ready=2)
        assert (await among.models.info()).fingerprint == "f2", "an update ended"


async def test_a_query_is_asked_of_those_that_have_its_models_and_the_others_load_them(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        old, *new = among.replicas
        for replica in new:
            replica.fingerprint = "f2"
        with pytest.raises(ModelsDiffer):
            await among.models.info()
        await among.embed_many(40)
        assert [replica.asked for replica in new] == [0, 0]
        async with asyncio.timeout(5):
            while not all("f1" in replica.loads for replica in new):
                await asyncio.sleep(0.01)
        for replica in new:
            replica.beside.add("f1")
        async with asyncio.timeout(5):
            while not all(replica.asked for replica in new):
                await among.embed_many(10)
        await old.fall(Ailment.REFUSES)
        await among.embed_many(40)


async def test_services_of_an_earlier_release_are_balanced_over_and_hedged_without_saying_what_they_have(
    rng: random.Random,
) -> None:
    async with ward(3, rng, look_every_s=30) as among:
        for replica in among.replicas:
            replica.tells_fingerprint = False
            replica.ailment, replica.slow_share, replica.slow_s = Ailment.SLOW, 0.02, 0.3
        for known in among.models.replicas:
            known.own = None
        for number in range(300):
            await among.embed(number)
        assert min(replica.asked for replica in among.replicas) > 30
        assert among.told("model_hedges_total", result="won") + among.told("model_hedges_total", result="lost") > 0


async def test_a_run_of_failures_is_told_once(rng: random.Random) -> None:
    with capture_logs() as told:
        async with ward(1, rng, look_every_s=30) as among:
            await among.models.info("f1")
            await among.replicas[0].fall(Ailment.BREAKS_OFF)
            failed = await asyncio.gather(*(among.embed(number) for number in range(20)), return_exceptions=True)
            assert all(isinstance(error, ModelUnreachable) for error in failed)
    assert len([line for line in told if line["event"] == "model_replica_left_alone"]) == 1


async def test_an_answer_by_other_models_is_none(rng: random.Random) -> None:
    async with ward(3, rng) as among:
        among.replicas[0].answers_as = among.replicas[1].answers_as = "f2"
        for _ in range(20):
            assert (await among.models.analyse(PICTURE, fingerprint="f1")).fingerprint == "f1"
        among.replicas[2].answers_as = "f2"
        with pytest.raises(ModelUnreachable):
            await among.models.analyse(PICTURE, fingerprint="f1")
