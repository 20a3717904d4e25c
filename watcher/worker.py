"""Drives pending images to indexed or failed: claims, a few at a time, with heartbeats, retries, and an orderly end."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import structlog

from core import tracing
from core.errors import (
    ImageRejected,
    InvalidRequest,
    ModelCrashed,
    ModelUnreachable,
    NotFound,
    Overloaded,
    Reason,
    Unavailable,
)
from core.schemas import ModelsInfo, Segment, SegmentMode
from watcher import jobs
from watcher.ingest import FileChanged, Ingest, Ingested
from watcher.jobs import Job
from watcher.ledger import Ledger
from watcher.locks import ImageLocks
from watcher.metrics import IngestionMetrics
from watcher.models import Models
from watcher.outage import Outage
from watcher.queue import tasks

log = structlog.get_logger()

_LONGEST_SLEEP_S = 60.0
_LONGEST_SLEEP_AMONG_OTHERS_S = 1.0
"""Other processes wake nobody here."""

_SUSPECTS = "suspects"
"""Among all processes one at a time is tried, so that none is blamed for another."""

_FILE_CHANGED_PAUSE_S = 1.0
_FILE_CHANGED_SHARE = 1 / 16
"""Of the time that the image is known: files on a drive that is away are not to be tried each second, before all others."""

_INFO_GOOD_FOR_S = 30.0
_CLOCK_TOLERANCE_S = 1.0


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    concurrency: int = 4
    max_attempts: int = 4
    retry_min_s: float = 1.0
    retry_max_s: float = 60.0
    outage_retry_max_s: float = 5.0
    lease_s: float = 60.0


class Worker:
    """`run` works until it is cancelled; then `drain`. `changed` tells that points were written or an image ended."""

    def __init__(
        self,
        ledger: Ledger,
        ingest: Ingest,
        locks: ImageLocks,
        metrics: IngestionMetrics,
        models: Models,
        *,
        limits: WorkerLimits,
        is_folder_missing: Callable[[], bool],
        changed: Callable[[], None],
        models_changed: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._longest_sleep_s = _LONGEST_SLEEP_AMONG_OTHERS_S if ledger.is_shared else _LONGEST_SLEEP_S
        self._ingest = ingest
        self._course = models
        self._locks = locks
        self._metrics = metrics
        self._limits = limits
        self._is_folder_missing = is_folder_missing
        self._changed = changed
        self._models_changed = models_changed
        self.outage = Outage(limits.outage_retry_max_s)
        self._info: ModelsInfo | None = None
        self._info_until = 0.0
        self._fingerprint: str | None = None
        self._in_flight: set[asyncio.Task[None]] = set()
        self._leases: dict[str, Job] = {}
        self._stranded: list[Job] = []
        self._wake = asyncio.Event()
        self._starting = asyncio.Lock()
        self._models_suspect = False
        """They failed on a picture, and were not seen to be well since."""
        self._broken_off: Counter[str] = Counter()
        """How often models went away with these pictures, which nobody may have to wait behind."""
        self._pause_s = 0.0

    @property
    def waiting_for(self) -> str | None:
        """Why ingestion stands still, if it does."""
        return self.outage.waiting_for

    @property
    def takes_new_alone(self) -> bool:
        """Whether a change of models stands still: only images that no models settled are ingested then."""
        return self._course.is_stopped

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def models_turned(self) -> None:
        """Other models may be to be indexed for."""
        self._info = None
        self._wake.set()

    async def run(self) -> None:
        """Claim and work."""
        while True:
            try:
                await self._turn()
            except Unavailable as error:
                self._info = None
                await asyncio.sleep(self.outage.note(error))
            except Exception:
                log.exception("worker_stumbled")
                await asyncio.sleep(self._limits.retry_min_s)

    async def ingest(self, image_id: str) -> None:
        """Ingest this image if it is to be, for whoever is told which ones, instead of `run`. Returns when that ended, either way."""
        async with self._starting:  # as in `run`, one after the other: a suspect runs alone
            work = await self._taken(image_id)
        if work is not None:
            await asyncio.wait([work])

    async def beat(self) -> None:
        """Renew the leases of what is in flight, and look at the clock, for ever."""
        ahead_s = math.inf
        while True:
            ahead_s = await self._follow_clock(ahead_s)
            await asyncio.sleep(self._limits.lease_s / 3)
            try:
                await self._ledger.run(jobs.renew, list(self._leases), self._ledger.now() + self._limits.lease_s)
                if await self._ledger.run(jobs.expire, self._ledger.now()):
                    self.wake()
            except Unavailable as error:
                log.warning("heartbeat_missed", why=str(error))
            except Exception:
                log.exception("heartbeat_missed")

    async def _follow_clock(self, before_s: float) -> float:
        """How far the clock is ahead of the steady one now. At the start, and where it was set back, nothing may wait until it comes round."""
        ahead_s = self._ledger.now() - time.monotonic()
        if ahead_s > before_s - _CLOCK_TOLERANCE_S:
            return ahead_s
        try:
            found = await self._ledger.run(jobs.set_back, self._ledger.now(), self._limits.retry_max_s)
        except Unavailable:
            return before_s
        if found:
            log.warning("clock_set_back", images=found)
            self._changed()
            self.wake()
        return ahead_s

    async def drain(self, grace_s: float) -> None:
        """After `run` ended: what is in flight ends in time or is given back."""
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=grace_s)
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)
        try:
            await self._ledger.run(jobs.give_back, [job.lease_id for job in (*self._leases.values(), *self._stranded)])
        except Unavailable as error:  # the next start, or the leases' end, gives them back
            log.warning("leases_kept", why=str(error))

    async def segment_again(self, image_id: str, mode: SegmentMode) -> tuple[Segment, ...]:
        """Segment an image anew, at once. Raises NotFound, ImageRejected, Unavailable."""
        async with self._locks.hold(image_id):
            job = await self._ledger.run(jobs.claim_image, image_id, self._ledger.now(), self._limits.lease_s)
            if job is None:
                raise Unavailable("the picture is just being indexed", retry_after_s=1)
            self._leases[job.lease_id] = job
            try:
                info, former = await self._models(), await self._former()
                ingested = await self._ingest.again(job, mode, info, former)
                await self._ledger.run(jobs.complete, job, ingested.outcome, self._ledger.now())
            except FileChanged:
                raise NotFound("the picture's file is gone") from None
            finally:
                del self._leases[job.lease_id]
                await self._ledger.run(jobs.postpone, job, 0.0)  # of no effect once it is complete
                self._changed()
                self.wake()
        return ingested.segments or ()

    # --- claiming

    async def _turn(self) -> None:
        if self._is_folder_missing():
            await asyncio.sleep(self._limits.outage_retry_max_s)
            return
        await self._return_stranded()
        await self._all_but(self._limits.concurrency - 1)
        self._wake.clear()
        new_alone = self._course.is_stopped
        pending = await self._ledger.run(jobs.has_pending, new_alone=new_alone)
        if not pending and self._info is not None and not self.outage.is_open:
            await self.sleep(self._longest_sleep_s)
            return
        info = await self._models()
        job = (
            await self._ledger.run(jobs.claim, self._ledger.now(), self._limits.lease_s, new_alone=new_alone) if pending else None
        )
        if job is not None:
            await self._start(job, info)
        elif pending:
            await self.sleep(await self._until_due(new_alone=new_alone))
        else:
            self.outage.over()

    async def _taken(self, image_id: str) -> asyncio.Task[None] | None:
        """The image on its way, as soon as all that it takes is there; None if there is nothing to do."""
        while True:
            try:
                await self._return_stranded()
                info = await self._models()
                job = await self._ledger.run(
                    tasks.take, image_id, self._ledger.now(), self._limits.lease_s, new_alone=self._course.is_stopped
                )
                if job is not None:
                    return await self._start(job, info)
            except Unavailable as error:
                self._info = None
                await asyncio.sleep(self.outage.note(error))
            else:
                self.outage.over()
                return None

    async def _return_stranded(self) -> None:
        while self._stranded:
            await self._ledger.run(jobs.postpone, self._stranded[-1], 0.0)
            self._stranded.pop()

    async def _start(self, job: Job, info: ModelsInfo) -> asyncio.Task[None]:
        """Put the job in flight. A suspect runs alone, and so does the first one after an outage."""
        alone = job.crashes > 0 or self.outage.is_open
        self._leases[job.lease_id] = job
        if alone:
            await self._all_but(0)
        task = asyncio.create_task(self._work(job, info), name=f"ingest-{job.image_id[:12]}")
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        if alone:
            await self._all_but(0)
        if self._pause_s:
            pause_s, self._pause_s = self._pause_s, 0.0
            await asyncio.sleep(pause_s)
        return task

    async def _all_but(self, most: int) -> None:
        """Wait until at most so many are in flight."""
        while len(self._in_flight) > most:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)

    async def _until_due(self, *, new_alone: bool) -> float:
        due = await self._ledger.run(jobs.next_due, new_alone=new_alone)
        longest_s = self._longest_sleep_s
        return longest_s if due is None else min(max(due - self._ledger.now(), 0.01), longest_s)

    async def sleep(self, seconds: float) -> None:
        """Sleep until there may be something to do, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    # --- the models

    async def _models(self) -> ModelsInfo:
        """What is loaded, with its collections in place. Raises ModelUnavailable while nothing is."""
        if self._info is not None and time.monotonic() < self._info_until:
            return self._info
        info = await self._course.target()
        try:
            await self._ingest.ensure_collections(info)
        except InvalidRequest as error:  # a collection of another dimension: no picture's fault, and no retry mends it
            raise Unavailable(str(error)) from None
        self._info, self._info_until = info, time.monotonic() + _INFO_GOOD_FOR_S
        if self._fingerprint != info.fingerprint:
            self._fingerprint = info.fingerprint
            log.info("models_found", profile=info.profile, fingerprint=info.fingerprint)
            self._models_changed()
        return info

    async def models(self) -> ModelsInfo:
        """For the reconcile. Raises ModelUnavailable."""
        return await self._models()

    async def _former(self) -> ModelsInfo | None:
        """Models that answer while others are indexed for, with their collections in place. Raises Unavailable."""
        former = await self._course.former()
        if former is not None:
            await self._ingest.ensure_collections(former)
        return former

    # --- one image

    async def _work(self, job: Job, info: ModelsInfo) -> None:
        started = time.monotonic()
        try:
            with tracing.within(tracing.current() or tracing.begun()):
                one_suspect = self._locks.hold(_SUSPECTS) if job.crashes else nullcontext()
                async with one_suspect, self._locks.hold(job.image_id):
                    await self._attempt(job, info, started)
        except Unavailable as error:  # what came of it cannot even be written down
            self._pause_s = self.outage.note(error)
            self._stranded.append(job)
        except asyncio.CancelledError:  # wherever it was: `drain` gives it back
            self._stranded.append(job)
            raise
        finally:
            del self._leases[job.lease_id]
            self._changed()
            self.wake()  # it may be to be tried again, while `run` sleeps because nothing was left to claim

    async def _attempt(self, job: Job, info: ModelsInfo, started: float) -> None:
        try:
            former = None if job.was_indexed else await self._former()
            if job.crashes or self._models_suspect:
                await self._ingest.try_plain_picture(info, former)
                self._models_suspect = False
            ingested = await self._ingest.run(job, info, former)
            await self._complete(job, ingested, started)
        except ImageRejected as error:
            await self._fail(job, error.reason, str(error), info)
        except ModelCrashed as error:
            self._info = None
            self._models_suspect = True
            await self._count(job, Reason.CRASHES_MODEL, str(error), info)
        except Unavailable as error:
            await self._wait_out(job, error)
        except FileChanged:
            await self._ledger.run(jobs.postpone, job, self._ledger.now() + self._file_changed_pause_s(job))
        except Exception as error:
            log.exception("ingestion_stumbled", image_id=job.image_id)
            await self._count(job, Reason.UNREADABLE, f"{type(error).__name__} while it was indexed", info)

    def _file_changed_pause_s(self, job: Job) -> float:
        known_s = self._ledger.now() - job.noticed_at
        return max(_FILE_CHANGED_PAUSE_S, min(known_s * _FILE_CHANGED_SHARE, self._limits.retry_max_s))

    async def _complete(self, job: Job, ingested: Ingested, started: float) -> None:
        outcome = ingested.outcome
        self._broken_off.pop(job.image_id, None)
        now = self._ledger.now()
        if not await self._ledger.run(jobs.complete, job, outcome, now):
            log.warning("lease_lost", image_id=job.image_id)
            return
        if outcome.fingerprint != self._fingerprint:
            self._info = None  # the models changed under way: ask what they are now
        self.outage.over()
        self._metrics.note_indexed(
            adopted=ingested.segments is None, seconds_since_noticed=None if job.was_indexed else now - job.noticed_at
        )
        log.info(
            "image_indexed",
            path=await self._path(job),
            image_id=job.image_id,
            segments=outcome.segments,
            ms=round((time.monotonic() - started) * 1000),
            adopted=ingested.segments is None,
        )

    async def _wait_out(self, job: Job, error: Unavailable) -> None:
        self._info = None if not isinstance(error, Overloaded) else self._info
        self._pause_s = self.outage.note(error)
        until = 0.0
        if isinstance(error, ModelUnreachable):  # a proxy before it tells so as well of a service that died of this picture
            self._broken_off[job.image_id] += 1
            until = self._ledger.now() + self._retry_pause_s(self._broken_off[job.image_id])
        await self._ledger.run(jobs.postpone, job, until)

    async def _count(self, job: Job, reason: Reason, detail: str, info: ModelsInfo) -> None:
        """An attempt went wrong in a way that speaks against the image."""
        attempts = job.attempts + 1
        if attempts >= self._limits.max_attempts:
            await self._fail(job, reason, detail, info)
            return
        pause_s = self._retry_pause_s(attempts)
        crashed = reason is Reason.CRASHES_MODEL
        await self._ledger.run(jobs.count_attempt, job, self._ledger.now() + pause_s, crashed=crashed)
        log.warning("attempt_failed", image_id=job.image_id, attempt=attempts, reason=reason.value, retry_in_s=pause_s)

    def _retry_pause_s(self, attempts: int) -> float:
        pause_s = min(self._limits.retry_min_s * 2.0 ** min(attempts - 1, 32), self._limits.retry_max_s)
        return pause_s * random.uniform(0.75, 1)  # noqa: S311 - jitter

    async def _fail(self, job: Job, reason: Reason, detail: str, info: ModelsInfo) -> None:
        self._broken_off.pop(job.image_id, None)
        if job.was_indexed:
            await self._ingest.withdraw(job.image_id, info)
        if await self._ledger.run(jobs.reject, job, reason, detail, fingerprint=info.fingerprint, now=self._ledger.now()):
            self._metrics.note_failed(reason)
            path = await self._path(job)
            log.warning("image_failed", path=path, image_id=job.image_id, reason=reason.value, detail=detail)

    async def _path(self, job: Job) -> str | None:
        """A name for people: one of the image's paths, while it has any."""
        return next(iter((await self._ledger.run(jobs.places, job.image_id)).paths), None)
