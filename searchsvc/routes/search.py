"""Search: words as JSON, pictures as a form."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from aiohttp import web

from core.errors import InvalidRequest, UnsupportedMediaType
from core.web import json_answer, parse, read_json
from searchsvc.schemas import JsonObject, SearchOptions
from searchsvc.services import SERVICES
from searchsvc.urls import API

_INTEGER = re.compile(r"-?[0-9]{1,9}")
_DECIMAL = re.compile(r"-?[0-9]{0,9}\.?[0-9]{1,20}([eE]-?[0-9]{1,2})?")

_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def routes() -> list[web.RouteDef]:
    return [web.post(f"{API}/search-image", search_image)]


async def search_image(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    if request.content_type == "multipart/form-data":
        async with services.receiver.form(request) as form:
            options = parse(SearchOptions, options_of(form.fields))
            async with asyncio.timeout(services.query_timeout_s):
                return json_answer(await services.searcher.search(options, form.file))
    if request.content_type != "application/json":
        raise UnsupportedMediaType("send words as application/json, pictures as multipart/form-data")
    options = await read_json(request, SearchOptions)
    async with asyncio.timeout(services.query_timeout_s):
        return json_answer(await services.searcher.search(options))


def options_of(fields: dict[str, str]) -> JsonObject:
    """A form's fields in JSON's types: numbers where numbers belong, `filter` as JSON; a field left empty was not filled in."""
    return {name: _typed(name, value) for name, value in fields.items() if value.strip()}


def _typed(name: str, value: str) -> Any:
    """What cannot be converted stays text, which the validation then refuses by the field's name."""
    if name in {"top_k", "offset"} and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if name == "min_score" and _DECIMAL.fullmatch(value.strip()):
        return float(value)
    if name == "feedback" and value.strip().lower() in _TRUTH:
        return _TRUTH[value.strip().lower()]
    if name == "filter":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise InvalidRequest("filter: must be JSON", field="filter") from None
    return value
