"""Keeps an eye on a bucket: while it is away nothing is forgotten and nothing ingested, and when it is back it is compared."""

from __future__ import annotations

import asyncio
import random

import structlog

from watcher.scanner import Scanner

log = structlog.get_logger()

_PERIOD_S = 20.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0


class BucketVigil:
    """What the scanner finds out in passing is found out here within seconds, and its end within a minute."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._pause_s = _FIRST_PAUSE_S

    async def begin(self) -> None:
        """Know from the first moment on whether it is there."""
        await self._scanner.lost()

    async def run(self) -> None:
        """Look every now and then, for ever."""
        while True:
            await asyncio.sleep(self._next_pause_s())
            try:
                was_missing = self._scanner.folder_missing
                await self._scanner.lost()
                if was_missing and not self._scanner.folder_missing:
                    self._scanner.request()
            except Exception:
                log.exception("vigil_failed")

    def _next_pause_s(self) -> float:
        """While it is away: longer each time, and never at the same moment as all others who wait for it."""
        if not self._scanner.folder_missing:
            self._pause_s = _FIRST_PAUSE_S
            return _PERIOD_S
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, _LONGEST_PAUSE_S)
        return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
