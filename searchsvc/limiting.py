"""The limits at the door of the routes: which kind each one is of, and who asks."""

from __future__ import annotations

from typing import Any

from aiohttp import hdrs, web

from core.web import Handler
from searchsvc.callers import Callers
from searchsvc.limits import Kind, RateLimits
from searchsvc.services import SERVICES
from searchsvc.urls import API

_KINDS = {
    f"{API}/search-image": Kind.SEARCH,
    f"{API}/compare-models": Kind.SEARCH,
    f"{API}/facets": Kind.SEARCH,
    f"{API}/image-states": Kind.SEARCH,
    f"{API}/create-feedback": Kind.RATING,
}
_READING = {hdrs.METH_GET, hdrs.METH_HEAD}


def kind_of(method: str, route: str) -> Kind | None:
    """What is not named and not reading is writing, so that no new route is forgotten; None for what nobody counts."""
    return _KINDS.get(route, None if method in _READING else Kind.WRITING)


def address_of(request: web.Request) -> str:
    return request.app[SERVICES].callers.address(request.remote, request.headers.getall("X-Forwarded-For", []))


def limiting(limits: RateLimits, callers: Callers) -> Any:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        kind = kind_of(request.method, resource.canonical) if resource else None
        address = address_of(request)
        if kind is not None and not callers.is_local(address):
            authorization = request.headers.get(hdrs.AUTHORIZATION)
            limits.take(kind, request.app[SERVICES].clients.name(authorization=authorization, address=address))
        return await handler(request)

    return middleware
