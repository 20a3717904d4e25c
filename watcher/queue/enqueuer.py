"""Sends a task for each pending image, and keeps no more of them in the broker than workers need at hand. The ledger is the truth."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import suppress

import structlog

from core.errors import Unavailable
from watcher import jobs
from watcher.ledger import Operations
from watcher.metrics import IngestionMetrics
from watcher.queue import tasks
from watcher.queue.broker import Broker
from watcher.queue.metrics import QueueMetrics
from watcher.queue.tasks import Demand, Sent, Task
from watcher.worker import Worker

log = structlog.get_logger()

_WINDOW = 1000
"""Tasks that wait in the broker at most: enough for seconds, so that a broker holds little and loses little."""

_BATCH = 200
_IDLE_S = 0.5
_LOOK_S = 2.0
_GRACE_S = 5.0
"""A task that the broker does not hold for longer than this was lost, or is with a worker that died before it looked at it; one that a
worker was just given is taken by then."""

_RATED_AHEAD_S = 2.0


class Enqueuer:
    """Of all processes the one that has the watch runs it: so `rate_per_s` is that of all workers together, 0 for none."""

    def __init__(self, broker: Broker, metrics: QueueMetrics, ingestion: IngestionMetrics, *, rate_per_s: float) -> None:
        self._broker = broker
        self._metrics = metrics
        self._ingestion = ingestion
        self._held = 0
        self._window = min(_WINDOW, math.ceil(rate_per_s * _RATED_AHEAD_S)) if rate_per_s else _WINDOW
        self._rate_per_s = rate_per_s
        self._allowed = 1.0
        self._allowed_at = self._looked_at = time.monotonic()
        self._doubted: dict[Sent, float] = {}
        """What the broker did not hold at the last look, and since when."""

    async def run(self, worker: Worker, ledger: Operations) -> None:
        """Send and look after what was sent, for ever. `worker` ingests nothing here: it knows the models, wakes, and tells of outages."""
        self._held = 0
        self._doubted = {}
        while True:
            try:
                await worker.models()
                full = await self._send_pending(ledger, jobs.above(new_alone=worker.takes_new_alone))
                await self._look_after(ledger)
            except Unavailable as error:
                await asyncio.sleep(worker.outage.note(error))
            else:
                worker.outage.over()
                await worker.sleep(0 if full else _IDLE_S)

    async def _send_pending(self, ledger: Operations, above: int) -> bool:
        """Whether there may be more to send at once."""
        held = await ledger.run(tasks.count)
        self._ingestion.note_taken_elsewhere(max(0, self._held - held))
        self._held = held
        room = self._window - held
        most = min(_BATCH, self._allowance())
        if not most:
            return False
        demand = Demand(room=min(room, most), most=most, above=above)
        entered = await ledger.run(tasks.enter, demand, ledger.now())
        self._held += len(entered)
        self._allowed -= len(entered) if self._rate_per_s else 0
        await self._send(ledger, entered)
        return len(entered) == most

    def _allowance(self) -> int:
        if not self._rate_per_s:
            return _BATCH
        now = time.monotonic()
        self._allowed = min(self._allowed + (now - self._allowed_at) * self._rate_per_s, max(1.0, self._rate_per_s))
        self._allowed_at = now
        return int(self._allowed)

    async def _send(self, ledger: Operations, entered: list[Task]) -> None:
        """Raises Unavailable where the broker did not take all of them."""
        sent = await self._broker.send(entered) if entered else 0
        self._metrics.note_sent(sent)
        if sent < len(entered):
            with suppress(Unavailable):  # then they count as lost by and by
                await ledger.run(tasks.unsent, [task.image_id for task in entered[sent:]])
            raise Unavailable("the broker does not answer now", retry_after_s=1)

    async def _look_after(self, ledger: Operations) -> None:
        """What the broker lost, all at once or in part, is sent again. Sent twice is no harm: a worker finds nothing left to do."""
        if time.monotonic() - self._looked_at < _LOOK_S:
            return
        waiting = await self._broker.waiting()
        self._metrics.note_waiting(waiting)
        lost = await self._lost(ledger, waiting)
        if lost:
            again = await ledger.run(tasks.renew, lost[:_BATCH], ledger.now())
            log.warning("tasks_lost", count=len(lost), sent_again=len(again))
            self._metrics.note_lost(len(again))
            await self._send(ledger, again)
        if len(lost) <= _BATCH:
            self._looked_at = time.monotonic()

    async def _lost(self, ledger: Operations, waiting: int) -> list[Sent]:
        """What is not among the `waiting` since its grace began: a broker hands tasks out in order, so the first that are out are it."""
        out = await ledger.run(tasks.count_out)
        first = await ledger.run(tasks.first_out, out - waiting) if out > waiting else []
        now = time.monotonic()
        self._doubted = {sent: self._doubted.get(sent, now) for sent in first}
        return [sent for sent, since in self._doubted.items() if now - since >= _GRACE_S]
