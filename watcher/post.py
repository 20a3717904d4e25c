"""The post of whoever notices: one process has the watch, others stand by it and take it over when that one dies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Self

import structlog

from core.errors import Unavailable
from watcher import relay
from watcher.ledger import Ledger, Operations, Watch
from watcher.noticing import Noticing
from watcher.observer import Hint
from watcher.services import run_in

log = structlog.get_logger()

_LOOK_S = 1.0

Begin = Callable[[AsyncExitStack, Operations], Awaitable[Noticing]]
"""Start to notice, until the stack unwinds."""


class Post:
    """An async context manager. Entering begins to notice at once where the watch is free; it is the lookout of who ingests here."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._begin: Begin | None = None
        self._term = AsyncExitStack()
        self._keeping: asyncio.Task[None] | None = None
        self.noticing: Noticing | None = None
        """None while another process has the watch."""

    def man(self, begin: Begin) -> Self:
        """`begin` is what is done with the watch; to be told before entering."""
        self._begin = begin
        return self

    async def __aenter__(self) -> Self:
        try:
            watch = await self._taken()
        except Unavailable:
            if not self._ledger.is_shared:
                raise
            watch = None  # it is asked for again
        if self._ledger.is_shared:
            self._keeping = asyncio.create_task(self._keep(watch), name="watch")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        await self._leave()

    async def _keep(self, watch: Watch | None) -> None:
        """Notice while the watch lasts, else ask for it, for ever."""
        while True:
            try:
                if watch is not None:
                    await watch.lost.wait()
                    log.warning(
                        "watch_lost", instead="another process notices, or this one as soon as the ledger's database is back"
                    )
                    await self._leave()
                await asyncio.sleep(_LOOK_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
                watch = await self._taken()
            except Unavailable as error:
                log.info("watch_not_asked_for", why=str(error))
                watch = None
            except Exception:
                log.exception("watch_failed")
                watch = None

    async def _taken(self) -> Watch | None:
        assert self._begin is not None  # noqa: S101 - manned before it is entered
        async with AsyncExitStack() as term:
            watch = await term.enter_async_context(self._ledger.watch())
            if watch is None:
                return None
            self.noticing = await self._begin(term, watch.ledger)
            if self._ledger.is_shared:
                await run_in(term, partial(relay.follow, watch.ledger, self.noticing.intake.take), "relay")
            self._term = term.pop_all()
        log.info("watch_taken", observer=self.noticing.observer.kind)
        return watch

    async def _leave(self) -> None:
        self.noticing = None
        term, self._term = self._term, AsyncExitStack()
        await term.aclose()

    # --- for who ingests

    @property
    def has_watch(self) -> bool:
        return self.noticing is not None

    @property
    def folder_missing(self) -> bool:
        return self.noticing is not None and self.noticing.scanner.folder_missing

    def recheck(self, path: str) -> None:
        if self.noticing is not None:
            self.noticing.intake.recheck(path)

    def note_write(self) -> None:
        if self.noticing is not None:
            self.noticing.sweeper.note_write()

    def look_at_every_point(self) -> None:
        if self.noticing is not None:
            self.noticing.reconciler.models_changed()

    # --- for who asks from outside; where another process has the watch, it finds what there is within seconds

    def follow(self) -> None:
        """Something came or went."""
        if self.noticing is not None:
            self.noticing.sweeper.wake()

    async def sweep(self, image_id: str) -> None:
        """This image lost its last path for good."""
        if self.noticing is not None:
            await self.noticing.sweeper.sweep_now(image_id)

    async def hint(self, hints: list[Hint]) -> None:
        """Look at these paths. Raises Unavailable."""
        if self.noticing is not None:
            self.noticing.intake.take(hints)
        elif hints:
            await self._ledger.run(relay.leave, hints)
