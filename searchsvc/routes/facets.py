"""Facets: what there is to filter by."""

from __future__ import annotations

import asyncio
import json
import re

from aiohttp import web

from core.errors import InvalidRequest
from core.web import json_answer, parse
from searchsvc.facets import FacetsRequest
from searchsvc.services import SERVICES
from searchsvc.urls import API

_NUMBER = re.compile(r"[0-9]{1,9}")


def routes() -> list[web.RouteDef]:
    return [web.get(f"{API}/facets", facets)]


async def facets(request: web.Request) -> web.Response:
    services, asked = request.app[SERVICES], dict[str, object]()
    for name in request.query.keys() & FacetsRequest.model_fields.keys():
        asked[name] = request.query[name]
    if _NUMBER.fullmatch(request.query.get("limit", "")):
        asked["limit"] = int(request.query["limit"])
    if "filter" in asked:
        asked["filter"] = _json(request.query["filter"])
    wanted = parse(FacetsRequest, asked)
    async with asyncio.timeout(services.query_timeout_s):
        return json_answer(await services.facets.read(wanted))


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("filter: must be JSON", field="filter") from None
