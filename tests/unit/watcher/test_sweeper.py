"""The sweeper alone."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from core.errors import VectorsUnavailable
from tests.unit.watcher.fakes import FakeStore, until
from watcher import sweeper
from watcher.ledger import FileLedger
from watcher.locks import ImageLocks
from watcher.sweeper import Sweeper


class Hesitant(FakeStore):
    """Its disk takes nothing the first times."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def flush(self) -> None:
        self.asked += 1
        if self.asked < 3:
            raise VectorsUnavailable("the disk does not answer")


async def test_a_flush_that_fails_is_tried_again_until_it_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "_FLUSH_AFTER_S", 0.01)
    monkeypatch.setattr(sweeper, "_RETRY_S", 0.01)
    store = Hesitant()
    async with FileLedger(tmp_path) as ledger:
        tested = Sweeper(ledger, store, ImageLocks(), orphan_grace_s=1.0, is_calm=lambda: True)
        running = asyncio.create_task(tested.run())
        tested.note_write()
        await until(lambda: store.asked == 3)
        await asyncio.sleep(0.1)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert store.asked == 3
