"""Answering with a file: entity tags and times, 304, one byte range; every refusal a problem document."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from email.utils import formatdate
from typing import TypeVar

from aiohttp import hdrs, web

from core.ports import OpenedFile
from core.problems import problem
from core.web import request_id_of

_CHUNK_BYTES = 256 * 2**10

OpenedT = TypeVar("OpenedT", OpenedFile, OpenedFile | None)


def not_modified(request: web.Request, etag: str, headers: Mapping[str, str]) -> web.Response | None:
    """A 304 if the caller already holds what `etag` names."""
    held = request.if_none_match or ()
    return _held(etag, headers) if any(tag.value in {etag, "*"} for tag in held) else None


def _not_modified_since(request: web.Request, modified_at_s: float, etag: str, headers: Mapping[str, str]) -> web.Response | None:
    """A 304 if the caller knows no tag, but a time since when nothing changed (RFC 9110, 13.1.3)."""
    if hdrs.IF_NONE_MATCH in request.headers:
        return None
    try:
        since = request.if_modified_since
    except OverflowError:  # a year or an hour of twenty digits
        return None
    return _held(etag, headers) if since is not None and int(modified_at_s) <= since.timestamp() else None


def _held(etag: str, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=304, headers={**headers, hdrs.ETAG: f'"{etag}"'})


async def opened_by(executor: Executor, open_: Callable[[], OpenedT]) -> OpenedT:
    """What a call opens on a thread; for a caller who leaves meanwhile, it is closed again. Raises what the call raises."""
    opening = asyncio.get_running_loop().run_in_executor(executor, open_)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_closed)
        raise


def _closed(opening: asyncio.Future[OpenedT]) -> None:
    if not opening.cancelled() and opening.exception() is None and (opened := opening.result()) is not None:
        opened.file.close()


async def send_file(
    request: web.Request, opened: OpenedFile, *, etag: str, headers: Mapping[str, str], executor: Executor
) -> web.StreamResponse:
    """Stream an open file, which is closed on return."""
    with opened:
        headers = {**headers, hdrs.ACCEPT_RANGES: "bytes"}
        with suppress(ValueError, OverflowError, OSError):  # a year that HTTP has no words for, and file systems have
            headers[hdrs.LAST_MODIFIED] = formatdate(opened.modified_at_s, usegmt=True)
        unchanged = not_modified(request, etag, headers) or _not_modified_since(request, opened.modified_at_s, etag, headers)
        if unchanged is not None:
            return unchanged
        wanted = _wanted_range(request, opened, etag)
        if wanted is not None and len(wanted) == 0:
            return problem(
                416,
                "the file is shorter than the range asked for",
                request_id=request_id_of(request),
                headers={hdrs.CONTENT_RANGE: f"bytes */{opened.size}"},
            )
        part = range(opened.size) if wanted is None else wanted
        response = web.StreamResponse(status=200 if wanted is None else 206, headers={**headers, hdrs.ETAG: f'"{etag}"'})
        response.content_length = len(part)
        if wanted is not None:
            response.headers[hdrs.CONTENT_RANGE] = f"bytes {part.start}-{part.stop - 1}/{opened.size}"
        await response.prepare(request)
        with suppress(ConnectionResetError):  # the caller went away
            if request.method == hdrs.METH_HEAD or await _send(response, opened, part, executor):
                await response.write_eof()
            elif request.transport is not None:
                request.transport.abort()  # the promised length cannot be kept, so the caller must see a broken answer
        return response


async def _send(response: web.StreamResponse, opened: OpenedFile, part: range, executor: Executor) -> bool:
    """False if the file became shorter while it was being sent."""
    loop = asyncio.get_running_loop()
    descriptor = opened.file.fileno()
    at = part.start
    while at < part.stop:
        chunk = await loop.run_in_executor(executor, os.pread, descriptor, min(_CHUNK_BYTES, part.stop - at), at)
        if not chunk:
            return False
        at += len(chunk)
        await response.write(chunk)
    return True


def _wanted_range(request: web.Request, opened: OpenedFile, etag: str) -> range | None:
    """None for the whole: no range, several, one of another version, or no GET. Empty if it lies outside, or is of no bytes."""
    header = request.headers.get(hdrs.RANGE)
    condition = request.headers.get(hdrs.IF_RANGE)
    if header is None or request.method != hdrs.METH_GET or (condition is not None and condition != f'"{etag}"'):
        return None
    try:
        wanted = request.http_range
    except ValueError:
        return None
    if wanted.start is None:
        return None
    if header.partition("=")[2].startswith("-"):  # of the last 0 bytes, aiohttp makes all
        return range(max(0, opened.size + wanted.start), opened.size)
    stop = opened.size if wanted.stop is None else min(wanted.stop, opened.size)
    return range(wanted.start, stop) if wanted.start < stop else range(0)
