"""Looks at each replica now and then, so that callers need not find out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from core.errors import ImageSearchError, ModelUnreachable
from core.replicas.replica import Replica
from core.schemas import EngineState

PERIOD_S = 1.0


class Lookout:
    """An async context manager. `wanted` names the models that callers ask for lately.

    Where those are not the models of a replica's settings, asking for them makes it load them beside its own, and keep them: so that
    it can answer by them when the last replica whose own they are goes.
    """

    def __init__(
        self, replicas: Sequence[Replica], *, wanted: Callable[[], Sequence[str]], rng: random.Random, period_s: float = PERIOD_S
    ) -> None:
        self._replicas = replicas
        self._wanted = wanted
        self._rng = rng
        self._period_s = period_s
        self._looking: list[asyncio.Task[None]] = []
        self._looked: list[asyncio.Event] = []

    async def __aenter__(self) -> Self:
        self._looked = [asyncio.Event() for _ in self._replicas]
        self._looking = [
            asyncio.create_task(self._keep_looking(replica, looked), name=f"look-at-{replica.name}")
            for replica, looked in zip(self._replicas, self._looked, strict=True)
        ]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        looking: Collection[asyncio.Task[None]] = self._looking
        while looking:  # a cancellation that comes together with a time-out of aiohttp's is swallowed by it
            for task in looking:
                task.cancel()
            _, looking = await asyncio.wait(looking, timeout=0.1)

    async def looked(self) -> None:
        """Wait until each was looked at once, whether it answered or not: a few seconds at most."""
        for event in self._looked:
            await event.wait()

    async def _keep_looking(self, replica: Replica, looked: asyncio.Event) -> None:
        while True:
            try:
                replica.seen(await replica.client.health())
            except ModelUnreachable:
                replica.missed()
            finally:
                looked.set()
            if replica.is_ready:
                await self._ask_for_others(replica)
            await asyncio.sleep(self._period_s * self._rng.uniform(0.8, 1.2))

    async def _ask_for_others(self, replica: Replica) -> None:
        for fingerprint in self._wanted():
            if fingerprint != replica.own:
                with suppress(ImageSearchError):
                    info = await replica.client.info(fingerprint)
                    replica.holds(fingerprint, ready=info.state is EngineState.READY)
