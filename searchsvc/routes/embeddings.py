"""Embeddings out and in."""

from __future__ import annotations

import re

from aiohttp import web

from core.errors import InvalidRequest
from core.schemas import ImportRequest
from core.web import json_answer, read_json
from searchsvc.embeddings import DEFAULT_ANALYSES, DEFAULT_EMBEDDINGS, MAX_ANALYSES, MAX_EMBEDDINGS
from searchsvc.routes.asking import check_may_read, check_may_write, number, truth
from searchsvc.services import SERVICES
from searchsvc.urls import API

_CURSOR = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def routes() -> list[web.RouteDef]:
    return [
        web.get(f"{API}/embeddings", embeddings),
        web.post(f"{API}/embeddings", take),
        web.get(f"{API}/analyses", analyses),
    ]


async def embeddings(request: web.Request) -> web.Response:
    """All of what was found in the pictures is had from it, so it is read as what is personal."""
    services = request.app[SERVICES]
    check_may_read(request)
    page = await services.embeddings.page(
        request.query.get("model"),
        first=_cursor(request),
        limit=number(request, "limit", default=DEFAULT_EMBEDDINGS, least=1, most=MAX_EMBEDDINGS),
        segments=truth(request, "segments"),
    )
    return web.Response(body=page, content_type="application/json")


async def analyses(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    check_may_read(request)
    page = await services.embeddings.analyses(
        first=_cursor(request),
        limit=number(request, "limit", default=DEFAULT_ANALYSES, least=1, most=MAX_ANALYSES),
        fingerprint=request.query.get("fingerprint"),
    )
    return web.Response(body=page, content_type="application/json")


async def take(request: web.Request) -> web.Response:
    check_may_write(request)
    asked = await read_json(request, ImportRequest)
    return json_answer(await request.app[SERVICES].catalog.take_embeddings(asked))


def _cursor(request: web.Request) -> str | None:
    first = request.query.get("cursor")
    if first is not None and not _CURSOR.fullmatch(first):
        raise InvalidRequest("cursor: not one that an answer gave", field="cursor")
    return first
