"""What a backfill reads on this machine, where it is no picture's file at all."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from imagesearch.backfill.fetching import Fetcher, Unfetchable
from imagesearch.backfill.rows import Kind, Row, UnreadableSource


async def test_what_would_never_end_to_be_opened_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    async with Fetcher() as fetcher:
        for place in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
            with pytest.raises(Unfetchable) as refused:
                await fetcher.fetch(Row(Kind.FILE, str(place)))
            assert (refused.value.reason, refused.value.passes) == ("unreadable", False)


async def test_files_are_read_whatever_proxy_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx speaks SOCKS with another library alone."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    (tmp_path / "a.png").write_bytes(b"content")
    async with Fetcher() as fetcher:
        assert (await fetcher.fetch(Row(Kind.FILE, str(tmp_path / "a.png"))))[0] == b"content"
        with pytest.raises(UnreadableSource, match="SOCKS"):
            await fetcher.fetch(Row(Kind.URL, "http://127.0.0.1:1/a.png"))


async def test_an_address_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0.01)

    app = web.Application()
    app.router.add_get("/a.png", drip)
    monkeypatch.setattr("imagesearch.backfill.fetching._LONGEST_S", 0.5)
    async with TestServer(app) as server, Fetcher() as fetcher:
        with pytest.raises(Unfetchable) as refused:
            await asyncio.wait_for(fetcher.fetch(Row(Kind.URL, str(server.make_url("/a.png")))), 60)
    assert (refused.value.reason, refused.value.passes) == ("too_slow", False)
