"""What a backfill reads on this machine, where it is no picture's file at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
