"""A row's bytes: from a file, an address, or a bucket."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import httpx

from imagesearch.backfill.places import bucket_store
from imagesearch.backfill.rows import Kind, Row, UnreadableSource

if TYPE_CHECKING:
    from obstore.store import S3Store

_MOST_BYTES = 256 * 2**20
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_LONGEST_S = 900.0
"""Of a download in all: one that drips would never be too late for the others."""


class Unfetchable(Exception):
    """There are no bytes to bring. `passes`: the same may succeed later."""

    def __init__(self, reason: str, detail: str, *, passes: bool) -> None:
        super().__init__(detail)
        self.reason = reason
        self.passes = passes


class Fetcher:
    """An async context manager."""

    def __init__(self) -> None:
        self._http: httpx.AsyncClient | None = None
        self._stores = cache(bucket_store)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._http is not None:
            await self._http.aclose()

    async def fetch(self, row: Row) -> tuple[bytes, str]:
        """Bytes and their SHA-256. Raises Unfetchable, also where they are not those of the row's `sha256`; UnreadableSource."""
        content = await self._content(row)
        image_id = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
        if row.sha256 not in {None, image_id}:
            raise Unfetchable("differs", f"the bytes have the SHA-256 {image_id}", passes=False)
        return content, image_id

    async def _content(self, row: Row) -> bytes:
        match row.kind:
            case Kind.FILE:
                return await asyncio.to_thread(_read, Path(row.place))
            case Kind.URL:
                return await self._download(row.place)
            case _:
                parts = urlsplit(row.place)
                return await _object(self._stores(parts.netloc), row.place.removeprefix(f"s3://{parts.netloc}/"))

    def _connections(self) -> httpx.AsyncClient:
        """Made for the first address: files and buckets need no proxy that the environment names, and nothing from it to be read."""
        if self._http is None:
            try:
                self._http = httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=True)
            except (ImportError, ValueError) as error:
                raise UnreadableSource(f"the proxy that the environment names does not serve: {error}") from None
        return self._http

    async def _download(self, url: str) -> bytes:
        received = bytearray()
        try:
            async with asyncio.timeout(_LONGEST_S), self._connections().stream("GET", url) as answer:
                if not answer.is_success:
                    passes = answer.status_code in {408, 425, 429} or answer.status_code >= 500
                    raise Unfetchable(f"http_{answer.status_code}", answer.reason_phrase, passes=passes)
                async for chunk in answer.aiter_bytes():
                    received += chunk
                    _check_size(len(received))
        except (httpx.TransportError, httpx.TooManyRedirects, httpx.DecodingError) as error:
            raise Unfetchable("unreachable", type(error).__name__, passes=True) from None
        except TimeoutError:
            raise Unfetchable("too_slow", f"not whole within {_LONGEST_S:.0f} s", passes=False) from None
        except (httpx.InvalidURL, UnicodeError):
            raise Unfetchable("bad_row", "url: not an address", passes=False) from None
        return bytes(received)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Unfetchable("unreadable", "no regular file", passes=False)
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise Unfetchable("missing", "there is no such file", passes=False) from None
    except OSError as error:
        raise Unfetchable("unreadable", error.strerror or "", passes=False) from None
    except ValueError:  # a name with a zero in it
        raise Unfetchable("bad_row", "path: cannot be a file's name", passes=False) from None
    _check_size(len(content))
    return content


def _at_once(name: str, flags: int) -> int:
    """To open a pipe would else wait for somebody who writes into it."""
    return os.open(name, flags | os.O_NONBLOCK)


async def _object(store: S3Store, key: str) -> bytes:
    from obstore.exceptions import (  # noqa: PLC0415 - an extra
        BaseError,
        InvalidPathError,
        PermissionDeniedError,
        UnauthenticatedError,
    )

    try:
        result = await store.get_async(key)
        _check_size(result.meta["size"])
        return bytes(await result.bytes_async())
    except FileNotFoundError:
        raise Unfetchable("missing", "there is no such object", passes=False) from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise Unfetchable("unreadable", "the keys do not open it", passes=False) from None
    except InvalidPathError:
        raise Unfetchable("bad_row", "no object of such a name can be asked for", passes=False) from None
    except BaseError:
        raise Unfetchable("unreachable", "the bucket does not answer", passes=True) from None


def _check_size(size: int) -> None:
    if size > _MOST_BYTES:
        raise Unfetchable("too_many_bytes", f"more than {_MOST_BYTES:,} bytes", passes=False)
