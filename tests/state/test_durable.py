"""Feedback that was answered with 201 is on the disk: shown by the system calls of the process, and by killing it under load."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from searchsvc.feedback import FeedbackStore
from searchsvc.feedback_file import FileFeedback
from searchsvc.feedback_schema import FEEDBACK_NAME

ROOT = Path(__file__).parents[2]
SEED = int(os.environ.get("KILL_SEED", "20261121"))
SHORT, LONG = 4, 200

SERVICE = """
import asyncio, sys
from pathlib import Path
from aiohttp import web
from searchsvc.settings import SearchSettings
from searchsvc.app import create_app
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore

async def main():
    settings = SearchSettings(data_dir=Path(sys.argv[1]), images_dir=Path(sys.argv[1]) / "images", host="127.0.0.1", jwt_secret="s" * 16 + "k3y" * 16)
    settings.images_dir.mkdir(parents=True, exist_ok=True)
    app = create_app(settings, embedder=FakeEmbedder(), vectors=FakeVectorStore(), catalog=FakeCatalog())
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print("port", runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def serving(data_dir: Path, *before: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The search service over ports in memory, as a process; `before` is what runs it."""
    command = [*before, sys.executable, "-c", SERVICE, str(data_dir)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, process_group=0)
    assert process.stdout is not None
    try:
        port = next((int(line.split()[1]) for line in process.stdout if line.startswith("port")), None)
        assert port is not None, "it did not start"
        yield process, port
    finally:
        with_group = process.poll() is None
        if with_group:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stdout.close()


async def rate_until_killed(port: int, kill: asyncio.Event) -> list[str]:
    """Search and rate from several clients at once. Returns the feedback ids of every 201."""
    import httpx

    acknowledged: list[str] = []

    async def client() -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
            while not kill.is_set():
                try:
                    found = await http.post("/api/v1/search-image", json={"text": "red"})
                    if found.status_code != 200:
                        continue
                    answer = await http.post("/api/v1/create-feedback", json={"user_feedback": 5, "jwt": found.json()["jwt"]})
                except (httpx.TransportError, ValueError):
                    return
                if answer.status_code == 201:
                    acknowledged.append(answer.json()["feedback_id"])

    await asyncio.gather(*(client() for _ in range(4)))
    return acknowledged


async def kept_in(data_dir: Path) -> set[str]:
    async with FeedbackStore(FileFeedback(data_dir / FEEDBACK_NAME)) as store:
        return {one.feedback_id async for page in store.pages() for one in page}


async def _kills(data_dir: Path, rounds: int) -> None:
    print(f"KILL_SEED={SEED}")
    rng, promised = random.Random(SEED), set[str]()
    for _ in range(rounds):
        with serving(data_dir) as (process, port):
            killed = asyncio.Event()
            rating = asyncio.create_task(rate_until_killed(port, killed))
            await asyncio.sleep(rng.uniform(0.2, 1.2))
            os.killpg(process.pid, signal.SIGKILL)
            killed.set()
            promised |= set(await rating)
        assert promised <= await kept_in(data_dir)
    print(f"{rounds} kills, {len(promised)} ratings answered with 201")
    assert len(promised) >= rounds


async def test_every_rating_that_was_answered_with_201_is_there_after_a_kill(tmp_path: Path) -> None:
    await _kills(tmp_path / "data", SHORT)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_every_rating_that_was_answered_with_201_is_there_after_hundreds_of_kills(tmp_path: Path) -> None:
    await _kills(tmp_path / "data", LONG)


def _can_trace() -> bool:
    strace = shutil.which("strace")
    return (
        strace is not None
        and subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not _can_trace(), reason="strace is not installed, or not allowed to trace here")
async def test_the_journal_is_on_the_disk_before_a_201_is_sent(tmp_path: Path) -> None:
    """By the system calls: between the write to the journal and the answer there is an fsync of the journal."""
    import httpx

    trace = tmp_path / "trace"
    calls = "trace=pwrite64,fsync,fdatasync,sendto,sendmsg,write,writev"
    with serving(tmp_path / "data", "strace", "-f", "-y", "-s", "40", "-e", calls, "-o", str(trace)) as (_, port):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as http:
            for _ in range(3):
                found = (await http.post("/api/v1/search-image", json={"text": "red"})).json()
                assert (
                    await http.post("/api/v1/create-feedback", json={"user_feedback": 5, "jwt": found["jwt"]})
                ).status_code == 201
    events = []
    for line in trace.read_text(errors="replace").splitlines():
        if re.search(rf"pwrite64\(\d+<[^>]*{FEEDBACK_NAME}-wal>", line):
            events.append("written")
        elif re.search(rf"f(data)?sync\(\d+<[^>]*{FEEDBACK_NAME}-wal>", line):
            events.append("synced")
        elif "HTTP/1.1 201" in line:
            events.append("answered")
    assert events.count("answered") == 3, events
    for at in [place for place, event in enumerate(events) if event == "answered"]:
        since = events[:at][::-1]
        last_write, last_sync = since.index("written"), since.index("synced")
        assert last_sync < last_write, f"answered before it was on the disk: {events}"
