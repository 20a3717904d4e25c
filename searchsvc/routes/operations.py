"""Operations: status, failures, events, models, health."""

from __future__ import annotations

from contextlib import aclosing, suppress

from aiohttp import hdrs, web

from core.problems import problem
from core.web import json_answer, read_json, request_id_of
from searchsvc.routes.asking import check_may_write, number, truth
from searchsvc.schemas import Liveness, ModelsRequest
from searchsvc.services import SERVICES
from searchsvc.urls import API

MAX_FAILURES = 1000


def routes() -> list[web.RouteDef]:
    return [
        web.get(f"{API}/status", status),
        web.get(f"{API}/failures", failures),
        web.get(f"{API}/events", events, allow_head=False),
        web.get(f"{API}/models", models),
        web.post(f"{API}/models", turn_models),
        web.get("/health", health),
        web.get("/health/live", live),
        web.get("/health/ready", ready),
    ]


async def status(request: web.Request) -> web.Response:
    return json_answer(await request.app[SERVICES].status.read())


async def failures(request: web.Request) -> web.Response:
    page = await request.app[SERVICES].catalog.failures(
        limit=number(request, "limit", default=100, least=1, most=MAX_FAILURES),
        offset=number(request, "offset", default=0, least=0, most=100_000_000),
        ignored=truth(request, "ignored"),
    )
    return json_answer(page)


async def events(request: web.Request) -> web.StreamResponse:
    async with aclosing(request.app[SERVICES].events.stream()) as stream:
        first = await anext(stream, b"")
        response = web.StreamResponse(
            headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-store", "X-Accel-Buffering": "no"}
        )
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the listener went away
            await response.write(first)
            async for event in stream:
                await response.write(event)
            await response.write_eof()
    return response


async def models(request: web.Request) -> web.Response:
    return json_answer(await request.app[SERVICES].catalog.models())


async def turn_models(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    check_may_write(request)
    asked = await read_json(request, ModelsRequest)
    return json_answer(await services.catalog.turn_models(asked.action))


async def live(_: web.Request) -> web.Response:
    return json_answer(Liveness())


async def health(request: web.Request) -> web.Response:
    """Always 200: it tells, where `/health/ready` decides."""
    return json_answer(await request.app[SERVICES].readiness.report())


async def ready(request: web.Request) -> web.Response:
    report = await request.app[SERVICES].readiness.report()
    if report.status != "unavailable":
        return json_answer(report)
    missing = "; ".join(f"{part}: {said}" for part, said in report.checks.items() if said != "ok")
    return problem(
        503, missing, request_id=request_id_of(request), code="not_ready", headers={"Retry-After": "5"}, checks=report.checks
    )
