"""What was brought, followed until it is indexed or failed: a page of states a look, never a question an image."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from core.schemas import ImageState, ImageStateRecord, PathStateRecord
from imagesearch.backfill.journal import Followed, Journal
from imagesearch.backfill.pace import Pace
from imagesearch.backfill.talking import patiently
from imagesearch.client import AsyncClient
from searchsvc.schemas import StatusAnswer

_UNSEEN_S = {"sent": 600.0, "lying": 120.0}
"""For how long the service may not know of a file that it was told of, while it watches."""
_PATHS_AT_ONCE = 200
_ENDED = {ImageState.INDEXED, ImageState.FAILED}


@dataclass(slots=True)
class Follower:
    client: AsyncClient
    journal: Journal
    pace: Pace
    moved: Callable[[Follower], None]
    look_every_s: float
    status: StatusAnswer | None = None
    _all_brought: asyncio.Event = field(default_factory=asyncio.Event)
    _looked: asyncio.Event = field(default_factory=asyncio.Event)
    _after: dict[str, int] = field(default_factory=dict)

    def note_all_brought(self) -> None:
        """Nothing is to come."""
        self._all_brought.set()

    async def next_look(self) -> None:
        """Wait until all is looked at once more."""
        await self._looked.wait()

    @property
    def eta_s(self) -> float | None:
        """Until what is brought by now is indexed, by the service's own word of how fast it is."""
        rate = self.status.rate_per_s if self.status else 0.0
        return sum(self.journal.left().values()) / rate if rate else None

    async def run(self, *, wait: bool) -> None:
        """Until everything is brought; with `wait`, until it has ended."""
        while True:
            all_brought = self._all_brought.is_set()
            self.status = await patiently(self.pace, self.client.status, counted=False)
            for state in ("lying", "sent"):
                await self._look(state)
            self.moved(self)
            self._looked.set()
            self._looked = asyncio.Event()
            if all_brought and (not wait or not self.journal.left()):
                return
            if not self._all_brought.is_set() or all_brought:
                await self._pause()

    async def _pause(self) -> None:
        if self._all_brought.is_set():
            await asyncio.sleep(self.look_every_s)
            return
        try:
            async with asyncio.timeout(self.look_every_s):
                await self._all_brought.wait()
        except TimeoutError:
            return

    async def _look(self, state: str) -> None:
        """The service takes things up in the order in which they came: pages are looked at until one has nothing ended in it, and one
        page more each time, lest some that stay hide those behind them."""
        after = 0
        while page := self.journal.followed(state, after):
            after = page[-1].number
            if not await self._settle(state, page):
                break
        page = self.journal.followed(state, max(after, self._after.get(state, 0)))
        self._after[state] = page[-1].number if page else 0
        if page:
            await self._settle(state, page)

    async def _settle(self, state: str, page: list[Followed]) -> int:
        """Returns how many have ended."""
        told = await self._told(state, page)
        indexed = [row.number for row in page if row.key in told and told[row.key].state is ImageState.INDEXED]
        failed = [
            (row.number, one.reason.value if one.reason else "failed", one.detail or "")
            for row in page
            if (one := told.get(row.key)) is not None and one.state is ImageState.FAILED
        ]
        self.journal.note_indexed(indexed)
        self.journal.park([*failed, *self._unseen(state, page, told)])
        return len(indexed) + len(failed)

    async def _told(self, state: str, page: list[Followed]) -> Mapping[str, ImageStateRecord | PathStateRecord]:
        keys = list(dict.fromkeys(row.key for row in page))
        if state == "sent":
            answer = await patiently(self.pace, partial(self.client.image_states, keys), counted=False)
            return {image.image_id: image for image in answer.images}
        told: dict[str, ImageStateRecord | PathStateRecord] = {}
        for first in range(0, len(keys), _PATHS_AT_ONCE):
            asked = keys[first : first + _PATHS_AT_ONCE]
            answer = await patiently(self.pace, partial(self.client.image_states, paths=asked), counted=False)
            told.update({file.path: file for file in answer.paths})
        return told

    def _unseen(
        self, state: str, page: list[Followed], told: Mapping[str, ImageStateRecord | PathStateRecord]
    ) -> list[tuple[int, str, str]]:
        if self.status is None or self.status.watcher.state not in {"watching", "standby"} or self.status.watcher.reconciling:
            return []
        before = time.time() - _UNSEEN_S[state]
        return [
            (row.number, "not_seen", "the service does not know of it")
            for row in page
            if row.key not in told and row.since < before
        ]
