"""One model, many callers: a bounded queue of two priorities, emptied in batches by threads of its own.

Each call ends with its own result or its own exception. When a batch fails, its inputs run again one by one, so that only the
input at fault fails. Nothing is computed for a caller who has gone.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import structlog

from core.errors import ModelUnavailable, Overloaded
from core.schemas import Priority

log = structlog.get_logger()

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")


class BatchObserver(Protocol):
    """Told of every batch that ran and of every change of the queue."""

    def batch_ran(self, name: str, size: int, duration_s: float) -> None: ...

    def queue_changed(self, name: str, depth: int) -> None: ...


@dataclass(slots=True, eq=False)
class _Call(Generic[InputT, ResultT]):
    value: InputT
    answer: asyncio.Future[ResultT] = field(repr=False)


class Batcher(Generic[InputT, ResultT]):
    """Runs `run` on at most `max_batch` inputs at a time, in `threads` threads; queries overtake ingestion.

    `run` answers a list as long as its inputs, in their order. `limit` calls may wait; a further one is Overloaded.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[InputT]], Sequence[ResultT]],
        *,
        max_batch: int,
        limit: int,
        observer: BatchObserver,
        threads: int = 1,
    ) -> None:
        self.name = name
        self._run = run
        self._max_batch = max_batch
        self._limit = limit
        self._observer = observer
        self._threads = threads
        self._waiting: dict[Priority, deque[_Call[InputT, ResultT]]] = {priority: deque() for priority in Priority}
        self._wanted = asyncio.Semaphore(0)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._dispatchers: list[asyncio.Task[None]] = []
        self._running: dict[int, float] = {}
        self._closed = False

    async def __aenter__(self) -> Self:
        self._dispatchers = [asyncio.create_task(self._dispatch(n), name=f"{self.name}-{n}") for n in range(self._threads)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Refuse new calls and answer those that wait: those in a batch get their result, the others ModelUnavailable."""
        self._closed = True
        for calls in self._waiting.values():
            while calls:
                _fail(calls.popleft(), ModelUnavailable("the model service is stopping"))
        for _ in self._dispatchers:
            self._wanted.release()
        await asyncio.gather(*self._dispatchers)
        self._executor.shutdown(wait=False)

    @property
    def depth(self) -> int:
        """Calls that wait."""
        return sum(len(calls) for calls in self._waiting.values())

    @property
    def busy_s(self) -> float:
        """How long the longest batch in progress has been running."""
        return time.monotonic() - min(self._running.values()) if self._running else 0.0

    async def submit(self, value: InputT, priority: Priority) -> ResultT:
        """Wait for this input's result. Raises Overloaded, ModelUnavailable when stopping, and whatever `run` raises for this input."""
        if self._closed:
            raise ModelUnavailable("the model service is stopping")
        if self.depth >= self._limit:
            raise Overloaded("the model service has more to do than it can take", retry_after_s=2.0)
        call = _Call[InputT, ResultT](value, asyncio.get_running_loop().create_future())
        self._waiting[priority].append(call)
        self._observer.queue_changed(self.name, self.depth)
        self._wanted.release()
        return await call.answer

    async def _dispatch(self, number: int) -> None:
        """Until closed: take what waits, run it, answer it."""
        while not self._closed:
            await self._wanted.acquire()
            calls = self._take()
            self._observer.queue_changed(self.name, self.depth)
            if not calls:
                continue
            self._running[number] = time.monotonic()
            try:
                await self._answer(calls)
            finally:
                del self._running[number]

    def _take(self) -> list[_Call[InputT, ResultT]]:
        taken: list[_Call[InputT, ResultT]] = []
        for priority in (Priority.QUERY, Priority.INGEST):
            waiting = self._waiting[priority]
            while waiting and len(taken) < self._max_batch:
                call = waiting.popleft()
                if not call.answer.done():  # its caller may have gone
                    taken.append(call)
        return taken

    async def _answer(self, calls: list[_Call[InputT, ResultT]]) -> None:
        try:
            results = await self._execute(calls)
        except asyncio.CancelledError:
            for call in calls:
                _fail(call, ModelUnavailable("the model service is stopping"))
            raise
        except BaseException as error:  # noqa: BLE001 - the caller's, whatever it is: panics of native code derive from BaseException
            await self._after_failure(calls, error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return
        for call, result in zip(calls, results, strict=True):
            if not call.answer.done():
                call.answer.set_result(result)

    async def _after_failure(self, calls: list[_Call[InputT, ResultT]], error: Exception) -> None:
        """Of several inputs run each by itself; the one that fails alone is the one at fault."""
        if len(calls) == 1:
            _fail(calls[0], error)
            return
        log.warning("batch_failed", model=self.name, size=len(calls), error=repr(error))
        for call in calls:
            if not call.answer.done():
                await self._answer([call])

    async def _execute(self, calls: list[_Call[InputT, ResultT]]) -> Sequence[ResultT]:
        started = time.perf_counter()
        results = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, [call.value for call in calls])
        self._observer.batch_ran(self.name, len(calls), time.perf_counter() - started)
        if len(results) != len(calls):
            raise RuntimeError(f"{self.name} answered {len(results)} results for {len(calls)} inputs")
        return results


def _fail(call: _Call[InputT, ResultT], error: Exception) -> None:
    if not call.answer.done():
        call.answer.set_exception(error)
