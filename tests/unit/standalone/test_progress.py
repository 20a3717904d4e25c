"""The live line says how far ingestion is, and disappears with the work."""

from __future__ import annotations

import asyncio
import errno
import io

import pytest

from core.errors import CatalogUnavailable
from core.schemas import IngestionStatus, ModelChange, StateCounts, WatcherStatus
from standalone.progress import draw_progress, is_busy, progress_line


def _status(
    pending: int, indexed: int, *, failed: int = 0, rate: float = 0, eta_s: float | None = None, why: str | None = None
) -> IngestionStatus:
    return IngestionStatus(
        images=StateCounts(pending=pending, indexed=indexed, failed=failed),
        segments=0,
        rate_per_s=rate,
        eta_s=eta_s,
        watcher=WatcherStatus(state="watching", observer="inotify", waiting_for=why),
    )


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (
            _status(1500, 500, rate=12.34, eta_s=121.6),
            "[######..................] 500 of 2,000 pictures | 12.3/s | 2 min 02 s left",
        ),
        (_status(1, 0, why="the model loads"), "[........................] 0 of 1 pictures | waiting: the model loads"),
        (_status(0, 3, failed=1), "[########################] 4 of 4 pictures | 1 failed"),
        (_status(9, 0, rate=0.1, eta_s=7300), "[........................] 0 of 9 pictures | 0.1/s | 2 h 01 min left"),
        (_status(0, 0), "[........................] 0 of 0 pictures"),
    ],
)
def test_the_line_tells_counts_rate_time_left_and_why_it_waits(status: IngestionStatus, line: str) -> None:
    assert progress_line(status) == line


class _CatalogOf:
    """Answers `status` from a list; the last one stays."""

    def __init__(self, *statuses: IngestionStatus | Exception) -> None:
        self._statuses = list(statuses)

    async def status(self) -> IngestionStatus:
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        if isinstance(status, Exception):
            raise status
        return status


@pytest.mark.parametrize("last", [_status(0, 5), CatalogUnavailable("away")], ids=["done", "away"])
async def test_the_line_is_wiped_when_there_is_nothing_left_to_tell(last: IngestionStatus | Exception) -> None:
    terminal = io.StringIO()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(draw_progress(_CatalogOf(_status(4, 1), last), terminal), 0.8)
    assert "1 of 5 pictures" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


async def test_a_terminal_that_was_closed_ends_the_line_and_nothing_else() -> None:
    class Closed(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(errno.EIO, "Input/output error")

    await asyncio.wait_for(draw_progress(_CatalogOf(_status(4, 1)), Closed()), 5)


def test_a_change_of_models_is_in_the_line() -> None:
    change = ModelChange(profile="clip", answering="starter", done=1200, total=5000, stopped=True)
    status = _status(0, 5000).model_copy(update={"model_change": change})
    assert "re-indexing for clip: 1,200 of 5,000, stopped" in progress_line(status)
    assert is_busy(status)
