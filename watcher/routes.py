"""HTTP in and out of the watcher: the Catalog port, health and metrics."""

from __future__ import annotations

from aiohttp import web

from core.catalog_client import SEGMENTS, HintAnswer, HintRequest, ModelsRequest, NoticeRequest, SegmentRequest, StatesRequest
from core.errors import InvalidRequest
from core.gate import Gate
from core.schemas import Health, ImportRequest
from core.web import json_answer, make_application, metrics_route, read_json
from watcher.catalog import FolderCatalog
from watcher.metrics import IndexMetrics, IngestionMetrics, StatusMetrics

_LARGEST_BODY = 2 * 1024 * 1024
"""Twice what the search service takes: it passes vectors on in words of its own."""

_LARGEST_PAGE = 1000


class Routes:
    """The handlers; each one is a line between HTTP and the catalog."""

    def __init__(self, catalog: FolderCatalog, metrics: IngestionMetrics, index: IndexMetrics) -> None:
        self._catalog = catalog
        self._status = StatusMetrics(metrics.registry)
        self._index = index
        self._render = metrics_route(metrics.registry)

    async def status(self, _: web.Request) -> web.Response:
        return json_answer(await self._catalog.status())

    async def image(self, request: web.Request) -> web.Response:
        return json_answer(await self._catalog.image(request.match_info["id"]))

    async def states(self, request: web.Request) -> web.Response:
        asked = await read_json(request, StatesRequest)
        return json_answer(await self._catalog.states(asked.image_ids, asked.paths))

    async def failures(self, request: web.Request) -> web.Response:
        limit = _number(request, "limit", default=100, least=1, most=_LARGEST_PAGE)
        offset = _number(request, "offset", default=0, least=0, most=2**31)
        ignored = _flag(request, "ignored")
        return json_answer(await self._catalog.failures(limit=limit, offset=offset, ignored=ignored))

    async def notice(self, request: web.Request) -> web.Response:
        asked = await read_json(request, NoticeRequest)
        return json_answer(await self._catalog.notice(asked.path, backfill=asked.backfill), status=202)

    async def hint(self, request: web.Request) -> web.Response:
        asked = await read_json(request, HintRequest)
        return json_answer(HintAnswer(hints=await self._catalog.hint(asked.paths, backfill=asked.backfill)), status=202)

    async def delete(self, request: web.Request) -> web.Response:
        await self._catalog.delete(request.match_info["id"])
        return web.Response(status=204)

    async def segment(self, request: web.Request) -> web.Response:
        asked = await read_json(request, SegmentRequest)
        segments = await self._catalog.resegment(request.match_info["id"], asked.mode)
        return web.Response(body=SEGMENTS.dump_json(segments), content_type="application/json")

    async def take_embeddings(self, request: web.Request) -> web.Response:
        return json_answer(await self._catalog.take_embeddings(await read_json(request, ImportRequest)))

    async def models(self, _: web.Request) -> web.Response:
        return json_answer(await self._catalog.models())

    async def turn_models(self, request: web.Request) -> web.Response:
        asked = await read_json(request, ModelsRequest)
        return json_answer(await self._catalog.turn_models(asked.action))

    async def live(self, _: web.Request) -> web.Response:
        return json_answer(Health(status="ok"))

    async def ready(self, _: web.Request) -> web.Response:
        watcher = (await self._catalog.status()).watcher
        checks = {"watcher": watcher.state, "observer": watcher.observer or "elsewhere", "ingestion": watcher.waiting_for or "ok"}
        if watcher.state not in {"watching", "standby"}:
            return json_answer(Health(status="unavailable", detail=watcher.state, checks=checks), status=503)
        return json_answer(Health(status="ok", checks=checks))

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        self._status.show(await self._catalog.status(), await self._catalog.oldest_pending_s())
        await self._index.look()
        return await self._render(request)


def make_app(catalog: FolderCatalog, metrics: IngestionMetrics, index: IndexMetrics, gate: Gate) -> web.Application:
    """The watcher's HTTP side."""
    routes = Routes(catalog, metrics, index)
    routine = ("/v1/status", "/v1/models")
    app = make_application("watcher", metrics.registry, gate=gate, client_max_size=_LARGEST_BODY, routine=routine)
    app.add_routes(
        [
            web.get("/v1/status", routes.status),
            web.get("/v1/failures", routes.failures),
            web.post("/v1/states", routes.states),
            web.post("/v1/notice", routes.notice),
            web.post("/v1/hints", routes.hint),
            web.get("/v1/images/{id}", routes.image),
            web.delete("/v1/images/{id}", routes.delete),
            web.post("/v1/images/{id}/segment", routes.segment),
            web.post("/v1/embeddings", routes.take_embeddings),
            web.get("/v1/models", routes.models),
            web.post("/v1/models", routes.turn_models),
            web.get("/health/live", routes.live),
            web.get("/health/ready", routes.ready),
            web.get("/metrics", routes.metrics),
        ]
    )
    return app


def _number(request: web.Request, name: str, *, default: int, least: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not least <= int(text) <= most:
        raise InvalidRequest(f"{name} must be a whole number from {least} to {most}", field=name)
    return int(text)


def _flag(request: web.Request, name: str) -> bool:
    text = request.query.get(name, "false").lower()
    if text not in {"true", "false", "1", "0"}:
        raise InvalidRequest(f"{name} must be true or false", field=name)
    return text in {"true", "1"}
