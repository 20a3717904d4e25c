"""From a hint to a row in the ledger: looks at paths until they are settled, identifies them, and writes down what lies where.

It is the only writer of `paths` besides the catalog, and works on each path once at a time, so that a hint is never more than
a reason to look: the order in which hints come does not matter.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

import structlog

from core.decode import IMAGE_SUFFIXES
from core.errors import Reason, Unavailable
from core.filenames import is_hidden
from watcher import locations
from watcher.folder import is_temporary
from watcher.ledger import Operations
from watcher.locations import RECHECKED, Admission, FileStat, Location
from watcher.mounts import is_below
from watcher.observer import Hint
from watcher.pictures import Pictures
from watcher.probe import Absence, Seen
from watcher.stability import Look, SettleRules, Settling

log = structlog.get_logger()

T = TypeVar("T")

_BATCH = 256
_FED_AT_MOST = 1024
_TRACKED_AT_MOST = 20_000
_RETRY_S = 1.0
_REFUSALS = {Absence.DENIED: Reason.PERMISSION_DENIED, Absence.UNREADABLE: Reason.UNREADABLE}


@dataclass(slots=True)
class _Candidate:
    path: str
    settling: Settling
    noticed_at: float
    priority: int
    busy: bool = False
    again: bool = False
    parked: bool = False  # not settled yet: waits for its writer
    entry: int = -1  # number of the one by which it is looked at next: an earlier one tells nothing
    stat: FileStat | None = None
    known_as: FileStat | None = None


@dataclass(order=True, slots=True)
class _Entry:
    due: float
    number: int
    candidate: _Candidate = field(compare=False)


@dataclass(frozen=True, slots=True)
class IntakeEvents:
    """Who wants to know what."""

    admitted: Callable[[], None]
    left: Callable[[], None]
    refused: Callable[[Reason], None]
    scan: Callable[[str], None]
    lost_mounts: Callable[[], Awaitable[Collection[str]]]


class Intake:
    """`run` works until cancelled; everything else may be called from the event loop at any time."""

    def __init__(
        self,
        pictures: Pictures,
        ledger: Operations,
        readers: Executor,
        *,
        rules: SettleRules,
        max_image_bytes: int,
        events: IntakeEvents,
    ) -> None:
        self._pictures = pictures
        self._ledger = ledger
        self._readers = readers
        self._rules = rules
        self._max_image_bytes = max_image_bytes
        self._events = events
        self._candidates: dict[str, _Candidate] = {}
        self._due: list[_Entry] = []
        self._numbers = itertools.count()
        self._active = 0
        self._to_hash: asyncio.PriorityQueue[tuple[int, int, _Candidate]] = asyncio.PriorityQueue()
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()
        self._trouble: str | None = None

    @property
    def settling(self) -> int:
        """Files seen and not yet in the ledger."""
        return len(self._candidates)

    @property
    def is_calm(self) -> bool:
        """Whether every path is looked at and identified, but for those that somebody still writes."""
        return self._active == 0

    def take(self, hints: Iterable[Hint]) -> None:
        """What the observer saw."""
        for hint in hints:
            if is_hidden(hint.path):
                continue
            if len(self._candidates) >= _TRACKED_AT_MOST and hint.path not in self._candidates:
                self._events.scan("")
                return
            self._track(hint.path, priority=int(hint.prompt), closed=hint.closed)

    def recheck(self, path: str) -> None:
        """The file at this path is not what the ledger says."""
        self._track(path, priority=1, closed=False)

    async def feed(self, paths: Iterable[str]) -> None:
        """Take many paths, waiting while there are too many under way."""
        for path in paths:
            while self._active >= _FED_AT_MOST or len(self._candidates) >= _TRACKED_AT_MOST:
                self._progress.clear()
                await self._progress.wait()
            self._track(path, priority=0, closed=False)

    async def calm(self, *, timeout_s: float) -> None:
        """Wait until `is_calm`, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self.is_calm:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return

    def _track(self, path: str, *, priority: int, closed: bool) -> None:
        candidate = self._candidates.get(path)
        if candidate is None:
            candidate = _Candidate(path, Settling(self._rules), self._ledger.now(), priority)
            self._candidates[path] = candidate
            self._active += 1
            self._schedule(candidate, 0.0)
        elif candidate.busy:
            candidate.again = True
        elif closed:
            self._schedule(candidate, 0.0)
        if closed:
            candidate.settling.close_event()

    def _schedule(self, candidate: _Candidate, delay_s: float) -> None:
        candidate.entry = next(self._numbers)
        heapq.heappush(self._due, _Entry(time.monotonic() + delay_s, candidate.entry, candidate))
        self._wake.set()

    async def run(self) -> None:
        """Look at what is due, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._pictures.hashers):
                tasks.create_task(self._hash_for_ever(), name=f"hasher-{number}")
            tasks.create_task(self._look_for_ever(), name="intake")

    async def _look_for_ever(self) -> None:
        while True:
            batch = self._pop_due()
            if batch:
                await self._guarded(self._look_at, batch)
                continue
            self._wake.clear()
            pause_s = max(0.0, self._due[0].due - time.monotonic()) if self._due else None
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _pop_due(self) -> list[_Candidate]:
        now = time.monotonic()
        batch: list[_Candidate] = []
        while self._due and self._due[0].due <= now and len(batch) < _BATCH:
            entry = heapq.heappop(self._due)
            candidate = entry.candidate
            if self._candidates.get(candidate.path) is candidate and not candidate.busy and candidate.entry == entry.number:
                candidate.busy = True
                self._active += candidate.parked
                candidate.parked = False
                batch.append(candidate)
        return batch

    async def _guarded(self, work: Callable[[list[_Candidate]], Awaitable[None]], batch: list[_Candidate]) -> None:
        """One bad path must not end the intake, nor keep others: it is logged, dropped, and found again by the next reconcile.

        While the ledger cannot be written, everything is looked at again by and by.
        """
        try:
            await work(batch)
        except Unavailable as error:
            self._tell_trouble(error)
            for candidate in self._undone(batch):
                self._park(candidate, _RETRY_S)
        except Exception:
            log.exception("intake_failed", paths=[candidate.path for candidate in batch[:5]], of=len(batch))
            if len(batch) == 1:
                self._drop(batch[0])
            else:
                for candidate in self._undone(batch):
                    await self._guarded(work, [candidate])

    def _undone(self, batch: list[_Candidate]) -> list[_Candidate]:
        return [one for one in batch if self._candidates.get(one.path) is one and one.busy]

    def _tell_trouble(self, error: Unavailable) -> None:
        if self._trouble != str(error):
            log.warning("intake_paused", waiting_for=str(error), error=type(error).__name__)
        self._trouble = str(error)

    # --- looking

    async def _look_at(self, batch: list[_Candidate]) -> None:
        stats = await self._read(lambda: self._pictures.stats([candidate.path for candidate in batch]))
        known = await self._ledger.run(locations.known, [candidate.path for candidate in batch])
        new = [candidate.path for candidate in batch if candidate.path not in known]
        gone: list[_Candidate] = []
        to_open: list[tuple[_Candidate, FileStat]] = []
        for candidate, found in zip(batch, stats, strict=True):
            earlier = known.get(candidate.path)
            if isinstance(found, FileStat):
                if earlier is not None and earlier.stat == found and earlier.reason not in RECHECKED:
                    self._drop(candidate)
                else:
                    candidate.known_as = earlier.stat if earlier is not None else None
                    to_open.append((candidate, found))
            elif found in _REFUSALS:
                self._drop(
                    candidate
                )  # not even to be stat'ed: a folder's permissions or a sick drive, and no sign that it is gone
            else:
                if found is Absence.FOLDER:
                    self._events.scan(candidate.path)
                gone.append(candidate)
        await self._open(to_open)  # what moved must be recognised at its new place before the old one is forgotten
        for folder in await self._ledger.run(locations.folders, new) if new else ():  # gone, or what is there now is none
            self._events.scan(folder)
        await self._forget(gone, known)

    async def _forget(self, gone: list[_Candidate], known: Mapping[str, Location]) -> None:
        if not gone:
            return
        lost = set(await self._events.lost_mounts())
        forgotten = [candidate.path for candidate in gone if candidate.path in known and not is_below(candidate.path, lost)]
        if forgotten:
            await self._ledger.run(locations.forget, forgotten, self._ledger.now())
            self._events.left()
            await self._look_at_other_names({known[path].stat for path in forgotten}, but=set(forgotten), found=())
        for candidate in gone:
            self._drop(candidate)

    async def _look_at_other_names(
        self, known: Collection[FileStat], *, but: Collection[str], found: Collection[FileStat]
    ) -> None:
        """Who writes through one of a file's names, or takes it from under a link, is heard of by that name alone."""
        names = await self._ledger.run(locations.names_of, {stat.inode for stat in (*known, *found)})
        for path, stat in names.items():
            if path not in but and stat not in found:
                self.recheck(path)

    async def _open(self, found: list[tuple[_Candidate, FileStat]]) -> None:
        if not found:
            return
        now = time.time()
        looks = await self._read(lambda: self._pictures.looks([(one.path, stat) for one, stat in found], now=now))
        settled: list[tuple[_Candidate, Seen]] = []
        for (candidate, _), seen in zip(found, looks, strict=True):
            if isinstance(seen, Seen):
                look = Look(time.monotonic(), seen.stat, seen.writing, seen.complete, seen.age_s)
                pause_s = candidate.settling.judge(look)
                if pause_s is None:
                    settled.append((candidate, seen))
                else:
                    self._park(candidate, pause_s)
            elif seen in _REFUSALS:
                await self._refuse_unread(candidate, _REFUSALS[seen])
            else:  # gone or changed its kind since the stat: look again
                self._park(candidate, self._rules.agree_s)
        await self._identify(settled)

    async def _refuse_unread(self, candidate: _Candidate, reason: Reason) -> None:
        (stat,) = await self._read(lambda: self._pictures.stats([candidate.path]))
        if isinstance(stat, FileStat):
            await self._refuse(candidate, stat, reason, "the file cannot be opened")
        self._drop(candidate)

    # --- identifying

    async def _identify(self, settled: list[tuple[_Candidate, Seen]]) -> None:
        if not settled:
            return
        known = {one.known_as for one, _ in settled if one.known_as is not None}
        paths, found = {one.path for one, _ in settled}, {seen.stat for _, seen in settled}
        await self._look_at_other_names(known, but=paths, found=found)
        pictures: list[_Candidate] = []
        for candidate, seen in settled:
            candidate.stat = seen.stat
            refusal = self._refusal(candidate.path, seen)
            if refusal is None:
                pictures.append(candidate)
            else:
                await self._refuse(candidate, seen.stat, *refusal)
                self._drop(candidate)
        if not pictures:
            return
        files = [(one.path, one.stat) for one in pictures if one.stat is not None]
        twins = await self._ledger.run(locations.twins, files)
        await self._admit([(one, twins[one.path]) for one in pictures if one.path in twins])
        for one in pictures:
            if one.path not in twins:
                self._to_hash.put_nowait((-one.priority, next(self._numbers), one))

    def _refusal(self, path: str, seen: Seen) -> tuple[Reason, str] | None:
        if is_temporary(path):
            return Reason.IGNORED, "its name is that of a temporary file"
        named_as_image = PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
        if not named_as_image and not seen.image:
            return Reason.IGNORED, "neither its name nor its first bytes are those of a picture"
        if seen.stat.size == 0:
            return Reason.EMPTY_FILE, "the file is empty"
        if seen.stat.size > self._max_image_bytes:
            return Reason.TOO_MANY_BYTES, f"the file has {seen.stat.size:,} bytes, {self._max_image_bytes:,} are allowed"
        return None

    async def _hash_for_ever(self) -> None:
        while True:
            *_, candidate = await self._to_hash.get()
            await self._guarded(lambda batch: self._hash(*batch), [candidate])

    async def _hash(self, candidate: _Candidate) -> None:
        stat = candidate.stat
        if stat is None:
            raise RuntimeError("a file is hashed only after it was looked at")
        found = await self._read(lambda: self._pictures.content_hash(candidate.path, stat))
        if isinstance(found, Absence) and found in _REFUSALS:
            await self._refuse(candidate, stat, _REFUSALS[found], "the file cannot be read")
            self._drop(candidate)
        elif isinstance(found, Absence) or found is None:
            self._park(candidate, self._rules.agree_s)
        else:
            await self._admit([(candidate, found)])

    async def _admit(self, identified: list[tuple[_Candidate, str]]) -> None:
        if not identified:
            return
        admissions = [
            Admission(one.path, one.stat, image_id, one.noticed_at, one.priority)
            for one, image_id in identified
            if one.stat is not None
        ]
        await self._ledger.run(locations.admit, admissions, self._ledger.now())
        if self._trouble is not None:
            log.info("intake_resumed")
            self._trouble = None
        self._events.admitted()
        for one, _ in identified:
            self._drop(one)

    async def _refuse(self, candidate: _Candidate, stat: FileStat, reason: Reason, detail: str) -> None:
        if not await self._ledger.run(locations.refuse, candidate.path, stat, reason, detail, now=self._ledger.now()):
            return
        self._events.left()
        self._events.refused(reason)
        level = log.debug if reason is Reason.IGNORED else log.warning
        level("file_refused", path=candidate.path, reason=reason.value, detail=detail)

    # --- bookkeeping

    def _park(self, candidate: _Candidate, delay_s: float) -> None:
        candidate.busy = False
        self._active -= not candidate.parked
        candidate.parked = True
        if candidate.again:
            candidate.again = False
            delay_s = min(delay_s, self._rules.agree_s)
        self._schedule(candidate, delay_s)
        self._progress.set()

    def _drop(self, candidate: _Candidate) -> None:
        """Done with it; if a hint came meanwhile, it is looked at anew."""
        if self._candidates.get(candidate.path) is candidate:
            del self._candidates[candidate.path]
            self._active -= not candidate.parked
        if candidate.again:
            self._track(candidate.path, priority=candidate.priority, closed=False)
        self._progress.set()

    async def _read(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, call)
