"""Images: upload, state, file, thumbnail, segments, masks, deletion."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import quote

from aiohttp import hdrs, web

from core.errors import InvalidRequest, NotFound
from core.images.kinds import content_type
from core.points import location_of, taken_at_of
from core.schemas import CONTENT_HASH_PATTERN, ImageRecord, ImageState, Orientation, Segment, SegmentMode
from core.web import json_answer, read_json
from searchsvc import urls
from searchsvc.matches import segment_view
from searchsvc.routes.asking import check_may_write
from searchsvc.schemas import (
    ImageView,
    NoticesAnswer,
    NoticesRequest,
    SegmentRequest,
    SegmentsAnswer,
    StatesRequest,
    UploadAnswer,
)
from searchsvc.sending import not_modified, opened_by, send_file
from searchsvc.services import SERVICES
from searchsvc.thumbnails import DEFAULT_SIZE, SIZES
from searchsvc.urls import API

_IMAGE_ID = re.compile(CONTENT_HASH_PATTERN)
_SEGMENT_NUMBER = re.compile(r"[0-9]{1,6}")

_FILE_HEADERS: dict[str, str] = {
    hdrs.CACHE_CONTROL: "private, no-cache",
    hdrs.CONTENT_SECURITY_POLICY: "default-src 'none'; frame-ancestors 'none'; sandbox",
}
_DERIVED_HEADERS: dict[str, str] = {hdrs.CACHE_CONTROL: "private, max-age=31536000, immutable"}
"""Named after the bytes that they derive from, so they never change."""


def routes() -> list[web.RouteDef]:
    image = f"{API}/images/{{image_id}}"
    return [
        web.post(f"{API}/images", upload),
        web.post(f"{API}/image-states", states),
        web.post(f"{API}/image-notices", notice),
        web.get(image, show),
        web.delete(image, delete),
        web.get(f"{image}/file", file),
        web.get(f"{image}/thumbnail", thumbnail),
        web.get(f"{image}/segments", segments),
        web.get(f"{image}/segments/{{n}}/mask", mask),
        web.post(f"{image}/segment", segment_again),
    ]


async def upload(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    check_may_write(request)
    async with services.receiver.form(request) as form:
        if unknown := sorted(form.fields.keys() - {"folder", "backfill"}):
            raise InvalidRequest("the form takes `file`, `folder` and `backfill`", field=unknown[0])
        backfill = form.fields.get("backfill", "false").lower()
        if backfill not in {"true", "false"}:
            raise InvalidRequest("backfill: must be true or false", field="backfill")
        if not form.files:
            raise InvalidRequest("the form needs a `file`", field="file")
        image_id = await services.uploads.add(
            form.files[0], offered_name=form.file_name, folder=form.fields.get("folder"), backfill=backfill == "true"
        )
    address = urls.image(image_id)
    return json_answer(UploadAnswer(image_id=image_id, status_url=address), status=202, headers={hdrs.LOCATION: address})


async def states(request: web.Request) -> web.Response:
    asked = await read_json(request, StatesRequest)
    return json_answer(await request.app[SERVICES].catalog.states(asked.image_ids, asked.paths))


async def notice(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    check_may_write(request)
    asked = await read_json(request, NoticesRequest)
    return json_answer(NoticesAnswer(hints=await services.catalog.hint(asked.paths, backfill=True)), status=202)


async def show(request: web.Request) -> web.Response:
    image_id = _image_id(request)
    services = request.app[SERVICES]
    record = await services.catalog.image(image_id)
    stored = await services.corpus.payload(image_id) if record.state is ImageState.INDEXED else {}
    view = ImageView(
        **{name: getattr(record, name) for name in ImageRecord.model_fields},
        orientation=Orientation.of(record.width, record.height) if record.width and record.height else None,
        taken_at=taken_at_of(stored),
        location=location_of(stored),
        image_url=urls.image_file(image_id),
        thumbnail_url=urls.thumbnail(image_id),
        segments_url=urls.segments(image_id),
    )
    return json_answer(view)


async def delete(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    check_may_write(request)
    image_id = _image_id(request)
    record = await services.catalog.image(image_id)
    await asyncio.get_running_loop().run_in_executor(services.reading, services.originals.forget, record.paths)
    await services.catalog.delete(image_id)
    await services.thumbnails.forget(image_id)
    return web.Response(status=204)


async def file(request: web.Request) -> web.StreamResponse:
    services = request.app[SERVICES]
    image_id = _image_id(request)
    record = await services.catalog.image(image_id)
    name = quote(PurePosixPath(record.paths[0]).name, safe="")
    disposition = f"inline; filename*=UTF-8''{name}"
    linked = partial(
        services.originals.link_first, record.paths, size=record.bytes, disposition=disposition, method=request.method
    )
    if (link := await asyncio.get_running_loop().run_in_executor(services.reading, linked)) is not None:
        held = not_modified(request, image_id, _FILE_HEADERS)
        return held or web.Response(status=302, headers={**_FILE_HEADERS, hdrs.LOCATION: link})
    opened = await opened_by(services.reading, lambda: services.originals.open_first(record.paths, size=record.bytes))
    headers: dict[str, str] = {
        **_FILE_HEADERS,
        hdrs.CONTENT_TYPE: content_type(opened.first_bytes),
        hdrs.CONTENT_DISPOSITION: disposition,
    }
    return await send_file(request, opened, etag=image_id, headers=headers, executor=services.reading)


async def thumbnail(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    image_id = _image_id(request)
    asked = request.query.get("size", str(DEFAULT_SIZE))
    if asked not in {str(size) for size in SIZES}:
        raise InvalidRequest(f"thumbnails have one of the sizes {', '.join(map(str, SIZES))}", field="size")
    record = await services.catalog.image(image_id)
    etag = f"{image_id}-{asked}"
    if (unchanged := not_modified(request, etag, _DERIVED_HEADERS)) is not None:
        return unchanged
    picture = await services.thumbnails.get(image_id, record.paths, int(asked))
    return web.Response(body=picture, content_type="image/webp", headers={**_DERIVED_HEADERS, hdrs.ETAG: f'"{etag}"'})


async def segments(request: web.Request) -> web.Response:
    image_id = _image_id(request)
    return _segments_answer(image_id, await request.app[SERVICES].corpus.segments(image_id))


async def mask(request: web.Request) -> web.Response:
    image_id = _image_id(request)
    number = request.match_info["n"]
    if not _SEGMENT_NUMBER.fullmatch(number):
        raise NotFound("this image has no such segment")
    picture = await request.app[SERVICES].corpus.mask_png(image_id, int(number))
    return web.Response(body=picture, content_type="image/png", headers={hdrs.CACHE_CONTROL: "private, no-cache"})


async def segment_again(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    check_may_write(request)
    image_id = _image_id(request)
    wanted = await read_json(request, SegmentRequest)
    return _segments_answer(image_id, await services.catalog.resegment(image_id, SegmentMode(wanted.mode)))


def _segments_answer(image_id: str, found: list[Segment]) -> web.Response:
    views = tuple(segment_view(image_id, segment) for segment in found)
    return json_answer(SegmentsAnswer(image_id=image_id, segments=views))


def _image_id(request: web.Request) -> str:
    image_id = request.match_info["image_id"]
    if not _IMAGE_ID.fullmatch(image_id):
        raise NotFound("there is no image of that id")
    return image_id
