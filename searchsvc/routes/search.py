"""Search and comparison: words as JSON, pictures as a form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from aiohttp import web

from core.errors import UnsupportedMediaType
from core.web import json_answer, parse, read_json
from searchsvc.forms import options_of
from searchsvc.search_schema import MAX_QUERY_PICTURES, CompareOptions, QueryOptions, SearchOptions
from searchsvc.services import SERVICES
from searchsvc.urls import API

OptionsT = TypeVar("OptionsT", bound=QueryOptions)


def routes() -> list[web.RouteDef]:
    return [web.post(f"{API}/search-image", search_image), web.post(f"{API}/compare-models", compare_models)]


async def search_image(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    async with _asked(request, SearchOptions) as (options, pictures):
        return json_answer(await services.searcher.search(options, pictures))


async def compare_models(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    async with _asked(request, CompareOptions) as (options, pictures):
        return json_answer(await services.searcher.compare(options, pictures))


@asynccontextmanager
async def _asked(request: web.Request, model: type[OptionsT]) -> AsyncIterator[tuple[OptionsT, Sequence[bytes]]]:
    """What the request asks, and the time that there is to answer it. The form's place is held for as long."""
    services = request.app[SERVICES]
    if request.content_type == "multipart/form-data":
        async with services.receiver.form(request, most_files=MAX_QUERY_PICTURES) as form:
            options = parse(model, options_of(model, form.fields))
            with services.admission.place():
                async with asyncio.timeout(services.query_timeout_s):
                    yield options, form.files
        return
    if request.content_type != "application/json":
        raise UnsupportedMediaType("send words as application/json, pictures as multipart/form-data")
    options = await read_json(request, model)  # before it has a place: who sends it slowly keeps nobody else from being answered
    with services.admission.place():
        async with asyncio.timeout(services.query_timeout_s):
            yield options, ()
