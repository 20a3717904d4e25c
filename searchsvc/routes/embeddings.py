"""Embeddings out."""

from __future__ import annotations

import re

from aiohttp import web

from core.errors import InvalidRequest
from searchsvc.embeddings import DEFAULT_EMBEDDINGS, MAX_EMBEDDINGS
from searchsvc.routes.asking import check_may_read, number, truth
from searchsvc.services import SERVICES
from searchsvc.urls import API

_CURSOR = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def routes() -> list[web.RouteDef]:
    return [web.get(f"{API}/embeddings", embeddings)]


async def embeddings(request: web.Request) -> web.Response:
    """All of what was found in the pictures is had from it, so it is read as what is personal."""
    services = request.app[SERVICES]
    check_may_read(request)
    first = request.query.get("cursor")
    if first is not None and not _CURSOR.fullmatch(first):
        raise InvalidRequest("cursor: not one that an answer gave", field="cursor")
    page = await services.embeddings.page(
        request.query.get("model"),
        first=first,
        limit=number(request, "limit", default=DEFAULT_EMBEDDINGS, least=1, most=MAX_EMBEDDINGS),
        segments=truth(request, "segments"),
    )
    return web.Response(body=page, content_type="application/json")
