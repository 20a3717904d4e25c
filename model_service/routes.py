"""HTTP in and out; what is asked is answered by the engine."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from core.errors import ImageRejected, Reason
from core.schemas import (
    EmbedTextRequest,
    EngineState,
    Health,
    ImageAnalysis,
    ModelsInfo,
    Priority,
    SegmentMode,
    TextEmbeddings,
)
from core.web import json_answer, parse, read_json


class Models(Protocol):
    """What the routes ask of the engine."""

    def info(self) -> ModelsInfo: ...

    def admitted(self, priority: Priority) -> AbstractAsyncContextManager[None]: ...

    async def analyse(self, image: bytes, segments: SegmentMode, priority: Priority) -> ImageAnalysis: ...

    async def embed_texts(self, texts: tuple[str, ...], priority: Priority) -> TextEmbeddings: ...


MODELS: web.AppKey[Models] = web.AppKey("models", Models)


class AnalyseOptions(BaseModel):
    """The query string of `/v1/analyse`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    segments: SegmentMode = SegmentMode.STANDARD
    priority: Priority = Priority.INGEST


def routes() -> list[web.RouteDef]:
    return [
        web.post("/v1/analyse", analyse),
        web.post("/v1/embed-texts", embed_texts),
        web.get("/v1/models", models),
        web.get("/health/live", live),
        web.get("/health/ready", ready),
    ]


async def analyse(request: web.Request) -> web.Response:
    """The picture's bytes are the whole body, whatever content type it names."""
    options = parse(AnalyseOptions, dict(request.query))
    engine = request.app[MODELS]
    async with engine.admitted(options.priority):
        try:
            image = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise ImageRejected(Reason.TOO_MANY_BYTES, "the file is larger than allowed") from None
        return json_answer(await engine.analyse(image, options.segments, options.priority))


async def embed_texts(request: web.Request) -> web.Response:
    wanted = await read_json(request, EmbedTextRequest)
    return json_answer(await request.app[MODELS].embed_texts(wanted.texts, wanted.priority))


async def models(request: web.Request) -> web.Response:
    return json_answer(request.app[MODELS].info())


async def live(_: web.Request) -> web.Response:
    """Alive, also while it loads or has no model: a restart would not help."""
    return json_answer(Health(status="ok"))


async def ready(request: web.Request) -> web.Response:
    info = request.app[MODELS].info()
    is_ready = info.state is EngineState.READY
    health = Health(status="ok" if is_ready else "unavailable", detail=info.notice, checks={"models": info.state.value})
    return json_answer(health, status=200 if is_ready else 503)
