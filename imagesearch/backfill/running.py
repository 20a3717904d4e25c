"""A backfill from its beginning, or from where it was left, to its end."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from imagesearch.backfill.asking import Asking
from imagesearch.backfill.fetching import Fetcher, Unfetchable
from imagesearch.backfill.following import Follower
from imagesearch.backfill.journal import Journal, Pending
from imagesearch.backfill.pace import Pace
from imagesearch.backfill.rows import Batch, Kind, Row, Source
from imagesearch.backfill.talking import KeepsFailing, patiently
from imagesearch.client import AsyncClient
from imagesearch.errors import NotFound, Refused, Unauthorized
from searchsvc.schemas import UploadAnswer

_FETCHES = 5
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_NOTICED_AT_ONCE = 200
_MOST_UNSEEN = 4000
"""Files in the watched folder that it may be told of before it has seen them: more, and it would rather list the whole folder."""


@dataclass(frozen=True, slots=True)
class Options:
    at_once: int = 16
    rate: float | None = None
    limit: int | None = None
    """Rows of the source that this run takes in at most."""
    wait: bool = True
    patience_s: float = 900.0
    look_every_s: float = 1.0
    fallback_folder: str = ""
    """Where a picture goes whose own folder the service does not take."""


class Backfill:
    """One run. What ends it early leaves the journal such that another goes on."""

    def __init__(
        self, client: AsyncClient, source: Source, journal: Journal, options: Options, *, moved: Callable[[Follower], None]
    ) -> None:
        """`moved` is told now and then."""
        self._client = client
        self._source = source
        self._journal = journal
        self._options = options
        self._pace = Pace(most=options.at_once, rate=options.rate, patience_s=options.patience_s)
        self._asking = Asking(self._known)
        self._follower = Follower(client, journal, self._pace, moved=moved, look_every_s=options.look_every_s)
        self._queue: asyncio.Queue[Pending | None] = asyncio.Queue(2 * options.at_once)
        self._alone: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(self) -> None:
        """Raises Unauthorized, OutOfPatience, UnreadableSource, Unintelligible."""
        try:
            async with Fetcher() as fetcher, asyncio.TaskGroup() as tasks:
                following = tasks.create_task(self._follower.run(wait=self._options.wait))
                async with asyncio.TaskGroup() as bringing:
                    bringing.create_task(self._feed())
                    for _ in range(self._options.at_once):
                        bringing.create_task(self._bring_for_ever(fetcher))
                self._follower.note_all_brought()
                await following
        except BaseExceptionGroup as group:
            raise _first(group) from None

    # --- reading

    async def _feed(self) -> None:
        await self._feed_left()
        taken, most = 0, self._options.limit
        if not self._journal.has_read_all:
            batches = self._source.batches(self._journal.cursor, most=most)
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                taken += len(batch.rows)
                await self._take_in(batch)
            if most is None or taken < most:
                self._journal.note_end()
        for _ in range(self._options.at_once):
            await self._queue.put(None)

    async def _feed_left(self) -> None:
        """What an earlier run took in and did not bring."""
        for state in ("sent", "lying"):
            self._journal.touch(state)
        last = 0
        while noticed := self._journal.followed("lying", last):
            last = noticed[-1].number
            await self._notice([row.key for row in noticed])
        last = 0
        while waiting := self._journal.waiting(last):
            last = waiting[-1].number
            for pending in waiting:
                await self._queue.put(pending)

    async def _take_in(self, batch: Batch) -> None:
        for pending in self._journal.take_in(batch):
            await self._queue.put(pending)
        lying = [row.place for row in batch.rows if row.kind is Kind.LYING]
        while lying and self._journal.left().get("lying", 0) > _MOST_UNSEEN:
            await self._follower.next_look()
        await self._notice(lying)

    async def _notice(self, paths: Sequence[str]) -> None:
        for first in range(0, len(paths), _NOTICED_AT_ONCE):
            told = paths[first : first + _NOTICED_AT_ONCE]
            await patiently(self._pace, partial(self._client.notice, told), counted=False)

    # --- bringing

    async def _bring_for_ever(self, fetcher: Fetcher) -> None:
        while (pending := await self._queue.get()) is not None:
            try:
                await self._bring(pending, fetcher)
            except (Unauthorized, NotFound):  # of the key, or of the service: no picture's fault
                raise
            except Unfetchable as error:
                self._journal.park([(pending.number, error.reason, str(error))])
            except (Refused, KeepsFailing) as error:
                self._journal.park([(pending.number, error.code, str(error))])

    async def _bring(self, pending: Pending, fetcher: Fetcher) -> None:
        row = pending.row
        if row.sha256 is not None and await self._asking.is_known(row.sha256):
            self._journal.note_sent(pending.number, row.sha256, "known")
            return
        content, image_id = await _fetched(row, fetcher)
        async with self._held(image_id):
            how = "known" if await self._asking.is_known(image_id) else "uploaded"
            if how == "uploaded":
                await self._upload(row, content)
            self._journal.note_sent(pending.number, image_id, how)

    @asynccontextmanager
    async def _held(self, image_id: str) -> AsyncIterator[None]:
        """The same bytes in two rows are sent once."""
        lock = self._alone[image_id]
        async with lock:
            yield
        if not lock.locked():
            self._alone.pop(image_id, None)

    async def _upload(self, row: Row, content: bytes) -> None:
        def send(folder: str) -> Awaitable[UploadAnswer]:
            return self._client.upload(content, name=row.name, folder=folder, backfill=True)

        try:
            await patiently(self._pace, partial(send, row.folder))
        except Refused as error:
            if error.field != "folder" or row.folder == self._options.fallback_folder:
                raise
            await patiently(self._pace, partial(send, self._options.fallback_folder))

    async def _known(self, image_ids: Sequence[str]) -> set[str]:
        told = await patiently(self._pace, partial(self._client.image_states, image_ids), counted=False)
        return {image.image_id for image in told.images}


async def _fetched(row: Row, fetcher: Fetcher) -> tuple[bytes, str]:
    """What may pass is waited for, some times."""
    for attempt in range(_FETCHES):
        try:
            return await fetcher.fetch(row)
        except Unfetchable as error:
            if not error.passes or attempt == _FETCHES - 1:
                raise
        await asyncio.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
    raise RuntimeError("the last attempt returns or raises")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the others."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
