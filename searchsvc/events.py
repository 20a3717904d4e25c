"""The status as server-sent events, for as long as somebody listens and the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from core.errors import Overloaded, Unavailable
from searchsvc.state import StatusReader

_PERIOD_S = 1.0
_SILENCE_S = 15.0
_LONGEST_S = 3600.0
"""A listener that is still there comes back by itself: EventSource does."""


class StatusEvents:
    """Streams to a bounded number of listeners; `close` ends them all."""

    def __init__(self, status: StatusReader, *, max_listeners: int, period_s: float = _PERIOD_S) -> None:
        self._status = status
        self._max_listeners = max_listeners
        self._period_s = period_s
        self._listeners = 0
        self._closing = asyncio.Event()

    def close(self) -> None:
        self._closing.set()

    async def stream(self) -> AsyncGenerator[bytes]:
        """The status at once, then whenever it changes, and a comment when it long does not. Raises Overloaded."""
        if self._listeners >= self._max_listeners:
            raise Overloaded("too many listeners: poll /api/v1/status instead", retry_after_s=30)
        self._listeners += 1
        try:
            loop = asyncio.get_running_loop()
            ends_at = loop.time() + _LONGEST_S
            last, last_at = b"", loop.time()
            while not self._closing.is_set() and loop.time() < ends_at:
                event = await self._event()
                if event != last:
                    last, last_at = event, loop.time()
                    yield event
                elif loop.time() - last_at > _SILENCE_S:
                    last_at = loop.time()
                    yield b": still here\n\n"
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), self._period_s)
        finally:
            self._listeners -= 1

    async def _event(self) -> bytes:
        try:
            status = await self._status.read()
        except Unavailable:
            return b"event: unavailable\ndata: {}\n\n"
        return f"event: status\ndata: {status.model_dump_json()}\n\n".encode()
