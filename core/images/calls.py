"""Calls that block and can be broken off all the same: a service that hangs holds up nobody's end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from typing import TypeVar

from core.errors import Unavailable

T = TypeVar("T")

_CLOSED = "the bucket is not asked any more"


class Calls:
    """For worker threads: each waits here for what runs on an event loop of a thread of its own, which ends with `close`."""

    def __init__(self) -> None:
        self._begin = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def wait(self, call: Callable[[], Awaitable[T]]) -> T:
        """Raises what the call raises, and Unavailable after `close` or at it."""
        with self._begin:
            if self._closed:
                raise Unavailable(_CLOSED)
            loop = self._running()
            answer = asyncio.run_coroutine_threadsafe(_awaited(call), loop)
        try:
            return answer.result()
        except CancelledError:
            raise Unavailable(_CLOSED) from None

    def close(self) -> None:
        """What is under way is broken off. On return the thread has ended."""
        with self._begin:
            self._closed = True
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(_break_off_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        """Begun with the first call. Raises Unavailable where no thread is to be had."""
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="bucket-calls", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                loop.close()
                raise Unavailable("no thread can be started for the bucket") from None
            self._loop, self._thread = loop, thread
        return self._loop


async def _awaited(call: Callable[[], Awaitable[T]]) -> T:
    """Begun on the loop, which obstore looks for."""
    return await call()


async def _break_off_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
