"""Twice as much as it can hold: it refuses what is too much, answers the rest in time, and loses nothing that it took."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest

from tests.e2e.agreement import Truth, disagreements
from tests.e2e.product import Product
from tests.load.clients import ACCEPTED, REFUSED, Answer, Crowd, percentile
from tests.load.held import Held, held, watched

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_SEED = int(os.environ.get("LOAD_SEED", random.SystemRandom().randrange(10**6)))
_LONGEST_S = 5.0
"""For the 99th of a hundred answers to what was accepted, uploads to a full disk cache included."""
_KEPT_S = 20.0
"""Longer than callers within the product keep a connection that they don't use: as many as were ever busy at once, while all is used."""
_MOST_CONNECTIONS = 2 * 64 + 64
"""Both ends of those to the models, and what callers have open."""
_GROWTH_MIB = 48.0
"""What allocators and caches may take between the middle and the end of a run."""


@pytest.fixture
def product(tmp_path: Path, weights: Path) -> Iterator[Product]:
    """Without limits for one client: here, all the world comes from one address."""
    environment = {"SEGMENTER": "none", "IMAGE_MODEL": "none", "LOG_LEVEL": "warning"}
    with Product(tmp_path, models_dir=weights, environment=environment) as instance:
        instance.start_and_wait()
        yield instance


async def test_at_twice_what_it_can_hold_it_sheds_the_rest_and_loses_nothing(product: Product) -> None:
    await _overloaded(product, warm_s=5, seconds=15)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_ten_minutes_at_twice_what_it_can_hold(product: Product) -> None:
    await _overloaded(product, warm_s=20, seconds=600)


@pytest.mark.long
@pytest.mark.timeout(2700)
async def test_half_an_hour_of_use_leaves_memory_handles_and_threads_as_they_were(product: Product) -> None:
    print(f"LOAD_SEED={_SEED}")
    async with Crowd(f"http://127.0.0.1:{product.port}", _SEED) as crowd:
        can_hold = _rate(await crowd.one_by_one(8, 30), 30)
        before = await _at_rest(product)
        seen: list[Held] = []
        watching = asyncio.create_task(watched(_pid(product), every_s=5, into=seen))
        answers = await crowd.at_rate(0.3 * can_hold, 1800)
        await _stopped(watching)
    await asyncio.to_thread(product.wait_until_indexed, len(crowd.uploaded), timeout_s=300)
    after = await _at_rest(product)
    _tell(answers, can_hold=can_hold, seen=seen)
    print(f"at rest: {_shown(before)}, then {_shown(after)}")
    assert {answer.status for answer in answers} <= ACCEPTED
    assert after.threads <= before.threads + 4
    assert after.handles <= before.handles + 8
    assert max(one.handles for one in seen) <= before.handles + _MOST_CONNECTIONS
    halves = [[one.own_mib for one in part] for part in (seen[len(seen) // 4 : len(seen) // 2], seen[-len(seen) // 4 :])]
    assert median(halves[1]) - median(halves[0]) < _GROWTH_MIB
    await asyncio.to_thread(_lost_nothing, product, crowd)


async def _overloaded(product: Product, *, warm_s: float, seconds: float) -> None:
    print(f"LOAD_SEED={_SEED}")
    async with Crowd(f"http://127.0.0.1:{product.port}", _SEED) as crowd:
        can_hold = _rate(await crowd.one_by_one(8, warm_s), warm_s)
        seen: list[Held] = []
        watching = asyncio.create_task(watched(_pid(product), every_s=seconds / 30, into=seen))
        answers = await crowd.at_rate(2 * can_hold, seconds)
        await _stopped(watching)
        _tell(answers, can_hold=can_hold, seen=seen)
        taken = [answer for answer in answers if answer.status in ACCEPTED]
        refused = [answer for answer in answers if answer.status in REFUSED]
        assert Counter(answer.status for answer in answers).keys() <= ACCEPTED | REFUSED
        assert refused, "it was not too much"
        assert all(answer.retry_after and answer.retry_after.isdecimal() for answer in refused)
        assert len(taken) / seconds > 0.3 * can_hold, "it does what it can while it refuses the rest"
        assert percentile(taken, 99) < _LONGEST_S
        assert percentile(refused, 99) < _LONGEST_S
        middle, end = seen[len(seen) // 3 : 2 * len(seen) // 3], seen[-len(seen) // 3 :]
        assert median(one.own_mib for one in end) - median(one.own_mib for one in middle) < _GROWTH_MIB
        began = time.monotonic()
        assert (await crowd.one_by_one(1, 0.1))[0].status in ACCEPTED, "it answers again at once"
        assert time.monotonic() - began < 2
    await asyncio.to_thread(product.wait_until_indexed, len(crowd.uploaded), timeout_s=seconds + 60)
    await asyncio.to_thread(_lost_nothing, product, crowd)


def _lost_nothing(product: Product, crowd: Crowd) -> None:
    """What was said to be taken is there, and after the end of it all, ledger, folder and vectors agree."""
    exported = product.http.get("/api/v1/feedback", timeout=120).text.splitlines()
    assert crowd.rated <= {json.loads(line)["feedback_id"] for line in exported}
    assert crowd.uploaded == Truth.of(product.images).paths_by_image.keys()
    assert product.interrupt(timeout_s=30) == 0
    assert disagreements(product.images, product.state) == []


def _rate(answers: Sequence[Answer], seconds: float) -> float:
    assert {answer.status for answer in answers} <= ACCEPTED | REFUSED
    return sum(answer.status in ACCEPTED for answer in answers) / seconds


def _pid(product: Product) -> int:
    assert product.process is not None
    return product.process.pid


async def _at_rest(product: Product) -> Held:
    await asyncio.sleep(_KEPT_S)
    return held(_pid(product))


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _tell(answers: Sequence[Answer], *, can_hold: float, seen: Sequence[Held]) -> None:
    """What is seen by `pytest -s`, and when it fails."""
    told = {f"{kind} {status}": count for (kind, status), count in sorted(Counter((a.kind, a.status) for a in answers).items())}
    for name, statuses in (("taken", ACCEPTED), ("refused", REFUSED)):
        of = [answer for answer in answers if answer.status in statuses]
        print(name, len(of), {f"p{percent}": round(percentile(of, percent), 3) for percent in (50, 95, 99)})
    print(
        json.dumps({"can_hold_per_s": round(can_hold, 1), **told, "first": _shown(seen[0]), "last": _shown(seen[-1])}, indent=1)
    )


def _shown(one: Held) -> str:
    return f"{one.pss_mib:.0f} MiB, {one.own_mib:.0f} of them no files, {one.handles} handles, {one.threads} threads"
