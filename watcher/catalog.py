"""The Catalog port over the ledger and the folder, for whoever lives in the same process; `routes` offers it to others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TypeVar

import structlog

from core.decode import IMAGE_SUFFIXES
from core.errors import ImageRejected, InvalidRequest, NotFound, Reason, Unavailable
from core.filenames import is_hidden
from core.schemas import (
    FailurePage,
    ImageRecord,
    ImageStates,
    ImportAnswer,
    ImportRequest,
    IngestionStatus,
    ModelsAction,
    ModelsCourse,
    Repair,
    Segment,
    SegmentMode,
    WatcherState,
    WatcherStatus,
)
from watcher import locations, views
from watcher.folder import is_temporary
from watcher.importing import Importing
from watcher.ingesting import Ingesting
from watcher.locations import ASKED_FOR_PRIORITY, Admission, FileStat, Location
from watcher.noticing import Noticing
from watcher.observer import Hint
from watcher.post import Post
from watcher.probe import Absence
from watcher.views import Totals

log = structlog.get_logger()

T = TypeVar("T")

_LONG_COUNT_S = 0.1
_AT_ONCE = 0.0  # an orphan since 1970: no grace left


class FolderCatalog:
    """See `core.ports.Catalog`. Lives inside `running_watcher`, and no longer."""

    def __init__(self, parts: Ingesting, post: Post, *, max_image_bytes: int, repairs: tuple[Repair, ...] = ()) -> None:
        """`repairs`: what this start, or an earlier one, had to mend."""
        self._parts = parts
        self._post = post
        self._importing = Importing(parts)
        self._repairs = repairs
        self._max_image_bytes = max_image_bytes
        self._draining = False
        self._counted: Totals | None = None
        self._counted_until = 0.0

    def note_draining(self) -> None:
        """The end has begun."""
        self._draining = True

    async def status(self) -> IngestionStatus:
        parts = self._parts
        totals = await self._totals()
        rate = parts.metrics.rate_per_s()
        left = totals.images.pending + totals.images.running
        return IngestionStatus(
            images=totals.images,
            segments=totals.segments,
            rate_per_s=round(rate, 3),
            eta_s=round(left / rate, 1) if left and rate else None,
            watcher=self._watcher(),
            model_change=parts.models.course().change,
        )

    async def _totals(self) -> Totals:
        """Of a shared ledger, which may be large, counting takes a tenth of the time at most, however many ask."""
        began_at = time.monotonic()
        if self._counted is None or began_at >= self._counted_until:
            self._counted = await self._parts.ledger.run(views.totals)
            took_s = time.monotonic() - began_at
            good_for_s = 10 * took_s if self._parts.ledger.is_shared and took_s > _LONG_COUNT_S else 0.0
            self._counted_until = time.monotonic() + good_for_s
        return self._counted

    def _watcher(self) -> WatcherStatus:
        waiting_for, noticing = self._parts.worker.waiting_for, self._post.noticing
        if noticing is None:
            state: WatcherState = "draining" if self._draining else "standby"
            return WatcherStatus(state=state, observer=None, waiting_for=waiting_for, repairs=self._repairs)
        scanned_at = noticing.scanner.last_scan_at
        return WatcherStatus(
            state=self._state(noticing),
            observer=noticing.observer.kind,
            last_reconcile_at=datetime.fromtimestamp(scanned_at, UTC) if scanned_at else None,
            reconciling=noticing.reconciler.is_busy or noticing.scanner.is_busy,
            settling=noticing.intake.settling,
            waiting_for=waiting_for,
            repairs=self._repairs,
        )

    def _state(self, noticing: Noticing) -> WatcherState:
        if self._draining:
            return "draining"
        if noticing.scanner.folder_missing:
            return "folder_missing"
        return "watching" if noticing.reconciler.has_scanned else "starting"

    async def image(self, image_id: str) -> ImageRecord:
        record = await self._parts.ledger.run(views.image, image_id)
        if record is None:
            raise NotFound("there is no such image")
        return record

    async def failures(self, *, limit: int = 100, offset: int = 0, ignored: bool = False) -> FailurePage:
        return await self._parts.ledger.run(views.failures, limit=limit, offset=offset, ignored=ignored)

    async def states(self, image_ids: Sequence[str], paths: Sequence[str] = ()) -> ImageStates:
        ledger = self._parts.ledger
        images = await ledger.run(views.image_states, image_ids) if image_ids else []
        files = await ledger.run(views.path_states, paths) if paths else []
        return ImageStates(images=tuple(images), paths=tuple(files))

    async def notice(self, path: str, *, backfill: bool = False) -> ImageRecord:
        await self._read(lambda: self._parts.pictures.checked(path))
        if is_hidden(path) or is_temporary(path):
            raise InvalidRequest("hidden and temporary files are left alone", field="path")
        stat, image_id = await self._identify(path)
        now = self._parts.ledger.now()
        admission = Admission(path, stat, image_id, now, 0 if backfill else ASKED_FOR_PRIORITY, backfill=backfill)
        await self._parts.ledger.run(locations.admit, [admission], now)
        self._parts.worker.wake()
        self._post.follow()
        return await self.image(image_id)

    async def _identify(self, path: str) -> tuple[FileStat, str]:
        pictures = self._parts.pictures
        (stat,) = await self._read(lambda: pictures.stats([path]))
        if not isinstance(stat, FileStat):
            raise _refusal_of(stat)
        if stat.size > self._max_image_bytes:
            raise ImageRejected(Reason.TOO_MANY_BYTES, f"the file has more than {self._max_image_bytes:,} bytes")
        if stat.size == 0:
            raise ImageRejected(Reason.EMPTY_FILE, "the file is empty")
        (seen,) = await self._read(lambda: pictures.looks([(path, stat)], now=time.time()))
        if isinstance(seen, Absence):
            raise _refusal_of(seen)
        if not seen.image and PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
            raise ImageRejected(Reason.NOT_AN_IMAGE, "the file is not a picture")
        found = await self._read(lambda: pictures.content_hash(path, stat))
        if isinstance(found, Absence):
            raise _refusal_of(found)
        if found is None:
            raise Unavailable("the file is still being written", retry_after_s=1)
        return stat, found

    async def hint(self, paths: Sequence[str], *, backfill: bool = False) -> int:
        pictures = self._parts.pictures

        def within() -> list[Hint]:
            hints = []
            for path in dict.fromkeys(paths):
                with suppress(InvalidRequest):
                    if not is_hidden(path):
                        hints.append(Hint(pictures.checked(path), prompt=not backfill))
            return hints

        hints = await self._read(within)
        await self._post.hint(hints)
        return len(hints)

    async def delete(self, image_id: str) -> None:
        parts = self._parts
        record = await self.image(image_id)
        known = await parts.ledger.run(locations.known, record.paths)
        own = await self._read(lambda: self._own(image_id, known))
        await self._read(lambda: parts.pictures.remove(own))
        await parts.ledger.run(locations.forget, own, _AT_ONCE)
        log.info("image_deleted", image_id=image_id, paths=len(own))
        await self._post.hint([Hint(path) for path in known if path not in own])
        await self._post.sweep(image_id)

    def _own(self, image_id: str, known: Mapping[str, Location]) -> list[str]:
        """The paths without those where another file took the image's place, which is not seen at once. Blocks on the disk."""
        pictures = self._parts.pictures
        return [
            path
            for (path, location), found in zip(known.items(), pictures.stats(list(known)), strict=True)
            if location.image_id == image_id
            and (not isinstance(found, FileStat) or found == location.stat or pictures.content_hash(path, found) == image_id)
        ]

    async def resegment(self, image_id: str, mode: SegmentMode) -> list[Segment]:
        await self.image(image_id)
        return [
            Segment(**{name: getattr(segment, name) for name in Segment.model_fields})
            for segment in await self._parts.worker.segment_again(image_id, mode)
        ]

    async def take_embeddings(self, request: ImportRequest) -> ImportAnswer:
        if self._post.folder_missing:
            raise Unavailable("the pictures are out of reach")
        answer = await self._importing.take(request)
        self._parts.worker.wake()
        self._post.note_write()
        self._post.follow()
        return answer

    async def models(self) -> ModelsCourse:
        return self._parts.models.course()

    async def turn_models(self, action: ModelsAction) -> ModelsCourse:
        return await self._parts.models.turn(action)

    async def oldest_pending_s(self) -> float:
        """Age of the oldest pending image, for the metrics."""
        noticed_at = (await self._totals()).oldest_pending_at
        return max(0.0, self._parts.ledger.now() - noticed_at) if noticed_at is not None else 0.0

    async def _read(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._parts.readers, call)


def _refusal_of(absence: Absence) -> NotFound | ImageRejected:
    match absence:
        case Absence.DENIED:
            return ImageRejected(Reason.PERMISSION_DENIED, "the file cannot be opened")
        case Absence.UNREADABLE:
            return ImageRejected(Reason.UNREADABLE, "the file cannot be read")
        case _:
            return NotFound("there is no such file in the watched folder")
