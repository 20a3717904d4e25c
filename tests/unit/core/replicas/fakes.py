"""Model services over real HTTP that are well, or suffer from whatever a service may; and a ward of several of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from types import TracebackType
from typing import Self

import numpy as np
from aiohttp import web
from prometheus_client import CollectorRegistry

from core.replicas.metrics import ReplicaMetrics
from core.replicas.models import ReplicatedModels
from core.schemas import (
    EmbedTextRequest,
    EngineState,
    Health,
    ImageAnalysis,
    ModelsInfo,
    Space,
    TextEmbeddings,
)
from core.web import json_answer
from tests.ports import free_ports

DIM = 4
PICTURE = b"a picture"


class Ailment(StrEnum):
    NONE = "none"
    SLOW = "slow"
    HANGS = "hangs"
    REFUSES = "refuses"
    BUSY = "busy"
    BUSY_BEHIND_A_PROXY = "429 of a proxy"
    UNAVAILABLE = "503 without a reason"
    FAILS = "500"
    GARBAGE = "garbage"
    DIES = "dies in mid-body"
    BREAKS_OFF = "breaks off"
    DRAINS = "drains"


def space_of(fingerprint: str) -> Space:
    return Space(collection=f"clip-{fingerprint}", model_name="CLIP", dim=DIM, text=True)


class FakeReplica:
    """Embeds a text, which is a number, as that number. `ailment` may be set at any time, but REFUSES, which is `fall`'s."""

    def __init__(self, port: int, rng: random.Random) -> None:
        self.port = port
        self.name = f"127.0.0.1:{port}"
        self.ailment = Ailment.NONE
        self.fingerprint = "f1"
        self.tells_fingerprint = True
        self.answers_as: str | None = None
        self.beside: set[str] = set()
        self.loads: list[str] = []
        self.problem: str | None = None
        self.retry_after_s = 1
        self.delay_s = 0.0
        self.slow_s = 0.5
        self.slow_share = 1.0
        self.asked = 0
        self.texts: Counter[str] = Counter()
        self.slowed = 0
        self.cancelled = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self._rng = rng
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.name}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/embed-texts", self._embed_texts),
                web.post("/v1/analyse", self._analyse),
                web.get("/v1/models", self._models),
                web.get("/health/ready", self._health),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def fall(self, ailment: Ailment) -> None:
        """Suffer from this from now on; one that refuses is ended, with all that it has in hand."""
        self.ailment = ailment
        if ailment is Ailment.REFUSES:
            await self.__aexit__(None, None, None)
        elif self._runner is None:
            await self.__aenter__()

    # --- what it answers

    async def _embed_texts(self, request: web.Request) -> web.StreamResponse:
        asked = EmbedTextRequest.model_validate_json(await request.read())
        self.texts.update(asked.texts)
        vectors = tuple(np.full(DIM, float(text), np.float32) for text in asked.texts)
        answer = TextEmbeddings(space=space_of(asked.fingerprint or self.fingerprint), vectors=vectors)
        return await self._suffered(request, json_answer(answer))

    async def _analyse(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        answer = ImageAnalysis(
            content_hash="0" * 64,
            width=1,
            height=1,
            format="JPEG",
            fingerprint=self.answers_as or request.query.get("fingerprint", self.fingerprint),
            embeddings=(),
        )
        return await self._suffered(request, json_answer(answer))

    async def _models(self, request: web.Request) -> web.StreamResponse:
        meant = request.query.get("fingerprint", self.fingerprint)
        if meant not in {self.fingerprint, *self.beside}:
            self.loads.append(meant)
            return json_answer(ModelsInfo(state=EngineState.LOADING, profile="fake", requested_profile="fake"))
        info = ModelsInfo(
            state=EngineState.READY, profile="fake", requested_profile="fake", spaces=(space_of(meant),), fingerprint=meant
        )
        return await self._suffered(request, json_answer(info), counted=False)

    async def _health(self, request: web.Request) -> web.StreamResponse:
        match self.ailment:
            case Ailment.HANGS:
                await asyncio.sleep(3600)
            case Ailment.DIES | Ailment.BREAKS_OFF | Ailment.GARBAGE | Ailment.FAILS:
                return await self._suffered(request, web.Response(), counted=False)
        ready = self.ailment is not Ailment.DRAINS
        known = {"fingerprint": self.fingerprint} if self.tells_fingerprint else {}
        health = Health(status="ok" if ready else "unavailable", checks={"models": "ready", **known})
        return json_answer(health, status=200 if ready else 503)

    async def _suffered(self, request: web.Request, answer: web.Response, *, counted: bool = True) -> web.StreamResponse:
        self.asked += counted
        self.in_flight += counted
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._said(request, answer)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= counted

    async def _said(self, request: web.Request, answer: web.Response) -> web.StreamResponse:
        await asyncio.sleep(self.delay_s)
        if self.ailment is Ailment.HANGS:
            await asyncio.sleep(3600)
        if self.ailment is Ailment.SLOW and self._rng.random() < self.slow_share:
            self.slowed += 1
            await asyncio.sleep(self.slow_s)
        if self.ailment in {Ailment.DIES, Ailment.BREAKS_OFF}:
            return await _broken_off(request, begun=self.ailment is Ailment.DIES)
        if self.problem is not None:
            return _problem(415, self.problem, {})
        return self._instead() or answer

    def _instead(self) -> web.Response | None:
        later = {"Retry-After": str(self.retry_after_s)}
        match self.ailment:
            case Ailment.BUSY:
                return _problem(503, "overloaded", later)
            case Ailment.BUSY_BEHIND_A_PROXY:
                return web.Response(status=429, text="slow down", headers=later)
            case Ailment.UNAVAILABLE:
                return web.Response(status=503, text="upstream is gone")
            case Ailment.FAILS:
                return _problem(500, "internal_server_error", {})
            case Ailment.GARBAGE:
                return web.Response(text="<html>not what you asked for</html>")
        return None


async def _broken_off(request: web.Request, *, begun: bool) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    if begun:
        await answer.prepare(request)
        await answer.write(b'{"space":')
    assert request.transport is not None
    request.transport.abort()
    return answer


def _problem(status: int, code: str, headers: dict[str, str]) -> web.Response:
    return web.json_response({"code": code, "detail": code}, status=status, headers=headers)


class Ward:
    """Replicas, and a client over them."""

    def __init__(self, replicas: Sequence[FakeReplica], models: ReplicatedModels, registry: CollectorRegistry) -> None:
        self.replicas = replicas
        self.models = models
        self._registry = registry

    @property
    def asked(self) -> int:
        return sum(replica.asked for replica in self.replicas)

    def told(self, metric: str, **labels: str) -> float:
        value = self._registry.get_sample_value(metric, labels)
        assert value is not None, metric
        return value

    async def embed(self, number: int) -> None:
        """One query; its answer is its own."""
        answer = await self.models.embed_texts([str(number)], fingerprint="f1")
        assert answer.vectors[0].tolist() == [float(number)] * DIM
        assert answer.space == space_of("f1")

    async def embed_many(self, count: int, *, at_once: int = 8) -> None:
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                await self.embed(number)

        await asyncio.gather(*(caller() for _ in range(at_once)))


@asynccontextmanager
async def ward(count: int, rng: random.Random, *, timeout_s: float = 30.0, look_every_s: float = 0.05) -> AsyncIterator[Ward]:
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(FakeReplica(port, rng)) for port in free_ports(count)]
        models = ReplicatedModels(
            [replica.url for replica in replicas],
            metrics=ReplicaMetrics(registry),
            timeout_s=timeout_s,
            look_every_s=look_every_s,
            rng=rng,
        )
        await stack.enter_async_context(models)
        yield Ward(replicas, models, registry)
