"""Passes through models, fed in batches across callers; queries overtake ingestion.

A batch is whatever waits at that moment for one model, up to its limit, so a lone query never waits for company and a crowd is never
served singly. A model says how many passes through it may run at once; each then takes that share of the cores. Of ingestion, no more
passes run than there are cores for, and none begins while a query waits or is answered; queries are counted among themselves, and so
begin at once beside the passes of ingestion that run, unless they want the very model that these fill. A batch of ingestion is also
bounded in time, by how long the model took before: a query that has to wait for one waits no longer.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import WeakKeyDictionary

from core.errors import ModelUnavailable
from core.schemas import Priority
from model_service.hanging import end_process, watch
from model_service.metrics import InferenceMetrics

LONGEST_INGEST_S = 0.06
"""What a query may have to wait for, in seconds."""

_FIRST_BATCH = 4
_MOST_THREADS = 64

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class BatchModel(Generic[InputT, OutputT]):
    """A function over batches. `call` must return one output an input, in input order; so many threads may call it `at_once`."""

    name: str
    call: Callable[[Sequence[InputT]], Sequence[OutputT]]
    max_batch: int
    at_once: int = 1


@dataclass(frozen=True, eq=False, slots=True)
class _Waiting:
    input: Any
    answer: asyncio.Future[Any]
    since: float


class Dispatcher:
    """Owns the inference threads. Every submitted input ends in a result or an exception, also when the dispatcher stops.

    It holds no model that nothing waits for, so that one that is let go of elsewhere is gone. A pass that takes longer than
    `longest_pass_s` is told to `on_hang`.
    """

    def __init__(
        self,
        metrics: InferenceMetrics,
        *,
        longest_pass_s: float,
        longest_ingest_s: float = LONGEST_INGEST_S,
        on_hang: Callable[[asyncio.Task[None]], None] = end_process,
    ) -> None:
        self._metrics = metrics
        self._longest_ingest_s = longest_ingest_s
        self._longest_pass_s = longest_pass_s
        self._on_hang = on_hang
        self._most: WeakKeyDictionary[BatchModel[Any, Any], int] = WeakKeyDictionary()
        """How many inputs a batch of ingestion may have, by model, as far as it was tried."""
        self._queues: dict[Priority, dict[BatchModel[Any, Any], deque[_Waiting]]] = {Priority.QUERY: {}, Priority.INGEST: {}}
        self._running: Counter[BatchModel[Any, Any]] = Counter()
        self._taken = dict.fromkeys(Priority, Fraction(0))
        """Shares of the cores that the running passes of each priority have."""
        self._passes: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="inference")
        self._changed = asyncio.Event()
        self._at_work: list[asyncio.Task[None]] = []
        self._stopped = False
        for priority in Priority:
            metrics.follow_queue(priority, depth=partial(self._depth, priority), age_s=partial(self._age_s, priority))

    async def __aenter__(self) -> Self:
        watching = watch(self._passes, longest_s=self._longest_pass_s, on_hang=self._on_hang)
        self._at_work = [
            asyncio.create_task(self._dispatch(), name="dispatch"),
            asyncio.create_task(watching, name="watch-passes"),
        ]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in (*self._at_work, *self._passes):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._stopped = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for waiting in [one for queues in self._queues.values() for queue in queues.values() for one in queue]:
            _fail(waiting, ModelUnavailable("the model service is stopping"))

    async def submit(self, model: BatchModel[InputT, OutputT], inputs: Sequence[InputT], priority: Priority) -> list[OutputT]:
        """Results in input order. Raises what the model raised for the first of these inputs that failed; ModelUnavailable after the end."""
        if self._stopped:
            raise ModelUnavailable("the model service is stopping")
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(one, loop.create_future(), time.monotonic()) for one in inputs]
        self._queues[priority].setdefault(model, deque()).extend(waiting)
        self._changed.set()
        answers = await asyncio.gather(*(one.answer for one in waiting), return_exceptions=True)
        outputs: list[OutputT] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            outputs.append(answer)
        return outputs

    async def _dispatch(self) -> None:
        while True:
            self._changed.clear()
            while self._begin_next():
                pass
            await self._changed.wait()

    # --- which pass is next

    def _begin_next(self) -> bool:
        """Queries before ingestion; among models, the one whose head has waited longest. False when nothing more may begin now."""
        if self._begin_one(Priority.QUERY):
            return True
        if self._taken[Priority.QUERY] or any(self._waiting(Priority.QUERY)):
            return False
        return self._begin_one(Priority.INGEST)

    def _begin_one(self, priority: Priority) -> bool:
        queues = self._queues[priority]
        for model, queue in list(queues.items()):
            while queue and queue[0].answer.done():  # nobody awaits it any more
                queue.popleft()
            if not queue:
                del queues[model]
        heads = [(queue[0].since, n, model) for n, (model, queue) in enumerate(queues.items()) if self._fits(model, priority)]
        if not heads:
            return False
        model = min(heads)[2]
        batch = _take(queues[model], model.max_batch if priority is Priority.QUERY else self._most_of(model))
        now = time.monotonic()
        for one in batch:
            self._metrics.observe_wait(priority, now - one.since)
        self._running[model] += 1
        self._taken[priority] += Fraction(1, model.at_once)
        task = asyncio.create_task(self._pass(model, batch, priority), name=f"pass-{model.name}")
        self._passes.add(task)
        task.add_done_callback(self._passes.discard)
        return True

    def _fits(self, model: BatchModel[Any, Any], priority: Priority) -> bool:
        return self._running[model] < model.at_once and self._taken[priority] + Fraction(1, model.at_once) <= 1

    # --- a pass

    async def _pass(self, model: BatchModel[Any, Any], batch: list[_Waiting], priority: Priority) -> None:
        started = time.perf_counter()
        inputs = [one.input for one in batch]
        try:
            outcomes = await asyncio.get_running_loop().run_in_executor(self._threads, _outcomes, model, inputs)
        except asyncio.CancelledError:
            for one in batch:
                _fail(one, ModelUnavailable("the model service is stopping"))
            raise
        except RuntimeError:  # of the threads; a model's own is among the outcomes
            for one in batch:
                _fail(one, ModelUnavailable("no thread can be started for the models"))
            return
        finally:
            self._running[model] -= 1
            if not self._running[model]:
                del self._running[model]
            self._taken[priority] -= Fraction(1, model.at_once)
            self._changed.set()
        took_s = time.perf_counter() - started
        failed = sum(isinstance(outcome, Exception) for outcome in outcomes)
        self._metrics.observe_batch(model.name, len(batch), took_s, failed=failed)
        self._note_time(model, len(batch), took_s)
        for one, outcome in zip(batch, outcomes, strict=True):
            _resolve(one, outcome)

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
    except BaseException as error:  # noqa: BLE001 - handed to whoever waits for this input; a panic in Rust is no Exception
        if len(inputs) == 1:
            waitable = isinstance(error, Exception) and not isinstance(error, StopIteration)
            return [error if waitable else RuntimeError(f"{model.name} failed: {error!r}")]
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
