"""Services of the watcher: coroutines that run until what started them ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import structlog

from core.errors import Unavailable

log = structlog.get_logger()

_RESTART_PAUSE_S = 1.0


async def run_in(stack: AsyncExitStack, work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run a service until the stack unwinds."""
    task = asyncio.create_task(kept_alive(work, name), name=name)
    stack.push_async_callback(_cancel, task)


async def kept_alive(work: Callable[[], Awaitable[None]], name: str) -> None:
    """One that fails is a bug; it is told, and started again, since what it works on lies in the ledger and a deaf watcher helps nobody."""
    while True:
        try:
            await work()
        except Unavailable as error:
            log.warning("service_waits", service=name, why=str(error))
        except Exception:
            log.critical("service_died", service=name, restart_in_s=_RESTART_PAUSE_S, exc_info=True)
        else:
            log.critical("service_ended", service=name, restart_in_s=_RESTART_PAUSE_S)
        await asyncio.sleep(_RESTART_PAUSE_S)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
