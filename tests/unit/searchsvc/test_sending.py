"""Files are closed, whoever asked for them and left."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.images.folder import open_regular
from core.ports import OpenedFile
from searchsvc.sending import opened_by


async def test_what_is_opened_for_a_caller_who_left_is_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    begun, release = asyncio.Event(), threading.Event()
    opened: list[OpenedFile | None] = []
    loop = asyncio.get_running_loop()

    def slowly() -> OpenedFile | None:
        loop.call_soon_threadsafe(begun.set)
        release.wait(10)
        opened.append(open_regular(path))
        return opened[0]

    with ThreadPoolExecutor(1) as executor:
        asking = asyncio.create_task(opened_by(executor, slowly))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        release.set()
        await asyncio.to_thread(executor.shutdown)
    await asyncio.sleep(0)
    assert opened[0] is not None
    assert opened[0].file.closed
