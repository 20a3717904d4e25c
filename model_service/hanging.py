"""A pass through a model that never ends: nothing ends a thread, so the process ends, and whoever started it starts it anew."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection

import structlog

log = structlog.get_logger()

_LOOKS = 10


async def watch(
    passes: Collection[asyncio.Task[None]], *, longest_s: float, on_hang: Callable[[asyncio.Task[None]], None]
) -> None:
    """Look at what runs for ever, and tell of a pass that has run for longer.

    Looks are counted, not seconds: a process that was stopped or starved meanwhile has not looked.
    """
    seen: Counter[asyncio.Task[None]] = Counter()
    while True:
        await asyncio.sleep(longest_s / _LOOKS)
        seen = Counter({one: seen[one] + 1 for one in passes})
        for one, looks in seen.items():
            if looks > _LOOKS:
                on_hang(one)


def end_process(hanging: asyncio.Task[None]) -> None:
    """At once: connections break, by which callers learn that it was this request."""
    try:
        log.critical("model_hangs", **{"pass": hanging.get_name(), "next": "this process ends, and is to be started anew"})
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        sys.stdout.flush()
    finally:  # also where nobody can be told, as without stdout
        os._exit(os.EX_SOFTWARE)
