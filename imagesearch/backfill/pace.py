"""How many requests are under way: one more with each round of good answers, half as many with a refusal (AIMD, as TCP has it)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from imagesearch.errors import Unavailable

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


class OutOfPatience(Unavailable):
    """Nothing was taken for as long as one was told to wait."""


class Pace:
    """`most` requests at once, `rate` a second at most. `patience_s` is for how long nothing but refusals may come."""

    def __init__(self, *, most: int, rate: float | None, patience_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._gap_s = 1 / rate if rate else 0.0
        self._patience_s = patience_s
        self._clock = clock
        self.limit = min(2.0, float(most))
        self._under_way = 0
        self._moved = asyncio.Condition()
        self._not_before = 0.0
        self._next_at = 0.0
        self._eased_at = float("-inf")
        self._refusals = 0
        self.well_at = clock()
        """When a request was last taken."""

    @asynccontextmanager
    async def place(self, *, counted: bool = True) -> AsyncIterator[float]:
        """For the time of a request; gives when it began. What is not `counted` is no picture, and not held to the rate."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._under_way < max(1, int(self.limit)))
            self._under_way += 1
        try:
            await self._wait_for_turn(counted=counted)
            yield self._clock()
        finally:
            async with self._moved:
                self._under_way -= 1
                self._moved.notify_all()

    async def _wait_for_turn(self, *, counted: bool) -> None:
        while True:
            now = self._clock()
            due = max(self._not_before, self._next_at) if counted else self._not_before
            if due <= now:
                self._next_at = now + self._gap_s if counted else self._next_at
                return
            await asyncio.sleep(due - now)

    def well(self) -> None:
        """A request was taken."""
        self.limit = min(float(self._most), self.limit + 1 / self.limit)
        self._refusals = 0
        self.well_at = self._clock()

    def refused(self, error: Unavailable, began_at: float) -> None:
        """For now. Requests that began before the last easing say nothing new. Raises OutOfPatience."""
        now = self._clock()
        if now - self.well_at > self._patience_s:
            raise OutOfPatience(f"nothing was taken for {self._patience_s:.0f} s; last: {error}") from error
        if began_at >= self._eased_at:
            self.limit = max(1.0, self.limit / 2)
            self._refusals += 1
            self._eased_at = now
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._refusals - 1, 16)) * random.uniform(0.5, 1.0)  # noqa: S311
        self._not_before = max(self._not_before, now + max(pause_s, min(error.retry_after_s or 0.0, self._patience_s)))
