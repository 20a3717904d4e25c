"""Files are closed, whoever asked for them and left, and sent, whatever is known of them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from core.images.folder import open_regular
from core.ports import OpenedFile
from searchsvc.sending import opened_by, send_file


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


@pytest.mark.parametrize("modified_at_s", [1e12, 9.2e18, -1e11, -9.2e18])
async def test_a_file_of_a_year_that_nobody_can_name_is_sent_without_it(tmp_path: Path, modified_at_s: float) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")

    async def sent(request: web.Request) -> web.StreamResponse:
        opened = OpenedFile(path.open("rb"), 1, modified_at_s, b"a")
        return await send_file(request, opened, etag="a", headers={}, executor=executor)

    app = web.Application()
    app.router.add_get("/", sent)
    with ThreadPoolExecutor(1) as executor:
        async with TestClient(TestServer(app)) as client:
            answer = await client.get("/")
            assert await answer.text() == "a"
            assert "Last-Modified" not in answer.headers
