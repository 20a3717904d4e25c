"""A model that hangs ends its service, and its callers learn that it was their request."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from core.errors import ModelCrashed, ModelUnreachable
from core.model_client import ModelClient
from core.schemas import Priority
from core.serving import serving
from model_service.app import create_app
from model_service.batching import BatchModel, Dispatcher
from model_service.hanging import end_process
from model_service.metrics import InferenceMetrics
from model_service.parts import Parts, Tensor
from model_service.settings import ModelSettings
from tests.fakes import picture
from tests.unit.model_service.fakes import FakeTower, fake_parts


class _Tower(FakeTower):
    """Never ends with a red picture."""

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        if any(red > 150 and green < 100 for red, green, *_ in prepared):
            threading.Event().wait()
        return super().embed(prepared)


async def test_a_pass_that_never_ends_is_told_and_many_that_end_are_not() -> None:
    told: list[str] = []
    held, free = threading.Event(), threading.Event()
    free.set()
    waits = BatchModel("waits", lambda gates: [gate.wait(10) for gate in gates], max_batch=1, at_once=2)
    metrics = InferenceMetrics(CollectorRegistry())
    async with Dispatcher(metrics, longest_pass_s=0.5, on_hang=lambda one: told.append(one.get_name())) as dispatcher:
        for _ in range(40):  # together they take longer than any one may
            await dispatcher.submit(waits, [free], Priority.INGEST)
            await asyncio.sleep(0.02)
        assert told == []
        asked = asyncio.create_task(dispatcher.submit(waits, [held], Priority.INGEST))
        async with asyncio.timeout(10):
            while not told:
                await asyncio.sleep(0.01)
        held.set()
        assert await asked == [True]
    assert set(told) == {"pass-waits"}


async def test_the_service_ends_so_that_it_is_started_anew_and_the_picture_is_suspected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = [sys.executable, "-m", "tests.unit.model_service.test_hanging", str(listener.fileno())]
        service = await asyncio.create_subprocess_exec(
            *asked, pass_fds=[listener.fileno()], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with ModelClient(url) as client:
        await _ready(client)
        assert (await client.analyse(picture("blue"))).fingerprint == "f1"
        with pytest.raises(ModelCrashed):
            await client.analyse(picture("red"))
    said, traces = await service.communicate()
    assert service.returncode == os.EX_SOFTWARE
    assert b"model_hangs" in said
    assert b"in embed" in traces


async def _ready(client: ModelClient) -> None:
    """On a busy machine it takes longer to start than a look at its health waits."""
    while True:
        with suppress(ModelUnreachable):
            if (await client.health()).status == "ok":
                return
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
async def test_it_ends_also_where_nobody_can_be_told(closed: str) -> None:
    ending = f"exec {sys.executable} -m tests.unit.model_service.test_hanging {closed}"
    service = await asyncio.create_subprocess_shell(ending, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    assert await service.wait() == os.EX_SOFTWARE


async def _end() -> None:
    end_process(asyncio.create_task(asyncio.sleep(0)))


async def _serve(listener: socket.socket) -> None:
    def load(_: ModelSettings) -> Parts:
        parts = fake_parts()
        return replace(parts, image_towers=(_Tower("CLIP", text=True), *parts.image_towers[1:]))

    app = create_app(ModelSettings(pass_timeout_s=1.0), load=load)
    async with serving(app, listener, shutdown_grace_s=0):
        await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1]))) if sys.argv[1:] else _end())
