"""Several model services as one `Embedder`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import structlog

from core.errors import ModelCrashed, ModelsDiffer, ModelUnavailable, ModelUnreachable
from core.model_client import ModelClient
from core.replicas.lookout import PERIOD_S, Lookout
from core.replicas.metrics import ReplicaMetrics
from core.replicas.race import Race, Rules
from core.replicas.replica import AnswerT, Asked, Kind, Replica
from core.schemas import BBox, EngineState, ImageAnalysis, ModelsInfo, Priority, SegmentMode, TextEmbeddings

log = structlog.get_logger()

_REMEMBERED_S = 60.0
"""For so long a replica that went counts as it was, and models that were asked for are kept loaded."""


class _NotReady(ModelUnavailable):
    """A replica has not these models now; another may."""

    def __init__(self, info: ModelsInfo) -> None:
        super().__init__(info.notice or "the models are being loaded", retry_after_s=2)
        self.info = info


class ReplicatedModels:
    """An async context manager over the services at `urls`. `timeout_s` bounds one analysis, with all that is asked for it.

    An answer is by the models that were asked for, or there is none. Where none are named, those are meant that the settings of all
    replicas name; while these differ, that is nobody's to guess: ModelsDiffer.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        metrics: ReplicaMetrics,
        timeout_s: float = 150.0,
        connections: int = 64,
        look_every_s: float = PERIOD_S,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._clock = clock
        self._timeout_s = timeout_s
        self._rules = Rules(clock=clock, rng=rng, metrics=metrics)
        self.replicas = tuple(
            Replica(ModelClient(url, timeout_s=timeout_s, connections=connections), clock=clock, rng=rng, metrics=metrics)
            for url in urls
        )
        self._lookout = Lookout(self.replicas, wanted=self._wanted, rng=rng, period_s=look_every_s)
        self._asked_at: dict[str, float] = {}
        self._told_of: set[str] = set()
        self._stack = AsyncExitStack()
        metrics.follow_differing(lambda: len(self._configured()) > 1)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for replica in self.replicas:
                await stack.enter_async_context(replica.client)
            await stack.enter_async_context(self._lookout)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    # --- which models

    async def info(self, fingerprint: str | None = None) -> ModelsInfo:
        """Raises ModelsDiffer."""
        meant = await self._agreed() if fingerprint is None else fingerprint

        async def call(client: ModelClient) -> ModelsInfo:
            info = await client.info(meant)
            if info.state is not EngineState.READY:
                raise _NotReady(info)
            return info

        try:
            return await self._ask(Asked(call, Kind.INFO, meant))
        except _NotReady as error:
            return error.info

    async def _agreed(self) -> str | None:
        """The models of all replicas' settings; None where none is known yet. Raises ModelsDiffer."""
        await self._lookout.looked()
        configured = self._configured()
        if configured.keys() != self._told_of:
            self._told_of = set(configured)
            if len(configured) > 1:
                log.warning("models_differ", replicas=configured)
        if len(configured) > 1:
            raise ModelsDiffer(
                "the model services are of different models: an update under way, or a fault in the settings of one",
                retry_after_s=2,
            )
        return next(iter(configured), None)

    def _configured(self) -> dict[str, list[str]]:
        """Replicas by the fingerprint of their settings' models, as far as they said lately."""
        since = self._clock() - _REMEMBERED_S
        found: dict[str, list[str]] = {}
        for replica in self.replicas:
            if replica.own is not None and replica.own_at >= since:
                found.setdefault(replica.own, []).append(replica.name)
        return found

    def _wanted(self) -> Sequence[str]:
        since = self._clock() - _REMEMBERED_S
        self._asked_at = {fingerprint: at for fingerprint, at in self._asked_at.items() if at >= since}
        return tuple(self._asked_at)

    # --- work

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        meant = await self._agreed() if fingerprint is None else fingerprint

        async def call(client: ModelClient) -> TextEmbeddings:
            return await client.embed_texts(texts, priority=priority, fingerprint=meant)

        return await self._ask(Asked(call, Kind.TEXT if priority is Priority.QUERY else Kind.INGEST, meant))

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        meant = await self._agreed() if fingerprint is None else fingerprint

        async def call(client: ModelClient) -> ImageAnalysis:
            analysis = await client.analyse(image, segments=segments, priority=priority, region=region, fingerprint=meant)
            if meant is not None and analysis.fingerprint != meant:
                raise ModelUnreachable("a model service answers by other models than it was asked for")
            return analysis

        return await self._ask(Asked(call, Kind.PICTURE if priority is Priority.QUERY else Kind.INGEST, meant))

    async def _ask(self, asked: Asked[AnswerT]) -> AnswerT:
        if asked.fingerprint is not None:
            self._asked_at[asked.fingerprint] = self._clock()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await Race(self.replicas, asked, self._rules).run()
        except TimeoutError:
            if asked.kind in {Kind.INFO, Kind.TEXT}:
                raise ModelUnreachable("no model service answers in time") from None
            raise ModelCrashed("no model service answered in time") from None
