"""The webhook of the bucket that holds the pictures."""

from __future__ import annotations

from aiohttp import web

from core.errors import NotFound
from core.web import json_answer, read_json
from searchsvc.image_events import ImageEvents, ImageEventsAnswer, hinted_paths
from searchsvc.routes.asking import check_may_write
from searchsvc.services import SERVICES
from searchsvc.urls import API


def routes() -> list[web.RouteDef]:
    return [web.post(f"{API}/image-events", take)]


async def take(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    check_may_write(request)
    if services.bucket is None:
        raise NotFound("the pictures lie in a folder, whose changes are seen: IMAGES_URL names a bucket")
    events = await read_json(request, ImageEvents)
    paths = hinted_paths(events, services.bucket)
    hints = await services.catalog.hint(paths) if paths else 0
    return json_answer(ImageEventsAnswer(hints=hints, ignored=len(events.Records) - hints), status=202)
