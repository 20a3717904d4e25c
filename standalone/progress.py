"""The live line in the terminal: how far ingestion is, for as long as there is something to do."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import TextIO

from core.errors import Unavailable
from core.ports import Catalog
from core.schemas import IngestionStatus

_BAR_WIDTH = 24
_PERIOD_S = 0.5


async def draw_progress(catalog: Catalog, terminal: TextIO = sys.stderr) -> None:
    """Redraw the line until cancelled, or until the terminal is gone; nothing is drawn while nothing waits."""
    with suppress(OSError):
        await _redraw(catalog, terminal)


async def _redraw(catalog: Catalog, terminal: TextIO) -> None:
    drawn = False
    while True:
        try:
            status = await catalog.status()
        except Unavailable:
            status = None
        busy = status is not None and is_busy(status)
        if status is not None and busy:
            print(f"\r\x1b[K{progress_line(status)}", end="", file=terminal, flush=True)
        elif drawn:
            print("\r\x1b[K", end="", file=terminal, flush=True)
        drawn = busy
        await asyncio.sleep(_PERIOD_S)


def is_busy(status: IngestionStatus) -> bool:
    return status.images.pending + status.images.running + status.watcher.settling > 0 or status.model_change is not None


def progress_line(status: IngestionStatus) -> str:
    """One line: bar, counts, rate, time left, and why it waits if it does."""
    images = status.images
    total = images.pending + images.running + images.indexed + images.failed
    done = images.indexed + images.failed
    filled = _BAR_WIDTH * done // total if total else 0
    parts = [f"[{'#' * filled}{'.' * (_BAR_WIDTH - filled)}] {done:,} of {total:,} pictures"]
    if change := status.model_change:
        parts.append(
            f"re-indexing for {change.profile}: {change.done:,} of {change.total:,}{', stopped' if change.stopped else ''}"
        )
    if images.failed:
        parts.append(f"{images.failed:,} failed")
    if status.rate_per_s > 0:
        parts.append(f"{status.rate_per_s:.1f}/s")
    if status.eta_s is not None:
        parts.append(f"{_duration(status.eta_s)} left")
    if status.watcher.waiting_for:
        parts.append(f"waiting: {status.watcher.waiting_for}")
    return " | ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
