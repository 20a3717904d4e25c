"""One thread for all inference, fed in batches across callers; queries overtake ingestion.

One thread, because the runtimes use every core by themselves: two models at once would only fight for them. A batch is whatever
waits at that moment for one model, up to its limit, so a lone query never waits for company and a crowd is never served singly.
A batch of ingestion is also bounded in time, by how long the model took before: a query that comes meanwhile waits for no more.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from core.errors import ModelUnavailable
from core.schemas import Priority
from model_service.metrics import InferenceMetrics

LONGEST_INGEST_S = 0.06
"""What a query may have to wait for, in seconds."""

_FIRST_BATCH = 4

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


@dataclass(frozen=True, eq=False, slots=True)
class BatchModel(Generic[InputT, OutputT]):
    """A function over batches. `call` must return one output an input, in input order."""

    name: str
    call: Callable[[Sequence[InputT]], Sequence[OutputT]]
    max_batch: int


@dataclass(frozen=True, eq=False, slots=True)
class _Waiting:
    input: Any
    answer: asyncio.Future[Any]
    since: float


class Dispatcher:
    """Owns the inference thread. Every submitted input ends in a result or an exception, also when the dispatcher stops."""

    def __init__(self, metrics: InferenceMetrics, *, longest_ingest_s: float = LONGEST_INGEST_S) -> None:
        self._metrics = metrics
        self._longest_ingest_s = longest_ingest_s
        self._most: dict[BatchModel[Any, Any], int] = {}
        """How many inputs a batch of ingestion may have, by model, as far as it was tried."""
        self._queues: dict[Priority, dict[BatchModel[Any, Any], deque[_Waiting]]] = {Priority.QUERY: {}, Priority.INGEST: {}}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self._arrived = asyncio.Event()
        self._dispatching: asyncio.Task[None] | None = None
        for priority in Priority:
            metrics.follow_queue(priority, depth=partial(self._depth, priority), age_s=partial(self._age_s, priority))

    async def __aenter__(self) -> Self:
        self._dispatching = asyncio.create_task(self._dispatch(), name="dispatch")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._dispatching is not None:
            self._dispatching.cancel()
            with suppress(asyncio.CancelledError):
                await self._dispatching
        self._thread.shutdown(wait=False, cancel_futures=True)
        for waiting in [one for queues in self._queues.values() for queue in queues.values() for one in queue]:
            _fail(waiting, ModelUnavailable("the model service is stopping"))

    async def submit(self, model: BatchModel[InputT, OutputT], inputs: Sequence[InputT], priority: Priority) -> list[OutputT]:
        """Results in input order. Raises what the model raised for the first of these inputs that failed."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(one, loop.create_future(), time.monotonic()) for one in inputs]
        self._queues[priority].setdefault(model, deque()).extend(waiting)
        self._arrived.set()
        answers = await asyncio.gather(*(one.answer for one in waiting), return_exceptions=True)
        outputs: list[OutputT] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            outputs.append(answer)
        return outputs

    def forget(self, models: Iterable[BatchModel[Any, Any]]) -> None:
        """Keep nothing of models that are no longer needed; what still waits for them is answered yet."""
        for model in models:
            self._most.pop(model, None)
            for queues in self._queues.values():
                if not queues.get(model, True):
                    del queues[model]

    async def _dispatch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            model, batch = self._next_batch()
            if model is None:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            started = time.perf_counter()
            try:
                outcomes = await loop.run_in_executor(self._thread, _outcomes, model, [one.input for one in batch])
            except asyncio.CancelledError:
                for one in batch:
                    _fail(one, ModelUnavailable("the model service is stopping"))
                raise
            took_s = time.perf_counter() - started
            failed = sum(isinstance(outcome, Exception) for outcome in outcomes)
            self._metrics.observe_batch(model.name, len(batch), took_s, failed=failed)
            self._note_time(model, len(batch), took_s)
            for one, outcome in zip(batch, outcomes, strict=True):
                _resolve(one, outcome)

    def _next_batch(self) -> tuple[BatchModel[Any, Any] | None, list[_Waiting]]:
        """Queries before ingestion; among models, the one whose head has waited longest. Inputs that nobody awaits are dropped."""
        for priority, queues in self._queues.items():
            for queue in queues.values():
                while queue and queue[0].answer.done():
                    queue.popleft()
            heads = [(queue[0].since, position, model) for position, (model, queue) in enumerate(queues.items()) if queue]
            if heads:
                model = min(heads)[2]
                batch = _take(queues[model], model.max_batch if priority is Priority.QUERY else self._most_of(model))
                now = time.monotonic()
                for one in batch:
                    self._metrics.observe_wait(priority, now - one.since)
                return model, batch
        return None, []

    def _most_of(self, model: BatchModel[Any, Any]) -> int:
        return self._most.get(model, min(_FIRST_BATCH, model.max_batch))

    def _note_time(self, model: BatchModel[Any, Any], size: int, took_s: float) -> None:
        """Allow more where a batch left time, and fewer where it took too long; a slow moment is made up for by the next quick ones."""
        most = self._most_of(model)
        if took_s > self._longest_ingest_s:
            self._most[model] = max(1, min(most, int(size * self._longest_ingest_s / took_s)))
        elif size >= most:
            more = most if 2 * took_s <= self._longest_ingest_s else 1
            self._most[model] = min(model.max_batch, most + more)

    def _waiting(self, priority: Priority) -> Iterator[_Waiting]:
        return (one for queue in self._queues[priority].values() for one in queue if not one.answer.done())

    def _depth(self, priority: Priority) -> int:
        return sum(1 for _ in self._waiting(priority))

    def _age_s(self, priority: Priority) -> float:
        now = time.monotonic()
        return max((now - one.since for one in self._waiting(priority)), default=0.0)


def _take(queue: deque[_Waiting], most: int) -> list[_Waiting]:
    batch: list[_Waiting] = []
    while queue and len(batch) < most:
        one = queue.popleft()
        if not one.answer.done():
            batch.append(one)
    return batch


def _outcomes(model: BatchModel[Any, Any], inputs: list[Any]) -> list[Any]:
    """An output or the exception of each input. A batch that fails is run again one by one, so that a bad input fails alone."""
    try:
        outputs = list(model.call(inputs))
    except Exception as error:  # noqa: BLE001 - handed to whoever waits for this input
        if len(inputs) == 1:
            return [error]
        return [_outcomes(model, [one])[0] for one in inputs]
    if len(outputs) != len(inputs):
        return [RuntimeError(f"{model.name} gave {len(outputs)} outputs for {len(inputs)} inputs")] * len(inputs)
    return outputs


def _resolve(waiting: _Waiting, outcome: Any) -> None:
    if isinstance(outcome, Exception):
        _fail(waiting, outcome)
    elif not waiting.answer.done():
        waiting.answer.set_result(outcome)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
