"""Vectors that were made elsewhere, on their way in: fitted to the models, some of them compared, written under the image's claim.

An import is an ingestion whose analysis was given, so whatever may interrupt it ends as there. A vector is written for a picture alone
that lies there by the ledger's word.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from core.errors import Conflict, ImageRejected, InvalidRequest
from core.schemas import (
    GivenEmbeddings,
    ImageState,
    ImportAnswer,
    ImportOutcome,
    ImportRequest,
    ImportResult,
    ModelsInfo,
    Priority,
    SegmentMode,
)
from watcher import fitting, jobs, views
from watcher.fitting import Fitted, has_segments, unit
from watcher.ingest import FileChanged
from watcher.ingesting import Ingesting
from watcher.jobs import Job

log = structlog.get_logger()

LEAST_AGREEMENT = 0.9
"""Cosine of a given vector to what the models make of the picture. One precision to another keeps 0.98 and more in the mean
(model_service/exporting/agreement.py); another model, or another picture's row, has 0.0 to 0.85."""

_AT_ONCE = 8
_LEASE_S = 60.0
"""Nobody's heart beats for it: one picture takes a fraction of a second."""

WHOLE_ALONE = "found by a given vector; its regions were not looked for"


@dataclass(frozen=True, slots=True)
class _Compared:
    """Cosines, the numbers of records that may be written, and why others cannot be looked at, which their own ingestion will say."""

    cosines: list[float]
    writable: set[int]
    unreadable: dict[int, str]


class Importing:
    def __init__(self, parts: Ingesting) -> None:
        self._parts = parts

    async def take(self, request: ImportRequest) -> ImportAnswer:
        """See `core.ports.Catalog.take_embeddings`."""
        parts = self._parts
        info = await parts.worker.models()
        if parts.models.course().change is not None:
            raise Conflict("the models are being changed: import when that is over, see /api/v1/models")
        loop = asyncio.get_running_loop()
        fitted = await loop.run_in_executor(parts.readers, fitting.fitted, request, info)
        named = await self._named(request.given, fitted)
        drawn = await self._drawn(named)
        compared = await self._compared(named, drawn, info, request.checks)
        named = [replace(one, refusal=compared.unreadable.get(number, one.refusal)) for number, one in enumerate(named)]
        at_once = asyncio.Semaphore(_AT_ONCE)
        whole_alone = WHOLE_ALONE if request.whole_alone and has_segments(info) else None

        async def one(number: int, record: Fitted) -> ImportResult:
            async with at_once:
                return await self._taken(record, info, whole_alone, may_write=number in compared.writable)

        results = await asyncio.gather(*(one(*numbered) for numbered in enumerate(named)), return_exceptions=True)
        told: list[ImportResult] = []
        for result in results:
            if isinstance(result, BaseException):  # what the others wrote is known when it is given again
                raise result
            told.append(result)
        log.info("embeddings_taken", **{outcome.value: sum(one.outcome is outcome for one in told) for outcome in ImportOutcome})
        return ImportAnswer(
            results=tuple(told), checked=len(compared.cosines), least_agreement=min(compared.cosines, default=None)
        )

    async def _named(self, given: Sequence[GivenEmbeddings], fitted: Sequence[Fitted]) -> list[Fitted]:
        """Paths are those of whatever image lies there now."""
        paths = [record.path for record in given if record.path is not None]
        told = await self._parts.ledger.run(views.path_states, paths) if paths else []
        lying = {state.path: state.image_id for state in told}
        return [
            replace(one, image_id=record.image_id or lying.get(record.path or ""))
            for record, one in zip(given, fitted, strict=True)
        ]

    # --- comparing

    async def _compared(self, records: Sequence[Fitted], drawn: Sequence[int], info: ModelsInfo, checks: int) -> _Compared:
        """The first of those that are drawn. Raises InvalidRequest."""
        cosines: list[float] = []
        writable = set(drawn)
        unreadable: dict[int, str] = {}
        for number in drawn:
            if len(cosines) >= checks:
                break
            try:
                cosine = await self._agreement(records[number], info)
            except (ImageRejected, FileChanged) as error:
                writable.discard(number)
                if isinstance(error, ImageRejected):
                    unreadable[number] = str(error)
                continue
            cosines.append(cosine)
            if cosine < LEAST_AGREEMENT:
                raise InvalidRequest(
                    f"given.{number}: not what these models make of this picture: cosine {cosine:.3f}, at least {LEAST_AGREEMENT} is due;"
                    " nothing was taken",
                    field=f"given.{number}",
                )
        return _Compared(cosines, writable, unreadable)

    async def _drawn(self, records: Sequence[Fitted]) -> list[int]:
        """Those that may be written, in a random order. What others have in hand now is not among them: it could escape the comparison."""
        wanted: set[tuple[str, bool]] = set()
        for settles in (True, False):
            ids = [one.image_id for one in records if one.image_id and one.refusal is None and one.settles is settles]
            if ids:
                found = await self._parts.ledger.run(jobs.lacking_given, ids, settles=settles)
                wanted |= {(image_id, settles) for image_id in found}
        drawn = [
            number for number, one in enumerate(records) if one.refusal is None and (one.image_id or "", one.settles) in wanted
        ]
        random.shuffle(drawn)
        return drawn

    async def _agreement(self, record: Fitted, info: ModelsInfo) -> float:
        """Raises ImageRejected, FileChanged."""
        assert record.image_id is not None  # noqa: S101 - it is drawn by it
        content = await self._parts.ingest.read(record.image_id)
        made = await self._parts.embedder.analyse(
            content.body, segments=SegmentMode.NONE, priority=Priority.INGEST, fingerprint=info.fingerprint or None
        )
        by_space = {embedding.collection: embedding.vector for embedding in made.embeddings}
        return min(float(unit(by_space[one.collection]) @ one.vector) for one in record.embeddings)

    # --- writing

    async def _taken(self, record: Fitted, info: ModelsInfo, whole_alone: str | None, *, may_write: bool) -> ImportResult:
        image_id, ledger = record.image_id, self._parts.ledger
        if image_id is None or record.refusal is not None:
            outcome = ImportOutcome.UNKNOWN if image_id is None else ImportOutcome.REFUSED
            return ImportResult(outcome=outcome, image_id=image_id, detail=record.refusal)
        if not may_write:
            return await self._told(image_id)
        async with self._parts.locks.hold(image_id):
            job = await ledger.run(jobs.claim_given, image_id, ledger.now(), _LEASE_S, settles=record.settles)
            if job is None:
                return await self._told(image_id)
            try:
                return await self._written(job, record, info, whole_alone)
            except ImageRejected as error:  # its own ingestion says so in the ledger
                return ImportResult(outcome=ImportOutcome.REFUSED, image_id=image_id, detail=str(error))
            except FileChanged as error:
                return ImportResult(outcome=ImportOutcome.BUSY, image_id=image_id, detail=str(error))
            finally:
                await ledger.run(jobs.postpone, job, 0.0)  # of no effect once it ended

    async def _written(self, job: Job, record: Fitted, info: ModelsInfo, whole_alone: str | None) -> ImportResult:
        parts = self._parts
        fingerprint = info.fingerprint if record.settles else jobs.GIVEN
        detail = whole_alone if record.settles and not record.fingerprint else None
        outcome = await parts.ingest.given(job, record.embeddings, record.segments, fingerprint=fingerprint, detail=detail)
        now = parts.ledger.now()
        if not await parts.ledger.run(jobs.complete if record.settles else jobs.find_by_given, job, outcome, now):
            return ImportResult(outcome=ImportOutcome.BUSY, image_id=job.image_id)
        parts.metrics.note_indexed(adopted=True, seconds_since_noticed=None if job.was_indexed else now - job.noticed_at)
        return ImportResult(outcome=ImportOutcome.INDEXED if record.settles else ImportOutcome.FOUND, image_id=job.image_id)

    async def _told(self, image_id: str) -> ImportResult:
        """Of an image that nothing is to be written for now."""
        states = await self._parts.ledger.run(views.image_states, [image_id])
        if not states:
            return ImportResult(outcome=ImportOutcome.UNKNOWN, image_id=image_id)
        (found,) = states
        match found.state:
            case ImageState.INDEXED:
                return ImportResult(outcome=ImportOutcome.KNOWN, image_id=image_id)
            case ImageState.FAILED:
                detail = found.detail or (found.reason.value if found.reason else None)
                return ImportResult(outcome=ImportOutcome.REFUSED, image_id=image_id, detail=detail)
            case _:
                return ImportResult(outcome=ImportOutcome.BUSY, image_id=image_id)
