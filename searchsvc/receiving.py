"""Reading an uploaded form, part by part: nothing beyond the limits is ever held in memory."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import BadContentDispositionHeader, BadContentDispositionParam, BodyPartReader, MultipartReader, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage

from core.errors import InvalidRequest, MalformedRequest, Overloaded, PayloadTooLarge, UnsupportedMediaType

_FILE = "file"
_MAX_PARTS = 32
_MAX_FIELD_BYTES = 64 * 2**10
_MAX_FORM_OVERHEAD = _MAX_PARTS * (_MAX_FIELD_BYTES + 2**10)
_CHUNK_BYTES = 64 * 2**10


@dataclass(slots=True)
class Form:
    """The text fields of a form and its files, with the name that the first one came with."""

    fields: dict[str, str] = field(default_factory=dict)
    files: list[bytes] = field(default_factory=list)
    file_name: str | None = None


class Receiver:
    """Admits a bounded number of forms at once; the files of each may have `max_file_bytes` together."""

    def __init__(self, *, max_at_once: int, max_file_bytes: int, longest_pause_s: float) -> None:
        self._max_at_once = max_at_once
        self._max_file_bytes = max_file_bytes
        self._longest_pause_s = longest_pause_s
        self._admitted = 0

    @asynccontextmanager
    async def form(self, request: web.Request, *, most_files: int = 1) -> AsyncIterator[Form]:
        """The request's form, for as long as its place is held. Raises MalformedRequest, InvalidRequest, PayloadTooLarge, Overloaded."""
        if request.content_type != "multipart/form-data":
            raise UnsupportedMediaType("send the request as multipart/form-data")
        if (request.content_length or 0) > self._max_file_bytes + _MAX_FORM_OVERHEAD:
            raise self._too_large()
        if self._admitted >= self._max_at_once:
            raise Overloaded("too many pictures are being received", retry_after_s=2)
        _silence_aiohttp()
        self._admitted += 1
        try:
            yield await self._read(request, most_files)
        finally:
            self._admitted -= 1

    async def _read(self, request: web.Request, most_files: int) -> Form:
        form = Form()
        try:
            reader = await request.multipart()
            for number in range(_MAX_PARTS + 1):
                async with asyncio.timeout(self._longest_pause_s):
                    part = await reader.next()
                if part is None:
                    return form
                if number == _MAX_PARTS:
                    break
                if isinstance(part, MultipartReader):
                    raise MalformedRequest("parts within parts are not read")
                await self._add(form, part, most_files)
        except (
            ValueError,
            AssertionError,
            KeyError,
            LookupError,
            RuntimeError,
            BadHttpMessage,
        ):  # what aiohttp's parser is known to raise
            raise MalformedRequest("the form is not valid multipart/form-data") from None
        raise InvalidRequest(f"a form has at most {_MAX_PARTS} parts")

    async def _add(self, form: Form, part: BodyPartReader, most_files: int) -> None:
        name = part.name or ""
        if name == _FILE:
            if len(form.files) == most_files:
                raise InvalidRequest(f"send at most {most_files} file{'s' * (most_files > 1)} at a time", field=_FILE)
            left = self._max_file_bytes - sum(map(len, form.files))
            picture = await self._bytes_of(part, left, self._too_large())
            if picture or part.filename:  # else it is what browsers send where no file was chosen
                form.files.append(picture)
                form.file_name = form.file_name or part.filename
            return
        if name in form.fields:
            raise InvalidRequest(f"{name}: the field stands twice", field=name)
        too_long = InvalidRequest(f"{name}: the field is too long; pictures go as `file`", field=name)
        content = await self._bytes_of(part, _MAX_FIELD_BYTES, too_long)
        try:
            form.fields[name] = content.decode()
        except UnicodeDecodeError:
            raise MalformedRequest(f"{name}: the field is not UTF-8 text; pictures go as `file`") from None

    async def _bytes_of(self, part: BodyPartReader, limit: int, too_large: Exception) -> bytes:
        """All of a part, or `too_large` as soon as it is more than `limit`."""
        if part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "binary").lower() not in {"binary", "8bit", "7bit"}:
            raise MalformedRequest("send the parts of the form unencoded")
        received = bytearray()
        while True:
            async with asyncio.timeout(self._longest_pause_s):
                chunk = await part.read_chunk(_CHUNK_BYTES)
            if not chunk:
                return bytes(received)
            received += chunk
            if len(received) > limit:
                raise too_large

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"a picture may have at most {self._max_file_bytes:,} bytes")


def _silence_aiohttp() -> None:
    """It warns of odd part headers with all of their text, and Python keeps every warning that it has shown: memory for strangers to fill."""
    for category in (BadContentDispositionHeader, BadContentDispositionParam):
        if ("ignore", None, category, None, 0) not in warnings.filters:
            warnings.simplefilter("ignore", category)
