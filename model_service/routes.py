"""HTTP in and out of the engine."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from math import isfinite
from typing import TypeVar

from aiohttp import web

from core.errors import ImageRejected, InvalidRequest, Reason
from core.schemas import BBox, EmbedTextRequest, EngineState, Health, Priority, SegmentMode
from core.web import json_answer, note_told_elsewhere, read_json
from model_service.engine import Engine

ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)
REQUEST_TIMEOUT_S: web.AppKey[float] = web.AppKey("request_timeout_s", float)
DRAINING: web.AppKey[asyncio.Event] = web.AppKey("draining", asyncio.Event)

routes = web.RouteTableDef()

EnumT = TypeVar("EnumT", bound=StrEnum)


@routes.post("/v1/analyse")
async def analyse(request: web.Request) -> web.Response:
    """The body is the picture's bytes; the answer an ImageAnalysis."""
    engine = request.app[ENGINE]
    segments = _option(request, "segments", SegmentMode, SegmentMode.STANDARD)
    priority = _option(request, "priority", Priority, Priority.INGEST)
    region = _region(request.query["region"]) if "region" in request.query else None
    if priority is Priority.INGEST:
        note_told_elsewhere(request)  # by the watcher, with the file's name
    fingerprint = request.query.get("fingerprint")
    async with engine.admitted(priority, fingerprint):
        async with asyncio.timeout(request.app[REQUEST_TIMEOUT_S]):  # a body that never ends must not keep its place for ever
            image = await _image(request)
            analysis = await engine.analyse(image, segments=segments, priority=priority, region=region, fingerprint=fingerprint)
            return json_answer(analysis)


async def _image(request: web.Request) -> bytes:
    if (request.content_length or 0) <= request.client_max_size:
        with suppress(web.HTTPRequestEntityTooLarge):
            return await request.read()
    raise ImageRejected(Reason.TOO_MANY_BYTES, "the file is larger than allowed")


@routes.post("/v1/embed-texts")
async def embed_texts(request: web.Request) -> web.Response:
    engine = request.app[ENGINE]
    asked = await read_json(request, EmbedTextRequest)
    async with engine.admitted(asked.priority, asked.fingerprint), asyncio.timeout(request.app[REQUEST_TIMEOUT_S]):
        return json_answer(await engine.embed_texts(asked.texts, priority=asked.priority, fingerprint=asked.fingerprint))


@routes.get("/v1/models")
async def models(request: web.Request) -> web.Response:
    """With `fingerprint`, of models that were served before, which are then loaded beside those of the settings."""
    return json_answer(await request.app[ENGINE].info(request.query.get("fingerprint")))


@routes.get("/health/live")
async def live(_: web.Request) -> web.Response:
    return json_answer(Health(status="ok"))


@routes.get("/health/ready")
async def ready(request: web.Request) -> web.Response:
    info = await request.app[ENGINE].info()
    checks = {"models": info.state.value, **({"fingerprint": info.fingerprint} if info.fingerprint else {})}
    draining = request.app[DRAINING].is_set()
    if info.state is EngineState.READY and not draining:
        return json_answer(Health(status="ok", detail=info.notice, checks=checks))
    detail = "it is about to end" if draining else info.notice or "the models are still being loaded"
    return json_answer(Health(status="unavailable", detail=detail, checks=checks), status=503, headers={"Retry-After": "5"})


def _region(given: str) -> BBox:
    try:
        x, y, width, height = map(float, given.split(","))
    except ValueError:
        raise InvalidRequest("region is four numbers: x,y,width,height", field="region") from None
    if not (all(map(isfinite, (x, y, width, height))) and width > 0 and height > 0):
        raise InvalidRequest("the region is empty", field="region")
    return (x, y, width, height)


def _option(request: web.Request, name: str, values: type[EnumT], default: EnumT) -> EnumT:
    given = request.query.get(name, default.value)
    try:
        return values(given)
    except ValueError:
        known = ", ".join(value.value for value in values)
        raise InvalidRequest(f"{name} is one of {known}", field=name) from None
