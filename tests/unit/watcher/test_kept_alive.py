"""A part of the watcher that fails is started again."""

from __future__ import annotations

import asyncio

import pytest

from watcher.services import kept_alive


async def test_a_part_that_fails_or_ends_is_told_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watcher.services._RESTART_PAUSE_S", 0.01)
    starts = 0
    third = asyncio.Event()

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise KeyError("a bug")
        if starts == 3:
            third.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(kept_alive(work, "frail"))
    await asyncio.wait_for(third.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert starts == 3
