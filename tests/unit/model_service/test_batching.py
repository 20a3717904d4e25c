"""Batches across callers, as many passes at once as there are cores for, queries first, everybody answered."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from core.errors import ModelUnavailable
from core.schemas import Priority
from model_service.batching import BatchModel, Dispatcher
from model_service.metrics import InferenceMetrics


def _dispatcher() -> Dispatcher:
    return Dispatcher(InferenceMetrics(CollectorRegistry()), longest_pass_s=60)


class Recorder:
    """Doubles numbers and refuses negative ones; remembers the batches; can be held shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.gate.wait(10)
        self.batches.append(list(numbers))
        if any(number < 0 for number in numbers):
            raise ValueError(f"{min(numbers)} is negative")
        return [2 * number for number in numbers]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 40), max_size=6), max_size=30), st.integers(1, 8))
async def test_each_caller_gets_its_own_results_however_many_inputs_fail(requests: list[list[int]], max_batch: int) -> None:
    recorder = Recorder()
    model = BatchModel("doubler", recorder, max_batch)
    async with _dispatcher() as dispatcher:
        answers = await asyncio.gather(
            *(dispatcher.submit(model, numbers, Priority.INGEST) for numbers in requests), return_exceptions=True
        )
    for numbers, answer in zip(requests, answers, strict=True):
        if any(number < 0 for number in numbers):
            assert isinstance(answer, ValueError)
        else:
            assert answer == [2 * number for number in numbers]
    assert all(len(batch) <= max_batch for batch in recorder.batches)


async def test_what_waits_at_the_same_time_goes_in_one_batch_and_queries_go_first() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    model = BatchModel("doubler", recorder, 8)
    async with Dispatcher(InferenceMetrics(CollectorRegistry()), longest_pass_s=60, longest_ingest_s=60) as dispatcher:
        first = asyncio.create_task(dispatcher.submit(model, [0], Priority.INGEST))
        await asyncio.sleep(0.05)
        ingestion = [asyncio.create_task(dispatcher.submit(model, [n], Priority.INGEST)) for n in range(1, 11)]
        query = asyncio.create_task(dispatcher.submit(model, [99], Priority.QUERY))
        await asyncio.sleep(0.05)
        recorder.gate.set()
        await asyncio.gather(first, query, *ingestion)
    assert recorder.batches == [[0], [99], [1, 2, 3, 4], [5, 6, 7, 8, 9, 10]]


async def test_a_batch_of_ingestion_takes_no_longer_than_a_query_may_wait_and_one_of_queries_is_whole() -> None:
    batches: list[int] = []

    def slow(numbers: Sequence[int]) -> list[int]:
        batches.append(len(numbers))
        time.sleep(0.02 * len(numbers))
        return list(numbers)

    model = BatchModel("slow", slow, 16)
    async with Dispatcher(InferenceMetrics(CollectorRegistry()), longest_pass_s=60, longest_ingest_s=0.1) as dispatcher:
        await dispatcher.submit(model, list(range(40)), Priority.INGEST)
        ingested = list(batches)
        batches.clear()
        await dispatcher.submit(model, list(range(12)), Priority.QUERY)
    assert sum(ingested) == 40
    assert max(ingested) <= 5
    assert batches == [12]


async def test_a_slow_moment_is_made_up_for_and_what_costs_the_same_for_many_is_given_many() -> None:
    batches: list[int] = []

    def steady(numbers: Sequence[int]) -> list[int]:
        batches.append(len(numbers))
        time.sleep(0.5 if len(batches) == 1 else 0.02)
        return list(numbers)

    model = BatchModel("steady", steady, 16)
    async with Dispatcher(InferenceMetrics(CollectorRegistry()), longest_pass_s=60, longest_ingest_s=0.1) as dispatcher:
        await dispatcher.submit(model, list(range(100)), Priority.INGEST)
    assert batches[:2] == [4, 1]
    assert max(batches) == 16


async def test_a_query_to_one_model_overtakes_ingestion_in_another() -> None:
    order: list[str] = []
    gate = threading.Event()

    def named(name: str) -> BatchModel[int, int]:
        def call(numbers: Sequence[int]) -> list[int]:
            order.append(name)  # when it begins: two that run beside each other end in any order
            gate.wait(10)
            return list(numbers)

        return BatchModel(name, call, 1)

    slow, quick = named("ingestion"), named("query")
    async with _dispatcher() as dispatcher:
        tasks = [asyncio.create_task(dispatcher.submit(slow, [1, 2, 3], Priority.INGEST))]
        await asyncio.sleep(0.05)
        tasks.append(asyncio.create_task(dispatcher.submit(quick, [1], Priority.QUERY)))
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.gather(*tasks)
    assert order == ["ingestion", "query", "ingestion", "ingestion"]


class Passes:
    """A model whose passes last until they are let go; tells how many run at once."""

    def __init__(self, at_once: int) -> None:
        self.gate = threading.Event()
        self.running = 0
        self.most = 0
        self._counting = threading.Lock()
        self.model = BatchModel(f"of {at_once}", self._call, 1, at_once)

    def _call(self, numbers: Sequence[int]) -> list[int]:
        with self._counting:
            self.running += 1
            self.most = max(self.most, self.running)
        self.gate.wait(10)
        with self._counting:
            self.running -= 1
        return list(numbers)


async def test_as_many_passes_run_at_once_as_their_model_allows_and_share_the_cores() -> None:
    passes = Passes(3)
    async with _dispatcher() as dispatcher:
        work = asyncio.create_task(dispatcher.submit(passes.model, list(range(9)), Priority.INGEST))
        await until(lambda: passes.running == 3)
        passes.gate.set()
        assert await work == list(range(9))
    assert passes.most == 3


@pytest.mark.parametrize(("first", "second", "together"), [(1, 1, False), (1, 2, False), (2, 1, False), (2, 2, True)])
async def test_passes_of_ingestion_through_two_models_never_want_more_than_the_cores(
    first: int, second: int, together: bool
) -> None:
    one, other = Passes(first), Passes(second)
    async with _dispatcher() as dispatcher:
        work = [asyncio.create_task(dispatcher.submit(one.model, [1], Priority.INGEST))]
        await until(lambda: one.running == 1)
        work.append(asyncio.create_task(dispatcher.submit(other.model, [2], Priority.INGEST)))
        if together:
            await until(lambda: other.running == 1)
        else:
            await asyncio.sleep(0.05)
            assert other.running == 0
            one.gate.set()
            await until(lambda: other.running == 1)
        one.gate.set()
        other.gate.set()
        assert await asyncio.gather(*work) == [[1], [2]]


async def test_a_query_begins_beside_the_passes_of_ingestion_and_no_further_one_begins_until_it_is_answered() -> None:
    ingested, asked = Passes(2), Passes(1)
    async with _dispatcher() as dispatcher:
        work = [asyncio.create_task(dispatcher.submit(ingested.model, [1, 2], Priority.INGEST))]
        await until(lambda: ingested.running == 2)
        work.append(asyncio.create_task(dispatcher.submit(asked.model, [3], Priority.QUERY)))
        await until(lambda: asked.running == 1)
        work.append(asyncio.create_task(dispatcher.submit(ingested.model, [4], Priority.INGEST)))
        ingested.gate.set()
        await until(lambda: ingested.running == 0)
        await asyncio.sleep(0.05)
        assert ingested.running == 0
        ingested.gate.clear()
        asked.gate.set()
        await until(lambda: ingested.running == 1)
        ingested.gate.set()
        assert await asyncio.gather(*work) == [[1, 2], [3], [4]]


async def test_a_query_to_a_model_that_ingestion_fills_is_next() -> None:
    passes = Passes(2)
    async with _dispatcher() as dispatcher:
        ingestion = asyncio.create_task(dispatcher.submit(passes.model, [1, 2, 3, 4], Priority.INGEST))
        await until(lambda: passes.running == 2)
        query = asyncio.create_task(dispatcher.submit(passes.model, [9], Priority.QUERY))
        await asyncio.sleep(0.05)
        assert passes.running == 2
        passes.gate.set()
        assert await query == [9]
        assert await ingestion == [1, 2, 3, 4]
    assert passes.most == 2


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.002)


async def test_a_model_that_returns_too_few_outputs_fails_its_callers_instead_of_shifting_results() -> None:
    model: BatchModel[int, int] = BatchModel("short", lambda numbers: list(numbers)[1:], 8)
    async with _dispatcher() as dispatcher:
        with pytest.raises(RuntimeError, match="1 outputs for 2 inputs"):
            await dispatcher.submit(model, [1, 2], Priority.QUERY)


class Panic(BaseException):
    """As what a library in Rust raises: no Exception."""


@pytest.mark.parametrize("raised", [Panic, StopIteration, SystemExit])
async def test_whatever_a_model_raises_it_fails_the_input_that_it_was_raised_for_and_no_other(
    raised: type[BaseException],
) -> None:
    def call(numbers: Sequence[int]) -> list[int]:
        if -1 in numbers:
            raise raised
        return list(numbers)

    model = BatchModel("odd", call, 8)
    async with _dispatcher() as dispatcher, asyncio.timeout(5):
        asked = [dispatcher.submit(model, [number], Priority.QUERY) for number in (1, -1, 2)]
        one, odd, two = await asyncio.gather(*asked, return_exceptions=True)
        assert (one, two) == ([1], [2])
        assert isinstance(odd, RuntimeError)
        assert await dispatcher.submit(model, [3], Priority.QUERY) == [3]


async def test_where_no_thread_can_be_started_callers_are_told_and_none_hangs() -> None:
    model: BatchModel[int, int] = BatchModel("echo", list, 8)
    async with _dispatcher() as dispatcher, asyncio.timeout(5):
        before = threading.stack_size(2**46)  # more than there are addresses
        try:
            with pytest.raises(ModelUnavailable, match="thread"):
                await dispatcher.submit(model, [1], Priority.QUERY)
        finally:
            threading.stack_size(before)
        assert await dispatcher.submit(model, [2], Priority.QUERY) == [2]


class Weights:
    """A model that can be held shut, and of which one can see whether anybody holds it."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.gate.wait(10)
        return list(numbers)


@pytest.mark.parametrize("priority", list(Priority))
async def test_a_model_that_is_let_go_of_while_it_is_used_is_held_by_nobody_afterwards(priority: Priority) -> None:
    weights = Weights()
    held, gate = weakref.ref(weights), weights.gate
    model = BatchModel("let go of", weights, 1)
    async with _dispatcher() as dispatcher:
        asked = [asyncio.create_task(dispatcher.submit(model, [n], priority)) for n in range(3)]
        del model, weights
        await asyncio.sleep(0.05)
        gate.set()
        assert await asyncio.gather(*asked) == [[0], [1], [2]]
        asked.clear()
        await until(lambda: gc.collect() >= 0 and held() is None)


async def test_inputs_that_nobody_waits_for_any_more_are_not_computed() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    model = BatchModel("doubler", recorder, 1)
    async with _dispatcher() as dispatcher:
        first = asyncio.create_task(dispatcher.submit(model, [1], Priority.INGEST))
        await asyncio.sleep(0.05)
        given_up = asyncio.create_task(dispatcher.submit(model, [2], Priority.INGEST))
        await asyncio.sleep(0.05)
        given_up.cancel()
        last = asyncio.create_task(dispatcher.submit(model, [3], Priority.INGEST))
        await asyncio.sleep(0.05)
        recorder.gate.set()
        assert await asyncio.gather(first, last) == [[2], [6]]
    assert recorder.batches == [[1], [3]]


async def test_whoever_still_waits_when_it_stops_is_told() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    model = BatchModel("doubler", recorder, 1)
    async with _dispatcher() as dispatcher:
        waiting = [asyncio.create_task(dispatcher.submit(model, [n], Priority.INGEST)) for n in range(3)]
        await asyncio.sleep(0.05)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    recorder.gate.set()
    assert [type(answer) for answer in answers] == [ModelUnavailable] * 3


async def test_whoever_comes_after_its_end_is_told() -> None:
    model: BatchModel[int, int] = BatchModel("echo", list, 8)
    async with _dispatcher() as dispatcher:
        pass
    async with asyncio.timeout(5):
        with pytest.raises(ModelUnavailable):
            await dispatcher.submit(model, [1], Priority.QUERY)


async def test_what_waits_is_counted_and_timed_by_priority_until_it_is_taken() -> None:
    registry = CollectorRegistry()
    recorder = Recorder()
    recorder.gate.clear()
    model = BatchModel("doubler", recorder, 2)

    def sample(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    async with Dispatcher(InferenceMetrics(registry), longest_pass_s=60) as dispatcher:
        running = asyncio.create_task(dispatcher.submit(model, [1, 2], Priority.QUERY))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(dispatcher.submit(model, [3, 4, -5], Priority.INGEST))
        while sample("model_queue_depth", priority="ingest") != 3:
            await asyncio.sleep(0)
        seen = time.monotonic()
        await asyncio.sleep(0.05)
        assert sample("model_queue_depth", priority="query") == 0
        waited_s = time.monotonic() - seen
        assert waited_s <= (sample("model_queue_age_seconds", priority="ingest") or 0) < waited_s + 5
        assert sample("model_queue_age_seconds", priority="query") == 0
        recorder.gate.set()
        await running
        with pytest.raises(ValueError, match="negative"):
            await waiting
        assert sample("model_queue_depth", priority="ingest") == 0
    assert sample("model_queue_wait_seconds_count", priority="ingest") == 3
    assert sample("model_queue_wait_seconds_count", priority="query") == 2
    assert sample("model_batch_size_sum", model="doubler") == 5
    assert sample("model_inference_seconds_count", model="doubler") == 3
    assert sample("model_inference_failures_total", model="doubler") == 1


async def test_nobody_is_counted_as_waiting_who_went_away() -> None:
    registry = CollectorRegistry()
    recorder = Recorder()
    recorder.gate.clear()
    model = BatchModel("doubler", recorder, 1)
    async with Dispatcher(InferenceMetrics(registry), longest_pass_s=60) as dispatcher:
        callers = [asyncio.create_task(dispatcher.submit(model, [n], Priority.QUERY)) for n in range(4)]
        await asyncio.sleep(0.01)
        for caller in callers[1:]:
            caller.cancel()
        await asyncio.gather(*callers[1:], return_exceptions=True)
        assert registry.get_sample_value("model_queue_depth", {"priority": "query"}) == 0
        recorder.gate.set()
        assert await callers[0] == [0]
